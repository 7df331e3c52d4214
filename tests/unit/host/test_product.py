from __future__ import annotations

import pytest

from sevkit.abi.product import ProductLine
from sevkit.host.cpuid import Signature
from sevkit.host.product import HostProduct, host_product


@pytest.mark.parametrize(
    ("family", "model", "package", "product"),
    [
        (0x17, 0x01, 4, HostProduct.NAPLES),
        (0x17, 0x31, 4, HostProduct.ROME),
        (0x19, 0x01, 4, HostProduct.MILAN),
        (0x19, 0x11, 4, HostProduct.GENOA),
        (0x19, 0xA0, 4, HostProduct.BERGAMO),
        (0x19, 0xA0, 8, HostProduct.SIENA),
        (0x19, 0xA0, None, HostProduct.BERGAMO_OR_SIENA),
        (0x1A, 0x02, 4, HostProduct.TURIN),
        (0x1A, 0x11, 4, HostProduct.TURIN_DENSE),
        # EPYC 4004 and 4005, which carry the brand alone.
        (0x19, 0x61, 0, None),
        (0x1A, 0x44, 0, None),
    ],
)
def test_products_are_known_by_model_and_socket(
    family: int, model: int, package: int | None, product: HostProduct | None
) -> None:
    assert host_product(Signature(family, model, 0), package) is product


def test_the_first_generation_has_no_sev_es_whatever_its_cpuid_says() -> None:
    assert [one for one in HostProduct if not one.sev_es] == [HostProduct.NAPLES]
    assert [one for one in HostProduct if not one.sev_snp] == [
        HostProduct.NAPLES,
        HostProduct.ROME,
    ]
    assert HostProduct.SIENA.line is ProductLine.GENOA
