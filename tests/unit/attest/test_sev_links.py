from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sevkit.abi.sevcert import SIZE, Usage, parse_sev_certificate
from sevkit.abi.signature import EcdsaSignature
from sevkit.attest.sev_links import Link, read_links
from sevkit.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sevkit.abi.rsa import RsaPublicKey
    from sevkit.abi.signature import EcPublicKey
    from sevkit.testing.sev_chain import SimulatedPlatform, SimulatedRoots


def survivors(
    data: bytes, keys: Mapping[Usage, EcPublicKey | RsaPublicKey], signers: set[Usage]
) -> list[int]:
    """Return the bits whose flip leaves a certificate that verifies like the one signed."""
    found = []
    for bit in range(8 * SIZE):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            certificate = parse_sev_certificate(bytes(flipped))
            if {slot.usage for slot in certificate.signatures} != signers:
                continue
            links = read_links(certificate, keys)
        except FormatError:
            continue
        if len(links) == len(signers) and all(link.holds() for link in links):
            found.append(bit)
    return found


@pytest.mark.parametrize("role", ["pdh", "pek"])
def test_every_flipped_bit_of_a_certificate_is_noticed(
    sev_platform: SimulatedPlatform, role: str
) -> None:
    chain = sev_platform.chain
    keys = {Usage.PEK: chain.pek.key, Usage.CEK: chain.cek.key, Usage.OCA: chain.oca.key}
    signers = {"pdh": {Usage.PEK}, "pek": {Usage.CEK, Usage.OCA}}[role]
    assert survivors(getattr(chain, role).data, keys, signers) == []


def test_an_rsa_signature_is_no_signature_of_an_ec_key(sev_platform: SimulatedPlatform) -> None:
    link = Link(sev_platform.chain.pek.key, bytes(256), sha384=False, body=b"")
    assert not link.holds()


def test_a_signature_of_an_unknown_signer_is_not_read(sev_platform: SimulatedPlatform) -> None:
    assert read_links(sev_platform.chain.pek, {}) == ()


def test_an_ec_signature_is_no_signature_of_an_rsa_key(sev_roots: SimulatedRoots) -> None:
    link = Link(sev_roots.ca.ask.key, EcdsaSignature(1, 1), sha384=False, body=b"")
    assert not link.holds()
