"""Machines that exist: one healthy host for each EPYC generation, and three without SEV.

Naples and Rome are as BIOSes come: every ASID is for SEV, so Rome has SEV-ES without an ASID for
it; ``rome-es`` is the same machine set up for SEV-ES. From Milan on SEV-SNP is initialised, with
firmware that still takes SEV-ES guests beside it (see the defects ``es-open-to-cve`` and
``es-blocked-by-firmware``). The kernels differ on purpose: what a probe can see differs with them.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from sevkit.abi.product import Product
from sevkit.abi.tcb import TcbVersion
from sevkit.testing.host import silicon
from sevkit.testing.host.spec import (
    Bios,
    Cpu,
    Firmware,
    HostSpec,
    Kernel,
    RmpCoverage,
    Vendor,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

UBUNTU_22: Final = Kernel("5.15.0-161-generic")
DEBIAN_12: Final = Kernel("6.1.0-40-amd64")
DEBIAN_13: Final = Kernel("6.12.57+deb13-amd64")
LONG_TERM: Final = Kernel("6.18.9")
NEWEST: Final = Kernel("7.1.8")

_SPECULATION: Final = ("sysret_ss_attrs", "spectre_v1", "spectre_v2", "spec_store_bypass")
_ZEN: Final = (*_SPECULATION, "retbleed")
_ZEN3: Final = (*_SPECULATION, "srso")
_BEFORE_SNP: Final = Bios(rmp=RmpCoverage.NONE, iommu_snp=False)
_WITHOUT_SEV: Final = Bios(
    smee=False, rmp=RmpCoverage.NONE, iommu_snp=False, max_asid=0, min_sev_asid=0
)


def _snp_host(
    name: str,
    cpu: Cpu,
    kernel: Kernel,
    asids: tuple[int, int],
    *,
    build: int,
    tcb: TcbVersion,
    ciphertext_hiding: bool = False,
) -> HostSpec:
    """Return a host on which SEV-SNP works; ``asids`` are (highest, lowest for SEV)."""
    firmware = Firmware((1, 55), build, tcb, tcb, tcb, ciphertext_hiding=ciphertext_hiding)
    return HostSpec(name, cpu, kernel, Bios(max_asid=asids[0], min_sev_asid=asids[1]), firmware)


_NAPLES: Final = Cpu(
    Product.NAPLES,
    Vendor.AMD,
    silicon.NAPLES,
    microcode=0x8001230,
    mhz=2200.0,
    bugs=_ZEN,
    psp=("0000:03:00.2", 0x1456),
)
_ROME: Final = Cpu(
    Product.ROME,
    Vendor.AMD,
    silicon.ROME,
    microcode=0x8301055,
    bugs=_ZEN,
    psp=("0000:23:00.1", 0x1486),
)
_MILAN: Final = Cpu(
    Product.MILAN,
    Vendor.AMD,
    silicon.MILAN,
    microcode=0xA0011DB,
    mhz=2650.0,
    cores=24,
    bugs=_ZEN3,
    psp=("0000:22:00.1", 0x1486),
)
_GENOA: Final = Cpu(
    Product.GENOA,
    Vendor.AMD,
    silicon.GENOA,
    microcode=0xA101154,
    cores=24,
    bugs=_ZEN3,
    psp=("0000:01:00.5", 0x14CA),
)
_ROME_FIRMWARE: Final = Firmware((0, 24), 15)

_HOSTS: Final = (
    HostSpec(
        "naples",
        _NAPLES,
        UBUNTU_22,
        Bios(rmp=RmpCoverage.NONE, iommu_snp=False, max_asid=15),
        Firmware((0, 17), 48),
    ),
    HostSpec("rome", _ROME, DEBIAN_12, _BEFORE_SNP, _ROME_FIRMWARE),
    HostSpec(
        "rome-es",
        _ROME,
        DEBIAN_12,
        Bios(rmp=RmpCoverage.NONE, iommu_snp=False, min_sev_asid=100),
        _ROME_FIRMWARE,
    ),
    _snp_host("milan", _MILAN, DEBIAN_13, (509, 128), build=40, tcb=TcbVersion(4, 0, 22, 0xDB)),
    _snp_host("genoa", _GENOA, LONG_TERM, (1006, 253), build=40, tcb=TcbVersion(10, 0, 23, 0x54)),
    _snp_host(
        "bergamo",
        Cpu(
            Product.BERGAMO_OR_SIENA,
            Vendor.AMD,
            silicon.BERGAMO,
            microcode=0xAA00219,
            mhz=2250.0,
            cores=128,
            bugs=_ZEN3,
            psp=("0000:01:00.5", 0x14CA),
        ),
        LONG_TERM,
        (1006, 253),
        build=40,
        tcb=TcbVersion(10, 0, 23, 0x19),
    ),
    _snp_host(
        "siena",
        Cpu(
            Product.BERGAMO_OR_SIENA,
            Vendor.AMD,
            silicon.SIENA,
            microcode=0xAA00219,
            mhz=2650.0,
            bugs=_ZEN3,
            psp=("0000:01:00.5", 0x14CA),
        ),
        DEBIAN_13,
        (1006, 100),
        build=40,
        tcb=TcbVersion(10, 0, 23, 0x19),
    ),
    _snp_host(
        "turin",
        Cpu(
            Product.TURIN,
            Vendor.AMD,
            silicon.TURIN,
            microcode=0xB00214B,
            mhz=3300.0,
            cores=64,
            bugs=_SPECULATION,
            psp=("0000:a3:00.5", 0x156E),
        ),
        NEWEST,
        (1006, 100),
        build=61,
        tcb=TcbVersion(1, 1, 3, 0x4B, fmc=1),
        ciphertext_hiding=True,
    ),
    _snp_host(
        "turin-dense",
        Cpu(
            Product.TURIN_DENSE,
            Vendor.AMD,
            silicon.TURIN_DENSE,
            microcode=0xB101047,
            mhz=2250.0,
            cores=192,
            bugs=_SPECULATION,
            psp=("0000:a3:00.5", 0x156E),
        ),
        NEWEST,
        (1006, 510),
        build=61,
        tcb=TcbVersion(1, 1, 3, 0x47, fmc=1),
        ciphertext_hiding=True,
    ),
    HostSpec(
        "virtual-machine",
        Cpu(
            Product.GENOA,
            Vendor.AMD,
            silicon.as_guest(silicon.GENOA),
            microcode=0x1000065,
            cores=1,
            bugs=_ZEN3,
        ),
        DEBIAN_13,
        _WITHOUT_SEV,
    ),
    HostSpec(
        "intel",
        Cpu(
            None,
            Vendor.INTEL,
            silicon.SAPPHIRE_RAPIDS,
            microcode=0x2B000639,
            mhz=2000.0,
            cores=56,
            bugs=("spectre_v1", "spectre_v2", "spec_store_bypass", "swapgs", "eibrs_pbrsb"),
        ),
        DEBIAN_13,
        _WITHOUT_SEV,
    ),
    HostSpec("arm64", Cpu(None, Vendor.ARM, MappingProxyType({})), DEBIAN_13, _WITHOUT_SEV),
)

PRESETS: Final[Mapping[str, HostSpec]] = MappingProxyType({host.name: host for host in _HOSTS})
