"""How confidential a virtual machine has to be, and how confidential it is: tiers, by strength.

A namespace's or an object's label asks for a tier, or for the best that there is; an object's
``launchSecurity`` gives one. TDX and an empty ``launchSecurity`` give none of these.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from sevkit.kubevirt.labels import SEV, SEV_ES, SEV_SNP

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sevkit.documents import Json

LABEL: Final = "sevkit.io/confidential"
#: The label's value that any tier satisfies; the webhook chooses the strongest that can run.
BEST: Final = "best"


class Tier(StrEnum):
    """A tier, by the label's value; in order of strength."""

    SEV = "sev"
    SEV_ES = "sev-es"
    SNP = "snp"

    @property
    def strength(self) -> int:
        """1 and more; a tier satisfies every requirement that is not stronger."""
        return _STRENGTH[self]

    @property
    def spelling(self) -> str:
        """AMD's spelling."""
        return _SPELLING[self]

    @property
    def resource(self) -> str:
        """The extended resource that nodes offer for it."""
        return _RESOURCES[self]


_STRENGTH: Final = {tier: number for number, tier in enumerate(Tier, 1)}
_SPELLING: Final = {Tier.SEV: "SEV", Tier.SEV_ES: "SEV-ES", Tier.SNP: "SEV-SNP"}
_RESOURCES: Final = {Tier.SEV: SEV, Tier.SEV_ES: SEV_ES, Tier.SNP: SEV_SNP}
#: Every value that the label may have.
VALUES: Final = (*(tier.value for tier in Tier), BEST)
_TYPES: Final = ("sev", "snp", "tdx")


def launch_security_types(launch_security: Mapping[str, Json]) -> tuple[str, ...]:
    """Return the types that ``launchSecurity`` sets; exactly one is well-formed.

    As in KubeVirt's Go, ``null`` is not set, and an empty object is.
    """
    return tuple(name for name in _TYPES if launch_security.get(name) is not None)


def tier_of(launch_security: Json) -> Tier | None:
    """Return the tier that an object's ``launchSecurity`` gives, None for none of ours."""
    if not isinstance(launch_security, dict):
        return None
    types = launch_security_types(launch_security)
    if types == ("snp",):
        return Tier.SNP
    sev = launch_security.get("sev")
    if types != ("sev",) or not isinstance(sev, dict):
        return None
    policy = sev.get("policy")
    is_es = isinstance(policy, dict) and policy.get("encryptedState") is True
    return Tier.SEV_ES if is_es else Tier.SEV
