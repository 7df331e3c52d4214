"""EPYC products and the product lines under which AMD keeps roots and keys.

A product line has one ARK, one ASK, one ASVK and one URL at the key service; Bergamo and Siena
belong to Genoa's. Sources: 57230 chapter 3 (lines, hardware ID sizes), 56860 table 23 (family,
model and stepping in the report), CPUID Fn0000_0001.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from sevkit.errors import FormatError


class ProductLine(StrEnum):
    """The unit of AMD's roots and of its key service, spelt as the key service spells it."""

    NAPLES = "Naples"
    ROME = "Rome"
    MILAN = "Milan"
    GENOA = "Genoa"
    TURIN = "Turin"

    @property
    def snp(self) -> bool:
        """Whether chips of this line have SEV-SNP, so X.509 roots."""
        return self in SNP_LINES

    @property
    def hwid_size(self) -> int:
        """Size in bytes of the hardware ID in a VCEK: 8 for Turin, 64 before (57230 chapter 3)."""
        return 8 if self is ProductLine.TURIN else 64


SNP_LINES: Final = (ProductLine.MILAN, ProductLine.GENOA, ProductLine.TURIN)


class Product(StrEnum):
    """An EPYC generation by its name in the field."""

    NAPLES = "Naples"
    ROME = "Rome"
    MILAN = "Milan"
    GENOA = "Genoa"
    BERGAMO_OR_SIENA = "Bergamo or Siena"
    TURIN = "Turin"
    TURIN_DENSE = "Turin Dense"

    @property
    def line(self) -> ProductLine:
        """The line whose roots and key-service URL this product uses."""
        return _LINES[self]


_LINES: Final = {
    Product.NAPLES: ProductLine.NAPLES,
    Product.ROME: ProductLine.ROME,
    Product.MILAN: ProductLine.MILAN,
    Product.GENOA: ProductLine.GENOA,
    Product.BERGAMO_OR_SIENA: ProductLine.GENOA,
    Product.TURIN: ProductLine.TURIN,
    Product.TURIN_DENSE: ProductLine.TURIN,
}


class _Range(NamedTuple):
    family: int
    first_model: int
    last_model: int
    product: Product


#: Combined family and model (extended parts added), inclusive.
_MODELS: Final = (
    _Range(0x17, 0x00, 0x0F, Product.NAPLES),
    _Range(0x17, 0x30, 0x3F, Product.ROME),
    _Range(0x19, 0x00, 0x0F, Product.MILAN),
    _Range(0x19, 0x10, 0x1F, Product.GENOA),
    _Range(0x19, 0xA0, 0xAF, Product.BERGAMO_OR_SIENA),
    _Range(0x1A, 0x00, 0x0F, Product.TURIN),
    _Range(0x1A, 0x10, 0x1F, Product.TURIN_DENSE),
)


def product_from_model(family: int, model: int) -> Product | None:
    """Return the product of a combined CPUID family and model, or None if it is not known."""
    for row in _MODELS:
        if family == row.family and row.first_model <= model <= row.last_model:
            return row.product
    return None


def parse_product_line(name: str) -> ProductLine:
    """Return the line of ``name`` in any case, for example from an option.

    Bergamo and Siena give Genoa. Raises ``FormatError`` for a name that is not known.
    """
    folded = name.strip().casefold()
    aliases = {"bergamo": ProductLine.GENOA, "siena": ProductLine.GENOA}
    for line in ProductLine:
        if line.value.casefold() == folded:
            return line
    if folded in aliases:
        return aliases[folded]
    known = ", ".join([*ProductLine, "Bergamo", "Siena"])
    raise FormatError("product name", f"{name!r} is not known", hint=f"one of {known}")
