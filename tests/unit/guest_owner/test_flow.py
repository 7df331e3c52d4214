from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from sevkit.errors import InternalError
from sevkit.guest_owner.flow import MOST_REFUSALS, Launch, advance, begin, expire, next_effect
from sevkit.guest_owner.terms import (
    LAUNCHER_JITTER,
    LAUNCHER_SECONDS,
    Absent,
    Do,
    Done,
    Failed,
    Finish,
    Holder,
    Judged,
    Outcome,
    Phase,
    Plan,
    Recalled,
    Seen,
    Stage,
    Step,
    Wait,
)

if TYPE_CHECKING:
    from sevkit.guest_owner.terms import Effect, Event

UID: Final = "one"
BEFORE = Seen(UID, Phase.BEFORE)
SCHEDULED = Seen(UID, Phase.SCHEDULED)
WAITING = Seen(UID, Phase.SCHEDULED, holder=Holder.US)
PAUSED = Seen(UID, Phase.RUNNING, paused=True, holder=Holder.US)
RUNS = Seen(UID, Phase.RUNNING, holder=Holder.US)


def led(*events: Event, plan: Plan | None = None, now: float = 0.0) -> Launch:
    launch = begin(plan or Plan(), now)
    for event in events:
        launch = advance(launch, event, now)
    return launch


def effects(launch: Launch, *events: Event) -> list[Effect]:
    """What is done after each event, without the waits between."""
    found: list[Effect] = []
    for event in events:
        launch = advance(launch, event, 0.0)
        found.append(next_effect(launch, max(0.0, launch.wake)))
    return found


NOTHING: Final = (SCHEDULED, Recalled(Stage.NOTHING))
SENT: Final = (*NOTHING, SCHEDULED, Judged(), Done(), SCHEDULED, Done())
MEASURED: Final = (*SENT, PAUSED, Judged())
INJECTED: Final = (*MEASURED, Done(), Done(), Done())


def test_a_launch_from_its_first_look_to_its_end() -> None:
    events: tuple[Event, ...] = (*INJECTED, PAUSED, Done(), RUNS, Done())
    assert effects(begin(Plan(), 0.0), BEFORE, Recalled(Stage.NOTHING), *events[2:]) == [
        Do.RECALL,
        Do.LOOK,
        Do.JUDGE_CHAIN,
        Do.KEEP_SESSION,
        Do.LOOK,
        Do.SEND_SESSION,
        Do.LOOK,
        Do.JUDGE_MEASUREMENT,
        Do.KEEP_PACKET,
        Do.INJECT,
        Do.KEEP_INJECTED,
        Do.LOOK,
        Do.UNPAUSE,
        Do.LOOK,
        Do.CLOSE,
        Finish(Outcome.ATTESTED),
    ]


@pytest.mark.parametrize(
    ("events", "outcome"),
    [
        ((Absent(),), Outcome.ABSENT),
        ((*NOTHING, Absent()), Outcome.DELETED),
        ((*NOTHING, Seen(UID, Phase.BEFORE, deleting=True)), Outcome.DELETED),
        ((*NOTHING, Seen("two", Phase.BEFORE)), Outcome.REPLACED),
        ((*NOTHING, Seen(UID, Phase.OVER)), Outcome.OVER),
        ((*NOTHING, Seen(UID, Phase.SCHEDULED, unfit="sev-es")), Outcome.UNFIT),
        ((*NOTHING, Seen(UID, Phase.SCHEDULED, holder=Holder.OTHER)), Outcome.FOREIGN),
        ((*NOTHING, Seen(UID, Phase.RUNNING, paused=True)), Outcome.FOREIGN),
        ((*NOTHING, SCHEDULED, Judged(Outcome.REFUSED)), Outcome.REFUSED),
        ((*NOTHING, SCHEDULED, Judged(Outcome.UNDECIDED)), Outcome.UNDECIDED),
        ((*SENT, Seen(UID, Phase.SCHEDULED, holder=Holder.OTHER)), Outcome.FOREIGN),
        ((*SENT, Seen(UID, Phase.RUNNING, paused=True)), Outcome.FOREIGN),
        ((*SENT, Seen(UID, Phase.OVER, holder=Holder.US)), Outcome.OVER),
        ((*SENT, RUNS), Outcome.RELEASED),
        ((*SENT, Seen(UID, Phase.RUNNING, True, Holder.US, unfit="sev")), Outcome.UNFIT),
        ((*SENT, PAUSED, Judged(Outcome.REFUSED)), Outcome.REFUSED),
        ((*SENT, PAUSED, Judged(Outcome.UNCOVERED)), Outcome.UNCOVERED),
        ((*MEASURED, Done(), Failed(), RUNS), Outcome.RELEASED),
        ((*MEASURED, Done(), Failed(), Absent()), Outcome.DELETED),
        ((*INJECTED, Seen("two", Phase.RUNNING, paused=True)), Outcome.REPLACED),
        ((SCHEDULED, Recalled(Stage.ENDED)), Outcome.SPENT),
    ],
)
def test_every_way_out_closes_first(events: tuple[Event, ...], outcome: Outcome) -> None:
    launch = led(*events)
    assert next_effect(launch, 0.0) is Do.CLOSE
    assert next_effect(advance(launch, Done(), 0.0), 0.0) == Finish(outcome)


@pytest.mark.parametrize(
    ("stage", "seen", "wanted"),
    [
        (Stage.NOTHING, SCHEDULED, Do.JUDGE_CHAIN),
        (Stage.SESSION, SCHEDULED, Do.SEND_SESSION),
        (Stage.SESSION, PAUSED, Do.JUDGE_MEASUREMENT),
        (Stage.PACKET, PAUSED, Do.INJECT),
        (Stage.INJECTED, PAUSED, Do.UNPAUSE),
        (Stage.INJECTED, RUNS, Do.CLOSE),
    ],
)
def test_after_a_crash_it_goes_on_from_what_is_stored(stage: Stage, seen: Seen, wanted: Do) -> None:
    assert next_effect(led(seen, Recalled(stage), seen), 0.0) is wanted


@pytest.mark.parametrize(
    ("plan", "events", "wanted"),
    [
        (Plan(inject=False), MEASURED, Do.LOOK),
        (Plan(inject=False, unpause=False), MEASURED, Do.CLOSE),
        (Plan(unpause=False), INJECTED, Do.CLOSE),
        (Plan(stop_on_refusal=True), (*SENT, PAUSED, Judged(Outcome.REFUSED)), Do.STOP),
        (Plan(stop_on_refusal=True), (*NOTHING, SCHEDULED, Judged(Outcome.REFUSED)), Do.STOP),
        (Plan(stop_on_refusal=True), (*SENT, PAUSED, Judged(Outcome.UNCOVERED)), Do.CLOSE),
        (Plan(unpause=False), (PAUSED, Recalled(Stage.INJECTED)), Do.CLOSE),
        (Plan(inject=False, unpause=False), (PAUSED, Recalled(Stage.PACKET)), Do.CLOSE),
    ],
)
def test_it_does_no_more_than_is_planned(plan: Plan, events: tuple[Event, ...], wanted: Do) -> None:
    assert next_effect(led(*events, plan=plan), 0.0) is wanted


@pytest.mark.parametrize(
    ("events", "after"),
    [
        ((), Do.LOOK),
        (NOTHING, Do.LOOK),
        ((*NOTHING, SCHEDULED), Do.LOOK),
        ((*NOTHING, SCHEDULED, Judged(), Done()), Do.LOOK),
        ((*SENT, PAUSED), Do.LOOK),
        ((*MEASURED, Done()), Do.LOOK),
        ((*INJECTED, PAUSED), Do.LOOK),
    ],
)
def test_a_failure_is_waited_out_and_followed_by_a_look(
    events: tuple[Event, ...], after: Do
) -> None:
    launch = led(*events, Failed(pause=20))
    assert next_effect(launch, 19.0) == Wait(20)
    assert next_effect(expire(launch, 20.0), 20.0) is after


def test_pauses_grow_to_a_cap_and_start_anew_after_a_success() -> None:
    launch = led(*NOTHING)
    pauses = []
    for _ in range(7):
        launch = advance(launch, Failed(), 0.0)
        pauses.append(launch.wake)
    assert pauses == [0.25, 0.5, 1, 2, 4, 5, 5]
    launch = advance(advance(launch, BEFORE, 0.0), Failed(), 0.0)
    assert launch.wake == 0.25


def test_a_look_that_leads_to_what_failed_before_ends_no_row_of_failures() -> None:
    launch = led(*NOTHING)
    pauses = []
    for n in range(MOST_REFUSALS):
        launch = advance(launch, SCHEDULED, 0.0)
        assert next_effect(launch, 0.0) is Do.JUDGE_CHAIN
        launch = advance(launch, Failed(refusal=n > 0), 0.0)
        pauses.append(launch.wake)
    assert pauses == [0.25, 0.5, 1, 2, 4]
    assert advance(advance(launch, SCHEDULED, 0), Failed(refusal=True), 0).outcome is (
        Outcome.FORBIDDEN
    )


def test_refusals_of_our_rights_are_not_waited_out_for_ever() -> None:
    launch = led(*NOTHING)
    for _ in range(MOST_REFUSALS):
        assert launch.outcome is None
        launch = advance(launch, Failed("forbidden", refusal=True), 0.0)
    assert (launch.outcome, launch.said) == (Outcome.FORBIDDEN, "forbidden")


def test_no_session_is_sent_after_the_launcher_gave_up() -> None:
    launch = led(*NOTHING, SCHEDULED, Judged(), Done(), SCHEDULED)
    assert next_effect(launch, 0.0) is Do.SEND_SESSION
    launch = advance(launch, Failed(), LAUNCHER_SECONDS - 0.1)
    launch = advance(launch, SCHEDULED, LAUNCHER_SECONDS)
    assert launch.outcome is Outcome.LATE


def test_a_guest_that_never_starts_is_given_up_after_the_launchers_jitter() -> None:
    launch = led(*SENT, WAITING)
    last = LAUNCHER_SECONDS + LAUNCHER_JITTER
    assert advance(launch, WAITING, last - 0.1).outcome is None
    assert advance(launch, WAITING, last).outcome is Outcome.LATE


def test_a_timeout_ends_every_wait_and_keeps_a_refusal() -> None:
    launch = led(*NOTHING, BEFORE, plan=Plan(timeout=5, poll=60))
    assert next_effect(launch, 1.0) == Wait(5)
    assert expire(launch, 5.0).outcome is Outcome.TIMEOUT
    refused = led(
        *SENT, PAUSED, Judged(Outcome.REFUSED), plan=Plan(stop_on_refusal=True, timeout=5)
    )
    assert advance(refused, Failed(), 6.0).outcome is Outcome.REFUSED


def test_events_that_no_effect_has_are_bugs() -> None:
    with pytest.raises(InternalError):
        advance(begin(Plan(), 0.0), Done(), 0.0)
    with pytest.raises(InternalError):
        advance(led(*NOTHING, SCHEDULED, Judged()), Failed(), 0.0)
    with pytest.raises(InternalError):
        next_effect(Launch(Plan(), 0.0, step=Step.END), 0.0)
