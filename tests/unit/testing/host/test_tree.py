from __future__ import annotations

import json
import posixpath
from typing import TYPE_CHECKING

import pytest

from sevkit.testing.host.booting import boot
from sevkit.testing.host.defects import with_defects
from sevkit.testing.host.presets import PRESETS
from sevkit.testing.host.tree import File, Folder, Link, command_line, render_tree

if TYPE_CHECKING:
    from sevkit.testing.host.spec import HostSpec


def text(spec: HostSpec, path: str) -> str:
    entry = render_tree(spec, boot(spec))[path]
    assert isinstance(entry, File)
    return entry.data.decode()


def entries(spec: HostSpec) -> dict[str, File | Link | Folder]:
    return dict(render_tree(spec, boot(spec)))


def test_cpuid_is_held_by_leaf_in_hex() -> None:
    found = json.loads(text(PRESETS["rome"], "cpuid.json"))
    assert found["0x8000001f"] == ["0x0001000f", "0x0000016f", "0x000001fd", "0x00000001"]
    assert found["0x00000000"] == ["0x00000010", "0x68747541", "0x444d4163", "0x69746e65"]
    assert {"0x00000001", "0x80000001", "0x80000008"} <= found.keys()


def test_cpuid_has_the_asids_that_the_bios_set() -> None:
    found = json.loads(text(with_defects("genoa", ["zero-es-asids"]), "cpuid.json"))
    assert found["0x8000001f"][2:] == ["0x000003ee", "0x00000001"]


def test_an_arm_host_has_no_cpuid() -> None:
    assert "cpuid.json" not in entries(PRESETS["arm64"])
    assert "cpuid.json" in entries(PRESETS["intel"])


def test_firmware_facts_are_there_if_somebody_may_ask() -> None:
    assert json.loads(text(PRESETS["genoa"], "firmware.json"))["api"] == "1.55"
    assert "firmware.json" not in entries(with_defects("genoa", ["sev-unreadable"]))
    assert "firmware.json" not in entries(with_defects("genoa", ["psp-dead"]))


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("proc/sys/kernel/osrelease", "6.18.9\n"),
        ("sys/module/kvm_amd/parameters/sev", "Y\n"),
        ("sys/module/kvm_amd/parameters/sev_es", "Y\n"),
        ("sys/module/kvm_amd/parameters/sev_snp", "Y\n"),
        ("sys/module/kvm_amd/parameters/npt", "Y\n"),
        ("sys/module/kvm_amd/parameters/nrips", "1\n"),
        ("sys/module/kvm_amd/parameters/ciphertext_hiding_asids", "0\n"),
        ("sys/module/ccp/parameters/init_ex_path", "(null)\n"),
        ("sys/module/kvm/parameters/mmio_caching", "Y\n"),
        ("sys/fs/cgroup/misc.capacity", "sev 754\nsev_es 252\n"),
    ],
)
def test_files_read_as_on_linux(path: str, content: str) -> None:
    assert text(PRESETS["genoa"], path) == content


def test_the_release_is_the_same_wherever_it_stands() -> None:
    milan = PRESETS["milan"]
    release = text(milan, "proc/sys/kernel/osrelease").strip()
    assert text(milan, "proc/version").startswith(f"Linux version {release} (")
    assert text(milan, "proc/cmdline").startswith(f"BOOT_IMAGE=/boot/vmlinuz-{release} ")


def test_the_log_is_stamped_as_dmesg_stamps_it() -> None:
    lines = text(PRESETS["milan"], "var/log/dmesg").splitlines()
    assert lines[0].startswith("[    0.000000] SEV-SNP: RMP table physical range [0x")
    assert lines[-1] == "[    5.850000] kvm_amd: SEV-SNP enabled (ASIDs 1 - 127)"


@pytest.mark.parametrize(
    ("defect", "word"),
    [
        ("iommu-passthrough", "iommu=pt"),
        ("iommu-v2-pagetables", "amd_iommu=pgtbl_v2"),
        ("kvm-sev-off", "kvm_amd.sev=0"),
        ("npt-off", "kvm_amd.npt=0"),
        ("mmio-caching-off", "kvm.mmio_caching=0"),
        ("psp-init-deferred", "ccp.psp_init_on_probe=0"),
        ("kvm-amd-not-loaded", "modprobe.blacklist=kvm_amd"),
        ("cgroup-v1", "systemd.unified_cgroup_hierarchy=0"),
    ],
)
def test_what_the_kernel_was_asked_is_on_its_command_line(defect: str, word: str) -> None:
    assert word in command_line(with_defects("genoa", [defect])).split()
    assert word not in command_line(PRESETS["genoa"]).split()


def test_devices_have_the_modes_of_the_real_ones() -> None:
    found = entries(PRESETS["genoa"])
    assert found["dev/sev"] == File(b"", 0o600)
    assert found["dev/kvm"] == File(b"", 0o660)
    without = entries(with_defects("genoa", ["svm-off", "smee-off"]))
    assert "dev/sev" not in without
    assert "dev/kvm" not in without
    assert without["dev"] == Folder()


@pytest.mark.parametrize(
    ("preset", "defects", "names"),
    [
        ("genoa", (), {"kvm", "sev"}),
        ("genoa", ("kvm-amd-not-loaded",), {"sev"}),
        ("genoa", ("smee-off",), {"kvm"}),
        ("genoa", ("psp-silent",), {"kvm"}),
        ("genoa", ("psp-dead",), {"kvm", "sev"}),
        ("genoa", ("no-psp", "svm-off"), set()),
        ("intel", (), {"kvm"}),
    ],
)
def test_the_kernel_lists_the_devices_that_there_are(
    preset: str, defects: tuple[str, ...], names: set[str]
) -> None:
    found = entries(with_defects(preset, defects))
    listed = {path.removeprefix("sys/class/misc/") for path in found if "class/misc/" in path}
    assert listed == names | {"cpu_dma_latency"}
    assert {name for name in ("kvm", "sev") if f"dev/{name}" in found} == names
    assert found["sys/class/misc/cpu_dma_latency"] == Link(
        "../../devices/virtual/misc/cpu_dma_latency"
    )


def test_only_what_is_writable_on_linux_is_writable() -> None:
    found = entries(with_defects("genoa", ["guests-running"]))
    modes = {path: entry.mode for path, entry in found.items() if isinstance(entry, File)}
    assert modes["sys/fs/cgroup/misc.capacity"] == 0o444
    assert modes["sys/module/kvm_amd/parameters/sev"] == 0o444
    assert modes["sys/fs/cgroup/kubepods.slice/misc.max"] == 0o644
    assert modes["sys/module/ccp/parameters/psp_cmd_timeout"] == 0o644
    assert modes["sys/kernel/iommu_groups/0/type"] == 0o644


@pytest.mark.parametrize("preset", PRESETS)
def test_every_link_is_relative_and_leads_to_something_inside(preset: str) -> None:
    found = entries(PRESETS[preset])
    links = {path: entry.target for path, entry in found.items() if isinstance(entry, Link)}
    for path, target in links.items():
        assert not target.startswith("/")
        where = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        assert not where.startswith("..")
        assert any(other.startswith(f"{where}/") for other in found), where
    assert "sys/class/misc/cpu_dma_latency" in links


def test_the_driver_leads_to_the_secure_processor() -> None:
    found = entries(PRESETS["milan"])
    assert found["sys/bus/pci/drivers/ccp/0000:22:00.1"] == Link(
        "../../../../devices/pci0000:22/0000:22:08.1/0000:22:00.1"
    )
    assert found["sys/class/iommu/ivhd0"] == Link(
        "../../devices/pci0000:00/0000:00:00.2/iommu/ivhd0"
    )
    without = entries(with_defects("milan", ["no-psp"]))
    # KVM needs the driver's module, which then drives nothing.
    assert [path for path in without if "drivers/ccp" in path] == ["sys/bus/pci/drivers/ccp/module"]
    assert not any("drivers/ccp" in path for path in entries(PRESETS["intel"]))


def test_without_an_iommu_its_folders_are_empty() -> None:
    found = entries(with_defects("genoa", ["iommu-off"]))
    assert found["sys/class/iommu"] == found["sys/kernel/iommu_groups"] == Folder()
    assert not any(path.startswith("sys/class/iommu/") for path in found)
    assert not any(path.startswith("sys/kernel/iommu_groups/") for path in found)
