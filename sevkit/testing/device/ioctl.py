"""What a simulated character device has to do, free of how it is reached.

A device answers from values alone: the request number, the bytes that it points at, and the
calling process' memory for the pointers nested in them. So it is as good in process, given a
memory made of a bytearray, as it is behind a real descriptor (``sevkit.testing.device.mount``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable


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
