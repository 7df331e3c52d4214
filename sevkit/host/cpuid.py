"""CPUID, as far as it is about memory encryption: who made the processor, and what it can do.

Layout: APM volume 3, appendix E; Fn8000_001F is E.4.17. Every field has a leaf of its own behind
it, and a copy of a host need not have them all, so each is None where its leaf was not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING, Final, final

from sevkit.host.reading import Known, Reading, Unreadable

if TYPE_CHECKING:
    from sevkit.host.source import HostSource, Registers

VENDOR: Final = 0x0000_0000
FEATURES: Final = 0x0000_0001
LAST_EXTENDED: Final = 0x8000_0000
EXTENDED_FEATURES: Final = 0x8000_0001
BRAND: Final = range(0x8000_0002, 0x8000_0005)
ADDRESS_SIZES: Final = 0x8000_0008
MEMORY_ENCRYPTION: Final = 0x8000_001F

_HYPERVISOR: Final = 1 << 31


class Features(IntFlag):
    """Fn8000_001F EAX, by AMD's names; bits that are not listed are kept."""

    SME = 1 << 0
    SEV = 1 << 1
    PAGE_FLUSH_MSR = 1 << 2
    SEV_ES = 1 << 3
    SEV_SNP = 1 << 4
    VMPL = 1 << 5
    SECURE_TSC = 1 << 8
    HOST_64_BIT = 1 << 11
    DEBUG_SWAP = 1 << 14
    RMPREAD = 1 << 21
    SEGMENTED_RMP = 1 << 23


@final
@dataclass(frozen=True, slots=True)
class Encryption:
    """Fn8000_001F: features, C-bit and what it costs, VMPLs, and the ASIDs of guests.

    ``c_bit`` is the number of the bit, ``reduction`` how many bits of the physical address are
    lost. ASIDs from ``min_sev_asid`` to ``max_asid`` are for SEV, those below for SEV-ES and SNP.
    """

    features: Features
    c_bit: int
    reduction: int
    vmpls: int
    max_asid: int
    min_sev_asid: int

    @property
    def sev_asids(self) -> int:
        """How many guests of SEV alone there can be at once."""
        return max(0, self.max_asid - max(1, self.min_sev_asid) + 1)

    @property
    def encrypted_state_asids(self) -> int:
        """How many guests of SEV-ES and SEV-SNP together there can be at once."""
        return max(0, self.min_sev_asid - 1)


@final
@dataclass(frozen=True, slots=True)
class Signature:
    """Family and model, the extended parts added, and stepping (Fn0000_0001 EAX)."""

    family: int
    model: int
    stepping: int


@final
@dataclass(frozen=True, slots=True)
class CpuidFacts:
    """What the processor says of itself. ``encryption`` is without features where there is none.

    ``package`` is the type of the socket (Fn8000_0001 EBX[31:28]), ``physical_bits`` the size of a
    physical address before memory encryption takes its share.
    """

    encryption: Encryption
    vendor: str | None = None
    signature: Signature | None = None
    package: int | None = None
    hypervisor: bool | None = None
    physical_bits: int | None = None
    brand: str | None = None


def probe_cpuid(source: HostSource) -> Reading[CpuidFacts]:
    """Ask the processor. Without Fn8000_001F nothing is known, and the reason is returned."""
    encryption = _encryption(source)
    if isinstance(encryption, Unreadable):
        return encryption
    zero, one = _leaf(source, VENDOR), _leaf(source, FEATURES)
    extended, sizes = _leaf(source, EXTENDED_FEATURES), _leaf(source, ADDRESS_SIZES)
    signed = one or extended
    return Known(
        CpuidFacts(
            encryption.value,
            vendor=None if zero is None else _vendor(zero),
            signature=None if signed is None else parse_signature(signed.eax),
            package=None if extended is None else extended.ebx >> 28,
            hypervisor=None if one is None else bool(one.ecx & _HYPERVISOR),
            physical_bits=None if sizes is None else sizes.eax & 0xFF or None,
            brand=_brand(source),
        )
    )


def parse_signature(eax: int) -> Signature:
    """Return the signature in EAX; Intel and AMD extend families from 0Fh on, Intel models too."""
    family, model = eax >> 8 & 0xF, eax >> 4 & 0xF
    if family in {0x6, 0xF}:
        model |= eax >> 12 & 0xF0
    if family == 0xF:
        family += eax >> 20 & 0xFF
    return Signature(family, model, eax & 0xF)


def parse_encryption(found: Registers) -> Encryption:
    """Return Fn8000_001F in parts."""
    return Encryption(
        features=Features(found.eax),
        c_bit=found.ebx & 0x3F,
        reduction=found.ebx >> 6 & 0x3F,
        vmpls=found.ebx >> 12 & 0xF,
        max_asid=found.ecx,
        min_sev_asid=found.edx,
    )


def _encryption(source: HostSource) -> Reading[Encryption]:
    last = _leaf(source, LAST_EXTENDED)
    if last is not None and last.eax < MEMORY_ENCRYPTION:
        # Beyond the last leaf a processor answers anything; there is no such leaf.
        return Known(Encryption(Features(0), 0, 0, 0, 0, 0))
    found = source.cpuid(MEMORY_ENCRYPTION)
    return found if isinstance(found, Unreadable) else Known(parse_encryption(found.value))


def _leaf(source: HostSource, leaf: int) -> Registers | None:
    found = source.cpuid(leaf)
    return found.value if isinstance(found, Known) else None


def _vendor(found: Registers) -> str:
    return _text(found.ebx, found.edx, found.ecx)


def _brand(source: HostSource) -> str | None:
    leaves = [_leaf(source, leaf) for leaf in BRAND]
    words = [word for leaf in leaves if leaf is not None for word in leaf]
    return _text(*words) if len(words) == len(BRAND) * 4 else None


def _text(*words: int) -> str:
    data = b"".join(word.to_bytes(4, "little") for word in words)
    shown = data.partition(b"\0")[0].decode("ascii", "replace")
    return "".join(c if c.isprintable() else "?" for c in shown).strip()
