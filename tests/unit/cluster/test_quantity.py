from __future__ import annotations

from fractions import Fraction

import pytest

from sevkit.cluster.quantity import parse_quantity, same_quantity
from sevkit.errors import FormatError


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("1000", 1000),
        ("1k", 1000),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1E", 10**18),
        ("1e-3", Fraction(1, 1000)),
        ("500m", Fraction(1, 2)),
        ("0.5", Fraction(1, 2)),
        (".5", Fraction(1, 2)),
        ("5.", 5),
        ("+5", 5),
        ("-5", -5),
        ("1Ki", 1024),
        ("2Mi", 2 << 20),
        ("1Ei", 1 << 60),
        ("1M", 10**6),
        ("1T", 10**12),
        ("1P", 10**15),
        ("100n", Fraction(1, 10**7)),
        ("3u", Fraction(3, 10**6)),
        ("128974848", 128974848),
        ("129e6", 129000000),
    ],
)
def test_a_quantity_is_the_number_that_kubernetes_means(text: str, number: int | Fraction) -> None:
    assert parse_quantity(text) == number


@pytest.mark.parametrize(
    "text",
    ["", " ", "k", "1K", "1 k", "1ki", "1kk", "1e", "e3", "1e1234", "0x10", "1,5", "\u0661", "1\n"],
)
def test_anything_else_is_none(text: str) -> None:
    with pytest.raises(FormatError, match="is none"):
        parse_quantity(text)


def test_a_number_of_any_length_is_not_computed() -> None:
    assert parse_quantity("1" * 64)
    with pytest.raises(FormatError, match="is none"):
        parse_quantity("1" * 65)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1k", "1000", True),
        ("1", "1000m", True),
        ("1k", "1Ki", False),
        ("0", "0k", True),
        ("many", "many", True),
        ("many", "1", False),
    ],
)
def test_quantities_compare_as_numbers(one: str, other: str, *, same: bool) -> None:
    assert same_quantity(one, other) is same
    assert same_quantity(other, one) is same
