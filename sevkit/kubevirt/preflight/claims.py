"""What nodes claim: tiers by our label and by KubeVirt's, and how many guests of each. Pure.

Labels are the nodes' own words. The scheduler goes by them, and so does this; what a guest really
runs on, only attestation tells.

Source: KubeVirt virt-controller, node selectors of launcher pods; its node-labeller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.kubevirt.labels import LABELS, SIMULATED
from sevkit.kubevirt.tiers import Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SCHEDULABLE: Final = "kubevirt.io/schedulable"
#: The device that every launcher pod of an encrypted guest asks for.
DEVICE: Final = "devices.kubevirt.io/sev"
#: All labels by which KubeVirt selects a node for a tier.
SELECTED: Final[Mapping[Tier, tuple[str, ...]]] = {
    Tier.SEV: ("kubevirt.io/sev",),
    Tier.SEV_ES: ("kubevirt.io/sev", "kubevirt.io/sev-es"),
    Tier.SNP: ("kubevirt.io/sev", "kubevirt.io/sev-snp"),
}
_TRUE: Final = "true"
_FALSE: Final = "false"


@final
@dataclass(frozen=True, slots=True)
class NodeClaims:
    """One node. ``ours`` and ``theirs`` are tiers by our label and by KubeVirt's, ``denied`` ours.

    ``capacity`` is how many guests of each tier the node offers, ``devices`` how many of any; None
    is that it offers nothing of the kind.
    """

    name: str
    has_agent: bool
    simulated: bool
    schedulable: bool
    ours: frozenset[Tier]
    denied: frozenset[Tier]
    theirs: frozenset[Tier]
    capacity: Mapping[Tier, int | None]
    devices: int | None

    @property
    def runnable(self) -> frozenset[Tier]:
        """The tiers that a VMI can be placed there with."""
        return self.ours & self.theirs if self.schedulable else frozenset()


def read_claims(
    name: str, labels: Mapping[str, str], count: Callable[[str], int | None]
) -> NodeClaims:
    """Return what a node claims; ``count`` returns how many of an extended resource it has."""
    return NodeClaims(
        name,
        has_agent=any(key in labels for key in LABELS),
        simulated=SIMULATED in labels,
        schedulable=labels.get(SCHEDULABLE) == _TRUE,
        # Our label of a tier is named as its resource is.
        ours=frozenset(tier for tier in Tier if labels.get(tier.resource) == _TRUE),
        denied=frozenset(tier for tier in Tier if labels.get(tier.resource) == _FALSE),
        theirs=frozenset(
            tier for tier in Tier if all(labels.get(key) == _TRUE for key in SELECTED[tier])
        ),
        capacity={tier: count(tier.resource) for tier in Tier},
        devices=count(DEVICE),
    )
