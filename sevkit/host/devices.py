"""/dev/kvm and /dev/sev, asked and never told: questions only, through descriptors for reading.

A descriptor for reading is not enough to be safe: SNP_COMMIT, which nothing can undo, needs no
other. So the commands that exist here are the three that report a status, and nothing else can be
issued. Sources: Linux, include/uapi/linux/{kvm,psp-sev}.h.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from enum import IntEnum
from typing import TYPE_CHECKING, Final, Protocol, final

from sevkit.abi.firmware_status import NO_FW_CALL, FirmwareStatus
from sevkit.abi.platform_status import (
    PLATFORM_STATUS,
    SNP_PLATFORM_STATUS,
    parse_platform_status,
    parse_snp_platform_status,
)
from sevkit.errors import FormatError
from sevkit.host.firmware import FirmwareFacts, firmware_facts
from sevkit.host.reading import Cause, Known, Reading, Unreadable, absent, not_readable

if TYPE_CHECKING:
    from sevkit.host.source import KvmAttribute, KvmExtension

KVM_CHECK_EXTENSION: Final = 0xAE03
KVM_GET_DEVICE_ATTR: Final = 0x4018_AEE2
#: _IOWR('S', 0, struct sev_issue_cmd).
SEV_ISSUE_CMD: Final = 0xC010_5300
_GROUP_SEV: Final = 1
_ATTRIBUTE: Final = struct.Struct("<IIQQ")
_ISSUE: Final = struct.Struct("<IQI")
_BUFFER: Final = struct.Struct("<QI")
#: GET_ID answers 64 bytes for each of at most two sockets (55766 5.12).
_CHIP_IDS: Final = 128
#: Linux' answers for a secure processor that it has given up on.
_SILENT: Final = frozenset({errno.EBUSY, errno.ETIMEDOUT, errno.ENODEV})


class StatusCommand(IntEnum):
    """The commands of SEV_ISSUE_CMD that change nothing."""

    PLATFORM_STATUS = 1
    GET_ID2 = 8
    SNP_PLATFORM_STATUS = 9


class Devices(Protocol):
    """Where ioctls go."""

    def ioctl(self, device: str, request: int, argument: bytearray | int) -> int:
        """Issue one request to /dev/``device``; a buffer is changed in place.

        Raises ``OSError``.
        """
        ...


@final
class SystemDevices:
    """Devices of this machine. Every request opens and closes its device: probes are rare."""

    def __init__(self, folder: str = "/dev") -> None:
        self._folder: Final = folder

    def ioctl(self, device: str, request: int, argument: bytearray | int) -> int:
        """Issue one request through a descriptor for reading; see ``Devices``."""
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        descriptor = os.open(f"{self._folder}/{device}", flags)
        try:
            return fcntl.ioctl(descriptor, request, argument)
        finally:
            os.close(descriptor)


def ask_kvm_extension(devices: Devices, number: KvmExtension) -> Reading[int]:
    """Return what KVM_CHECK_EXTENSION says; 0 is "no", also of a kernel that does not know it."""
    try:
        return Known(devices.ioctl("kvm", KVM_CHECK_EXTENSION, int(number)))
    except OSError as error:
        return not_readable("/dev/kvm", error)


def ask_kvm_attribute(devices: Devices, number: KvmAttribute) -> Reading[int]:
    """Return an attribute of SEV; without SEV there is none."""
    room = ctypes.c_uint64()
    argument = bytearray(_ATTRIBUTE.pack(0, _GROUP_SEV, int(number), ctypes.addressof(room)))
    try:
        devices.ioctl("kvm", KVM_GET_DEVICE_ATTR, argument)
    except OSError as error:
        if error.errno in {errno.ENXIO, errno.EINVAL, errno.ENOTTY}:
            return absent(f"/dev/kvm: attribute {number.name}")
        return not_readable("/dev/kvm", error)
    return Known(room.value)


def ask_firmware(devices: Devices) -> Reading[FirmwareFacts]:
    """Return what PLATFORM_STATUS and, where it can be asked, SNP_PLATFORM_STATUS say."""
    try:
        status = _issue(devices, StatusCommand.PLATFORM_STATUS, PLATFORM_STATUS.size)
        sev = parse_platform_status(status)
    except OSError as error:
        return _no_answer(error)
    except FormatError as error:
        return Unreadable(Cause.MALFORMED, error.message)
    try:
        answer = _issue(devices, StatusCommand.SNP_PLATFORM_STATUS, SNP_PLATFORM_STATUS.size)
        snp = parse_snp_platform_status(answer)
    except (OSError, FormatError):
        snp = None  # up to 6.15 it cannot be asked unless SNP is initialised
    return Known(firmware_facts(sev, snp))


def ask_chip_ids(devices: Devices) -> Reading[bytes]:
    """Return the IDs of the chips, 64 bytes for each socket."""
    room = ctypes.create_string_buffer(_CHIP_IDS)
    request = ctypes.create_string_buffer(_BUFFER.pack(ctypes.addressof(room), _CHIP_IDS))
    try:
        _issue_at(devices, StatusCommand.GET_ID2, ctypes.addressof(request))
    except OSError as error:
        return _no_answer(error)
    length = _BUFFER.unpack_from(request.raw)[1]
    if not 0 < length <= _CHIP_IDS:
        return Unreadable(Cause.MALFORMED, f"/dev/sev: {length} bytes are not chip IDs")
    return Known(room.raw[:length])


def _issue(devices: Devices, command: StatusCommand, size: int) -> bytes:
    room = ctypes.create_string_buffer(size)
    _issue_at(devices, command, ctypes.addressof(room))
    return room.raw


def _issue_at(devices: Devices, command: StatusCommand, address: int) -> None:
    """Issue one status command; raises ``OSError``, with the firmware's status in its text."""
    number = int(StatusCommand(command))  # whatever the caller's types say
    argument = bytearray(_ISSUE.pack(number, address, NO_FW_CALL))
    try:
        devices.ioctl("sev", SEV_ISSUE_CMD, argument)
    except OSError as error:
        status = _ISSUE.unpack(argument)[2]
        if error.errno == errno.EIO and status not in {0, NO_FW_CALL}:
            raise OSError(errno.EIO, f"{command.name} returned {_name(status)}") from error
        raise


def _name(status: int) -> str:
    known = status in FirmwareStatus.__members__.values()
    return f"{status:#04x} {FirmwareStatus(status).name}" if known else f"{status:#04x}"


def _no_answer(error: OSError) -> Unreadable:
    if error.errno in _SILENT:
        return Unreadable(Cause.SILENT, f"/dev/sev: {os.strerror(error.errno or 0)}")
    if error.errno == errno.EIO:
        return Unreadable(Cause.FAILED, f"/dev/sev: {error.strerror}")
    return not_readable("/dev/sev", error)
