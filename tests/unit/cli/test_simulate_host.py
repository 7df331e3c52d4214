from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from sevkit.cli.main import main
from sevkit.testing.host.booting import boot
from sevkit.testing.host.defects import DEFECTS, with_defects
from sevkit.testing.host.presets import PRESETS
from sevkit.testing.host.tree import File, render_tree

if TYPE_CHECKING:
    from pathlib import Path

SIMULATE = ("simulate", "host")


def test_a_host_is_written_and_described(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "host")
    assert main([*SIMULATE, "genoa", "--out", out]) == 0
    assert capsys.readouterr().out == f"root\t{out}\nhost\tgenoa\nkvm\tSEV, SEV-ES, SEV-SNP\n"
    cpuinfo = render_tree(PRESETS["genoa"], boot(PRESETS["genoa"]))["proc/cpuinfo"]
    assert isinstance(cpuinfo, File)
    assert (tmp_path / "host/proc/cpuinfo").read_bytes() == cpuinfo.data


def test_defects_are_put_on_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "host")
    defects = ("iommu-passthrough", "no-misc-controller")
    options = [word for name in defects for word in ("--defect", name)]
    assert main([*SIMULATE, "milan", *options, "--out", out, "--output", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "schema": "sevkit.io/simulate-host/v1",
        "preset": "milan",
        "defects": list(defects),
        "root": out,
        "kvm": {"sev": True, "sev_es": True, "sev_snp": False},
        "asids": {},
    }
    spec = with_defects("milan", defects)
    assert boot(spec).misc_capacity is None
    assert not (tmp_path / "host/sys/fs/cgroup/misc.capacity").exists()
    assert " iommu=pt" in (tmp_path / "host/proc/cmdline").read_text()


def test_a_host_without_sev_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SIMULATE, "intel", "--out", str(tmp_path / "host")]) == 0
    assert capsys.readouterr().out.endswith("kvm\tnone\n")


def test_the_list_has_every_preset_and_every_defect(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SIMULATE, "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "]
    assert names == [*PRESETS, *DEFECTS]
    assert "  turin                    Turin, Linux 7.1.8, KVM offers SEV, SEV-ES, SEV-SNP" in lines
    assert lines[-1].strip() == f"on {', '.join(list(PRESETS)[:9])}"


def test_the_list_as_json_says_where_each_defect_can_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SIMULATE, "--list", "--output", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["presets"]] == list(PRESETS)
    assert found["presets"][1] == {
        "name": "rome",
        "product": "Rome",
        "kernel": "6.1.0-40-amd64",
        "kvm": {"sev": True, "sev_es": False, "sev_snp": False},
    }
    assert {row["name"]: set(row["presets"]) for row in found["defects"]} == {
        name: set(one.applies_to) for name, one in DEFECTS.items()
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "which host?"),
        (["genoa"], "--out DIR, or -- PROGRAM"),
        (["genoa", "--out", "x", "--", "true"], "--out DIR, or -- PROGRAM"),
        (["genoa", "--list"], "--list goes alone"),
        (["--list", "--defect", "smee-off"], "--list goes alone"),
        (["pentium", "--out", "x"], "pentium"),
        (["genoa", "--defect", "rust", "--out", "x"], "rust"),
        (["rome", "--defect", "rmp-not-reserved", "--out", "x"], "cannot be on rome"),
        (
            ["genoa", "--defect", "guests-running", "--defect", "smee-off", "--out", "x"],
            "impossible machine: ",
        ),
    ],
)
def test_what_cannot_be_is_usage(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*SIMULATE, *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text("precious")
    assert main([*SIMULATE, "genoa", "--out", str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_folder_that_cannot_be_made_is_undecided(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SIMULATE, "genoa", "--out", str(tmp_path / ("a" * 300))]) == 4
    assert "cannot be written: File name too long" in capsys.readouterr().err


def test_a_folder_in_a_file_is_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main([*SIMULATE, "genoa", "--out", str(tmp_path / "file/host")]) == 2
    assert "is in something that is not a folder" in capsys.readouterr().err


def test_a_name_with_a_nul_is_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SIMULATE, "genoa", "--out", "a\0b"]) == 2
    assert "not the name of a folder" in capsys.readouterr().err
