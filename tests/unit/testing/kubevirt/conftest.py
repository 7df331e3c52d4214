from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sevkit.abi.product import Product, ProductLine
from sevkit.testing.firmware import FirmwareImage, encode_firmware
from sevkit.testing.kubevirt.host import SimulatedHost
from sevkit.testing.kubevirt.owner_side import OwnerSide
from sevkit.testing.secure_processor.identity import ChipIdentity
from sevkit.testing.secure_processor.processor import SecureProcessor
from sevkit.testing.snp_chain import SimulatedRoots

if TYPE_CHECKING:
    from sevkit.testing import sev_chain


@pytest.fixture(scope="session")
def snp_roots() -> SimulatedRoots:
    """Milan's X.509 roots: seconds to make."""
    return SimulatedRoots(ProductLine.MILAN)


@pytest.fixture
def host(sev_roots: sev_chain.SimulatedRoots, snp_roots: SimulatedRoots) -> SimulatedHost:
    """A node with a fresh Milan chip."""
    chip = ChipIdentity(Product.MILAN, sev_roots, snp_roots)
    return SimulatedHost("node-1", SecureProcessor(chip))


@pytest.fixture(scope="session")
def firmware() -> bytes:
    """One page of firmware with every table."""
    return encode_firmware(FirmwareImage())


@pytest.fixture
def owner(firmware: bytes, sev_roots: sev_chain.SimulatedRoots, host: SimulatedHost) -> OwnerSide:
    """A guest owner who trusts the simulated root."""
    cek = host.processor.identity.signed_cek
    return OwnerSide(firmware, sev_roots.ca, (sev_roots.root,), (cek,))
