"""The CPUID of the processor that this runs on, and what of it a simulation must keep.

A program that asks CPUID which instructions it may use, and is told of one that this processor
lacks, dies of it. So answers about instructions are those that both processors have.
Source: APM volume 3, appendix E.
"""

from __future__ import annotations

import ctypes
import mmap
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sevkit.testing.device.registers import Cpuid

#: push rbx; mov eax, edi; mov ecx, esi; mov r8, rdx; cpuid;
#: mov [r8], eax; mov [r8+4], ebx; mov [r8+8], ecx; mov [r8+12], edx; pop rbx; ret
_CODE: Final = bytes.fromhex("5389f889f14989d00fa241890041895804418948084189500c5bc3")

_ALL: Final = 0xFFFF_FFFF
_HYPERVISOR: Final = 1 << 31
#: By leaf: the bits of EAX, EBX, ECX and EDX that name instructions.
_INSTRUCTIONS: Final[Mapping[int, tuple[int, int, int, int]]] = {
    0x0000_0001: (0, 0, _ALL ^ _HYPERVISOR, _ALL),
    0x0000_0007: (0, _ALL, _ALL, _ALL),
    0x8000_0001: (0, 0, _ALL, _ALL),
}
#: Leaves about registers' layout in memory and tiles, which only the real processor can answer.
_LAYOUTS: Final = frozenset({0x0D, 0x14, 0x19, 0x1D, 0x1E, 0x24})


@cache
def _function() -> tuple[Callable[[int, int, object], None], mmap.mmap]:
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(_CODE)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)
    return kind(ctypes.addressof(ctypes.c_char.from_buffer(page))), page


def real_cpuid(leaf: int, subleaf: int) -> tuple[int, int, int, int]:
    """Execute CPUID; returns EAX, EBX, ECX, EDX. Raises ``OSError`` where no code may be made."""
    registers = (ctypes.c_uint32 * 4)()
    _function()[0](leaf, subleaf, ctypes.byref(registers))
    return registers[0], registers[1], registers[2], registers[3]


def runnable_cpuid(simulated: Cpuid, real: Cpuid = real_cpuid) -> Cpuid:
    """Return ``simulated`` without the instructions that ``real`` lacks."""

    def answer(leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        if leaf in _LAYOUTS:
            return real(leaf, subleaf)
        told = simulated(leaf, subleaf)
        masks = _INSTRUCTIONS.get(leaf)
        if masks is None:
            return told
        eax, ebx, ecx, edx = (
            one & (other | ~mask & _ALL)
            for one, other, mask in zip(told, real(leaf, subleaf), masks, strict=True)
        )
        return eax, ebx, ecx, edx

    return answer
