from __future__ import annotations

import hashlib
import os
import threading
from typing import TYPE_CHECKING

import pytest

from sevkit.cli.files import (
    hash_file,
    read_file,
    refuse_shared_stdin,
    warn_if_exposed,
    write_new,
)
from sevkit.errors import FormatError, HostReadError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_is_read_whole_and_hashed_in_chunks(tmp_path: Path) -> None:
    data = os.urandom((1 << 20) + 17)
    path = tmp_path / "file"
    path.write_bytes(data)
    assert read_file(str(path), limit=len(data)) == data
    assert hash_file(str(path)) == (hashlib.sha256(data).digest(), len(data))


def test_one_byte_more_than_the_limit_is_refused_at_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(101))
    assert len(read_file(str(path), limit=101)) == 101
    with pytest.raises(FormatError) as caught:
        read_file(str(path), limit=100)
    assert caught.value.offset == 100


def test_an_endless_file_is_refused_at_the_limit() -> None:
    with pytest.raises(FormatError):
        read_file("/dev/zero")


@pytest.mark.parametrize("name", ["absent", "folder", "file/below", ""])
def test_what_is_no_file_is_the_users_mistake(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    path = str(tmp_path / name) if name else ""
    with pytest.raises(UsageError):
        read_file(path)


def test_a_file_that_cannot_be_read_is_undecided(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(HostReadError):
        read_file(str(loop))


def test_a_fifo_is_read_though_its_writer_comes_late(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reading = threading.Event()

    def write() -> None:
        reading.wait(5)
        path.write_bytes(b"late")

    thread = threading.Thread(target=write)
    thread.start()
    timer = threading.Timer(0.05, reading.set)
    timer.start()
    try:
        assert read_file(str(path)) == b"late"
    finally:
        reading.set()
        thread.join()
        timer.join()


def test_an_inherited_pipe_ends_when_its_writer_has_gone() -> None:
    reader, writer = os.pipe()
    os.close(writer)
    try:
        assert read_file(f"/dev/fd/{reader}") == b""
    finally:
        os.close(reader)


def test_an_inherited_descriptor_that_is_not_open_is_the_users_mistake() -> None:
    with pytest.raises(UsageError):
        read_file("/dev/fd/9999")


@pytest.mark.parametrize(("private", "mode"), [(True, 0o600), (False, 0o644)])
def test_a_new_file_has_its_mode_and_contents(private: bool, mode: int, tmp_path: Path) -> None:
    path = tmp_path / "new"
    before = os.umask(0o022)
    try:
        write_new(str(path), b"data", private=private)
    finally:
        os.umask(before)
    assert path.read_bytes() == b"data"
    assert path.stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("umask", [0, 0o777, 0o277])
def test_a_private_file_is_its_owners_whatever_the_umask(umask: int, tmp_path: Path) -> None:
    path = tmp_path / "new"
    before = os.umask(umask)
    try:
        write_new(str(path), b"data", private=True)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


def test_nothing_is_ever_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "old"
    path.write_bytes(b"old")
    with pytest.raises(UsageError, match="never overwritten"):
        write_new(str(path), b"new")
    assert path.read_bytes() == b"old"


def test_a_link_is_not_followed_even_to_nowhere(tmp_path: Path) -> None:
    target = tmp_path / "target"
    link = tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises(UsageError):
        write_new(str(link), b"secret", private=True)
    assert not target.exists()


@pytest.mark.parametrize("name", ["absent/new", "file/new"])
def test_a_missing_folder_is_the_users_mistake(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError):
        write_new(str(tmp_path / name), b"data")


def test_standard_input_is_not_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError):
        write_new("-", b"data")
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_too_long_is_undecided(tmp_path: Path) -> None:
    with pytest.raises(HostReadError):
        write_new(str(tmp_path / ("n" * 300)), b"data")


@pytest.mark.parametrize(("mode", "warns"), [(0o600, False), (0o640, True), (0o604, True)])
def test_key_material_that_others_can_read_is_warned_of(
    mode: int, warns: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "key"
    path.touch()
    path.chmod(mode)
    warn_if_exposed(str(path))
    assert ("readable by others" in capsys.readouterr().err) is warns


def test_what_cannot_be_looked_at_is_not_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in ("-", str(tmp_path / "absent"), "a\0b"):
        warn_if_exposed(path)
    assert not capsys.readouterr().err


def test_standard_input_is_one_file_at_most() -> None:
    refuse_shared_stdin("-", None, "file")
    with pytest.raises(UsageError, match="only one"):
        refuse_shared_stdin("-", None, "-")
