from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from sevkit.cli.main import main
from sevkit.testing.host.defects import with_defects
from sevkit.testing.host.write import write_host

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def milan(tmp_path: Path) -> str:
    root = tmp_path / "milan"
    write_host(with_defects("milan", ["sev-unreadable"]), root)
    return str(root)


def test_every_source_is_a_line(milan: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["node", "probe", "--host-root", milan]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["product"] == "milan"
    assert lines["modules.sev_snp"] == "yes"
    assert lines["cpuid.encryption.c_bit"] == "51"
    assert lines["misc.capacity.encrypted_state"] == "127"
    assert lines["firmware"] == "(absent) /firmware.json: No such file or directory"


def test_json_is_one_document(milan: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["node", "probe", "--host-root", milan, "--output", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "sevkit.io/node-probe/v1"
    assert document["simulated"] is True
    assert document["sources"]["modules.sev"] == {"value": True}
    assert document["sources"]["firmware"]["unread"] == "absent"


def test_sys_can_be_elsewhere(
    milan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "milan/sys").rename(tmp_path / "sys")
    words = ["node", "probe", "--output", "json"]
    assert main([*words, "--host-root", milan]) == 0
    assert json.loads(capsys.readouterr().out)["sources"]["modules.sev"]["unread"] == "absent"
    assert main([*words, "--host-sys", str(tmp_path / "sys")]) == 0
    assert json.loads(capsys.readouterr().out)["sources"]["modules.sev"] == {"value": True}


@pytest.mark.parametrize("option", ["--host-sys", "--firmware-facts"])
def test_of_a_captured_host_nothing_outside_of_it_is_read(
    option: str, milan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else it would be two machines in one, and nobody would see it."""
    assert main(["node", "probe", "--host-root", milan, option, f"{milan}/sys"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "nothing outside of it is read" in captured.err


@pytest.mark.parametrize("option", ["--host-root", "--host-sys", "--domain-capabilities"])
def test_what_is_not_there_is_a_usage_error(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["node", "probe", option, str(tmp_path / "none")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("sevkit: ")


def test_what_a_host_writes_does_not_reach_the_terminal(
    milan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cpuinfo = tmp_path / "milan/proc/cpuinfo"
    text = cpuinfo.read_text().replace("AMD EPYC 7413", "\x1b[31mred\x9b")
    cpuinfo.unlink()
    cpuinfo.write_text(text)
    assert main(["node", "probe", "--host-root", milan]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\x9b" not in out


def test_libvirts_document_is_shown_beside(
    milan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lxml", reason="the extra 'libvirt' is not installed")
    document = tmp_path / "caps.xml"
    document.write_text("<domainCapabilities><domain>kvm</domain></domainCapabilities>")
    words = ["node", "probe", "--host-root", milan, "--domain-capabilities", str(document)]
    assert main(words) == 0
    assert "domain_capabilities.virt_type" in capsys.readouterr().out
