from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.cli.guest_report import read_nonce
from sevkit.cli.main import main
from sevkit.errors import FormatError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

NONCE: Final = bytes(range(64))


def test_a_nonce_of_hex_digits_is_hex() -> None:
    assert read_nonce(NONCE.hex()) == read_nonce(NONCE.hex().upper()) == NONCE


@pytest.mark.parametrize("digits", [2, 64, 126, 127, 129, 130])
def test_a_nonce_of_another_size_is_neither_padded_nor_cut(digits: int) -> None:
    with pytest.raises(UsageError):
        read_nonce("a" * digits)


@pytest.mark.parametrize(
    "data",
    [
        NONCE,
        b"0" * 64,
        NONCE.hex().encode(),
        NONCE.hex().upper().encode() + b"\n",
        b"\n".join(NONCE[at : at + 16].hex(" ").encode() for at in range(0, 64, 16)),
    ],
)
def test_a_nonces_file_has_the_bytes_or_their_digits(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "nonce.bin").write_bytes(data)
    expected = data if len(data) == 64 else NONCE
    assert read_nonce(str(tmp_path / "nonce.bin")) == expected


@pytest.mark.parametrize(
    "data", [b"", bytes(63), bytes(65), b"x" * 128, NONCE.hex().encode()[:-2], bytes(1 << 16)]
)
def test_a_file_of_something_else_is_malformed(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "nonce.bin").write_bytes(data)
    with pytest.raises(FormatError):
        read_nonce(str(tmp_path / "nonce.bin"))


def test_a_nonce_may_come_from_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nonce").write_bytes(NONCE)
    with (tmp_path / "nonce").open("rb") as stream:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(stream))
        assert read_nonce("-") == NONCE


@pytest.mark.parametrize(
    ("code", "options"),
    [
        (2, ("--nonce", "abcd")),
        (2, ("--nonce", "missing.bin")),
        (65, ("--nonce", "short.bin")),
        (2, ("--out", "taken.bin")),
        (2, ("--out", "-")),
        (2, ("--out", "no/folder.bin")),
        (2, ("--vmpl", "4")),
        (2, ("--vmpl", "-1")),
        (2, ("--timeout", "3601")),
        (2, ("--root", "nowhere")),
        (2, ("--root", "short.bin")),
        (2, ("--root", "x" * 5000)),
        (2, ("--root", "a\0b")),
        (4, ()),
    ],
)
def test_options_are_judged_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, options: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.bin").write_bytes(b"short")
    (tmp_path / "taken.bin").write_bytes(b"mine")
    words = ["guest", "report", "--nonce", NONCE.hex(), "--out", "out.bin", "--root", "."]
    assert main([*words, *options]) == code
    assert {path.name for path in tmp_path.iterdir()} == {"short.bin", "taken.bin"}
    assert (tmp_path / "taken.bin").read_bytes() == b"mine"


def test_nonce_and_out_must_be_given() -> None:
    assert main(["guest", "report", "--out", "out.bin"]) == 2
    assert main(["guest", "report", "--nonce", NONCE.hex()]) == 2
