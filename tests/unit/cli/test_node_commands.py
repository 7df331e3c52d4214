from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from sevkit.cli.main import main
from sevkit.testing.host import PRESETS, with_defects, write_host

if TYPE_CHECKING:
    from pathlib import Path


def host(tmp_path: Path, preset: str, *defects: str) -> str:
    root = tmp_path / "host"
    write_host(with_defects(preset, defects), root)
    return str(root)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_probe_of_any_host_is_done_and_well_formed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], preset: str
) -> None:
    root = host(tmp_path, preset)
    assert main(["node", "probe", "--host-root", root, "--output", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "sevkit.io/node-probe/v1"
    assert main(["node", "probe", "--host-root", root]) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    ("preset", "defects", "required", "code"),
    [
        ("genoa", (), ("sev-snp",), 0),
        ("genoa", (), ("sev", "sev-snp"), 0),
        ("genoa", (), ("sev-es",), 3),
        ("rome-es", (), ("sev-es",), 0),
        ("rome", (), ("sev",), 0),
        ("rome", (), ("sev-es",), 3),
        ("rome", (), ("sev-snp",), 3),
        ("milan", ("smee-off",), ("sev",), 3),
        ("milan", ("iommu-passthrough",), ("sev",), 0),
        ("milan", ("iommu-passthrough",), ("sev-snp",), 3),
        ("virtual-machine", (), ("sev",), 3),
    ],
)
def test_the_doctor_answers_for_what_is_required(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    preset: str,
    defects: tuple[str, ...],
    required: tuple[str, ...],
    code: int,
) -> None:
    words = ["node", "doctor", "--host-root", host(tmp_path, preset, *defects)]
    for name in required:
        words += ["--require", name]
    assert main(words) == code
    assert ("NOT READY" in capsys.readouterr().out) is (code == 3)
    assert main([*words, "--output", "json"]) == code
    assert json.loads(capsys.readouterr().out)["schema"] == "sevkit.io/node-doctor/v1"


def test_the_doctor_names_the_fix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = host(tmp_path, "milan", "iommu-passthrough")
    assert main(["node", "doctor", "--host-root", root, "--require", "sev-snp"]) == 3
    assert "iommu=pt" in capsys.readouterr().out


def test_what_cannot_be_found_out_is_undecided_and_no_no(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    words = ["node", "doctor", "--host-root", str(tmp_path / "empty"), "--require", "sev"]
    assert main(words) == 4
    capsys.readouterr()


def test_a_host_that_is_not_there_is_usage(tmp_path: Path) -> None:
    assert main(["node", "probe", "--host-root", str(tmp_path / "none")]) == 2
