"""Why a technology is in its state: stable codes, a sentence for each, and what to do about it.

Codes are a promise: scripts and dashboards match them. A sentence may hold ``{name}``s, which the
rules fill with what was read; ``{tech}`` is always the technology's name. Hints name AMD's own
BIOS menus (CBS); makers rename them: Dell's "Minimum SEV non-ES ASID" is the ASID space limit, and
its "Secure Nested Paging" the RMP table's coverage.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Reason(StrEnum):
    """Every reason that there is."""

    USABLE = "usable"
    NOT_X86 = "not-x86"
    NOT_AMD = "not-amd"
    VIRTUAL_MACHINE = "virtual-machine"
    NO_SILICON = "no-silicon"
    SMEE_OFF = "smee-off"
    SMM_UNLOCKED = "smm-unlocked"
    MEMORY_ENCRYPTION_OFF = "memory-encryption-off"
    FLAG_MISSING = "flag-missing"
    SVM_OFF = "svm-off"
    KVM_AMD_NOT_LOADED = "kvm-amd-not-loaded"
    KERNEL_WITHOUT_SEV = "kernel-without-sev"
    KERNEL_TOO_OLD = "kernel-too-old"
    KVM_SEV_OFF = "kvm-sev-off"
    KVM_ES_OFF = "kvm-es-off"
    KVM_SNP_OFF = "kvm-snp-off"
    NPT_OFF = "npt-off"
    NRIPS_OFF = "nrips-off"
    LBRV_OFF = "lbrv-off"
    MMIO_CACHING_OFF = "mmio-caching-off"
    NO_SECURE_PROCESSOR = "no-secure-processor"
    NO_SEV_DEVICE = "no-sev-device"
    FIRMWARE_SILENT = "firmware-silent"
    FIRMWARE_INIT_FAILED = "firmware-init-failed"
    FIRMWARE_TOO_OLD = "firmware-too-old"
    HELD_BACK_BY_SNP = "held-back-by-snp"
    ES_NOT_CONFIGURED = "es-not-configured"
    RMP_NOT_RESERVED = "rmp-not-reserved"
    RMP_TOO_SMALL = "rmp-too-small"
    RMP_NOT_INITIALISED = "rmp-not-initialised"
    IOMMU_OFF = "iommu-off"
    IOMMU_PASSTHROUGH = "iommu-passthrough"
    IOMMU_V2_PAGE_TABLES = "iommu-v2-page-tables"
    IOMMU_SNP_OFF = "iommu-snp-off"
    SNP_INIT_FAILED = "snp-init-failed"
    SNP_NOT_INITIALISED = "snp-not-initialised"
    NO_SEV_ASIDS = "no-sev-asids"
    NO_ENCRYPTED_STATE_ASIDS = "no-encrypted-state-asids"
    ASIDS_HIDDEN = "asids-hidden"
    ASIDS_GIVEN_TO_ES = "asids-given-to-sev-es"
    ES_REFUSED_BESIDE_SNP = "es-refused-beside-snp"
    ES_OPEN_TO_CVE = "es-open-to-cve-2025-48514"
    ES_BESIDE_SNP = "es-beside-snp"
    VM_TYPE_NOT_OFFERED = "vm-type-not-offered"
    CPUINFO_UNREAD = "cpuinfo-unread"
    CPUID_UNREAD = "cpuid-unread"
    KVM_UNREAD = "kvm-unread"
    KERNEL_UNREAD = "kernel-unread"
    MODEL_NOT_KNOWN = "model-not-known"
    FIRMWARE_UNREAD = "firmware-unread"
    ASID_SPLIT_UNREAD = "asid-split-unread"
    ES_FIRMWARE_UNREAD = "es-firmware-unread"
    SNP_STATE_UNREAD = "snp-state-unread"


class Text(NamedTuple):
    """One sentence without its full stop, and a hint, empty where there is nothing to do.

    Only sentences hold names in braces.
    """

    sentence: str
    hint: str = ""


_CBS: Final = "BIOS: CBS > CPU Common Options"
_LIMIT: Final = f"{_CBS} > SEV-ES ASID Space Limit Control = Manual, SEV-ES ASID Space Limit"
_RMP: Final = f"{_CBS} > SNP Memory (RMP Table) Coverage = Enabled, for all memory"
_NBIO: Final = "BIOS: CBS > NBIO Common Options"
_RELOAD: Final = "in /etc/modprobe.d or on the kernel command line, and load kvm_amd anew"
_BIOS_UPDATE: Final = "update the BIOS, or the file amd_sev_*.sbin of the package linux-firmware"
_UPDATE: Final = (
    f"{_BIOS_UPDATE} (amd64-microcode on Debian), to SEV firmware 1.51 or newer, and reboot"
)

TEXTS: Final[Mapping[Reason, Text]] = MappingProxyType(
    {
        Reason.USABLE: Text("everything that was read says that {tech} guests can run"),
        Reason.NOT_X86: Text(
            "this is not an x86 processor", "SEV needs an AMD EPYC: choose another node"
        ),
        Reason.NOT_AMD: Text(
            "the processor is made by {vendor}, not by AMD",
            "SEV needs an AMD EPYC: choose another node",
        ),
        Reason.VIRTUAL_MACHINE: Text(
            "this node is itself a virtual machine, and there is no nested SEV",
            "use a bare-metal node",
        ),
        Reason.NO_SILICON: Text(
            "this processor ({product}) has no {tech}",
            "SEV needs EPYC 7001, SEV-ES 7002 and SEV-SNP 7003 or newer",
        ),
        Reason.SMEE_OFF: Text(
            "the BIOS left memory encryption off (SYSCFG[23] is 0)", f"{_CBS} > SMEE = Enabled"
        ),
        Reason.SMM_UNLOCKED: Text(
            "memory encryption is on, but the BIOS did not lock SMM (HWCR[0] is 0)",
            "BIOS: set SMM Lock to Enabled, or update the BIOS",
        ),
        Reason.MEMORY_ENCRYPTION_OFF: Text(
            "the processor has SEV, and Linux took the flag away: memory encryption is off in the "
            "BIOS, or SMM is not locked",
            f"{_CBS} > SMEE = Enabled, and SMM Lock = Enabled",
        ),
        Reason.FLAG_MISSING: Text(
            "/proc/cpuinfo does not show {flag}, so Linux will not use {tech}",
            f"{_CBS} > SMEE = Enabled and SEV Control = Enabled; or a newer kernel",
        ),
        Reason.SVM_OFF: Text(
            "virtualisation is off: /proc/cpuinfo does not show svm",
            f"{_CBS} > SVM Mode = Enabled",
        ),
        Reason.KVM_AMD_NOT_LOADED: Text(
            "the kernel module kvm_amd is not loaded",
            "modprobe kvm_amd, and take it off blacklists in /etc/modprobe.d",
        ),
        Reason.KERNEL_WITHOUT_SEV: Text(
            "kvm_amd of this kernel has no parameter sev",
            "use a kernel built with CONFIG_KVM_AMD_SEV and CONFIG_CRYPTO_DEV_SP_PSP",
        ),
        Reason.KERNEL_TOO_OLD: Text(
            "Linux {release} cannot run {tech} guests",
            "SEV-ES needs Linux 5.11, SEV-SNP needs Linux 6.11 or newer",
        ),
        Reason.KVM_SEV_OFF: Text(
            "SEV is off in KVM (kvm_amd.sev is N)",
            f"set kvm_amd.sev=1 {_RELOAD}; Linux before 5.13 needs it asked for. If it is asked "
            "for, `dmesg | grep -i sev` says why it failed",
        ),
        Reason.KVM_ES_OFF: Text(
            "SEV-ES is off in KVM (kvm_amd.sev_es is N)",
            f"set kvm_amd.sev_es=1 {_RELOAD}; Linux before 5.13 needs it asked for",
        ),
        Reason.KVM_SNP_OFF: Text(
            "SEV-SNP is off in KVM (kvm_amd.sev_snp is N)", f"set kvm_amd.sev_snp=1 {_RELOAD}"
        ),
        Reason.NPT_OFF: Text(
            "nested paging is off in KVM (kvm_amd.npt is N), and SEV needs it",
            f"take kvm_amd.npt=0 away {_RELOAD}",
        ),
        Reason.NRIPS_OFF: Text(
            "next-RIP saving is off in KVM (kvm_amd.nrips is 0), and SEV needs it",
            f"take kvm_amd.nrips=0 away {_RELOAD}",
        ),
        Reason.LBRV_OFF: Text(
            "LBR virtualisation is off in KVM (kvm_amd.lbrv is 0), and SEV-ES needs it",
            f"take kvm_amd.lbrv=0 away {_RELOAD}",
        ),
        Reason.MMIO_CACHING_OFF: Text(
            "MMIO caching is off in KVM (kvm.mmio_caching is N), and SEV-ES needs it",
            f"take kvm.mmio_caching=0 away {_RELOAD}",
        ),
        Reason.NO_SECURE_PROCESSOR: Text(
            "Linux drives no secure processor: the driver ccp has no device",
            "modprobe ccp; use a kernel built with CONFIG_CRYPTO_DEV_SP_PSP; and "
            "BIOS: enable the PSP",
        ),
        Reason.NO_SEV_DEVICE: Text(
            "the driver ccp made no /dev/sev",
            "`dmesg | grep ccp` says why; use a kernel built with CONFIG_CRYPTO_DEV_SP_PSP, and "
            f"{_BIOS_UPDATE}; only EPYC server processors have it",
        ),
        Reason.FIRMWARE_SILENT: Text(
            "the secure processor does not answer, and Linux has given it up until the next reboot",
            f"power the machine off and on; if it happens again, {_BIOS_UPDATE}",
        ),
        Reason.FIRMWARE_INIT_FAILED: Text(
            "the SEV firmware could not be initialised (INIT failed)",
            f"`dmesg | grep SEV` shows its error; power the machine off and on, or {_BIOS_UPDATE}",
        ),
        Reason.FIRMWARE_TOO_OLD: Text(
            "SEV firmware {firmware} is too old for SEV-SNP, which needs 1.51", _UPDATE
        ),
        Reason.HELD_BACK_BY_SNP: Text(
            "SEV-SNP is on in the CPU and could not be initialised, so {tech} cannot be either",
            f"{_UPDATE}; or switch SEV-SNP off: {_CBS} > SNP Memory (RMP Table) Coverage = "
            "Disabled",
        ),
        Reason.ES_NOT_CONFIGURED: Text(
            "the SEV firmware was initialised without SEV-ES",
            "`dmesg | grep TMR` tells whether its memory was missing; reboot to give it some",
        ),
        Reason.RMP_NOT_RESERVED: Text(
            "the BIOS reserved no memory for the RMP table, or Linux does not know this "
            "processor's",
            _RMP,
        ),
        Reason.RMP_TOO_SMALL: Text("the RMP table does not cover all memory", _RMP),
        Reason.RMP_NOT_INITIALISED: Text(
            "the RMP table is not initialised", f"{_RMP}; then reboot"
        ),
        Reason.IOMMU_OFF: Text(
            "there is no IOMMU in use, and SEV-SNP needs one",
            f"{_NBIO} > IOMMU = Enabled, and no iommu=off or amd_iommu=off on the kernel command "
            "line",
        ),
        Reason.IOMMU_PASSTHROUGH: Text(
            "the IOMMU is in passthrough mode, and SEV-SNP needs translation",
            "take iommu=pt or iommu.passthrough=1 from the kernel command line",
        ),
        Reason.IOMMU_V2_PAGE_TABLES: Text(
            "the IOMMU uses version 2 page tables, which SEV-SNP cannot",
            "take amd_iommu=pgtbl_v2 from the kernel command line",
        ),
        Reason.IOMMU_SNP_OFF: Text(
            "the IOMMU does not check for SEV-SNP", f"{_NBIO} > SEV-SNP Support = Enabled"
        ),
        Reason.SNP_INIT_FAILED: Text(
            "the firmware could not initialise SEV-SNP (SNP_INIT failed)",
            f"`dmesg | grep SNP` shows its error; {_UPDATE}",
        ),
        Reason.SNP_NOT_INITIALISED: Text(
            "SEV-SNP is not initialised",
            f"{_RMP}; {_NBIO} > IOMMU and SEV-SNP Support = Enabled; SEV firmware 1.51 or newer; "
            "kvm_amd.sev_snp=1; `dmesg | grep SNP` says which",
        ),
        Reason.NO_SEV_ASIDS: Text(
            "no ASID is left for SEV: all are for SEV-ES and SEV-SNP", f"{_LIMIT} lower"
        ),
        Reason.NO_ENCRYPTED_STATE_ASIDS: Text(
            "no ASID is set aside for SEV-ES and SEV-SNP", f"{_LIMIT} = guests to run, plus 1"
        ),
        Reason.ASIDS_HIDDEN: Text(
            "ciphertext hiding sets every ASID aside for SEV-SNP",
            f"set kvm_amd.ciphertext_hiding_asids lower {_RELOAD}",
        ),
        Reason.ASIDS_GIVEN_TO_ES: Text(
            "every ASID was given to SEV-ES", "allow SEV-ES fewer ASIDs beside SEV-SNP"
        ),
        Reason.ES_REFUSED_BESIDE_SNP: Text(
            "SEV-SNP is initialised, and firmware with SNP SVN {svn} refuses SEV-ES guests beside "
            "it",
            "run the guest with SEV-SNP; or set kvm_amd.sev_snp=0 and keep SEV-SNP off in the BIOS",
        ),
        Reason.ES_OPEN_TO_CVE: Text(
            "SEV-SNP is initialised, and firmware with SNP SVN {svn} runs SEV-ES guests beside it "
            "open to CVE-2025-48514",
            "run the guest with SEV-SNP; who accepts the risk allows SEV-ES beside SEV-SNP",
        ),
        Reason.ES_BESIDE_SNP: Text(
            "SEV-SNP is initialised: firmware refuses SEV-ES guests beside it, or runs them open "
            "to CVE-2025-48514",
            "run the guest with SEV-SNP; the firmware reader would tell which of the two",
        ),
        Reason.VM_TYPE_NOT_OFFERED: Text(
            "KVM does not offer {tech} guests, whatever its parameter says",
            "`dmesg | grep kvm_amd` says why: no ASIDs, or firmware that refuses them",
        ),
        Reason.CPUINFO_UNREAD: Text(
            "/proc/cpuinfo could not be read", "give this program the host's /proc"
        ),
        Reason.CPUID_UNREAD: Text(
            "CPUID could not be asked",
            "allow memory that is executable (SELinux execmem), or /dev/cpu/0/cpuid; a copy of a "
            "host needs its cpuid.json",
        ),
        Reason.KVM_UNREAD: Text(
            "what KVM decided could not be read (/sys/module/kvm_amd/parameters/{flag})",
            "give this program the host's /sys",
        ),
        Reason.KERNEL_UNREAD: Text(
            "KVM names no kind of SEV guest, and its kernel's release could not be read",
            "give this program the host's /proc",
        ),
        Reason.MODEL_NOT_KNOWN: Text(
            "this model is no EPYC that we know, and its firmware was not asked",
            "let the firmware reader ask /dev/sev, or update sevkit",
        ),
        Reason.FIRMWARE_UNREAD: Text(
            "this kernel's parameters say nothing about the firmware, and whether it was "
            "initialised could not be read",
            "let the firmware reader ask /dev/sev, or use Linux 6.16 or newer",
        ),
        Reason.ASID_SPLIT_UNREAD: Text(
            "how ciphertext hiding splits the ASIDs could not be read",
            "give this program the host's /sys",
        ),
        Reason.ES_FIRMWARE_UNREAD: Text(
            "whether the firmware refuses SEV-ES guests beside SEV-SNP could not be read",
            "let the firmware reader ask /dev/sev",
        ),
        Reason.SNP_STATE_UNREAD: Text(
            "whether SEV-SNP is initialised could not be read",
            "give this program the host's /sys, or let the firmware reader ask /dev/sev",
        ),
    }
)
