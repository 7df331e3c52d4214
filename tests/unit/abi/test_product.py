from __future__ import annotations

import pytest

from sevkit.abi.product import (
    SNP_LINES,
    Product,
    ProductLine,
    parse_product_line,
    product_from_model,
)
from sevkit.errors import FormatError


@pytest.mark.parametrize(
    ("family", "model", "product", "line"),
    [
        (0x17, 0x01, Product.NAPLES, ProductLine.NAPLES),
        (0x17, 0x31, Product.ROME, ProductLine.ROME),
        (0x19, 0x00, Product.MILAN, ProductLine.MILAN),
        (0x19, 0x01, Product.MILAN, ProductLine.MILAN),
        (0x19, 0x0F, Product.MILAN, ProductLine.MILAN),
        (0x19, 0x10, Product.GENOA, ProductLine.GENOA),
        (0x19, 0x11, Product.GENOA, ProductLine.GENOA),
        (0x19, 0xA0, Product.BERGAMO_OR_SIENA, ProductLine.GENOA),
        (0x19, 0xAF, Product.BERGAMO_OR_SIENA, ProductLine.GENOA),
        (0x1A, 0x02, Product.TURIN, ProductLine.TURIN),
        (0x1A, 0x11, Product.TURIN_DENSE, ProductLine.TURIN),
    ],
)
def test_family_and_model_give_the_product_and_its_line(
    family: int, model: int, product: Product, line: ProductLine
) -> None:
    assert product_from_model(family, model) is product
    assert product.line is line


@pytest.mark.parametrize(
    ("family", "model"),
    [
        (0x17, 0x10),
        (0x17, 0x71),
        (0x19, 0x20),
        (0x19, 0x50),
        (0x19, 0x9F),
        (0x19, 0xB0),
        (0x1A, 0x20),
        (0x1A, 0x50),
        (0x1B, 0x01),
        (0, 0),
        (-1, -1),
    ],
)
def test_a_model_that_is_not_known_is_no_product(family: int, model: int) -> None:
    assert product_from_model(family, model) is None


def test_every_product_has_a_line() -> None:
    assert {product.line for product in Product} == set(ProductLine)


def test_the_lines_with_snp_are_those_with_x509_roots() -> None:
    assert tuple(line for line in ProductLine if line.snp) == SNP_LINES
    assert [line.value for line in SNP_LINES] == ["Milan", "Genoa", "Turin"]


def test_only_turin_has_a_short_hardware_id() -> None:
    assert {line: line.hwid_size for line in SNP_LINES} == {
        ProductLine.MILAN: 64,
        ProductLine.GENOA: 64,
        ProductLine.TURIN: 8,
    }


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("Milan", ProductLine.MILAN),
        ("GENOA", ProductLine.GENOA),
        (" turin ", ProductLine.TURIN),
        ("siena", ProductLine.GENOA),
        ("Bergamo", ProductLine.GENOA),
        ("naples", ProductLine.NAPLES),
    ],
)
def test_names_are_read_in_any_case(name: str, line: ProductLine) -> None:
    assert parse_product_line(name) is line


@pytest.mark.parametrize("name", ["", "Venice", "Milan-B0", "mil an", "Milan\0", "../Milan"])
def test_a_name_that_is_not_known_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse_product_line(name)
    assert "Siena" in caught.value.hint
