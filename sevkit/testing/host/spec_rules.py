"""What cannot be in the make-up of a machine, one rule for each part of it.

A rule yields one finding for each thing that is wrong. What the machine is like after it booted
is judged in ``state_rules``; both are asked by ``sevkit.testing.consistency``.
"""

from __future__ import annotations

from dataclasses import astuple
from typing import TYPE_CHECKING, Final

from sevkit.abi.product import ProductLine, product_from_model
from sevkit.abi.tcb import POSITIONS, TcbVersion
from sevkit.testing.host import linux
from sevkit.testing.host.cpuinfo import signature
from sevkit.testing.host.encryption import Features, parse_encryption
from sevkit.testing.host.silicon import HYPERVISOR
from sevkit.testing.host.spec import RmpCoverage, Vendor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sevkit.testing.host.spec import HostSpec

#: AMD's parameters, and the first kernel that has each.
_PARAMETERS: Final[Mapping[str, tuple[int, int]]] = {
    "sev": (4, 16),
    "sev_es": (5, 11),
    "sev_snp": linux.SNP_GUESTS,
    "npt": (0, 0),
    "nrips": (0, 0),
    "lbrv": (0, 0),
    "ciphertext_hiding_asids": linux.CIPHERTEXT_HIDING,
}
#: First firmware that checks for aliases (AMD-SB-3015), by line: minor API version and build.
_ALIAS_CHECK: Final = {
    ProductLine.MILAN: (1, 55, 22),
    ProductLine.GENOA: (1, 55, 38),
    ProductLine.TURIN: (1, 55, 0),
}
_HIGHEST_C_BIT: Final = 51
_AMD_SIGNATURE: Final = (0x68747541, 0x69746E65, 0x444D4163)
_INTEL_SIGNATURE: Final = (0x756E6547, 0x49656E69, 0x6C65746E)
_VENDOR_SIGNATURES: Final = {Vendor.AMD: _AMD_SIGNATURE, Vendor.INTEL: _INTEL_SIGNATURE}


def _cpu(spec: HostSpec) -> Iterator[str]:
    cpu, one = spec.cpu, spec.cpuid(1)
    if not 1 <= spec.processors <= 2 * cpu.cores:
        yield f"{spec.processors} processors of a CPU with {cpu.cores} cores"
    if cpu.vendor is Vendor.ARM:
        if cpu.leaves:
            yield "an Arm CPU with CPUID"
        return
    zero = spec.cpuid(0)
    if (zero.ebx, zero.edx, zero.ecx) != _VENDOR_SIGNATURES[cpu.vendor]:
        yield f"CPUID does not name {cpu.vendor}"
    found = signature(one.eax)
    product = product_from_model(found.family, found.model)
    if product is not cpu.product and cpu.vendor is Vendor.AMD:
        yield f"family {found.family:#x} model {found.model:#x} is not {cpu.product or 'unknown'}"
    if cpu.product is not None and cpu.vendor is not Vendor.AMD:
        yield f"{cpu.product} is not made by {cpu.vendor}"


def _memory_encryption(spec: HostSpec) -> Iterator[str]:
    found = parse_encryption(spec)
    features = found.features
    if Features.SEV_SNP in features and Features.SEV_ES not in features:
        yield "SEV-SNP without SEV-ES in silicon"
    if Features.SEV_ES in features and Features.SEV not in features:
        yield "SEV-ES without SEV in silicon"
    if spec.cpu.product is not None and Features.SEV_SNP in features and not _line_has_snp(spec):
        yield f"SEV-SNP on {spec.cpu.product}"
    if features and spec.cpu.vendor is not Vendor.AMD:
        yield f"memory encryption of AMD on {spec.cpu.vendor}"
    if features and spec.cpuid(1).ecx & HYPERVISOR:
        yield "SEV in a guest: there is no nested SEV"
    physical = spec.cpuid(0x80000008).eax & 0xFF
    if features and not physical - found.reduction <= found.c_bit <= _HIGHEST_C_BIT:
        yield f"C-bit {found.c_bit} among {physical - found.reduction} physical address bits"


def _asids(spec: HostSpec) -> Iterator[str]:
    bios = spec.bios
    if Features.SEV not in parse_encryption(spec).features:
        if bios.max_asid or bios.min_sev_asid:
            yield "ASIDs without SEV in silicon"
        return
    if bios.max_asid < 1:
        yield "SEV without an ASID"
    if not 1 <= bios.min_sev_asid <= bios.max_asid + 1:
        yield f"lowest ASID of SEV {bios.min_sev_asid} is not 1 to {bios.max_asid + 1}"
    hidden = spec.kernel.asked("ciphertext_hiding_asids", 0)
    if hidden > max(0, bios.min_sev_asid - 1):
        yield f"{hidden} ASIDs for ciphertext hiding, and {bios.min_sev_asid - 1} below SEV's"


def _rmp(spec: HostSpec) -> Iterator[str]:
    if Features.SEV_SNP not in parse_encryption(spec).features:
        if spec.bios.rmp is not RmpCoverage.NONE:
            yield "an RMP table without SEV-SNP in silicon"
        if spec.bios.iommu_snp:
            yield "an IOMMU with SEV-SNP support beside a CPU without it"


def _kernel(spec: HostSpec) -> Iterator[str]:
    kernel = spec.kernel
    for name in kernel.parameters:
        since = _PARAMETERS.get(name)
        if since is None:
            yield f"kvm_amd has no parameter {name}"
        elif kernel.version < since:
            yield f"kvm_amd.{name} on Linux {kernel.release}: it came with {since[0]}.{since[1]}"
    if not kernel.mmio_caching and kernel.version < linux.ES_NEEDS_MMIO_CACHING:
        yield f"kvm.mmio_caching on Linux {kernel.release}"
    if kernel.cgroup not in {1, 2}:
        yield f"cgroup version {kernel.cgroup}"
    if kernel.parameters.get("sev_es") and Features.SEV_ES not in parse_encryption(spec).features:
        yield "kvm_amd.sev_es=1 without SEV-ES in silicon"


def _secure_processor(spec: HostSpec) -> Iterator[str]:
    cpu, firmware = spec.cpu, spec.firmware
    if cpu.vendor is not Vendor.AMD and (cpu.psp is not None or firmware is not None):
        yield f"a secure processor of AMD beside {cpu.vendor}"
    if (cpu.psp is None) != (firmware is None):
        yield "a secure processor and its firmware belong together"
    if firmware is None:
        return
    running = (*firmware.api, firmware.build)
    if firmware.updated_from is not None and firmware.updated_from >= running:
        yield "firmware was updated to an older version"
    if (firmware.current is not None) != _line_has_snp(spec):
        yield f"{cpu.product} {'without' if firmware.current is None else 'with'} a TCB version"
    elif firmware.current is not None and cpu.product is not None:
        checks = running >= _ALIAS_CHECK[cpu.product.line]
        if firmware.alias_check and not checks:
            yield f"firmware {'.'.join(map(str, running))} does not check for aliases"
    if firmware.ciphertext_hiding and (cpu.product is None or cpu.product.line != "Turin"):
        yield f"ciphertext hiding on {cpu.product}"
    if firmware.vlek_loaded and not _line_has_snp(spec):
        yield f"a VLEK on {cpu.product}"


def _tcb(spec: HostSpec) -> Iterator[str]:
    firmware, product = spec.firmware, spec.cpu.product
    if firmware is None or product is None or firmware.current is None:
        return
    versions = {"current": firmware.current, "committed": firmware.committed}
    versions["reported"] = firmware.reported
    for name, tcb in versions.items():
        if tcb is None:
            yield f"no {name} TCB version"
            continue
        yield from _tcb_shape(name, tcb, product.line)
        if name != "current":
            above = firmware.current.below(tcb)
            if above:
                yield f"{name} TCB version above the current one in {', '.join(above)}"
    if firmware.committed is not None and firmware.reported is not None:
        above = firmware.committed.below(firmware.reported)
        if above:
            yield f"reported TCB version above the committed one in {', '.join(above)}"
    if spec.cpu.microcode & 0xFF != firmware.current.microcode:
        yield (
            f"microcode {spec.cpu.microcode:#x} and {firmware.current.microcode:#x} in the "
            "current TCB version"
        )


def _tcb_shape(name: str, tcb: TcbVersion, line: ProductLine) -> Iterator[str]:
    positions = POSITIONS.get(line, {})
    if set(tcb.components) != set(positions):
        yield f"{name} TCB version has the components of another product than {line}"
    if not all(0 <= value <= 0xFF for value in tcb.components.values()):
        yield f"{name} TCB version has a component above 255"


def _guests(spec: HostSpec) -> Iterator[str]:
    if min(astuple(spec.guests)) < 0:
        yield "fewer guests than none"


def _line_has_snp(spec: HostSpec) -> bool:
    return spec.cpu.product is not None and spec.cpu.product.line.snp


SPEC_RULES: Final[tuple[Callable[[HostSpec], Iterator[str]], ...]] = (
    _cpu,
    _memory_encryption,
    _asids,
    _rmp,
    _kernel,
    _secure_processor,
    _tcb,
    _guests,
)
