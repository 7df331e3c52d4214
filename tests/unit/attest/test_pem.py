from __future__ import annotations

import time

import pytest

from sevkit.attest.pem import parse_pem
from sevkit.errors import FormatError

BEGIN = b"-----BEGIN X-----\n"
END = b"-----END X-----\n"


def read(data: bytes, most: int = 2) -> tuple[bytes, ...]:
    return parse_pem(data, b"X", "thing", most=most)


def test_blocks_are_read_in_order_with_white_space_around_them() -> None:
    block = BEGIN + b"QUJD\nREVG\n" + END
    assert read(b"\n " + block + b"\r\n" + block + b"\n\n") == (b"ABCDEF", b"ABCDEF")
    assert read(block.replace(b"\n", b"\r\n")) == (b"ABCDEF",)


@pytest.mark.parametrize(
    ("defect", "data"),
    [
        ("nothing", b""),
        ("white space", b" \n"),
        ("text before", b"text\n" + BEGIN + b"QUJD\n" + END),
        ("text behind", BEGIN + b"QUJD\n" + END + b"text"),
        ("text between", BEGIN + b"QUJD\n" + END + b"text\n" + BEGIN + b"QUJD\n" + END),
        ("another label", BEGIN.replace(b"X", b"Y") + b"QUJD\n" + END.replace(b"X", b"Y")),
        ("two labels", BEGIN + b"QUJD\n" + END.replace(b"X", b"Y")),
        ("no end", BEGIN + b"QUJD\n"),
        ("a header", BEGIN + b"Proc-Type: 4\n\nQUJD\n" + END),
        ("a block in a block", BEGIN + BEGIN + b"QUJD\n" + END + END),
        ("padding in the middle", BEGIN + b"QQ==QUJD\n" + END),
        ("three blocks", (BEGIN + b"QUJD\n" + END) * 3),
    ],
)
def test_anything_else_is_refused(defect: str, data: bytes) -> None:
    with pytest.raises(FormatError):
        read(data)
    assert defect


@pytest.mark.parametrize(
    "data",
    [
        b"\n" * (1 << 20),
        BEGIN + b"\n" * (1 << 20),
        BEGIN + b"A" * (1 << 20),
        BEGIN * (1 << 16),
        b"\n" * (1 << 19) + BEGIN + b"\r\n" * (1 << 18),
        (b"-----BEGIN X-----" + b"\n" * 64) * (1 << 13),
    ],
    ids=["lines", "lines in a block", "no end", "beginnings", "both", "beginnings and lines"],
)
def test_a_megabyte_of_hostile_text_costs_no_more_than_reading_it(data: bytes) -> None:
    before = time.perf_counter()
    with pytest.raises(FormatError):
        read(data)
    assert time.perf_counter() - before < 5
