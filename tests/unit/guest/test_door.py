from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sevkit.guest.door import closed, open_folder
from sevkit.host.reading import Cause


def test_a_folder_is_reached_below_its_root(tmp_path: Path) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    descriptor = open_folder(str(tmp_path), "a/b/c")
    assert os.path.samestat(os.fstat(descriptor), (tmp_path / "a/b/c").stat())
    os.close(descriptor)


@pytest.mark.parametrize("link", ["a", "a/b"])
def test_no_link_leads_out_of_the_tree(tmp_path: Path, link: str) -> None:
    outside = tmp_path / "outside"
    (outside / "b").mkdir(parents=True)
    root = tmp_path / "root"
    (root / link).parent.mkdir(parents=True)
    (root / link).symlink_to(outside)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        open_folder(str(root), "a/b")


def test_descriptors_are_given_back(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            open_folder(str(tmp_path), "a/b/c")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (errno.ENOENT, Cause.ABSENT),
        (errno.ENXIO, Cause.ABSENT),
        (errno.EACCES, Cause.DENIED),
        (errno.EPERM, Cause.DENIED),
        (errno.EIO, Cause.FAILED),
        (errno.EROFS, Cause.FAILED),
    ],
)
def test_the_kernels_reason_is_the_cause(code: int, cause: Cause) -> None:
    found = closed("door", OSError(code, "x"))
    assert (found.cause, found.message) == (cause, f"door: {os.strerror(code)}")
