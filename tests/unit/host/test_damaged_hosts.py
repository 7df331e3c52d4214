"""A host's files, damaged or copied in odd ways: a no is never made of what was not read.

Each file of a healthy Milan is in turn something that is no file, leads out of the tree, has no
end, or holds other bytes.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.host.capabilities import decide
from sevkit.host.capability import State, Technology

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.host.facts import HostFacts

UNSEEN: Final = "unknown cpuinfo-unread"
OK: Final = "usable"
CVE: Final = "unusable es-open-to-cve-2025-48514"
BESIDE: Final = "unusable es-beside-snp"
MILAN: Final = (OK, CVE, OK)
PARAMETERS: Final = "sys/module/kvm_amd/parameters"
CAPACITY: Final = "sys/fs/cgroup/misc.capacity"

#: A file, and what is left of Milan where that file is not read.
FILES: Final = {
    "proc/cpuinfo": (UNSEEN, CVE, UNSEEN),
    "cpuid.json": ("unknown cpuid-unread", CVE, "unknown cpuid-unread"),
    "firmware.json": (OK, BESIDE, OK),
    f"{PARAMETERS}/sev": ("unknown kvm-unread", CVE, "unknown kvm-unread"),
    f"{PARAMETERS}/sev_snp": (OK, CVE, "unknown kvm-unread"),
    CAPACITY: MILAN,
    "proc/sys/kernel/osrelease": MILAN,
    "proc/cmdline": MILAN,
    "var/log/dmesg": MILAN,
}


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def linked_out(path: Path) -> None:
    outside = Path(f"{path}.moved").name
    root = next(one for one in path.parents if (one / "cpuid.json").exists() or one == path.parent)
    shutil.move(path, root.parent / outside)
    path.symlink_to(f"{'../' * 40}{str(root.parent).lstrip('/')}/{outside}")


def huge(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"")
    os.truncate(path, 1 << 30)


def nuls(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b" ", b"\0").replace(b"Y", b"\0"))


@pytest.mark.parametrize("damage", [folder, fifo, linked_out, huge])
@pytest.mark.parametrize("name", FILES)
def test_what_is_no_file_of_this_host_is_not_read(
    name: str,
    damage: Callable[[Path], None],
    tree: Callable[..., Path],
    answers_at: Callable[[Path], tuple[str, ...]],
) -> None:
    root = tree("milan")
    damage(root / name)
    assert answers_at(root) == FILES[name]


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith(("cmdline", "log"))])
def test_bytes_of_nought_are_never_taken_for_a_no(
    name: str, tree: Callable[..., Path], facts_at: Callable[[Path], HostFacts]
) -> None:
    root = tree("milan")
    nuls(root / name)
    states = [decide(facts_at(root)).of(one).state for one in Technology]
    assert states[0] in {State.USABLE, State.UNKNOWN}
    assert states[2] in {State.USABLE, State.UNKNOWN}


def absolute(path: Path) -> None:
    root = next(one for one in path.parents if (one / "proc").is_dir())
    (root / "elsewhere").mkdir()
    shutil.move(path, root / "elsewhere" / path.name)
    path.symlink_to(f"/elsewhere/{path.name}")


def carriage_returns(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def no_newline(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().rstrip(b"\n"))


@pytest.mark.parametrize("change", [absolute, carriage_returns, no_newline])
@pytest.mark.parametrize("name", FILES)
def test_how_a_file_was_copied_does_not_matter(
    name: str,
    change: Callable[[Path], None],
    tree: Callable[..., Path],
    answers_at: Callable[[Path], tuple[str, ...]],
) -> None:
    root = tree("milan")
    change(root / name)
    assert answers_at(root) == MILAN
