"""Who is connected, what each is at, and who has to go. Pure: the clock is the caller's.

Theory of operation. Every connection is a ``Guest`` from the moment it is accepted, so also one
that has not said a word of TLS. A guest is in one stage at a time, and a stage has a deadline
that nothing but the next stage moves: whoever sends a byte every second is not kept for it.

    GREETING -> HEAD -> BODY -> ASKED -> ANSWERING -> IDLE -> HEAD ...      any -> CLOSING

Connections are bounded too, for a guest costs a quarter of a megabyte from its first moment, by
asyncio's buffer for TLS. A newcomer always gets in, and another goes for it: first of the address
that has most of them above its share, and of these whoever never asked anything reasonable, then
whoever is idle, then whoever is sending, each time the one that has been at it longest. So who
opens thousands of connections pushes out his own, and an API server that sends within
milliseconds is the last to go. Whoever waits for a decision is never pushed out: there are few,
and they are soon done.

The same for bodies: together they hold at most ``Limits.held`` bytes, and the one that has been
sending longest goes first.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, final

from sevkit.kubevirt.admission import REVIEW_LIMIT
from webhooks.exchange import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@final
@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds: seconds, connections, and bytes.

    ``idle`` is longer than the 90 s after which a Go client, such as an API server, closes an idle
    connection itself: who closes first risks that a request is just on its way. ``share`` is how
    many connections one address may have before it counts as greedy: an API server keeps 25.
    ``waiting`` bounds requests that wait for a decision, ``lead`` is the time without which a
    decision would not reach the API server any more. ``drain`` is how long a server that was asked
    to stop goes on accepting, until no endpoint names it; ``grace`` how long it then takes at most.
    """

    greeting: float = 5.0
    head: float = 3.0
    body: float = 5.0
    answering: float = 5.0
    idle: float = 120.0
    closing: float = 2.0
    connections: int = 128
    share: int = 32
    body_bytes: int = REVIEW_LIMIT
    held: int = 32 << 20
    waiting: int = 64
    lead: float = 0.05
    drain: float = 5.0
    grace: float = 10.0


class Stage(Enum):
    """What a connection is at."""

    GREETING = auto()
    HEAD = auto()
    BODY = auto()
    ASKED = auto()
    ANSWERING = auto()
    IDLE = auto()
    CLOSING = auto()


#: What it means that a stage has outlived its deadline; an idle connection's end is nothing to say.
OVERDUE: Final[dict[Stage, Outcome | None]] = {
    Stage.GREETING: Outcome.HANDSHAKE,
    Stage.HEAD: Outcome.HEAD_SLOW,
    Stage.BODY: Outcome.BODY_SLOW,
    Stage.ASKED: Outcome.LATE,
    Stage.ANSWERING: Outcome.ANSWER_SLOW,
    Stage.IDLE: None,
    Stage.CLOSING: None,
}
#: An API server's longest timeout: after it nobody waits for a decision.
_ASKED_SECONDS: Final = 35.0
_BUSY: Final = frozenset({Stage.ASKED, Stage.ANSWERING})
_UNPROVEN, _RESTING, _SENDING = range(3)


@final
@dataclass(slots=True, eq=False)
class Guest:
    """One connection. ``close`` ends it at once, wherever it is; times are the clock's.

    ``proven`` is whether it has ever asked something that was decided, ``began`` when the first
    byte of its request came, ``held`` how much of a body it has sent so far.
    """

    address: str
    close: Callable[[], None]
    since: float
    deadline: float
    stage: Stage = Stage.GREETING
    proven: bool = False
    began: float = 0.0
    held: int = 0


@final
class Guests:
    """All connections, at most ``limits.connections`` but for those that wait for a decision."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits: Final = limits
        self._clock: Final = clock
        self._all: Final[dict[Guest, None]] = {}
        self._addresses: Final[Counter[str]] = Counter()
        self._held = 0
        self._seconds: Final = {
            Stage.GREETING: limits.greeting,
            Stage.HEAD: limits.head,
            Stage.BODY: limits.body,
            Stage.ASKED: _ASKED_SECONDS,
            Stage.ANSWERING: limits.answering,
            Stage.IDLE: limits.idle,
            Stage.CLOSING: limits.closing,
        }

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Guest]:
        return iter(tuple(self._all))

    def __contains__(self, guest: Guest) -> bool:
        return guest in self._all

    @property
    def is_crowded(self) -> bool:
        """Whether the bodies that are held are more than may be."""
        return self._held > self._limits.held

    def enter(self, address: str, close: Callable[[], None]) -> tuple[Guest, Guest | None]:
        """Add a connection from ``address``; returns it, and who has to go for it."""
        evicted = self.evict() if len(self._all) >= self._limits.connections else None
        now = self._clock()
        guest = Guest(address, close, now, now + self._limits.greeting)
        self._all[guest] = None
        self._addresses[address] += 1
        return guest, evicted

    def evict(self) -> Guest | None:
        """Forget who has to make room for another, and return it; None where nobody can."""
        evicted = self._surplus()
        if evicted:
            self.leave(evicted)
        return evicted

    def leave(self, guest: Guest) -> None:
        """Forget a connection; one that is not there is no error."""
        if guest not in self._all:
            return
        del self._all[guest]
        self.release(guest)
        self._addresses[guest.address] -= 1
        if not self._addresses[guest.address]:
            del self._addresses[guest.address]

    def turn(self, guest: Guest, stage: Stage) -> None:
        """Note that a connection is at ``stage``; if it was so already, its deadline stays."""
        if guest.stage is stage:
            return
        now = self._clock()
        if stage is Stage.HEAD or (
            # Head and body may come in one piece, and then the stages between are not seen.
            stage in (Stage.BODY, Stage.ASKED) and guest.stage in (Stage.IDLE, Stage.GREETING)
        ):
            guest.began = now
        guest.stage, guest.since, guest.deadline = stage, now, now + self._seconds[stage]

    def hold(self, guest: Guest, count: int) -> Guest | None:
        """Note that a guest's body has ``count`` bytes by now; returns who has to go for it."""
        if guest not in self._all:
            return None
        self._held += count - guest.held
        guest.held = count
        if not self.is_crowded:
            return None
        sending = [one for one in self._all if one.stage is Stage.BODY]
        evicted = min(sending, key=lambda one: one.since, default=None)
        if evicted:
            self.leave(evicted)
        return evicted

    def release(self, guest: Guest) -> None:
        """Note that a guest's body is no longer held."""
        self._held -= guest.held
        guest.held = 0

    def overdue(self) -> list[Guest]:
        """Return the connections whose stage has lasted too long."""
        now = self._clock()
        return [guest for guest in self._all if guest.deadline <= now]

    def _surplus(self) -> Guest | None:
        """Return who has to make room, or None if everybody waits for a decision."""
        if not self._all:
            return None
        share = max(self._limits.share, self._limits.connections // len(self._addresses))
        greed = {address: max(count - share, 0) for address, count in self._addresses.items()}
        movable = (guest for guest in self._all if guest.stage not in _BUSY)
        return min(
            movable,
            key=lambda guest: (-greed[guest.address], _rank(guest), guest.since),
            default=None,
        )


def _rank(guest: Guest) -> int:
    if guest.stage is Stage.CLOSING or not guest.proven:
        return _UNPROVEN
    return _RESTING if guest.stage is Stage.IDLE else _SENDING
