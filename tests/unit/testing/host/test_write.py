from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sevkit.errors import UsageError
from sevkit.testing.host.booting import boot
from sevkit.testing.host.defects import with_defects
from sevkit.testing.host.presets import PRESETS
from sevkit.testing.host.spec import Bios, Guests
from sevkit.testing.host.state import Technologies
from sevkit.testing.host.tree import File, Folder, Link, render_tree
from sevkit.testing.host.write import write_host

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("preset", PRESETS)
def test_the_folder_is_the_tree_and_nothing_else(tmp_path: Path, preset: str) -> None:
    spec, root = PRESETS[preset], tmp_path / "host"
    state = write_host(spec, root)
    assert state == boot(spec)
    found: dict[str, File | Link | Folder] = {}
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = root / folder / name
            key = path.relative_to(root).as_posix()
            if path.is_symlink():
                found[key] = Link(str(path.readlink()))
            elif path.is_file():
                found[key] = File(path.read_bytes(), path.stat().st_mode & 0o7777)
    tree = render_tree(spec, state)
    assert found == {path: entry for path, entry in tree.items() if not isinstance(entry, Folder)}
    assert all((root / path).is_dir() for path, e in tree.items() if isinstance(e, Folder))


def test_what_sysfs_shows_by_driver_can_be_read_through_the_link(tmp_path: Path) -> None:
    write_host(PRESETS["milan"], tmp_path)
    device = tmp_path / "sys/bus/pci/drivers/ccp/0000:22:00.1"
    assert device.is_symlink()
    assert (device / "bootloader_version").read_text() == "00.13.00.70\n"
    assert device.resolve().is_relative_to(tmp_path.resolve())


def test_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_host(PRESETS["naples"], tmp_path / "host")
    finally:
        os.umask(before)
    assert (tmp_path / "host/proc/cpuinfo").stat().st_mode & 0o777 == 0o444


def test_an_empty_folder_is_taken_and_a_name_as_text(tmp_path: Path) -> None:
    write_host(PRESETS["rome"], str(tmp_path))
    assert (tmp_path / "cpuid.json").is_file()


def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(UsageError, match="is not empty"):
        write_host(PRESETS["rome"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_link_and_a_file_are_no_root(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    (tmp_path / "file").write_text("")
    for name in ("link", "file"):
        with pytest.raises(UsageError, match="is not a folder"):
            write_host(PRESETS["rome"], tmp_path / name)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_an_impossible_machine_is_not_written(tmp_path: Path) -> None:
    spec = replace(PRESETS["rome"], guests=Guests(sev_es=1))
    with pytest.raises(UsageError, match="impossible machine: more SEV-ES guests than ASIDs"):
        write_host(spec, tmp_path / "host")
    assert not (tmp_path / "host").exists()


def test_a_state_of_one_s_own_is_written_if_it_can_be(tmp_path: Path) -> None:
    spec = with_defects("genoa", ["kvm-snp-off"])
    state = boot(spec)
    capacity = {"sev": 1}
    write_host(spec, tmp_path / "host", state=replace(state, misc_capacity=capacity))
    assert (tmp_path / "host/sys/fs/cgroup/misc.capacity").read_text() == "sev 1\n"
    odd = replace(state, kvm=Technologies(sev_snp=True))
    with pytest.raises(UsageError, match="impossible state: KVM offers a technology without"):
        write_host(spec, tmp_path / "other", state=odd)
    assert not (tmp_path / "other").exists()


def test_two_of_the_same_are_equal_to_the_byte(tmp_path: Path) -> None:
    spec = replace(PRESETS["genoa"], bios=Bios(max_asid=1006, min_sev_asid=10))
    for name in ("one", "two"):
        write_host(spec, tmp_path / name)
    one, two = (
        {p.relative_to(tmp_path / name): p.read_bytes() for p in files}
        for name, files in (
            (name, [p for p in (tmp_path / name).rglob("*") if p.is_file()])
            for name in ("one", "two")
        )
    )
    assert one == two
