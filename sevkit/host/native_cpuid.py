"""The CPUID instruction of this machine: a few bytes of code, else the device that executes it.

Any user may execute CPUID, also in a container, so no device and no module is needed. Where no
page may be both written and executed (SELinux execmem, MDWE), ``/dev/cpu/0/cpuid`` answers to root.
Source: Linux, arch/x86/kernel/cpuid.c, for the device: the leaf is the offset's lower half.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import struct
from functools import cache
from typing import TYPE_CHECKING, Final

from sevkit.host.reading import Cause, Known, Reading, Unreadable, not_readable
from sevkit.host.source import Registers

if TYPE_CHECKING:
    from collections.abc import Callable

#: Linux' calling convention: push rbx; mov eax, edi; mov ecx, esi; mov r8, rdx; cpuid;
#: mov [r8], eax; mov [r8+4], ebx; mov [r8+8], ecx; mov [r8+12], edx; pop rbx; ret
_CODE: Final = bytes.fromhex("5389f889f14989d00fa241890041895804418948084189500c5bc3")
_DEVICE: Final = "/dev/cpu/0/cpuid"
_REGISTERS: Final = struct.Struct("<4I")


def native_cpuid(leaf: int, subleaf: int = 0) -> Reading[Registers]:
    """Return what this machine's processor answers."""
    if platform.machine() not in {"x86_64", "AMD64"}:
        return Unreadable(Cause.ABSENT, "cpuid: not an x86-64 processor")
    try:
        function = _function()[0]
    except OSError:
        return device_cpuid(leaf, subleaf)
    room = (ctypes.c_uint32 * 4)()
    function(leaf, subleaf, ctypes.addressof(room))
    return Known(Registers(*room))


def device_cpuid(leaf: int, subleaf: int = 0, *, device: str = _DEVICE) -> Reading[Registers]:
    """Return what the device answers, which executes CPUID for who may not."""
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            data = os.pread(descriptor, _REGISTERS.size, leaf | subleaf << 32)
        finally:
            os.close(descriptor)
    except OSError as error:
        return not_readable(device, error)
    if len(data) != _REGISTERS.size:
        return Unreadable(Cause.MALFORMED, f"{device}: {len(data)} bytes are not four registers")
    return Known(Registers(*_REGISTERS.unpack(data)))


@cache
def _function() -> tuple[Callable[[int, int, int], None], mmap.mmap]:
    """Return the code as a function, with the page that it must not outlive.

    Raises ``OSError`` where no code may be made.
    """
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(_CODE)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)
    return kind(ctypes.addressof(ctypes.c_char.from_buffer(page))), page
