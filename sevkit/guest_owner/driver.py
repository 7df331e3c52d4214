"""One launch, led: does the effects of ``sevkit.guest_owner.flow`` on a cluster and a store.

Everything that a launch needs from outside comes in here: endpoints, store, clock and time. What
goes wrong on the way to the cluster becomes an event; what goes wrong with the store is raised,
and the launch goes on from what is stored when it is started again.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, final

from sevkit.attest.sev_platform import VerifiedPlatform
from sevkit.attest.sev_session import new_packet, new_session
from sevkit.cluster.errors import (
    Conflict,
    Forbidden,
    NotFound,
    Rejected,
    StatusError,
    Unauthorized,
)
from sevkit.errors import ClusterError, FormatError, InternalError
from sevkit.guest_owner.flow import Launch, advance, begin, expire, next_effect
from sevkit.guest_owner.record import Record
from sevkit.guest_owner.report import Report
from sevkit.guest_owner.terms import (
    RESUMABLE,
    Absent,
    Do,
    Done,
    Failed,
    Finish,
    Holder,
    Judged,
    Outcome,
    Phase,
    Recalled,
    Seen,
    Stage,
    Step,
    Wait,
)
from sevkit.kubevirt.launch_status import LaunchStatus, parse_launch_status
from sevkit.kubevirt.subresources import encode_secret_options, encode_session_options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sevkit.attest.sev_launch import VerifiedLaunch
    from sevkit.attest.sev_session import LaunchSession
    from sevkit.attest.verdict import Verdict
    from sevkit.cluster.launch_endpoints import LaunchEndpoints, Target
    from sevkit.guest_owner.owner import Owner
    from sevkit.guest_owner.session_store import SessionStore
    from sevkit.guest_owner.terms import Event, Plan

#: The longest that a busy API server is left alone, in seconds.
LONGEST_ASKED: Final = 120.0

_PHASES: Final[Mapping[str, Phase]] = {
    "Scheduled": Phase.SCHEDULED,
    "Running": Phase.RUNNING,
    "Succeeded": Phase.OVER,
    "Failed": Phase.OVER,
}
#: Where a launch only waits for the VMI to change.
_PEEKS: Final = frozenset({Step.FIND, Step.WAIT, Step.AWAIT, Step.CONFIRM})
#: What is told about an effect that is not looking, waiting or storing.
_TOLD: Final[Mapping[Do, str]] = {
    Do.JUDGE_CHAIN: "verifying the platform's certificate chain",
    Do.SEND_SESSION: "sending a launch session",
    Do.JUDGE_MEASUREMENT: "verifying the launch measurement",
    Do.INJECT: "injecting the secret",
    Do.UNPAUSE: "letting the guest run",
    Do.STOP: "stopping the guest",
}


@final
@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a launch is led with. ``clock`` is in seconds and never goes back.

    ``peek`` returns what is known of the VMI without asking, or None; it is taken where a launch
    only waits for something to change, and never after anything went wrong. ``chains`` holds the
    platform chains that the owner accepted.
    """

    endpoints: LaunchEndpoints
    store: SessionStore
    owner: Owner
    told: Callable[[str], None] = lambda _: None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    peek: Callable[[Target], LaunchStatus | None] = lambda _: None
    chains: dict[bytes, tuple[Verdict, VerifiedPlatform]] = field(default_factory=dict)


@final
class Driver:
    """Leads the launch of the VMI ``target``; for one thread.

    ``keep_ended`` leaves a record that the launch is over, for whoever would begin it again.
    """

    def __init__(
        self, target: Target, plan: Plan, around: Surroundings, *, keep_ended: bool = False
    ) -> None:
        self._target: Final = target
        self._around: Final = around
        self._plan: Final = plan
        self._keep_ended: Final = keep_ended
        self._launch: Launch = begin(plan, around.clock())
        self._report: Final = Report(target.namespace, target.name)
        self._status: LaunchStatus | None = None
        self._record: Record | None = None
        self._platform: VerifiedPlatform | None = None
        self._verified: VerifiedLaunch | None = None
        self._said = ""

    @property
    def launch(self) -> Launch:
        """Where it stands."""
        return self._launch

    def run(self) -> tuple[Outcome, Verdict]:
        """Lead it to its end. Raises ``HostReadError`` and ``FormatError`` of the store."""
        while True:
            wake = self.step()
            if isinstance(wake, Outcome):
                return wake, self.verdict()
            if wake > 0:
                self._around.sleep(wake)

    def step(self) -> float | Outcome:
        """Do one thing; return after how many seconds to come again, or how the launch ended."""
        now = self._around.clock()
        self._launch = expire(self._launch, now)
        effect = next_effect(self._launch, now)
        if isinstance(effect, Finish):
            return effect.outcome
        if isinstance(effect, Wait):
            return effect.until - now
        self._tell(_TOLD.get(effect, ""))
        event = self._perform(effect)
        self._launch = advance(self._launch, event, self._around.clock())
        self._tell(self._launch.said)
        return 0.0

    def nudge(self) -> None:
        """Look at once: the VMI changed. What waits because something failed goes on waiting."""
        if self._launch.failures == 0:
            self._launch = replace(self._launch, wake=-math.inf)

    def verdict(self) -> Verdict:
        """Return the verdict on a launch that ended."""
        outcome = self._launch.outcome
        if outcome is None:
            raise InternalError("a verdict on a launch that did not end")
        injected = self._launch.stage is Stage.INJECTED
        if outcome in {Outcome.ATTESTED, Outcome.VERIFIED}:
            self._report.resumed(runs=outcome is Outcome.ATTESTED and self._plan.unpause)
        said = self._launch.said
        return self._report.conclude(outcome, said, self._around.now(), injected=injected)

    def _tell(self, words: str) -> None:
        if words and words != self._said:
            self._said = words
            self._around.told(words)

    def _perform(self, effect: Do) -> Event:
        try:
            return self._effects[effect](self)
        except ClusterError as error:
            return _failed(error)

    def _look(self) -> Event:
        calm = self._launch.step in _PEEKS and not self._launch.failures
        status = self._around.peek(self._target) if calm else None
        if status is None:
            try:
                status = parse_launch_status(self._around.endpoints.read(self._target))
            except NotFound as error:
                # Without the word of a Status it is not the API server that knows of no such VMI.
                return Absent() if error.reason == "NotFound" else _failed(error)
            except FormatError as error:
                return Failed(error.message)
        self._status = status
        self._report.see(status)
        return Seen(
            status.uid,
            _PHASES.get(status.phase, Phase.BEFORE),
            status.paused,
            self._holder(status),
            status.deleting,
            self._unfit(status),
            status.said,
        )

    def _unfit(self, status: LaunchStatus) -> str:
        if status.mode is None:
            return "the VMI is no guest of SEV or SEV-ES"
        if not status.attested:
            return "the VMI does not ask for attestation: launchSecurity.sev.attestation: {}"
        if status.mode not in self._around.owner.policies:
            modes = ", ".join(self._around.owner.policies)
            return f"the VMI asks for {status.mode}, and the owner accepts {modes}"
        return ""

    def _holder(self, status: LaunchStatus) -> Holder:
        if not (status.session or status.dh_cert):
            return Holder.NOBODY
        record = self._record
        session = None if record is None or record.uid != status.uid else record.session
        if session is None:
            return Holder.OTHER
        ours = (session.session_base64, session.godh_base64)
        return Holder.US if (status.session, status.dh_cert) == ours else Holder.OTHER

    def _recall(self) -> Event:
        uid = self._launch.uid
        store = self._around.store
        store.forget_namesakes(uid, self._target.namespace, self._target.name)
        self._record = store.load(uid)
        if self._record is None:
            return Recalled(Stage.NOTHING)
        self._report.restore(self._record.report)
        return Recalled(self._record.stage)

    def _judge_chain(self) -> Event:
        data = self._around.endpoints.fetch_chain(self._target)
        found = self._report.judge_chain(
            self._around.owner, data, self._around.now(), known=self._around.chains
        )
        if not isinstance(found, VerifiedPlatform):
            return Judged(found)
        self._platform = found
        return Judged()

    def _keep_session(self) -> Event:
        status, platform = self._status, self._platform
        if status is None or status.mode is None or platform is None:
            raise InternalError("a session for a platform that was not verified")
        policy = self._around.owner.policies[status.mode]
        self._report.fits(status.mode, policy)
        self._record = Record(
            self._launch.uid,
            self._target.namespace,
            self._target.name,
            Stage.SESSION,
            new_session(platform, policy),
            report=self._report.to_json(),
        )
        self._around.store.keep_session(self._record)
        return Done()

    def _send_session(self) -> Event:
        session = self._session()
        options = encode_session_options(session.blob.encode(), session.godh)
        self._around.endpoints.set_session(self._target, options)
        return Done()

    def _judge_measurement(self) -> Event:
        data = self._around.endpoints.query_measurement(self._target)
        found = self._report.judge_measurement(
            self._around.owner,
            data,
            self._session(),
            self._around.now(),
            release=self._plan.inject,
        )
        if isinstance(found, Outcome):
            return Judged(found)
        self._verified = found
        return Judged()

    def _keep_packet(self) -> Event:
        table = self._around.owner.table
        if self._verified is None or table is None:
            raise InternalError("a packet for a launch that was not verified")
        packet = new_packet(self._verified, self._session().keys, table)
        report = self._report.to_json()
        self._record = self._around.store.keep_packet(self._launch.uid, packet, report)
        return Done()

    def _inject(self) -> Event:
        packet = None if self._record is None else self._record.packet
        if packet is None:
            raise InternalError("no packet is stored")
        options = encode_secret_options(packet.header, packet.ciphertext)
        self._around.endpoints.inject_secret(self._target, options)
        return Done()

    def _keep_injected(self) -> Event:
        report = self._report.to_json()
        self._record = self._around.store.keep_injected(self._launch.uid, report)
        return Done()

    def _unpause(self) -> Event:
        self._around.endpoints.unpause(self._target)
        return Done()

    def _stop(self) -> Event:
        machine = "" if self._status is None else self._status.machine
        try:
            self._around.endpoints.stop(self._target, self._launch.uid, machine)
        except (NotFound, Conflict):
            return Done()  # it is gone, or another has its name: neither is to be stopped
        return Done()

    def _close(self) -> Event:
        outcome, uid = self._launch.outcome, self._launch.uid
        if outcome is None or outcome in RESUMABLE or not uid:
            return Done()
        store = self._around.store
        if self._keep_ended:
            store.end(Record.over(uid, self._target.namespace, self._target.name, outcome))
        else:
            store.forget(uid)
        return Done()

    def _session(self) -> LaunchSession:
        session = None if self._record is None else self._record.session
        if session is None:
            raise InternalError("no session is stored")
        return session

    _effects: Final[Mapping[Do, Callable[[Driver], Event]]] = {
        Do.LOOK: _look,
        Do.RECALL: _recall,
        Do.JUDGE_CHAIN: _judge_chain,
        Do.KEEP_SESSION: _keep_session,
        Do.SEND_SESSION: _send_session,
        Do.JUDGE_MEASUREMENT: _judge_measurement,
        Do.KEEP_PACKET: _keep_packet,
        Do.INJECT: _inject,
        Do.KEEP_INJECTED: _keep_injected,
        Do.UNPAUSE: _unpause,
        Do.STOP: _stop,
        Do.CLOSE: _close,
    }


def _failed(error: ClusterError) -> Failed:
    asked = (error.retry_after or 0.0) if isinstance(error, StatusError) else 0.0
    # One of no kind of its own is about our own files, before anything was asked.
    is_ours = type(error) is ClusterError
    refusal = is_ours or isinstance(error, Forbidden | Unauthorized | Rejected)
    return Failed(error.message, min(asked, LONGEST_ASKED), refusal)
