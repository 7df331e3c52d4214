from __future__ import annotations

import pytest

from sevkit.cli.readiness import MARKS, headline, is_ready
from sevkit.host.doctor.check import Verdict


@pytest.mark.parametrize(
    ("code", "ready", "words"),
    [
        (0, True, "ready (exit code 0)"),
        (3, False, "NOT READY (exit code 3)"),
        (4, None, "could not find out whether it is ready (exit code 4)"),
    ],
)
def test_an_exit_code_says_yes_no_or_not_known(code: int, ready: bool | None, words: str) -> None:
    assert is_ready(code) is ready
    assert headline(code) == words


@pytest.mark.parametrize("code", [1, 2, 70])
def test_any_other_is_no_answer_and_never_taken_for_one(code: int) -> None:
    with pytest.raises(KeyError):
        is_ready(code)


def test_every_outcome_has_its_mark_and_all_are_as_wide() -> None:
    assert MARKS.keys() == set(Verdict)
    assert {len(mark) for mark in MARKS.values()} == {4}
