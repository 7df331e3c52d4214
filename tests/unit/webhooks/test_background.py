from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

from webhooks.background import REST_SECONDS, Background

if TYPE_CHECKING:
    import pytest

PATIENCE: Final = 10.0


def test_it_is_done_again_and_again_until_it_is_stopped() -> None:
    called = threading.Semaphore(0)

    def step() -> float:
        called.release()
        return 0.001

    running = Background("b", step)
    with running:
        for _ in range(3):
            assert called.acquire(timeout=PATIENCE)
    assert running.stop()


def test_it_rests_for_as_long_as_a_step_says() -> None:
    steps: list[int] = []
    done = threading.Event()

    def step() -> float:
        steps.append(1)
        done.set()
        return 3600.0

    with Background("b", step):
        assert done.wait(PATIENCE)
        assert not threading.Event().wait(0.05)
    assert len(steps) == 1


def test_what_a_step_waits_for_is_interrupted() -> None:
    waits, over = threading.Event(), threading.Event()

    def step() -> float:
        waits.set()
        over.wait()
        return 0.0

    running = Background("b", step, interrupt=over.set)
    running.start()
    assert waits.wait(PATIENCE)
    assert running.stop()


def test_one_that_hangs_all_the_same_is_left() -> None:
    waits, over = threading.Event(), threading.Event()

    def step() -> float:
        waits.set()
        over.wait()
        return 0.0

    running = Background("b", step)
    running.start()
    assert waits.wait(PATIENCE)
    assert not running.stop()
    over.set()


def test_a_bug_is_logged_and_it_goes_on_after_a_rest(caplog: pytest.LogCaptureFixture) -> None:
    called = threading.Semaphore(0)

    def step() -> float:
        called.release()
        raise RuntimeError("a bug")

    with caplog.at_level(logging.CRITICAL), Background("b", step, rest=0.001):
        for _ in range(2):
            assert called.acquire(timeout=PATIENCE)
    first, *_ = caplog.records
    assert (first.levelname, first.getMessage()) == ("CRITICAL", "internal error, a bug")
    assert REST_SECONDS == 60.0


def test_what_was_never_started_is_stopped_too() -> None:
    assert Background("b", lambda: 1.0).stop()
