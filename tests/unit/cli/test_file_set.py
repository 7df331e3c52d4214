from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sevkit.cli.file_set import write_together
from sevkit.errors import HostReadError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


def test_all_files_are_written_for_their_owner_only(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write_together({str(one): b"1", str(two): b"2"})
    assert (one.read_bytes(), two.read_bytes()) == (b"1", b"2")
    assert {path.stat().st_mode & 0o777 for path in (one, two)} == {0o600}


def test_a_file_that_exists_is_kept_and_the_others_are_removed(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    two.write_bytes(b"old")
    with pytest.raises(UsageError, match="never overwritten") as caught:
        write_together({str(one): b"1", str(two): b"2"})
    assert "one" in caught.value.hint
    assert not one.exists()
    assert two.read_bytes() == b"old"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises(UsageError):
        write_together({str(link): b"1"})
    assert not target.exists()
    assert link.is_symlink()


def test_a_name_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    one = tmp_path / "one"
    with pytest.raises(HostReadError) as caught:
        write_together({str(one): b"1", str(tmp_path / ("x" * 300)): b"2"})
    assert "one" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
