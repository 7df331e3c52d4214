from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from sevkit.abi.certtable import ASK, VCEK, encode_cert_table
from sevkit.abi.guest_message import encode_report_request, parse_report_response
from sevkit.attest.container import find_report
from sevkit.errors import FirmwareError, FormatError
from sevkit.guest.report import ReportRequest, take_report

if TYPE_CHECKING:
    from sevkit.testing.snp_guest_driver import GuestDriver

NONCE = os.urandom(64)


@pytest.fixture
def report(driver: GuestDriver) -> bytes:
    answer = driver.request(encode_report_request(NONCE))
    return parse_report_response(answer.response[:1216])[1]


def test_what_is_handed_over_is_what_the_owner_reads(report: bytes, table: bytes) -> None:
    bare = take_report(ReportRequest(NONCE), 0, report, table=b"", source="door")
    assert bare.encode() == report
    whole = take_report(ReportRequest(NONCE), 0, report, table=table, source="door")
    found = find_report(whole.encode())
    assert (found.report, found.certificates) == (report, whole.certificates)
    assert whole.encode() == report + table


def test_a_tables_padding_is_not_handed_over(report: bytes, table: bytes) -> None:
    padded = table.ljust(0x4000, b"\0")
    found = take_report(ReportRequest(NONCE), 0, report, table=padded, source="door")
    assert found.encode() == report + table
    empty = take_report(ReportRequest(NONCE), 0, report, table=bytes(0x4000), source="door")
    assert (empty.encode(), empty.left_out) == (report, "")


def test_a_table_that_is_none_does_not_spoil_the_report(report: bytes) -> None:
    good = encode_cert_table({VCEK: b"vcek", ASK: b"ask"})
    for bad in (good[:-1], b"\1" * 48, good + b"junk"):
        found = take_report(ReportRequest(NONCE), 0, report, table=bad, source="door")
        assert (found.encode(), dict(found.certificates)) == (report, {})
        assert "left out: certificate table" in found.left_out


def test_a_report_over_something_else_is_refused(report: bytes) -> None:
    other = ReportRequest(bytes(64))
    with pytest.raises(FirmwareError, match="door: the report is over other data"):
        take_report(other, 0, report, table=b"", source="door")
    with pytest.raises(FirmwareError, match="for VMPL 0, asked for was VMPL 1"):
        take_report(ReportRequest(NONCE, 1), 1, report, table=b"", source="door")


@pytest.mark.parametrize("size", [0, 1183, 1185, 4000])
def test_what_has_not_a_reports_size_is_none(report: bytes, size: int) -> None:
    data = report[:size].ljust(size, b"\0")
    with pytest.raises(FormatError, match="SNP attestation report"):
        take_report(ReportRequest(NONCE), 0, data, table=b"", source="door")


def test_a_report_of_a_version_to_come_is_handed_over(report: bytes) -> None:
    newer = b"\x07" + report[1 : 0x2A0 - 8] + bytes([1] * 8) + report[0x2A0:]
    found = take_report(ReportRequest(NONCE), 0, newer, table=b"", source="door")
    assert found.encode() == newer
