"""Simulated chips under roots that are made once for each run, and the owner who seals for them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from sevkit.abi.firmware_status import CommandError
from sevkit.abi.product import Product, ProductLine
from sevkit.abi.session import (
    TransportKeys,
    compute_shared_secret,
    encode_godh,
    godh_key,
    seal_session,
)
from sevkit.abi.sevcert import parse_sev_certificate
from sevkit.attest.sev_session import LaunchSession
from sevkit.secret import Secret
from sevkit.testing import snp_chain
from sevkit.testing.secure_processor.core import AsidRange
from sevkit.testing.secure_processor.identity import ChipIdentity
from sevkit.testing.secure_processor.processor import SecureProcessor

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.abi.firmware_status import FirmwareStatus
    from sevkit.testing import sev_chain
    from sevkit.testing.secure_processor.core import Firmware


@pytest.fixture(scope="session")
def snp_roots_of() -> Callable[[ProductLine], snp_chain.SimulatedRoots]:
    """Roots of a line, made when something is signed; all lines have Milan's keys, to save time."""
    milan = snp_chain.SimulatedRoots(ProductLine.MILAN)
    made = {ProductLine.MILAN: milan}

    def give(line: ProductLine) -> snp_chain.SimulatedRoots:
        if line not in made:
            made[line] = snp_chain.SimulatedRoots(line)
            made[line].ark_key, made[line].ask_key = milan.ark_key, milan.ask_key
            made[line].asvk_key = milan.asvk_key
        return made[line]

    return give


@pytest.fixture(scope="session")
def chip_of(
    sev_roots: sev_chain.SimulatedRoots,
    snp_roots_of: Callable[[ProductLine], snp_chain.SimulatedRoots],
) -> Callable[[Product], ChipIdentity]:
    """Return a fresh chip; the SEV roots are small ones, which are quick to make."""

    def make(product: Product) -> ChipIdentity:
        roots = snp_roots_of(product.line) if product.line.snp else None
        return ChipIdentity(product, sev_roots, roots)

    return make


@pytest.fixture(scope="session")
def processor_of(
    chip_of: Callable[[Product], ChipIdentity],
) -> Callable[..., SecureProcessor]:
    """Return a fresh processor with few ASIDs: 1 to 4 for encrypted state, 5 to 8 for SEV."""

    def make(
        product: Product = Product.MILAN,
        firmware: Firmware | None = None,
        *,
        asids: AsidRange | None = None,
        draw: Callable[[int], bytes] = os.urandom,
    ) -> SecureProcessor:
        few = asids or AsidRange(8, 5)
        return SecureProcessor(chip_of(product), firmware, asids=few, draw=draw)

    return make


@pytest.fixture
def milan(processor_of: Callable[..., SecureProcessor]) -> SecureProcessor:
    """A Milan chip on which nothing is initialised."""
    return processor_of()


@pytest.fixture
def sev(milan: SecureProcessor) -> SecureProcessor:
    """The same with SEV and SEV-ES initialised and every ASID clean."""
    milan.sev.init(es=True)
    milan.sev.df_flush()
    return milan


@pytest.fixture
def snp(milan: SecureProcessor) -> SecureProcessor:
    """The same with SNP initialised, not SEV, and every ASID clean."""
    milan.snp.init()
    milan.snp.df_flush()
    return milan


@pytest.fixture(scope="session")
def seal() -> Callable[..., LaunchSession]:
    """Return the owner's session for a processor's PDH, also under policies that he never would."""

    def make(processor: SecureProcessor, policy: int = 1, **keys: Secret) -> LaunchSession:
        pdh = parse_sev_certificate(processor.sev.pdh_cert_export()[0])
        private = ec.generate_private_key(ec.SECP384R1())
        shared = compute_shared_secret(private, godh_key(pdh))
        fresh = {name: Secret(os.urandom(16)) for name in ("tek", "tik")}
        owner = TransportKeys(**(fresh | keys))
        blob = seal_session(shared, owner, policy, nonce=os.urandom(16), iv=os.urandom(16))
        return LaunchSession(blob, encode_godh(private), owner, policy, "", simulated=True)

    return make


@pytest.fixture(scope="session")
def refusal() -> Callable[[Callable[[], object]], FirmwareStatus]:
    """Return the status with which a command is refused; that it is not fails the test."""

    def status(command: Callable[[], object]) -> FirmwareStatus:
        with pytest.raises(CommandError) as caught:
            command()
        return caught.value.status

    return status
