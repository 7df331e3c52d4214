"""Reports through /dev/sev-guest: SNP_GET_EXT_REPORT, and SNP_GET_REPORT where it does not do.

Theory of operation. An extended request carries a buffer for the host's certificates. If it is too
small, the driver says EIO with VMM error 1, and puts the size that the host wants where ours was.
We begin with the most that the driver has ever taken, so that one request is enough, follow the
size if it is a sensible one, and do without certificates if driver and host cannot agree: they are
a hint, and a request that failed so has cost the guest nothing but one of its turns. ``exitinfo2``
is the firmware's status in its lower half and the VMM's error in its upper; Linux puts 0xff there
before anything is sent, and leaves our 0 where all went well.

Sources: Linux ``include/uapi/linux/sev-guest.h`` (numbers, structures) and
``drivers/virt/coco/sev-guest/sev-guest.c`` (order of checks, errno), 56421 4.1.8 (VMM errors).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, final

from sevkit.abi.certtable import MAX_SIZE
from sevkit.abi.firmware_status import NO_FW_CALL, CommandError, FirmwareStatus
from sevkit.abi.guest_message import REPORT_RSP, encode_report_request
from sevkit.abi.report import LAYOUT
from sevkit.errors import FirmwareError, FormatError
from sevkit.guest.door import BUSY, DoorClosed, closed, forged, given_up, throttled
from sevkit.guest.report import take_report
from sevkit.host.reading import Cause

if TYPE_CHECKING:
    from sevkit.errors import SevkitError
    from sevkit.guest.patience import Patience
    from sevkit.guest.report import GuestReport, ReportRequest

NAME: Final = "sev-guest"
SOURCE: Final = f"/dev/{NAME}"
#: _IOWR('S', 0 and 2, struct snp_guest_request_ioctl).
SNP_GET_REPORT: Final = 0xC020_5300
SNP_GET_EXT_REPORT: Final = 0xC020_5302
#: snp_guest_request_ioctl, snp_report_req, snp_ext_report_req, snp_report_resp.
_REQUEST: Final = struct.Struct("<B7xQQQ")
_EXTENDED: Final = struct.Struct("<96sQI4x")
_RESPONSE_SIZE: Final = 4000
_MESSAGE_VERSION: Final = 1
_PAGE: Final = 4096
#: SEV_FW_BLOB_MAX_SIZE, which is all that Linux' driver has room for.
_ROOM: Final = 0x4000
#: Sizes that are tried: the host may change its table between two requests.
_SIZES: Final = 3
_VMM_INVALID_LEN: Final = 1
_VMM_BUSY: Final = 2
_NOT_SENT: Final = 0xFF
_HINTS: Final = {
    FirmwareStatus.INVALID_PARAM: "a VMPL below the guest's own is refused so: see --vmpl",
    FirmwareStatus.INVALID_KEY: "the host leaves no key that may sign for this guest",
}


class Ioctl(Protocol):
    """Where ioctls to /dev/sev-guest go."""

    def __call__(self, request: int, argument: bytearray, /) -> int:
        """Issue one request; ``argument`` is changed in place. Raises ``OSError``."""
        ...


@final
class DeviceFile:
    """The device behind an open descriptor, which stays the caller's."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: Final = descriptor

    def __call__(self, request: int, argument: bytearray, /) -> int:
        """Issue one request."""
        result: int = fcntl.ioctl(self._descriptor, request, argument)
        return result


class _Failed(Exception):
    """A request failed. ``error`` is the kernel's, ``exitinfo2`` what the driver said beside."""

    def __init__(self, error: OSError, exitinfo2: int) -> None:
        super().__init__()
        self.error = error
        self.vmm, self.firmware = divmod(exitinfo2, 1 << 32)

    @property
    def too_small(self) -> bool:
        """Whether the host wants more room for its certificates."""
        return self.error.errno == errno.EIO and self.vmm == _VMM_INVALID_LEN

    @property
    def busy(self) -> bool:
        """Whether the host, or another request, was in the way."""
        return self.vmm == _VMM_BUSY or self.error.errno in BUSY


class _Answer(NamedTuple):
    response: bytes
    table: bytes = b""
    left_out: str = ""


def fetch_from_device(
    ioctl: Ioctl, asked: ReportRequest, vmpl: int, patience: Patience
) -> GuestReport:
    """Return a report over ``asked`` at ``vmpl``, and the host's certificates.

    Raises ``DoorClosed`` if this is not the driver's device, ``CommandError`` and ``FirmwareError``
    for what firmware and host refused, ``FormatError`` for what is no report.
    """
    driver = _Driver(ioctl, encode_report_request(asked.report_data, vmpl=vmpl), patience)
    try:
        answer = driver.ask()
    except _Failed as failed:
        raise _reason(failed, patience) from failed.error
    report = _parse_response(answer.response)
    return take_report(
        asked, vmpl, report, table=answer.table, source=SOURCE, left_out=answer.left_out
    )


@final
class _Driver:
    """One question, put to the driver until there is an answer."""

    def __init__(self, ioctl: Ioctl, payload: bytes, patience: Patience) -> None:
        self._ioctl: Final = ioctl
        self._payload: Final = payload
        self._patience: Final = patience

    def ask(self) -> _Answer:
        """Return the answer; raises ``_Failed``."""
        room = _ROOM
        for _ in range(_SIZES):
            asked = ctypes.create_string_buffer(_EXTENDED.size)
            table = ctypes.create_string_buffer(room)
            _EXTENDED.pack_into(asked, 0, self._payload, ctypes.addressof(table), room)
            try:
                return _Answer(self._issue(SNP_GET_EXT_REPORT, asked), table.raw)
            except _Failed as failed:
                # a size that the driver itself has no room for is refused before it is sent
                refused = room > _ROOM and failed.error.errno == errno.EINVAL
                if not failed.too_small and not refused:
                    raise
                wanted = _EXTENDED.unpack(asked.raw)[2]
            if refused or wanted % _PAGE or not room < wanted <= MAX_SIZE:
                break
            room = wanted
        asked = ctypes.create_string_buffer(self._payload, len(self._payload))
        left_out = "the host's certificates are left out: there is no room for them in the driver"
        return _Answer(self._issue(SNP_GET_REPORT, asked), left_out=left_out)

    def _issue(self, number: int, asked: ctypes.Array[ctypes.c_char]) -> bytes:
        response = ctypes.create_string_buffer(_RESPONSE_SIZE)
        addresses = ctypes.addressof(asked), ctypes.addressof(response)
        while True:
            argument = bytearray(_REQUEST.pack(_MESSAGE_VERSION, *addresses, 0))
            try:
                self._ioctl(number, argument)
            except OSError as error:
                failed = _Failed(error, _REQUEST.unpack(argument)[3])
                if not failed.busy:
                    raise failed from error
                if not self._patience.wait():
                    raise failed from error
            else:
                return response.raw


def _reason(failed: _Failed, patience: Patience) -> SevkitError:
    """Return what a failed request means, the most telling reason first."""
    if failed.error.errno == errno.ENOTTY:
        return _not_spoken_to(failed, patience)
    if failed.busy:
        return throttled(SOURCE, patience.seconds)
    if failed.firmware not in {0, _NOT_SENT, NO_FW_CALL}:
        return _firmware_refusal(failed.firmware)
    if failed.vmm:
        return FirmwareError(f"{SOURCE}: the host refused the request: VMM error {failed.vmm:#x}")
    return forged(SOURCE) if failed.error.errno == errno.EBADMSG else closed(SOURCE, failed.error)


def _not_spoken_to(failed: _Failed, patience: Patience) -> SevkitError:
    # a file that is no device leaves our own 0; the driver says that nothing was sent
    if failed.firmware == _NOT_SENT:
        return given_up(SOURCE, after_waiting=patience.tried)
    return DoorClosed(Cause.MALFORMED, f"{SOURCE}: not the device of the driver")


def _firmware_refusal(status: int) -> FirmwareError:
    if status in FirmwareStatus.__members__.values():
        return CommandError("SNP_GUEST_REQUEST", FirmwareStatus(status))
    return FirmwareError(f"SNP_GUEST_REQUEST returned {status:#x}")


def _parse_response(response: bytes) -> bytes:
    """Return the report (1184 bytes) in a response buffer."""
    record = REPORT_RSP.parse(response[: REPORT_RSP.size])
    status = record.int("status")
    if status in FirmwareStatus.__members__.values() and status:
        refusal = CommandError("MSG_REPORT_REQ", FirmwareStatus(status))
        refusal.hint = _HINTS.get(refusal.status, "")
        raise refusal
    if status:
        raise FirmwareError(f"MSG_REPORT_REQ returned {status:#x}")
    if record.int("size") != LAYOUT.size:
        size = record.int("size")
        raise FormatError(REPORT_RSP.name, f"a report of {size} bytes is none", offset=4)
    return record.raw("report")


def open_device(folder: int) -> int:
    """Return a descriptor of the device in an open /dev; raises ``OSError``.

    No right beyond opening it is needed: requests go the same way through any descriptor.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
    return os.open(NAME, flags, dir_fd=folder)
