from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from sevkit.host.files import NAMES, SMALL, Tree
from sevkit.host.reading import Cause, Known, Unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    (tmp_path / "secret").write_text("outside")
    return folder


@pytest.fixture
def tree(root: Path) -> Iterator[Tree]:
    found = Tree(str(root))
    yield found
    found.close()


def cause(found: object) -> Cause:
    assert isinstance(found, Unreadable), found
    return found.cause


def test_a_file_is_read_and_named_by_its_path_on_the_host(tree: Tree, root: Path) -> None:
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/c").write_text("Y\n")
    assert tree.text("a/b/c") == Known("Y\n")
    missing = tree.text("a/b/d")
    assert isinstance(missing, Unreadable)
    assert (missing.cause, missing.detail) == (Cause.ABSENT, "/a/b/d: No such file or directory")
    assert cause(tree.text("a/b/c/d")) is Cause.ABSENT


@pytest.mark.parametrize(
    "target",
    [
        "/secret",
        "../secret",
        "../../../../../../secret",
        "/../secret",
        "in/../../secret",
        "out/secret",
        "out/../secret",
    ],
)
def test_no_link_leads_out(tree: Tree, root: Path, target: str) -> None:
    (root / "in").mkdir()
    (root / "out").symlink_to("..")
    (root / "link").symlink_to(target)
    assert cause(tree.text("link")) is Cause.ABSENT
    assert cause(tree.text("out/secret")) is Cause.ABSENT
    # What is there under the same name inside is what is meant.
    (root / "secret").write_text("inside")
    assert tree.text("link") == Known("inside")
    assert tree.names("out") == Known(("in", "link", "out", "secret"))


def test_links_of_sysfs_are_followed(tree: Tree, root: Path) -> None:
    device = root / "sys/devices/pci0000:00/0000:00:01.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x1022\n")
    (root / "sys/bus/ccp").mkdir(parents=True)
    (root / "sys/bus/ccp/dev").symlink_to("../../devices/pci0000:00/0000:00:01.0")
    (root / "sys/block").symlink_to("bus/ccp/dev/../0000:00:01.0")
    (root / "abs").symlink_to("/sys/bus/ccp")
    assert tree.text("sys/bus/ccp/dev/vendor") == Known("0x1022\n")
    assert tree.text("sys/block/vendor") == Known("0x1022\n")
    assert tree.text("abs/dev/vendor") == Known("0x1022\n")
    assert tree.names("abs") == Known(("dev",))


def test_parents_of_a_link_are_those_of_where_it_leads(tree: Tree, root: Path) -> None:
    (root / "far/away/here").mkdir(parents=True)
    (root / "far/away/beside").write_text("right")
    (root / "beside").write_text("wrong")
    (root / "near").symlink_to("far/away/here")
    (root / "up").symlink_to("near/../beside")
    assert tree.text("up") == Known("right")


def test_circles_of_links_end(tree: Tree, root: Path) -> None:
    (root / "one").symlink_to("two")
    (root / "two").symlink_to("one")
    (root / "self").symlink_to("self/self")
    for path in ("one", "one/file", "self", "self/file"):
        assert cause(tree.text(path)) is Cause.FAILED
        assert cause(tree.is_there(path)) is Cause.FAILED
    assert cause(tree.names("two")) is Cause.FAILED


def test_a_link_to_the_root_itself_is_a_folder(tree: Tree, root: Path) -> None:
    (root / "top").symlink_to("/")
    assert cause(tree.text("top")) is Cause.MALFORMED
    assert tree.is_there("top") == Known(value=True)
    assert tree.names("top") == Known(("top",))


def test_the_time_of_a_change_is_of_what_a_link_leads_to(tree: Tree, root: Path) -> None:
    (root / "file").write_text("")
    os.utime(root / "file", (1, 1234.5))
    (root / "link").symlink_to("file")
    assert tree.modified("file") == tree.modified("link") == Known(1234.5)
    assert cause(tree.modified("none")) is Cause.ABSENT


def test_what_is_no_regular_file_is_not_opened(
    tree: Tree, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(root / "fifo")
    (root / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(root)  # a socket's path is short
        server.bind("socket")
        for name in ("fifo", "folder", "socket"):
            found = tree.text(name)
            assert isinstance(found, Unreadable)
            assert (found.cause, found.detail) == (
                Cause.MALFORMED,
                f"/{name}: not a regular file",
            )


def test_a_gigabyte_is_not_read(tree: Tree, root: Path) -> None:
    with (root / "huge").open("wb") as stream:
        stream.truncate(1 << 30)
    assert cause(tree.text("huge")) is Cause.MALFORMED
    head = tree.text("huge", limit=4096, head=True)
    assert isinstance(head, Known)
    assert len(head.value) == 4096


def test_the_limit_is_the_last_size_that_is_read(tree: Tree, root: Path) -> None:
    (root / "full").write_text("x" * SMALL)
    (root / "over").write_text("x" * (SMALL + 1))
    assert isinstance(tree.text("full"), Known)
    assert cause(tree.text("over")) is Cause.MALFORMED


def test_what_is_not_text_is_malformed_but_for_a_head(tree: Tree, root: Path) -> None:
    (root / "noise").write_bytes(b"\xff\xfe\x00")
    assert cause(tree.text("noise")) is Cause.MALFORMED
    assert isinstance(tree.text("noise", head=True), Known)


def test_folders_are_listed_in_order_and_bounded(tree: Tree, root: Path) -> None:
    (root / "few").mkdir()
    (root / "many").mkdir()
    for name in ("b", "a"):
        (root / "few" / name).touch()
    for number in range(NAMES + 1):
        (root / "many" / str(number)).touch()
    assert tree.names("few") == Known(("a", "b"))
    assert cause(tree.names("many")) is Cause.MALFORMED
    assert cause(tree.names("few/a")) is Cause.ABSENT
    assert cause(tree.names("none")) is Cause.ABSENT


def test_there_or_not_is_told_from_not_known(tree: Tree, root: Path) -> None:
    (root / "file").touch()
    (root / "dangling").symlink_to("nowhere")
    assert tree.is_there("file") == Known(value=True)
    assert tree.is_there("none") == Known(value=False)
    assert tree.is_there("none/at/all") == Known(value=False)
    assert tree.is_there("dangling") == Known(value=False)


def test_a_closed_tree_opens_itself_again(tree: Tree, root: Path) -> None:
    (root / "a").mkdir()
    (root / "a/b").write_text("1")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # a count
    assert tree.text("a/b") == Known("1")
    tree.close()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208  # a count
    assert tree.text("a/b") == Known("1")


def test_a_root_that_vanished_is_absent(tmp_path: Path) -> None:
    gone = Tree(str(tmp_path / "gone"))
    assert cause(gone.text("file")) is Cause.ABSENT
    assert cause(gone.names("folder")) is Cause.ABSENT
