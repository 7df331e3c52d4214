from __future__ import annotations

import pytest

from sevkit.abi.der import (
    Element,
    parse_ia5_string,
    parse_oid,
    parse_small_integer,
    read_children,
    read_element,
)
from sevkit.errors import FormatError


@pytest.mark.parametrize(
    ("encoded", "value"), [("020100", 0), ("02017f", 127), ("02020080", 128), ("020200ff", 255)]
)
def test_small_integers_are_read(encoded: str, value: int) -> None:
    assert parse_small_integer(bytes.fromhex(encoded), "x") == value


@pytest.mark.parametrize(
    ("defect", "encoded"),
    [
        ("empty", "0200"),
        ("nothing", ""),
        ("minus one", "0201ff"),
        ("minus 128", "020180"),
        ("not minimal", "02020001"),
        ("256", "02020100"),
        ("bytes after it", "02010000"),
        ("another tag", "040100"),
        ("long length for a short value", "02810100"),
        ("indefinite length", "028001000000"),
        ("length of five bytes", "0285000000000101"),
        ("truncated", "0202ff"),
    ],
)
def test_an_integer_with_a_defect_is_refused(defect: str, encoded: str) -> None:
    with pytest.raises(FormatError):
        parse_small_integer(bytes.fromhex(encoded), "x")
    assert defect


def test_ia5_strings_are_printable_ascii_and_nothing_else() -> None:
    assert parse_ia5_string(b"\x16\x05Turin", "x") == "Turin"
    for bad in (b"\x16\x01\x00", b"\x16\x01\xff", b"\x16\x01AB", b"\x0c\x01A", b"\x16\x02A"):
        with pytest.raises(FormatError):
            parse_ia5_string(bad, "x")


def test_a_dotted_oid_is_read() -> None:
    data = bytes.fromhex("060a2b060104019c78010304")
    element = read_element(data, 0, len(data), "x")
    assert parse_oid(data, element, "x") == "1.3.6.1.4.1.3704.1.3.4"


@pytest.mark.parametrize("content", ["", "80", "2b8001", "2b" + "01" * 40])
def test_a_malformed_oid_is_refused(content: str) -> None:
    data = bytes((6, len(content) // 2)) + bytes.fromhex(content)
    with pytest.raises(FormatError):
        parse_oid(data, Element(6, 0, 2, len(data)), "x")


def test_children_end_where_their_parent_ends() -> None:
    data = bytes.fromhex("3006020101020102")
    parent = read_element(data, 0, len(data), "x")
    assert [data[child.content] for child in read_children(data, parent, "x")] == [1, 2]
    with pytest.raises(FormatError):
        read_children(bytes.fromhex("300402010102"), Element(0x30, 0, 2, 6), "x")


def test_long_tags_are_refused() -> None:
    with pytest.raises(FormatError):
        read_element(b"\x3f\x81\x00\x00", 0, 4, "x")
