"""What nodes claim: tiers by our label and by KubeVirt's, and how many guests of each. Pure.

A guest runs where two agree: our agent, which says what the node can do, and KubeVirt, whose labels
the guest's pod selects on. Labels are the nodes' own words. The scheduler goes by them, and so does
this; what a guest really runs on, only attestation tells.

Source: KubeVirt, pkg/virt-controller/services/template.go and nodeselectorrenderer.go, where guests
of SEV-SNP are some of SEV too; its node-labeller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.kubevirt.labels import LABELS, SIMULATED
from sevkit.kubevirt.tiers import Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sevkit.documents import Json

#: What all guests select on: KubeVirt's agent on the node is alive.
SCHEDULABLE: Final = "kubevirt.io/schedulable"
#: The device that every launcher pod of an encrypted guest asks for.
DEVICE: Final = "devices.kubevirt.io/sev"
#: All labels by which KubeVirt selects a node for a tier.
_SELECTED: Final[Mapping[Tier, tuple[str, ...]]] = {
    Tier.SEV: ("kubevirt.io/sev",),
    Tier.SEV_ES: ("kubevirt.io/sev", "kubevirt.io/sev-es"),
    Tier.SNP: ("kubevirt.io/sev", "kubevirt.io/sev-snp"),
}
#: All labels that have to be "true"; our label of a tier is named as its resource is.
_PLACED: Final = {tier: (SCHEDULABLE, tier.resource, *_SELECTED[tier]) for tier in Tier}
_TRUE: Final = "true"
_FALSE: Final = "false"


@final
@dataclass(frozen=True, slots=True)
class NodeClaims:
    """One node. ``ours`` and ``theirs`` are tiers by our label and by KubeVirt's, ``denied`` ours.

    ``runnable`` are those that a VMI can be placed there with. ``capacity`` is how many guests of
    each tier the node offers, ``devices`` how many of any; None is that it offers nothing of the
    kind.
    """

    name: str
    has_agent: bool
    simulated: bool
    schedulable: bool
    ours: frozenset[Tier]
    denied: frozenset[Tier]
    theirs: frozenset[Tier]
    runnable: frozenset[Tier]
    capacity: Mapping[Tier, int | None]
    devices: int | None


def read_runnable(labels: Mapping[str, Json]) -> frozenset[Tier]:
    """Return the tiers that a VMI can be placed with on a node that has these labels.

    Raises nothing: what is no text is not "true".
    """
    return frozenset(
        tier for tier, keys in _PLACED.items() if all(labels.get(key) == _TRUE for key in keys)
    )


def read_claims(
    name: str, labels: Mapping[str, str], count: Callable[[str], int | None]
) -> NodeClaims:
    """Return what a node claims; ``count`` returns how many of an extended resource it has."""
    return NodeClaims(
        name,
        has_agent=any(key in labels for key in LABELS),
        simulated=SIMULATED in labels,
        schedulable=labels.get(SCHEDULABLE) == _TRUE,
        ours=frozenset(tier for tier in Tier if labels.get(tier.resource) == _TRUE),
        denied=frozenset(tier for tier in Tier if labels.get(tier.resource) == _FALSE),
        theirs=frozenset(
            tier for tier in Tier if all(labels.get(key) == _TRUE for key in _SELECTED[tier])
        ),
        runnable=read_runnable(labels),
        capacity={tier: count(tier.resource) for tier in Tier},
        devices=count(DEVICE),
    )
