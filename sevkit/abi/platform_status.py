"""What PLATFORM_STATUS and SNP_PLATFORM_STATUS say of a secure processor.

Sources: 55766 5.5 (PLATFORM_STATUS), 56860 8.3 (SNP_PLATFORM_STATUS, STRUCT_PLATFORM_STATUS), and
``include/uapi/linux/psp-sev.h`` for the packed form in which Linux hands both out. TCB versions
are raw: their bytes mean nothing without the product line (``sevkit.abi.tcb``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from functools import lru_cache
from typing import Final, final

from sevkit.abi.layout import Layout, integer
from sevkit.errors import FormatError


class PlatformState(IntEnum):
    """PSTATE: where the SEV platform is."""

    UNINIT = 0
    INIT = 1
    WORKING = 2


class StatusFlags(IntFlag):
    """Flags of PLATFORM_STATUS: bit 0 is OWNER (external), bit 8 is CONFIG.ES."""

    OWNED = 1 << 0
    CONFIG_ES = 1 << 8


class SnpStatusBits(IntFlag):
    """Byte 3 of SNP_PLATFORM_STATUS."""

    RMP_INITIALIZED = 1 << 0
    ALIAS_CHECK_COMPLETE = 1 << 1
    TIO_EN = 1 << 3


class SnpStatusFlags(IntFlag):
    """The 32-bit flags of SNP_PLATFORM_STATUS."""

    MASK_CHIP_ID = 1 << 0
    MASK_CHIP_KEY = 1 << 1
    VLEK_EN = 1 << 2
    FEATURE_INFO = 1 << 3
    RAPL_DIS = 1 << 4
    CIPHERTEXT_HIDING_CAP = 1 << 5
    CIPHERTEXT_HIDING_EN = 1 << 6
    TIO_EN = 1 << 7


PLATFORM_STATUS: Final = Layout(
    "PLATFORM_STATUS",
    12,
    (
        integer(0, 1, "api_major"),
        integer(1, 1, "api_minor"),
        integer(2, 1, "state"),
        integer(3, 4, "flags"),
        integer(7, 1, "build"),
        integer(8, 4, "guest_count"),
    ),
)

SNP_PLATFORM_STATUS: Final = Layout(
    "SNP_PLATFORM_STATUS",
    32,
    (
        integer(0x00, 1, "api_major"),
        integer(0x01, 1, "api_minor"),
        integer(0x02, 1, "state"),
        integer(0x03, 1, "bits"),
        integer(0x04, 4, "build_id"),
        integer(0x08, 4, "flags"),
        integer(0x0C, 4, "guest_count"),
        integer(0x10, 8, "current_tcb"),
        integer(0x18, 8, "reported_tcb"),
    ),
)


@final
@dataclass(frozen=True, slots=True)
class PlatformStatus:
    """The SEV platform: API version, state, ownership, whether SEV-ES is on, and its guests."""

    api_major: int
    api_minor: int
    state: PlatformState
    flags: StatusFlags
    build: int
    guest_count: int

    def encode(self) -> bytes:
        """Return the 12 bytes that Linux hands out."""
        return _encode(self)


@lru_cache(maxsize=64)
def _encode(status: PlatformStatus) -> bytes:
    """Return the bytes of a status; a platform says the same over and over."""
    return PLATFORM_STATUS.encode({name: getattr(status, name) for name in status.__slots__})


@final
@dataclass(frozen=True, slots=True)
class SnpPlatformStatus:
    """The SNP platform: ``state`` is 0 (UNINIT) or 1 (INIT); TCB versions are raw, 64 bits."""

    api_major: int
    api_minor: int
    state: PlatformState
    bits: SnpStatusBits
    build_id: int
    flags: SnpStatusFlags
    guest_count: int
    current_tcb: int
    reported_tcb: int

    def encode(self) -> bytes:
        """Return the 32 bytes."""
        return SNP_PLATFORM_STATUS.encode({name: getattr(self, name) for name in self.__slots__})


def parse_platform_status(data: bytes) -> PlatformStatus:
    """Return the status in exactly 12 bytes. Raises ``FormatError`` for a state that is none.

    Unknown flags are kept: newer firmware may define them.
    """
    record = PLATFORM_STATUS.parse(data)
    return PlatformStatus(
        record.int("api_major"),
        record.int("api_minor"),
        _state(PLATFORM_STATUS, record.int("state"), 2),
        StatusFlags(record.int("flags")),
        record.int("build"),
        record.int("guest_count"),
    )


def parse_snp_platform_status(data: bytes) -> SnpPlatformStatus:
    """Return the status in exactly 32 bytes; errors as ``parse_platform_status``."""
    record = SNP_PLATFORM_STATUS.parse(data)
    return SnpPlatformStatus(
        record.int("api_major"),
        record.int("api_minor"),
        _state(SNP_PLATFORM_STATUS, record.int("state"), 1),
        SnpStatusBits(record.int("bits")),
        record.int("build_id"),
        SnpStatusFlags(record.int("flags")),
        record.int("guest_count"),
        record.int("current_tcb"),
        record.int("reported_tcb"),
    )


def _state(layout: Layout, value: int, highest: int) -> PlatformState:
    if value > highest:
        raise FormatError(layout.name, f"state {value} is not 0 to {highest}", offset=2)
    return PlatformState(value)
