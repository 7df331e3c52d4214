from __future__ import annotations

import base64
import tracemalloc

import pytest

from sevkit.abi.certtable import ASK, VCEK, encode_cert_table
from sevkit.abi.report import parse_report
from sevkit.attest.container import find_report
from sevkit.errors import FormatError

REPORT = b"\x02\0\0\0" + bytes(range(1, 256)) * 4 + bytes(160)
assert len(REPORT) == 1184
RESPONSE = bytes(4) + (1184).to_bytes(4, "little") + bytes(24) + REPORT
TABLE = encode_cert_table({VCEK: b"vcek", ASK: b"ask"})


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ("raw", REPORT),
        ("hex", REPORT.hex().encode()),
        ("hex with a newline", REPORT.hex().encode() + b"\n"),
        ("hex in capitals", REPORT.hex().upper().encode()),
        ("hex in lines", b"\n".join(REPORT[i : i + 16].hex().encode() for i in range(0, 1184, 16))),
        ("base64", base64.b64encode(REPORT)),
        ("base64 in lines", base64.encodebytes(REPORT)),
        ("response", RESPONSE),
        ("response in its buffer", RESPONSE.ljust(4000, b"\0")),
        ("response as hex", RESPONSE.hex().encode()),
        ("response with a table", RESPONSE + TABLE),
        ("report with a table", REPORT + TABLE),
        ("report with a table in a page", REPORT + TABLE.ljust(4096, b"\0")),
    ],
)
def test_a_report_is_found_in_every_known_shape(shape: str, data: bytes) -> None:
    found = find_report(data)
    assert found.report == REPORT, shape
    expected = {VCEK: b"vcek", ASK: b"ask"} if "table" in shape else {}
    assert found.certificates == expected


@pytest.mark.parametrize(
    ("defect", "data"),
    [
        ("empty", b""),
        ("white space", b" \n"),
        ("one byte short", REPORT[:-1]),
        ("one byte more", REPORT + b"\0"),
        ("hex one digit short", REPORT.hex().encode()[:-1]),
        ("hex one byte short", REPORT.hex().encode()[:-2]),
        ("hex one byte more", REPORT.hex().encode() + b"00"),
        ("base64 cut", base64.b64encode(REPORT)[:-4]),
        ("base64 for URLs", base64.urlsafe_b64encode(b"\xfb\xff" + REPORT[2:])),
        ("hex of hex", REPORT.hex().encode().hex().encode()),
        ("a status that is not 0", b"\x16" + RESPONSE[1:]),
        ("a response with reserved bytes", RESPONSE[:8] + b"\1" + RESPONSE[9:]),
        ("a response cut", RESPONSE[:-1]),
        ("a response with junk", RESPONSE + b"\1"),
        ("junk behind the report", REPORT + b"junk"),
        ("junk behind the table", REPORT + TABLE + b"junk"),
        ("a second report behind the table", REPORT + TABLE + REPORT),
        ("a second report behind an empty table", REPORT + bytes(24) + REPORT),
        ("a second report behind a response", RESPONSE + REPORT),
        ("hex behind a report", REPORT + REPORT.hex().encode()),
        ("too large", bytes((4 << 20) + 1)),
        ("HTML", b"<html>" * 200),
    ],
)
def test_anything_else_is_refused(defect: str, data: bytes) -> None:
    with pytest.raises(FormatError):
        find_report(data)
    assert defect


def test_white_space_costs_no_memory() -> None:
    data = b"aa " * (1 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            find_report(data)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_a_header_shows_no_two_reports_to_two_readers() -> None:
    # a reader of raw reports sees version 2 at the start, one of responses a size of 1184
    both = b"\2\0\0\0" + RESPONSE[4:] + bytes(4)
    with pytest.raises(FormatError):
        parse_report(find_report(both.ljust(4000, b"\0")).report)
