"""Linux' sev-guest driver inside a simulated SNP guest, and what the guest's host may do to it.

Theory of operation. The driver has one VMPCK, and a sequence number that no two requests may share.
So whatever goes wrong once a request has left the guest ends in the key being given up: from then
on every request is ENOTTY, until the guest is booted again. Two answers of the host are exceptions.
"Too many requests" makes the driver itself wait and send the same again, for a minute. "The buffer
is too small for my certificates" makes it send the same without a buffer, so that the number moves
on, and the caller is told EIO with the number of pages that the host wants. Time does not pass
here: what Linux waits for is counted.

Sources: Linux ``drivers/virt/coco/sev-guest/sev-guest.c`` and ``arch/x86/coco/sev/core.c`` of 6.13,
``include/uapi/linux/sev-guest.h``, GHCB specification 56421 4.1.8 (guest requests).
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final, NamedTuple, final

from sevkit.abi.firmware_status import CommandError
from sevkit.errors import FirmwareError, SignatureMismatch
from sevkit.testing.device.ioctl import IoctlReply
from sevkit.testing.snp_guest import GuestChannel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sevkit.testing.device.ioctl import CallerMemory
    from sevkit.testing.virtual_machine import SimulatedKvm, SnpMachine

PAGE: Final = 4096
#: SEV_FW_BLOB_MAX_SIZE: the most that the driver takes for certificates, in bytes.
MAX_TABLE: Final = 0x4000
#: How often the driver sends a request that the host throttles: every 2 s for 60 s.
_PATIENCE: Final = 30
#: ``exitinfo2`` of a request that was never sent.
NOT_SENT: Final = 0xFF
_INVALID_LEN: Final = 1 << 32
_BUSY: Final = 2 << 32
_GENERIC: Final = 1 << 63

SNP_GET_REPORT: Final = 0xC020_5300
SNP_GET_EXT_REPORT: Final = 0xC020_5302
_REQUEST: Final = struct.Struct("<B7xQQQ")
_EXTENDED: Final = struct.Struct("<96sQI4x")
_RESPONSE_SIZE: Final = 4000


class Answer(NamedTuple):
    """How a request ended: an errno or 0, ``exitinfo2``, the response, and the pages wanted."""

    code: int
    exitinfo2: int = 0
    response: bytes = b""
    pages: int = 0


@final
class GuestDriver:
    """The driver of ``machine``, at ``vmpl``.

    ``table`` is what the host adds to an extended request, and ``throttled`` how many requests it
    refuses from now on as too many; both may be changed at any time.
    """

    def __init__(
        self, kvm: SimulatedKvm, machine: SnpMachine, *, vmpl: int = 0, table: bytes = b""
    ) -> None:
        self._channel: Final = GuestChannel(kvm, machine, vmpl=vmpl)
        self.vmpl: Final = vmpl
        self.table = table
        self.throttled = 0
        #: Whether the driver has given up its key.
        self.disabled = False

    def request(self, payload: bytes, room: int | None = None) -> Answer:
        """Send a MSG_REPORT_REQ (96 bytes); ``room`` is pages for certificates, None for none."""
        if self.disabled:
            return Answer(errno.ENOTTY, NOT_SENT)
        refused = min(self.throttled, _PATIENCE + 1)
        self.throttled -= refused
        answer = Answer(errno.ETIMEDOUT, _BUSY) if refused > _PATIENCE else self._send(payload)
        if answer.code:
            self.disabled = True
            return answer
        wanted = -(-len(self.table) // PAGE)
        if room is not None and wanted > room:
            return Answer(errno.EIO, _INVALID_LEN, b"", wanted)
        return answer

    def _send(self, payload: bytes) -> Answer:
        try:
            response = self._channel.exchange(payload)
        except CommandError as error:
            return Answer(errno.EIO, int(error.status))
        except FirmwareError:
            return Answer(errno.EIO, _GENERIC)
        except SignatureMismatch:
            return Answer(errno.EBADMSG)
        return Answer(0, 0, response.ljust(_RESPONSE_SIZE, b"\0"))


@final
class SevGuestDevice:
    """/dev/sev-guest over a driver. SNP_GET_DERIVED_KEY is left out, and is no request."""

    def __init__(self, driver: GuestDriver) -> None:
        self._driver: Final = driver
        self._handlers: Final[Mapping[int, Callable[[int, int, CallerMemory], Answer]]] = {
            SNP_GET_REPORT: self._report,
            SNP_GET_EXT_REPORT: self._extended,
        }

    def ioctl(
        self,
        request: int,
        argument: bytes,
        memory: CallerMemory,
        *,
        writable: bool,  # noqa: ARG002  # the driver asks for no rights beyond those to open it
    ) -> IoctlReply:
        """Answer one request; ``exitinfo2`` is written back unless it is 0."""
        if len(argument) != _REQUEST.size:
            return IoctlReply(-errno.ENOTTY)
        version, asked_at, answer_at, _ = words = _REQUEST.unpack(argument)
        if not version:
            return IoctlReply(-errno.EINVAL, argument)
        handler = self._handlers.get(request)
        if handler is None:
            answer = Answer(errno.ENOTTY, NOT_SENT)
        elif not asked_at or not answer_at:
            answer = Answer(errno.EINVAL, NOT_SENT)
        else:
            try:
                answer = handler(asked_at, answer_at, memory)
            except OSError as error:
                answer = Answer(error.errno or errno.EFAULT, NOT_SENT)
        data = _REQUEST.pack(*words[:3], answer.exitinfo2) if answer.exitinfo2 else argument
        return IoctlReply(-answer.code, data)

    def _report(self, asked_at: int, answer_at: int, memory: CallerMemory) -> Answer:
        answer = self._driver.request(memory.read(asked_at, 96))
        if not answer.code:
            memory.write(answer_at, answer.response)
        return answer

    def _extended(self, asked_at: int, answer_at: int, memory: CallerMemory) -> Answer:
        payload, address, length = _EXTENDED.unpack(memory.read(asked_at, _EXTENDED.size))
        room = length if address else 0
        if room > MAX_TABLE or room % PAGE:
            return Answer(errno.EINVAL, NOT_SENT)
        answer = self._driver.request(payload, room // PAGE)
        if answer.exitinfo2 == _INVALID_LEN:
            wanted = _EXTENDED.pack(payload, address, answer.pages * PAGE)
            memory.write(asked_at, wanted)
        if not answer.code:
            if room:
                memory.write(address, self._driver.table.ljust(room, b"\0"))
            memory.write(answer_at, answer.response)
        return answer
