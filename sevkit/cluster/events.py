"""Events of a node: what ``kubectl describe node`` shows below everything else.

The API server keeps them for an hour. Whoever makes them sees to it that the same thing is not
said over and over: ``repeat_event`` counts one up instead.

Source: Kubernetes API, events.k8s.io/v1, whose limits stand in ``_LIMITS``.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, final

from sevkit.cluster.api import MERGE_PATCH, Call
from sevkit.cluster.kinds import EVENTS
from sevkit.errors import UsageError

if TYPE_CHECKING:
    from datetime import datetime

    from sevkit.cluster.api import ApiServer
    from sevkit.cluster.nodes import NodeView
    from sevkit.documents import Json

#: Events of objects that are in no namespace are in this one.
NAMESPACE: Final = "default"
CONTROLLER: Final = "sevkit.io/node-agent"
_NOTE_LIMIT: Final = 1024
_WORD_LIMIT: Final = 128
_NAME_LIMIT: Final = 253


@final
@dataclass(frozen=True, slots=True)
class NodeEvent:
    """Something that happened to a node.

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


def create_event(
    server: ApiServer, node: NodeView, event: NodeEvent, *, instance: str, now: datetime
) -> str:
    """Make an event of ``node`` and return its name. ``instance`` is the pod that says it.

    ``now`` carries its zone. Raises ``ClusterError``.
    """
    suffix = uuid.uuid4().hex[:16]
    name = f"{node.name[: _NAME_LIMIT - 1 - len(suffix)]}.{suffix}"
    server.call(
        Call(
            "POST",
            EVENTS.path(namespace=NAMESPACE),
            body={
                "apiVersion": "events.k8s.io/v1",
                "kind": "Event",
                "metadata": {"name": name, "namespace": NAMESPACE},
                "eventTime": _micro(now),
                "reportingController": CONTROLLER,
                "reportingInstance": instance[:_WORD_LIMIT],
                "action": event.action,
                "reason": event.reason,
                "note": _cut(event.note),
                "type": event.kind,
                "regarding": {
                    "apiVersion": "v1",
                    "kind": "Node",
                    "name": node.name,
                    "uid": node.uid,
                },
            },
        )
    )
    return name


def repeat_event(server: ApiServer, name: str, *, count: int, now: datetime) -> None:
    """Say that the event ``name`` happened again, ``count`` times (2 and more) by now.

    Raises ``NotFound`` where the API server has dropped it meanwhile, or another ``ClusterError``.
    """
    series: dict[str, Json] = {"count": count, "lastObservedTime": _micro(now)}
    path = EVENTS.path(name, namespace=NAMESPACE)
    server.call(Call("PATCH", path, body={"series": series}, content_type=MERGE_PATCH))


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
