"""Events of an object: what ``kubectl describe`` shows below everything else.

The API server keeps them for an hour. The same thing is not said over and over: a ``Teller``
counts one up instead.

Source: Kubernetes API, events.k8s.io/v1, whose limits stand in ``_LIMITS``.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal, final

from sevkit.cluster.api import MERGE_PATCH, Call
from sevkit.cluster.errors import NotFound
from sevkit.cluster.kinds import EVENTS
from sevkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.cluster.api import ApiServer
    from sevkit.documents import Json

#: Events of objects that are in no namespace are in this one.
NAMESPACE: Final = "default"
#: An event that is told again within this time is counted up, and no new one is made; seconds.
REPEAT_SECONDS: Final = 3600.0
_REMEMBERED: Final = 32
_NOTE_LIMIT: Final = 1024
_WORD_LIMIT: Final = 128
_NAME_LIMIT: Final = 253


@final
@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to an object.

    ``reason`` is why, in one word that programs compare (``CapabilityLost``), ``action`` what was
    done about it (``Publish``), both of at most 128 characters; ``note`` is for people and cut at
    1 KiB. Raises ``UsageError`` for words that the API server would refuse.
    """

    reason: str
    action: str
    note: str
    kind: Literal["Normal", "Warning"] = "Normal"

    def __post_init__(self) -> None:
        for word in (self.reason, self.action):
            if not 0 < len(word) <= _WORD_LIMIT:
                raise UsageError(f"event's reason and action have 1 to {_WORD_LIMIT} characters")


@final
@dataclass(frozen=True, slots=True)
class Subject:
    """The object of the core's that events are about; ``namespace`` is "" where it is in none."""

    kind: str
    name: str
    uid: str
    namespace: str = ""


@final
@dataclass(frozen=True, slots=True)
class Speaker:
    """Who makes events: the controller, and which of its instances, such as a pod's name."""

    controller: str
    instance: str


def create_event(
    server: ApiServer, subject: Subject, event: Event, *, speaker: Speaker, now: datetime
) -> str:
    """Make an event of any object and return its name. ``now`` carries its zone.

    Raises ``ClusterError``.
    """
    suffix = uuid.uuid4().hex[:16]
    name = f"{subject.name[: _NAME_LIMIT - 1 - len(suffix)]}.{suffix}"
    namespace = subject.namespace or NAMESPACE
    within: dict[str, Json] = {"namespace": subject.namespace} if subject.namespace else {}
    server.call(
        Call(
            "POST",
            EVENTS.path(namespace=namespace),
            body={
                "apiVersion": "events.k8s.io/v1",
                "kind": "Event",
                "metadata": {"name": name, "namespace": namespace},
                "eventTime": _micro(now),
                "reportingController": speaker.controller,
                "reportingInstance": speaker.instance[:_WORD_LIMIT],
                "action": event.action,
                "reason": event.reason,
                "note": _cut(event.note),
                "type": event.kind,
                "regarding": {
                    "apiVersion": "v1",
                    "kind": subject.kind,
                    "name": subject.name,
                    "uid": subject.uid,
                    **within,
                },
            },
        )
    )
    return name


def repeat_event(
    server: ApiServer, name: str, *, count: int, now: datetime, namespace: str = NAMESPACE
) -> None:
    """Say that the event ``name`` happened again, ``count`` times (2 and more) by now.

    Raises ``NotFound`` where the API server has dropped it meanwhile, or another ``ClusterError``.
    """
    series: dict[str, Json] = {"count": count, "lastObservedTime": _micro(now)}
    path = EVENTS.path(name, namespace=namespace)
    server.call(Call("PATCH", path, body={"series": series}, content_type=MERGE_PATCH))


@final
class Teller:
    """Makes events, and counts up those that were made of the same object within the hour.

    ``clock`` is in seconds and never goes back. For one thread.
    """

    def __init__(
        self,
        server: ApiServer,
        speaker: Speaker,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server: Final = server
        self._speaker: Final = speaker
        self._clock: Final = clock
        self._told: Final[dict[tuple[Subject, Event], tuple[str, int, float]]] = {}

    def __len__(self) -> int:
        return len(self._told)

    def tell(self, subject: Subject, event: Event) -> None:
        """Tell one. Raises ``ClusterError``."""
        seconds, now, key = self._clock(), datetime.now(UTC), (subject, event)
        name, count, begun = self._told.get(key, ("", 0, seconds))
        is_told = bool(name) and seconds - begun < REPEAT_SECONDS
        if not is_told or not self._repeat(subject, name, count + 1, now):
            name = create_event(self._server, subject, event, speaker=self._speaker, now=now)
            count, begun = 0, seconds
        # What is told goes to the end: forgotten is what was not told for longest.
        self._told.pop(key, None)
        self._told[key] = (name, count + 1, begun)
        if len(self._told) > _REMEMBERED:
            self._told.pop(next(iter(self._told)))

    def _repeat(self, subject: Subject, name: str, count: int, now: datetime) -> bool:
        """Count one up; return whether it was there: the API server may have dropped it."""
        place = subject.namespace or NAMESPACE
        try:
            repeat_event(self._server, name, count=count, now=now, namespace=place)
        except NotFound:
            return False
        return True


def _micro(now: datetime) -> str:
    """Return a MicroTime: RFC 3339 with exactly six digits."""
    if now.tzinfo is None:
        raise UsageError("event's time has no zone")
    return now.isoformat(timespec="microseconds")


def _cut(note: str) -> str:
    data = note.encode()
    return (
        note
        if len(data) <= _NOTE_LIMIT
        else data[: _NOTE_LIMIT - 3].decode("utf-8", "ignore") + "…"
    )
