from __future__ import annotations

import pytest

from sevkit.abi.platform_status import (
    PLATFORM_STATUS,
    SNP_PLATFORM_STATUS,
    PlatformState,
    PlatformStatus,
    SnpPlatformStatus,
    SnpStatusBits,
    SnpStatusFlags,
    StatusFlags,
    parse_platform_status,
    parse_snp_platform_status,
)
from sevkit.errors import FormatError

#: As Linux hands it out: flags are 32 bits from byte 3 on, the build stands behind them.
SEV = bytes.fromhex("01 37 02 01010000 28 03000000")
SNP = bytes.fromhex("01 37 01 03 28000000 6d000000 02000000 04000000000018db 03000000000017d1")


def test_the_twelve_bytes_of_linux_are_read() -> None:
    flags = StatusFlags.OWNED | StatusFlags.CONFIG_ES
    assert parse_platform_status(SEV) == PlatformStatus(1, 55, PlatformState.WORKING, flags, 40, 3)


def test_the_thirty_two_bytes_of_snp_are_read() -> None:
    assert parse_snp_platform_status(SNP) == SnpPlatformStatus(
        1,
        55,
        PlatformState.INIT,
        SnpStatusBits.RMP_INITIALIZED | SnpStatusBits.ALIAS_CHECK_COMPLETE,
        40,
        SnpStatusFlags.MASK_CHIP_ID
        | SnpStatusFlags.VLEK_EN
        | SnpStatusFlags.FEATURE_INFO
        | SnpStatusFlags.CIPHERTEXT_HIDING_CAP
        | SnpStatusFlags.CIPHERTEXT_HIDING_EN,
        2,
        0xDB18_0000_0000_0004,
        0xD117_0000_0000_0003,
    )


def test_both_are_written_as_they_were_read() -> None:
    assert parse_platform_status(SEV).encode() == SEV
    assert parse_snp_platform_status(SNP).encode() == SNP


@pytest.mark.parametrize("size", [0, 11, 13, 32])
def test_a_sev_status_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(FormatError, match="expected 12 bytes"):
        parse_platform_status(bytes(size))


@pytest.mark.parametrize("size", [0, 12, 31, 33])
def test_an_snp_status_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(FormatError, match="expected 32 bytes"):
        parse_snp_platform_status(bytes(size))


def test_a_state_that_is_none_is_refused_with_its_offset() -> None:
    with pytest.raises(FormatError, match="state 3 is not 0 to 2") as sev:
        parse_platform_status(SEV[:2] + b"\3" + SEV[3:])
    with pytest.raises(FormatError, match="state 2 is not 0 to 1") as snp:
        parse_snp_platform_status(SNP[:2] + b"\2" + SNP[3:])
    assert (sev.value.offset, snp.value.offset) == (2, 2)


def test_flags_of_newer_firmware_are_kept() -> None:
    data = bytes.fromhex("02 01 00 ffffffff 00 00000000")
    assert parse_platform_status(data).encode() == data
    wide = bytes.fromhex("02 01 00 ff 00000000 ffffffff") + bytes(20)
    assert parse_snp_platform_status(wide).encode() == wide


def test_layouts_are_linuxs_structures() -> None:
    assert (PLATFORM_STATUS.size, SNP_PLATFORM_STATUS.size) == (12, 32)
    assert {row.name: row.offset for row in SNP_PLATFORM_STATUS.fields} == {
        "api_major": 0,
        "api_minor": 1,
        "state": 2,
        "bits": 3,
        "build_id": 4,
        "flags": 8,
        "guest_count": 12,
        "current_tcb": 16,
        "reported_tcb": 24,
    }
