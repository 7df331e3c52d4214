from __future__ import annotations

from dataclasses import replace

from sevkit.testing.host.booting import boot
from sevkit.testing.host.cgroup import render_cgroup
from sevkit.testing.host.defects import with_defects
from sevkit.testing.host.spec import Guests, HostSpec

ROOT = "sys/fs/cgroup"


def files(spec: HostSpec) -> dict[str, str]:
    return dict(render_cgroup(spec, boot(spec)))


def test_the_root_has_capacity_and_use_and_no_limit() -> None:
    found = files(with_defects("genoa", ["guests-running"]))
    assert found[f"{ROOT}/misc.capacity"] == "sev 754\nsev_es 252\n"
    assert found[f"{ROOT}/misc.current"] == "sev 2\nsev_es 3\n"
    assert found[f"{ROOT}/misc.peak"] == "sev 2\nsev_es 3\n"
    assert f"{ROOT}/misc.max" not in found
    assert found[f"{ROOT}/cgroup.controllers"].endswith(" misc\n")


def test_every_guest_has_a_pod_that_is_charged() -> None:
    found = files(with_defects("genoa", ["guests-running"]))
    scopes = [path for path in found if path.endswith(".scope/misc.current")]
    assert len(scopes) == 5
    assert (
        sorted(found[path] for path in scopes)
        == ["sev 0\nsev_es 1\n"] * 3 + ["sev 1\nsev_es 0\n"] * 2
    )
    assert all(found[path.replace("current", "max")] == "sev max\nsev_es max\n" for path in scopes)
    assert found[f"{ROOT}/kubepods.slice/misc.current"] == "sev 2\nsev_es 3\n"
    assert found[f"{ROOT}/kubepods.slice/misc.events"] == "sev.max 0\nsev_es.max 0\n"


def test_a_resource_of_nothing_has_no_line_anywhere() -> None:
    found = files(with_defects("rome", ["guests-running"]))
    misc = [text for path, text in found.items() if "/misc." in path]
    assert misc
    assert not any("sev_es" in text for text in misc)
    assert files(with_defects("genoa", ["smee-off"]))[f"{ROOT}/misc.capacity"] == ""


def test_use_is_not_at_the_root_before_6_5() -> None:
    found = files(with_defects("rome", ["guests-running"]))
    assert f"{ROOT}/misc.capacity" in found
    assert f"{ROOT}/misc.current" not in found
    assert f"{ROOT}/misc.peak" not in found
    assert found[f"{ROOT}/kubepods.slice/misc.current"] == "sev 2\n"


def test_version_1_has_a_hierarchy_for_the_controller() -> None:
    found = files(with_defects("genoa", ["cgroup-v1", "guests-running"]))
    assert found[f"{ROOT}/misc/misc.capacity"] == "sev 754\nsev_es 252\n"
    assert found[f"{ROOT}/misc/misc.current"] == "sev 2\nsev_es 3\n"
    assert f"{ROOT}/cgroup.controllers" not in found


def test_without_the_controller_there_is_no_file_of_it() -> None:
    found = files(with_defects("genoa", ["no-misc-controller"]))
    assert found == {
        f"{ROOT}/cgroup.controllers": "cpuset cpu io memory hugetlb pids rdma\n",
        f"{ROOT}/cgroup.subtree_control": "cpuset cpu io memory hugetlb pids rdma\n",
    }


def test_the_same_guests_are_in_the_same_pods() -> None:
    spec = with_defects("genoa", ["guests-running"])
    one = replace(spec, guests=Guests(sev=1))
    assert files(one).keys() <= files(spec).keys()
