"""One collection, kept in step with the API server: listed, then watched, and listed again.

Theory of operation. ``watch`` is a generator without a thread and without a wait: it yields what it
learns, and a ``Pause`` where somebody has to wait. It lists in pages, then watches from the list's
resource version, and after an end or a break from the last version that it saw, so that nothing is
missed. Whatever makes that version worthless (410, any other refusal, an answer that is none) has
it list again: the new ``Contents`` replace all that was known, so what was deleted meanwhile is
gone. Each object is reduced to what matters when it comes; its JSON is not kept.

The list is one in pages and not the API server's own (``sendInitialEvents``): that one is refused
where the feature gate WatchList is off, so this one were needed all the same, and it saves memory
of the API server that a few pages of metadata do not take. It is a consistent list, without a
resource version: the API server ignores ``limit`` where it is asked for version 0.

Of a quiet collection there are bookmarks, about one a minute; but only if etcd has told the API
server of a later version than that from which the watch began, which may take it ten minutes. And
a watch from a version that is yet to come, as after a restored etcd, is taken and stays silent. So
after ``IDLE_SECONDS`` without a line nothing is known of the other side, and it is listed again.
Attempts that end soon are paused between with capped exponential waiting, whatever ended them:
nothing here can spin.

Source: Kubernetes API concepts, "Efficient detection of changes", "Watch bookmarks", "Retrieving
large results sets in chunks", "Metadata-only fetches"; k8s.io/client-go tools/cache/reflector.go;
k8s.io/apiserver pkg/storage/cacher/cache_watcher.go.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeAlias, TypeVar, final

from sevkit.cluster.api import JSON, METADATA, METADATA_LIST, OBJECT_LIMIT, Call, mapping
from sevkit.cluster.errors import (
    BadAnswer,
    StatusError,
    Timeout,
    TooMany,
    Unreachable,
    parse_status,
)
from sevkit.cluster.pages import PAGE, PAGE_LIMIT, iter_pages
from sevkit.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping
    from random import Random

    from sevkit.cluster.api import Accept, Kind, StreamingServer
    from sevkit.documents import Json
    from sevkit.errors import SevkitError

#: The largest event in bytes: an object, and what is around it.
EVENT_LIMIT: Final = OBJECT_LIMIT + 1024
#: How long the API server keeps a watch, by chance between these, in seconds.
WATCH_SECONDS: Final = (300, 600)
#: How long to wait for a line: two bookmarks, and some.
IDLE_SECONDS: Final = 150.0
#: How long after its time a watch is left that the API server does not end.
OVERTIME: Final = 30.0
#: An attempt that lasted as long is no failure in a row with the next.
STEADY_SECONDS: Final = 10.0
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
#: The longest that a busy API server is left alone.
LONGEST_ASKED: Final = 120.0
_DOUBLINGS: Final = 16
#: A tuple, because a type that is no text may not be hashable.
_EVENTS: Final = ("ADDED", "MODIFIED", "DELETED", "BOOKMARK")

_Made = TypeVar("_Made")


class Key(NamedTuple):
    """What tells an object from the others of its kind; ``namespace`` is "" where there is none."""

    namespace: str
    name: str


@final
@dataclass(frozen=True, slots=True)
class Collection:
    """All objects of a kind, in one namespace or in all: whole, or their metadata only."""

    kind: Kind
    metadata_only: bool = False
    page: int = PAGE
    namespace: str = ""

    @property
    def path(self) -> str:
        """Where they are."""
        return self.kind.path(namespace=self.namespace)


@final
@dataclass(frozen=True, slots=True)
class Contents(Generic[_Made]):
    """All that there is now, in place of all that was known before."""

    objects: dict[Key, _Made]


@final
@dataclass(frozen=True, slots=True)
class Change(Generic[_Made]):
    """One object as it is now; ``made`` is None if it is gone, or left out by who reduces."""

    key: Key
    made: _Made | None


@final
@dataclass(frozen=True, slots=True)
class Opened:
    """The API server takes a watch; it has said nothing yet."""


@final
@dataclass(frozen=True, slots=True)
class Heard:
    """The API server says that nothing else has changed so far."""


@final
@dataclass(frozen=True, slots=True)
class Pause:
    """Whoever drives has to wait ``seconds`` now, because of ``error``."""

    seconds: float
    error: ClusterError


News: TypeAlias = Contents[_Made] | Change[_Made] | Opened | Heard | Pause


def watch(
    server: StreamingServer,
    collection: Collection,
    reduce: Callable[[Mapping[str, Json]], _Made | None],
    *,
    random: Random,
    clock: Callable[[], float],
    idle: float = IDLE_SECONDS,
) -> Generator[News[_Made], None, None]:
    """Yield news of ``collection`` for ever; what goes wrong is in a ``Pause``, never raised.

    ``reduce`` makes of an object what is kept, or None to leave it out. ``clock`` is in seconds
    and never goes back; ``idle`` is how long to wait for a line. Close the generator to end a
    watch that is under way.
    """
    attempts, failures = _Attempts(server, collection, reduce, random, clock, idle), 0
    while True:
        began, error = clock(), None
        try:
            yield from attempts.attempt()
        except ClusterError as found:
            error = found
            if not _keeps_version(found):
                attempts.version = ""
        is_steady = clock() - began >= STEADY_SECONDS
        failures = 0 if is_steady else failures
        if error is None and not is_steady:
            error = Unreachable("API server ended a watch soon after it began")
        if error is not None:
            failures += 1
            yield Pause(pause_seconds(error, failures, random), error)


def _keeps_version(error: ClusterError) -> bool:
    """Return whether to go on from the last version: nobody said anything against it."""
    return isinstance(error, TooMany) or not isinstance(error, StatusError | BadAnswer)


def pause_seconds(error: SevkitError, failures: int, random: Random) -> float:
    """Return how long to wait after ``failures`` in a row, 1 and more, of which ``error`` is last.

    At most a minute, of which half is left to chance; what a busy API server asks for is kept.
    """
    wait = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, _DOUBLINGS))
    asked = (error.retry_after or 0.0) if isinstance(error, StatusError) else 0.0
    return max(wait * random.uniform(0.5, 1), min(asked, LONGEST_ASKED) * random.uniform(1, 1.2))


@final
@dataclass(slots=True)
class _Attempts(Generic[_Made]):
    """Lists and watches; ``version`` is where to go on, "" to list first."""

    server: StreamingServer
    collection: Collection
    reduce: Callable[[Mapping[str, Json]], _Made | None]
    random: Random
    clock: Callable[[], float]
    idle: float
    version: str = ""

    def attempt(self) -> Iterator[News[_Made]]:
        """Yield news until the watch ends. Raises ``ClusterError``."""
        if not self.version:
            self.version, objects = self._list()
            yield Contents(objects)
        yield from self._follow()

    def _list(self) -> tuple[str, dict[Key, _Made]]:
        """Return the version of the whole list, and what was made of its objects."""
        objects: dict[Key, _Made] = {}
        metadata: Mapping[str, Json] = {}
        accept: Accept = METADATA_LIST if self.collection.metadata_only else JSON
        query = (("limit", str(self.collection.page)),)
        path = self.collection.path
        first = Call("GET", path, query, limit=PAGE_LIMIT, accept=accept)
        for page in iter_pages(self.server.call, first):
            for document in map(mapping, page.items):
                made = self.reduce(document)
                if made is not None:
                    objects[_key(document)] = made
            metadata = page.metadata
        return _version(metadata), objects

    def _follow(self) -> Iterator[News[_Made]]:
        """Yield the events of one watch, and keep the version that each leads to."""
        seconds = self.random.randint(*WATCH_SECONDS)
        query = (
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", self.version),
            ("timeoutSeconds", str(seconds)),
        )
        accept: Accept = METADATA if self.collection.metadata_only else JSON
        call = Call("GET", self.collection.path, query, limit=EVENT_LIMIT, accept=accept)
        end = self.clock() + seconds + OVERTIME
        with self.server.stream(call, idle=self.idle) as lines:
            yield Opened()
            while self.clock() <= end:
                try:
                    line = next(lines)
                except StopIteration:
                    return
                except Timeout:
                    self.version = ""
                    return
                yield self._news(mapping(line))

    def _news(self, event: Mapping[str, Json]) -> News[_Made]:
        kind, document = event.get("type"), mapping(event.get("object"))
        if kind == "ERROR":
            raise _refusal(document)
        if kind not in _EVENTS:
            raise BadAnswer("API server sends an event of no kind that is known")
        news: News[_Made] = Heard()
        if kind != "BOOKMARK":
            made = None if kind == "DELETED" else self.reduce(document)
            news = Change(_key(document), made)
        self.version = _version(_metadata(document))
        return news


def _refusal(status: Mapping[str, Json]) -> ClusterError:
    """Return what a Status in the middle of a watch means: the same as one in its place."""
    code, details = status.get("code"), status.get("details")
    after = details.get("retryAfterSeconds") if isinstance(details, dict) else None
    return parse_status(
        code if isinstance(code, int) and 400 <= code < 600 else 500,
        json.dumps(dict(status)).encode(),
        str(after) if isinstance(after, int) else None,
    )


def _metadata(document: Mapping[str, Json]) -> Mapping[str, Json]:
    found = document.get("metadata")
    if not isinstance(found, dict):
        raise BadAnswer("API server sends an object without metadata")
    return found


def _version(metadata: Mapping[str, Json]) -> str:
    found = metadata.get("resourceVersion")
    if not isinstance(found, str) or not found:
        raise BadAnswer("API server sends an object without its version")
    return found


def _key(document: Mapping[str, Json]) -> Key:
    metadata = _metadata(document)
    namespace, name = metadata.get("namespace", ""), metadata.get("name")
    if not isinstance(namespace, str) or not isinstance(name, str) or not name:
        raise BadAnswer("API server sends an object without a name")
    return Key(namespace, name)
