"""A simulated /dev/kvm: the questions about SEV that programs ask before they make a guest.

It answers as Linux' system descriptor does: EINVAL for a request that it does not know, ENXIO for
an attribute that the host does not have. It cannot make a guest: KVM_CREATE_VM is ENOTTY, because
a guest needs descriptors of its own.
Source: Linux Documentation/virt/kvm/api.rst and include/uapi/linux/kvm.h.
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Final, final

from sevkit.testing.device.ioctl import IoctlReply
from sevkit.testing.host.state import VmTypes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sevkit.testing.device.ioctl import CallerMemory

GET_API_VERSION: Final = 0xAE00
CREATE_VM: Final = 0xAE01
CHECK_EXTENSION: Final = 0xAE03
GET_DEVICE_ATTR: Final = 0x4018_AEE2
HAS_DEVICE_ATTR: Final = 0x4018_AEE3

#: The API's version since Linux 2.6.22, for good.
API_VERSION: Final = 12

_DEVICE_ATTR: Final = struct.Struct("<IIQQ")


class Extension(IntEnum):
    """The capabilities that matter to SEV."""

    VM_COPY_ENC_CONTEXT_FROM = 197
    EXIT_HYPERCALL = 201
    SYS_ATTRIBUTES = 209
    GUEST_MEMFD = 234
    VM_TYPES = 235


class SevAttribute(IntEnum):
    """Attributes of group 1, KVM_X86_GRP_SEV; each value is a u64."""

    VMSA_FEATURES = 0
    SNP_POLICY_BITS = 1
    SNP_REQ_CERTS = 2


GROUP_SEV: Final = 1


@final
@dataclass(frozen=True, slots=True)
class KvmDevice:
    """The /dev/kvm of a simulated host: what it can do, by number.

    ``extensions`` holds the values of KVM_CHECK_EXTENSION; every other one is 0, absent.
    ``attributes`` holds the values of KVM_GET_DEVICE_ATTR by group and attribute.
    """

    extensions: Mapping[int, int] = field(default_factory=dict)
    attributes: Mapping[tuple[int, int], int] = field(default_factory=dict)

    def ioctl(
        self,
        request: int,
        argument: bytes,
        memory: CallerMemory,
        *,
        writable: bool,  # noqa: ARG002  # KVM asks for no access mode
    ) -> IoctlReply:
        """Answer one request; see ``IoctlFile``."""
        return _ANSWERS.get(request, _unknown)(self, argument, memory)


def sev_kvm(
    types: VmTypes, *, vmsa_features: int = 0, snp_policy_bits: int = 0, req_certs: bool = False
) -> KvmDevice:
    """Return the /dev/kvm of a recent Linux whose guests are of ``types``.

    Without any SEV type the attributes of SEV do not exist, as with Linux.
    """
    extensions = {
        Extension.VM_TYPES: int(types),
        Extension.GUEST_MEMFD: int(bool(types & VmTypes.SEV_SNP)),
        Extension.SYS_ATTRIBUTES: 1,
        Extension.VM_COPY_ENC_CONTEXT_FROM: 1,
    }
    attributes = {
        SevAttribute.VMSA_FEATURES: vmsa_features,
        SevAttribute.SNP_POLICY_BITS: snp_policy_bits,
        SevAttribute.SNP_REQ_CERTS: int(req_certs),
    }
    sev = bool(types & (VmTypes.SEV | VmTypes.SEV_ES | VmTypes.SEV_SNP))
    return KvmDevice(
        {int(extension): value for extension, value in extensions.items()},
        {(GROUP_SEV, int(name)): value for name, value in attributes.items()} if sev else {},
    )


def _api_version(_kvm: KvmDevice, argument: bytes, _memory: CallerMemory) -> IoctlReply:
    return IoctlReply(-errno.EINVAL if any(argument) else API_VERSION)


def _extension(kvm: KvmDevice, argument: bytes, _memory: CallerMemory) -> IoctlReply:
    return IoctlReply(kvm.extensions.get(int.from_bytes(argument, "little"), 0))


def _get_attribute(kvm: KvmDevice, argument: bytes, memory: CallerMemory) -> IoctlReply:
    address, value = _attribute(kvm, argument)
    memory.write(address, value.to_bytes(8, "little"))
    return IoctlReply()


def _has_attribute(kvm: KvmDevice, argument: bytes, _memory: CallerMemory) -> IoctlReply:
    _attribute(kvm, argument)
    return IoctlReply()


def _attribute(kvm: KvmDevice, argument: bytes) -> tuple[int, int]:
    _flags, group, attribute, address = _DEVICE_ATTR.unpack(argument)
    value = kvm.attributes.get((group, attribute))
    if value is None:
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
    return address, value


def _no_guests(_kvm: KvmDevice, _argument: bytes, _memory: CallerMemory) -> IoctlReply:
    return IoctlReply(-errno.ENOTTY)


def _unknown(_kvm: KvmDevice, _argument: bytes, _memory: CallerMemory) -> IoctlReply:
    return IoctlReply(-errno.EINVAL)


_ANSWERS: Final[Mapping[int, Callable[[KvmDevice, bytes, CallerMemory], IoctlReply]]] = {
    GET_API_VERSION: _api_version,
    CREATE_VM: _no_guests,
    CHECK_EXTENSION: _extension,
    GET_DEVICE_ATTR: _get_attribute,
    HAS_DEVICE_ATTR: _has_attribute,
}
