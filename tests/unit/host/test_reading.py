from __future__ import annotations

import errno

import pytest

from sevkit.errors import FormatError
from sevkit.host.reading import (
    Cause,
    Known,
    Unreadable,
    absent,
    convert,
    not_asked,
    not_readable,
    value_of,
)


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (errno.ENOENT, Cause.ABSENT),
        (errno.ENOTDIR, Cause.ABSENT),
        (errno.EACCES, Cause.DENIED),
        (errno.EPERM, Cause.DENIED),
        (errno.EIO, Cause.FAILED),
        (errno.ELOOP, Cause.FAILED),
    ],
)
def test_what_the_kernel_says_becomes_a_cause(number: int, cause: Cause) -> None:
    found = not_readable("/sys/x", OSError(number, "words of its own"))
    assert found.cause is cause
    assert found.detail.startswith("/sys/x: ")


def test_values_go_through_and_reasons_stay_as_they_are() -> None:
    missing = absent("/proc/x")
    assert convert(Known("12"), int) == Known(12)
    assert convert(missing, int) is missing
    assert value_of(Known(value=False)) is False
    assert value_of(missing) is None


def test_what_does_not_parse_is_malformed() -> None:
    def refuse(_: str) -> int:
        raise FormatError("module parameter", "not a number")

    assert convert(Known("x"), refuse) == Unreadable(
        Cause.MALFORMED, "module parameter: not a number"
    )


def test_nobody_looked_is_a_reason_of_its_own() -> None:
    assert not_asked("/dev/sev", "a copy").cause is Cause.NOT_ASKED
