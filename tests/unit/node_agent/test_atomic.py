from __future__ import annotations

import os
import stat
import threading
from typing import TYPE_CHECKING

import pytest

from node_agent.atomic import replace_file

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_is_made_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in (b"one", b"", b"x" * (1 << 20), b"two"):
        replace_file(str(path), data)
        assert path.read_bytes() == data
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_it_is_readable_for_all_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        replace_file(str(tmp_path / "file"), b"data")
    finally:
        os.umask(before)
    assert stat.filemode((tmp_path / "file").stat().st_mode) == "-rw-r--r--"


def test_what_a_killed_process_left_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".file.new").write_bytes(b"half of some")
    replace_file(str(tmp_path / "file"), b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole"
    assert not (tmp_path / ".file.new").exists()


def test_a_link_at_its_temporary_name_leads_nowhere(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / ".file.new").symlink_to(victim)
    replace_file(str(tmp_path / "file"), b"ours")
    assert victim.read_bytes() == b"precious"
    assert (tmp_path / "file").read_bytes() == b"ours"
    assert not (tmp_path / "file").is_symlink()


def test_a_link_in_place_of_the_file_is_replaced_itself(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "file").symlink_to(victim)
    replace_file(str(tmp_path / "file"), b"ours")
    assert victim.read_bytes() == b"precious"
    assert (tmp_path / "file").read_bytes() == b"ours"


def test_a_name_without_a_folder_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    replace_file("file", b"data")
    assert (tmp_path / "file").read_bytes() == b"data"


@pytest.mark.parametrize("path", ["/nonexistent/file", "/proc/self/file", "/dev/null/file"])
def test_where_it_cannot_write_it_says_so(path: str) -> None:
    with pytest.raises(OSError, match="directory"):
        replace_file(path, b"data")


def test_a_folder_in_place_of_the_file_stays(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(str(tmp_path / "file"), b"data")
    assert (tmp_path / "file").is_dir()


def test_a_reader_sees_the_old_or_the_new_and_nothing_else(tmp_path: Path) -> None:
    path, done, seen = tmp_path / "file", threading.Event(), set()
    words = [bytes([65 + number]) * 200_000 for number in range(2)]
    replace_file(str(path), words[0])

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(60):
        replace_file(str(path), words[number % 2])
    done.set()
    reader.join()
    assert seen <= set(words)
    assert seen
