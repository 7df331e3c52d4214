from __future__ import annotations

import ctypes
import errno
import os
import sys
from typing import TYPE_CHECKING

import pytest

from sevkit.testing.device.linux import MAX_COPY, MountFlag, ProcessMemory, mount

if TYPE_CHECKING:
    from pathlib import Path

if sys.platform != "linux":
    pytest.skip("Linux only", allow_module_level=True)

HERE = ctypes.create_string_buffer(b"0123456789", 64)
ADDRESS = ctypes.addressof(HERE)


@pytest.fixture
def memory() -> ProcessMemory:
    found = ProcessMemory(os.getpid())
    try:
        found.read(ADDRESS, 1)
    except OSError:
        pytest.skip("this process may not read its own memory as another's")
    return found


def test_memory_is_read_and_written(memory: ProcessMemory) -> None:
    memory.write(ADDRESS + 32, b"\xaa\0\xbb")
    assert memory.read(ADDRESS + 31, 5) == b"\0\xaa\0\xbb\0"
    assert HERE.raw[32:35] == b"\xaa\0\xbb"


def test_nothing_is_read_or_written_where_the_size_is_0(memory: ProcessMemory) -> None:
    assert memory.read(0, 0) == b""
    memory.write(0, b"")


def test_more_than_a_page_is_copied_whole(memory: ProcessMemory) -> None:
    room = ctypes.create_string_buffer(3 * 4096)
    data = bytes(range(256)) * 48
    memory.write(ctypes.addressof(room), data)
    assert room.raw == data
    assert memory.read(ctypes.addressof(room), len(data)) == data
    assert memory.read(ctypes.addressof(room) + 1, 3) == b"\1\2\3"


@pytest.mark.parametrize(
    ("address", "size"),
    [
        (0, 8),
        (1 << 47, 8),
        ((1 << 64) - 8, 8),
        ((1 << 64) - 4, 8),
        (1 << 64, 8),
        (-1, 8),
    ],
)
def test_what_is_not_mapped_is_a_bad_address(
    memory: ProcessMemory, address: int, size: int
) -> None:
    with pytest.raises(OSError, match="Bad address") as caught:
        memory.read(address, size)
    assert caught.value.errno == errno.EFAULT


@pytest.mark.parametrize("size", [-1, MAX_COPY + 1, 1 << 63])
def test_what_no_structure_is_as_long_as_is_a_bad_address(memory: ProcessMemory, size: int) -> None:
    with pytest.raises(OSError, match="Bad address"):
        memory.read(ADDRESS, size)


def test_memory_that_is_read_only_is_not_written(memory: ProcessMemory) -> None:
    code = ctypes.cast(ctypes.CDLL(None).getpid, ctypes.c_void_p).value
    assert code is not None
    assert len(memory.read(code, 8)) == 8
    with pytest.raises(OSError, match="Bad address"):
        memory.write(code, b"\xc3")


@pytest.mark.parametrize("pid", [0, -1, 1 << 22])
def test_the_memory_of_nobody_is_a_bad_address(pid: int) -> None:
    with pytest.raises(OSError, match="Bad address"):
        ProcessMemory(pid).read(ADDRESS, 8)


def test_a_refused_mount_carries_the_kernels_errno(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="mount") as caught:
        mount("none", tmp_path, "no-such-kind", MountFlag(0))
    assert caught.value.errno in {errno.ENODEV, errno.EPERM}
