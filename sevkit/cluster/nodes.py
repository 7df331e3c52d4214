"""Nodes: what the API server says of one, and what a field manager keeps true of it.

Labels, annotations and extended resources go in one server-side apply of ``nodes/status``, which
takes a node's metadata too and cannot touch its ``spec``. An apply says everything that its
manager wants: a key that it sent before and sends no more is removed, unless somebody else owns it
as well. A key that somebody else owns with another value makes a ``Conflict``, and then nothing
at all is applied; ``contested_keys`` names what to leave out.

Source: kubernetes.io, "Server-Side Apply"; "Advertise Extended Resources for a Node".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.cluster.api import Call, apply, mapping
from sevkit.cluster.errors import BadAnswer
from sevkit.cluster.kinds import NODES
from sevkit.cluster.quantity import same_quantity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sevkit.cluster.api import ApiServer
    from sevkit.cluster.errors import Conflict, Contested
    from sevkit.documents import Json

#: The longest name of an object, RFC 1123; of it also numbers in names are of bounded length.
_NAME_LIMIT: Final = 253
AGENT_MANAGER: Final = "sevkit-node-agent"
#: Where each kind of key stands in a node, as managed fields and conflicts spell it.
_PLACES: Final = {
    "labels": ("metadata", "labels"),
    "annotations": ("metadata", "annotations"),
    "capacity": ("status", "capacity"),
}
_FIELD: Final = re.compile(r"\.(?:metadata|status)\.(labels|annotations|capacity)\.(.+)")


@final
@dataclass(frozen=True, slots=True)
class NodeKeys:
    """Keys of a node's labels, annotations and capacity."""

    labels: frozenset[str] = frozenset()
    annotations: frozenset[str] = frozenset()
    capacity: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.labels or self.annotations or self.capacity)

    def __or__(self, other: NodeKeys) -> NodeKeys:
        return NodeKeys(
            self.labels | other.labels,
            self.annotations | other.annotations,
            self.capacity | other.capacity,
        )

    def __sub__(self, other: NodeKeys) -> NodeKeys:
        return NodeKeys(
            self.labels - other.labels,
            self.annotations - other.annotations,
            self.capacity - other.capacity,
        )


@final
@dataclass(frozen=True, slots=True)
class Manager:
    """One entry of a node's managed fields: who owns which keys, and by which operation.

    ``operation`` is ``Apply`` or ``Update``; ``subresource`` is "" or, for example, ``status``.
    """

    name: str
    operation: str
    subresource: str
    keys: NodeKeys


@final
@dataclass(frozen=True, slots=True)
class NodeView:
    """A node, as far as it matters here. Capacity and allocatable are quantities, as text."""

    name: str
    uid: str
    resource_version: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    capacity: Mapping[str, str]
    allocatable: Mapping[str, str]
    managers: tuple[Manager, ...]

    def owned_by(self, manager: str) -> NodeKeys:
        """Return the keys that ``manager`` has applied; what it updated otherwise is not its."""
        found = NodeKeys()
        for entry in self.managers:
            if entry.name == manager and entry.operation == "Apply":
                found |= entry.keys
        return found

    def has(
        self,
        labels: Mapping[str, str],
        annotations: Mapping[str, str],
        capacity: Mapping[str, str],
    ) -> bool:
        """Return whether the node has all these values; capacities are compared as numbers."""
        return (
            labels.items() <= self.labels.items()
            and annotations.items() <= self.annotations.items()
            and all(
                name in self.capacity and same_quantity(value, self.capacity[name])
                for name, value in capacity.items()
            )
        )


def parse_node(answer: Json) -> NodeView:
    """Return what the API server says of a node. Raises ``BadAnswer`` for what is none."""
    document = mapping(answer)
    metadata, status = document.get("metadata"), document.get("status", {})
    if not isinstance(metadata, dict) or not isinstance(status, dict):
        raise BadAnswer("API server answered with something else than a node")
    name = _text(metadata, "name")
    if len(name) > _NAME_LIMIT:
        raise BadAnswer(f"API server answered with a node whose name has {len(name)} characters")
    entries = metadata.get("managedFields", [])
    return NodeView(
        name=name,
        uid=_text(metadata, "uid"),
        resource_version=_text(metadata, "resourceVersion"),
        labels=_texts(metadata, "labels"),
        annotations=_texts(metadata, "annotations"),
        capacity=_texts(status, "capacity"),
        allocatable=_texts(status, "allocatable"),
        managers=tuple(
            _manager(entry)
            for entry in (entries if isinstance(entries, list) else [])
            if isinstance(entry, dict)
        ),
    )


def contested_keys(
    conflict: Conflict, where: Callable[[Contested], bool] = lambda _: True
) -> NodeKeys:
    """Return the keys that a conflict names, those ``where`` it says so.

    Fields that are no label, annotation or capacity are left out.
    """
    found: dict[str, set[str]] = {name: set() for name in _PLACES}
    for contested in filter(where, conflict.contested):
        match = _FIELD.fullmatch(contested.field)
        if match and contested.field.startswith(f".{_PLACES[match[1]][0]}."):
            found[match[1]].add(match[2])
    return NodeKeys(**{name: frozenset(keys) for name, keys in found.items()})


@final
class NodeClient:
    """One node, by its name."""

    def __init__(self, server: ApiServer, node_name: str) -> None:
        self._server: Final = server
        self._name: Final = node_name

    def get(self) -> NodeView:
        """Return the node as it is now. Raises ``ClusterError``."""
        return parse_node(self._server.call(Call("GET", NODES.path(self._name))))

    def apply_status(
        self,
        labels: Mapping[str, str],
        annotations: Mapping[str, str],
        capacity: Mapping[str, str],
        *,
        manager: str = AGENT_MANAGER,
        force: bool = False,
    ) -> NodeView:
        """Make these the keys that ``manager`` keeps true; return the node as it is then.

        One PATCH; a node that does not exist is never made. Raises ``Conflict`` with what is
        contested, where nothing is applied, and any other ``ClusterError``.
        """
        body: dict[str, Json] = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": self._name,
                "labels": dict(labels),
                "annotations": dict(annotations),
            },
            "status": {"capacity": dict(capacity)},
        }
        path = NODES.path(self._name, subresource="status")
        return parse_node(self._server.call(apply(path, body, manager=manager, force=force)))


def _manager(entry: Mapping[str, Json]) -> Manager:
    fields = _inner(entry, "fieldsV1")
    keys = {
        name: frozenset(
            key.removeprefix("f:")
            for key in _inner(_inner(fields, f"f:{outer}"), f"f:{inner}")
            if key.startswith("f:")
        )
        for name, (outer, inner) in _PLACES.items()
    }
    return Manager(
        _text(entry, "manager", ""),
        _text(entry, "operation", ""),
        _text(entry, "subresource", ""),
        NodeKeys(**keys),
    )


def _inner(document: Mapping[str, Json], key: str) -> Mapping[str, Json]:
    found = document.get(key)
    return found if isinstance(found, dict) else {}


def _text(document: Mapping[str, Json], key: str, default: str | None = None) -> str:
    value = document.get(key, default)
    if not isinstance(value, str):
        raise BadAnswer(f"API server's answer has no {key}")
    return value


def _texts(document: Mapping[str, Json], key: str) -> Mapping[str, str]:
    """Return a map of texts; the API server leaves it out where it is empty."""
    value = document.get(key) or {}
    if not isinstance(value, dict):
        raise BadAnswer(f"{key} in the API server's answer is no map")
    return {name: _text(value, name) for name in value}
