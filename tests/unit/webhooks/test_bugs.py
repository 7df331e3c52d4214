from __future__ import annotations

from typing import TYPE_CHECKING

from webhooks.bugs import Bugs

if TYPE_CHECKING:
    import pytest


def places(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [vars(record)["where"] for record in caplog.records]


def raised(text: str) -> ValueError:
    try:
        int(text)
    except ValueError as error:
        return error
    raise AssertionError(text)


def test_a_bug_is_told_once_by_its_place_and_never_by_what_it_says(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bugs = Bugs()
    for number in range(3):
        bugs.tell(raised(f"what a tenant wrote, {number}"))
    (place,) = places(caplog)
    assert place.startswith("ValueError at ")
    assert "test_bugs.py:" in place
    assert "tenant" not in caplog.text


def test_a_bug_without_a_place_is_told_too(caplog: pytest.LogCaptureFixture) -> None:
    Bugs().tell(KeyError("x"))
    assert places(caplog) == ["KeyError at an unknown place"]


def test_no_more_than_a_hundred_bugs_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    bugs = Bugs()
    for number in range(1000):
        bugs.tell_of(f"number {number}")
    assert len(places(caplog)) == 100
