"""The names of CPU features that Linux prints as ``flags`` in ``/proc/cpuinfo``, in its order.

Linux keeps features in words of 32 bits, most of them a CPUID register as it is, and prints the
names word by word. The table below is those words; a name that a kernel does not print, because
it came later or is kept to itself, is left out or carries the first version that prints it.
What only the kernel knows (``constant_tsc``, ``cpuid``, what it clears) is in ``words``' callers.
Sources: Linux, arch/x86/include/asm/cpufeatures.h and arch/x86/kernel/cpu/scattered.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sevkit.testing.host.spec import Registers

EAX, EBX, ECX, EDX = range(4)


class Word(NamedTuple):
    """Flags in the order in which they are printed; ``bits`` names them, ``-`` is not printed."""

    leaf: int
    register: int
    bits: str
    subleaf: int = 0


class Kernel(NamedTuple):
    """A place in the order for what the kernel finds out by itself."""

    names: tuple[str, ...]


class Bit(NamedTuple):
    """One feature that Linux picks out of a register and prints elsewhere than its neighbours."""

    name: str
    leaf: int
    register: int
    bit: int
    subleaf: int = 0


ORDER: Final[tuple[Word | Kernel | Bit, ...]] = (
    Word(
        1,
        EDX,
        "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - "
        "dts acpi mmx fxsr sse sse2 ss ht tm ia64 pbe",
    ),
    Word(
        0x80000001,
        EDX,
        "- - - - - - - - - - - syscall - - - - - - - mp nx - mmxext - - fxsr_opt pdpe1gb rdtscp "
        "- lm 3dnowext 3dnow",
    ),
    Kernel(("constant_tsc", "art", "arch_perfmon", "pebs", "bts", "rep_good")),
    Bit("amd_lbr_v2", 0x80000022, EAX, 1),
    Kernel(("nopl", "xtopology", "tsc_reliable", "nonstop_tsc", "cpuid", "extd_apicid")),
    Kernel(("amd_dcm",)),
    Bit("aperfmperf", 6, ECX, 0),
    Bit("rapl", 0x80000007, EDX, 14),
    Kernel(("tsc_known_freq",)),
    Word(
        1,
        ECX,
        "pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm - "
        "pcid dca sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave - avx f16c rdrand "
        "hypervisor",
    ),
    Word(
        0x80000001,
        ECX,
        "lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs "
        "xop skinit wdt - lwp fma4 tce - nodeid_msr - tbm topoext perfctr_core perfctr_nb - bpext "
        "ptsc perfctr_llc mwaitx",
    ),
    Bit("cpb", 0x80000007, EDX, 9),
    Bit("epb", 6, ECX, 3),
    Bit("cat_l3", 0x10, EBX, 1),
    Bit("cdp_l3", 0x10, ECX, 2, 1),
    Bit("hw_pstate", 0x80000007, EDX, 7),
    Kernel(("ssbd",)),
    Bit("mba", 0x80000008, EBX, 6),
    Bit("perfmon_v2", 0x80000022, EAX, 0),
    Kernel(("ibrs", "ibpb", "stibp", "ibrs_enhanced")),
    Kernel(("tpr_shadow", "flexpriority", "ept", "vpid", "vmmcall", "ept_ad")),
    Word(
        7,
        EBX,
        "fsgsbase tsc_adjust sgx bmi1 hle avx2 - smep bmi2 erms invpcid rtm cqm - mpx rdt_a "
        "avx512f avx512dq rdseed adx smap avx512ifma - clflushopt clwb intel_pt avx512pf avx512er "
        "avx512cd sha_ni avx512bw avx512vl",
    ),
    Word(0xD, EAX, "xsaveopt xsavec xgetbv1 xsaves", 1),
    Bit("cqm_llc", 0xF, EDX, 1),
    Word(0xF, EDX, "cqm_occup_llc cqm_mbm_total cqm_mbm_local", 1),
    Bit("user_shstk", 7, ECX, 7),
    Word(7, EAX, "- - - - avx_vnni avx512_bf16", 1),
    Word(
        0x80000008,
        EBX,
        "clzero irperf xsaveerptr - rdpru - - - - wbnoinvd - - - - - - - - - - - - - amd_ppin - "
        "virt_ssbd - cppc - - amd_ibpb_ret brs",
    ),
    Word(6, EAX, "dtherm ida arat - pln - pts hwp hwp_notify hwp_act_window hwp_epp hwp_pkg_req"),
    Word(
        0x8000000A,
        EDX,
        "npt lbrv svm_lock nrip_save tsc_scale vmcb_clean flushbyasid decodeassists - - "
        "pausefilter - pfthreshold avic - v_vmsave_vmload vgif - x2avic - v_spec_ctrl - - - - vnmi",
    ),
    Word(
        7,
        ECX,
        "- avx512vbmi umip pku ospke waitpkg avx512_vbmi2 - gfni vaes vpclmulqdq avx512_vnni "
        "avx512_bitalg tme avx512_vpopcntdq - la57 - - - - - rdpid - bus_lock_detect cldemote - "
        "movdiri movdir64b enqcmd sgx_lc",
    ),
    Word(0x80000007, EBX, "overflow_recov succor - smca"),
    Word(
        7,
        EDX,
        "- - avx512_4vnniw avx512_4fmaps fsrm - - - avx512_vp2intersect - md_clear - - - serialize "
        "- tsxldtrk - pconfig arch_lbr ibt - amx_bf16 avx512_fp16 amx_tile amx_int8 - - flush_l1d "
        "arch_capabilities",
    ),
    Word(0x8000001F, EAX, "sme sev - sev_es sev_snp - - - - - - - - - debug_swap"),
    Bit("amd_lbr_pmc_freeze", 0x80000022, EAX, 2),
)

#: First kernel that prints a name; the others are older than any kernel that knows SEV.
SINCE: Final = {
    "rapl": (5, 8),
    "amd_lbr_v2": (6, 1),
    "perfmon_v2": (5, 19),
    "brs": (5, 19),
    "x2avic": (6, 0),
    "vnmi": (6, 4),
    "debug_swap": (6, 5),
    "user_shstk": (6, 6),
    "sev_snp": (6, 9),
    "xtopology": (6, 9),
    "amd_lbr_pmc_freeze": (6, 10),
    "bus_lock_detect": (6, 13),
}


def printed_flags(
    read: Callable[[int, int], Registers],
    kernel: tuple[int, int],
    known: frozenset[str],
    cleared: frozenset[str],
) -> tuple[str, ...]:
    """Return the flags of a CPU whose CPUID is ``read``, as ``kernel`` (major, minor) prints them.

    ``known`` are the kernel's own findings, ``cleared`` what it took away.
    """
    return tuple(
        name
        for name in _set_names(read, known)
        if name not in cleared and kernel >= SINCE.get(name, (0, 0))
    )


def _set_names(read: Callable[[int, int], Registers], known: frozenset[str]) -> Iterator[str]:
    for row in ORDER:
        if isinstance(row, Kernel):
            yield from (name for name in row.names if name in known)
        elif isinstance(row, Bit):
            if read(row.leaf, row.subleaf)[row.register] >> row.bit & 1:
                yield row.name
        else:
            value = read(row.leaf, row.subleaf)[row.register]
            for index, name in enumerate(row.bits.split()):
                if name != "-" and value >> index & 1:
                    yield name
