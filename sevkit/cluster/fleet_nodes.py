"""Every node of a cluster, reduced page by page, with its readiness.

Source: Kubernetes API, core/v1 Node: ``status.conditions``, ``spec.unschedulable``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar, final

from sevkit.cluster.kinds import NODES
from sevkit.cluster.nodes import NodeView, parse_node
from sevkit.cluster.pages import PAGE, fold_list
from sevkit.cluster.quantity import parse_quantity
from sevkit.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sevkit.cluster.api import ApiServer
    from sevkit.documents import Json

_READY: Final = {"True": True, "False": False}
#: No node runs as many guests; beyond it, sums of a fleet would be somebody's joke.
_MOST: Final = 1 << 32

_Made = TypeVar("_Made")


@final
@dataclass(frozen=True, slots=True)
class FleetNode:
    """A node and its state. ``ready`` is None where its kubelet is silent or never spoke.

    ``cordoned`` nodes take no new pods.
    """

    view: NodeView
    ready: bool | None
    cordoned: bool

    def count(self, resource: str) -> int | None:
        """Return how many of an extended resource there are; None is not known.

        Allocatable, which the kubelet computes some seconds later, goes before capacity.
        """
        text = self.view.allocatable.get(resource) or self.view.capacity.get(resource)
        return None if text is None else whole(text)


def whole(text: str) -> int | None:
    """Return a quantity that is a count, or None for any other."""
    try:
        number = parse_quantity(text)
    except FormatError:
        return None
    return int(number) if number.denominator == 1 and 0 <= number < _MOST else None


def parse_fleet_node(document: Mapping[str, Json]) -> FleetNode:
    """Return a node of a list. Raises ``BadAnswer`` for what is none."""
    view = parse_node(dict(document))
    spec, status = document.get("spec"), document.get("status")
    cordoned = isinstance(spec, dict) and spec.get("unschedulable") is True
    conditions = status.get("conditions") if isinstance(status, dict) else None
    return FleetNode(view, _ready(conditions), cordoned)


def _ready(conditions: Json) -> bool | None:
    for one in conditions if isinstance(conditions, list) else []:
        if isinstance(one, dict) and one.get("type") == "Ready":
            return _READY.get(str(one.get("status")))
    return None


def fold_nodes(
    server: ApiServer,
    reduce: Callable[[FleetNode], _Made],
    *,
    selector: str = "",
    page: int = PAGE,
    told: Callable[[int], None] = lambda _: None,
) -> list[_Made]:
    """Return what ``reduce`` makes of every node that the label ``selector`` chooses.

    ``told`` learns how many there were so far. Raises ``ClusterError``; ``Rejected`` for a
    selector that is ill-formed.
    """

    def fold(made: list[_Made], document: Mapping[str, Json]) -> None:
        made.append(reduce(parse_fleet_node(document)))

    def start() -> list[_Made]:
        return []

    query = (("labelSelector", selector),) if selector else ()
    return fold_list(server, NODES.path(), query, start=start, fold=fold, page=page, told=told)
