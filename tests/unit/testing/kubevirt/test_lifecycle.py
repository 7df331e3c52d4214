from __future__ import annotations

import pytest

from sevkit.testing.kubevirt.lifecycle import (
    PAUSED,
    Condition,
    Deleted,
    DomainOff,
    DomainUp,
    Event,
    Instance,
    LauncherGone,
    LauncherReady,
    Phase,
    PodCreated,
    StartRefused,
    Step,
    Surroundings,
    Unschedulable,
    next_step,
    step,
)

EVENTS: tuple[Event, ...] = (
    PodCreated(),
    Unschedulable("0/1 nodes are available"),
    LauncherReady("node-1"),
    StartRefused("no"),
    DomainUp(paused=True),
    DomainUp(paused=False),
    DomainOff(),
    DomainOff(crashed=True),
    LauncherGone(),
    Deleted(),
)


def live(*events: Event) -> Instance:
    instance = Instance()
    for event in events:
        instance = step(instance, event)
    return instance


UP = (PodCreated(), LauncherReady("node-1"))


def test_a_vmi_goes_through_the_phases_in_kubevirts_order() -> None:
    assert live().phase is Phase.PENDING
    assert live(PodCreated()).phase is Phase.SCHEDULING
    assert live(*UP) == Instance(Phase.SCHEDULED, "node-1")
    assert live(*UP, DomainUp(paused=False)) == Instance(Phase.RUNNING, "node-1")


def test_a_paused_domain_is_running_with_the_condition_of_a_user() -> None:
    paused = live(*UP, DomainUp(paused=True))
    assert paused.phase is Phase.RUNNING
    assert paused.conditions == (
        Condition("Paused", "True", "PausedByUser", "VMI was paused by user"),
    )


def test_the_paused_condition_is_added_once_and_removed_not_set_false() -> None:
    twice = live(*UP, DomainUp(paused=True), DomainUp(paused=True))
    assert twice.conditions == (PAUSED,)
    assert step(twice, DomainUp(paused=False)).conditions == ()


def test_a_refused_start_changes_no_phase_and_is_forgotten_when_one_succeeds() -> None:
    refused = live(*UP, StartRefused("firmware says no"))
    assert refused.phase is Phase.SCHEDULED
    assert refused.condition("Synchronized") == Condition(
        "Synchronized", "False", "Synchronizing with the Domain failed.", "firmware says no"
    )
    again = step(refused, StartRefused("and no"))
    assert [row.message for row in again.conditions] == ["and no"]
    assert step(again, DomainUp(paused=False)).conditions == ()


def test_no_node_leaves_it_scheduling_until_there_is_one() -> None:
    waiting = live(PodCreated(), Unschedulable("0/2 nodes are available"))
    assert waiting.phase is Phase.SCHEDULING
    condition = waiting.condition("PodScheduled")
    assert condition is not None
    assert condition.reason == "Unschedulable"
    assert step(waiting, LauncherReady("node-2")) == Instance(Phase.SCHEDULED, "node-2")


@pytest.mark.parametrize(
    ("events", "phase"),
    [
        ((*UP, LauncherGone()), Phase.FAILED),
        ((*UP, DomainUp(paused=True), LauncherGone()), Phase.FAILED),
        ((*UP, DomainUp(paused=False), DomainOff()), Phase.SUCCEEDED),
        ((*UP, DomainUp(paused=False), DomainOff(crashed=True)), Phase.FAILED),
        ((*UP, DomainUp(paused=True), Deleted()), Phase.SUCCEEDED),
        ((Deleted(),), Phase.SUCCEEDED),
        ((PodCreated(), Deleted()), Phase.SUCCEEDED),
        ((*UP, Deleted()), Phase.SUCCEEDED),
    ],
)
def test_every_end(events: tuple[Event, ...], phase: Phase) -> None:
    ended = live(*events)
    assert ended.phase is phase
    assert ended.condition("Paused") is None


@pytest.mark.parametrize("phase", [Phase.SUCCEEDED, Phase.FAILED])
@pytest.mark.parametrize("event", EVENTS, ids=repr)
def test_nothing_changes_a_vmi_that_ended(phase: Phase, event: Event) -> None:
    ended = Instance(phase, "node-1")
    assert step(ended, event) == ended


@pytest.mark.parametrize("event", EVENTS, ids=repr)
@pytest.mark.parametrize("phase", list(Phase))
def test_no_event_leads_back(phase: Phase, event: Event) -> None:
    order = list(Phase)
    after = step(Instance(phase, "node-1"), event).phase
    assert order.index(after) >= order.index(phase)


SCHEDULED = Instance(Phase.SCHEDULED, "node-1")
RUNNING = Instance(Phase.RUNNING, "node-1")


@pytest.mark.parametrize(
    ("instance", "around", "wanted"),
    [
        (Instance(), Surroundings(), Step.CREATE_POD),
        (Instance(), Surroundings(deleted=True), Step.END),
        (Instance(Phase.SCHEDULING), Surroundings(), Step.SCHEDULE),
        (SCHEDULED, Surroundings(), Step.LOSE_LAUNCHER),
        (SCHEDULED, Surroundings(launcher=True), Step.START_DOMAIN),
        (SCHEDULED, Surroundings(launcher=True, attestation=True), Step.WAIT),
        (SCHEDULED, Surroundings(launcher=True, attestation=True, session=True), Step.START_DOMAIN),
        (
            SCHEDULED,
            Surroundings(launcher=True, attestation=True, expired=True),
            Step.LOSE_LAUNCHER,
        ),
        (SCHEDULED, Surroundings(launcher=True, expired=True), Step.LOSE_LAUNCHER),
        (SCHEDULED, Surroundings(launcher=True, domain=True, expired=True), Step.REPORT_DOMAIN),
        (RUNNING, Surroundings(launcher=True, domain=True, expired=True), Step.REPORT_DOMAIN),
        (RUNNING, Surroundings(launcher=True, domain=True, ended=True), Step.REPORT_END),
        (RUNNING, Surroundings(), Step.LOSE_LAUNCHER),
        (RUNNING, Surroundings(launcher=True), Step.LOSE_LAUNCHER),
        (RUNNING, Surroundings(launcher=True, domain=True, deleted=True), Step.END),
        (Instance(Phase.FAILED), Surroundings(launcher=True), Step.END),
    ],
)
def test_the_next_thing_to_do(instance: Instance, around: Surroundings, wanted: Step) -> None:
    assert next_step(instance, around) is wanted
