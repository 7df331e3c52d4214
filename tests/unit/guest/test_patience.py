from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sevkit.guest.patience import Patience

if TYPE_CHECKING:
    from collections.abc import Callable


def waits(seconds: float, clock_costs: float = 0) -> list[float]:
    slept: list[float] = []
    passed = [0.0]

    def sleep(delay: float) -> None:
        slept.append(delay)
        passed[0] += delay + clock_costs

    patience = Patience(seconds, sleep=sleep, now=lambda: passed[0])
    while patience.wait():
        assert len(slept) < 1000
    assert patience.tried
    return slept


def test_waits_grow_and_stay_within_the_bound() -> None:
    assert waits(30) == [1, 2, 4, 8, 8]
    assert waits(1) == [1]


def test_no_time_is_no_wait() -> None:
    assert waits(0) == []


def test_what_the_attempts_take_counts() -> None:
    assert waits(60, clock_costs=50) == [1, 2]


@pytest.mark.parametrize("make", [Patience])
def test_nothing_was_waited_for_at_first(make: Callable[[float], Patience]) -> None:
    assert not make(5).tried
