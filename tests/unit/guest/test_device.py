"""/dev/sev-guest, whose driver is simulated; where Linux never answers so, the ioctl is played."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.abi.certtable import VCEK, encode_cert_table
from sevkit.abi.firmware_status import CommandError, FirmwareStatus
from sevkit.attest.container import find_report
from sevkit.errors import FirmwareError, FormatError, UndecidedError
from sevkit.guest.device import (
    SNP_GET_EXT_REPORT,
    SNP_GET_REPORT,
    DeviceFile,
    fetch_from_device,
    open_device,
)
from sevkit.guest.door import DoorClosed
from sevkit.host.reading import Cause
from sevkit.testing.device.linux import ProcessMemory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sevkit.guest.device import Ioctl
    from sevkit.guest.patience import Patience
    from sevkit.guest.report import ReportRequest
    from sevkit.testing.snp_guest_driver import GuestDriver
    from sevkit.testing.virtual_machine import SimulatedKvm

REQUEST: Final = struct.Struct("<B7xQQQ")
EXTENDED: Final = struct.Struct("<96sQI4x")
MEMORY: Final = ProcessMemory(os.getpid())


def failing(
    code: int, exitinfo2: int = 0xFF, *, then: Ioctl | None = None, times: int = 1
) -> Ioctl:
    """Return ioctls of which the first ``times`` (or all, without ``then``) fail."""
    left = [times]

    def ioctl(request: int, argument: bytearray) -> int:
        if then is not None and not left[0]:
            return then(request, argument)
        left[0] -= 1
        argument[-8:] = exitinfo2.to_bytes(8, "little")
        raise OSError(code, os.strerror(code))

    return ioctl


@pytest.mark.parametrize("vmpl", [0, 2])
def test_a_report_comes_with_the_hosts_certificates(
    driver_at: Callable[..., GuestDriver],
    ioctl_of: Callable[[GuestDriver], Ioctl],
    asked: ReportRequest,
    patience: Patience,
    table: bytes,
    vmpl: int,
) -> None:
    ioctl = ioctl_of(driver_at(vmpl, table))
    found = fetch_from_device(ioctl, asked, vmpl, patience)
    assert (found.source, found.vmpl, found.left_out) == ("/dev/sev-guest", vmpl, "")
    read = find_report(found.encode())
    assert read.report[0x50:0x90] == asked.report_data
    assert found.encode()[1184:] == table
    assert not patience.tried


def test_a_host_without_certificates_gives_a_bare_report(
    driver: GuestDriver,
    ioctl_of: Callable[[GuestDriver], Ioctl],
    asked: ReportRequest,
    patience: Patience,
) -> None:
    found = fetch_from_device(ioctl_of(driver), asked, 0, patience)
    assert (len(found.encode()), found.left_out) == (1184, "")


def test_a_table_beyond_the_drivers_room_is_done_without(
    driver: GuestDriver,
    ioctl_of: Callable[[GuestDriver], Ioctl],
    asked: ReportRequest,
    patience: Patience,
) -> None:
    driver.table = encode_cert_table({VCEK: bytes(0x4000)})
    found = fetch_from_device(ioctl_of(driver), asked, 0, patience)
    assert len(found.encode()) == 1184
    assert "no room for them" in found.left_out
    assert not driver.disabled


def test_a_driver_with_more_room_is_given_the_size_that_the_host_wants(
    driver: GuestDriver,
    ioctl_of: Callable[[GuestDriver], Ioctl],
    asked: ReportRequest,
    patience: Patience,
) -> None:
    real, sizes = ioctl_of(driver), []
    table = encode_cert_table({VCEK: b"v" * 0x5000})

    def roomier(request: int, argument: bytearray) -> int:
        _, asked_at, *_ = REQUEST.unpack(argument)
        payload, address, room = EXTENDED.unpack(MEMORY.read(asked_at, EXTENDED.size))
        sizes.append(room)
        if room < len(table):
            MEMORY.write(asked_at, EXTENDED.pack(payload, address, 0x6000))
            argument[-8:] = (1 << 32).to_bytes(8, "little")
            raise OSError(errno.EIO, "too small")
        MEMORY.write(address, table)
        return real(SNP_GET_REPORT, argument)

    found = fetch_from_device(roomier, asked, 0, patience)
    assert sizes == [0x4000, 0x6000]
    assert found.encode()[1184:] == table


@pytest.mark.parametrize("wanted", [0, 1, 0x4000, 0x4001, 0x6001, (1 << 32) - 4096])
def test_a_size_that_makes_no_sense_is_not_followed(
    driver: GuestDriver,
    ioctl_of: Callable[[GuestDriver], Ioctl],
    asked: ReportRequest,
    patience: Patience,
    wanted: int,
) -> None:
    real, requests = ioctl_of(driver), []

    def odd(request: int, argument: bytearray) -> int:
        requests.append(request)
        if request == SNP_GET_REPORT:
            return real(request, argument)
        asked_at = REQUEST.unpack(argument)[1]
        payload, address, _ = EXTENDED.unpack(MEMORY.read(asked_at, EXTENDED.size))
        MEMORY.write(asked_at, EXTENDED.pack(payload, address, wanted))
        argument[-8:] = (1 << 32).to_bytes(8, "little")
        raise OSError(errno.EIO, "too small")

    found = fetch_from_device(odd, asked, 0, patience)
    assert requests == [SNP_GET_EXT_REPORT, SNP_GET_REPORT]
    assert len(found.encode()) == 1184


def test_a_table_that_grows_with_every_request_ends(
    driver: GuestDriver,
    ioctl_of: Callable[[GuestDriver], Ioctl],
    asked: ReportRequest,
    patience: Patience,
) -> None:
    real, requests = ioctl_of(driver), []

    def growing(request: int, argument: bytearray) -> int:
        requests.append(request)
        if request == SNP_GET_REPORT:
            return real(request, argument)
        asked_at = REQUEST.unpack(argument)[1]
        payload, address, room = EXTENDED.unpack(MEMORY.read(asked_at, EXTENDED.size))
        MEMORY.write(asked_at, EXTENDED.pack(payload, address, room + 4096))
        argument[-8:] = (1 << 32).to_bytes(8, "little")
        raise OSError(errno.EIO, "too small")

    assert fetch_from_device(growing, asked, 0, patience).left_out
    assert requests == [SNP_GET_EXT_REPORT] * 3 + [SNP_GET_REPORT]


@pytest.mark.parametrize(
    ("code", "exitinfo2"),
    [(errno.EIO, 2 << 32), (errno.EBUSY, 0xFF), (errno.EAGAIN, 2 << 32), (errno.EBUSY, 0)],
)
def test_a_throttled_request_is_tried_again(
    driver: GuestDriver,
    ioctl_of: Callable[[GuestDriver], Ioctl],
    asked: ReportRequest,
    patience: Patience,
    slept: list[float],
    code: int,
    exitinfo2: int,
) -> None:
    ioctl = failing(code, exitinfo2, then=ioctl_of(driver), times=3)
    assert fetch_from_device(ioctl, asked, 0, patience).report
    assert slept == [1, 2, 4]


def test_a_host_that_never_stops_throttling_is_given_up_in_time(
    asked: ReportRequest, patience: Patience, slept: list[float]
) -> None:
    with pytest.raises(FirmwareError, match="throttles this guest's requests") as caught:
        fetch_from_device(failing(errno.EIO, 2 << 32), asked, 0, patience)
    assert "--timeout" in caught.value.hint
    assert sum(slept) <= 30


def test_a_few_refusals_are_waited_for_by_the_driver_itself(
    driver: GuestDriver,
    ioctl_of: Callable[[GuestDriver], Ioctl],
    asked: ReportRequest,
    patience: Patience,
) -> None:
    driver.throttled = 20
    assert fetch_from_device(ioctl_of(driver), asked, 0, patience).report
    assert not patience.tried


def test_a_driver_that_was_throttled_too_long_has_given_up_its_key(
    driver: GuestDriver,
    ioctl_of: Callable[[GuestDriver], Ioctl],
    asked: ReportRequest,
    patience: Patience,
) -> None:
    driver.throttled = 100
    with pytest.raises(FirmwareError, match=r"given up its key .* after being throttled") as caught:
        fetch_from_device(ioctl_of(driver), asked, 0, patience)
    assert "boot the guest again" in caught.value.hint


@pytest.mark.parametrize("status", [FirmwareStatus.HWERROR_PLATFORM, FirmwareStatus.INVALID_GUEST])
def test_a_command_that_the_firmware_refuses_is_told_by_name(
    kvm: SimulatedKvm,
    driver: GuestDriver,
    ioctl_of: Callable[[GuestDriver], Ioctl],
    asked: ReportRequest,
    patience: Patience,
    status: FirmwareStatus,
) -> None:
    kvm.processor.faults.fail("SNP_GUEST_REQUEST", status, times=1)
    ioctl = ioctl_of(driver)
    with pytest.raises(CommandError, match=f"SNP_GUEST_REQUEST returned .*{status.name}"):
        fetch_from_device(ioctl, asked, 0, patience)
    with pytest.raises(FirmwareError, match=r"given up its key .* after a request that failed"):
        fetch_from_device(ioctl, asked, 0, patience)


def test_a_request_that_the_firmware_answers_with_no_is_told_by_name(
    driver_at: Callable[..., GuestDriver],
    ioctl_of: Callable[[GuestDriver], Ioctl],
    asked: ReportRequest,
    patience: Patience,
) -> None:
    ioctl = ioctl_of(driver_at(vmpl=2))
    with pytest.raises(CommandError, match=r"MSG_REPORT_REQ returned .*INVALID_PARAM"):
        fetch_from_device(ioctl, asked, 0, patience)
    assert fetch_from_device(ioctl, asked, 3, patience).vmpl == 3


@pytest.mark.parametrize(
    ("code", "exitinfo2", "message"),
    [
        (errno.EIO, 0x7F, "SNP_GUEST_REQUEST returned 0x7f"),
        (errno.EIO, 7 << 32, "the host refused the request: VMM error 0x7"),
        (errno.EBADMSG, 0, "not the secure processor's, or was changed"),
        (errno.EFAULT, 0xFF, "/dev/sev-guest: Bad address"),
        (errno.EINVAL, 0xFFFF_FFFF, "/dev/sev-guest: Invalid argument"),
        (errno.ENOTTY, 0, "not the device of the driver"),
    ],
)
def test_every_failure_is_told(
    asked: ReportRequest, patience: Patience, code: int, exitinfo2: int, message: str
) -> None:
    with pytest.raises(UndecidedError, match=message):
        fetch_from_device(failing(code, exitinfo2), asked, 0, patience)


def answering(response: bytes) -> Ioctl:
    def ioctl(request: int, argument: bytearray) -> int:
        MEMORY.write(REQUEST.unpack(argument)[2], response)
        return 0

    return ioctl


def response(status: int = 0, size: int = 1184, reserved: bytes = bytes(24)) -> bytes:
    return (struct.pack("<II", status, size) + reserved).ljust(4000, b"\0")


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (response(status=0x16), CommandError, "MSG_REPORT_REQ returned 0x16 INVALID_PARAM"),
        (response(status=0xABCD), FirmwareError, "MSG_REPORT_REQ returned 0xabcd"),
        (response(size=0), FormatError, "a report of 0 bytes is none"),
        (response(size=4000), FormatError, "a report of 4000 bytes is none"),
        (response(reserved=b"\1" * 24), FormatError, "reserved byte"),
        (response(), FirmwareError, "over other data"),
    ],
)
def test_a_response_that_holds_no_report_is_refused(
    asked: ReportRequest, patience: Patience, data: bytes, kind: type[Exception], message: str
) -> None:
    if kind is FormatError and "reserved" in message:
        data = struct.pack("<II", 0, 1184) + data[8:]
    with pytest.raises(kind, match=message):
        fetch_from_device(answering(data), asked, 0, patience)


def test_a_file_that_is_no_device_is_a_closed_door(
    tmp_path: Path, asked: ReportRequest, patience: Patience
) -> None:
    (tmp_path / "sev-guest").write_bytes(b"captured")
    folder = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    descriptor = open_device(folder)
    try:
        with pytest.raises(DoorClosed, match="not the device of the driver") as caught:
            fetch_from_device(DeviceFile(descriptor), asked, 0, patience)
        assert caught.value.cause is Cause.MALFORMED
        assert fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    finally:
        os.close(descriptor)
        os.close(folder)


def test_a_link_is_not_followed_to_a_device(tmp_path: Path) -> None:
    (tmp_path / "sev-guest").symlink_to("/dev/null")
    folder = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError, match="symbolic links"):
            open_device(folder)
    finally:
        os.close(folder)
