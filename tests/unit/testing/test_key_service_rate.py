from __future__ import annotations

import math
import threading

import pytest

from sevkit.errors import UsageError
from sevkit.testing.key_service_rate import RateLimit, RateLimiter


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_window_slides(clock: Clock) -> None:
    limiter = RateLimiter(RateLimit(2, 10), clock)
    answers = []
    for moment in (0, 4, 5, 9.99, 10, 11, 14, 15):
        clock.now = moment
        answers.append(limiter.admit("/a"))
    assert answers == [0, 0, 5, 1, 0, 3, 0, 5]


def test_whoever_waits_as_long_as_he_is_told_is_answered(clock: Clock) -> None:
    limiter = RateLimiter(RateLimit(1, 9.5), clock)
    for _ in range(20):
        clock.now += 0.7
        wait = limiter.admit("/a")
        if wait:
            clock.now += wait
            assert limiter.admit("/a") == 0


def test_a_refused_request_does_not_make_the_wait_longer(clock: Clock) -> None:
    limiter = RateLimiter(RateLimit(1, 10), clock)
    assert limiter.admit("/a") == 0
    for second in range(1, 10):
        clock.now = second
        assert limiter.admit("/a") == 10 - second
    clock.now = 10
    assert limiter.admit("/a") == 0


@pytest.mark.parametrize(
    ("per_target", "waits"), [(True, [0, 0, 10, 10]), (False, [0, 10, 10, 10])]
)
def test_addresses_are_counted_each_for_itself_or_together(
    clock: Clock, per_target: bool, waits: list[int]
) -> None:
    limiter = RateLimiter(RateLimit(1, 10, per_target=per_target), clock)
    assert [limiter.admit(target) for target in ("/a", "/b", "/a", "/b")] == waits


def test_the_wait_is_at_least_a_second(clock: Clock) -> None:
    limiter = RateLimiter(RateLimit(1, 0.25), clock)
    assert [limiter.admit("/a"), limiter.admit("/a")] == [0, 1]


def test_threads_together_get_no_more_than_the_limit(clock: Clock) -> None:
    limiter = RateLimiter(RateLimit(3, 10), clock)
    waits: list[int] = []
    threads = [
        threading.Thread(target=lambda: waits.append(limiter.admit("/a"))) for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(waits) == [0] * 3 + [10] * 9


@pytest.mark.parametrize(
    ("requests", "seconds"), [(0, 1), (-1, 1), (1, 0), (1, -1), (1, math.inf), (1, math.nan)]
)
def test_a_limit_that_is_none_is_refused(requests: int, seconds: float) -> None:
    with pytest.raises(UsageError, match="no rate limit"):
        RateLimit(requests, seconds)
