"""Known answers: what real machines printed, captured by their owners."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import pytest

from sevkit.testing.host.booting import boot
from sevkit.testing.host.cpuinfo import Signature, flags_of, render_cpuinfo, signature
from sevkit.testing.host.presets import PRESETS
from sevkit.testing.host.silicon import with_changes
from sevkit.testing.host.spec import Bios, HostSpec, Kernel, RmpCoverage

#: EPYC 7502P, Ubuntu 22.04 with Linux 5.15.0-70, memory encryption on in the BIOS.
ROME_7502P = """\
processor	: 0
vendor_id	: AuthenticAMD
cpu family	: 23
model		: 49
model name	: AMD EPYC 7502P 32-Core Processor
stepping	: 0
microcode	: 0x8301052
cpu MHz		: 2495.222
cache size	: 512 KB
physical id	: 0
siblings	: 64
core id		: 0
cpu cores	: 32
apicid		: 0
initial apicid	: 0
fpu		: yes
fpu_exception	: yes
cpuid level	: 16
wp		: yes
flags		: fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush \
mmx fxsr sse sse2 ht syscall nx mmxext fxsr_opt pdpe1gb rdtscp lm constant_tsc rep_good nopl \
nonstop_tsc cpuid extd_apicid aperfmperf rapl pni pclmulqdq monitor ssse3 fma cx16 sse4_1 sse4_2 \
x2apic movbe popcnt aes xsave avx f16c rdrand lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a \
misalignsse 3dnowprefetch osvw ibs skinit wdt tce topoext perfctr_core perfctr_nb bpext \
perfctr_llc mwaitx cpb cat_l3 cdp_l3 hw_pstate ssbd mba ibrs ibpb stibp vmmcall fsgsbase bmi1 \
avx2 smep bmi2 cqm rdt_a rdseed adx smap clflushopt clwb sha_ni xsaveopt xsavec xgetbv1 xsaves \
cqm_llc cqm_occup_llc cqm_mbm_total cqm_mbm_local clzero irperf xsaveerptr rdpru wbnoinvd \
amd_ppin arat npt lbrv svm_lock nrip_save tsc_scale vmcb_clean flushbyasid decodeassists \
pausefilter pfthreshold avic v_vmsave_vmload vgif v_spec_ctrl umip rdpid overflow_recov succor \
smca sme sev sev_es
bugs		: sysret_ss_attrs spectre_v1 spectre_v2 spec_store_bypass retbleed
bogomips	: 4990.44
TLB size	: 3072 4K pages
clflush size	: 64
cache_alignment	: 64
address sizes	: 43 bits physical, 48 bits virtual
power management: ts ttp tm hwpstate cpb eff_freq_ro [13] [14]
"""

#: EPYC 7413 with SEV-SNP up, Linux 6.11.0-rc3: the end of its flags, and what follows.
MILAN_7413_FLAGS = (
    "clzero irperf xsaveerptr rdpru wbnoinvd amd_ppin brs arat npt lbrv svm_lock nrip_save "
    "tsc_scale vmcb_clean flushbyasid decodeassists pausefilter pfthreshold v_vmsave_vmload vgif "
    "v_spec_ctrl umip pku ospke vaes vpclmulqdq rdpid overflow_recov succor smca sev sev_es "
    "sev_snp debug_swap"
)
MILAN_7413_REST = """\
bugs		: sysret_ss_attrs spectre_v1 spectre_v2 spec_store_bypass srso
bogomips	: 5300.00
TLB size	: 2560 4K pages
clflush size	: 64
cache_alignment	: 64
address sizes	: 43 bits physical, 48 bits virtual
power management: ts ttp tm hwpstate cpb eff_freq_ro [13] [14]
"""
#: EPYC 9224, memory encryption off in the BIOS, Linux 6.8.0-100.
GENOA_9224_FLAGS = (
    "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse "
    "sse2 ht syscall nx mmxext fxsr_opt pdpe1gb rdtscp lm constant_tsc rep_good amd_lbr_v2 nopl "
    "nonstop_tsc cpuid extd_apicid aperfmperf rapl pni pclmulqdq monitor ssse3 fma cx16 pcid "
    "sse4_1 sse4_2 x2apic movbe popcnt aes xsave avx f16c rdrand lahf_lm cmp_legacy svm extapic "
    "cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs skinit wdt tce topoext perfctr_core "
    "perfctr_nb bpext perfctr_llc mwaitx cpb cat_l3 cdp_l3 hw_pstate ssbd mba perfmon_v2 ibrs "
    "ibpb stibp ibrs_enhanced vmmcall fsgsbase bmi1 avx2 smep bmi2 erms invpcid cqm rdt_a avx512f "
    "avx512dq rdseed adx smap avx512ifma clflushopt clwb avx512cd sha_ni avx512bw avx512vl "
    "xsaveopt xsavec xgetbv1 xsaves cqm_llc cqm_occup_llc cqm_mbm_total cqm_mbm_local user_shstk "
    "avx512_bf16 clzero irperf xsaveerptr rdpru wbnoinvd amd_ppin cppc amd_ibpb_ret arat npt lbrv "
    "svm_lock nrip_save tsc_scale vmcb_clean flushbyasid decodeassists pausefilter pfthreshold "
    "avic v_vmsave_vmload vgif x2avic v_spec_ctrl vnmi avx512vbmi umip pku ospke avx512_vbmi2 "
    "gfni vaes vpclmulqdq avx512_vnni avx512_bitalg avx512_vpopcntdq la57 rdpid overflow_recov "
    "succor smca fsrm flush_l1d debug_swap"
)
#: The end of the flags of a Turin whose BIOS reserves no RMP table.
TURIN_FLAGS = (
    "rdpid bus_lock_detect movdiri movdir64b overflow_recov succor smca fsrm avx512_vp2intersect "
    "flush_l1d sev sev_es debug_swap amd_lbr_pmc_freeze"
)


def flags(spec: HostSpec) -> str:
    return " ".join(flags_of(spec, boot(spec).cleared))


def test_rome_prints_what_a_real_one_printed() -> None:
    rome = PRESETS["rome"]
    one = rome.cpuid(1)
    # The real one differs from the dump in its name and in x2APIC mode, a BIOS switch.
    leaves = with_changes(rome.cpu.leaves, "", brand="AMD EPYC 7502P 32-Core Processor")
    leaves = MappingProxyType({**leaves, (1, 0): one._replace(ecx=one.ecx | 1 << 21)})
    cpu = replace(rome.cpu, leaves=leaves, microcode=0x8301052, mhz=2495.222)
    spec = replace(rome, cpu=cpu, kernel=Kernel("5.15.0-70-generic"), processors=1)
    assert render_cpuinfo(spec, boot(spec).cleared) == ROME_7502P + "\n"


def test_milan_with_snp_prints_what_a_real_one_printed() -> None:
    spec = replace(PRESETS["milan"], kernel=Kernel("6.11.0-rc3"), processors=1)
    text = render_cpuinfo(spec, boot(spec).cleared)
    assert f"{MILAN_7413_FLAGS}\n{MILAN_7413_REST}" in text


def test_genoa_without_memory_encryption_prints_what_a_real_one_printed() -> None:
    bios = replace(PRESETS["genoa"].bios, smee=False)
    spec = replace(PRESETS["genoa"], bios=bios, kernel=Kernel("6.8.0-100-generic"))
    assert flags(spec) == GENOA_9224_FLAGS


def test_turin_without_an_rmp_table_prints_what_a_real_one_printed() -> None:
    spec = replace(PRESETS["turin"], bios=replace(PRESETS["turin"].bios, rmp=RmpCoverage.NONE))
    assert flags(spec).endswith(TURIN_FLAGS)


@pytest.mark.parametrize(
    ("eax", "found"),
    [
        (0x00800F12, Signature(0x17, 0x01, 2)),
        (0x00830F10, Signature(0x17, 0x31, 0)),
        (0x00A10F11, Signature(0x19, 0x11, 1)),
        (0x00AA0F02, Signature(0x19, 0xA0, 2)),
        (0x00B10F10, Signature(0x1A, 0x11, 0)),
        (0x000806F8, Signature(0x06, 0x8F, 8)),
        (0x00000553, Signature(0x05, 0x05, 3)),
    ],
)
def test_extended_family_and_model_are_added(eax: int, found: Signature) -> None:
    assert signature(eax) == found


@pytest.mark.parametrize(
    ("bios", "kernel", "expected"),
    [
        (Bios(), Kernel("6.18.9"), {"sev", "sev_es", "sev_snp"}),
        (Bios(), Kernel("6.18.9", mem_encrypt=True), {"sme", "sev", "sev_es", "sev_snp"}),
        (Bios(), Kernel("5.15.0"), {"sme", "sev", "sev_es"}),
        (Bios(), Kernel("6.8.0"), {"sev", "sev_es"}),
        (Bios(smee=False), Kernel("6.18.9"), set()),
        (Bios(smm_lock=False), Kernel("6.18.9", mem_encrypt=True), {"sme"}),
        (Bios(rmp=RmpCoverage.NONE), Kernel("6.18.9"), {"sev", "sev_es"}),
        (Bios(rmp=RmpCoverage.PARTIAL), Kernel("6.18.9"), {"sev", "sev_es", "sev_snp"}),
    ],
)
def test_the_flags_of_sev_follow_bios_and_kernel(
    bios: Bios, kernel: Kernel, expected: set[str]
) -> None:
    spec = replace(PRESETS["genoa"], bios=bios, kernel=kernel)
    assert set(flags(spec).split()) & {"sme", "sev", "sev_es", "sev_snp"} == expected


def test_without_memory_encryption_no_address_bit_is_lost() -> None:
    genoa = PRESETS["genoa"]
    lost = render_cpuinfo(genoa, frozenset())
    whole = render_cpuinfo(replace(genoa, bios=Bios(smee=False)), frozenset())
    assert "address sizes\t: 46 bits physical, 57 bits virtual\n" in lost
    assert "address sizes\t: 52 bits physical, 57 bits virtual\n" in whole


def test_each_processor_is_shown_and_ends_with_an_empty_line() -> None:
    text = render_cpuinfo(replace(PRESETS["naples"], processors=3), frozenset())
    blocks = text.split("\n\n")
    assert [block.split("\n", 1)[0] for block in blocks] == [
        "processor\t: 0",
        "processor\t: 1",
        "processor\t: 2",
        "",
    ]
    assert all("amd_dcm" in block for block in blocks[:3])


def test_an_arm_cpu_has_features_and_no_flags() -> None:
    text = render_cpuinfo(PRESETS["arm64"], frozenset())
    assert text.count("processor\t: ") == 2
    assert text.count("CPU implementer\t: 0x41\n") == 2
    assert "flags" not in text


def test_an_intel_cpu_is_one() -> None:
    text = render_cpuinfo(PRESETS["intel"], frozenset())
    assert "vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\n" in text
    assert " vmx " in text
    assert " svm " not in text
    assert "TLB size" not in text
    assert text.endswith("power management:\n\n")
