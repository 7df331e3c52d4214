from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from sevkit.abi.product import Product, ProductLine
from sevkit.attest.chain import TrustedRoots
from sevkit.testing.snp_chain import SimulatedRoots
from sevkit.testing.snp_report import SimulatedChip

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def roots_of() -> Callable[[ProductLine], SimulatedRoots]:
    made: dict[ProductLine, SimulatedRoots] = {}

    def give(line: ProductLine) -> SimulatedRoots:
        if line not in made:
            made[line] = SimulatedRoots(line)
        return made[line]

    return give


@pytest.fixture(scope="session")
def milan(roots_of: Callable[[ProductLine], SimulatedRoots]) -> SimulatedRoots:
    return roots_of(ProductLine.MILAN)


@pytest.fixture(scope="session")
def trusted(milan: SimulatedRoots) -> TrustedRoots:
    return TrustedRoots(frozenset(), frozenset({hashlib.sha256(milan.ark).digest()}))


@pytest.fixture(scope="session")
def chip(milan: SimulatedRoots) -> SimulatedChip:
    return SimulatedChip(milan, Product.MILAN)


@pytest.fixture
def now() -> datetime:
    return NOW
