"""The devices that SEV depends on, as sysfs shows them: secure processor, IOMMU, device nodes.

Nothing here needs a privilege. sysfs lists devices by links, which a copy of a host may have lost:
where something else shows that there were some, the list is not taken for an empty one. The
IOMMU's bit for SNP is what the BIOS switch "SEV-SNP Support" sets (AMD I/O Virtualization, MMIO
offset 0030h, bit 63). Sources: Linux, Documentation/ABI/testing/sysfs-driver-ccp,
drivers/iommu/amd/init.c.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, final

from sevkit.host.reading import Cause, Known, Reading, Unreadable, not_asked, value_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sevkit.host.source import HostSource

_DRIVER: Final = "sys/bus/pci/drivers/ccp"
_ADDRESS: Final = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
#: What the driver shows, each of a few bytes; which of them depends on device and kernel.
ATTRIBUTES: Final = (
    *("vendor", "device", "bootloader_version", "tee_version", "fused_part", "debug_lock_on"),
    *("tsme_status", "anti_rollback_status", "rpmc_production_enabled", "rpmc_spirom_available"),
    *("hsp_tpm_available", "rom_armor_enforced", "boot_integrity"),
)
_DEVICES: Final = 8
_FEATURES: Final = re.compile(r"([0-9a-f]{1,16})(?::[0-9a-f]{1,16})?")
_SNP: Final = 1 << 63
_GROUPS: Final = "sys/kernel/iommu_groups"
#: Most groups of which the kind is read.
_KINDS: Final = 4


@final
@dataclass(frozen=True, slots=True)
class SecureProcessor:
    """One secure processor: its PCI address and what sysfs shows of it."""

    address: str
    attributes: Mapping[str, str]


@final
@dataclass(frozen=True, slots=True)
class IommuFacts:
    """AMD's IOMMUs. ``units`` is how many Linux uses; ``snp`` whether all of them check for SNP.

    ``group_types`` are the kinds of the first groups, such as ``DMA-FQ`` or ``identity``.
    """

    units: int
    snp: bool | None
    group_types: tuple[str, ...]

    @property
    def passthrough(self) -> bool | None:
        """Whether devices go around the IOMMU; None where no group says."""
        return {"identity"} == set(self.group_types) if self.group_types else None


def probe_secure_processors(source: HostSource) -> Reading[tuple[SecureProcessor, ...]]:
    """Read the devices of the driver ccp; none at all is an answer where PCI can be seen."""
    names = source.names(_DRIVER)
    if isinstance(names, Unreadable):
        # Linux always has drivers: without any, this is no list of them.
        drivers: tuple[str, ...] = value_of(source.names("sys/bus/pci/drivers")) or ()
        gone = names.cause is Cause.ABSENT and drivers and "ccp" not in drivers
        return Known(()) if gone else names
    addresses = [name for name in names.value if _ADDRESS.fullmatch(name)][:_DEVICES]
    if not addresses and "module" not in names.value:
        return Unreadable(Cause.ABSENT, f"/{_DRIVER}: without its links")
    return Known(tuple(SecureProcessor(one, _attributes(source, one)) for one in addresses))


def _attributes(source: HostSource, address: str) -> Mapping[str, str]:
    found = {}
    for name in ATTRIBUTES:
        text = value_of(source.text(f"{_DRIVER}/{address}/{name}"))
        if text is not None:
            found[name] = "".join(c if c.isprintable() else "?" for c in text.strip())[:64]
    return MappingProxyType(found)


def probe_iommu(source: HostSource) -> Reading[IommuFacts]:
    """Read AMD's IOMMUs; other makers' are not counted.

    That there is none is only believed where the groups of devices were read too, and there is none
    either.
    """
    names = source.names("sys/class/iommu")
    if isinstance(names, Unreadable):
        return names
    listed = source.names(_GROUPS)
    groups = value_of(listed) or ()
    if not names.value and isinstance(listed, Unreadable):
        return listed
    if not names.value and groups:
        return Unreadable(Cause.ABSENT, "/sys/class/iommu: without its links")
    units = [name for name in names.value if name.startswith("ivhd")]
    bits = [_snp_bit(source, name) for name in units]
    known = [bit for bit in bits if bit is not None]
    all_known = all(known) if known and len(known) == len(bits) else None
    snp = False if False in bits else all_known
    return Known(IommuFacts(len(units), snp, _group_types(source, groups)))


def _snp_bit(source: HostSource, unit: str) -> bool | None:
    text = value_of(source.text(f"sys/class/iommu/{unit}/amd-iommu/features"))
    found = None if text is None else _FEATURES.fullmatch(text.strip())
    return None if found is None else bool(int(found[1], 16) & _SNP)


def _group_types(source: HostSource, names: tuple[str, ...]) -> tuple[str, ...]:
    texts = [value_of(source.text(f"{_GROUPS}/{name}/type")) for name in names[:_KINDS]]
    return tuple(text.strip()[:32] for text in texts if text is not None)


def probe_sev_device(source: HostSource) -> Reading[bool]:
    """Return whether the driver made /dev/sev.

    The kernel's list of such devices decides: that /dev has none may be a container's /dev.
    """
    registered = source.names("sys/class/misc")
    node = source.is_there("dev/sev")
    if node == Known(value=True):
        return node
    if isinstance(registered, Known) and registered.value:
        return Known("sev" in registered.value)
    if isinstance(node, Known):
        return not_asked("/dev/sev", "not there, and /sys/class/misc does not say why")
    return node
