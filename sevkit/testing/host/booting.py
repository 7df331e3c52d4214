"""What Linux makes of a machine: from BIOS switches and parameters to what a probe can read.

Theory of operation
-------------------
Four parties decide, in this order, and each sees only what the ones before it left:

1. The CPU's early setup takes flags away (``_CLEARED``): memory encryption off in the BIOS takes
   all of them, an unlocked SMM the ``sev`` ones, a hypervisor or a missing RMP table ``sev_snp``.
2. The host side of SNP (``_SNP_GATES``) asks the RMP table and the IOMMU. A failure here leaves
   the flag ``sev_snp`` standing; only the log tells. If all is well, SNP is switched on in the CPU,
   whatever KVM is asked for later.
3. The secure processor is initialised (``firmware_start``), by the ccp driver or, since 6.15, by
   KVM. With SNP on in the CPU, a firmware that does not initialise SNP cannot initialise SEV.
4. KVM (``kvm_setup``) decides what its parameters will say from then on.

Every step is a function of the spec alone, so the same spec always boots the same way.
Source: Linux, arch/x86/kernel/cpu/amd.c, arch/x86/virt/svm/sev.c, drivers/iommu/amd/init.c,
drivers/crypto/ccp/sev-dev.c, arch/x86/kvm/svm/sev.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sevkit.testing.host import linux
from sevkit.testing.host.encryption import Features, parse_encryption
from sevkit.testing.host.firmware_start import start_firmware
from sevkit.testing.host.firmware_view import view_firmware
from sevkit.testing.host.kvm_setup import set_up_kvm
from sevkit.testing.host.modules import loaded_modules
from sevkit.testing.host.silicon import HYPERVISOR
from sevkit.testing.host.spec import Iommu, RmpCoverage, Vendor
from sevkit.testing.host.state import AsidRanges, HostState, Technologies, VmTypes

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.testing.host.spec import HostSpec

_ALL: Final = frozenset({"sme", "sev", "sev_es", "sev_snp"})
_SEV: Final = frozenset({"sev", "sev_es", "sev_snp"})
_SNP: Final = frozenset({"sev_snp"})
#: Zen 3 and Zen 4, whose RMP table Linux reads itself; later CPUs have RMPREAD.
_ZEN3_AND_ZEN4: Final = 0x19
_RMP_BASE: Final = 0x7FCD100000
#: The CPU's own part of the RMP table, in bytes; 16 bytes for each page follow.
_RMP_BOOKKEEPING: Final = 0x4000


class _Clearing(NamedTuple):
    flags: frozenset[str]
    when: Callable[[HostSpec], bool]


#: What early setup takes from /proc/cpuinfo.
_CLEARED: Final = (
    _Clearing(_ALL, lambda s: not s.bios.smee),
    _Clearing(_SEV, lambda s: not s.bios.smm_lock),
    _Clearing(
        frozenset({"sme"}),
        lambda s: s.kernel.version >= linux.SME_FLAG_IS_USE and not s.kernel.mem_encrypt,
    ),
    _Clearing(_SNP, lambda s: bool(s.cpuid(1).ecx & HYPERVISOR)),
    _Clearing(_SNP, lambda s: not _rmp_readable(s)),
    _Clearing(_SNP, lambda s: s.bios.rmp is RmpCoverage.NONE),
    _Clearing(frozenset({"svm"}), lambda s: not s.bios.svm),
)


class _Gate(NamedTuple):
    passes: Callable[[HostSpec], bool]
    line: str


#: What the host side of SNP needs, in the order in which Linux asks; the first failure is logged.
_SNP_GATES: Final = (
    _Gate(
        lambda s: s.bios.rmp is not RmpCoverage.NONE,
        "SEV-SNP: Memory for the RMP table has not been reserved by BIOS",
    ),
    _Gate(
        lambda s: s.bios.iommu and s.kernel.iommu not in {Iommu.OFF, Iommu.PASSTHROUGH},
        "AMD-Vi: SNP: IOMMU disabled or configured in passthrough mode, SNP cannot be supported.",
    ),
    _Gate(
        lambda s: (
            s.kernel.iommu is not Iommu.V2_PAGE_TABLES
            or s.kernel.version < linux.SNP_REFUSES_V2_PAGE_TABLES
        ),
        "AMD-Vi: SNP: IOMMU is configured with V2 page table mode, SNP cannot be supported.",
    ),
    _Gate(
        lambda s: s.bios.iommu_snp,
        "AMD-Vi: SNP: IOMMU SNP feature not enabled, SNP cannot be supported.",
    ),
)


def boot(spec: HostSpec) -> HostState:
    """Return what this machine is like once its kernel is up and its guests run."""
    cleared = frozenset[str]().union(*(row.flags for row in _CLEARED if row.when(spec)))
    snp_host, snp_lines = _host_side_of_snp(spec)
    started = start_firmware(spec, snp_host=snp_host, sev_flag=_has(spec, "sev", cleared))
    modules = loaded_modules(spec)
    if "kvm_amd" in modules:
        kvm = set_up_kvm(spec, cleared, started, snp_host=snp_host)
        modules = {**modules, "kvm_amd": kvm.parameters}
        technologies, asids, types = kvm.technologies, kvm.asids, kvm.vm_types
        capacity, kvm_lines = kvm.misc_capacity, kvm.log
    else:
        technologies, asids = Technologies(), AsidRanges()
        capacity, kvm_lines = {}, ()
        types = _plain_vm_types(spec)
    controller = spec.kernel.misc_cgroup and spec.kernel.version >= linux.MISC_CGROUP
    guests = spec.guests
    # SNP guests are charged as SEV-ES ones.
    used = {"sev": guests.sev, "sev_es": guests.sev_es + guests.sev_snp}
    return HostState(
        cleared=cleared,
        kvm=technologies,
        asids=asids,
        modules=modules,
        misc_capacity={name: n for name, n in capacity.items() if n} if controller else None,
        misc_current={name: n for name, n in used.items() if capacity.get(name) or n},
        vm_types=types,
        dev_sev=started.device,
        dev_kvm=spec.cpu.vendor is not Vendor.AMD or "kvm_amd" in modules,
        firmware=view_firmware(spec, started),
        log=(*snp_lines, *started.log, *kvm_lines),
    )


def _plain_vm_types(spec: HostSpec) -> VmTypes:
    """Return what KVM says without AMD's module: the capability is of x86 only."""
    answers = spec.cpu.vendor is Vendor.INTEL and spec.kernel.version >= linux.VM_TYPES
    return VmTypes.DEFAULT if answers else VmTypes(0)


def _has(spec: HostSpec, flag: str, cleared: frozenset[str]) -> bool:
    """Whether Linux has a memory encryption feature: in silicon, and not cleared."""
    return Features[flag.upper()] in parse_encryption(spec).features and flag not in cleared


def _rmp_readable(spec: HostSpec) -> bool:
    known = spec.cpuid(1).eax >> 20 & 0xFF == _ZEN3_AND_ZEN4 - 0xF
    return known or Features.RMPREAD in parse_encryption(spec).features


def _host_side_of_snp(spec: HostSpec) -> tuple[bool, tuple[str, ...]]:
    """Return whether SNP is switched on in the CPU, and what the log says about it."""
    bare = not spec.cpuid(1).ecx & HYPERVISOR and spec.bios.smee and spec.bios.smm_lock
    silicon = Features.SEV_SNP in parse_encryption(spec).features and _rmp_readable(spec)
    if not (silicon and bare and spec.kernel.version >= linux.SNP_HOST):
        return False, ()
    reserved, needed = _rmp_sizes(spec)
    last = _RMP_BASE + reserved - 1
    table = f"SEV-SNP: RMP table physical range [{_RMP_BASE:#018x} - {last:#018x}]"
    said = (table,) if spec.bios.rmp is not RmpCoverage.NONE else ()
    for gate in _SNP_GATES:
        if not gate.passes(spec):
            return False, (*said, gate.line)
    said = (*said, "AMD-Vi: IOMMU SNP support enabled.")
    if reserved < needed:
        sizes = f"(expected {needed:#x} got {reserved:#x})"
        short = "Memory reserved for the RMP table does not cover full system RAM"
        return False, (*said, f"SEV-SNP: {short} {sizes}")
    return True, said


def _rmp_sizes(spec: HostSpec) -> tuple[int, int]:
    """Return the bytes that are reserved for the RMP table, and the bytes that RAM needs."""
    needed = (spec.bios.ram_gib << 18 << 4) + _RMP_BOOKKEEPING
    reserved = needed if spec.bios.rmp is RmpCoverage.FULL else needed // 2
    return reserved + -reserved % 0x100000, needed
