from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from sevkit.host.conditions import iommu_fault
from sevkit.host.evidence import weigh
from sevkit.host.platform import (
    IommuFacts,
    probe_iommu,
    probe_secure_processors,
    probe_sev_device,
)
from sevkit.host.probe import probe_host
from sevkit.host.reading import Cause, Known, Unreadable
from sevkit.host.sources import CapturedHost, HostFiles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def host(root: Path) -> CapturedHost:
    return CapturedHost(HostFiles(str(root)))


def test_the_secure_processor_is_read_through_its_driver(tree: Callable[..., Path]) -> None:
    found = probe_secure_processors(host(tree("genoa")))
    assert isinstance(found, Known)
    (one,) = found.value
    assert one.address == "0000:01:00.5"
    assert one.attributes["device"] == "0x14ca"
    assert one.attributes["bootloader_version"] == "00.2d.00.6f"
    assert "boot_integrity" not in one.attributes  # Linux 6.18 does not show it


def test_no_device_is_told_from_no_sight_of_pci(tree: Callable[..., Path], tmp_path: Path) -> None:
    assert probe_secure_processors(host(tree("genoa", "no-psp"))) == Known(())
    (tmp_path / "bare").mkdir()
    found = probe_secure_processors(host(tmp_path / "bare"))
    assert isinstance(found, Unreadable)
    driver = tmp_path / "loaded/sys/bus/pci/drivers/ccp"
    driver.mkdir(parents=True)
    (driver / "uevent").touch()
    # A copy without links has no devices, and no link to the module either.
    assert isinstance(probe_secure_processors(host(tmp_path / "loaded")), Unreadable)
    (driver / "module").symlink_to("/sys/module/ccp")
    assert probe_secure_processors(host(tmp_path / "loaded")) == Known(())


def test_an_empty_list_of_drivers_is_none(tmp_path: Path) -> None:
    drivers = tmp_path / "sys/bus/pci/drivers"
    drivers.mkdir(parents=True)
    assert isinstance(probe_secure_processors(host(tmp_path)), Unreadable)
    (drivers / "pcieport").mkdir()
    assert probe_secure_processors(host(tmp_path)) == Known(())
    # A driver that is there and cannot be looked into is none that is missing.
    (drivers / "ccp").touch()
    assert isinstance(probe_secure_processors(host(tmp_path)), Unreadable)


@pytest.mark.parametrize(
    ("names", "facts"),
    [
        (("milan",), IommuFacts(1, snp=True, group_types=("DMA-FQ",))),
        (("milan", "iommu-snp-off"), IommuFacts(1, snp=False, group_types=("DMA-FQ",))),
        (("milan", "iommu-passthrough"), IommuFacts(1, snp=True, group_types=("identity",))),
        (("milan", "iommu-off"), IommuFacts(0, snp=None, group_types=())),
        (("intel",), IommuFacts(0, snp=None, group_types=("DMA-FQ",))),
    ],
)
def test_the_iommu_is_read(
    names: tuple[str, ...], facts: IommuFacts, tree: Callable[..., Path]
) -> None:
    assert probe_iommu(host(tree(*names))) == Known(facts)


def test_one_unit_without_the_bit_is_enough_for_a_no(tree: Callable[..., Path]) -> None:
    root = tree("milan")
    second = root / "sys/class/iommu/ivhd1/amd-iommu"
    second.mkdir(parents=True)
    (second / "features").write_text("25bf7320a2294aee:1d\n")
    found = probe_iommu(host(root))
    assert isinstance(found, Known)
    assert (found.value.units, found.value.snp) == (2, False)
    (second / "features").write_text("not hex\n")
    found = probe_iommu(host(root))
    assert isinstance(found, Known)
    assert found.value.snp is None


def test_groups_without_units_are_a_copy_without_links(tree: Callable[..., Path]) -> None:
    root = tree("milan")
    (root / "sys/class/iommu/ivhd0").unlink()
    assert isinstance(probe_iommu(host(root)), Unreadable)


def test_without_units_only_a_list_that_is_empty_says_that_there_are_none(
    tree: Callable[..., Path],
) -> None:
    root = tree("milan", "iommu-off")
    groups = root / "sys/kernel/iommu_groups"
    assert probe_iommu(host(root)) == Known(IommuFacts(0, snp=None, group_types=()))
    groups.rmdir()
    found = probe_iommu(host(root))
    assert isinstance(found, Unreadable)
    assert found.cause is Cause.ABSENT
    groups.write_text("damaged")
    assert isinstance(probe_iommu(host(root)), Unreadable)


def test_a_copy_that_lost_units_and_groups_does_not_say_that_the_iommu_is_off(
    tree: Callable[..., Path],
) -> None:
    root = tree("milan")
    (root / "sys/class/iommu/ivhd0").unlink()
    shutil.rmtree(root / "sys/kernel/iommu_groups")
    assert iommu_fault(weigh(probe_host(host(root)))) is None


def test_groups_are_not_needed_where_there_are_units(tree: Callable[..., Path]) -> None:
    root = tree("milan")
    shutil.rmtree(root / "sys/kernel/iommu_groups")
    assert probe_iommu(host(root)) == Known(IommuFacts(1, snp=True, group_types=()))


def test_passthrough_is_open_where_no_group_says() -> None:
    assert IommuFacts(1, snp=True, group_types=()).passthrough is None
    assert IommuFacts(1, snp=True, group_types=("identity", "DMA")).passthrough is False
    assert IommuFacts(1, snp=True, group_types=("identity",)).passthrough is True


def test_the_kernels_list_decides_whether_there_is_a_device(tree: Callable[..., Path]) -> None:
    root = tree("milan")
    assert probe_sev_device(host(root)) == Known(value=True)
    (root / "dev/sev").unlink()  # as in a container
    assert probe_sev_device(host(root)) == Known(value=True)
    registered = root / "sys/class/misc"
    (registered / "sev").unlink()
    assert probe_sev_device(host(root)) == Known(value=False)
    for name in ("kvm", "cpu_dma_latency"):
        (registered / name).unlink()
    for _ in "empty", "gone":
        found = probe_sev_device(host(root))
        assert isinstance(found, Unreadable)
        assert found.cause is Cause.NOT_ASKED
        if registered.exists():
            registered.rmdir()
