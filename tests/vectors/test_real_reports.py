"""Real AMD evidence: what is genuine is accepted, and every change of it is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from sevkit.abi.idblock import (
    IdBlock,
    compute_key_digest,
    encode_id_block,
    parse_id_auth,
    parse_id_block,
)
from sevkit.abi.product import ProductLine
from sevkit.abi.report import parse_report
from sevkit.abi.vek import VekKind, parse_vek_extensions
from sevkit.attest.chain import VerifiedVek, verify_chain, verify_vek
from sevkit.attest.checks import SNP_REPORT
from sevkit.attest.container import find_report
from sevkit.attest.idblock import verify_id_auth
from sevkit.attest.snp import pinned_roots
from sevkit.attest.verdict import Ledger
from sevkit.attest.verify import verify_report
from sevkit.attest.x509 import parse_certificate
from sevkit.cli.main import main
from sevkit.errors import FormatError, SevkitError, SignatureMismatch, VerificationError
from sevkit.kds.roots import snp_chain

if TYPE_CHECKING:
    from pathlib import Path

AT = datetime(2026, 11, 23, tzinfo=UTC)
NONCE = (
    "d447b55d197491bfe15cf298f9de9986b7a7c4be2468b4f6e2d53b71d7c64581"
    "0b0f2cdfca0040433be063fc1a8293f0f3f8dae7b79fecb3d1cd82bd6a93ebfd"
)
DIGEST = (
    "7a1e5c266c0108dbc9bb94fa926951320940915d0aafb42464bd88b579ea158d"
    "3e1a0dc39b2c60bd95b9c480cd81841f"
)


@pytest.fixture(scope="module")
def report(vectors: Path) -> bytes:
    return find_report((vectors / "sev-crate/report_milan.hex").read_bytes()).report


@pytest.fixture(scope="module")
def vek(vectors: Path) -> VerifiedVek:
    return verified_vek((vectors / "sev-crate/vcek_milan.der").read_bytes(), ProductLine.MILAN)


def verified_vek(der: bytes, line: ProductLine) -> VerifiedVek:
    ledger = Ledger(SNP_REPORT)
    ask, ark = (parse_certificate(part) for part in snp_chain(line, vlek=False))
    chain = verify_chain(ask, ark, at=AT, roots=pinned_roots(), ledger=ledger)
    return verify_vek(chain, parse_certificate(der), ledger=ledger)


def milan(vectors: Path, *options: str) -> list[str]:
    folder = vectors / "sev-crate"
    return [
        "attest",
        "report",
        str(folder / "report_milan.hex"),
        "--vek",
        str(folder / "vcek_milan.der"),
        "--offline",
        *options,
    ]


EXPECTED = ("--report-data", NONCE, "--measurement", DIGEST)


def test_the_milan_report_is_accepted_up_to_amds_pinned_root(
    vectors: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = "--at", "2026-11-23T00:00:00Z"
    assert main(milan(vectors, *EXPECTED, *at, "--output", "json")) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["accepted"] is True
    assert verdict["at"] == "2026-11-23T00:00:00Z"
    assert verdict["evidence"]["product"] == "Milan"
    assert verdict["evidence"]["reported_tcb"] == {
        "bootloader": 3,
        "tee": 0,
        "snp": 8,
        "microcode": 115,
    }
    assert {f["check"] for f in verdict["findings"]} == {row.name for row in SNP_REPORT}


@pytest.mark.parametrize(
    ("why", "options", "code"),
    [
        ("no nonce", ("--measurement", DIGEST), 5),
        ("no launch digest", ("--report-data", NONCE), 5),
        ("nothing expected", (), 5),
        ("another nonce", ("--report-data", "00" * 64, "--measurement", DIGEST), 3),
        ("another digest", ("--report-data", NONCE, "--measurement", "00" * 48), 3),
        ("nonce of 63 bytes", ("--report-data", NONCE[2:], "--measurement", DIGEST), 2),
        ("a higher TCB", (*EXPECTED, "--min-tcb", "microcode=116"), 3),
        ("the TCB itself", (*EXPECTED, "--min-tcb", "bootloader=3,snp=8,microcode=115"), 0),
        ("a single socket", (*EXPECTED, "--require-single-socket"), 3),
        ("an alias check", (*EXPECTED, "--require-alias-check"), 3),
        ("another chip", (*EXPECTED, "--chip", "01" * 64), 3),
        ("before the VCEK", (*EXPECTED, "--at", "2023-04-03T19:23:42Z"), 1),
        ("after the VCEK", (*EXPECTED, "--at", "2030-04-03T19:23:44Z"), 1),
        ("a time without a zone", (*EXPECTED, "--at", "2026-11-23T00:00:00"), 2),
        ("a time that is none", (*EXPECTED, "--at", "yesterday"), 2),
        ("a list that cannot be had", (*EXPECTED, "--require-crl"), 4),
    ],
)
def test_each_expectation_has_its_exit_code(
    vectors: Path, tmp_path: Path, why: str, options: tuple[str, ...], code: int
) -> None:
    assert main(milan(vectors, *options, "--cache", str(tmp_path))) == code, why


def test_another_chips_vcek_is_refused(vectors: Path) -> None:
    arguments = milan(vectors, *EXPECTED)
    arguments[4] = str(vectors / "sev-crate/vcek_turin.der")
    assert main(arguments) == 1


def test_every_single_bit_flip_of_a_genuine_report_is_refused(
    report: bytes, vek: VerifiedVek
) -> None:
    verify_report(report, vek, ledger=Ledger(SNP_REPORT))
    accepted = []
    for bit in range(len(report) * 8):
        flipped = bytearray(report)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            verify_report(bytes(flipped), vek, ledger=Ledger(SNP_REPORT))
        except (FormatError, VerificationError):
            continue
        accepted.append(bit)
    assert not accepted
    assert len(report) * 8 == 9472


def test_every_truncation_and_one_byte_more_is_refused(report: bytes) -> None:
    for length in range(1184):
        with pytest.raises(FormatError):
            find_report(report[:length])
        with pytest.raises(FormatError):
            parse_report(report[:length])
    for more in (b"\0", b"\n", b"\xff"):
        with pytest.raises(FormatError):
            find_report(report + more)


def test_the_turin_vcek_verifies_and_is_read(vectors: Path) -> None:
    found = verified_vek((vectors / "sev-crate/vcek_turin.der").read_bytes(), ProductLine.TURIN)
    assert found.extensions.hwid == bytes.fromhex("1e550a8ee5cf9f4d")
    assert found.extensions.tcb.components == {
        "fmc": 0,
        "bootloader": 0,
        "tee": 0,
        "snp": 0,
        "microcode": 9,
    }


def test_a_real_id_authentication_block_verifies(vectors: Path) -> None:
    auth = parse_id_auth((vectors / "sev-crate/test_auth_block.bin").read_bytes())
    assert auth.author_key is not None
    digest = (
        "a14d638341e5674628fe1e02fbedebe5e5ab4faf1dd72d8966068e615bb99efd"
        "13d214b35c231715b38e263dc6059745"
    )
    block = parse_id_block(
        bytes.fromhex(digest)
        + bytes(32)
        + (1).to_bytes(4, "little")
        + bytes(4)
        + (0x30000).to_bytes(8, "little")
    )
    verify_id_auth(block, auth)
    assert compute_key_digest(auth.id_key).hex() == (
        "59fb2c686dfa4fef49f38339aa775c90051c28d57383ddc3baf3b5eb4b1496df"
        "3b0dbbdcbae5fe27677a644820773fe2"
    )
    assert compute_key_digest(auth.author_key).hex() == (
        "eed81169fb0cb5e0ec34794f128fd4e0c4a46f67c65a1adfa81fcb24bcc088c2"
        "72369b7ffc3eb2b6af6a4284a1b36c5f"
    )
    with pytest.raises(SignatureMismatch):
        verify_id_auth(parse_id_block(block_with(block, 0x54)), auth)


def block_with(block: IdBlock, offset: int) -> bytes:
    data = bytearray(encode_id_block(block))
    data[offset] ^= 1
    return bytes(data)


def known_reports(corpus: Path) -> list[dict[str, Any]]:
    rows = json.loads((corpus / "attestation/known-reports.json").read_text())["reports"]
    assert rows
    return list(rows)


def test_every_known_report_is_read_and_verified(corpus: Path) -> None:
    folder = corpus / "attestation/snp-reports"
    for row in known_reports(corpus):
        container = find_report((folder / row["report"]).read_bytes())
        der = (folder / row["vek"]).read_bytes()
        line = ProductLine(row["chain"].capitalize())
        verified = verify_report(
            container.report, verified_vek(der, line), ledger=Ledger(SNP_REPORT)
        )
        said = verified.report
        assert said.version == row["version"]
        assert said.policy == int(row["policy"], 16)
        for name in ("report_data", "measurement", "host_data", "report_id", "chip_id"):
            assert getattr(said, name).hex() == row[name], (row["report"], name)
        names = {"bootloader": "bl", "tee": "tee", "snp": "snp", "microcode": "ucode"}
        for which in ("current", "reported", "committed", "launch"):
            found = getattr(verified, f"{which}_tcb").components
            assert {names[n]: v for n, v in found.items()} == row[f"{which}_tcb"]
        assert str(said.current_version) == row["current_version"]
        values = {e.oid: e.value for e in parse_certificate(der).extensions}
        assert parse_vek_extensions(VekKind.VCEK, values).product_name == row["vek_product"]


def test_every_known_report_has_its_verdict_on_the_command_line(corpus: Path) -> None:
    folder = corpus / "attestation/snp-reports"
    for row in known_reports(corpus):
        debug = bool(int(row["policy"], 16) >> 19 & 1)
        arguments = [
            "attest",
            "report",
            str(folder / row["report"]),
            "--vek",
            str(folder / row["vek"]),
            "--report-data",
            row["report_data"],
            "--measurement",
            row["measurement"],
            "--offline",
            "--at",
            "2026-11-23T00:00:00Z",
        ]
        assert main(arguments) == (3 if debug else 0), row["report"]
        assert main([*arguments, "--allow-debug"]) == 0, row["report"]


def test_a_debuggable_guest_of_a_real_report_is_refused_until_allowed(vectors: Path) -> None:
    folder = vectors / "go-sev-guest"
    path = folder / "attestation.bin"
    report = parse_report(path.read_bytes())
    assert report.policy == 0xB0000
    arguments = [
        *("attest", "report", str(path), "--vek", str(folder / "vcek.testcer"), "--offline"),
        *("--report-data", report.report_data.hex(), "--measurement", report.measurement.hex()),
        *("--at", "2026-11-23T00:00:00Z"),
    ]
    assert main(arguments) == 3
    assert main([*arguments, "--allow-debug"]) == 0


def test_a_parsed_report_raises_nothing_but_our_errors(report: bytes) -> None:
    for offset in range(0, 1184, 8):
        changed = bytearray(report)
        changed[offset : offset + 8] = b"\xff" * 8
        try:
            parse_report(bytes(changed))
        except SevkitError:
            continue
