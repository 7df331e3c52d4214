"""What a launch is told in: what is stored, seen and asked for, and how it ends; values alone.

``sevkit.guest_owner.flow`` says what they do to each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Final, TypeAlias, final

#: Seconds that a launcher waits at least, and how many more at most, by chance.
LAUNCHER_SECONDS: Final = 240.0
LAUNCHER_JITTER: Final = 120.0


class Stage(StrEnum):
    """What is stored of a launch."""

    NOTHING = "nothing"
    SESSION = "session"
    PACKET = "packet"
    INJECTED = "injected"
    ENDED = "ended"


class Phase(Enum):
    """A VMI's phase, as far as a launch is concerned."""

    BEFORE = auto()
    SCHEDULED = auto()
    RUNNING = auto()
    OVER = auto()


class Holder(Enum):
    """Whose session the VMI has."""

    NOBODY = auto()
    US = auto()
    OTHER = auto()


class Outcome(StrEnum):
    """How a launch ended, as seen by its owner."""

    ATTESTED = "attested"
    VERIFIED = "verified"
    REFUSED = "refused"
    UNDECIDED = "undecided"
    UNCOVERED = "uncovered"
    UNFIT = "unfit"
    ABSENT = "absent"
    DELETED = "deleted"
    REPLACED = "replaced"
    OVER = "over"
    FOREIGN = "foreign"
    RELEASED = "released"
    LATE = "late"
    TIMEOUT = "timeout"
    FORBIDDEN = "forbidden"
    SPENT = "spent"


#: After these a later run may go on, so what is stored stays.
RESUMABLE: Final = frozenset(
    {Outcome.VERIFIED, Outcome.UNCOVERED, Outcome.TIMEOUT, Outcome.FORBIDDEN, Outcome.SPENT}
)


class Do(Enum):
    """An effect: the one thing to do next."""

    LOOK = auto()
    RECALL = auto()
    JUDGE_CHAIN = auto()
    KEEP_SESSION = auto()
    SEND_SESSION = auto()
    JUDGE_MEASUREMENT = auto()
    KEEP_PACKET = auto()
    INJECT = auto()
    KEEP_INJECTED = auto()
    UNPAUSE = auto()
    STOP = auto()
    CLOSE = auto()


@final
@dataclass(frozen=True, slots=True)
class Wait:
    """An effect: do nothing until this time of the clock."""

    until: float


@final
@dataclass(frozen=True, slots=True)
class Finish:
    """An effect: this was all."""

    outcome: Outcome


Effect: TypeAlias = Do | Wait | Finish


@final
@dataclass(frozen=True, slots=True)
class Seen:
    """The VMI as it is. ``unfit`` says why the owner's file does not let it through, else "".

    ``said`` is what KubeVirt says of it to people.
    """

    uid: str
    phase: Phase
    paused: bool = False
    holder: Holder = Holder.NOBODY
    deleting: bool = False
    unfit: str = ""
    said: str = ""


@final
@dataclass(frozen=True, slots=True)
class Absent:
    """There is no such VMI."""


@final
@dataclass(frozen=True, slots=True)
class Recalled:
    """What is stored of the launch of this UID."""

    stage: Stage


@final
@dataclass(frozen=True, slots=True)
class Judged:
    """Chain or measurement were judged; ``no`` is how the launch ends, None if accepted."""

    no: Outcome | None = None


@final
@dataclass(frozen=True, slots=True)
class Done:
    """What was to be stored is stored for good, or what was sent was taken."""


@final
@dataclass(frozen=True, slots=True)
class Failed:
    """It did not work, or it is not known whether it did.

    ``pause`` is how many seconds the other side asks for; ``refusal`` that it is our credentials
    or rights that are refused.
    """

    said: str = ""
    pause: float = 0.0
    refusal: bool = False


Event: TypeAlias = Seen | Absent | Recalled | Judged | Done | Failed


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """What the owner wants. ``timeout`` bounds the whole, ``poll`` is between looks; seconds."""

    inject: bool = True
    unpause: bool = True
    stop_on_refusal: bool = False
    timeout: float = math.inf
    poll: float = 1.0
    launcher: float = LAUNCHER_SECONDS
    jitter: float = LAUNCHER_JITTER


class Step(Enum):
    """Where a launch stands; the value is what to do there."""

    FIND = "find"
    RECALL = "recall"
    WAIT = "wait"
    CHAIN = "chain"
    KEEP_SESSION = "keep session"
    SEND = "send"
    AWAIT = "await"
    MEASURE = "measure"
    KEEP_PACKET = "keep packet"
    INJECT = "inject"
    HOLD = "hold"
    KEEP_INJECTED = "keep injected"
    RESUME = "resume"
    UNPAUSE = "unpause"
    CONFIRM = "confirm"
    STOP = "stop"
    CLOSE = "close"
    END = "end"
