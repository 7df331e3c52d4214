"""Reports through configfs-tsm: an entry of our own, written, read, held against its generation.

Theory of operation. Whoever makes a folder in ``tsm/report`` gets the kernel's files in it. Every
write moves the entry's ``generation`` on by one, and a read of ``outblob`` answers what was written
last, by whomever. So the generation is read before the first write and after the last read: if it
is not further by exactly our writes, then somebody else used the entry, or a write was dropped,
which the kernel says to nobody where it happens at a file's closing. Either way the answer may be
to another question, and a new entry is tried.

Sources: Linux ``Documentation/ABI/testing/configfs-tsm-report``, ``fs/configfs/file.c`` (closing),
``drivers/virt/coco/guest/report.c`` and ``drivers/virt/coco/sev-guest/sev-guest.c`` (errno).
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, final

from sevkit.errors import FirmwareError, FormatError, HostReadError, UsageError
from sevkit.guest.door import BUSY, DoorClosed, closed, forged, given_up, throttled
from sevkit.guest.report import take_report
from sevkit.host.reading import Cause

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sevkit.errors import SevkitError
    from sevkit.guest.patience import Patience
    from sevkit.guest.report import GuestReport, ReportRequest

_T = TypeVar("_T")

SOURCE: Final = "configfs-tsm"
PATH: Final = "sys/kernel/config/tsm/report"
PROVIDER: Final = "sev_guest"
_LAST_LEVEL: Final = 3
#: The kernel's own bound of a blob (TSM_REPORT_OUTBLOB_MAX), doubled.
_BLOB: Final = 64 << 10
_WORD: Final = 64
_GENERATIONS: Final = 1 << 64
#: Entries that are tried while somebody else interferes.
_ENTRIES: Final = 3


class TsmFolder(Protocol):
    """The folder ``tsm/report``. Each method raises ``OSError``."""

    def make(self, entry: str) -> None:
        """Make an entry."""
        ...

    def remove(self, entry: str) -> None:
        """Remove an entry."""
        ...

    def read(self, entry: str, attribute: str) -> bytes:
        """Return the whole of an attribute."""
        ...

    def write(self, entry: str, attribute: str, data: bytes) -> None:
        """Write an attribute at once, and close it."""
        ...


@final
class Configfs:
    """The folder behind an open descriptor, which stays the caller's."""

    def __init__(self, folder: int) -> None:
        self._folder: Final = folder

    def make(self, entry: str) -> None:
        """Make an entry."""
        os.mkdir(entry, 0o700, dir_fd=self._folder)

    def remove(self, entry: str) -> None:
        """Remove an entry; its files are the kernel's, and go with it."""
        os.rmdir(entry, dir_fd=self._folder)

    def read(self, entry: str, attribute: str) -> bytes:
        """Return the whole of an attribute, at most 64 KiB and a byte."""
        descriptor = self._open(entry, attribute, os.O_RDONLY)
        try:
            found = b""
            while len(found) <= _BLOB:
                chunk = os.read(descriptor, _BLOB + 1 - len(found))
                if not chunk:
                    break
                found += chunk
            return found
        finally:
            os.close(descriptor)

    def write(self, entry: str, attribute: str, data: bytes) -> None:
        """Write an attribute; ``OSError`` also if not all was taken."""
        descriptor = self._open(entry, attribute, os.O_WRONLY)
        try:
            if os.write(descriptor, data) != len(data):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        finally:
            os.close(descriptor)

    def _open(self, entry: str, attribute: str, mode: int) -> int:
        flags = mode | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
        return os.open(f"{entry}/{attribute}", flags, dir_fd=self._folder)


class _ConflictError(Exception):
    """Somebody else used our entry."""


def fetch_from_tsm(folder: TsmFolder, asked: ReportRequest, patience: Patience) -> GuestReport:
    """Return a report over ``asked``, and the host's certificates.

    Raises ``DoorClosed`` if nothing can be asked here, ``UsageError`` for a VMPL that this guest
    may not ask for, ``FormatError`` for what is no report, else an ``UndecidedError``.
    """
    for _ in range(_ENTRIES):
        with contextlib.suppress(_ConflictError), _new_entry(folder) as entry:
            return _Question(folder, entry, asked, patience).answer()
    raise HostReadError(
        f"{SOURCE}: somebody else wrote to the entry, {_ENTRIES} times in a row",
        hint="another program reads reports from entries that are not its own",
    )


@contextlib.contextmanager
def _new_entry(folder: TsmFolder) -> Iterator[str]:
    entry = f"sevkit-{secrets.token_hex(8)}"
    try:
        folder.make(entry)
    except OSError as error:
        raise closed(SOURCE, error) from error
    try:
        yield entry
    finally:
        with contextlib.suppress(OSError):  # gone, or the reason is on its way already
            folder.remove(entry)


@final
class _Question:
    """One entry, asked once."""

    def __init__(
        self, folder: TsmFolder, entry: str, asked: ReportRequest, patience: Patience
    ) -> None:
        self._folder: Final = folder
        self._entry: Final = entry
        self._asked: Final = asked
        self._patience: Final = patience
        self._generation = 0

    def answer(self) -> GuestReport:
        self._check_provider()
        vmpl = self._level()
        self._generation = self._read_generation()
        self._write("privlevel", str(vmpl).encode())
        self._write("inblob", self._asked.report_data)
        self._check_generation()
        report = self._blob("outblob")
        table = self._blob("auxblob")
        self._check_generation()
        return take_report(self._asked, vmpl, report, table=table, source=SOURCE)

    def _check_provider(self) -> None:
        provider = self._word("provider")
        if provider != PROVIDER:
            raise HostReadError(
                f"not an SNP guest: {SOURCE} has reports of {provider!r}, not of {PROVIDER!r}"
            )

    def _level(self) -> int:
        """Return the VMPL to ask for: no request may name one below the guest's own."""
        floor = self._number("privlevel_floor")
        if floor > _LAST_LEVEL:
            raise FormatError(f"{SOURCE} privlevel_floor", f"there is no VMPL {floor}")
        vmpl = floor if self._asked.vmpl is None else self._asked.vmpl
        if vmpl < floor:
            raise UsageError(f"VMPL {vmpl} is not this guest's to ask for", hint=f"--vmpl {floor}")
        return vmpl

    def _write(self, attribute: str, data: bytes) -> None:
        self._try(attribute, lambda: self._folder.write(self._entry, attribute, data))
        self._generation = (self._generation + 1) % _GENERATIONS

    def _read_generation(self) -> int:
        return self._number("generation")

    def _check_generation(self) -> None:
        if self._read_generation() != self._generation:
            raise _ConflictError

    def _number(self, attribute: str) -> int:
        word = self._word(attribute)
        if not (word.isascii() and word.isdigit()) or int(word) >= _GENERATIONS:
            raise FormatError(f"{SOURCE} {attribute}", f"{word!r} is not a number")
        return int(word)

    def _word(self, attribute: str) -> str:
        data = self._try(attribute, lambda: self._folder.read(self._entry, attribute))
        try:
            return data[:_WORD].decode("ascii").strip()
        except UnicodeDecodeError as error:
            raise FormatError(f"{SOURCE} {attribute}", "not text") from error

    def _try(self, attribute: str, act: Callable[[], _T]) -> _T:
        try:
            return act()
        except OSError as error:
            raise closed(f"{SOURCE} {attribute}", error) from error

    def _blob(self, attribute: str) -> bytes:
        while True:
            try:
                data = self._folder.read(self._entry, attribute)
            except OSError as error:
                if attribute == "auxblob" and error.errno == errno.ENOENT:
                    return b""
                # what another asked may be refused too, and is no answer to us
                self._check_generation()
                if error.errno not in BUSY:
                    raise self._refusal(error) from error
                if not self._patience.wait():
                    raise throttled(SOURCE, self._patience.seconds) from error
                continue
            if len(data) > _BLOB:
                raise FormatError(f"{SOURCE} {attribute}", f"larger than {_BLOB} bytes")
            return data

    def _refusal(self, error: OSError) -> SevkitError:
        number = error.errno or errno.EIO
        if number == errno.ENOTTY:
            return given_up(SOURCE, after_waiting=self._patience.tried)
        if number == errno.EBADMSG:
            return forged(SOURCE)
        if number in _REFUSED:
            return FirmwareError(f"{SOURCE}: {_REFUSED[number]}")
        # the driver's own device may say more, or do without certificates
        return DoorClosed(Cause.FAILED, f"{SOURCE}: no report: {os.strerror(number)}")


#: What the firmware put into its answer, as far as the kernel tells.
_REFUSED: Final = {
    errno.EINVAL: "the firmware refused the request, or has no key that may sign for this guest",
    errno.ENXIO: "the firmware made no report",
}
