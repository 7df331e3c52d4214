"""Any order of events and crashes: a launch does what it must and never what it must not.

The world is a model of KubeVirt with one name in it, whose VMI comes, goes and is replaced. Every
request may be lost on its way, or its answer on the way back; the process may die before and after
every effect, and begins again from what it stored. Held against all of that is what was sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sevkit.guest_owner.flow import Launch, advance, begin, expire, next_effect
from sevkit.guest_owner.terms import (
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
    Wait,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.guest_owner.terms import Event

FATES: Final = st.sampled_from(["well"] * 6 + ["lost", "unanswered", "crash before", "crash after"])
OURS: Final = "session-"


@dataclass
class Vmi:
    """A VMI of the model. ``honest`` says whether its measurement will be accepted."""

    uid: str
    honest: bool
    phase: Phase = Phase.BEFORE
    paused: bool = False
    session: str = ""
    injected: list[str] = field(default_factory=list)
    scheduled: float = 0.0


@dataclass
class Kept:
    """A record of the model's store."""

    stage: Stage
    session: str = ""
    packet: str = ""


class Launching(RuleBasedStateMachine):
    """One owner, one name, and all that may happen."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.count = 0
        self.vmi: Vmi | None = None
        self.store: dict[str, Kept] = {}
        self.launch: Launch | None = None
        self.plan = Plan()
        #: Everything that was ever sent: which session for which UID, and so on.
        self.sent_sessions: dict[str, set[str]] = {}
        self.sent_packets: dict[str, set[str]] = {}
        self.unpaused: set[str] = set()
        self.accepted: set[str] = set()
        self.outcomes: list[Outcome] = []
        #: The UID that the owner saw last.
        self.looked = ""

    @initialize(
        plan=st.sampled_from(
            [Plan(timeout=2000)] * 3
            + [
                Plan(inject=False, timeout=2000),
                Plan(unpause=False, timeout=2000),
                Plan(inject=False, unpause=False, timeout=2000),
                Plan(stop_on_refusal=True, timeout=2000),
            ]
        ),
        honest=st.sampled_from([True, True, False]),
    )
    def choose(self, plan: Plan, *, honest: bool) -> None:
        self.plan = plan
        self.come(honest=honest)

    # What KubeVirt, the host and other people do.

    def come(self, *, honest: bool) -> None:
        self.count += 1
        self.vmi = Vmi(f"uid-{self.count}", honest)

    @precondition(lambda self: self.vmi is not None)
    @rule()
    def go_on(self) -> None:
        """KubeVirt does the next thing that it does by itself."""
        assert self.vmi is not None
        if self.vmi.phase is Phase.BEFORE:
            self.vmi.phase, self.vmi.scheduled = Phase.SCHEDULED, self.now
        elif self.vmi.phase is Phase.SCHEDULED and self.vmi.session:
            self.vmi.phase, self.vmi.paused = Phase.RUNNING, True

    @rule(
        what=st.sampled_from(["come", "go", "other session", "let run", "fail"]),
        honest=st.booleans(),
        odds=st.integers(0, 4),
    )
    def disturb(self, what: str, *, honest: bool, odds: int) -> None:
        """Somebody else does something; rarely, or no launch would ever get far."""
        if odds:
            return
        vmi = self.vmi
        if what == "come":
            self.come(honest=honest)
        elif what == "go":
            self.vmi = None
        elif vmi is not None and what == "fail":
            vmi.phase, vmi.paused = Phase.OVER, False
        elif vmi is not None and what == "let run":
            vmi.paused = False
        elif vmi is not None and vmi.phase is Phase.SCHEDULED:
            vmi.session = vmi.session or "somebody's"

    @rule(seconds=st.sampled_from([0.1, 1.0, 10.0, 230.0, 245.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    # What the owner does.

    @rule(fates=st.lists(FATES, min_size=1, max_size=8))
    def steps(self, fates: list[str]) -> None:
        for fate in fates:
            self.take_step(fate)

    def take_step(self, fate: str) -> None:
        if self.launch is None:
            self.launch = begin(self.plan, self.now)
        self.launch = expire(self.launch, self.now)
        effect = next_effect(self.launch, self.now)
        if isinstance(effect, Wait):
            self.now = max(self.now, effect.until)
            return
        if isinstance(effect, Finish):
            self.outcomes.append(effect.outcome)
            self.launch = None
            return
        if fate == "crash before":
            self.launch = None
            return
        event = self.perform(effect, self.launch.uid, fate)
        if fate == "crash after":
            self.launch = None
            return
        self.launch = advance(self.launch, event, self.now)

    def perform(self, effect: Do, uid: str, fate: str) -> Event:
        local: dict[Do, Callable[[str], Event]] = {
            Do.RECALL: lambda uid: Recalled(self.store.get(uid, Kept(Stage.NOTHING)).stage),
            Do.KEEP_SESSION: self.keep_session,
            Do.KEEP_PACKET: self.keep_packet,
            Do.KEEP_INJECTED: self.keep_injected,
            Do.CLOSE: self.close,
        }
        if effect in local:
            return local[effect](uid)
        if fate == "lost":
            return Failed("lost")
        remote: dict[Do, Callable[[str], Event]] = {
            Do.LOOK: self.look,
            Do.JUDGE_CHAIN: self.judge_chain,
            Do.SEND_SESSION: self.send_session,
            Do.JUDGE_MEASUREMENT: self.judge_measurement,
            Do.INJECT: self.inject,
            Do.UNPAUSE: self.unpause,
            Do.STOP: self.stop,
        }
        event = remote[effect](uid)
        return Failed("unanswered") if fate == "unanswered" else event

    def keep_session(self, uid: str) -> Event:
        assert uid not in self.store, "one session for each launch"
        self.count += 1
        self.store[uid] = Kept(Stage.SESSION, f"{OURS}{self.count}")
        return Done()

    def keep_packet(self, uid: str) -> Event:
        kept = self.store[uid]
        assert kept.stage is Stage.SESSION, "one packet for each session"
        assert uid in self.accepted
        self.count += 1
        kept.stage, kept.packet = Stage.PACKET, f"packet-{self.count}"
        return Done()

    def keep_injected(self, uid: str) -> Event:
        assert self.store[uid].stage is Stage.PACKET
        self.store[uid].stage = Stage.INJECTED
        return Done()

    def close(self, uid: str) -> Event:
        self.store[uid] = Kept(Stage.ENDED)
        return Done()

    def look(self, uid: str) -> Event:
        vmi = self.vmi
        if vmi is None:
            return Absent()
        self.looked = vmi.uid
        kept = self.store.get(vmi.uid)
        ours = kept is not None and kept.session == vmi.session
        holder = Holder.OTHER if not ours else Holder.US
        return Seen(vmi.uid, vmi.phase, vmi.paused, holder if vmi.session else Holder.NOBODY)

    def judge_chain(self, uid: str) -> Event:
        if self.vmi is None or self.vmi.phase not in {Phase.SCHEDULED, Phase.RUNNING}:
            return Failed("500")
        return Judged()

    def send_session(self, uid: str) -> Event:
        session = self.store[uid].session
        assert session, "stored before it is sent"
        assert self.looked == uid, "only to the VMI that it is for"
        assert self.launch is not None
        assert self.now - self.launch.scheduled < LAUNCHER_SECONDS
        self.sent_sessions.setdefault(session, set()).add(uid)
        vmi = self.vmi
        if vmi is None or vmi.phase is not Phase.SCHEDULED or vmi.session:
            return Failed("409")
        vmi.session = session
        return Done()

    def judge_measurement(self, uid: str) -> Event:
        vmi = self.vmi
        if vmi is None or vmi.phase is not Phase.RUNNING or not vmi.paused:
            return Failed("500")
        good = vmi.honest and vmi.session == self.store[uid].session
        if not good:
            return Judged(Outcome.REFUSED)
        self.accepted.add(vmi.uid)
        return Judged()

    def inject(self, uid: str) -> Event:
        packet = self.store[uid].packet
        assert packet, "stored before it is sent"
        assert self.looked == uid
        assert uid in self.accepted
        assert self.plan.inject
        self.sent_packets.setdefault(uid, set()).add(packet)
        vmi = self.vmi
        if vmi is None or vmi.phase is not Phase.RUNNING or not vmi.paused or vmi.uid != uid:
            return Failed("500")
        vmi.injected.append(packet)
        return Done()

    def unpause(self, uid: str) -> Event:
        assert uid in self.accepted, "only what was verified is let run"
        assert self.plan.unpause
        assert self.looked == uid
        self.unpaused.add(uid)
        vmi = self.vmi
        if vmi is None or not vmi.paused:
            return Failed("409")
        if self.plan.inject and vmi.uid == uid:
            assert vmi.injected, "only with its secret"
        vmi.paused = False
        return Done()

    def stop(self, uid: str) -> Event:
        assert self.plan.stop_on_refusal
        if self.vmi is not None and self.vmi.uid == uid:
            self.vmi.phase = Phase.OVER
        return Done()

    # What always holds.

    @invariant()
    def a_session_is_for_one_launch(self) -> None:
        assert all(len(uids) == 1 for uids in self.sent_sessions.values())

    @invariant()
    def a_launch_gets_one_packet(self) -> None:
        assert all(len(packets) == 1 for packets in self.sent_packets.values())

    @invariant()
    def no_other_guest_has_a_packet(self) -> None:
        if self.vmi is not None and self.vmi.injected:
            assert self.vmi.honest
            assert len(set(self.vmi.injected)) == 1

    def teardown(self) -> None:
        """Left alone, every launch ends; and a new one with an honest VMI ends well."""
        for _ in range(5000):
            if self.launch is None and self.outcomes:
                break
            self.take_step("well")
        assert self.launch is None
        self.come(honest=True)
        self.plan = Plan()
        self.go_on()
        self.outcomes.clear()
        for _ in range(60):
            self.go_on()
            self.take_step("well")
            if self.outcomes:
                break
        assert self.outcomes == [Outcome.ATTESTED]
        assert self.vmi is not None
        assert not self.vmi.paused
        assert len(self.vmi.injected) == 1


TestLaunching = Launching.TestCase
TestLaunching.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
