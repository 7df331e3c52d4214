"""Linux' configfs-tsm inside a simulated SNP guest: entries, their attributes, their generations.

Theory of operation. Every write to an entry moves its generation on. Reading ``outblob`` or
``auxblob`` makes a report over what was written last, unless there is one of this generation
already: then both are read from it. So who shares an entry with somebody else may read a report
over the other's data, and only the generation tells.

Sources: Linux ``drivers/virt/coco/guest/report.c`` (``tsm.c`` before 6.16), ``sev_report_new`` in
``drivers/virt/coco/sev-guest/sev-guest.c``, ``Documentation/ABI/testing/configfs-tsm-report``.
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.abi.firmware_status import FirmwareStatus
from sevkit.abi.guest_message import REPORT_RSP, encode_report_request, parse_report_response
from sevkit.testing.device.ioctl import EntryAttribute
from sevkit.testing.snp_guest_driver import MAX_TABLE, PAGE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sevkit.testing.snp_guest_driver import GuestDriver

#: Where the folder is in a guest that has configfs mounted.
PATH: Final = "sys/kernel/config/tsm/report"
_INBLOB: Final = 64
_BLOB: Final = 32 << 10
_LAST_LEVEL: Final = 3
_GENERATIONS: Final = 1 << 64
_ROW: Final = struct.Struct("<16sII")
_REFUSED: Final = frozenset({FirmwareStatus.INVALID_PARAM, FirmwareStatus.INVALID_KEY})


@dataclass(slots=True)
class _Entry:
    privlevel: int = 0
    inblob: bytes = b""
    written: int = 0
    read: int = 0
    outblob: bytes = b""
    auxblob: bytes = b""


@final
class TsmReports:
    """The folder ``tsm/report``; ``provider`` is None while no driver is loaded."""

    attributes: Final[Mapping[str, EntryAttribute]] = {
        "generation": EntryAttribute(0o444),
        "provider": EntryAttribute(0o444),
        "privlevel": EntryAttribute(0o200),
        "privlevel_floor": EntryAttribute(0o444),
        "inblob": EntryAttribute(0o200, _INBLOB),
        "outblob": EntryAttribute(0o444, _BLOB),
        "auxblob": EntryAttribute(0o444, _BLOB),
    }

    def __init__(self, driver: GuestDriver, *, provider: str | None = "sev_guest") -> None:
        self.driver: Final = driver
        self.provider = provider
        self._entries: Final[dict[str, _Entry]] = {}

    @property
    def entries(self) -> tuple[str, ...]:
        """The names of the entries that there are."""
        return tuple(self._entries)

    def make(self, entry: str) -> None:
        """Make an entry."""
        if self.provider is None:
            raise _error(errno.ENXIO)
        if entry in self._entries:
            raise _error(errno.EEXIST)
        self._entries[entry] = _Entry()

    def remove(self, entry: str) -> None:
        """Remove an entry."""
        self._find(entry)
        del self._entries[entry]

    def read(self, entry: str, attribute: str) -> bytes:
        """Return the whole of an attribute; ``outblob`` and ``auxblob`` may ask for a report."""
        found = self._find(entry)
        if attribute in {"outblob", "auxblob"}:
            self._fill(found)
            return found.outblob if attribute == "outblob" else found.auxblob
        if self.provider is None and attribute != "generation":
            raise _error(errno.ENXIO)
        values: dict[str, object] = {
            "generation": found.written,
            "provider": self.provider,
            "privlevel_floor": self.driver.vmpl,
        }
        if attribute not in values:
            raise _error(errno.EACCES)
        return f"{values[attribute]}\n".encode()

    def write(self, entry: str, attribute: str, data: bytes) -> None:
        """Store an attribute."""
        found = self._find(entry)
        if attribute == "privlevel":
            found.privlevel = self._level(data)
        elif attribute == "inblob":
            if len(data) > _INBLOB:
                raise _error(errno.EFBIG)
            found.inblob = data
        else:
            raise _error(errno.EACCES)
        found.written = (found.written + 1) % _GENERATIONS

    def _find(self, entry: str) -> _Entry:
        found = self._entries.get(entry)
        if found is None:
            raise _error(errno.ENOENT)
        return found

    def _level(self, data: bytes) -> int:
        text = data.removesuffix(b"\n")
        if not text.isdigit() or not self.driver.vmpl <= int(text) <= _LAST_LEVEL:
            raise _error(errno.EINVAL)
        return int(text)

    def _fill(self, entry: _Entry) -> None:
        """Make a report, unless there is one of this generation."""
        if not entry.inblob:
            raise _error(errno.EINVAL)
        if entry.outblob and entry.read == entry.written:
            return
        if self.provider is None:
            raise _error(errno.ENXIO)
        entry.outblob = entry.auxblob = b""
        if len(entry.inblob) != _INBLOB:
            raise _error(errno.EINVAL)
        payload = encode_report_request(entry.inblob, vmpl=entry.privlevel)
        answer = self.driver.request(payload, MAX_TABLE // PAGE)
        if answer.code:
            raise _error(answer.code)
        status, report = parse_report_response(answer.response[: REPORT_RSP.size])
        if status:
            raise _error(errno.EINVAL if status in _REFUSED else errno.ENXIO)
        entry.outblob, entry.auxblob = report, _trim(self.driver.table)
        entry.read = entry.written


def _trim(table: bytes) -> bytes:
    """Return the host's table up to the end of its last blob, as the kernel measures it."""
    size = 0
    room = table.ljust(MAX_TABLE, b"\0")
    for start in range(0, MAX_TABLE - _ROW.size, _ROW.size):
        guid, offset, length = _ROW.unpack_from(room, start)
        if not any(guid) and not offset and not length:
            break
        size = max(size, (offset + length) % (1 << 32))
    return room[: min(size, MAX_TABLE)]


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))
