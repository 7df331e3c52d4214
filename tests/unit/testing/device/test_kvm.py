from __future__ import annotations

import errno
import struct

import pytest

from sevkit.testing.device import kvm
from sevkit.testing.device.ioctl import IoctlReply
from sevkit.testing.device.kvm import Extension, KvmDevice, SevAttribute, sev_kvm
from sevkit.testing.host.state import VmTypes

TYPES = VmTypes.DEFAULT | VmTypes.SEV | VmTypes.SEV_ES | VmTypes.SEV_SNP


class Memory:
    """One page of a caller's memory, at address 4096."""

    def __init__(self) -> None:
        self.page = bytearray(4096)

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.page[address - 4096 : address - 4096 + size])

    def write(self, address: int, data: bytes) -> None:
        if not 4096 <= address <= 8192 - len(data):
            raise OSError(errno.EFAULT, "bad address")
        self.page[address - 4096 : address - 4096 + len(data)] = data


def ask(device: KvmDevice, request: int, argument: bytes | int) -> IoctlReply:
    data = argument.to_bytes(8, "little") if isinstance(argument, int) else argument
    return device.ioctl(request, data, Memory(), writable=False)


def attribute(group: int, number: int, address: int = 4096) -> bytes:
    return struct.pack("<IIQQ", 0, group, number, address)


def test_the_api_is_12_and_takes_no_argument() -> None:
    assert ask(KvmDevice(), kvm.GET_API_VERSION, 0) == IoctlReply(12)
    assert ask(KvmDevice(), kvm.GET_API_VERSION, 1) == IoctlReply(-errno.EINVAL)


def test_extensions_that_are_not_named_are_absent() -> None:
    device = sev_kvm(TYPES)
    assert ask(device, kvm.CHECK_EXTENSION, 235) == IoctlReply(0b11101)
    assert ask(device, kvm.CHECK_EXTENSION, Extension.GUEST_MEMFD) == IoctlReply(1)
    assert ask(device, kvm.CHECK_EXTENSION, 9999) == IoctlReply(0)
    assert ask(sev_kvm(VmTypes.SEV), kvm.CHECK_EXTENSION, Extension.GUEST_MEMFD) == IoctlReply(0)


def test_an_attribute_is_written_to_the_caller() -> None:
    memory = Memory()
    device = sev_kvm(TYPES, vmsa_features=1 << 5, snp_policy_bits=0x30000, req_certs=True)
    argument = attribute(kvm.GROUP_SEV, SevAttribute.VMSA_FEATURES)
    assert device.ioctl(kvm.GET_DEVICE_ATTR, argument, memory, writable=False) == IoctlReply()
    assert memory.read(4096, 8) == (1 << 5).to_bytes(8, "little")
    assert ask(device, kvm.HAS_DEVICE_ATTR, argument) == IoctlReply()


def test_an_attribute_for_nowhere_is_a_bad_address() -> None:
    argument = attribute(kvm.GROUP_SEV, SevAttribute.SNP_POLICY_BITS, 8)
    with pytest.raises(OSError, match="bad address"):
        ask(sev_kvm(TYPES), kvm.GET_DEVICE_ATTR, argument)
    assert ask(sev_kvm(TYPES), kvm.HAS_DEVICE_ATTR, argument) == IoctlReply()


@pytest.mark.parametrize("request_number", [kvm.GET_DEVICE_ATTR, kvm.HAS_DEVICE_ATTR])
@pytest.mark.parametrize(
    ("types", "group", "number"),
    [(VmTypes.DEFAULT, 1, 0), (TYPES, 1, 3), (TYPES, 0, 0), (TYPES, 2, 0)],
)
def test_an_attribute_that_the_host_lacks_is_enxio(
    request_number: int, types: VmTypes, group: int, number: int
) -> None:
    with pytest.raises(OSError, match="No such device") as caught:
        ask(sev_kvm(types), request_number, attribute(group, number))
    assert caught.value.errno == errno.ENXIO


def test_guests_cannot_be_made_and_other_requests_are_unknown() -> None:
    assert ask(sev_kvm(TYPES), kvm.CREATE_VM, 0) == IoctlReply(-errno.ENOTTY)
    assert ask(sev_kvm(TYPES), 0xAE7F, 0) == IoctlReply(-errno.EINVAL)
    assert ask(sev_kvm(TYPES), 0xC0105300, bytes(16)) == IoctlReply(-errno.EINVAL)
