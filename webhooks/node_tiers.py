"""Which tiers nodes can run, by their labels. Pure.

Nodes on simulated hardware run guests that are not confidential.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sevkit.kubevirt.claims import read_runnable
from sevkit.kubevirt.labels import SIMULATED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sevkit.documents import Json
    from sevkit.kubevirt.tiers import Tier


class NodeTiers(NamedTuple):
    """What one node can run, at least one tier, and whether its hardware is simulated."""

    tiers: frozenset[Tier]
    simulated: bool


class Runnable(NamedTuple):
    """What some node can run: of the real ones, and of all."""

    real: frozenset[Tier]
    all: frozenset[Tier]


def parse_node(document: Mapping[str, Json]) -> NodeTiers | None:
    """Return what a node, or the metadata of one, says; None if it can run no tier.

    Raises nothing: what is ill-formed says nothing.
    """
    metadata = document.get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, dict) else None
    if not isinstance(labels, dict):
        return None
    tiers = read_runnable(labels)
    return NodeTiers(tiers, SIMULATED in labels) if tiers else None


def fold_nodes(nodes: Iterable[NodeTiers]) -> Runnable:
    """Return what some of the nodes can run."""
    # Of thousands of nodes few are different.
    kinds = set(nodes)
    real = frozenset(tier for kind in kinds if not kind.simulated for tier in kind.tiers)
    return Runnable(real, real.union(*(kind.tiers for kind in kinds)))
