from __future__ import annotations

import random
from typing import Final

import pytest

from node_agent.backoff import Backoff, jittered

#: By chance, the same each time.
CHANCE: Final = random.Random(5)  # noqa: S311  # a schedule, not a key


@pytest.mark.parametrize(
    ("failures", "longest"), [(1, 2), (2, 4), (3, 8), (7, 128), (8, 256), (9, 300), (50, 300)]
)
def test_each_failure_doubles_the_wait_up_to_the_cap(failures: int, longest: float) -> None:
    waits = [Backoff().delay(failures, CHANCE) for _ in range(500)]
    assert longest / 2 <= min(waits) < longest * 0.55
    assert longest * 0.95 < max(waits) <= longest


@pytest.mark.parametrize("failures", [1000, 10**9, 10**30])
def test_an_outage_of_years_is_no_overflow(failures: int) -> None:
    assert Backoff().delay(failures, CHANCE) <= 300


def test_first_and_cap_can_be_others() -> None:
    waits = [Backoff(first=0.1, cap=1).delay(number, CHANCE) for number in range(1, 10)]
    assert waits[0] <= 0.1
    assert max(waits) <= 1


@pytest.mark.parametrize("asked", [1.0, 400.0, 86400.0])
def test_what_the_other_side_asks_for_is_the_least(asked: float) -> None:
    waits = [Backoff().delay(1, CHANCE, at_least=asked) for _ in range(500)]
    assert min(waits) >= asked
    assert max(waits) <= max(2.0, asked * 1.2)
    assert len(set(waits)) == 500, "not all together"


def test_a_period_is_jittered_by_a_fifth_in_both_directions() -> None:
    periods = [jittered(60, CHANCE) for _ in range(2000)]
    assert 48 <= min(periods) < 49
    assert 71 < max(periods) <= 72
    assert 59 < sum(periods) / 2000 < 61
