from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from sevkit.abi.certtable import VCEK, encode_cert_table
from sevkit.attest.container import find_report
from sevkit.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    assert main(["inspect", *words, "--output", "json"]) == 0
    document: dict[str, object] = json.loads(capsys.readouterr().out)
    assert document["verified"] is False
    return document


def test_a_report_is_shown_with_its_product_only_if_it_is_known(
    vectors: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(vectors / "sev-crate/report_milan.hex")
    assert shown(capsys, "report", path)["reported_tcb"] == "0x7308000000000003"
    known = shown(capsys, "report", path, "--product", "milan")
    assert known["reported_tcb"] == {"bootloader": 3, "tee": 0, "snp": 8, "microcode": 115}


def test_the_certificate_table_is_listed(
    vectors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = find_report((vectors / "sev-crate/report_milan.hex").read_bytes()).report
    path = tmp_path / "extended"
    path.write_bytes(report + encode_cert_table({VCEK: b"12345"}))
    table = shown(capsys, "report", str(path))["certificate_table"]
    assert table == [{"guid": str(VCEK), "name": "VCEK", "size": 5}]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vcek_milan.der", {"kind": "VCEK", "product_name": "Milan-B0"}),
        ("vcek_turin.der", {"kind": "VCEK", "hwid": "1e550a8ee5cf9f4d"}),
        ("naples/pek.cert", {"usage": "PEK", "signatures": ["OCA", "CEK"]}),
        ("naples/ark.cert.bad", {"usage": "ARK", "signed": False}),
    ],
)
def test_certificates_of_both_worlds_are_shown(
    vectors: Path, capsys: pytest.CaptureFixture[str], name: str, expected: dict[str, object]
) -> None:
    document = shown(capsys, "certificate", str(vectors / "sev-crate" / name))
    rows = document["certificates"]
    assert isinstance(rows, list)
    assert expected.items() <= rows[0].items()


def test_text_says_first_that_nothing_was_verified(
    vectors: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (
        ("report", str(vectors / "sev-crate/report_milan.hex")),
        ("certificate", str(vectors / "sev-crate/vcek_milan.der")),
    ):
        assert main(["inspect", *words]) == 0
        assert capsys.readouterr().out.startswith("not verified")


@pytest.mark.parametrize("what", ["report", "certificate"])
@pytest.mark.parametrize("data", [b"", b"junk", b"\x30\x00", b"\xff" * 3000])
def test_junk_is_malformed(tmp_path: Path, what: str, data: bytes) -> None:
    path = tmp_path / "junk"
    path.write_bytes(data)
    assert main(["inspect", what, str(path)]) == 65
