"""``/proc/cpuinfo``, from CPUID and from what Linux adds and clears.

The flags that matter for SEV follow the kernel's rules: ``sme``, ``sev``, ``sev_es`` and
``sev_snp`` go when the BIOS left memory encryption off (SYSCFG[23]), the ``sev`` ones when it did
not lock SMM (HWCR[0]), ``sme`` unless the host encrypts its own memory, and ``sev_snp`` in a
guest and where no memory is reserved for the RMP table. ``debug_swap`` stays whatever happens.
Source: Linux, arch/x86/kernel/cpu/{amd,proc}.c and arch/arm64/kernel/cpuinfo.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sevkit.testing.host.cpu_flags import printed_flags
from sevkit.testing.host.silicon import HYPERVISOR
from sevkit.testing.host.spec import MEMORY_ENCRYPTION, Vendor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sevkit.testing.host.spec import HostSpec

#: Fn8000_0007 EDX, as Linux names its bits at the end of each processor.
_POWER: Final = (
    *("ts", "fid", "vid", "ttp", "tm", "stc", "100mhzsteps", "hwpstate", ""),
    *("cpb", "eff_freq_ro", "proc_feedback", "acc_power"),
)
_AMD_FOUND: Final = ("rep_good", "nopl", "cpuid", "extd_apicid", "vmmcall")
_INTEL_FOUND: Final = (
    *("art", "arch_perfmon", "pebs", "bts", "rep_good", "nopl", "xtopology", "cpuid"),
    *("ssbd", "ibrs", "ibpb", "stibp", "ibrs_enhanced"),
    *("tpr_shadow", "flexpriority", "ept", "vpid", "ept_ad"),
)
_ZEN_AND_ZEN2: Final = 0x17
_NEOVERSE_N1: Final = """\
BogoMIPS\t: 50.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc \
dcpop asimddp ssbs
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1
"""


class Signature(NamedTuple):
    """Family, model and stepping, the extended parts added (CPUID Fn0000_0001 EAX)."""

    family: int
    model: int
    stepping: int


def signature(eax: int) -> Signature:
    """Return the signature in EAX of Fn0000_0001; Intel and AMD extend families from 0Fh."""
    family, model = eax >> 8 & 0xF, eax >> 4 & 0xF
    if family in {0x6, 0xF}:
        model |= eax >> 12 & 0xF0
    if family == 0xF:
        family += eax >> 20 & 0xFF
    return Signature(family, model, eax & 0xF)


def brand(spec: HostSpec) -> str:
    """Return the brand string, without its padding."""
    words = [word for i in range(3) for word in spec.cpuid(0x80000002 + i)]
    data = b"".join(word.to_bytes(4, "little") for word in words)
    return data.rstrip(b"\0").decode("ascii").strip()


def render_cpuinfo(spec: HostSpec, cleared: frozenset[str]) -> str:
    """Return the whole file; ``cleared`` are the flags that the kernel took away."""
    one = _arm_processor if spec.cpu.vendor is Vendor.ARM else _x86_processor
    flags = "" if spec.cpu.vendor is Vendor.ARM else " ".join(flags_of(spec, cleared))
    return "".join(f"{one(spec, i, flags)}\n" for i in range(spec.processors))


def flags_of(spec: HostSpec, cleared: frozenset[str]) -> tuple[str, ...]:
    """Return the flags that this kernel prints for this CPU."""
    known = frozenset(_INTEL_FOUND if spec.cpu.vendor is Vendor.INTEL else _amd_found(spec))
    return printed_flags(spec.cpuid, spec.kernel.version, known | _tsc(spec), cleared)


def _tsc(spec: HostSpec) -> frozenset[str]:
    invariant = spec.cpuid(0x80000007).edx >> 8 & 1
    return frozenset(("constant_tsc", "nonstop_tsc") if invariant else ())


def _amd_found(spec: HostSpec) -> Iterator[str]:
    """Yield what Linux finds out on AMD CPUs, mostly about speculation."""
    yield from _AMD_FOUND
    extended, automatic_ibrs = spec.cpuid(0x80000008).ebx, spec.cpuid(0x80000021).eax >> 8 & 1
    old = signature(spec.cpuid(1).eax).family == _ZEN_AND_ZEN2
    found = {
        "xtopology": spec.cpuid(0xB).ebx,
        "amd_dcm": spec.cpuid(0x8000001E).ecx >> 8 & 7,
        # Zen and Zen 2 switch it by LS_CFG, where no hypervisor stands between.
        "ssbd": extended >> 24 & 1 or (old and not spec.cpuid(1).ecx & HYPERVISOR),
        "ibrs": extended >> 14 & 1,
        "ibpb": extended >> 12 & 1,
        "stibp": extended >> 15 & 1,
        "ibrs_enhanced": automatic_ibrs,
    }
    yield from (name for name, value in found.items() if value)


def _address_bits(spec: HostSpec) -> tuple[int, int]:
    """Return physical and virtual address sizes; memory encryption costs physical bits."""
    sizes, encryption = spec.cpuid(0x80000008).eax, spec.cpuid(MEMORY_ENCRYPTION)
    lost = encryption.ebx >> 6 & 0x3F if spec.bios.smee else 0
    return (sizes & 0xFF) - lost, sizes >> 8 & 0xFF


def _x86_processor(spec: HostSpec, index: int, flags: str) -> str:
    cpu, found = spec.cpu, signature(spec.cpuid(1).eax)
    translation, caches = spec.cpuid(0x80000006).ebx, spec.cpuid(0x80000006).ecx
    physical, virtual = _address_bits(spec)
    line_size = (spec.cpuid(1).ebx >> 8 & 0xFF) * 8
    rows = [
        ("processor\t", index),
        ("vendor_id\t", cpu.vendor),
        ("cpu family\t", found.family),
        ("model\t\t", found.model),
        ("model name\t", brand(spec)),
        ("stepping\t", found.stepping),
        ("microcode\t", f"{cpu.microcode:#x}"),
        ("cpu MHz\t\t", f"{cpu.mhz:.3f}"),
        ("cache size\t", f"{caches >> 16} KB"),
        ("physical id\t", 0),
        ("siblings\t", cpu.cores * 2),
        ("core id\t\t", index // 2),
        ("cpu cores\t", cpu.cores),
        ("apicid\t\t", index),
        ("initial apicid\t", index),
        ("fpu\t\t", "yes"),
        ("fpu_exception\t", "yes"),
        ("cpuid level\t", spec.cpuid(0).eax),
        ("wp\t\t", "yes"),
        ("flags\t\t", flags),
        ("bugs\t\t", " ".join(cpu.bugs)),
        ("bogomips\t", f"{cpu.mhz * 2:.2f}"),
    ]
    if translation:
        entries = (translation >> 16 & 0xFFF) + (translation & 0xFFF)
        rows.append(("TLB size\t", f"{entries} 4K pages"))
    rows += [
        ("clflush size\t", line_size),
        ("cache_alignment\t", line_size),
        ("address sizes\t", f"{physical} bits physical, {virtual} bits virtual"),
    ]
    power = "".join(f" {name}" for name in _power(spec.cpuid(0x80000007).edx))
    lines = [f"{name}: {value}" for name, value in rows]
    return "\n".join([*lines, f"power management:{power}", ""])


def _power(edx: int) -> Iterator[str]:
    for bit in range(32):
        if edx >> bit & 1:
            name = _POWER[bit] if bit < len(_POWER) else f"[{bit}]"
            if name:
                yield name


def _arm_processor(_: HostSpec, index: int, __: str) -> str:
    return f"processor\t: {index}\n{_NEOVERSE_N1}"
