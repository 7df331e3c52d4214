from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sevkit.errors import FormatError
from sevkit.host.cgroup import AsidCounts, parse_counts, probe_misc
from sevkit.host.reading import Cause, Known, Unreadable
from sevkit.host.sources import CapturedHost, HostFiles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sevkit.host.cgroup import MiscFacts


def misc(root: Path) -> MiscFacts:
    return probe_misc(CapturedHost(HostFiles(str(root))))


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("sev 509\nsev_es 99\n", AsidCounts(509, 99)),
        # A prefix would take the one for the other.
        ("sev_es 99\n", AsidCounts(0, 99)),
        ("sev 410\n", AsidCounts(410, 0)),
        ("tdx 31\nres_a 5\n", AsidCounts(0, 0)),
        ("", AsidCounts(0, 0)),
    ],
)
def test_lines_are_told_apart(text: str, counts: AsidCounts) -> None:
    assert parse_counts(text) == counts


@pytest.mark.parametrize(
    "text", ["sev", "sev max\n", "sev -1\n", "sev 1\nsev 2\n", "\0\0", "sev 0x1f"]
)
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_counts(text)


def test_both_hierarchies_are_found(tree: Callable[..., Path]) -> None:
    for names in (("milan", "guests-running"), ("milan", "guests-running", "cgroup-v1")):
        found = misc(tree(*names))
        assert found.capacity == Known(AsidCounts(382, 127))
        assert found.current == Known(AsidCounts(2, 3))


def test_children_are_added_up_where_the_root_does_not_say(tree: Callable[..., Path]) -> None:
    # Linux 5.15 has no misc.current in the root.
    root = tree("naples", "asids-exhausted")
    assert not (root / "sys/fs/cgroup/misc.current").exists()
    assert misc(root).current == Known(AsidCounts(15, 0))
    other = root / "sys/fs/cgroup/machine.slice"
    other.mkdir()
    (other / "misc.current").write_text("sev 5\nsev_es 7\n")
    assert misc(root).current == Known(AsidCounts(20, 7))


def test_a_child_that_cannot_be_read_leaves_the_sum_open(tree: Callable[..., Path]) -> None:
    root = tree("rome-es")
    (root / "sys/fs/cgroup/broken.slice/misc.current").mkdir(parents=True)
    found = misc(root).current
    assert isinstance(found, Unreadable)
    assert found.cause is Cause.MALFORMED


def test_no_child_that_counts_is_no_zero(tmp_path: Path) -> None:
    (tmp_path / "sys/fs/cgroup/system.slice").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/misc.capacity").write_text("sev 15\n")
    found = misc(tmp_path)
    assert found.capacity == Known(AsidCounts(15, 0))
    assert isinstance(found.current, Unreadable)


def test_a_cgroup_that_is_not_the_root_sees_nothing(tree: Callable[..., Path]) -> None:
    found = misc(tree("milan", "no-misc-controller"))
    assert isinstance(found.capacity, Unreadable)
    assert found.capacity.cause is Cause.ABSENT
