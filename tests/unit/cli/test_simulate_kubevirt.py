"""What it refuses before it serves; that it serves is an integration test."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest

from sevkit.cli.main import main
from sevkit.measure.terms import Mode
from sevkit.testing.kubevirt.owner_side import make_vmi

if TYPE_CHECKING:
    from pathlib import Path

SIMULATE = ("simulate", "kubevirt")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "--state"),
        (["--product=athlon"], "athlon"),
        (["--host-count=0"], "'0' is not a number from 1 to 64"),
        (["--deadline=0"], "'0' is not a number from 1 to 86400"),
        (["--listen=nowhere"], "'nowhere' is not HOST:PORT"),
        (["--kubeconfig=k", "--vmi=v"], "--vmi is for VMIs of its own"),
    ],
)
def test_an_ill_formed_request_is_2_and_nothing_is_made(
    tmp_path: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    state = [f"--state={tmp_path / 'sim'}"] if options else []
    assert main([*SIMULATE, *state, *options]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert not captured.out
    assert not (tmp_path / "sim").exists()


def vmi_without_start_strategy() -> str:
    vmi = make_vmi(Mode.SEV)
    del vmi["spec"]["startStrategy"]
    return json.dumps(vmi)


@pytest.mark.parametrize(
    ("document", "code", "said"),
    [
        ("kind: Pod\n", 2, "holds something else than a VirtualMachineInstance"),
        ("kind: VirtualMachineInstance\n", 65, "a VMI has no name"),
        ("{", 65, "vmi.yaml"),
        (vmi_without_start_strategy(), 2, "StartStrategy 'Paused'"),
    ],
)
def test_a_manifest_that_kubevirt_would_not_take_is_refused(
    tmp_path: Path, document: str, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "vmi.yaml"
    path.write_text(document)
    assert main([*SIMULATE, f"--state={tmp_path / 'sim'}", f"--vmi={path}"]) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "sim").exists()


@pytest.mark.parametrize("option", ["--firmware", "--vmi", "--kubeconfig"])
def test_a_file_that_is_not_there_is_named(
    tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = tmp_path / "absent"
    assert main([*SIMULATE, f"--state={tmp_path / 'sim'}", f"{option}={absent}"]) in {2, 4}
    assert "absent" in capsys.readouterr().err


def test_a_port_that_is_taken_is_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        arguments = [
            f"--state={tmp_path / 'sim'}",
            "--product=naples",
            f"--listen=127.0.0.1:{port}",
        ]
        assert main([*SIMULATE, *arguments]) == 4
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err


def test_a_state_that_is_not_ours_is_65(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "chips.json").write_text("{}")
    assert main([*SIMULATE, f"--state={tmp_path}"]) == 65
    assert "is not what was saved" in capsys.readouterr().err


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SIMULATE, "--help"]) == 0
    out = capsys.readouterr().out
    for option in ("--listen", "--vmi", "--firmware", "--product", "--host-count", "--deadline"):
        assert option in out
