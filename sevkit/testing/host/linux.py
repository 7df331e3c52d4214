"""The first Linux versions that have what a node probe can see, as (major, minor).

Distributions backport; a kernel that shows more than its number says is a spec with a newer
release. Where the version is not certain, the comment says so.
"""

from __future__ import annotations

from typing import Final

#: ``sme`` disappears from /proc/cpuinfo unless the host's own memory is encrypted.
SME_FLAG_IS_USE: Final = (5, 18)
#: The misc cgroup controller.
MISC_CGROUP: Final = (5, 13)
#: ``misc.current`` in the root cgroup too.
MISC_CURRENT_ON_ROOT: Final = (6, 5)
#: ``misc.peak``.
MISC_PEAK: Final = (6, 11)
#: ``kvm_amd.sev`` and ``sev_es`` are booleans, so Y or N; before, numbers.
BOOLEAN_PARAMETERS: Final = (5, 13)
#: SEV on unless it was asked off; before, only with ``kvm_amd.sev=1``.
SEV_BY_DEFAULT: Final = (5, 13)
#: SEV-ES needs MMIO caching, which is a parameter of ``kvm``.
ES_NEEDS_MMIO_CACHING: Final = (6, 0)
#: SEV-ES needs LBR virtualisation.
ES_NEEDS_LBRV: Final = (6, 10)
#: ``kvm_amd:`` before the lines of KVM.
KVM_PREFIX: Final = (6, 3)
#: KVM prints ranges of ASIDs, not how many.
KVM_PRINTS_RANGES: Final = (6, 6)
#: KVM says "unusable" of SEV that is on and has no ASID.
KVM_SAYS_UNUSABLE: Final = (6, 9)
#: The host side of SEV-SNP: RMP table, IOMMU check, the flag ``sev_snp``.
SNP_HOST: Final = (6, 9)
#: KVM_CAP_VM_TYPES answers at all.
VM_TYPES: Final = (6, 8)
#: It knows SEV and SEV-ES guests.
VM_TYPES_SEV: Final = (6, 10)
#: SEV-SNP guests, and ``kvm_amd.sev_snp``.
SNP_GUESTS: Final = (6, 11)
#: Version 2 page tables switch SNP off; before, SNP switched them off.
SNP_REFUSES_V2_PAGE_TABLES: Final = (6, 13)
#: KVM, not the ccp driver, initialises the firmware, and an uninitialised SNP stops SEV's INIT.
KVM_INITIALISES_PSP: Final = (6, 15)
#: KVM's parameters say N after a failed initialisation; before, they say what was possible.
KVM_CHECKS_PSP: Final = (6, 16)
#: SNP_PLATFORM_STATUS may be asked before SNP is initialised (6.16 or 6.17).
SNP_STATUS_ALWAYS: Final = (6, 17)
#: ``kvm_amd.ciphertext_hiding_asids``.
CIPHERTEXT_HIDING: Final = (6, 18)
#: ``kvm_amd.debug_swap`` was there.
DEBUG_SWAP_PARAMETER: Final = ((6, 5), (7, 1))
#: VM types without ASIDs, or refused by the firmware, are not advertised (applied after 7.1).
VM_TYPES_REVOKED: Final = (7, 2)
#: The secure processor's security attributes in sysfs.
PSP_SECURITY_ATTRIBUTES: Final = (5, 19)
#: ``bootloader_version`` and ``tee_version`` beside them.
PSP_VERSION_ATTRIBUTES: Final = (6, 4)
#: ``boot_integrity``.
PSP_BOOT_INTEGRITY: Final = (7, 0)
#: Firmware that Linux will initialise SNP on, as API version.
SNP_MIN_API: Final = (1, 51)
