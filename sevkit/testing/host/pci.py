"""The secure processor and the IOMMU in sysfs.

What the driver shows of the secure processor differs by device: Naples and Rome's generation has
only the boot loader's version, the one of Genoa also the trusted OS', Turin's none of the two.
The IOMMU's extended features carry SNP in bit 63 (AMD I/O Virtualization, MMIO offset 0030h).
Source: Linux, drivers/crypto/ccp/{sp-pci,hsti}.c, drivers/iommu/{iommu,amd/init}.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sevkit.testing.host import linux
from sevkit.testing.host.spec import Iommu, PspHealth, Vendor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sevkit.testing.host.spec import HostSpec


class Device(NamedTuple):
    """What sysfs shows of one model of secure processor, beside its IDs."""

    bootloader_version: str = ""
    tee_version: str = ""
    security: bool = False


_AMD_VENDOR: Final = 0x1022
_DEVICES: Final = {
    0x1456: Device("00.08.00.5e"),
    0x1486: Device("00.13.00.70", security=True),
    0x14CA: Device("00.2d.00.6f", "00.2d.00.6f", security=True),
    0x156E: Device(security=True),
}
_SECURITY: Final = {
    "fused_part": "1",
    "debug_lock_on": "1",
    "tsme_status": "0",
    "anti_rollback_status": "1",
    "rpmc_production_enabled": "0",
    "rpmc_spirom_available": "0",
    "hsp_tpm_available": "0",
    "rom_armor_enforced": "0",
}
_IOMMU_SNP: Final = 1 << 63
_IOMMU_FEATURES: Final = 0x25BF7320A2294AEE
_GROUP_TYPES: Final = {
    Iommu.TRANSLATED: "DMA-FQ",
    Iommu.V2_PAGE_TABLES: "DMA-FQ",
    Iommu.PASSTHROUGH: "identity",
}


def render_secure_processor(spec: HostSpec) -> Iterator[tuple[str, str]]:
    """Yield (path, text) of the secure processor's PCI device."""
    firmware, psp = spec.firmware, spec.cpu.psp
    if psp is None or firmware is None or firmware.psp is PspHealth.ABSENT:
        return
    address, identifier = psp
    device, folder = _DEVICES[identifier], device_folder(address)
    values = {
        "vendor": f"{_AMD_VENDOR:#06x}",
        "device": f"{identifier:#06x}",
        "class": "0x108000",
    }
    if spec.kernel.version >= linux.PSP_VERSION_ATTRIBUTES:
        values["bootloader_version"] = device.bootloader_version
        values["tee_version"] = device.tee_version
    if spec.kernel.version >= linux.PSP_SECURITY_ATTRIBUTES and device.security:
        values.update(_SECURITY)
        if spec.kernel.version >= linux.PSP_BOOT_INTEGRITY:
            values["boot_integrity"] = "1"
    for name, value in values.items():
        if value:
            yield f"{folder}/{name}", f"{value}\n"


def render_iommu(spec: HostSpec) -> Iterator[tuple[str, str]]:
    """Yield (path, text) of the IOMMU and of the group that the secure processor is in."""
    if not iommu_runs(spec):
        return
    if spec.cpu.vendor is Vendor.AMD:
        features = _IOMMU_FEATURES | (_IOMMU_SNP if spec.bios.iommu_snp else 0)
        yield f"{iommu_folder(spec)}/amd-iommu/cap", "40\n"
        yield f"{iommu_folder(spec)}/amd-iommu/features", f"{features:x}:1d\n"
    else:
        yield f"{iommu_folder(spec)}/intel-iommu/version", "6:0\n"
    yield "sys/kernel/iommu_groups/0/type", f"{_GROUP_TYPES[spec.kernel.iommu]}\n"


def iommu_runs(spec: HostSpec) -> bool:
    """Whether Linux uses an IOMMU of this host that is shown here: AMD's or Intel's own."""
    bare = spec.cpu.vendor is Vendor.INTEL or spec.cpu.psp is not None
    return bare and spec.bios.iommu and spec.kernel.iommu is not Iommu.OFF


def device_folder(address: str) -> str:
    """Return where the device at a PCI address is in sysfs, one bridge below its root."""
    bus = address[5:7]
    return f"sys/devices/pci0000:{bus}/0000:{bus}:08.1/{address}"


def iommu_folder(spec: HostSpec) -> str:
    """Return where the IOMMU is in sysfs."""
    if spec.cpu.vendor is Vendor.AMD:
        return "sys/devices/pci0000:00/0000:00:00.2/iommu/ivhd0"
    return "sys/devices/virtual/iommu/dmar0"
