"""What the webhook knows of the cluster, kept current by two watches and read without a wait.

Theory of operation. One daemon thread watches the nodes' metadata, one the KubeVirt objects. Each
folds what it knows into one small immutable value whenever that may have changed, and puts it, with
the moment at which the API server was last heard of, in one place by one assignment. A decision
takes that one reference: no lock, no I/O, and never half of a change. "Not known" is None, and is
what there is before the first list, and again when nothing, not even a bookmark, was heard of for
``SILENCE_SECONDS``: a cluster that cannot be seen is not one without nodes.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from dataclasses import dataclass, replace
from random import SystemRandom
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, Protocol, Self, TypeVar, final

from sevkit.cluster.errors import NotFound
from sevkit.cluster.kinds import KUBEVIRTS, NODES
from sevkit.cluster.watch import Change, Collection, Contents, Heard, Key, Opened, Pause, watch
from sevkit.errors import InternalError, SevkitError
from sevkit.kubevirt.installation import UNKNOWN, parse_installation
from webhooks.node_tiers import fold_nodes, parse_node

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from random import Random
    from types import TracebackType

    from sevkit.cluster.api import StreamingServer
    from sevkit.documents import Json
    from sevkit.kubevirt.installation import Installation
    from sevkit.kubevirt.tiers import Tier

#: After how long without a word what is known is not known any more.
SILENCE_SECONDS: Final = 600.0
#: How long ``stop`` waits for the threads.
STOP_SECONDS: Final = 1.0
#: How long a watch rests that a bug has ended.
_REST_SECONDS: Final = 60.0
#: Nodes of one page: each page's JSON is read at one go, and reviews wait for that.
_PAGE: Final = 100
_LOG: Final = logging.getLogger("sevkit.webhooks.caches")

_Made = TypeVar("_Made")
_Folded = TypeVar("_Folded")


class Tally(Protocol):
    """Whoever counts; called in the watches' threads. ``kind`` is ``nodes`` or ``kubevirts``."""

    def listed(self, kind: str, objects: int) -> None:
        """Learn that a whole list came, and of how many objects of interest."""
        ...

    def heard(self, kind: str, objects: int) -> None:
        """Learn that the API server was heard of just now, and how many objects are known."""
        ...

    def failed(self, kind: str, error: SevkitError) -> None:
        """Learn why a list or a watch ended."""
        ...


@final
class Uncounted:
    """A tally that counts nothing."""

    def listed(self, kind: str, objects: int) -> None:
        """Forget it."""

    def heard(self, kind: str, objects: int) -> None:
        """Forget it."""

    def failed(self, kind: str, error: SevkitError) -> None:
        """Forget it."""


@final
@dataclass(frozen=True, slots=True)
class _State(Generic[_Folded]):
    """``folded`` and ``heard`` are None before the first list; ``error`` is why nothing comes."""

    folded: _Folded | None = None
    heard: float | None = None
    error: SevkitError | None = None


@final
@dataclass(frozen=True, slots=True)
class _Around:
    clock: Callable[[], float]
    random: Random
    tally: Tally


@final
class _Cache(Generic[_Made, _Folded]):
    """One collection, folded. Written by the one thread that is in ``run``, read by all."""

    def __init__(
        self,
        server: StreamingServer,
        collection: Collection,
        reduce: Callable[[Mapping[str, Json]], _Made | None],
        fold: Callable[[Mapping[Key, _Made]], _Folded],
        around: _Around,
    ) -> None:
        self.name: Final = collection.kind.plural
        self._server: Final = server
        self._collection: Final = collection
        self._reduce: Final = reduce
        self._fold: Final = fold
        self._around: Final = around
        self._objects: dict[Key, _Made] = {}
        self._is_watched = False
        self._state: _State[_Folded] = _State()
        #: Whether there ever was a list, or the API server's word that it serves no such kind.
        self.is_settled = False

    @property
    def folded(self) -> _Folded | None:
        """What is known now, None for nothing."""
        state = self._state
        return None if self._is_silent(state) else state.folded

    @property
    def problem(self) -> str:
        """What is wrong, "" for nothing."""
        state = self._state
        why = f": {state.error.message}" if state.error else ""
        if state.heard is None:
            return f"{self.name}: not listed yet{why}"
        if self._is_silent(state):
            return f"{self.name}: nothing heard of for {SILENCE_SECONDS:g} s{why}"
        return f"{self.name}: not watched now{why}" if why else ""

    def _is_silent(self, state: _State[_Folded]) -> bool:
        return state.heard is None or self._around.clock() - state.heard > SILENCE_SECONDS

    def run(self, stopping: threading.Event) -> None:
        """Watch until ``stopping``, and until the server is interrupted if it hangs."""
        while not stopping.is_set():
            try:
                self._watch(stopping)
            except Exception as error:  # noqa: BLE001  # a bug must not end the thread unseen
                _LOG.critical("internal error, a bug", exc_info=error, extra={"kind": self.name})
                self._failed(InternalError("internal error, a bug; the log has it"))
                stopping.wait(_REST_SECONDS)

    def _watch(self, stopping: threading.Event) -> None:
        around = self._around
        news_of = watch(
            self._server, self._collection, self._reduce, random=around.random, clock=around.clock
        )
        with contextlib.closing(news_of):
            for news in news_of:
                if stopping.is_set():
                    return
                if isinstance(news, Pause):
                    self._failed(news.error)
                    stopping.wait(news.seconds)
                else:
                    self._take(news)

    def _take(self, news: Contents[_Made] | Change[_Made] | Opened | Heard) -> None:
        before, now = self._state, self._around.clock()
        folded, error = before.folded, None
        if isinstance(news, Contents):
            self.is_settled = True
            self._objects, error = news.objects, before.error  # until a watch is taken, too
            self._around.tally.listed(self.name, len(news.objects))
        if isinstance(news, Contents) or (isinstance(news, Change) and self._changes(news)):
            folded = self._fold(self._objects)
        if isinstance(news, Opened):
            self._state = replace(before, error=None)
            if not self._is_watched:
                _LOG.info("watched", extra={"kind": self.name, "objects": len(self._objects)})
            self._is_watched = True
        else:
            self._state = _State(folded, now, error)
            self._around.tally.heard(self.name, len(self._objects))

    def _changes(self, news: Change[_Made]) -> bool:
        """Put a change in its place; return whether it is one, which a node's heartbeat is not."""
        before = self._objects.pop(news.key, None)
        if news.made is not None:
            self._objects[news.key] = news.made
        return before != news.made

    def _failed(self, error: SevkitError) -> None:
        before, self._state = self._state, replace(self._state, error=error)
        self._is_watched = False
        self.is_settled |= isinstance(error, NotFound)
        self._around.tally.failed(self.name, error)
        if before.error is None or before.error.message != error.message:
            _LOG.warning("not watched", exc_info=error, extra={"kind": self.name})


class _Found(NamedTuple):
    """The one installation, or why there is none."""

    installation: Installation
    problem: str = ""


def _fold_installations(objects: Mapping[Key, Installation]) -> _Found:
    if not objects:
        return _Found(UNKNOWN, "kubevirts: there is no KubeVirt object")
    if len(objects) == 1:
        return _Found(next(iter(objects.values())))
    names = sorted("/".join(key) for key in objects)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return _Found(UNKNOWN, f"kubevirts: more than one KubeVirt: {', '.join(names[:3])}{more}")


@final
class Caches:
    """What the decision may ask of the cluster; a ``Surroundings``.

    ``server`` has to be theirs alone, because ``stop`` interrupts it; closing it is the caller's.
    As a context manager they start and stop. ``clock`` is in seconds and never goes back.
    """

    def __init__(
        self,
        server: StreamingServer,
        *,
        tally: Tally | None = None,
        clock: Callable[[], float] = time.monotonic,
        random: Random | None = None,
    ) -> None:
        self._server: Final = server
        self._stopping: Final = threading.Event()
        around = _Around(clock, random or SystemRandom(), tally or Uncounted())
        nodes = Collection(NODES, metadata_only=True, page=_PAGE)
        self._nodes: Final = _Cache(
            server, nodes, parse_node, lambda found: fold_nodes(found.values()), around
        )
        self._kubevirts: Final = _Cache(
            server, Collection(KUBEVIRTS), parse_installation, _fold_installations, around
        )
        self._threads: Final = tuple(
            threading.Thread(
                target=cache.run, args=(self._stopping,), name=f"watch-{cache.name}", daemon=True
            )
            for cache in (self._nodes, self._kubevirts)
        )

    @property
    def installation(self) -> Installation:
        """What the one KubeVirt object says; ``UNKNOWN`` where there is not one, or no word."""
        found = self._kubevirts.folded
        return UNKNOWN if found is None else found.installation

    def runnable(self, *, simulated: bool) -> frozenset[Tier] | None:
        """Return the tiers that some node can run, None where that is not known now.

        Nodes on simulated hardware count only if ``simulated``.
        """
        found = self._nodes.folded
        if found is None:
            return None
        return found.all if simulated else found.real

    @property
    def is_settled(self) -> bool:
        """Whether both were listed once, or are not served at all: time to be ready, for ever."""
        return self._nodes.is_settled and self._kubevirts.is_settled

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong now, a line each."""
        found = self._kubevirts.folded
        rest = "" if found is None else found.problem
        return tuple(filter(None, (self._nodes.problem, self._kubevirts.problem, rest)))

    def start(self) -> None:
        """Begin to watch; once."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> bool:
        """End both watches, for ever; return whether both threads have ended within a second.

        One that waits for a TCP connection ends when that is there or given up.
        """
        self._stopping.set()
        self._server.interrupt()
        end = time.monotonic() + STOP_SECONDS
        begun = [thread for thread in self._threads if thread.ident is not None]
        for thread in begun:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in begun)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
