"""Signals of this very process: what was there before is put back afterwards."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Final

import pytest

from node_agent.signals import GRACE, Signals, Stopped

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMBERS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM)


@pytest.fixture
def signals() -> Iterator[Signals]:
    before = {number: signal.getsignal(number) for number in NUMBERS}
    made = Signals()
    yield made
    signal.setitimer(signal.ITIMER_REAL, 0)
    mouth = signal.set_wakeup_fd(-1)
    for descriptor in (mouth, made._ear):
        os.close(descriptor)
    for number, handler in before.items():
        signal.signal(number, handler)


def seconds_of(signals: Signals, seconds: float) -> float:
    begun = time.monotonic()
    signals.wait(seconds)
    return time.monotonic() - begun


def test_a_sleep_without_a_signal_takes_its_time(signals: Signals) -> None:
    assert seconds_of(signals, 0.1) >= 0.1
    assert not signals.stopping
    assert not signals.take_hup()


@pytest.mark.parametrize("seconds", [0, -5, -1e9])
def test_a_time_that_is_over_is_no_sleep(signals: Signals, seconds: float) -> None:
    assert seconds_of(signals, seconds) < 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_noted_and_ends_every_sleep(signals: Signals, number: int) -> None:
    os.kill(os.getpid(), number)
    assert signals.stopping
    for _ in range(3):
        assert seconds_of(signals, 60) < 1


def test_a_hup_is_noted_once_and_does_not_stop(signals: Signals) -> None:
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGHUP)
    assert not signals.stopping
    assert (signals.take_hup(), signals.take_hup()) == (True, False)


def test_a_signal_between_the_last_look_and_the_sleep_is_not_missed(signals: Signals) -> None:
    os.kill(os.getpid(), signal.SIGHUP)
    assert seconds_of(signals, 60) < 1
    assert seconds_of(signals, 0.05) >= 0.05, "and it ends one sleep only"


def test_a_signal_during_a_sleep_ends_it(signals: Signals) -> None:
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGHUP))
    timer.start()
    assert 0.05 < seconds_of(signals, 60) < 5
    assert signals.take_hup()
    timer.join()


def test_many_signals_are_taken_together(signals: Signals) -> None:
    for _ in range(100_000):
        signal.raise_signal(signal.SIGHUP)
    for _ in range(64):  # more than fit were dropped, and nothing was said of it
        signals.wait(0)
    assert signals.take_hup()
    assert seconds_of(signals, 0.05) >= 0.05


def test_whatever_hangs_after_a_stop_is_broken_off_in_time(signals: Signals) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    begun = time.monotonic()
    with pytest.raises(Stopped):
        time.sleep(10)
    assert GRACE * 0.9 < time.monotonic() - begun < 2


def test_being_stopped_is_no_error_that_code_may_catch() -> None:
    assert not issubclass(Stopped, Exception)
