"""What the processor itself can do: silicon, and the numbers in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sevkit.host.cpuid import Features
from sevkit.host.doctor.check import (
    ALL,
    ENCRYPTED_STATE,
    ES,
    NONE,
    ONLY_SNP,
    SEV,
    SNP,
    Check,
    Found,
    Verdict,
    from_flag,
    hint_of,
    told,
    why_not,
)
from sevkit.host.kvm import SECURE_TSC
from sevkit.host.reading import value_of
from sevkit.host.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.host.capability import Technology
    from sevkit.host.doctor.check import Patient


def _silicon(technology: Technology) -> Callable[[Patient], Found]:
    return lambda p: from_flag(p.e.witnesses[technology].silicon, why_not(p.facts.cpuid))


def _feature(feature: Features) -> Callable[[Patient], Found]:
    def look(p: Patient) -> Found:
        cpuid = p.e.cpuid
        known = None if cpuid is None else feature in cpuid.encryption.features
        return from_flag(known, why_not(p.facts.cpuid))

    return look


def _encryption(name: str) -> Callable[[Patient], Found]:
    return lambda p: told(None if p.e.cpuid is None else getattr(p.e.cpuid.encryption, name))


def _vendor(p: Patient) -> Found:
    return from_flag(p.e.amd, why_not(p.facts.cpuinfo), yes="AuthenticAMD", no=str(p.facts.vendor))


def _model(p: Patient) -> Found:
    if p.e.product is not None:
        return Found(Verdict.PASS, p.e.product.value)
    found = p.facts.signature
    if found is None:
        return Found(Verdict.SKIP, detail=why_not(p.facts.cpuinfo))
    words = f"family {found.family:#x} model {found.model:#x}"
    return Found(Verdict.WARN, words, "no EPYC that we know")


def _bare_metal(p: Patient) -> Found:
    known = None if p.e.guest is None else not p.e.guest
    return from_flag(known, why_not(p.facts.cpuinfo))


def _secure_tsc(p: Patient) -> Found:
    cpuid, features = p.e.cpuid, value_of(p.facts.kvm.vmsa_features)
    if cpuid is None or features is None:
        return Found(Verdict.SKIP, detail=why_not(p.facts.kvm.vmsa_features))
    able = Features.SECURE_TSC in cpuid.encryption.features and bool(features & SECURE_TSC)
    return Found(Verdict.PASS, "yes") if able else Found(Verdict.WARN, "no", "optional")


PROCESSOR: Final[tuple[Check, ...]] = (
    Check(
        "cpu.vendor",
        "the processor is AMD's",
        ALL,
        _vendor,
        hint_of(Reason.NOT_AMD),
        snphost="AMD CPU",
        sevctl="AMD CPU",
        source="CPUID Fn0000_0000; /proc/cpuinfo vendor_id",
    ),
    Check(
        "cpu.bare-metal",
        "no hypervisor is below",
        ALL,
        _bare_metal,
        hint_of(Reason.VIRTUAL_MACHINE),
        "cpu.vendor",
        source="CPUID Fn0000_0001 ECX[31]; /proc/cpuinfo hypervisor",
    ),
    Check(
        "cpu.model",
        "an EPYC, by model and not by brand",
        NONE,
        _model,
        "use an EPYC server processor",
        "cpu.vendor",
        snphost="Microcode support",
        sevctl="Microcode support",
        source="CPUID Fn0000_0001 EAX; /proc/cpuinfo",
    ),
    Check(
        "cpu.sme",
        "silicon has SME",
        NONE,
        _feature(Features.SME),
        "",
        "cpu.vendor",
        snphost="Secure Memory Encryption (SME)",
        source="CPUID Fn8000_001F EAX[0]",
    ),
    Check(
        "cpu.sev",
        "silicon has SEV",
        ALL,
        _silicon(SEV),
        hint_of(Reason.NO_SILICON),
        "cpu.vendor",
        snphost="Secure Encrypted Virtualization (SEV)",
        sevctl="Secure Encrypted Virtualization (SEV)",
        source="CPUID Fn8000_001F EAX[1]; the model",
    ),
    Check(
        "cpu.sev-es",
        "silicon has SEV-ES",
        ENCRYPTED_STATE,
        _silicon(ES),
        hint_of(Reason.NO_SILICON),
        "cpu.sev",
        snphost="Encrypted State (SEV-ES)",
        sevctl="Encrypted State (SEV-ES)",
        source="CPUID Fn8000_001F EAX[3]; the model",
    ),
    Check(
        "cpu.sev-snp",
        "silicon has SEV-SNP",
        ONLY_SNP,
        _silicon(SNP),
        hint_of(Reason.NO_SILICON),
        "cpu.sev",
        snphost="Secure Nested Paging (SEV-SNP)",
        source="CPUID Fn8000_001F EAX[4]; the model",
    ),
    Check(
        "cpu.vmpl",
        "silicon has VMPLs",
        ONLY_SNP,
        _feature(Features.VMPL),
        "update the BIOS",
        "cpu.sev-snp",
        snphost="VM Permission Levels",
        sevctl="VM Permission Levels",
        source="CPUID Fn8000_001F EAX[5]",
    ),
    Check(
        "cpu.vmpls",
        "how many VMPLs",
        NONE,
        _encryption("vmpls"),
        "",
        "cpu.vmpl",
        snphost="Number of VMPLs",
        sevctl="Number of VMPLs",
        source="CPUID Fn8000_001F EBX[15:12]",
    ),
    Check(
        "cpu.secure-tsc",
        "SNP guests can have a secure TSC",
        NONE,
        _secure_tsc,
        "EPYC 9004 or newer and Linux 6.18",
        "cpu.sev-snp",
        source="CPUID Fn8000_001F EAX[8]; KVM_X86_SEV_VMSA_FEATURES",
    ),
    Check(
        "cpu.page-flush-msr",
        "silicon has the page flush MSR",
        NONE,
        lambda p: told(
            None if p.e.cpuid is None else Features.PAGE_FLUSH_MSR in p.e.cpuid.encryption.features
        ),
        "",
        "cpu.vendor",
        snphost="Page flush MSR",
        sevctl="Page flush MSR",
        source="CPUID Fn8000_001F EAX[2]",
    ),
    Check(
        "cpu.c-bit",
        "where the C-bit is",
        NONE,
        _encryption("c_bit"),
        "",
        "cpu.sev",
        snphost="C-bit location",
        sevctl="C-bit location",
        source="CPUID Fn8000_001F EBX[5:0]",
    ),
    Check(
        "cpu.address-reduction",
        "physical address bits lost",
        NONE,
        _encryption("reduction"),
        "",
        "cpu.sev",
        snphost="Physical address bit reduction",
        sevctl="Physical address bit reduction",
        source="CPUID Fn8000_001F EBX[11:6]",
    ),
    Check(
        "cpu.max-asid",
        "highest ASID",
        NONE,
        _encryption("max_asid"),
        "",
        "cpu.sev",
        snphost="Number of encrypted guests supported simultaneously",
        sevctl="Number of encrypted guests supported simultaneously",
        source="CPUID Fn8000_001F ECX",
    ),
    Check(
        "cpu.min-sev-asid",
        "lowest ASID of SEV alone",
        NONE,
        _encryption("min_sev_asid"),
        "",
        "cpu.sev",
        snphost="Minimum ASID value for SEV-enabled, SEV-ES disabled guest",
        sevctl="Minimum ASID value for SEV-enabled, SEV-ES disabled guest",
        source="CPUID Fn8000_001F EDX",
    ),
)
