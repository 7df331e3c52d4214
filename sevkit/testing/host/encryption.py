"""CPUID Fn8000_001F, Encrypted Memory Capabilities (APM volume 3, E.4.17)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING, final

from sevkit.testing.host.spec import MEMORY_ENCRYPTION

if TYPE_CHECKING:
    from sevkit.testing.host.spec import HostSpec


class Features(IntFlag):
    """EAX; bits that decide nothing here are left out."""

    SME = 1 << 0
    SEV = 1 << 1
    SEV_ES = 1 << 3
    SEV_SNP = 1 << 4
    DEBUG_SWAP = 1 << 14
    RMPREAD = 1 << 21
    SEGMENTED_RMP = 1 << 23


@final
@dataclass(frozen=True, slots=True)
class Encryption:
    """What the silicon says; ``max_asid`` is 0 where there is no memory encryption."""

    features: Features
    c_bit: int
    reduction: int
    max_asid: int
    min_sev_asid: int


def parse_encryption(spec: HostSpec) -> Encryption:
    """Return Fn8000_001F of a machine, in parts."""
    found = spec.cpuid(MEMORY_ENCRYPTION)
    return Encryption(
        features=Features(found.eax & sum(Features)),
        c_bit=found.ebx & 0x3F,
        reduction=found.ebx >> 6 & 0x3F,
        max_asid=found.ecx,
        min_sev_asid=found.edx,
    )
