"""Which door is tried, and what is said where none is open; the trees are folders of files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from sevkit.errors import HostReadError
from sevkit.guest.fetch import fetch_report

if TYPE_CHECKING:
    from pathlib import Path

    from sevkit.guest.patience import Patience
    from sevkit.guest.report import ReportRequest

CPUINFO: Final = "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu {}sse\n\n"
VMPL: Final = "sys/devices/system/cpu/sev/vmpl"


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def refusal(root: Path, asked: ReportRequest, patience: Patience) -> HostReadError:
    with pytest.raises(HostReadError) as caught:
        fetch_report(str(root), asked, patience)
    assert caught.value.exit_code == 4
    return caught.value


def test_a_machine_without_anything_may_be_no_guest(
    tmp_path: Path, asked: ReportRequest, patience: Patience
) -> None:
    found = refusal(tmp_path, asked, patience)
    assert found.message == (
        "not an SNP guest, or one whose driver is not loaded: no configfs mounted at "
        "/sys/kernel/config; /dev/sev-guest: No such file or directory"
    )
    assert "modprobe sev-guest; mount -t configfs none /sys/kernel/config" in found.hint


def test_a_machine_of_iron_is_no_guest(
    tmp_path: Path, asked: ReportRequest, patience: Patience
) -> None:
    write(tmp_path, "proc/cpuinfo", CPUINFO.format(""))
    found = refusal(tmp_path, asked, patience)
    assert found.message.startswith("not an SNP guest, nor any guest: ")
    assert found.hint == "run this inside the guest"
    write(tmp_path, "proc/cpuinfo", CPUINFO.format("hypervisor "))
    assert "or one whose driver is not loaded" in refusal(tmp_path, asked, patience).message


def test_an_snp_guest_without_its_driver_is_told_apart(
    tmp_path: Path, asked: ReportRequest, patience: Patience
) -> None:
    write(tmp_path, VMPL, "2\n")
    found = refusal(tmp_path, asked, patience)
    assert found.message.startswith("this SNP guest offers no reports: no configfs mounted")
    assert found.hint.startswith("modprobe sev-guest")


def test_configfs_without_the_driver_is_not_configfs_unmounted(
    tmp_path: Path, asked: ReportRequest, patience: Patience
) -> None:
    config = tmp_path / "sys/kernel/config"
    config.mkdir(parents=True)
    assert "no configfs mounted" in refusal(tmp_path, asked, patience).message
    (config / "usb_gadget").mkdir()
    assert "no tsm/report in /sys/kernel/config" in refusal(tmp_path, asked, patience).message
    (config / "tsm").mkdir()
    assert "no tsm/report in /sys/kernel/config" in refusal(tmp_path, asked, patience).message


def test_a_captured_tree_has_doors_that_lead_nowhere(
    tmp_path: Path, asked: ReportRequest, patience: Patience
) -> None:
    reports = tmp_path / "sys/kernel/config/tsm/report"
    reports.mkdir(parents=True)
    found = refusal(tmp_path, asked, patience)
    assert "configfs-tsm provider: No such file or directory" in found.message
    write(tmp_path, "dev/sev-guest", "")
    found = refusal(tmp_path, asked, patience)
    assert "/dev/sev-guest: not the device of the driver" in found.message
    assert list(reports.iterdir()) == []


def test_a_tree_of_links_leads_nowhere(
    tmp_path: Path, asked: ReportRequest, patience: Patience
) -> None:
    outside = tmp_path / "outside/kernel/config/tsm/report"
    outside.mkdir(parents=True)
    root = tmp_path / "root"
    root.mkdir()
    (root / "sys").symlink_to(tmp_path / "outside")
    (root / "dev").symlink_to("/dev")
    refusal(root, asked, patience)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("text", ["", "4\n", "x\n", "-1"])
def test_a_vmpl_that_makes_no_sense_is_not_known(
    tmp_path: Path, asked: ReportRequest, patience: Patience, text: str
) -> None:
    write(tmp_path, VMPL, text)
    assert refusal(tmp_path, asked, patience).message.startswith("not an SNP guest, or")
