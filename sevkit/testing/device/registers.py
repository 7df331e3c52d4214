"""Simulated /dev/cpu/N/msr and /dev/cpu/N/cpuid: files whose offset is a register or a leaf.

Sources: Linux arch/x86/kernel/msr.c and cpuid.c; APM volume 2, 15.34.1 and 15.36.1 (SYSCFG) and
15.36.4 (RMP_BASE, RMP_END).
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    #: Leaf (EAX) and subleaf (ECX) to EAX, EBX, ECX, EDX.
    Cpuid = Callable[[int, int], tuple[int, int, int, int]]

_LEAF: Final = struct.Struct("<4I")
_MASK: Final = 0xFFFF_FFFF


class Msr(IntEnum):
    """The registers that decide about memory encryption on a host."""

    SYSCFG = 0xC001_0010
    HWCR = 0xC001_0015
    RMP_BASE = 0xC001_0132
    RMP_END = 0xC001_0133
    RMP_CFG = 0xC001_0136


class Syscfg(IntFlag):
    """Bits of SYSCFG."""

    MFDM = 1 << 19
    MEM_ENCRYPTION = 1 << 23
    SNP = 1 << 24
    SNP_VMPL = 1 << 25


#: HWCR bit 0: without it Linux hides SEV, because SMM is open.
SMM_LOCK: Final = 1


def encryption_registers(
    syscfg: Syscfg, rmp: range | None, *, smm_lock: bool = True
) -> dict[int, int]:
    """Return the registers of a host; ``rmp`` is the physical memory of its RMP, None for none."""
    return {
        Msr.SYSCFG: int(syscfg),
        Msr.HWCR: SMM_LOCK if smm_lock else 0,
        Msr.RMP_BASE: rmp.start if rmp else 0,
        Msr.RMP_END: rmp.stop - 1 if rmp else 0,
    }


@final
@dataclass(frozen=True, slots=True)
class MsrFile:
    """A processor's model-specific registers by number; one that is not there is EIO."""

    registers: Mapping[int, int]

    def read_at(self, offset: int, size: int) -> bytes:
        """Return register ``offset``, as often as ``size`` has 8 bytes; other sizes are EINVAL."""
        _whole(size, 8)
        value = self.registers.get(offset & _MASK)
        if value is None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return value.to_bytes(8, "little") * (size // 8)


@final
@dataclass(frozen=True, slots=True)
class CpuidFile:
    """A processor's CPUID; the offset is the leaf, and the subleaf in the upper half."""

    cpuid: Cpuid

    def read_at(self, offset: int, size: int) -> bytes:
        """Return EAX, EBX, ECX, EDX of leaf after leaf, 16 bytes each; other sizes are EINVAL."""
        _whole(size, _LEAF.size)
        positions = range(offset, offset + size // _LEAF.size)
        return b"".join(_LEAF.pack(*self.cpuid(at & _MASK, at >> 32 & _MASK)) for at in positions)


def _whole(size: int, unit: int) -> None:
    if size % unit:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
