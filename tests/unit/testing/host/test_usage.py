from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from sevkit.testing.host import PRESETS, with_defects, write_host
from sevkit.testing.host.usage import follow_asids
from sevkit.testing.kvm_asids import AsidPool, GuestKind
from sevkit.testing.secure_processor.core import AsidRange

if TYPE_CHECKING:
    from pathlib import Path

    from sevkit.testing.host.spec import HostSpec

GROUP = "sys/fs/cgroup"


def pool_of(spec: HostSpec) -> AsidPool:
    return AsidPool(AsidRange(spec.bios.max_asid, spec.bios.min_sev_asid))


def test_the_files_follow_guests_that_come_and_go(tmp_path: Path) -> None:
    spec, root = PRESETS["genoa"], tmp_path / "host"
    write_host(spec, root)
    pool = pool_of(spec)
    follow_asids(root, pool)
    current, peak = (root / GROUP / name for name in ("misc.current", "misc.peak"))
    mode = stat.S_IMODE(current.stat().st_mode)
    assert current.read_text() == "sev 0\nsev_es 0\n"
    plain, hidden = pool.take(GuestKind.SEV), pool.take(GuestKind.SNP)
    assert current.read_text() == "sev 1\nsev_es 1\n"
    slices = root / GROUP / "kubepods.slice/misc.current"
    assert slices.read_text() == "sev 1\nsev_es 1\n"
    pool.give_back(plain)
    pool.give_back(hidden)
    assert current.read_text() == "sev 0\nsev_es 0\n"
    assert stat.S_IMODE(current.stat().st_mode) == mode
    if peak.exists():
        assert peak.read_text() == "sev 1\nsev_es 1\n"
    assert not list(root.rglob(".*.new"))


@pytest.mark.parametrize("defect", ["cgroup-v1", "no-misc-controller"])
def test_no_file_is_made_that_the_host_does_not_have(tmp_path: Path, defect: str) -> None:
    spec, root = with_defects("genoa", [defect]), tmp_path / "host"
    write_host(spec, root)
    before = {path.relative_to(root) for path in root.rglob("*")}
    pool = pool_of(spec)
    follow_asids(root, pool)
    pool.take(GuestKind.SEV_ES)
    assert {path.relative_to(root) for path in root.rglob("*")} == before
    if defect == "cgroup-v1":
        assert (root / GROUP / "misc/misc.current").read_text() == "sev 0\nsev_es 1\n"
