"""Linux' /dev/sev over a simulated secure processor: ioctls in, errno and firmware error out.

Theory of operation. The driver, not the firmware, decides who may issue what: some commands need a
file that was opened for writing, and SNP_COMMIT, which nothing can undo, does not. It checks what
the caller points at, in an order of its own, before it brings the platform up and asks the
firmware. A query for a length and a buffer that is too small are one thing: EIO with the firmware's
INVALID_LEN, and the wanted lengths written back. Whatever a handler returns, the sixteen bytes of
the request are copied back; their last four are the firmware's status if it was asked, else what
the caller had there.

Sources: ``include/uapi/linux/psp-sev.h`` (numbers, structures), ``drivers/crypto/ccp/sev-dev.c`` of
Linux 6.12 to 7.1 (order of checks, errno). ``kernel`` tells the ages apart: up to 6.15, from 6.16
(``sevkit.testing.driver_commands``), and from 7.0 (SNP_PLATFORM_STATUS in any state).
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final, final

from sevkit.abi.firmware_status import CommandError, FirmwareStatus
from sevkit.abi.layout import Layout, integer, zero
from sevkit.abi.platform_status import PlatformState
from sevkit.errors import FormatError
from sevkit.testing.device.ioctl import IoctlReply
from sevkit.testing.driver_commands import SHUTS_DOWN_AGAIN, Call, Commands
from sevkit.testing.secure_processor.identity import HASHSTICK

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sevkit.testing.device.ioctl import CallerMemory
    from sevkit.testing.secure_processor.processor import SecureProcessor

#: _IOWR('S', 0, struct sev_issue_cmd).
SEV_ISSUE_CMD: Final = 0xC0105300
#: ENOTSUPP, which is Linux' own and not in the C library.
ENOTSUPP: Final = 524
#: SEV_FW_BLOB_MAX_SIZE, and what kmalloc gives at most, in bytes.
_MAX_BLOB: Final = 0x4000
_MAX_KMALLOC: Final = 1 << 22
_ISSUE: Final = struct.Struct("<IQI")
_BUFFER: Final = struct.Struct("<QI")
_TWO_BUFFERS: Final = struct.Struct("<QIQI")
_VLEK_LOAD: Final = struct.Struct("<IB3xQ")
_SNP_CONFIG: Final = Layout(
    "SNP_CONFIG", 64, (integer(0, 8, "reported_tcb"), integer(8, 4, "mask"), zero(12, 52))
)
_GET_ID_SINCE: Final = (0, 16)
#: The first release that asks SNP_PLATFORM_STATUS whether SNP is initialised or not.
_ASKS_IN_ANY_STATE: Final = (7, 0)


@final
class SevDevice:
    """One /dev/sev of a host with Linux ``kernel``.

    ``es`` says whether INIT turns SEV-ES on, ``snp`` whether the host has SNP enabled.
    """

    def __init__(
        self,
        processor: SecureProcessor,
        *,
        kernel: tuple[int, int] = (6, 12),
        es: bool = True,
        snp: bool = True,
    ) -> None:
        self.processor: Final = processor
        self.kernel: Final = kernel
        self._commands: Final = Commands(processor, kernel=kernel, es=es, snp=snp)
        #: By the number of SEV_ISSUE_CMD's commands; a number that is not here is EINVAL.
        self._handlers: Final[Mapping[int, Callable[[Call], None]]] = {
            0: self._factory_reset,
            1: self._platform_status,
            2: self._pek_gen,
            3: self._pek_csr,
            4: self._pdh_gen,
            5: self._pdh_cert_export,
            6: self._pek_cert_import,
            7: self._get_id,
            8: self._get_id2,
            9: self._snp_platform_status,
            10: self._snp_commit,
            11: self._snp_set_config,
            12: self._snp_vlek_load,
        }

    def ioctl(
        self, request: int, argument: bytes, memory: CallerMemory, *, writable: bool
    ) -> IoctlReply:
        """Answer SEV_ISSUE_CMD; everything else, and a command that is none, is EINVAL."""
        if request != SEV_ISSUE_CMD or len(argument) != _ISSUE.size:
            return IoctlReply(-errno.EINVAL)
        command, address, error = _ISSUE.unpack(argument)
        handler = self._handlers.get(command)
        if handler is None:
            return IoctlReply(-errno.EINVAL)
        call = Call(address, memory, writable, error)
        result = 0
        with self.processor.lock:
            try:
                handler(call)
            except OSError as failed:
                result = -(failed.errno or errno.EIO)
        return IoctlReply(result, _ISSUE.pack(command, address, call.error))

    def _factory_reset(self, call: Call) -> None:
        call.need_write()
        sev = self.processor.sev
        state = self._commands.issue(call, sev.status).state
        if state is PlatformState.WORKING:
            raise OSError(errno.EBUSY, "there are guests")
        if state is PlatformState.INIT:
            self._commands.issue(call, sev.shutdown)
        self._commands.issue(call, sev.factory_reset)

    def _platform_status(self, call: Call) -> None:
        call.write(self._commands.issue(call, self.processor.sev.status).encode())

    def _pek_gen(self, call: Call) -> None:
        self._generate(call, self.processor.sev.pek_gen)

    def _pdh_gen(self, call: Call) -> None:
        self._generate(call, self.processor.sev.pdh_gen)

    def _generate(self, call: Call, command: Callable[[], None]) -> None:
        call.need_write()
        with self._commands.initialized(call):
            self._commands.issue(call, command)

    def _pek_csr(self, call: Call) -> None:
        call.need_write()
        buffer, length = _BUFFER.unpack(call.read(_BUFFER.size))
        query = not buffer or not length
        if not query and length > _MAX_BLOB:
            raise OSError(errno.EFAULT, "longer than any blob")
        with self._commands.initialized(call):
            sev = self.processor.sev
            self._fill(call, "PEK_CSR", [buffer, length], lambda: (sev.pek_csr(),), query=query)

    def _pdh_cert_export(self, call: Call) -> None:
        sev = self.processor.sev
        initialised = sev.state is not PlatformState.UNINIT
        if self.kernel < SHUTS_DOWN_AGAIN and not initialised:
            call.need_write()
            with self._commands.initialized(call):
                pass  # and stays so, even if nothing after this can be read
        words = list(_TWO_BUFFERS.unpack(call.read(_TWO_BUFFERS.size)))
        query = not all(words[:3])
        if not query and max(words[1], words[3]) > _MAX_BLOB:
            raise OSError(errno.EFAULT, "longer than any blob")
        if not initialised:
            call.need_write()
        with self._commands.initialized(call):
            self._fill(call, "PDH_CERT_EXPORT", words, sev.pdh_cert_export, query=query)

    def _fill(
        self,
        call: Call,
        name: str,
        words: list[int],
        command: Callable[[], tuple[bytes, ...]],
        *,
        query: bool,
    ) -> None:
        """Fill the buffers of ``words``, which are (address, length) each, and write lengths back.

        The firmware says the wanted lengths where one is too small; else what it was given, which
        for a query is 0, is written back.
        """
        lengths = [0 if query else length for length in words[1::2]]

        def issue() -> tuple[bytes, ...]:
            blobs = command()
            wanted = [len(blob) for blob in blobs]
            wanted[-1] = self.processor.faults.lengths.get(name, wanted[-1])
            too_small = any(room < size for room, size in zip(lengths, wanted, strict=True))
            lengths[:] = wanted
            if too_small:
                raise CommandError(name, FirmwareStatus.INVALID_LEN)
            return blobs

        blobs: tuple[bytes, ...] = ()
        try:
            blobs = self._commands.issue(call, issue)
        finally:
            pairs = zip(words[::2], lengths, strict=True)
            call.write(b"".join(_BUFFER.pack(*pair) for pair in pairs))
        for address, blob in zip(words[::2], blobs, strict=True):
            call.memory.write(address, blob)

    def _pek_cert_import(self, call: Call) -> None:
        call.need_write()
        words = _TWO_BUFFERS.unpack(call.read(_TWO_BUFFERS.size))
        pek, oca = (_read_blob(call.memory, *words[index : index + 2]) for index in (0, 2))
        with self._commands.initialized(call):
            self._commands.issue(call, lambda: self.processor.sev.pek_cert_import(pek, oca))

    def _need_get_id(self) -> None:
        if self.processor.core.firmware.version[:2] < _GET_ID_SINCE:
            raise OSError(ENOTSUPP, "the firmware has no GET_ID")

    def _get_id(self, call: Call) -> None:
        self._need_get_id()
        call.write(self._commands.issue(call, self.processor.sev.get_id))

    def _get_id2(self, call: Call) -> None:
        self._need_get_id()
        buffer, length = _BUFFER.unpack(call.read(_BUFFER.size))
        query = not buffer or not length
        if not query and length > _MAX_KMALLOC:
            raise OSError(errno.ENOMEM, "more than there can be")
        sev = self.processor.sev
        self._fill(call, "GET_ID", [buffer, length], lambda: (sev.get_id(),), query=query)

    def _need_snp(self) -> None:
        """Refuse, up to 6.15, what needs SNP where it is not initialised."""
        if self.kernel < SHUTS_DOWN_AGAIN and not self.processor.core.snp_initialized:
            raise OSError(errno.EINVAL, "SNP is not initialised")

    def _snp_platform_status(self, call: Call) -> None:
        self._need_snp()
        _need_address(call)
        if self.kernel >= _ASKS_IN_ANY_STATE:
            status = self._commands.issue(call, self.processor.snp.status)
        else:
            with self._commands.snp_initialized(call):
                status = self._commands.issue(call, self.processor.snp.status)
        call.write(status.encode())

    def _snp_commit(self, call: Call) -> None:
        self._need_snp()
        with self._commands.snp_initialized(call):
            self._commands.issue(call, self.processor.snp.commit)

    def _snp_set_config(self, call: Call) -> None:
        self._need_snp()
        _need_address(call)
        call.need_write()
        data = call.read(_SNP_CONFIG.size)
        with self._commands.snp_initialized(call):
            self._commands.issue(call, lambda: self._config(data))

    def _config(self, data: bytes) -> None:
        try:
            record = _SNP_CONFIG.parse(data)
        except FormatError as error:
            status = FirmwareStatus.INVALID_PARAM
            raise CommandError("SNP_CONFIG", status, error.message) from error
        mask = record.int("mask")
        if mask >> 2:
            raise CommandError("SNP_CONFIG", FirmwareStatus.INVALID_PARAM, "mask")
        self.processor.snp.config(
            record.int("reported_tcb"),
            mask_chip_id=bool(mask & 1),
            mask_chip_key=bool(mask & 2),
        )

    def _snp_vlek_load(self, call: Call) -> None:
        self._need_snp()
        _need_address(call)
        call.need_write()
        length, version, stick_at = _VLEK_LOAD.unpack(call.read(_VLEK_LOAD.size))
        if length != _VLEK_LOAD.size or version:
            raise OSError(errno.EINVAL, "not a VLEK load request")
        stick = _read_blob(call.memory, stick_at, HASHSTICK.size)
        with self._commands.snp_initialized(call):
            self._commands.issue(call, lambda: self.processor.snp.vlek_load(stick))


def _need_address(call: Call) -> None:
    if not call.address:
        raise OSError(errno.EINVAL, "no address")


def _read_blob(memory: CallerMemory, address: int, length: int) -> bytes:
    if not address or not 0 < length <= _MAX_BLOB:
        raise OSError(errno.EINVAL, "no blob")
    return memory.read(address, length)
