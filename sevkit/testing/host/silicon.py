"""CPUID of the CPUs that simulated hosts have, register by register.

EPYC 7601 and 7502 are whole dumps of real machines; EPYC 7413, 9224 and Turin answer what makes
``/proc/cpuinfo`` read as it does on real ones, with Milan's real Fn8000_001F; Genoa's and Turin's
add to it the features that Linux knows of them. The others are a neighbour's registers under a
signature of their own. A leaf that is not listed answers zeros, as CPUs do for reserved ones.
Layout: APM volume 3, appendix E.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias

from sevkit.testing.host.spec import MEMORY_ENCRYPTION, NOTHING, Registers

if TYPE_CHECKING:
    from collections.abc import Mapping

Leaves: TypeAlias = "Mapping[tuple[int, int], Registers]"

_BRAND: Final = 0x80000002
_BRAND_SIZE: Final = 48
#: Fn0000_0001 ECX: a hypervisor is present.
HYPERVISOR: Final = 1 << 31


def parse_leaves(text: str) -> Leaves:
    """Return the registers in lines of ``LEAF.SUBLEAF EAX EBX ECX EDX``, in hex."""
    found = {}
    for line in text.strip().splitlines():
        where, *values = line.split()
        leaf, _, subleaf = where.partition(".")
        found[int(leaf, 16), int(subleaf, 16)] = Registers(*(int(value, 16) for value in values))
    return MappingProxyType(found)


def with_changes(leaves: Leaves, changes: str, *, brand: str = "") -> Leaves:
    """Return ``leaves`` with some replaced (lines as above), and with another brand string."""
    named = _brand_leaves(brand) if brand else {}
    return MappingProxyType({**leaves, **parse_leaves(changes), **named})


def _brand_leaves(brand: str) -> dict[tuple[int, int], Registers]:
    """Return Fn8000_0002 to 0004: the brand string, padded with spaces and ended by a NUL."""
    data = brand.encode("ascii").ljust(_BRAND_SIZE - 1, b" ") + b"\0"
    words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, _BRAND_SIZE, 4)]
    return {(_BRAND + i, 0): Registers(*words[4 * i : 4 * i + 4]) for i in range(3)}


def as_guest(leaves: Leaves) -> Leaves:
    """Return what a guest of KVM sees of ``leaves``: a hypervisor, and no memory encryption."""
    one = leaves[1, 0]
    return MappingProxyType(
        {
            **leaves,
            (1, 0): one._replace(ecx=one.ecx | HYPERVISOR),
            # "KVMKVMKVM" in EBX, ECX and EDX.
            (0x40000000, 0): Registers(0x40000001, 0x4B4D564B, 0x564B4D56, 0x4D),
            (MEMORY_ENCRYPTION, 0): NOTHING,
        }
    )


NAPLES: Final = with_changes(
    {},
    """
    00000000.0 0000000d 68747541 444d4163 69746e65
    00000001.0 00800f12 08400800 7ed8320b 178bfbff
    00000005.0 00000040 00000040 00000003 00000011
    00000006.0 00000004 00000000 00000001 00000000
    00000007.0 00000000 209c01a9 00000000 00000000
    0000000d.0 00000007 00000340 00000340 00000000
    0000000d.1 0000000f 00000340 00000000 00000000
    0000000d.2 00000100 00000240 00000000 00000000
    80000000.0 8000001f 68747541 444d4163 69746e65
    80000001.0 00800f12 40000000 35c233ff 2fd3fbff
    80000005.0 ff40ff40 ff40ff40 20080140 40040140
    80000006.0 36006400 56006400 02006140 0200c140
    80000007.0 00000000 0000001b 00000000 00006799
    80000008.0 00003030 00000007 0000603f 00000000
    8000000a.0 00000001 00008000 00000000 0001bcff
    80000019.0 f040f040 00000000 00000000 00000000
    8000001a.0 00000003 00000000 00000000 00000000
    8000001b.0 000003ff 00000000 00000000 00000000
    8000001d.0 00004121 01c0003f 0000003f 00000000
    8000001d.1 00004122 00c0003f 000000ff 00000000
    8000001d.2 00004143 01c0003f 000003ff 00000002
    8000001d.3 0001c163 03c0003f 00001fff 00000001
    8000001e.0 00000008 00000104 00000300 00000000
    8000001f.0 0000000f 0000016f 0000000f 00000001
    """,
    brand="AMD EPYC 7601 32-Core Processor",
)

ROME: Final = with_changes(
    NAPLES,
    """
    00000000.0 00000010 68747541 444d4163 69746e65
    00000001.0 00830f10 31400800 7ed8320b 178bfbff
    00000007.0 00000000 219c91a9 00400004 00000000
    0000000b.0 00000001 00000002 00000100 00000031
    0000000b.1 00000007 00000040 00000201 00000031
    0000000d.0 00000207 00000340 00000380 00000000
    0000000d.9 00000040 00000340 00000000 00000000
    0000000f.0 00000000 000000ff 00000000 00000002
    0000000f.1 00000000 00000040 000000ff 00000007
    00000010.0 00000000 00000002 00000000 00000000
    00000010.1 0000000f 00000000 00000004 0000000f
    80000000.0 80000020 68747541 444d4163 69746e65
    80000001.0 00830f10 40000000 75c237ff 2fd3fbff
    80000005.0 ff40ff40 ff40ff40 20080140 20080140
    80000006.0 48006400 68006400 02006140 04009140
    80000008.0 00003030 018cf757 0000703f 00010000
    8000000a.0 00000001 00008000 00000000 0013bcff
    8000001a.0 00000006 00000000 00000000 00000000
    8000001d.1 00004122 01c0003f 0000003f 00000000
    8000001d.3 0001c163 03c0003f 00003fff 00000001
    8000001e.0 00000031 00000118 00000000 00000000
    8000001f.0 0001000f 0000016f 000001fd 00000001
    80000020.0 00000000 00000002 00000000 00000000
    80000020.1 0000000b 00000000 00000000 0000000f
    """,
    brand="AMD EPYC 7502 32-Core Processor",
)

MILAN: Final = with_changes(
    ROME,
    """
    00000001.0 00a00f11 00300800 7efa320b 178bfbff
    00000007.0 00000000 219c95a9 0040061c 00000000
    80000000.0 80000023 68747541 444d4163 69746e65
    80000001.0 00a00f11 40000000 75c237ff 2fd3fbff
    80000006.0 48002200 68004200 02006140 08009140
    80000008.0 00003030 91bef75f 0000702f 00010000
    8000000a.0 00000001 00008000 00000000 101b9cff
    8000001f.0 0101fd3f 00004173 000001fd 00000080
    80000021.0 0000004d 00000000 00000000 00000000
    """,
    brand="AMD EPYC 7413 24-Core Processor",
)

GENOA: Final = with_changes(
    MILAN,
    """
    00000001.0 00a10f11 00300800 7efa320b 178bfbff
    00000007.0 00000001 f1bf97a9 00415fde 10000010
    00000007.1 00000020 00000000 00000000 00000000
    80000000.0 80000028 68747541 444d4163 69746e65
    80000001.0 00a10f11 40000000 75c237ff 2fd3fbff
    80000006.0 5c002200 6c004200 04006140 08009140
    80000008.0 00003934 799ef757 0000702f 00010000
    8000000a.0 00000001 00008000 00000000 1ebfbcff
    8000001f.0 0101fd3f 000041b3 000003ee 00000001
    80000021.0 00062fcf 0000015c 00000000 00000000
    80000022.0 00000003 00040046 00000000 00000000
    """,
    brand="AMD EPYC 9224 24-Core Processor",
)

BERGAMO: Final = with_changes(
    GENOA,
    """
    00000001.0 00aa0f02 00ff0800 7efa320b 178bfbff
    80000001.0 00aa0f02 40000000 75c237ff 2fd3fbff
    """,
    brand="AMD EPYC 9754 128-Core Processor",
)

SIENA: Final = with_changes(
    GENOA,
    """
    00000001.0 00aa0f02 00400800 7efa320b 178bfbff
    80000001.0 00aa0f02 80000000 75c237ff 2fd3fbff
    """,
    brand="AMD EPYC 8324P 32-Core Processor",
)

TURIN: Final = with_changes(
    GENOA,
    """
    00000001.0 00b00f21 00800800 7efa320b 178bfbff
    00000007.0 00000001 f1bf97ab 19415fde 10000110
    00000007.1 00000030 00000000 00000000 00000000
    80000001.0 00b00f21 40000000 75c237ff 2fd3fbff
    8000000a.0 00000001 00008000 00000000 3ebfbcff
    8000001f.0 0ba1fd3f 000041b3 000003ee 00000001
    80000022.0 00000007 00100046 00000000 00000000
    80000025.0 00000028 00000200 00000000 00000000
    """,
    brand="AMD EPYC 9575F 64-Core Processor",
)

TURIN_DENSE: Final = with_changes(
    TURIN,
    """
    00000001.0 00b10f10 00ff0800 7efa320b 178bfbff
    80000001.0 00b10f10 40000000 75c237ff 2fd3fbff
    """,
    brand="AMD EPYC 9965 192-Core Processor",
)

SAPPHIRE_RAPIDS: Final = with_changes(
    {},
    """
    00000000.0 00000020 756e6547 6c65746e 49656e69
    00000001.0 000806f8 00400800 7ffefbff bfebfbff
    00000006.0 00df8ff7 00000002 00000401 00000003
    00000007.0 00000002 f3bfbffb fb417ffe ffdd4432
    00000007.1 00001c30 00000000 00000000 00000000
    0000000d.1 0000001f 00002a00 00001900 00000000
    80000000.0 80000008 00000000 00000000 00000000
    80000001.0 00000000 00000000 00000121 2c100800
    80000006.0 00000000 00000000 08007040 00000000
    80000007.0 00000000 00000000 00000000 00000100
    80000008.0 00003934 00000000 00000000 00000000
    """,
    brand="Intel(R) Xeon(R) Platinum 8480+",
)
