"""How Linux issues a command to the secure processor: what it brings up before, and takes down.

Theory of operation. Commands that need an initialised platform find it so, or Linux initialises it
for them. Up to 6.15 that is SEV alone, it stays so, and what the firmware said of a failure reaches
the caller. From 6.16 on it is SNP and SEV, both are shut down again after the command, and every
failure shows as INVALID_PLATFORM_STATE. An INIT that finds its stored data damaged is tried once
more. A processor that does not answer in time is dead for Linux until the next boot.

Source: ``drivers/crypto/ccp/sev-dev.c``, Linux 6.12 to 7.1.
"""

from __future__ import annotations

import errno
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar, final

from sevkit.abi.firmware_status import CommandError, FirmwareStatus
from sevkit.abi.platform_status import PlatformState
from sevkit.testing.secure_processor.faults import NoAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sevkit.testing.device.ioctl import CallerMemory
    from sevkit.testing.secure_processor.processor import SecureProcessor

T = TypeVar("T")

#: The first release that takes down again what it brought up for a command.
SHUTS_DOWN_AGAIN: Final = (6, 16)
#: The oldest firmware that Linux initialises SNP with.
SNP_SINCE: Final = (1, 51)


@final
@dataclass(slots=True)
class Call:
    """One ioctl under way; ``error`` is the caller's own value until a command was issued."""

    address: int
    memory: CallerMemory
    writable: bool
    error: int

    def read(self, size: int) -> bytes:
        """Return the structure that the request points at."""
        return self.memory.read(self.address, size)

    def write(self, data: bytes) -> None:
        """Write the structure that the request points at."""
        self.memory.write(self.address, data)

    def need_write(self) -> None:
        """Raise ``OSError`` (EPERM) unless the file was opened for writing."""
        if not self.writable:
            raise OSError(errno.EPERM, "the file is not open for writing")


@final
class Commands:
    """Issues commands as Linux ``kernel`` does; every failure is an ``OSError``.

    ``es`` says whether INIT turns SEV-ES on, ``snp`` whether the host has SNP enabled.
    """

    def __init__(
        self, processor: SecureProcessor, *, kernel: tuple[int, int], es: bool, snp: bool
    ) -> None:
        self.processor: Final = processor
        self.kernel: Final = kernel
        self._es: Final = es
        self._snp: Final = snp and processor.core.line.snp

    def issue(self, call: Call, command: Callable[[], T]) -> T:
        """Return what a command gives; its status goes to ``call.error``.

        Raises EIO where the firmware refuses, ETIMEDOUT where it does not answer, EBUSY where Linux
        no longer asks.
        """
        if self.processor.faults.dead:
            raise OSError(errno.EBUSY, "the secure processor is dead")
        try:
            found = command()
        except CommandError as refused:
            call.error = int(refused.status)
            raise OSError(errno.EIO, refused.message) from refused
        except NoAnswer as silence:
            call.error = 0
            raise OSError(errno.ETIMEDOUT, silence.message) from silence
        call.error = 0
        return found

    @contextmanager
    def initialized(self, call: Call) -> Iterator[None]:
        """Have SEV initialised meanwhile."""
        if self.processor.sev.state is not PlatformState.UNINIT:
            yield
        elif self.kernel < SHUTS_DOWN_AGAIN:
            self._init_sev(call)
            yield
        else:
            with self._implicit(call) as scratch:
                if self._snp:
                    self._init_snp(scratch)
                self._init_sev(scratch)
            try:
                yield
            finally:
                with suppress(OSError):
                    self.issue(replace(call), self.processor.sev.shutdown)
                self._shut_snp(call)

    @contextmanager
    def snp_initialized(self, call: Call) -> Iterator[None]:
        """Have SNP initialised meanwhile: for kernels that initialise it for a command."""
        if self.processor.core.snp_initialized:
            yield
            return
        with self._implicit(call) as scratch:
            if not self._snp:
                raise OSError(errno.ENODEV, "the host has no SNP")
            self._init_snp(scratch)
        try:
            yield
        finally:
            self._shut_snp(call)

    @staticmethod
    @contextmanager
    def _implicit(call: Call) -> Iterator[Call]:
        try:
            yield replace(call)
        except OSError:
            call.error = FirmwareStatus.INVALID_PLATFORM_STATE
            raise

    def _init_sev(self, call: Call) -> None:
        sev = self.processor.sev
        try:
            self.issue(call, lambda: sev.init(es=self._es))
        except OSError as refused:
            spoilt = call.error == FirmwareStatus.SECURE_DATA_INVALID
            if refused.errno != errno.EIO or not spoilt:
                raise
            self.issue(call, lambda: sev.init(es=self._es))
        self.processor.core.wbinvd()
        self.issue(call, sev.df_flush)

    def _init_snp(self, call: Call) -> None:
        core, snp = self.processor.core, self.processor.snp
        if core.snp_initialized or core.firmware.version < SNP_SINCE:
            return
        self.issue(call, snp.init)
        core.wbinvd()
        self.issue(call, snp.df_flush)

    def _shut_snp(self, call: Call) -> None:
        """Take SNP down; what goes wrong here is in the kernel's log alone."""
        core, snp = self.processor.core, self.processor.snp
        if not core.snp_initialized:
            return
        scratch = replace(call)
        core.wbinvd()
        with suppress(OSError):
            try:
                self.issue(scratch, lambda: snp.shutdown(iommu=True))
            except OSError:
                if scratch.error != FirmwareStatus.DFFLUSH_REQUIRED:
                    raise
                self.issue(scratch, snp.df_flush)
                self.issue(scratch, lambda: snp.shutdown(iommu=True))
