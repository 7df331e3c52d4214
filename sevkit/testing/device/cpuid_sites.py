"""Where a program's machine code executes CPUID, told from the code around it.

The two bytes ``0F A2`` also occur inside other instructions and inside data, and to overwrite those
would corrupt the program; a site that is missed only shows the real processor. So a place counts
only in the company that compilers give it:

- Rust (LLVM) keeps RBX, which CPUID overwrites, in another register: ``mov REG, rbx; cpuid;
  xchg REG, rbx`` with the same register, eight bytes.
- C and Go: the instruction before sets EAX or ECX, whole (``mov`` of a constant that is a leaf or
  a small subleaf, ``xor`` with itself, or ``mov`` or ``lea`` from a register or the stack), and
  the instruction after moves a result (EAX, EBX, ECX or EDX) out of its register or tests EAX.

Missed by rule: hand-written assembly, and C whose scheduler put other instructions between.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

CPUID: Final = b"\x0f\xa2"
#: The longest instruction before that the rule knows, and a byte before it.
_BEFORE: Final = 6


def _any(*alternatives: bytes) -> bytes:
    return b"(?:" + b"|".join(alternatives) + b")"


def _one_of(values: Iterable[int]) -> bytes:
    return b"[" + b"".join(b"\\x%02x" % value for value in values) + b"]"


_RUST: Final = frozenset(
    bytes([0x48 | high, 0x89, 0xD8 | low])
    + CPUID
    + bytes([0x48 | high << 2, 0x87, 0xC3 | low << 3])
    for high in (0, 1)
    for low in range(8)
)

_EAX_AND_ECX: Final = (0, 1)
_SETS: Final = re.compile(
    _any(
        rb"(?<![\x40-\x4f])\xb8.[\x00\x01]\x00[\x00\x40\x80]",  # mov eax, leaf
        rb"(?<![\x40-\x4f])\xb9.\x00\x00\x00",  # mov ecx, subleaf
        rb"\x31[\xc0\xc9]",  # xor with itself
        rb"\x89" + _one_of(0xC0 | reg << 3 | to for reg in range(8) for to in _EAX_AND_ECX),
        rb"\x8b" + _one_of(0xC0 | to << 3 | reg for reg in range(8) for to in _EAX_AND_ECX),
        rb"[\x8b\x8d][\x45\x4d].",  # mov or lea from [rbp+d]
        rb"\x8b[\x44\x4c]\x24.",  # mov from [rsp+d]
        rb"\x8d[\x40-\x4f]\xff",  # lea from [REG-1]
    )
    + rb"\Z",
    re.DOTALL,
)
_EAX_TO_EBX: Final = (0, 1, 2, 3)
_USES: Final = re.compile(
    _any(
        rb"[\x40\x41]?\x89" + _one_of(b for b in range(256) if b >> 3 & 7 in _EAX_TO_EBX),
        rb"\x85\xc0",  # test eax, eax
        rb"\x3d|\x83\xf8",  # cmp eax, constant
    ),
    re.DOTALL,
)


def find_cpuid_sites(code: bytes) -> tuple[int, ...]:
    """Return the offsets in ``code`` of the CPUID instructions that the rule takes."""
    return tuple(at for at in _places(code) if _taken(code, at))


def _places(code: bytes) -> Iterable[int]:
    at = code.find(CPUID)
    while at >= 0:
        yield at
        at = code.find(CPUID, at + 1)


def _taken(code: bytes, at: int) -> bool:
    if code[max(0, at - 3) : at + 5] in _RUST:
        return True
    before = code[max(0, at - _BEFORE) : at]
    return bool(_SETS.search(before) and _USES.match(code, at + len(CPUID)))
