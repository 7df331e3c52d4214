"""The life of one VMI, as KubeVirt's controllers lead it; pure.

Theory of operation. A VMI is ``Pending`` until it has a launcher pod (``Scheduling``), and
``Scheduled`` from the moment that the pod is up on a node. There virt-handler starts the domain,
with one exception: where attestation is asked for, it waits, silently, until both session and DH
certificate are set. A domain that exists, running or paused, makes the VMI ``Running``; paused by a
user (or from the start) it carries the condition ``Paused``, which is removed, never set False. A
start that QEMU or the firmware refuses changes no phase: it leaves the condition ``Synchronized``
False with the error, and is tried again. The launcher gives up when no domain is there 240 to
359 s after it started; then, as whenever a launcher is gone, the VMI is ``Failed`` for good.

``next_step`` is level-triggered like KubeVirt itself: it looks at what is, and names the one thing
to do. ``step`` applies one event. Both are tables. Neither knows a clock, a cluster or a processor.

Source: KubeVirt 1.9, ``pkg/virt-controller/watch/vmi``, ``pkg/virt-handler``,
``cmd/virt-launcher``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING, Final, TypeAlias, final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Seconds that a launcher waits for its domain, and the range of whole seconds added at random.
LAUNCHER_TIMEOUT: Final = 240.0
LAUNCHER_JITTER: Final = 120


class Phase(StrEnum):
    """``status.phase``."""

    PENDING = "Pending"
    SCHEDULING = "Scheduling"
    SCHEDULED = "Scheduled"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"

    @property
    def final(self) -> bool:
        """Whether nothing happens to the VMI any more."""
        return self in {Phase.SUCCEEDED, Phase.FAILED}


@final
@dataclass(frozen=True, slots=True)
class Condition:
    """One entry of ``status.conditions``; ``status`` is True, False or Unknown."""

    kind: str
    status: str
    reason: str = ""
    message: str = ""


PAUSED: Final = Condition("Paused", "True", "PausedByUser", "VMI was paused by user")
_REFUSED_REASON: Final = "Synchronizing with the Domain failed."


@final
@dataclass(frozen=True, slots=True)
class Instance:
    """What KubeVirt says of a VMI. ``node`` is empty before it is Scheduled."""

    phase: Phase = Phase.PENDING
    node: str = ""
    conditions: tuple[Condition, ...] = ()

    def condition(self, kind: str) -> Condition | None:
        """Return the condition of this type; KubeVirt asks whether there is one, not its status."""
        return next((entry for entry in self.conditions if entry.kind == kind), None)

    def with_condition(self, condition: Condition) -> Instance:
        """Return the VMI with the condition in place of any other of its type."""
        rest = self.without(condition.kind).conditions
        return replace(self, conditions=(*rest, condition))

    def without(self, kind: str) -> Instance:
        """Return the VMI without the condition of this type."""
        rest = tuple(entry for entry in self.conditions if entry.kind != kind)
        return replace(self, conditions=rest)


@final
@dataclass(frozen=True, slots=True)
class PodCreated:
    """virt-controller made the launcher pod."""


@final
@dataclass(frozen=True, slots=True)
class Unschedulable:
    """No node can take the pod; ``message`` is the scheduler's."""

    message: str


@final
@dataclass(frozen=True, slots=True)
class LauncherReady:
    """The pod is up on ``node``; its launcher waits for a domain from now on."""

    node: str


@final
@dataclass(frozen=True, slots=True)
class StartRefused:
    """The domain could not be started; ``message`` is the launcher's error."""

    message: str


@final
@dataclass(frozen=True, slots=True)
class DomainUp:
    """There is a domain; ``paused`` by a user, or from the start."""

    paused: bool


@final
@dataclass(frozen=True, slots=True)
class DomainOff:
    """The guest ended: by itself, or it crashed."""

    crashed: bool = False


@final
@dataclass(frozen=True, slots=True)
class LauncherGone:
    """The launcher gave up, or is not there any more."""


@final
@dataclass(frozen=True, slots=True)
class Deleted:
    """Somebody deleted the VMI: its guest is ended."""


Event: TypeAlias = (
    PodCreated
    | Unschedulable
    | LauncherReady
    | StartRefused
    | DomainUp
    | DomainOff
    | LauncherGone
    | Deleted
)


def step(instance: Instance, event: Event) -> Instance:
    """Return the VMI after ``event``; unchanged where the event means nothing in its phase."""
    rule = _RULES.get((instance.phase, type(event)))
    return instance if rule is None else rule(instance, event)


def _to(phase: Phase) -> Callable[[Instance, Event], Instance]:
    return lambda instance, _: replace(instance, phase=phase)


def _unschedulable(instance: Instance, event: Event) -> Instance:
    message = event.message if isinstance(event, Unschedulable) else ""
    return instance.with_condition(Condition("PodScheduled", "False", "Unschedulable", message))


def _ready(instance: Instance, event: Event) -> Instance:
    node = event.node if isinstance(event, LauncherReady) else ""
    return replace(instance.without("PodScheduled"), phase=Phase.SCHEDULED, node=node)


def _refused(instance: Instance, event: Event) -> Instance:
    message = event.message if isinstance(event, StartRefused) else ""
    return instance.with_condition(Condition("Synchronized", "False", _REFUSED_REASON, message))


def _up(instance: Instance, event: Event) -> Instance:
    running = replace(instance.without("Synchronized"), phase=Phase.RUNNING)
    if not (isinstance(event, DomainUp) and event.paused):
        return running.without(PAUSED.kind)
    return running if running.condition(PAUSED.kind) else running.with_condition(PAUSED)


def _off(instance: Instance, event: Event) -> Instance:
    crashed = isinstance(event, DomainOff) and event.crashed
    return replace(
        instance.without(PAUSED.kind), phase=Phase.FAILED if crashed else Phase.SUCCEEDED
    )


_RULES: Final[Mapping[tuple[Phase, type], Callable[[Instance, Event], Instance]]] = {
    (Phase.PENDING, PodCreated): _to(Phase.SCHEDULING),
    (Phase.PENDING, Deleted): _to(Phase.SUCCEEDED),
    (Phase.SCHEDULING, Unschedulable): _unschedulable,
    (Phase.SCHEDULING, LauncherReady): _ready,
    (Phase.SCHEDULING, Deleted): _to(Phase.SUCCEEDED),
    (Phase.SCHEDULED, StartRefused): _refused,
    (Phase.SCHEDULED, DomainUp): _up,
    (Phase.SCHEDULED, LauncherGone): _to(Phase.FAILED),
    (Phase.SCHEDULED, Deleted): _to(Phase.SUCCEEDED),
    (Phase.RUNNING, DomainUp): _up,
    (Phase.RUNNING, DomainOff): _off,
    (Phase.RUNNING, LauncherGone): lambda instance, _: _off(instance, DomainOff(crashed=True)),
    (Phase.RUNNING, Deleted): _off,
}


class Step(Enum):
    """The one thing to do next for a VMI."""

    WAIT = auto()
    CREATE_POD = auto()
    SCHEDULE = auto()
    START_DOMAIN = auto()
    LOSE_LAUNCHER = auto()
    REPORT_DOMAIN = auto()
    REPORT_END = auto()
    END = auto()


@final
@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is around a VMI: what it asks for, and what there is of it on its node.

    ``session`` says that session and DH certificate are both set; ``expired`` that the launcher's
    time is up; ``ended`` that the guest came to an end by itself.
    """

    attestation: bool = False
    session: bool = False
    launcher: bool = False
    domain: bool = False
    ended: bool = False
    expired: bool = False
    deleted: bool = False


def next_step(instance: Instance, around: Surroundings) -> Step:
    """Return what KubeVirt does next: the first row that fits."""
    phase = instance.phase
    on_node = phase in {Phase.SCHEDULED, Phase.RUNNING}
    for fits, wanted in (
        (around.deleted, Step.END),
        (phase.final, Step.END),
        (phase is Phase.PENDING, Step.CREATE_POD),
        (phase is Phase.SCHEDULING, Step.SCHEDULE),
        (on_node and not around.launcher, Step.LOSE_LAUNCHER),
        (around.ended, Step.REPORT_END),
        (around.domain, Step.REPORT_DOMAIN),
        (phase is Phase.RUNNING, Step.LOSE_LAUNCHER),
        (around.expired, Step.LOSE_LAUNCHER),
        (around.attestation and not around.session, Step.WAIT),
    ):
        if fits:
            return wanted
    return Step.START_DOMAIN
