"""What a simulated host is made of: silicon, BIOS switches, kernel, firmware, and its guests.

Everything here is an input. What comes of it, from ``/proc/cpuinfo`` to ``misc.capacity``, is
worked out by ``sevkit.testing.host.booting``; what cannot be is refused by
``sevkit.testing.consistency``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, final

from sevkit.abi.firmware_status import FirmwareStatus
from sevkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sevkit.abi.product import Product
    from sevkit.abi.tcb import TcbVersion


class Registers(NamedTuple):
    """What one CPUID leaf answers."""

    eax: int
    ebx: int
    ecx: int
    edx: int


class Vendor(StrEnum):
    """The CPU's maker, as CPUID leaf 0 and ``/proc/cpuinfo`` name it."""

    AMD = "AuthenticAMD"
    INTEL = "GenuineIntel"
    ARM = "ARM"


class RmpCoverage(StrEnum):
    """BIOS "SNP Memory (RMP Table) Coverage": how much memory is reserved for the RMP table."""

    NONE = "none"
    PARTIAL = "partial"
    FULL = "full"


class Iommu(StrEnum):
    """How Linux runs the IOMMU."""

    TRANSLATED = "translated"
    PASSTHROUGH = "passthrough"
    V2_PAGE_TABLES = "v2-page-tables"
    OFF = "off"


class PspHealth(StrEnum):
    """Whether the secure processor answers: always, never, or no more since the host came up."""

    PRESENT = "present"
    ABSENT = "absent"
    SILENT = "silent"
    DIED = "died"


@final
@dataclass(frozen=True, slots=True)
class Cpu:
    """Silicon: its CPUID by (leaf, subleaf), and what ``/proc/cpuinfo`` says beyond CPUID.

    ``product`` is None for anything but an EPYC server. ``microcode`` is a patch level, ``bugs``
    what Linux knows against the CPU, ``psp`` the PCI address and device ID of the secure
    processor, or None.
    """

    product: Product | None
    vendor: Vendor
    leaves: Mapping[tuple[int, int], Registers]
    microcode: int = 0
    mhz: float = 2500.0
    cores: int = 32
    bugs: tuple[str, ...] = ()
    psp: tuple[str, int] | None = None


@final
@dataclass(frozen=True, slots=True)
class Bios:
    """What the BIOS set up, by the names of AMD's own menus (CBS).

    ``svm`` is "SVM Mode", ``smee`` "SMEE", ``smm_lock`` what HWCR[SMMLOCK] became, ``rmp`` "SNP
    Memory (RMP Table) Coverage", ``iommu`` and ``iommu_snp`` "IOMMU" and "SEV-SNP Support" of the
    north bridge. ``max_asid`` is "SEV ASID Count"; ``min_sev_asid`` "SEV-ES ASID Space Limit":
    ASIDs from it upward are for SEV, below it for SEV-ES and SEV-SNP.
    """

    svm: bool = True
    smee: bool = True
    smm_lock: bool = True
    rmp: RmpCoverage = RmpCoverage.FULL
    iommu: bool = True
    iommu_snp: bool = True
    max_asid: int = 509
    min_sev_asid: int = 1
    ram_gib: int = 512


@final
@dataclass(frozen=True, slots=True)
class Kernel:
    """The kernel and what it was asked for; ``parameters`` are of ``kvm_amd``, as given.

    ``kvm_amd`` says whether that module is loaded at all, ``misc_cgroup`` whether the misc
    controller is compiled in, ``cgroup`` which hierarchy is mounted, 1 or 2.
    """

    release: str
    iommu: Iommu = Iommu.TRANSLATED
    mem_encrypt: bool = False
    kvm_amd: bool = True
    parameters: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    mmio_caching: bool = True
    psp_init_on_probe: bool = True
    misc_cgroup: bool = True
    cgroup: int = 2

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor, which decide what this kernel can do and show."""
        found = re.match(r"(\d+)\.(\d+)", self.release)
        if found is None:
            raise UsageError(f"kernel release {self.release!r} does not begin with a version")
        return int(found[1]), int(found[2])

    def asked(self, parameter: str, default: int = 1) -> int:
        """Return what was asked of ``kvm_amd``; a parameter that nobody gave has its default."""
        return self.parameters.get(parameter, default)


@final
@dataclass(frozen=True, slots=True)
class Firmware:
    """The secure processor's firmware. TCB versions are None before SEV-SNP.

    ``init_error`` and ``snp_init_error`` are what INIT and SNP_INIT answer. ``updated_from`` is
    the version that the BIOS brought, if Linux has since loaded a newer one; ``ciphertext_hiding``
    is whether the chip can do it.
    """

    api: tuple[int, int]
    build: int
    current: TcbVersion | None = None
    committed: TcbVersion | None = None
    reported: TcbVersion | None = None
    updated_from: tuple[int, int, int] | None = None
    psp: PspHealth = PspHealth.PRESENT
    init_error: FirmwareStatus = FirmwareStatus.SUCCESS
    snp_init_error: FirmwareStatus = FirmwareStatus.SUCCESS
    alias_check: bool = True
    ciphertext_hiding: bool = False
    vlek_loaded: bool = False


@final
@dataclass(frozen=True, slots=True)
class Guests:
    """How many guests of each kind run, each in a pod of its own."""

    sev: int = 0
    sev_es: int = 0
    sev_snp: int = 0


@final
@dataclass(frozen=True, slots=True)
class HostSpec:
    """One machine. ``firmware`` is None where there is no secure processor to ask.

    ``processors`` is how many of the CPU's threads are shown; ``firmware_reader`` whether someone
    with the right to ask the firmware left its answer (``firmware.json``).
    """

    name: str
    cpu: Cpu
    kernel: Kernel
    bios: Bios = field(default_factory=Bios)
    firmware: Firmware | None = None
    guests: Guests = field(default_factory=Guests)
    processors: int = 2
    firmware_reader: bool = True

    def cpuid(self, leaf: int, subleaf: int = 0) -> Registers:
        """Return what CPUID answers on this machine; a leaf that is not known answers zeros.

        The BIOS has its say in Fn8000_001F: ECX is the highest ASID, EDX the lowest for SEV.
        """
        found = self.cpu.leaves.get((leaf, subleaf), NOTHING)
        if leaf == MEMORY_ENCRYPTION and found != NOTHING:
            return found._replace(ecx=self.bios.max_asid, edx=self.bios.min_sev_asid)
        return found


NOTHING: Final = Registers(0, 0, 0, 0)
#: CPUID Fn8000_001F, Encrypted Memory Capabilities.
MEMORY_ENCRYPTION: Final = 0x8000001F
