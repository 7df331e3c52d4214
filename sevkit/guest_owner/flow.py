"""One launch of a SEV or SEV-ES guest in KubeVirt, as its owner leads it; pure.

Theory of operation. The owner looks at the VMI until it is Scheduled, asks for the platform's
certificate chain and has it judged, makes a session and stores it, looks again, and only then sends
it: requests go by name, and the shorter the time since the look, the better. When the guest is
there, running and paused, he asks for its measurement and has it judged, makes the secret packet
and stores it, and only then sends it; he stores that it is in, and lets the guest run.

A ``Launch`` is where one launch stands. ``next_effect`` says the one thing to do next, ``advance``
takes what came of it, and ``expire``, asked before each effect, what time took. Nothing here knows
a clock, a cluster, a disk or a key, so that every order of events can be tried. What must hold:

- What is stored decides what happens after a crash, and each store comes before the send that needs
  it. A session that is stored may have been sent or not: whether the VMI has it is looked up, never
  guessed, and the same one is sent again if not. So it is with the packet: there is one for a
  session, and it alone is ever sent. Sending it twice is harmless: the firmware writes the same
  bytes to the same place.
- A session is bound to the UID of the VMI that it was made for. A VMI of the same name with another
  UID is another launch (``REPLACED``): the session is given up with its keys. A request goes by
  name, so such a one may get what was meant for the one before. It gains nothing by it: no session
  that was given up is judged or used again, and a packet opens in the launch that was measured.
- Nothing is injected and no guest is let run but after its measurement was accepted: in this
  process, or as the stored packet proves.
- A request of which it is not known whether it arrived is followed by a look, not by a guess. So is
  a refusal: KubeVirt says 500 for "not yet" and for "not found", and 409 for half a dozen reasons.
- KubeVirt's launcher gives up 240 s after it starts, so no session is sent later than that after
  the VMI was first seen Scheduled; by 120 s of jitter later the guest is there, or never will be.
- What the cluster says is never an expectation. It decides what is asked next, and no more.

Source: KubeVirt 1.9 ``pkg/virt-api/rest/sev.go``, ``cmd/virt-launcher``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeAlias, final

from sevkit.errors import InternalError
from sevkit.guest_owner.terms import (
    Absent,
    Do,
    Done,
    Effect,
    Event,
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
    from collections.abc import Callable, Mapping

_Rule: TypeAlias = "Callable[[Launch, Event, float], Launch]"

FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 5.0
#: Refusals in a row of our credentials or rights, after which nobody waits any more: an API server
#: that just started refuses for a moment, too.
MOST_REFUSALS: Final = 5


_EFFECTS: Final[Mapping[Step, Do]] = {
    Step.FIND: Do.LOOK,
    Step.RECALL: Do.RECALL,
    Step.WAIT: Do.LOOK,
    Step.CHAIN: Do.JUDGE_CHAIN,
    Step.KEEP_SESSION: Do.KEEP_SESSION,
    Step.SEND: Do.SEND_SESSION,
    Step.AWAIT: Do.LOOK,
    Step.MEASURE: Do.JUDGE_MEASUREMENT,
    Step.KEEP_PACKET: Do.KEEP_PACKET,
    Step.INJECT: Do.INJECT,
    Step.HOLD: Do.LOOK,
    Step.KEEP_INJECTED: Do.KEEP_INJECTED,
    Step.RESUME: Do.LOOK,
    Step.UNPAUSE: Do.UNPAUSE,
    Step.CONFIRM: Do.LOOK,
    Step.STOP: Do.STOP,
    Step.CLOSE: Do.CLOSE,
}
#: Where a request that failed leads: to a look, if it may have had an effect.
_AFTER_FAILURE: Final[Mapping[Step, Step]] = {
    Step.FIND: Step.FIND,
    Step.WAIT: Step.WAIT,
    Step.CHAIN: Step.WAIT,
    Step.SEND: Step.AWAIT,
    Step.AWAIT: Step.AWAIT,
    Step.MEASURE: Step.AWAIT,
    Step.INJECT: Step.HOLD,
    Step.HOLD: Step.HOLD,
    Step.RESUME: Step.RESUME,
    Step.UNPAUSE: Step.RESUME,
    Step.CONFIRM: Step.CONFIRM,
    Step.STOP: Step.STOP,
}
_CLOSING: Final = frozenset({Step.CLOSE, Step.END})
#: Before the session is with KubeVirt: all of it has to be over when the launcher gives up.
_UNSENT: Final = frozenset({Step.WAIT, Step.CHAIN, Step.KEEP_SESSION, Step.SEND})


@final
@dataclass(frozen=True, slots=True)
class Launch:
    """Where one launch stands. Times are of the clock that ``advance`` is given, in seconds.

    ``uid`` is empty before the VMI was seen; ``scheduled`` is when it was first seen Scheduled,
    ``wake`` when to go on; ``said`` is the last thing that somebody said about it.
    """

    plan: Plan
    end: float
    step: Step = Step.FIND
    uid: str = ""
    stage: Stage = Stage.NOTHING
    scheduled: float = math.inf
    wake: float = -math.inf
    failures: int = 0
    refusals: int = 0
    outcome: Outcome | None = None
    said: str = ""


def begin(plan: Plan, now: float) -> Launch:
    """Return a launch of which nothing is known yet."""
    return Launch(plan, now + plan.timeout)


def next_effect(launch: Launch, now: float) -> Effect:
    """Return the one thing to do next."""
    if launch.step is Step.END:
        if launch.outcome is None:
            raise InternalError("a launch ended without an outcome")
        return Finish(launch.outcome)
    if launch.wake > now:
        return Wait(launch.wake)
    return _EFFECTS[launch.step]


def advance(launch: Launch, event: Event, now: float) -> Launch:
    """Return the launch after what came of its effect.

    Raises ``InternalError`` for an event that no effect of this step has.
    """
    if isinstance(event, Failed):
        return _in_time(_failed(launch, event, now), now)
    rule = _RULES.get((launch.step, type(event)))
    if rule is None:
        raise InternalError(f"{type(event).__name__} in step {launch.step.value}")
    made = rule(replace(launch, wake=-math.inf), event, now)
    if not isinstance(event, Seen) or made.step is launch.step:
        # A look that leads to what failed before is no success yet.
        made = replace(made, failures=0, refusals=0)
    return _in_time(made, now)


def expire(launch: Launch, now: float) -> Launch:
    """Return the launch as it is now, before the next effect: over, if its time is."""
    return _in_time(launch, now)


def _in_time(launch: Launch, now: float) -> Launch:
    if launch.step in _CLOSING:
        return launch
    gone = now - launch.scheduled
    plan = launch.plan
    late = gone >= plan.launcher and launch.step in _UNSENT
    if late or (gone >= plan.launcher + plan.jitter and launch.step is Step.AWAIT):
        return _end(launch, Outcome.LATE)
    if now >= launch.end:
        # A refusal that could not be acted on is a refusal.
        return _end(launch, launch.outcome or Outcome.TIMEOUT)
    return replace(launch, wake=min(launch.wake, launch.end))


def _failed(launch: Launch, event: Failed, now: float) -> Launch:
    target = _AFTER_FAILURE.get(launch.step)
    if target is None:
        raise InternalError(f"a failure in step {launch.step.value}")
    failures = launch.failures + 1
    refusals = launch.refusals + 1 if event.refusal else 0
    said = event.said or launch.said
    if refusals >= MOST_REFUSALS:
        return replace(_end(launch, launch.outcome or Outcome.FORBIDDEN), said=said)
    pause = max(min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 8)), event.pause)
    return replace(
        launch, step=target, failures=failures, refusals=refusals, wake=now + pause, said=said
    )


def _end(launch: Launch, outcome: Outcome) -> Launch:
    return replace(launch, step=Step.CLOSE, outcome=outcome, wake=-math.inf)


def _go(launch: Launch, step: Step) -> Launch:
    return replace(launch, step=step)


def _poll(launch: Launch, now: float) -> Launch:
    return replace(launch, wake=now + launch.plan.poll)


def _refuse(launch: Launch, outcome: Outcome) -> Launch:
    if outcome is Outcome.REFUSED and launch.plan.stop_on_refusal:
        return replace(launch, step=Step.STOP, outcome=outcome)
    return _end(launch, outcome)


def _find(launch: Launch, event: Event, _: float) -> Launch:
    seen = _seen(event)
    return replace(launch, step=Step.RECALL, uid=seen.uid)


def _recall(launch: Launch, event: Event, _: float) -> Launch:
    if not isinstance(event, Recalled):
        raise InternalError("not what is stored")
    found = replace(launch, stage=event.stage)
    if event.stage is Stage.ENDED:
        return _end(found, Outcome.SPENT)
    if event.stage is Stage.PACKET and not launch.plan.inject:
        return _go(found, Step.RESUME) if launch.plan.unpause else _end(found, Outcome.VERIFIED)
    if event.stage is Stage.INJECTED and not launch.plan.unpause:
        return _end(found, Outcome.ATTESTED)
    return _go(found, _RESUMED[event.stage])


_RESUMED: Final[Mapping[Stage, Step]] = {
    Stage.NOTHING: Step.WAIT,
    Stage.SESSION: Step.AWAIT,
    Stage.PACKET: Step.HOLD,
    Stage.INJECTED: Step.RESUME,
}


def _looked(
    rule: Callable[[Launch, Seen, float], Launch],
) -> _Rule:
    """Make a rule of one that needs to know only of a VMI that is there, and the same."""

    def guarded(launch: Launch, event: Event, now: float) -> Launch:
        seen = _seen(event)
        launch = replace(launch, said=seen.said or launch.said)
        for holds, outcome in (
            (seen.uid != launch.uid, Outcome.REPLACED),
            (seen.deleting, Outcome.DELETED),
            (seen.phase is Phase.OVER, Outcome.OVER),
        ):
            if holds:
                return _end(launch, outcome)
        if seen.phase is Phase.SCHEDULED:
            launch = replace(launch, scheduled=min(launch.scheduled, now))
        return rule(launch, seen, now)

    return guarded


def _seen(event: Event) -> Seen:
    if not isinstance(event, Seen):
        raise InternalError("not what is seen")
    return event


def _wait(launch: Launch, seen: Seen, now: float) -> Launch:
    """Begin if the VMI waits for a session, and only then."""
    if seen.unfit:
        return replace(_end(launch, Outcome.UNFIT), said=seen.unfit)
    if seen.holder is not Holder.NOBODY or seen.phase is Phase.RUNNING:
        return _end(launch, Outcome.FOREIGN)
    return _go(launch, Step.CHAIN) if seen.phase is Phase.SCHEDULED else _poll(launch, now)


def _await(launch: Launch, seen: Seen, now: float) -> Launch:
    """Look whether the VMI has the stored session, which may have been sent."""
    if seen.unfit:
        return replace(_end(launch, Outcome.UNFIT), said=seen.unfit)
    if seen.holder is Holder.OTHER:
        return _end(launch, Outcome.FOREIGN)
    if seen.phase is Phase.RUNNING:
        if seen.holder is Holder.NOBODY:
            return _end(launch, Outcome.FOREIGN)
        return _go(launch, Step.MEASURE) if seen.paused else _end(launch, Outcome.RELEASED)
    if seen.phase is Phase.SCHEDULED and seen.holder is Holder.NOBODY:
        return _go(launch, Step.SEND)
    return _poll(launch, now)


def _measured(launch: Launch, event: Event, _: float) -> Launch:
    no = _judgement(event)
    if no is not None:
        return _refuse(launch, no)
    if launch.plan.inject:
        return _go(launch, Step.KEEP_PACKET)
    return _go(launch, Step.RESUME) if launch.plan.unpause else _end(launch, Outcome.VERIFIED)


def _chain(launch: Launch, event: Event, _: float) -> Launch:
    no = _judgement(event)
    return _go(launch, Step.KEEP_SESSION) if no is None else _refuse(launch, no)


def _judgement(event: Event) -> Outcome | None:
    if not isinstance(event, Judged):
        raise InternalError("not a judgement")
    return event.no


def _hold(launch: Launch, seen: Seen, now: float) -> Launch:
    """Look before the stored packet is sent, or sent again."""
    if seen.phase is not Phase.RUNNING:
        return _poll(launch, now)
    return _go(launch, Step.INJECT) if seen.paused else _end(launch, Outcome.RELEASED)


def _resume(launch: Launch, seen: Seen, now: float) -> Launch:
    """Let it run, or see that it does."""
    if seen.phase is not Phase.RUNNING:
        return _poll(launch, now)
    return _go(launch, Step.UNPAUSE) if seen.paused else _end(launch, Outcome.ATTESTED)


def _confirm(launch: Launch, seen: Seen, _: float) -> Launch:
    """See that it runs; if not, look at it anew before it is let run again."""
    runs = seen.phase is Phase.RUNNING and not seen.paused
    return _end(launch, Outcome.ATTESTED) if runs else _go(launch, Step.RESUME)


def _kept(stage: Stage, step: Step) -> _Rule:
    return lambda launch, _, __: replace(launch, stage=stage, step=step)


def _injected(launch: Launch, _: Event, __: float) -> Launch:
    kept = replace(launch, stage=Stage.INJECTED)
    return _go(kept, Step.RESUME) if launch.plan.unpause else _end(kept, Outcome.ATTESTED)


def _to(step: Step) -> _Rule:
    return lambda launch, _, __: _go(launch, step)


def _ends(outcome: Outcome) -> _Rule:
    return lambda launch, _, __: _end(launch, outcome)


_RULES: Final[Mapping[tuple[Step, type], _Rule]] = {
    (Step.FIND, Seen): _find,
    (Step.FIND, Absent): _ends(Outcome.ABSENT),
    (Step.RECALL, Recalled): _recall,
    (Step.WAIT, Seen): _looked(_wait),
    (Step.CHAIN, Judged): _chain,
    (Step.KEEP_SESSION, Done): _kept(Stage.SESSION, Step.AWAIT),
    (Step.SEND, Done): lambda launch, _, now: _poll(_go(launch, Step.AWAIT), now),
    (Step.AWAIT, Seen): _looked(_await),
    (Step.MEASURE, Judged): _measured,
    (Step.KEEP_PACKET, Done): _kept(Stage.PACKET, Step.INJECT),
    (Step.INJECT, Done): _to(Step.KEEP_INJECTED),
    (Step.HOLD, Seen): _looked(_hold),
    (Step.KEEP_INJECTED, Done): _injected,
    (Step.RESUME, Seen): _looked(_resume),
    (Step.UNPAUSE, Done): lambda launch, _, now: _poll(_go(launch, Step.CONFIRM), now),
    (Step.CONFIRM, Seen): _looked(_confirm),
    (Step.STOP, Done): lambda launch, _, __: _end(launch, launch.outcome or Outcome.REFUSED),
    (Step.CLOSE, Done): _to(Step.END),
    **{
        (step, Absent): _ends(Outcome.DELETED)
        for step in (Step.WAIT, Step.AWAIT, Step.HOLD, Step.RESUME, Step.CONFIRM)
    },
}
