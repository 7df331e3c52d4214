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
_ADDRESSES: Final = 1 << 64

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


#: struct iovec as two words, because a class of ctypes costs more than the call.
_iovec: Final = struct.Struct("<QQ").pack
for _function in (_libc.process_vm_readv, _libc.process_vm_writev):
    _function.restype = ctypes.c_ssize_t
    _function.argtypes = (
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_ulong,
        ctypes.c_char_p,
        ctypes.c_ulong,
        ctypes.c_ulong,
    )


@final
class ProcessMemory:
    """A process' memory, reached with process_vm_readv(2) and process_vm_writev(2)."""

    __slots__ = ("_pid",)

    def __init__(self, pid: int) -> None:
        self._pid: Final = pid

    def read(self, address: int, size: int) -> bytes:
        """Return ``size`` bytes at ``address``; raises ``OSError`` (EFAULT)."""
        return self._copy(_libc.process_vm_readv, address, bytes(_bounded(size)))

    def write(self, address: int, data: bytes) -> None:
        """Write ``data`` at ``address``; raises ``OSError`` (EFAULT)."""
        _bounded(len(data))
        self._copy(_libc.process_vm_writev, address, data)

    def _copy(self, function: Callable[..., int], address: int, data: bytes) -> bytes:
        size = len(data)
        if not size:
            return data
        # PID 0 is a caller that the kernel cannot name.
        if self._pid > 0 and 0 <= address <= _ADDRESSES - size:
            local = ctypes.create_string_buffer(data, size)
            here = _iovec(ctypes.addressof(local), size)
            if function(self._pid, here, 1, _iovec(address, size), 1, 0) == size:
                return local.raw
        # Also where the caller is gone (ESRCH) or out of reach (EPERM): to a driver, its memory
        # is simply not there.
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))


def _bounded(size: int) -> int:
    if not 0 <= size <= MAX_COPY:
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
    return size
