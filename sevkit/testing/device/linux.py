"""The system calls that Python has no function for: mount, namespaces, another process' memory.

Each raises ``OSError`` with the kernel's errno. Linux on x86-64 only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from enum import IntFlag
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Callable

CLONE_NEWNS: Final = 0x0002_0000

#: The most that is read from a caller or written to it at once; no SEV structure comes near.
MAX_COPY: Final = 1 << 20
_ADDRESSES: Final = (1 << 64) - 1

_libc: Final = ctypes.CDLL(None, use_errno=True)


class MountFlag(IntFlag):
    """Flags of mount(2)."""

    NOSUID = 2
    NODEV = 4
    NOEXEC = 8
    BIND = 4096
    REC = 16384
    SLAVE = 1 << 19


class UnmountFlag(IntFlag):
    """Flags of umount2(2)."""

    FORCE = 1
    DETACH = 2


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def mount(source: str, target: Path, kind: str, flags: MountFlag, options: str = "") -> None:
    """Put a file system of type ``kind`` at ``target``; manual page 2 of mount."""
    words = (source.encode(), os.fsencode(target), kind.encode(), int(flags), options.encode())
    _check(_libc.mount(words[0], words[1], words[2], ctypes.c_ulong(words[3]), words[4]), "mount")


def unmount(target: Path, flags: UnmountFlag) -> None:
    """Take the file system at ``target`` away; manual page 2 of umount."""
    _check(_libc.umount2(os.fsencode(target), int(flags)), "umount")


def unshare_mounts() -> None:
    """Give the calling thread mounts of its own, which no other thread sees and which end with it.

    No mount spreads from there to the rest of the machine; what is mounted and unmounted there
    later does spread here, so that nothing is kept busy.
    """
    _check(_libc.unshare(CLONE_NEWNS), "unshare")
    mount("none", Path("/"), "none", MountFlag.REC | MountFlag.SLAVE)


for _function in (_libc.process_vm_readv, _libc.process_vm_writev):
    _function.restype = ctypes.c_ssize_t
    _function.argtypes = (
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_ulong,
        ctypes.c_void_p,
        ctypes.c_ulong,
        ctypes.c_ulong,
    )
#: Two struct iovec: here and there.
_IOVECS: Final = struct.Struct("<QQQQ")
_ROOM: Final = 4096


@final
class ProcessMemory:
    """A process' memory, reached with process_vm_readv(2) and process_vm_writev(2).

    For one thread at a time: it keeps the room that it copies through, because to make some costs
    as much as the copy.
    """

    __slots__ = ("_address", "_room", "_view", "pid")

    def __init__(self, pid: int) -> None:
        self.pid: Final = pid
        self._make_room(_ROOM)

    def read(self, address: int, size: int) -> bytes:
        """Return ``size`` bytes at ``address``; raises ``OSError`` (EFAULT)."""
        self._copy(_libc.process_vm_readv, address, size, b"")
        return self._view[_IOVECS.size : _IOVECS.size + size].tobytes()

    def write(self, address: int, data: bytes) -> None:
        """Write ``data`` at ``address``; raises ``OSError`` (EFAULT)."""
        self._copy(_libc.process_vm_writev, address, len(data), data)

    def _make_room(self, size: int) -> None:
        self._room = ctypes.create_string_buffer(_IOVECS.size + size)
        self._view = memoryview(self._room).cast("B")
        self._address = ctypes.addressof(self._room)

    def _copy(self, function: Callable[..., int], address: int, size: int, data: bytes) -> None:
        # PID 0 is a caller that the kernel cannot name.
        if self.pid > 0 and 0 <= size <= MAX_COPY and 0 <= address <= _ADDRESSES - size:
            if size > len(self._view) - _IOVECS.size:
                self._make_room(size)
            here, room = self._address, self._address + _IOVECS.size
            _IOVECS.pack_into(self._view, 0, room, size, address, size)
            if data:
                self._view[_IOVECS.size : _IOVECS.size + size] = data
            if not size or function(self.pid, here, 1, here + _IOVECS.size // 2, 1, 0) == size:
                return
        # Also where the caller is gone (ESRCH) or out of reach (EPERM): to a driver, its memory
        # is simply not there.
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
