from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sevkit.cli.sev_options import read_key
from sevkit.errors import FormatError

if TYPE_CHECKING:
    from pathlib import Path


def test_two_keys_in_one_file_are_told_apart_from_one(tmp_path: Path) -> None:
    path = tmp_path / "tk.bin"
    path.write_bytes(bytes(32))
    path.chmod(0o600)
    with pytest.raises(FormatError, match="TIK: expected 16 bytes, got 32") as caught:
        read_key(str(path), "TIK")
    assert "TEK and TIK" in caught.value.hint
