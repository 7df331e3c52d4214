"""Guest policies, platform info and key info: the bit fields of SEV and of SEV-SNP.

Each field stands beside the mask of what is reserved. Must-be-zero policy bits refuse; unknown
platform-info bits do not, because newer chips set bits that older documents reserve: the caller
warns about them. Sources: 55766 chapter 3 (SEV policy), 56860 4.3 (SNP policy), 56860 table 23
(platform info, key info).
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final, NamedTuple

from sevkit.errors import FormatError


class SevPolicy(IntFlag):
    """Low half of the 32-bit SEV guest policy; the high half is the minimum API version."""

    NODBG = 1 << 0
    NOKS = 1 << 1
    ES = 1 << 2
    NOSEND = 1 << 3
    DOMAIN = 1 << 4
    SEV = 1 << 5


SEV_POLICY_RESERVED: Final = 0xFFC0


def parse_sev_policy(value: int) -> SevPolicy:
    """Return the flags of a SEV guest policy. Raises ``FormatError`` on reserved bits."""
    if not 0 <= value < 1 << 32:
        raise FormatError("SEV guest policy", "does not fit 32 bits")
    if value & SEV_POLICY_RESERVED:
        bits = value & SEV_POLICY_RESERVED
        raise FormatError("SEV guest policy", f"reserved bits {bits:#x} are set")
    return SevPolicy(value & 0x3F)


def sev_policy_api(value: int) -> tuple[int, int]:
    """Return the minimum API version (major, minor) that a SEV guest policy demands."""
    return value >> 16 & 0xFF, value >> 24 & 0xFF


class SnpPolicy(IntFlag):
    """The 64-bit SNP guest policy without its ABI version (bits 15:0)."""

    SMT = 1 << 16
    RESERVED_MUST_BE_ONE = 1 << 17
    MIGRATE_MA = 1 << 18
    DEBUG = 1 << 19
    SINGLE_SOCKET = 1 << 20
    CXL_ALLOW = 1 << 21
    MEM_AES_256_XTS = 1 << 22
    RAPL_DIS = 1 << 23
    CIPHERTEXT_HIDING_DRAM = 1 << 24
    PAGE_SWAP_DISABLE = 1 << 25


SNP_POLICY_RESERVED: Final = (1 << 64) - (1 << 26)

#: Bit 17 and SMT allowed: what KubeVirt, QEMU and the tools of the field use.
SNP_POLICY_DEFAULT: Final = 0x30000


def parse_snp_policy(
    value: int, *, structure: str = "SNP guest policy", offset: int | None = None
) -> SnpPolicy:
    """Return the flags of an SNP guest policy read from ``structure`` at ``offset``.

    Raises ``FormatError`` if a must-be-zero bit is set or bit 17 is not.
    """
    if not 0 <= value < 1 << 64:
        raise FormatError(structure, "policy does not fit 64 bits", offset=offset)
    if value & SNP_POLICY_RESERVED:
        bits = value & SNP_POLICY_RESERVED
        raise FormatError(structure, f"policy bits {bits:#x} must be zero", offset=offset)
    if not value & SnpPolicy.RESERVED_MUST_BE_ONE:
        raise FormatError(structure, "policy bit 17 must be one", offset=offset)
    return SnpPolicy(value & ~0xFFFF)


class PlatformInfo(IntFlag):
    """PLATFORM_INFO of an attestation report."""

    SMT_EN = 1 << 0
    TSME_EN = 1 << 1
    ECC_EN = 1 << 2
    RAPL_DIS = 1 << 3
    CIPHERTEXT_HIDING_DRAM_EN = 1 << 4
    ALIAS_CHECK_COMPLETE = 1 << 5
    IOMMU_WRITE_SAFE = 1 << 6
    TIO_EN = 1 << 7


PLATFORM_INFO_KNOWN: Final = 0xFF


class SigningKey(IntEnum):
    """SIGNING_KEY in KEY_INFO: which key signed the report."""

    VCEK = 0
    VLEK = 1
    NONE = 7


class KeyInfo(NamedTuple):
    """KEY_INFO of an attestation report."""

    author_key_en: bool
    mask_chip_key: bool
    signing_key: SigningKey


def parse_key_info(value: int, *, structure: str, offset: int) -> KeyInfo:
    """Return the parts of KEY_INFO. Raises ``FormatError`` on reserved bits and values."""
    if value >> 5:
        raise FormatError(structure, "KEY_INFO bits 31:5 must be zero", offset=offset)
    try:
        signing_key = SigningKey(value >> 2 & 7)
    except ValueError as error:
        raise FormatError(
            structure, f"SIGNING_KEY {value >> 2 & 7} is reserved", offset=offset
        ) from error
    return KeyInfo(bool(value & 1), bool(value & 2), signing_key)
