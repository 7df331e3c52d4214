"""What KVM offers, by its own word: kinds of guests, and what an SEV-ES or SNP guest may have.

Source: Linux, Documentation/virt/kvm/api.rst (KVM_CAP_VM_TYPES), arch/x86/include/uapi/asm/kvm.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import Final, final

from sevkit.host.reading import Known, Reading, absent
from sevkit.host.source import HostSource, KvmAttribute, KvmExtension


class VmTypes(IntFlag):
    """KVM_CAP_VM_TYPES: bit N is kind N; bits that are not listed are kept."""

    DEFAULT = 1 << 0
    SW_PROTECTED = 1 << 1
    SEV = 1 << 2
    SEV_ES = 1 << 3
    SEV_SNP = 1 << 4
    TDX = 1 << 5


SEV_TYPES: Final = VmTypes.SEV | VmTypes.SEV_ES | VmTypes.SEV_SNP
#: Bit of the VMSA features: guests may have a secure TSC.
SECURE_TSC: Final = 1 << 9


@final
@dataclass(frozen=True, slots=True)
class KvmFacts:
    """The answers of /dev/kvm. Kernels before 6.8 do not know ``vm_types`` at all."""

    vm_types: Reading[VmTypes]
    guest_memfd: Reading[bool]
    vmsa_features: Reading[int]
    snp_policy_bits: Reading[int]
    snp_requests_certificates: Reading[bool]


def probe_kvm(source: HostSource) -> KvmFacts:
    """Ask KVM."""
    memfd = source.kvm_extension(KvmExtension.GUEST_MEMFD)
    certificates = source.kvm_attribute(KvmAttribute.SNP_REQ_CERTS)
    return KvmFacts(
        vm_types=_vm_types(source),
        guest_memfd=Known(bool(memfd.value)) if isinstance(memfd, Known) else memfd,
        vmsa_features=source.kvm_attribute(KvmAttribute.VMSA_FEATURES),
        snp_policy_bits=source.kvm_attribute(KvmAttribute.SNP_POLICY_BITS),
        snp_requests_certificates=Known(bool(certificates.value))
        if isinstance(certificates, Known)
        else certificates,
    )


def _vm_types(source: HostSource) -> Reading[VmTypes]:
    found = source.kvm_extension(KvmExtension.VM_TYPES)
    if not isinstance(found, Known):
        return found
    # A kernel that knows the question never answers 0: a plain guest can always be made.
    return Known(VmTypes(found.value)) if found.value else absent("/dev/kvm: VM_TYPES")
