from __future__ import annotations

from typing import TYPE_CHECKING

import click
import pytest

from sevkit.cli.sev_options import GuestPolicy, Sha256Hex, read_key
from sevkit.errors import FormatError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "policy"),
    [("0", 0), ("1", 1), ("05", 5), ("0x5", 5), ("0X3F", 0x3F), ("0x37010001", 0x37010001)],
)
def test_a_policy_is_decimal_or_hex(text: str, policy: int) -> None:
    assert GuestPolicy().convert(text, None, None) == policy


@pytest.mark.parametrize("text", ["5\n", "0x", "0x5g", "64", "0x100000000", "4294967296"])
def test_another_policy_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        GuestPolicy().convert(text, None, None)


def test_a_digest_is_folded_to_lower_case() -> None:
    assert Sha256Hex().convert("AB" * 32, None, None) == "ab" * 32


@pytest.mark.parametrize("text", ["", "ab", "zz" * 32, "ab" * 33, "0x" + "a" * 62])
def test_another_digest_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Sha256Hex().convert(text, None, None)


def test_two_keys_in_one_file_are_told_apart_from_one(tmp_path: Path) -> None:
    path = tmp_path / "tk.bin"
    path.write_bytes(bytes(32))
    path.chmod(0o600)
    with pytest.raises(FormatError, match="TIK: expected 16 bytes, got 32") as caught:
        read_key(str(path), "TIK")
    assert "TEK and TIK" in caught.value.hint
