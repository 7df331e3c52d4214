"""Which tiers nodes can run, by their labels. Pure.

A guest runs where two agree: our agent, which says what the node can do, and KubeVirt, whose labels
the guest's pod will select on. Nodes on simulated hardware run guests that are not confidential.

Source: KubeVirt, pkg/virt-controller/services/template.go and nodeselectorrenderer.go; a guest of
SEV-SNP is one of SEV there too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sevkit.kubevirt.labels import SEV, SEV_ES, SEV_SNP, SIMULATED
from sevkit.kubevirt.tiers import Tier

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sevkit.documents import Json

#: What all guests select on: KubeVirt's agent on the node is alive.
_SCHEDULABLE: Final = "kubevirt.io/schedulable"
#: The labels that have to be "true".
_LABELS: Final[Mapping[Tier, tuple[str, ...]]] = {
    Tier.SEV: (_SCHEDULABLE, SEV, "kubevirt.io/sev"),
    Tier.SEV_ES: (_SCHEDULABLE, SEV_ES, "kubevirt.io/sev", "kubevirt.io/sev-es"),
    Tier.SNP: (_SCHEDULABLE, SEV_SNP, "kubevirt.io/sev", "kubevirt.io/sev-snp"),
}


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
    tiers = frozenset(
        tier for tier, keys in _LABELS.items() if all(labels.get(key) == "true" for key in keys)
    )
    return NodeTiers(tiers, SIMULATED in labels) if tiers else None


def fold_nodes(nodes: Iterable[NodeTiers]) -> Runnable:
    """Return what some of the nodes can run."""
    # Of thousands of nodes few are different.
    kinds = set(nodes)
    real = frozenset(tier for kind in kinds if not kind.simulated for tier in kind.tiers)
    return Runnable(real, real.union(*(kind.tiers for kind in kinds)))
