from __future__ import annotations

from typing import Final

import pytest

from webhooks.exchange import TIMEOUT_CAP, TIMEOUT_SECONDS, parse_timeout
from webhooks.limits import OVERDUE, Guest, Guests, Limits, Stage


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


LIMITS: Final = Limits(connections=6, share=3, held=100)
ATTACKER: Final = "10.0.0.66"
SERVER: Final = "10.0.0.1"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def guests(clock: Clock) -> Guests:
    return Guests(LIMITS, clock)


def enter(
    guests: Guests, clock: Clock, address: str, *stages: Stage, proven: bool = False
) -> Guest:
    clock.now += 0.01
    guest, evicted = guests.enter(address, lambda: None)
    assert evicted is None
    for stage in stages:
        guests.turn(guest, stage)
    guest.proven = proven
    return guest


def evicted_for(guests: Guests, address: str) -> Guest | None:
    return guests.enter(address, lambda: None)[1]


def test_a_stage_has_its_deadline_and_the_same_stage_again_has_no_new_one(
    guests: Guests, clock: Clock
) -> None:
    guest = enter(guests, clock, SERVER, Stage.HEAD)
    clock.now += LIMITS.head - 0.1
    guests.turn(guest, Stage.HEAD)
    assert guests.overdue() == []
    clock.now += 0.2
    assert guests.overdue() == [guest]
    guests.turn(guest, Stage.BODY)
    assert guests.overdue() == []
    clock.now += LIMITS.body + 0.1
    assert guests.overdue() == [guest]


def test_a_connection_that_said_nothing_of_tls_is_overdue_too(guests: Guests, clock: Clock) -> None:
    guest = enter(guests, clock, SERVER)
    clock.now += LIMITS.greeting
    assert guests.overdue() == [guest]


def test_every_stage_has_a_deadline_and_a_meaning() -> None:
    guests = Guests(Limits(), lambda: 0.0)
    for stage in Stage:
        guest, _ = guests.enter("x", lambda: None)
        guests.turn(guest, stage)
        assert 0 < guest.deadline <= 120
    assert set(OVERDUE) == set(Stage)


def test_a_request_has_begun_with_its_first_byte(guests: Guests, clock: Clock) -> None:
    guest = enter(guests, clock, SERVER, Stage.HEAD)
    begun = clock.now
    clock.now += 1
    guests.turn(guest, Stage.BODY)
    guests.turn(guest, Stage.ASKED)
    assert guest.began == begun
    guests.turn(guest, Stage.IDLE)
    clock.now += 5
    guests.turn(guest, Stage.ASKED)  # whole at once
    assert guest.began == clock.now


def test_who_has_most_connections_makes_room(guests: Guests, clock: Clock) -> None:
    server = enter(guests, clock, SERVER)  # the oldest, and has never asked anything
    first = enter(guests, clock, ATTACKER, Stage.IDLE, proven=True)
    for _ in range(4):
        enter(guests, clock, ATTACKER, Stage.IDLE, proven=True)
    assert evicted_for(guests, ATTACKER) is first
    assert server in guests
    assert first not in guests


def test_below_their_share_whoever_never_asked_goes_first_then_whoever_rests_longest(
    guests: Guests, clock: Clock
) -> None:
    resting = [
        enter(guests, clock, f"10.0.0.{number}", Stage.IDLE, proven=True) for number in range(3)
    ]
    sending = enter(guests, clock, SERVER, Stage.BODY, proven=True)
    asked = enter(guests, clock, SERVER, Stage.ASKED)
    unproven = enter(guests, clock, SERVER, Stage.HEAD)
    order = []
    for _ in range(5):
        newcomer, evicted = guests.enter("10.0.1.2", lambda: None)
        order.append(evicted)
        guests.turn(newcomer, Stage.ASKED)
    assert order == [unproven, *resting, sending]
    assert asked in guests


def test_who_waits_for_a_decision_never_makes_room(guests: Guests, clock: Clock) -> None:
    for _ in range(LIMITS.connections):
        enter(guests, clock, ATTACKER, Stage.ASKED)
    assert evicted_for(guests, SERVER) is None
    assert len(guests) == LIMITS.connections + 1


def test_bodies_together_are_bounded_and_the_longest_goes(guests: Guests, clock: Clock) -> None:
    slow = enter(guests, clock, ATTACKER, Stage.BODY)
    whole = enter(guests, clock, SERVER, Stage.ASKED)
    quick = enter(guests, clock, SERVER, Stage.BODY)
    assert guests.hold(slow, 60) is None
    assert guests.hold(whole, 40) is None
    assert not guests.is_crowded
    assert guests.hold(quick, 30) is slow
    assert slow not in guests
    assert not guests.is_crowded
    assert guests.hold(slow, 1000) is None  # gone, and counts no more
    assert guests.hold(quick, 90) is quick
    guests.leave(whole)
    assert not guests.is_crowded


def test_what_is_released_is_held_no_more(guests: Guests, clock: Clock) -> None:
    guest = enter(guests, clock, SERVER, Stage.ASKED)
    guests.hold(guest, 101)
    assert guests.is_crowded
    guests.release(guest)
    assert not guests.is_crowded


def test_leaving_twice_is_leaving(guests: Guests, clock: Clock) -> None:
    guest = enter(guests, clock, SERVER)
    guests.leave(guest)
    guests.leave(guest)
    assert list(guests) == []


@pytest.mark.parametrize(
    ("query", "seconds"),
    [
        ("timeout=5s", 5),
        ("timeout=10s&x=y", 10),
        ("timeout=1m0s", TIMEOUT_CAP),
        ("timeout=500ms", 0.5),
        ("timeout=1.5s", 1.5),
        ("timeout=0s", 0),
        ("timeout=30s", 30),
        ("timeout=999999999h", TIMEOUT_CAP),
        ("", TIMEOUT_SECONDS),
        ("timeout=", TIMEOUT_SECONDS),
        ("timeout=5", TIMEOUT_SECONDS),
        ("timeout=-5s", TIMEOUT_SECONDS),
        ("timeout=1e9s", TIMEOUT_SECONDS),
        ("timeout=infs", TIMEOUT_SECONDS),
        ("timeout=٣s", TIMEOUT_SECONDS),
        (f"timeout={'9' * 5000}s", TIMEOUT_SECONDS),
        (f"{'&' * 5000}timeout=5s", TIMEOUT_SECONDS),
    ],
)
def test_a_timeout_is_a_duration_of_go(query: str, seconds: float) -> None:
    assert parse_timeout(query) == seconds
