"""Values of options: what is read, and that nothing else is."""

from __future__ import annotations

import click
import pytest

from sevkit.abi.policy import parse_sev_policy, parse_snp_policy
from sevkit.cli.values import (
    FirmwareVersion,
    GuestPolicy,
    HexNumber,
    Sha256Hex,
    VcpuRange,
    WholeNumber,
)


@pytest.mark.parametrize(
    ("text", "expected"), [("1", (1, 1)), ("512", (512, 512)), ("2-9", (2, 9)), ("007", (7, 7))]
)
def test_a_range_of_vcpus_is_read(text: str, expected: tuple[int, int]) -> None:
    assert VcpuRange().convert(text, None, None) == expected


@pytest.mark.parametrize(
    "text", ["", "0", "513", "1-513", "9-2", "1-2-3", "a", "1 ", "+1", "-", "٣"]
)
def test_a_range_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        VcpuRange().convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("0xA00f11", 0xA00F11), ("ffffffff", 2**32 - 1)]
)
def test_a_hex_number_is_read(text: str, value: int) -> None:
    assert HexNumber(32).convert(text, None, None) == value


@pytest.mark.parametrize("text", ["", "0x", "x", "-1", "100000000", "0x0x1", "1_0", " 1"])
def test_a_hex_number_that_is_none_or_too_large_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        HexNumber(32).convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "policy"),
    [("0", 0), ("1", 1), ("05", 5), ("0x5", 5), ("0X3F", 0x3F), ("0x37010001", 0x37010001)],
)
def test_a_policy_is_decimal_or_hex(text: str, policy: int) -> None:
    assert GuestPolicy(parse_sev_policy).convert(text, None, None) == policy


@pytest.mark.parametrize("text", ["5\n", "0x", "0x5g", "64", "0x100000000", "4294967296"])
def test_another_policy_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        GuestPolicy(parse_sev_policy).convert(text, None, None)


def test_a_digest_is_folded_to_lower_case() -> None:
    assert Sha256Hex().convert("AB" * 32, None, None) == "ab" * 32


@pytest.mark.parametrize("text", ["", "ab", "zz" * 32, "ab" * 33, "0x" + "a" * 62])
def test_another_digest_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Sha256Hex().convert(text, None, None)


def test_an_snp_policy_has_bits_of_its_own() -> None:
    assert GuestPolicy(parse_snp_policy).convert("0x30000", None, None) == 0x30000
    for text in ("0x10000", "0b110000000000000000", "0o600000", "196_608"):
        with pytest.raises(click.BadParameter):
            GuestPolicy(parse_snp_policy).convert(text, None, None)


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("255", 255), ("007", 7)])
def test_a_whole_number_is_read(text: str, value: int) -> None:
    assert WholeNumber(1, 255).convert(text, None, None) == value


@pytest.mark.parametrize("text", ["", "0", "256", "-1", "+1", " 1", "1_0", "٣", "1e1", "1" * 5000])
def test_a_whole_number_that_is_none_or_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        WholeNumber(1, 255).convert(text, None, None)


def test_a_firmware_version_has_two_or_three_parts() -> None:
    assert FirmwareVersion().convert("1.55", None, None) == (1, 55, 0)
    assert FirmwareVersion().convert("1.55.24", None, None) == (1, 55, 24)
    for text in ("1", "1.2.3.4", "1.256", "a.b", "1.2 ", "٣.1", ""):
        with pytest.raises(click.BadParameter):
            FirmwareVersion().convert(text, None, None)
