from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sevkit.cli.launch_options import (
    check_boot_options,
    hash_boot,
)
from sevkit.errors import UsageError
from sevkit.measure.kernel_hashes import compute_kernel_hashes

if TYPE_CHECKING:
    from pathlib import Path


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
