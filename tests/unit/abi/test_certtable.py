from __future__ import annotations

import struct
import uuid

import pytest

from sevkit.abi.certtable import ARK, ASK, VCEK, encode_cert_table, parse_cert_table
from sevkit.errors import FormatError


def entry(guid: uuid.UUID, offset: int, length: int) -> bytes:
    return struct.pack("<16sII", guid.bytes, offset, length)


END = bytes(24)


def test_what_is_encoded_is_read_back() -> None:
    blobs = {VCEK: b"vcek", ASK: b"", ARK: b"ark" * 100}
    assert parse_cert_table(encode_cert_table(blobs)) == blobs


def test_guids_are_in_the_order_in_which_they_are_printed() -> None:
    data = encode_cert_table({VCEK: b"x"})
    assert data[:16].hex() == "63da758de6644564adc5f4b93be8accd"
    assert data[16:24] == struct.pack("<II", 48, 1)


def test_no_bytes_are_an_empty_table() -> None:
    assert parse_cert_table(b"") == {}


def test_padding_behind_the_blobs_is_the_hosts_page() -> None:
    assert parse_cert_table(encode_cert_table({VCEK: b"x"}) + bytes(4000)) == {VCEK: b"x"}


@pytest.mark.parametrize(
    ("defect", "data"),
    [
        ("one byte", b"\0"),
        ("no closing entry", entry(VCEK, 24, 0)),
        ("a closing entry that is not zero", entry(uuid.UUID(int=0), 1, 0)),
        ("a blob inside the entries", entry(VCEK, 8, 4) + END),
        ("a blob past the end", entry(VCEK, 48, 5) + END + b"1234"),
        ("an offset past the end", entry(VCEK, 2**32 - 1, 2**32 - 1) + END),
        ("blobs over each other", entry(VCEK, 72, 4) + entry(ASK, 74, 4) + END + b"123456"),
        ("one GUID twice", entry(VCEK, 72, 1) + entry(VCEK, 73, 1) + END + b"12"),
        ("too many entries", b"".join(entry(uuid.uuid4(), 0, 0) for _ in range(40)) + END),
        ("too large", bytes((1 << 20) + 1)),
        ("junk behind the blobs", entry(VCEK, 48, 1) + END + b"1" + bytes(9) + b"2"),
        ("junk before the blobs", entry(VCEK, 49, 1) + END + b"21"),
        ("junk between the blobs", entry(VCEK, 72, 1) + entry(ASK, 74, 1) + END + b"1x2"),
        ("junk behind an empty table", END + b"a second report"),
    ],
)
def test_a_malformed_table_is_refused(defect: str, data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_cert_table(data)
    assert defect


def test_guids_in_windows_order_are_known_too() -> None:
    little = struct.pack("<16sII", VCEK.bytes_le, 72, 4) + struct.pack("<16sII", ASK.bytes, 76, 3)
    assert parse_cert_table(little + END + b"vcekask") == {VCEK: b"vcek", ASK: b"ask"}


def test_one_guid_in_both_orders_occurs_twice() -> None:
    both = struct.pack("<16sII", VCEK.bytes_le, 72, 1) + struct.pack("<16sII", VCEK.bytes, 73, 1)
    with pytest.raises(FormatError, match="twice"):
        parse_cert_table(both + END + b"12")
