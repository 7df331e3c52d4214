"""The whole command on real evidence that is committed: reports, and firmware with known digests.

The digests are those that the tests of the crate ``sev`` and of sev-snp-measure expect.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from sevkit.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

AT = "2026-11-23T00:00:00Z"
REPORTS = {
    "milan": ("sev-crate/report_milan.hex", "sev-crate/vcek_milan.der"),
    "debug": ("go-sev-guest/attestation.bin", "go-sev-guest/vcek.testcer"),
}


def attest(
    vectors: Path, capsys: pytest.CaptureFixture[str], report: str, vek: str, *options: str
) -> tuple[int, dict[str, Any]]:
    code = main(
        [
            "--output=json",
            "attest",
            "report",
            str(vectors / report),
            f"--vek={vectors / vek}",
            "--offline",
            "--allow-any-report-data",
            "--allow-any-measurement",
            f"--at={AT}",
            *options,
        ]
    )
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert document["exit_code"] == code
    return code, document


def failures(document: dict[str, Any]) -> list[str]:
    return [row["check"] for row in document["findings"] if row["outcome"] == "fail"]


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))


def test_a_real_milan_report_is_authentic_under_the_bundled_roots(
    vectors: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = attest(vectors, capsys, *REPORTS["milan"])
    assert code == 0, failures(document)
    assert document["evidence"]["product"] == "Milan"
    assert document["evidence"]["measurement"].startswith("7a1e5c266c0108dbc9bb94fa92695132")


def test_a_real_report_of_a_debuggable_guest_is_authentic_and_not_acceptable(
    vectors: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = attest(vectors, capsys, *REPORTS["debug"])
    assert code == 3
    assert failures(document) == ["policy.debug"]
    assert attest(vectors, capsys, *REPORTS["debug"], "--allow-debug")[0] == 0


def test_a_report_under_another_chips_vcek_is_not_authentic(
    vectors: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = attest(vectors, capsys, REPORTS["milan"][0], REPORTS["debug"][1])
    assert code == 1
    assert "report.signature" in failures(document)


def test_a_milan_report_under_a_turin_vcek_is_not_authentic(
    vectors: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = attest(vectors, capsys, REPORTS["milan"][0], "sev-crate/vcek_turin.der")
    assert code == 1
    assert failures(document)


# What is signed: each of these bytes belongs to a field that a forger would change.
@pytest.mark.parametrize("offset", [0x04, 0x0A, 0x50, 0x90, 0xC0, 0x140, 0x2A0, 0x2A0 + 72])
def test_one_changed_bit_of_a_real_report_is_never_accepted(
    offset: int, vectors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, vek = REPORTS["milan"]
    data = bytearray.fromhex((vectors / report).read_text())
    data[offset] ^= 0x01
    forged = tmp_path / "forged.bin"
    forged.write_bytes(data)
    code, document = attest(vectors, capsys, str(forged), vek)
    assert code == 1
    assert "report.signature" in failures(document)


@pytest.mark.parametrize(
    ("at", "failed"),
    [("2020-01-01T00:00:00Z", "chain.not-before"), ("2031-01-01T00:00:00Z", "chain.not-after")],
)
def test_a_real_vcek_is_not_valid_at_any_time(
    at: str, failed: str, vectors: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = attest(vectors, capsys, *REPORTS["milan"], f"--at={at}")
    assert code == 1
    assert failed in failures(document)


AMDSEV = "sev-crate/ovmf_AmdSev_suffix.bin"
OVMFX64 = "sev-crate/ovmf_OvmfX64_suffix.bin"
SNP = ("--mode=snp", "--vcpus=1", "--vcpu-type=EPYC-v4")
EMPTY_KERNEL = ("--kernel=/dev/null", "--initrd=/dev/null")
APPEND = "--cmdline=console=ttyS0 loglevel=7"


@pytest.mark.parametrize(
    ("firmware", "options", "digest"),
    [
        (
            AMDSEV,
            (*SNP, "--guest-features=0x1"),
            (
                "19358ba9a7615534a9a1e2f0dfc29384dcd4dcb7062ff9c6"
                "013b26869a5fc6ecabe033c48dd6f6db5d6d76e7c5df632d"
            ),
        ),
        (
            AMDSEV,
            (*SNP, "--guest-features=0x21"),
            (
                "e1e1ca029dd7973ab9513295be68198472dcd4fc834bd9af"
                "9b63f6e8a1674dbf281a9278a4a2ebe0eed9f22adbcd0e2b"
            ),
        ),
        (
            AMDSEV,
            (*SNP, "--guest-features=0x1", *EMPTY_KERNEL, APPEND),
            (
                "6d287813eb5222d770f75005c664e34c204f385ce832cc2c"
                "e7d0d6f354454362f390ef83a92046c042e706363b4b08fa"
            ),
        ),
        (
            AMDSEV,
            (*SNP, "--guest-features=0x21", *EMPTY_KERNEL, APPEND),
            (
                "803f691094946e42068aaa3a8f9e26a5c89f36f7b73ecfb2"
                "8c653360fe4b3aba7e534442e7e1e17895dfe778d0228977"
            ),
        ),
        (
            OVMFX64,
            (*SNP, "--guest-features=0x1"),
            (
                "da0296de8193586a5512078dcd719eccecbd87e2b825ad41"
                "48c44f665dc87df21e5b49e21523a9ad993afdb6a30b4005"
            ),
        ),
        (
            OVMFX64,
            ("--mode=sev",),
            "b4c021e085fb83ceffe6571a3d357b4a98773c83c474e47f76c876708fe316da",
        ),
    ],
)
def test_firmware_has_its_known_digest(
    firmware: str,
    options: tuple[str, ...],
    digest: str,
    vectors: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["measure", f"--firmware={vectors / firmware}", *options]) == 0
    assert capsys.readouterr().out == f"{digest}\n"


def test_firmware_without_a_hash_table_takes_no_kernel(
    vectors: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["measure", f"--firmware={vectors / OVMFX64}", *SNP, *EMPTY_KERNEL, APPEND]
    assert main(arguments) not in {0, 1, 70}
    assert not capsys.readouterr().out
