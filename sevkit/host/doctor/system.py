"""What BIOS, kernel and KVM made of the processor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sevkit.host.capability import Technology
from sevkit.host.conditions import iommu_fault
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
    why_not,
)
from sevkit.host.evidence import SNP_SINCE
from sevkit.host.kernel_log import LogLine
from sevkit.host.kvm import VmTypes
from sevkit.host.reading import value_of
from sevkit.host.reasons import TEXTS, Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.host.doctor.check import Patient


def _parameter(technology: Technology) -> Callable[[Patient], Found]:
    def look(p: Patient) -> Found:
        modules = p.facts.modules
        reading = {SEV: modules.sev, ES: modules.sev_es, SNP: modules.sev_snp}[technology]
        own = p.e.witnesses[technology]
        if own.missing and own.silicon:
            return Found(Verdict.FAIL, "none", "kvm_amd of this kernel has no such parameter")
        return from_flag(value_of(reading), why_not(reading), yes="Y", no="N")

    return look


def _smee(p: Patient) -> Found:
    known = True if p.e.flag("sev") else p.e.encryption_on
    if known is None and p.e.flag("sev") is False:
        return Found(Verdict.WARN, "unclear", "off, or SMM is not locked")
    return from_flag(known, why_not(p.facts.cpuinfo), yes="on", no="off")


def _smm_lock(p: Patient) -> Found:
    if p.e.flag("sev") is False and p.e.encryption_on is not True:
        return Found(Verdict.SKIP, detail="cannot be told while memory encryption is off")
    return from_flag(p.e.flag("sev"), why_not(p.facts.cpuinfo), yes="locked", no="not locked")


def _iommu(p: Patient) -> Found:
    fault = iommu_fault(p.e)
    if fault is not None and fault is not Reason.IOMMU_SNP_OFF:
        return Found(Verdict.FAIL, fault.value, TEXTS[fault].sentence)
    if p.e.iommu is None:
        return Found(Verdict.SKIP, detail=why_not(p.facts.iommu))
    return Found(Verdict.PASS, f"{p.e.iommu.units} in use")


def _iommu_snp(p: Patient) -> Found:
    known = None if p.e.iommu is None else p.e.iommu.snp
    return from_flag(known, why_not(p.facts.iommu))


def _kernel(p: Patient) -> Found:
    release = value_of(p.facts.release)
    if release is None:
        return Found(Verdict.SKIP, detail=why_not(p.facts.release))
    # Distributions bring it back to older releases; then KVM has its parameter.
    if release.version >= SNP_SINCE or p.e.sev_snp.parameter is not None:
        return Found(Verdict.PASS, release.text)
    return Found(Verdict.FAIL, release.text, "no SEV-SNP guests before Linux 6.11")


def _snp_host(p: Patient) -> Found:
    """Whether Linux switched SNP on in the CPU (SYSCFG[24]), by what follows from it."""
    if p.found.snp_initialized:
        return Found(Verdict.PASS, "on")
    if iommu_fault(p.e) or p.e.flag("sev_snp") is False or p.e.said(LogLine.RMP_TOO_SMALL):
        return Found(Verdict.FAIL, "off")
    return Found(Verdict.SKIP, detail="cannot be told without the firmware or the kernel's log")


def _kvm_device(p: Patient) -> Found:
    rights = value_of(p.facts.kvm_rights)
    return from_flag(None if rights is None else rights.readable, why_not(p.facts.kvm_rights))


def _vm_types(p: Patient) -> Found:
    types = value_of(p.facts.kvm.vm_types)
    if types is None:
        return Found(Verdict.SKIP, detail=why_not(p.facts.kvm.vm_types))
    names = [name for kind, name in _KINDS if kind in types]
    differ = [
        technology.spelling
        for technology in Technology
        if p.e.witnesses[technology].parameter and p.e.witnesses[technology].vm_type is False
    ]
    if differ:
        return Found(Verdict.FAIL, ", ".join(names), f"not offered: {', '.join(differ)}")
    return Found(Verdict.PASS, ", ".join(names) or "none")


_KINDS: Final = (
    (VmTypes.DEFAULT, "default"),
    (VmTypes.SEV, "SEV"),
    (VmTypes.SEV_ES, "SEV-ES"),
    (VmTypes.SEV_SNP, "SEV-SNP"),
)
SYSTEM: Final[tuple[Check, ...]] = (
    Check(
        "bios.smee",
        "memory encryption is on",
        ALL,
        _smee,
        hint_of(Reason.SMEE_OFF),
        "cpu.sev",
        snphost="SME",
        sevctl="Secure Memory Encryption (SME)",
        source="/proc/cpuinfo sev, sme and address sizes against CPUID Fn8000_0008",
    ),
    Check(
        "bios.smm-lock",
        "SMM is locked",
        ALL,
        _smm_lock,
        hint_of(Reason.SMM_UNLOCKED),
        "cpu.sev",
        source="/proc/cpuinfo sev, where memory encryption is on",
    ),
    Check(
        "bios.svm",
        "virtualisation is on",
        ALL,
        lambda p: from_flag(p.e.flag("svm"), why_not(p.facts.cpuinfo)),
        hint_of(Reason.SVM_OFF),
        "cpu.bare-metal",
        source="/proc/cpuinfo svm",
    ),
    Check(
        "bios.rmp",
        "memory is reserved for the RMP table",
        ONLY_SNP,
        lambda p: from_flag(
            p.e.flag("sev_snp") if p.e.since((6, 9)) else None, "this kernel does not say"
        ),
        hint_of(Reason.RMP_NOT_RESERVED),
        "cpu.sev-snp",
        snphost="RMP table addresses",
        source="/proc/cpuinfo sev_snp (Linux 6.9)",
    ),
    Check(
        "bios.iommu-snp",
        "the IOMMU checks for SEV-SNP",
        ONLY_SNP,
        _iommu_snp,
        hint_of(Reason.IOMMU_SNP_OFF),
        "cpu.sev-snp",
        source="/sys/class/iommu/ivhd*/amd-iommu/features bit 63",
    ),
    Check(
        "kernel.release",
        "new enough for SEV-SNP",
        ONLY_SNP,
        _kernel,
        hint_of(Reason.KERNEL_TOO_OLD),
        "cpu.sev-snp",
        source="/proc/sys/kernel/osrelease",
    ),
    Check(
        "kernel.iommu",
        "the IOMMU translates",
        ONLY_SNP,
        _iommu,
        hint_of(Reason.IOMMU_OFF),
        "cpu.sev-snp",
        source="/sys/class/iommu; /sys/kernel/iommu_groups/*/type; /proc/cmdline",
    ),
    Check(
        "kernel.snp-host",
        "SEV-SNP is on in the CPU",
        ONLY_SNP,
        _snp_host,
        hint_of(Reason.SNP_NOT_INITIALISED),
        "cpu.sev-snp",
        snphost="SNP",
        sevctl="Secure Nested Paging (SEV-SNP)",
        source="SNP_PLATFORM_STATUS; kvm_amd.sev_snp; what SEV-SNP needs of IOMMU and RMP table",
    ),
    Check(
        "kvm.device",
        "/dev/kvm can be opened",
        NONE,
        _kvm_device,
        "modprobe kvm_amd",
        snphost="KVM supported",
        sevctl="KVM supported",
        source="access(2) of /dev/kvm",
    ),
    Check(
        "kvm.module",
        "kvm_amd is loaded",
        ALL,
        lambda p: from_flag(p.e.kvm_amd, why_not(p.facts.modules.kvm_amd)),
        hint_of(Reason.KVM_AMD_NOT_LOADED),
        "cpu.bare-metal",
        source="/sys/module",
    ),
    Check(
        "kvm.sev",
        "SEV is on in KVM",
        ALL,
        _parameter(SEV),
        hint_of(Reason.KVM_SEV_OFF),
        "kvm.module",
        snphost="SEV enabled in KVM",
        sevctl="SEV enabled in KVM",
        source="/sys/module/kvm_amd/parameters/sev",
    ),
    Check(
        "kvm.sev-es",
        "SEV-ES is on in KVM",
        ENCRYPTED_STATE,
        _parameter(ES),
        hint_of(Reason.KVM_ES_OFF),
        "kvm.module",
        snphost="SEV-ES enabled in KVM",
        sevctl="SEV-ES enabled in KVM",
        source="/sys/module/kvm_amd/parameters/sev_es",
    ),
    Check(
        "kvm.sev-snp",
        "SEV-SNP is on in KVM",
        ONLY_SNP,
        _parameter(SNP),
        hint_of(Reason.KVM_SNP_OFF),
        "kvm.module",
        snphost="SEV-SNP enabled in KVM",
        source="/sys/module/kvm_amd/parameters/sev_snp",
    ),
    Check(
        "kvm.vm-types",
        "KVM offers what its parameters say",
        ALL,
        _vm_types,
        hint_of(Reason.VM_TYPE_NOT_OFFERED),
        "kvm.module",
        source="KVM_CHECK_EXTENSION(KVM_CAP_VM_TYPES)",
    ),
)
