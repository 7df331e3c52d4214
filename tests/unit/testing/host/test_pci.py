from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sevkit.testing.host.defects import with_defects
from sevkit.testing.host.pci import render_iommu, render_secure_processor
from sevkit.testing.host.presets import PRESETS

if TYPE_CHECKING:
    from sevkit.testing.host.spec import HostSpec

MILAN = "sys/devices/pci0000:22/0000:22:08.1/0000:22:00.1"
IVHD = "sys/devices/pci0000:00/0000:00:00.2/iommu/ivhd0"


def names(spec: HostSpec) -> dict[str, str]:
    return {path.rpartition("/")[2]: text for path, text in render_secure_processor(spec)}


def test_milan_s_secure_processor_is_where_and_what_it_is() -> None:
    found = dict(render_secure_processor(PRESETS["milan"]))
    assert found[f"{MILAN}/vendor"] == "0x1022\n"
    assert found[f"{MILAN}/device"] == "0x1486\n"
    assert found[f"{MILAN}/bootloader_version"] == "00.13.00.70\n"
    assert found[f"{MILAN}/fused_part"] == "1\n"
    assert f"{MILAN}/tee_version" not in found


@pytest.mark.parametrize(
    ("preset", "device", "versions"),
    [
        ("naples", "0x1456\n", set()),
        ("rome", "0x1486\n", set()),
        ("genoa", "0x14ca\n", {"bootloader_version", "tee_version"}),
        ("turin", "0x156e\n", set()),
    ],
)
def test_what_is_shown_depends_on_device_and_kernel(
    preset: str, device: str, versions: set[str]
) -> None:
    found = names(PRESETS[preset])
    assert found["device"] == device
    assert found.keys() & {"bootloader_version", "tee_version"} == versions
    assert ("boot_integrity" in found) == (preset == "turin")


@pytest.mark.parametrize("preset", ["virtual-machine", "intel", "arm64"])
def test_other_hosts_have_no_secure_processor(preset: str) -> None:
    assert names(PRESETS[preset]) == {}


def test_one_that_is_absent_is_not_shown() -> None:
    assert names(with_defects("genoa", ["no-psp"])) == {}


def test_the_iommu_says_whether_it_can_do_snp() -> None:
    able = dict(render_iommu(PRESETS["genoa"]))
    unable = dict(render_iommu(with_defects("genoa", ["iommu-snp-off"])))
    assert able[f"{IVHD}/amd-iommu/features"] == "a5bf7320a2294aee:1d\n"
    assert unable[f"{IVHD}/amd-iommu/features"] == "25bf7320a2294aee:1d\n"


def test_passthrough_is_the_type_of_the_groups() -> None:
    group = "sys/kernel/iommu_groups/0/type"
    assert dict(render_iommu(PRESETS["genoa"]))[group] == "DMA-FQ\n"
    assert dict(render_iommu(with_defects("genoa", ["iommu-passthrough"])))[group] == "identity\n"


@pytest.mark.parametrize(
    ("preset", "defects"), [("genoa", ["iommu-off"]), ("virtual-machine", []), ("arm64", [])]
)
def test_without_an_iommu_there_is_nothing(preset: str, defects: list[str]) -> None:
    assert list(render_iommu(with_defects(preset, defects))) == []
