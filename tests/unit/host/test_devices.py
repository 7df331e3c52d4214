from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.abi.firmware_status import FirmwareStatus
from sevkit.abi.product import Product
from sevkit.host.devices import (
    SEV_ISSUE_CMD,
    StatusCommand,
    SystemDevices,
    _issue_at,
    ask_chip_ids,
    ask_firmware,
    ask_kvm_attribute,
    ask_kvm_extension,
)
from sevkit.host.kvm import VmTypes, probe_kvm
from sevkit.host.reading import Cause, Known, Unreadable
from sevkit.host.source import KvmAttribute, KvmExtension
from sevkit.host.sources import HostFiles, NativeHost
from sevkit.testing.device.kvm import sev_kvm
from sevkit.testing.device.linux import ProcessMemory
from sevkit.testing.driver import SevDevice
from sevkit.testing.host.state import VmTypes as SimulatedTypes
from sevkit.testing.secure_processor.identity import ChipIdentity
from sevkit.testing.secure_processor.processor import SecureProcessor

if TYPE_CHECKING:
    from pathlib import Path

    from sevkit.testing.device.ioctl import IoctlFile
    from sevkit.testing.sev_chain import SimulatedRoots

EVERY: Final = SimulatedTypes.DEFAULT | SimulatedTypes.SEV | SimulatedTypes.SEV_ES


class Simulated:
    """Ioctls to simulated devices, which find the pointers in them in this very process."""

    def __init__(self, **files: IoctlFile) -> None:
        self.files: Final = files
        self.memory: Final = ProcessMemory(os.getpid())
        self.asked: Final[list[tuple[str, int, bytes]]] = []

    def ioctl(self, device: str, request: int, argument: bytearray | int) -> int:
        file = self.files.get(device)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, "no device")
        data = argument.to_bytes(8, "little") if isinstance(argument, int) else bytes(argument)
        self.asked.append((device, request, data))
        reply = file.ioctl(request, data, self.memory, writable=False)
        if isinstance(argument, bytearray) and reply.data:
            argument[:] = reply.data
        if reply.result < 0:
            raise OSError(-reply.result, os.strerror(-reply.result))
        return reply.result


@pytest.fixture
def processor(sev_roots: SimulatedRoots) -> SecureProcessor:
    """A Rome: it needs no SNP roots."""
    return SecureProcessor(ChipIdentity(Product.ROME, sev_roots, None))


def test_the_status_commands_and_no_other_are_issued(processor: SecureProcessor) -> None:
    processor.sev.init(es=True)
    devices = Simulated(sev=SevDevice(processor))
    found = ask_firmware(devices)
    assert isinstance(found, Known)
    assert found.value.version[:2] == processor.core.firmware.version[:2]
    assert found.value.es_configured
    assert found.value.snp is None
    chips = ask_chip_ids(devices)
    assert chips == Known(processor.sev.get_id()[: len(chips.value)])  # type: ignore[union-attr]
    commands = {struct.unpack("<IQI", data)[0] for _, _, data in devices.asked}
    assert commands == {1, 8, 9}
    assert {request for _, request, _ in devices.asked} == {SEV_ISSUE_CMD}


@pytest.mark.parametrize("number", [0, 2, 3, 4, 5, 6, 7, 10, 11, 12, 99])
def test_a_command_that_changes_anything_cannot_be_issued(
    number: int, processor: SecureProcessor
) -> None:
    devices = Simulated(sev=SevDevice(processor))
    with pytest.raises(ValueError, match="not a valid StatusCommand"):
        _issue_at(devices, number, 0)  # type: ignore[arg-type]  # what types forbid
    assert not devices.asked
    assert {one.value for one in StatusCommand} == {1, 8, 9}


def test_firmware_that_refuses_is_named(processor: SecureProcessor) -> None:
    processor.faults.fail("PLATFORM_STATUS", FirmwareStatus.HWERROR_PLATFORM)
    found = ask_firmware(Simulated(sev=SevDevice(processor)))
    assert isinstance(found, Unreadable)
    assert found.cause is Cause.FAILED
    assert "PLATFORM_STATUS returned 0x13 HWERROR_PLATFORM" in found.detail


@pytest.mark.parametrize("number", [errno.EBUSY, errno.ETIMEDOUT, errno.ENODEV])
def test_a_driver_that_has_given_up_is_silence(number: int) -> None:
    class Dead:
        def ioctl(self, *_: object) -> int:
            raise OSError(number, os.strerror(number))

    for found in (ask_firmware(Dead()), ask_chip_ids(Dead())):
        assert isinstance(found, Unreadable)
        assert found.cause is Cause.SILENT


def test_a_device_that_is_not_ours_is_no_silence(tmp_path: Path) -> None:
    missing = ask_firmware(SystemDevices(str(tmp_path)))
    assert isinstance(missing, Unreadable)
    assert missing.cause is Cause.ABSENT
    (tmp_path / "sev").write_bytes(b"")
    (tmp_path / "kvm").write_bytes(b"")
    plain = ask_firmware(SystemDevices(str(tmp_path)))
    assert isinstance(plain, Unreadable)
    assert plain.cause is Cause.FAILED  # a file that takes no ioctl
    kvm = ask_kvm_extension(SystemDevices(str(tmp_path)), KvmExtension.VM_TYPES)
    assert isinstance(kvm, Unreadable)


def test_kvm_is_asked_for_what_it_offers(tmp_path: Path) -> None:
    types = EVERY | SimulatedTypes.SEV_SNP
    devices = Simulated(kvm=sev_kvm(types, vmsa_features=0x220, snp_policy_bits=0x1F0000))
    host = NativeHost(HostFiles(str(tmp_path)), devices=devices)
    found = probe_kvm(host)
    assert found.vm_types == Known(VmTypes(int(types)))
    assert found.guest_memfd == Known(value=True)
    assert (found.vmsa_features, found.snp_policy_bits) == (Known(0x220), Known(0x1F0000))
    assert found.snp_requests_certificates == Known(value=False)


def test_kvm_without_sev_has_no_attributes_and_an_old_one_no_types() -> None:
    plain = Simulated(kvm=sev_kvm(SimulatedTypes.DEFAULT))
    attribute = ask_kvm_attribute(plain, KvmAttribute.VMSA_FEATURES)
    assert isinstance(attribute, Unreadable)
    assert attribute.cause is Cause.ABSENT
    old = NativeHost(HostFiles("/nowhere"), devices=Simulated(kvm=sev_kvm(SimulatedTypes(0))))
    types = probe_kvm(old).vm_types
    assert isinstance(types, Unreadable)
    assert types.cause is Cause.ABSENT
