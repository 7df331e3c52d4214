from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sevkit.abi.vmsa import VMSA
from sevkit.cli.main import main
from sevkit.measure.vcpu import BSP_EIP, Registers, encode_vcpu

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def write(folder: Path, data: bytes) -> str:
    path = folder / "vmsa.bin"
    path.write_bytes(data)
    return str(path)


def test_registers_that_are_set_are_shown_with_what_they_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, encode_vcpu(Registers(0xB00F21, 0x10021), BSP_EIP))
    assert main(["inspect", "vmsa", path]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "rip\t0xfff0" in lines
    assert "rdx\t0xb00f21\thost CPU Turin, stepping 1" in lines
    assert "sev_features\t0x10021\tSNP_ACTIVE, DEBUG_SWAP, unknown 0x10000" in lines
    assert not any(line.startswith("rax") for line in lines)


def test_all_shows_zeros_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, bytes(4096))
    assert main(["inspect", "vmsa", path]) == 0
    assert capsys.readouterr().out == ""
    assert main(["inspect", "vmsa", "--all", path]) == 0
    named = [row for row in VMSA.fields if row.kind in {"int", "bytes"}]
    assert len(capsys.readouterr().out.splitlines()) == len(named)


def test_json_has_every_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, encode_vcpu(Registers(5, 1), BSP_EIP))
    assert main(["inspect", "vmsa", path, "--output", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "sevkit.io/vmsa/v1"
    assert document["fields"]["rdx"] == "0x5"
    assert document["fields"]["fpreg_x87"] == "00" * 80


def test_another_length_is_exit_65(tmp_path: Path) -> None:
    assert main(["inspect", "vmsa", write(tmp_path, bytes(4095))]) == 65
