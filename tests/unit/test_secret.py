from __future__ import annotations

import copy
import json
import logging
import pickle

import pytest

from sevkit.secret import Secret

KEY = bytes(range(16))


def test_the_bytes_come_out_by_one_door_only() -> None:
    secret = Secret(KEY)
    assert secret.reveal() == KEY
    assert len(secret) == 16


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{!r}".format, "{:>40}".format])
def test_no_way_of_showing_it_shows_it(show: type[str]) -> None:
    shown = show(Secret(KEY))
    assert shown == "Secret(<16 bytes>)"


def test_logging_it_does_not_show_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        logging.getLogger("test").info("key %s and %r", Secret(KEY), [Secret(KEY)])
    assert caplog.messages == ["key Secret(<16 bytes>) and [Secret(<16 bytes>)]"]


@pytest.mark.parametrize("copy_of", [pickle.dumps, copy.copy, copy.deepcopy, json.dumps])
def test_it_is_never_serialised(copy_of: type) -> None:
    with pytest.raises(TypeError):
        copy_of(Secret(KEY))


def test_it_has_no_hash_which_would_be_a_fingerprint() -> None:
    with pytest.raises(TypeError):
        hash(Secret(KEY))


def test_equality_is_by_value_and_never_with_plain_bytes() -> None:
    assert Secret(KEY) == Secret(KEY)
    assert Secret(KEY) != Secret(KEY[:-1])
    assert Secret(KEY) != Secret(bytes(16))
    assert Secret(KEY) != KEY


def test_a_buffer_that_changes_later_does_not_change_it() -> None:
    buffer = bytearray(KEY)
    secret = Secret(bytes(buffer))
    buffer[0] = 0xFF
    assert secret.reveal() == KEY


def test_it_has_no_place_for_another_attribute() -> None:
    with pytest.raises(AttributeError):
        Secret(KEY).comment = "disk key"  # type: ignore[attr-defined]  # that is the point
