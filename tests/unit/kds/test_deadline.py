from __future__ import annotations

import socket
import ssl

import pytest

from sevkit.kds.deadline import Deadline, DeadlineContext, connect


class Ticks:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_deadline_counts_down_and_then_raises() -> None:
    ticks = Ticks()
    deadline = Deadline(5, ticks)
    ticks.now += 3
    assert deadline.left() == 2
    ticks.now += 2
    with pytest.raises(TimeoutError):
        deadline.left()


def test_a_context_checks_certificates_and_names() -> None:
    context = DeadlineContext.make(None, Deadline(1, Ticks()))
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("ca", [b"", b"no certificate", b"\xff"])
def test_authorities_that_are_none_are_refused(ca: bytes) -> None:
    with pytest.raises((ssl.SSLError, ValueError)):
        DeadlineContext.make(ca, Deadline(1, Ticks()))


def test_a_name_that_cannot_be_one_is_a_failed_look_up() -> None:
    with pytest.raises(socket.gaierror):
        connect("a" * 80 + ".invalid", 443, Deadline(1, Ticks()))
