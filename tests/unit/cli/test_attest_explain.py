from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from sevkit.cli.main import main
from sevkit.measure.kernel_hashes import KernelHashes, compute_kernel_hashes
from sevkit.measure.launch_digest import (
    compute_sev_digest,
    compute_sev_es_digest,
    compute_snp_digest,
)
from sevkit.measure.terms import Era
from sevkit.measure.vcpu import Registers
from sevkit.testing.firmware import FirmwareImage, encode_firmware

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = encode_firmware(FirmwareImage())


@pytest.fixture
def firmware(tmp_path: Path) -> str:
    path = tmp_path / "OVMF.fd"
    path.write_bytes(IMAGE)
    return str(path)


@pytest.fixture
def kernel(tmp_path: Path) -> str:
    path = tmp_path / "vmlinuz"
    path.write_bytes(b"kernel")
    return str(path)


def test_the_parameters_that_fit_are_printed(
    firmware: str, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = compute_snp_digest(IMAGE, Registers(0xA10F11, 0x221), 37).hex()
    assert main(["attest", "explain", digest, "--mode", "snp", "--firmware", firmware]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"firmware\t{firmware}",
        "boot\tno kernel hashes",
        "vcpus\t37",
        "guest_features\t0x221",
        "vmm\tqemu",
        "vcpu_signature\t0xa10f11",
        "cpu\thost CPU Genoa, stepping 1",
    ]


def test_json_has_the_parameters_and_the_number_tried(
    firmware: str, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = compute_sev_es_digest(IMAGE, Registers(0xA00F11, 0, era=Era.INIT2), 2)
    arguments = ["attest", "explain", digest.hex(), "--mode", "sev-es", "--firmware", firmware]
    assert main([*arguments, "--vcpu-type", "EPYC-Milan", "--output", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "sevkit.io/explanation/v1"
    assert document["parameters"]["era"] == "init2"
    assert document["parameters"]["vcpus"] == 2
    assert document["tried"] == 512 + 2


def test_a_digest_in_base64_is_understood(firmware: str) -> None:
    digest = base64.b64encode(compute_sev_digest(IMAGE)).decode()
    assert main(["attest", "explain", digest, "--mode", "sev", "--firmware", firmware]) == 0


@pytest.mark.parametrize(
    ("given", "measured", "boot"),
    [
        ("quiet", "quiet", "kernel hashes as given"),
        ("quiet", "quiet\n", "command line with a line feed at its end"),
        ("quiet", "quiet ", "command line with a space at its end"),
        (" quiet\n", "quiet", "command line without white space at its ends"),
        ("quiet", "", "empty command line"),
        ("", "", "kernel hashes as given"),
    ],
)
def test_a_variant_of_the_command_line_is_found(
    given: str,
    measured: str,
    boot: str,
    firmware: str,
    kernel: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    digest = compute_sev_digest(IMAGE, compute_kernel_hashes(b"kernel", cmdline=measured)).hex()
    arguments = ["attest", "explain", digest, "--mode", "sev", "--firmware", firmware]
    assert main([*arguments, "--kernel", kernel, "--cmdline", given]) == 0
    assert f"boot\t{boot}\n" in capsys.readouterr().out


def test_a_missing_nul_and_missing_kernel_hashes_are_found(
    firmware: str, kernel: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = compute_kernel_hashes(b"kernel")
    without = KernelHashes(whole.kernel, whole.initrd, hashlib.sha256(b"quiet").digest())
    for hashes, boot in ((without, "without its closing NUL"), (None, "no kernel hashes")):
        digest = compute_sev_digest(IMAGE, hashes).hex()
        arguments = ["attest", "explain", digest, "--mode", "sev", "--firmware", firmware]
        assert main([*arguments, "--kernel", kernel, "--cmdline", "quiet"]) == 0
        assert boot in capsys.readouterr().out


def test_a_search_in_vain_is_exit_1_and_says_how_much_was_tried(
    firmware: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["attest", "explain", "00" * 48, "--mode", "snp", "--firmware", firmware]
    options = ["--vcpus", "1-4", "--vcpu-sig", "0", "--guest-features", "1", "--vmm", "qemu"]
    assert main([*arguments, *options]) == 1
    out = capsys.readouterr()
    assert out.out == "none of 4 digests fits\n"
    assert out.err == ""
    assert main([*arguments, *options, "--output", "json"]) == 1
    assert json.loads(capsys.readouterr().out)["parameters"] is None


def test_candidates_that_cannot_be_measured_are_named(
    firmware: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blank = tmp_path / "blank.fd"
    blank.write_bytes(bytes(4096))
    digest = compute_snp_digest(IMAGE, Registers(0x800F12, 1), 1).hex()
    arguments = ["attest", "explain", digest, "--mode", "snp", "--firmware", str(blank)]
    assert main([*arguments, "--firmware", firmware]) == 0
    assert "not tried: " in capsys.readouterr().err
    assert main(arguments) == 65


@pytest.mark.parametrize(("mode", "size"), [("sev", 32), ("sev-es", 32), ("snp", 48)])
def test_what_is_no_firmware_is_not_a_search_in_vain(mode: str, size: int, tmp_path: Path) -> None:
    garbage = tmp_path / "garbage"
    garbage.write_bytes(bytes(5000))
    options = ["--mode", mode, "--firmware", str(garbage)]
    assert main(["attest", "explain", "00" * size, *options]) == 65


@pytest.mark.parametrize(
    "arguments",
    [
        ["00" * 48],
        ["00" * 32, "--mode", "snp"],
        ["00" * 48, "--mode", "sev"],
        ["zz" * 32, "--mode", "sev"],
        ["", "--mode", "sev"],
        ["ä" * 64, "--mode", "sev"],
        ["00" * 32, "--mode", "sev", "--era", "init"],
        ["00" * 32, "--mode", "sev-es", "--vmm", "ec2"],
        ["00" * 32, "--mode", "sev", "--cmdline", "x"],
        ["00" * 32, "--mode", "sev-es", "--vcpu-type", "x"],
        ["00" * 48, "--mode", "snp", "--guest-features", "0x20"],
    ],
)
def test_an_ill_formed_request_is_a_usage_error(
    arguments: list[str], firmware: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["attest", "explain", *arguments, "--firmware", firmware]) == 2
    assert capsys.readouterr().out == ""


def test_features_of_an_snp_guest_are_not_searched_for_sev_es(
    firmware: str, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = compute_sev_es_digest(IMAGE, Registers(0xA00F11, 0), 2).hex()
    arguments = ["attest", "explain", digest, "--mode", "sev-es", "--firmware", firmware]
    assert main([*arguments, "--guest-features", "0x1", "--guest-features", "0x21"]) == 0
    out = capsys.readouterr()
    assert "guest_features\t0x0\n" in out.out
    assert out.err.count("not part of this sev-es digest") == 2
