from __future__ import annotations

from typing import TYPE_CHECKING

import click
import pytest

from sevkit.cli.launch_options import (
    HexNumber,
    VcpuRange,
    check_boot_options,
    hash_boot,
)
from sevkit.errors import UsageError
from sevkit.measure.kernel_hashes import compute_kernel_hashes

if TYPE_CHECKING:
    from pathlib import Path


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


def test_a_boot_is_hashed_from_its_files(tmp_path: Path) -> None:
    kernel, initrd = tmp_path / "kernel", tmp_path / "initrd"
    kernel.write_bytes(b"kernel" * 500_000)
    initrd.write_bytes(b"initrd")
    expected = compute_kernel_hashes(b"kernel" * 500_000, initrd=b"initrd", cmdline="quiet")
    assert hash_boot(str(kernel), str(initrd), "quiet") == expected
    assert hash_boot(None, None, None) is None


@pytest.mark.parametrize(
    ("kernel", "initrd", "cmdline"),
    [(None, "initrd", None), (None, None, ""), ("", None, None), ("kernel", None, "a\0b")],
)
def test_a_boot_that_qemu_would_not_measure_is_refused(
    kernel: str | None, initrd: str | None, cmdline: str | None
) -> None:
    with pytest.raises(UsageError):
        check_boot_options(kernel, initrd, cmdline)
