"""Which EPYC a host has, by family, model and socket, and never by its brand.

EPYC 4004 and desktop parts carry the brand and lack the firmware; Bergamo and Siena share a model
and differ in the socket. Sources: CPUID Fn8000_0001 EBX[31:28], AMD's processor programming
references; models as ``sevkit.abi.product``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from sevkit.abi.product import Product, ProductLine, product_from_model

if TYPE_CHECKING:
    from sevkit.host.cpuid import Signature


class HostProduct(StrEnum):
    """An EPYC generation, as labels spell it."""

    NAPLES = "naples"
    ROME = "rome"
    MILAN = "milan"
    GENOA = "genoa"
    BERGAMO = "bergamo"
    SIENA = "siena"
    BERGAMO_OR_SIENA = "bergamo-or-siena"
    TURIN = "turin"
    TURIN_DENSE = "turin-dense"

    @property
    def line(self) -> ProductLine:
        """The product line whose roots, key-service address and TCB layout it has."""
        return _LINES[self]

    @property
    def sev_es(self) -> bool:
        """Whether it has SEV-ES: CPUID of the first generation says so and is wrong."""
        return self is not HostProduct.NAPLES

    @property
    def sev_snp(self) -> bool:
        """Whether it has SEV-SNP."""
        return self.line.snp


_LINES: Final = {
    HostProduct.NAPLES: ProductLine.NAPLES,
    HostProduct.ROME: ProductLine.ROME,
    HostProduct.MILAN: ProductLine.MILAN,
    HostProduct.GENOA: ProductLine.GENOA,
    HostProduct.BERGAMO: ProductLine.GENOA,
    HostProduct.SIENA: ProductLine.GENOA,
    HostProduct.BERGAMO_OR_SIENA: ProductLine.GENOA,
    HostProduct.TURIN: ProductLine.TURIN,
    HostProduct.TURIN_DENSE: ProductLine.TURIN,
}
_PRODUCTS: Final = {
    Product.NAPLES: HostProduct.NAPLES,
    Product.ROME: HostProduct.ROME,
    Product.MILAN: HostProduct.MILAN,
    Product.GENOA: HostProduct.GENOA,
    Product.BERGAMO_OR_SIENA: HostProduct.BERGAMO_OR_SIENA,
    Product.TURIN: HostProduct.TURIN,
    Product.TURIN_DENSE: HostProduct.TURIN_DENSE,
}
#: PkgType: SP5 and SP6.
_SOCKETS: Final = {4: HostProduct.BERGAMO, 8: HostProduct.SIENA}


def host_product(signature: Signature, package: int | None) -> HostProduct | None:
    """Return the product of a processor, or None if its model is not known."""
    product = product_from_model(signature.family, signature.model)
    if product is None:
        return None
    found = _PRODUCTS[product]
    if found is HostProduct.BERGAMO_OR_SIENA and package is not None:
        return _SOCKETS.get(package, found)
    return found
