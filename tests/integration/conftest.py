from __future__ import annotations

import pytest

from sevkit.abi.product import Product, ProductLine
from sevkit.testing.snp_chain import SimulatedRoots
from sevkit.testing.snp_report import SimulatedChip


@pytest.fixture(scope="session")
def milan_chip() -> SimulatedChip:
    """A simulated Milan chip; its roots cost seconds, so there is one for all tests."""
    return SimulatedChip(SimulatedRoots(ProductLine.MILAN), Product.MILAN)


@pytest.fixture(scope="session")
def genoa_roots() -> SimulatedRoots:
    """Simulated roots of another line."""
    return SimulatedRoots(ProductLine.GENOA)
