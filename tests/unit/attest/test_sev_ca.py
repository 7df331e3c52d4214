from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sevkit.abi.product import ProductLine
from sevkit.abi.sevca import CaChain, parse_ca_certificate, parse_ca_chain
from sevkit.abi.sevcert import parse_sev_certificate
from sevkit.attest.checks import SEV_PLATFORM
from sevkit.attest.sev_ca import complete, find_bundled, verify_ca
from sevkit.attest.verdict import Ledger, Outcome
from sevkit.errors import ChainBroken, SignatureMismatch
from sevkit.kds.roots import sev_ca

if TYPE_CHECKING:
    from pathlib import Path

    from sevkit.testing.sev_chain import SimulatedPlatform, SimulatedRoots


@pytest.mark.parametrize("line", list(ProductLine))
def test_every_bundled_chain_holds_and_names_its_line(line: ProductLine) -> None:
    ledger = Ledger(SEV_PLATFORM)
    assert verify_ca(parse_ca_chain(b"".join(sev_ca(line))), ledger) is line
    made = {found.check: found.outcome for found in ledger.findings}
    assert made == dict.fromkeys(("platform.root", "platform.ark", "platform.ask"), Outcome.PASS)


@pytest.mark.parametrize(("ask", "ark"), [("Rome", "Milan"), ("Naples", "Rome")])
def test_the_ask_of_another_line_is_refused(ask: str, ark: str) -> None:
    mixed = CaChain(
        parse_ca_certificate(sev_ca(ProductLine(ask))[0]),
        parse_ca_certificate(sev_ca(ProductLine(ark))[1]),
    )
    with pytest.raises(ChainBroken) as caught:
        verify_ca(mixed, Ledger(SEV_PLATFORM))
    assert caught.value.check == "platform.ask"


def test_every_flipped_bit_of_amds_ark_makes_it_no_root() -> None:
    ask, ark = sev_ca(ProductLine.NAPLES)
    signer = parse_ca_certificate(ask)
    for bit in range(0, 8 * len(ark), 41):
        flipped = bytearray(ark)
        flipped[bit // 8] ^= 1 << bit % 8
        genuine = parse_ca_certificate(ark)
        changed = CaChain(
            signer,
            type(genuine)(
                bytes(flipped),
                genuine.key_id,
                genuine.certifying_id,
                genuine.usage,
                genuine.key,
                genuine.signature,
            ),
        )
        with pytest.raises(ChainBroken, match="pinned"):
            verify_ca(changed, Ledger(SEV_PLATFORM))


def test_a_flipped_bit_of_the_ask_is_noticed() -> None:
    ask, ark = sev_ca(ProductLine.NAPLES)
    root = parse_ca_certificate(ark)
    for offset in (0x04, 0x40 + 256 + 3, 0x40 + 511, 832 - 1, 832 - 256):
        flipped = bytearray(ask)
        flipped[offset] ^= 0x20
        chain = CaChain(parse_ca_certificate(bytes(flipped)), root)
        with pytest.raises(SignatureMismatch):
            verify_ca(chain, Ledger(SEV_PLATFORM))


def test_the_line_of_a_real_cek_is_found(vectors: Path) -> None:
    for line in (ProductLine.NAPLES, ProductLine.ROME):
        data = (vectors / "sev-crate" / line.lower() / "cek.cert").read_bytes()
        found = find_bundled(parse_sev_certificate(data))
        assert found is not None
        assert (found.ask.data, found.ark.data) == sev_ca(line)


def test_no_line_is_found_for_a_cek_of_nobody(sev_platform: SimulatedPlatform) -> None:
    assert find_bundled(sev_platform.chain.cek) is None
    assert find_bundled(parse_sev_certificate(sev_platform.firmware_cek())) is None


def test_only_amds_own_file_is_completed(sev_roots: SimulatedRoots) -> None:
    ask, ark = sev_ca(ProductLine.NAPLES)
    assert complete(parse_ca_chain(ask + ark[:576])) == parse_ca_chain(ask + ark)
    for other in (sev_roots.ca, parse_ca_chain(sev_roots.ask_ark[:1408])):
        assert complete(other) is other
