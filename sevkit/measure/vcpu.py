"""The registers with which each hypervisor starts a vCPU, and the CPUID signatures of CPU models.

Sources: APM volume 2, 14.1.3 (state after INIT); Linux ``arch/x86/kvm/svm/sev.c`` and QEMU
``target/i386`` for what KVM and QEMU add; the measurements that EC2 and GCE publish. RDX at reset
holds CPUID Fn0000_0001_EAX (AMD 25481), which is why the CPU model is part of the digest.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, final

from sevkit.abi.vmsa import encode_vmsa
from sevkit.errors import UsageError
from sevkit.measure.terms import Era, Vmm

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Where the boot processor starts: the last 16 bytes below 4 GiB.
BSP_EIP: Final = 0xFFFF_FFF0


def signature_of(family: int, model: int, stepping: int) -> int:
    """Return CPUID Fn0000_0001_EAX for a family, model and stepping (AMD 25481).

    Family 0 to 0x10E (base and extended added), model 0 to 0xFF, stepping 0 to 0xF. Raises
    ``UsageError`` outside of that.
    """
    if not (0 <= family <= 0x10E and 0 <= model <= 0xFF and 0 <= stepping <= 0xF):
        raise UsageError(f"no CPUID has family {family}, model {model}, stepping {stepping}")
    base = min(family, 0xF)
    return (family - base) << 20 | model >> 4 << 16 | base << 8 | (model & 0xF) << 4 | stepping


_NAPLES: Final = signature_of(23, 1, 2)
_ROME: Final = signature_of(23, 49, 0)
_MILAN: Final = signature_of(25, 1, 1)
_GENOA: Final = signature_of(25, 17, 0)
_TURIN: Final = signature_of(26, 0, 0)


def _versions(name: str, signature: int, newest: int) -> dict[str, int]:
    return {name: signature, **{f"{name}-v{n}": signature for n in range(1, newest + 1)}}


#: CPU models of QEMU and libvirt. The version behind a name ("EPYC-v4") is the model's, not the
#: product's generation: every plain EPYC is Naples.
CPU_MODELS: Final[Mapping[str, int]] = MappingProxyType(
    {
        **_versions("EPYC", _NAPLES, 5),
        "EPYC-IBPB": _NAPLES,
        **_versions("EPYC-Rome", _ROME, 5),
        **_versions("EPYC-Milan", _MILAN, 3),
        **_versions("EPYC-Genoa", _GENOA, 2),
        **_versions("EPYC-Turin", _TURIN, 1),
    }
)

#: Family and model of the server chips themselves, as host-passthrough shows them.
_CHIPS: Final = (
    ("Naples", 23, 0x01),
    ("Rome", 23, 0x31),
    ("Milan", 25, 0x01),
    ("Genoa", 25, 0x11),
    ("Bergamo or Siena", 25, 0xA0),
    ("Turin", 26, 0x02),
    ("Turin Dense", 26, 0x11),
)

#: Signatures that a guest with host-passthrough can have, each with the chip's name.
CHIP_SIGNATURES: Final[Mapping[int, str]] = MappingProxyType(
    {
        signature_of(family, model, stepping): f"{name}, stepping {stepping}"
        for name, family, model in _CHIPS
        for stepping in range(4)
    }
)


def signature_of_model(name: str) -> int:
    """Return the CPUID signature of one of QEMU's CPU models; raises ``UsageError``."""
    try:
        return CPU_MODELS[name]
    except KeyError:
        raise UsageError(
            f"unknown CPU model {name}",
            hint=f"one of {', '.join(CPU_MODELS)}, or give the CPUID signature itself",
        ) from None


def names_of_signature(signature: int) -> tuple[str, ...]:
    """Return what has this signature: CPU models first, then chips; empty if nothing known."""
    names = [name for name, value in CPU_MODELS.items() if value == signature]
    if signature in CHIP_SIGNATURES:
        names.append(f"host CPU {CHIP_SIGNATURES[signature]}")
    return tuple(names)


_SEGMENT: Final = 0xFFFF  # limit of every segment and table after INIT

_AFTER_INIT: Final[Mapping[str, int]] = MappingProxyType(
    {
        "es_attrib": 0x93,
        "es_limit": _SEGMENT,
        "cs_selector": 0xF000,
        "cs_attrib": 0x9B,
        "cs_limit": _SEGMENT,
        "ss_attrib": 0x93,
        "ss_limit": _SEGMENT,
        "ds_attrib": 0x93,
        "ds_limit": _SEGMENT,
        "fs_attrib": 0x93,
        "fs_limit": _SEGMENT,
        "gs_attrib": 0x93,
        "gs_limit": _SEGMENT,
        "gdtr_limit": _SEGMENT,
        "ldtr_attrib": 0x82,
        "ldtr_limit": _SEGMENT,
        "idtr_limit": _SEGMENT,
        "tr_attrib": 0x8B,
        "tr_limit": _SEGMENT,
        "efer": 0x1000,  # KVM sets EFER.SVME
        "cr4": 0x40,  # and CR4.MCE
        "cr0": 0x10,
        "dr7": 0x400,
        "dr6": 0xFFFF_0FF0,
        "rflags": 0x2,
        "g_pat": 0x0007_0406_0007_0406,
        "xcr0": 0x1,
    }
)

_FPU: Final = {"mxcsr": 0x1F80, "x87_fcw": 0x037F}


@final
@dataclass(frozen=True, slots=True)
class _Row:
    """How one hypervisor differs from the table above."""

    both: Mapping[str, int]
    bsp: Mapping[str, int]
    measures_cpu: bool


_ROWS: Final[Mapping[tuple[Vmm, Era], _Row]] = MappingProxyType(
    {
        (Vmm.QEMU, Era.INIT): _Row({}, {}, measures_cpu=True),
        (Vmm.QEMU, Era.INIT2): _Row(_FPU, {}, measures_cpu=True),
        (Vmm.EC2, Era.INIT2): _Row(
            {"ss_attrib": 0x92, "tr_attrib": 0x83, "rdx": 0x600},
            {"cs_attrib": 0x9A},
            measures_cpu=False,
        ),
        (Vmm.GCE, Era.INIT2): _Row({"g_pat": 0x0007_0106, "rdx": 0x600}, {}, measures_cpu=False),
    }
)


def measures_cpu(vmm: Vmm) -> bool:
    """Return whether the CPU model is part of the digest: EC2 and GCE start all CPUs alike."""
    return _ROWS[vmm, Era.INIT2].measures_cpu


@final
@dataclass(frozen=True, slots=True)
class Registers:
    """What distinguishes one guest's vCPUs from another's, besides where they start.

    ``signature`` is the CPUID signature, 32 bits; it is not looked at where ``measures_cpu`` is
    false. ``sev_features`` is 64 bits: bit 0 set for SNP, and 0 for SEV-ES unless KVM had
    DebugSwap on (0x20, Linux 6.6 to 6.8).
    """

    signature: int
    sev_features: int
    vmm: Vmm = Vmm.QEMU
    era: Era = Era.INIT2


def encode_vcpu(registers: Registers, eip: int) -> bytes:
    """Return the 4096-byte VMSA of a vCPU that starts at ``eip`` (32 bits).

    Source: APM volume 2, Table B-4 and 14.1.3. Raises ``UsageError`` for a hypervisor without this
    era, or a value that does not fit.
    """
    row = _ROWS.get((registers.vmm, registers.era))
    if row is None:
        raise UsageError(f"{registers.vmm} has no register era {registers.era}")
    for name, value, bits in (
        ("CPUID signature", registers.signature, 32),
        ("guest features", registers.sev_features, 64),
        ("start address", eip, 32),
    ):
        if not 0 <= value < 1 << bits:
            raise UsageError(f"{name} {value:#x} does not fit {bits} bits")
    values = {
        **_AFTER_INIT,
        "rdx": registers.signature,
        "cs_base": eip & 0xFFFF_0000,
        "rip": eip & 0xFFFF,
        "sev_features": registers.sev_features,
        **row.both,
        **(row.bsp if eip == BSP_EIP else {}),
    }
    return encode_vmsa(values)
