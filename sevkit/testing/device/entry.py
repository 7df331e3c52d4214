"""An open file of an entry: read as it was at the first read, stored as configfs stores it.

Source: Linux ``fs/configfs/file.c``. A text file is stored by each write, whose caller hears of a
refusal. A binary one is stored when it is closed, and what comes of that is dropped.
"""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from sevkit.testing.device.tree import EntryFile


@final
class OpenEntryFile:
    """One open file; each method may raise ``OSError``."""

    def __init__(self, file: EntryFile) -> None:
        self._file: Final = file
        self._content: bytes | None = None
        self._written: bytearray | None = None

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes of what the first read found."""
        if self._content is None:
            self._content = self._file.folder.read(self._file.entry, self._file.name)
        return self._content[offset : offset + size]

    def write_at(self, offset: int, data: bytes) -> int:
        """Take ``data`` and return its length."""
        limit = self._file.attribute.limit
        if not limit:
            self._file.folder.write(self._file.entry, self._file.name, data)
            return len(data)
        if offset + len(data) > limit:
            raise OSError(errno.EFBIG, "more than the file takes")
        if self._written is None:
            self._written = bytearray()
        self._written.extend(bytes(max(0, offset - len(self._written))))
        self._written[offset : offset + len(data)] = data
        return len(data)

    def close(self) -> None:
        """Store what a binary file collected."""
        if self._written is not None:
            with contextlib.suppress(OSError):
                self._file.folder.write(self._file.entry, self._file.name, bytes(self._written))
