"""The contract of /dev/sev: what a node probe may rely on, on hardware and on a simulated device.

    class TestOurs(SevDeviceContract):
        @pytest.fixture
        def sev_path(self) -> Path: ...

Collect it with pytest. It opens the device for reading only and issues commands 1, 8 and 9, which
change nothing, and one that has to be refused for want of a writable file: it may be run on a
machine in use. Source: Linux ``include/uapi/linux/psp-sev.h``, ``drivers/crypto/ccp/sev-dev.c``.
"""
# ruff: noqa: D102, S101  # tests: their names say the behaviour, and assert is pytest's language

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from sevkit.abi.firmware_status import FirmwareStatus
from sevkit.abi.platform_status import parse_platform_status, parse_snp_platform_status
from sevkit.testing.driver import SEV_ISSUE_CMD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ISSUE: Final = struct.Struct("<IQI")
_BUFFER: Final = struct.Struct("<QI")
_UNTOUCHED: Final = 0xA5
_CHIP_SIZES: Final = (64, 128)


class Answer(NamedTuple):
    """What an ioctl gave: errno (0 for success), the firmware's status, and the caller's memory."""

    errno: int
    status: int
    memory: bytes


class SevDeviceContract:
    """Hold a device file against what Linux promises of /dev/sev."""

    @pytest.fixture
    def sev_path(self) -> Path:
        raise NotImplementedError

    @pytest.fixture
    def device(self, sev_path: Path) -> Iterator[int]:
        descriptor = os.open(sev_path, os.O_RDONLY | os.O_CLOEXEC)
        yield descriptor
        os.close(descriptor)

    def test_the_platform_says_its_version_state_and_guests(self, device: int) -> None:
        answer = ask(device, 1, b"")
        assert answer.errno == 0
        status = parse_platform_status(answer.memory[:12])
        assert (status.api_major, status.api_minor) > (0, 0)

    def test_it_says_the_same_twice(self, device: int) -> None:
        assert ask(device, 1, b"").memory[:7] == ask(device, 1, b"").memory[:7]

    def test_an_id_is_given_after_its_length_was_asked(self, device: int) -> None:
        query = ask(device, 8, _BUFFER.pack(0, 0))
        assert (query.errno, query.status) == (errno.EIO, FirmwareStatus.INVALID_LEN)
        length = _BUFFER.unpack(query.memory[: _BUFFER.size])[1]
        assert length in _CHIP_SIZES
        room = ctypes.create_string_buffer(length)
        given = ask(device, 8, _BUFFER.pack(ctypes.addressof(room), length))
        assert given.errno == 0
        assert _BUFFER.unpack(given.memory[: _BUFFER.size])[1] in _CHIP_SIZES
        assert any(room.raw)

    def test_the_snp_status_is_well_formed_or_refused_with_a_reason(self, device: int) -> None:
        answer = ask(device, 9, b"")
        if answer.errno:
            assert answer.errno in {errno.EINVAL, errno.ENODEV, errno.EIO}
            return
        status = parse_snp_platform_status(answer.memory[:32])
        assert (status.api_major, status.api_minor) >= (1, 51) or not status.state

    @pytest.mark.parametrize("command", [13, 14, 0x7FFF_FFFF])
    def test_a_command_that_is_none_is_refused(self, device: int, command: int) -> None:
        answer = ask(device, command, b"")
        assert answer.errno == errno.EINVAL
        assert answer.memory == bytes([_UNTOUCHED]) * len(answer.memory)

    def test_another_ioctl_is_refused(self, device: int) -> None:
        with pytest.raises(OSError, match="argument"):
            fcntl.ioctl(device, SEV_ISSUE_CMD + 1, bytearray(_ISSUE.size))

    @pytest.mark.parametrize("command", [0, 2, 4], ids=["FACTORY_RESET", "PEK_GEN", "PDH_GEN"])
    def test_what_changes_the_platform_needs_a_file_that_is_open_for_writing(
        self, device: int, command: int
    ) -> None:
        assert ask(device, command, b"").errno == errno.EPERM

    def test_an_address_that_is_not_the_callers_is_a_fault(self, device: int) -> None:
        argument = bytearray(_ISSUE.pack(8, 16, 0))
        with pytest.raises(OSError, match="address"):
            fcntl.ioctl(device, SEV_ISSUE_CMD, argument)


def ask(device: int, command: int, request: bytes) -> Answer:
    """Issue one command with 64 bytes of memory that begin with ``request``."""
    memory = ctypes.create_string_buffer(request.ljust(64, bytes([_UNTOUCHED])), 64)
    argument = bytearray(_ISSUE.pack(command, ctypes.addressof(memory), 0))
    number = 0
    try:
        fcntl.ioctl(device, SEV_ISSUE_CMD, argument)
    except OSError as error:
        number = error.errno or errno.EIO
    return Answer(number, _ISSUE.unpack(argument)[2], memory.raw)
