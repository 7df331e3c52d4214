from __future__ import annotations

import os
import resource
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.cli.file_exchange import Exchange, exchange_files
from sevkit.errors import HostReadError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def one(tmp_path: Path) -> Path:
    path = tmp_path / "one"
    path.write_bytes(b"1")
    return path


def change(path: Path, after: bytes = b"new") -> Exchange:
    return Exchange(str(path), path.read_bytes(), after)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_files_are_exchanged_with_their_modes_and_owners(one: Path, tmp_path: Path) -> None:
    two = tmp_path / "two"
    two.write_bytes(b"2")
    one.chmod(0o640)
    two.chmod(0o444)
    if os.geteuid() == 0:
        os.chown(one, 1, 2)
    before = one.stat()
    exchange_files([change(one), change(two, b"")])
    assert (one.read_bytes(), two.read_bytes()) == (b"new", b"")
    after = one.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )
    assert after.st_ino != before.st_ino
    assert stat.S_IMODE(two.stat().st_mode) == 0o444
    assert names(tmp_path) == {"one", "two"}


def test_a_link_stays_one(one: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    link = tmp_path / "folder" / "link"
    link.symlink_to(Path("..", "one"))
    exchange_files([change(link)])
    assert link.is_symlink()
    assert one.read_bytes() == b"new"
    assert names(tmp_path / "folder") == {"link"}


OBSTACLES: Final[dict[str, tuple[Callable[[Path], object], type[Exception], str]]] = {
    "pipe": (os.mkfifo, UsageError, "is no file"),
    "link": (lambda path: path.symlink_to("one"), UsageError, "is given twice"),
    "changed": (lambda path: path.write_bytes(b"other"), HostReadError, "has changed since"),
    "shorter": (lambda path: path.write_bytes(b""), HostReadError, "has changed since"),
    "gone": (lambda _: None, HostReadError, "cannot be written: No such file"),
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_if_one_cannot_be_written_each_stays_as_it_is(
    one: Path, tmp_path: Path, obstacle: str
) -> None:
    make, error, said = OBSTACLES[obstacle]
    other = tmp_path / "other"
    make(other)
    before = names(tmp_path)
    with pytest.raises(error, match=f"other: {said}"):
        exchange_files([change(one), Exchange(str(other), b"apple", b"new")])
    assert one.read_bytes() == b"1"
    assert names(tmp_path) == before


def test_without_room_for_all_each_stays_as_it_is(one: Path, tmp_path: Path) -> None:
    two = tmp_path / "two"
    two.write_bytes(b"2")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(HostReadError, match=r"two: cannot be written: File too large"):
            exchange_files([change(one), change(two, bytes(101))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (one.read_bytes(), two.read_bytes()) == (b"1", b"2")
    assert names(tmp_path) == {"one", "two"}
