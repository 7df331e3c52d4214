from __future__ import annotations

import pytest

from sevkit.abi.layout import Field, Layout, check_zero, integer, raw, zero
from sevkit.errors import FormatError

LAYOUT = Layout(
    "EXAMPLE",
    16,
    (
        integer(0x0, 1, "tiny"),
        integer(0x1, 2, "short"),
        zero(0x3, 1),
        integer(0x4, 4, "word"),
        raw(0x8, 3, "name"),
        Field(0xB, 1, "ignored", "any"),
        zero(0xC, 4),
    ),
)
DATA = bytes.fromhex("01 0203 00 04050607 08090a ff 00000000")


def test_integers_are_little_endian_and_bytes_are_as_they_are() -> None:
    record = LAYOUT.parse(DATA)
    assert record.int("tiny") == 0x01
    assert record.int("short") == 0x0302
    assert record.int("word") == 0x07060504
    assert record.raw("name") == b"\x08\x09\x0a"


def test_encoding_writes_zero_where_nothing_is_said() -> None:
    values: dict[str, int | bytes] = {
        "tiny": 1,
        "short": 0x0302,
        "word": 0x07060504,
        "name": b"\x08\x09\x0a",
    }
    assert LAYOUT.encode(values) == DATA[:0xB] + bytes(5)


@pytest.mark.parametrize("size", [0, 1, 15, 17, 4096])
def test_a_wrong_length_is_refused_where_the_data_or_the_structure_ends(size: int) -> None:
    with pytest.raises(FormatError) as caught:
        LAYOUT.parse(bytes(size))
    assert caught.value.structure == "EXAMPLE"
    assert caught.value.offset == min(size, 16)


@pytest.mark.parametrize("offset", [0x3, 0xC, 0xD, 0xE, 0xF])
def test_a_reserved_byte_is_refused_at_its_own_offset(offset: int) -> None:
    data = bytearray(DATA)
    data[offset] = 0x80
    with pytest.raises(FormatError) as caught:
        LAYOUT.parse(bytes(data))
    assert caught.value.offset == offset
    assert LAYOUT.parse(bytes(data), check_reserved=False).int("tiny") == 1


@pytest.mark.parametrize(
    ("name", "value", "offset"),
    [
        ("tiny", 256, 0x0),
        ("tiny", -1, 0x0),
        ("word", 1 << 32, 0x4),
        ("name", b"four", 0x8),
        ("name", b"", 0x8),
    ],
)
def test_a_value_that_does_not_fit_is_not_encoded(
    name: str, value: int | bytes, offset: int
) -> None:
    values: dict[str, int | bytes] = {"tiny": 0, "short": 0, "word": 0, "name": bytes(3)}
    with pytest.raises(FormatError) as caught:
        LAYOUT.encode(values | {name: value})
    assert caught.value.offset == offset


def test_a_missing_value_is_a_bug_and_not_a_zero() -> None:
    with pytest.raises(KeyError):
        LAYOUT.encode({"tiny": 0})


def test_asking_for_a_field_of_the_other_kind_is_a_bug() -> None:
    record = LAYOUT.parse(DATA)
    with pytest.raises(TypeError):
        record.int("name")
    with pytest.raises(TypeError):
        record.raw("word")


@pytest.mark.parametrize(
    "fields",
    [
        (integer(0, 4, "a"), integer(5, 1, "b"), raw(6, 2, "c")),
        (integer(0, 4, "a"), integer(3, 1, "b"), raw(4, 4, "c")),
        (integer(0, 4, "a"), raw(4, 3, "b")),
        (integer(0, 4, "a"), raw(4, 5, "b")),
        (integer(0, 4, "a"), integer(4, 4, "a")),
        (),
    ],
    ids=["gap", "overlap", "short", "long", "name twice", "empty"],
)
def test_a_table_that_does_not_add_up_is_refused_when_it_is_made(
    fields: tuple[Field, ...],
) -> None:
    with pytest.raises(AssertionError):
        Layout("WRONG", 8, fields)


def test_check_zero_names_the_first_other_byte_and_looks_no_further() -> None:
    check_zero("EXAMPLE", b"\x01\x00\x00\x01", 1, 2)
    with pytest.raises(FormatError) as caught:
        check_zero("EXAMPLE", b"\x00\x00\x07\x01", 0, 4)
    assert caught.value.offset == 2
