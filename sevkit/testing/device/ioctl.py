"""What a simulated device or folder of the kernel's has to do, free of how it is reached.

A device answers from values alone: the request number, the bytes that it points at, and the
calling process' memory for the pointers nested in them. So it is as good in process, given a
memory made of a bytearray, as it is behind a real descriptor (``sevkit.testing.device.mount``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, final, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping


class CallerMemory(Protocol):
    """The memory of the process that issued an ioctl."""

    def read(self, address: int, size: int) -> bytes:
        """Return ``size`` bytes at ``address``; raises ``OSError`` (EFAULT) if any is unmapped."""
        ...

    def write(self, address: int, data: bytes) -> None:
        """Write ``data`` at ``address``; raises ``OSError`` (EFAULT) if any of it is unmapped."""
        ...


@final
@dataclass(frozen=True, slots=True)
class IoctlReply:
    """What an ioctl returns: ``result`` is 0 or more, or a negative errno.

    ``data`` is copied back to where the argument pointed, also when the result is negative: that
    is how a firmware error reaches the caller beside EIO.
    """

    result: int = 0
    data: bytes = b""


@runtime_checkable
class IoctlFile(Protocol):
    """A character device that is driven by ioctls, one at a time."""

    def ioctl(
        self, request: int, argument: bytes, memory: CallerMemory, *, writable: bool
    ) -> IoctlReply:
        """Answer one request.

        ``argument`` is a copy of what the argument points at, of the size in the request's number
        (_IOC_SIZE), empty if the request only returns data (_IOR), and the 8 little-endian bytes
        of the argument itself if that size is 0 (_IO). ``writable`` says whether the file was
        opened for writing. An ``OSError`` out of this, as from ``memory``, becomes its errno.
        """
        ...


@runtime_checkable
class ReadableFile(Protocol):
    """A character device that is read at offsets which are not positions, such as an MSR's number.

    A device may be this beside being an ``IoctlFile``, or alone.
    """

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes; an ``OSError`` out of this becomes its errno."""
        ...


class EntryAttribute(NamedTuple):
    """One file of an entry: its mode, and for a binary one the most bytes that it takes.

    A text file (``limit`` 0) is stored with every write(2). A binary one collects what is written,
    and is stored when it is closed, where nobody hears of a refusal: as in configfs.
    """

    mode: int
    limit: int = 0


@runtime_checkable
class EntryFolder(Protocol):
    """A folder as configfs has them: whoever makes a folder in it gets the kernel's files there.

    Each method may raise ``OSError``, which becomes the caller's errno.
    """

    @property
    def attributes(self) -> Mapping[str, EntryAttribute]:
        """The files of every entry, by name."""
        ...

    def make(self, entry: str) -> None:
        """Make an entry."""
        ...

    def remove(self, entry: str) -> None:
        """Remove an entry with its files."""
        ...

    def read(self, entry: str, attribute: str) -> bytes:
        """Return the whole of a file, as the first read of an open file takes it."""
        ...

    def write(self, entry: str, attribute: str, data: bytes) -> None:
        """Store a file."""
        ...
