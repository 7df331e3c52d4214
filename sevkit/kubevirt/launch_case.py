"""One VMI that is to be launched as one tier, and what is known around it. Pure.

What rules ask of a VMI is asked here, in KubeVirt's sense of it: ``null`` is as good as missing,
and an empty object is there. A value that has not the schema's type raises ``FormatError``: the
API server checks the schema only after it has called webhooks.

Source: KubeVirt, api/core/v1/schema.go.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from sevkit.errors import FormatError
from sevkit.kubevirt.json_patch import member

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sevkit.documents import Json
    from sevkit.kubevirt.installation import Installation
    from sevkit.kubevirt.policy import Policy
    from sevkit.kubevirt.tiers import Tier

_STRUCTURE: Final = "object"
DOMAIN: Final = ("spec", "domain")
DEVICES: Final = (*DOMAIN, "devices")
FIRMWARE: Final = (*DOMAIN, "firmware")
BOOTLOADER: Final = (*FIRMWARE, "bootloader")
EFI: Final = (*BOOTLOADER, "efi")
LAUNCH_SECURITY: Final = (*DOMAIN, "launchSecurity")
#: The annotation that asks for a start that waits for the guest owner.
ATTESTATION: Final = "sevkit.io/attestation"
#: Set on the template of each VM of a pool, and so on its VMI.
POOL_LABEL: Final = "kubevirt.io/vm-pool-revision-name"


_T = TypeVar("_T")


class Owner(StrEnum):
    """Who makes a VMI, and makes it again."""

    NOBODY = "nobody"
    MACHINE = "VirtualMachine"
    REPLICA_SET = "VirtualMachineInstanceReplicaSet"
    POOL = "VirtualMachinePool"
    OTHER = "other"


class Case(NamedTuple):
    """A VMI as it came, and the tier that it will have.

    ``attestation`` says that it starts paused, and waits for its guest owner; ``has_tier`` that the
    tier stood in the object already.
    """

    vmi: Mapping[str, Json]
    tier: Tier
    has_tier: bool
    attestation: bool
    policy: Policy
    installation: Installation

    def get(self, *parts: str) -> Json:
        """Return any value, None where it is missing. Raises ``FormatError``."""
        return member(self.vmi, *parts)

    def object_at(self, *parts: str) -> Mapping[str, Json] | None:
        """Return an object, None where it is missing. Raises ``FormatError``."""
        found = member(self.vmi, *parts)
        return None if found is None else _of_type(found, dict, parts, "an object")

    def text(self, *parts: str) -> str:
        """Return a text, "" where it is missing. Raises ``FormatError``."""
        found = member(self.vmi, *parts)
        return "" if found is None else _of_type(found, str, parts, "text")

    def flag(self, *parts: str) -> bool | None:
        """Return a boolean, None where it is missing. Raises ``FormatError``."""
        found = member(self.vmi, *parts)
        return None if found is None else _of_type(found, bool, parts, "true or false")

    def items(self, *parts: str) -> Sequence[Mapping[str, Json]]:
        """Return the objects of a list, none where it is missing. Raises ``FormatError``."""
        found = member(self.vmi, *parts)
        return () if found is None else _objects(_of_type(found, list, parts, "a list"), parts)

    @property
    def architecture(self) -> str:
        """The VMI's architecture, else the cluster's default, else KubeVirt's."""
        return self.text("spec", "architecture") or self.installation.architecture or "amd64"

    @property
    def smm(self) -> bool:
        """Whether SMM is on: a feature that is there is on unless it says otherwise."""
        found = self.object_at(*DOMAIN, "features", "smm")
        return found is not None and self.flag(*DOMAIN, "features", "smm", "enabled") is not False

    @property
    def owner(self) -> Owner:
        """Who made it. A pool makes VMs, whose VMIs have the pool's label."""
        labels = self.object_at("metadata", "labels") or {}
        for reference in self.items("metadata", "ownerReferences"):
            if reference.get("controller") is not True:
                continue
            kind = reference.get("kind")
            if kind == Owner.MACHINE and POOL_LABEL in labels:
                return Owner.POOL
            return Owner(kind) if isinstance(kind, str) and kind in _OWNERS else Owner.OTHER
        return Owner.NOBODY


def _of_type(value: Json, kind: type[_T], parts: tuple[str, ...], what: str) -> _T:
    if not isinstance(value, kind):
        raise FormatError(_STRUCTURE, f"{'.'.join(parts)} is not {what}")
    return value


def _objects(items: Sequence[Json], parts: tuple[str, ...]) -> Sequence[Mapping[str, Json]]:
    found = [item for item in items if isinstance(item, dict)]
    if len(found) != len(items):
        number = next(n for n, item in enumerate(items) if not isinstance(item, dict))
        raise FormatError(_STRUCTURE, f"{'.'.join(parts)}[{number}] is no object")
    return found


_OWNERS: Final = frozenset({Owner.MACHINE, Owner.REPLICA_SET, Owner.POOL})


def named(item: Mapping[str, Json]) -> str:
    """Return an item's name for a message, cut: it is the tenant's."""
    name = item.get("name")
    return name[:40] if isinstance(name, str) else "without a name"
