from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.testing.device.entry import OpenEntryFile
from sevkit.testing.device.ioctl import EntryAttribute
from sevkit.testing.device.tree import EntryFile

if TYPE_CHECKING:
    from collections.abc import Mapping


class Folder:
    """A folder that remembers what was stored."""

    attributes: Final[Mapping[str, EntryAttribute]] = {
        "text": EntryAttribute(0o644),
        "blob": EntryAttribute(0o644, 8),
    }

    def __init__(self) -> None:
        self.stored: list[tuple[str, bytes]] = []
        self.reads = 0
        self.refuse = False

    def make(self, entry: str) -> None:
        raise NotImplementedError

    def remove(self, entry: str) -> None:
        raise NotImplementedError

    def read(self, entry: str, attribute: str) -> bytes:
        self.reads += 1
        return f"{attribute} {self.reads}".encode()

    def write(self, entry: str, attribute: str, data: bytes) -> None:
        if self.refuse:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        self.stored.append((attribute, data))


@pytest.fixture
def folder() -> Folder:
    return Folder()


def opened(folder: Folder, name: str) -> OpenEntryFile:
    return OpenEntryFile(EntryFile(folder, "e", name))


def test_a_file_is_read_once_however_often_it_is_asked(folder: Folder) -> None:
    file = opened(folder, "blob")
    assert file.read_at(0, 4) + file.read_at(4, 100) + file.read_at(100, 4) == b"blob 1"
    assert opened(folder, "blob").read_at(0, 100) == b"blob 2"


def test_text_is_stored_by_each_write_and_refused_to_its_writer(folder: Folder) -> None:
    file = opened(folder, "text")
    assert file.write_at(0, b"1\n") == 2
    assert folder.stored == [("text", b"1\n")]
    folder.refuse = True
    with pytest.raises(OSError, match="busy"):
        file.write_at(0, b"2\n")
    file.close()
    assert folder.stored == [("text", b"1\n")]


def test_a_blob_is_stored_when_it_is_closed(folder: Folder) -> None:
    file = opened(folder, "blob")
    assert (file.write_at(4, b"cd"), file.write_at(0, b"ab")) == (2, 2)
    assert folder.stored == []
    with pytest.raises(OSError, match="more than") as caught:
        file.write_at(4, b"12345")
    assert caught.value.errno == errno.EFBIG
    file.close()
    assert folder.stored == [("blob", b"ab\0\0cd")]


def test_nobody_hears_of_a_blob_that_was_refused(folder: Folder) -> None:
    file = opened(folder, "blob")
    file.write_at(0, b"ab")
    folder.refuse = True
    file.close()
    opened(folder, "blob").close()
    assert folder.stored == []
