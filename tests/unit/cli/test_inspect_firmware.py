from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sevkit.cli.main import main
from sevkit.measure.launch_digest import compute_firmware_hash
from sevkit.testing.firmware import FirmwareImage, encode_firmware

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def write(folder: Path, data: bytes) -> str:
    path = folder / "OVMF.fd"
    path.write_bytes(data)
    return str(path)


def test_the_tables_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = encode_firmware(FirmwareImage())
    assert main(["inspect", "firmware", write(tmp_path, data)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"firmware hash\t{compute_firmware_hash(data).hex()}" in lines
    assert "AP reset address\t0x80b004" in lines
    assert "kernel hashes\t0x810c00, 1024 bytes" in lines
    assert "section\t0x80e000, 4096 bytes, CPUID" in lines


def test_json_is_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, encode_firmware(FirmwareImage(secret_area=None)))
    assert main(["inspect", "firmware", path, "--output", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "sevkit.io/firmware/v1"
    assert document["reset_eip"] == "0x80b004"
    assert document["secret_area"] is None
    assert len(document["sections"]) == 7
    assert len(document["footer"]) == 3


def test_an_image_without_tables_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", "firmware", write(tmp_path, bytes(4096))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "footer table\tnone" in lines
    assert "SEV metadata\tnone" in lines
    assert "launch secret\tno place" in lines
    assert "AP reset address\tnone" in lines


def test_a_malformed_image_is_exit_65(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "firmware", write(tmp_path, b"short")]) == 65
    assert capsys.readouterr().out == ""
