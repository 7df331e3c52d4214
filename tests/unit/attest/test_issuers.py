from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.abi.product import ProductLine
from sevkit.abi.vek import VekKind
from sevkit.attest.checks import SNP_REPORT
from sevkit.attest.issuers import Issuers, pair_of
from sevkit.attest.snp import pinned_roots
from sevkit.attest.verdict import Ledger, Outcome
from sevkit.attest.x509 import Certificate, parse_certificate
from sevkit.errors import CertificateExpired, ChainBroken, FormatError, KeyServiceError
from sevkit.kds import urls
from sevkit.kds.cache import CertificateCache
from sevkit.kds.encoding import encode_pem_certificate
from sevkit.kds.source import CertificateSource
from sevkit.testing.key_shelf import KeyShelf
from sevkit.testing.snp_chain import EPOCH, YEAR, SigningSpec, SimulatedRoots

if TYPE_CHECKING:
    from pathlib import Path

    from sevkit.attest.chain import VerifiedChain
    from sevkit.testing.snp_report import SimulatedChip

AT: Final = datetime(2026, 6, 1, tzinfo=UTC)
CHAIN: Final = urls.chain(ProductLine.MILAN, vlek=False)


def pem(roots: SimulatedRoots, ask: bytes | None = None) -> bytes:
    return encode_pem_certificate(ask or roots.ask) + encode_pem_certificate(roots.ark)


def find(
    milan: SimulatedRoots,
    source: CertificateSource | None,
    vek: Certificate | None = None,
    *,
    owner: bool = True,
) -> tuple[VerifiedChain, Ledger, Issuers]:
    roots = pinned_roots(milan.ark) if owner else pinned_roots()
    issuers = Issuers(roots, AT, None, source)
    ledger = Ledger(SNP_REPORT)
    return (
        issuers.find(VekKind.VCEK, ProductLine.MILAN, vek=vek, ledger=ledger),
        ledger,
        issuers,
    )


def shelf_of(data: bytes | None, folder: Path) -> tuple[KeyShelf, CertificateSource]:
    shelf = KeyShelf(lambda _: data)
    return shelf, CertificateSource(CertificateCache(folder), shelf)


def test_without_a_root_of_the_owners_the_bundled_chain_is_it(
    milan: SimulatedRoots, tmp_path: Path
) -> None:
    shelf, source = shelf_of(pem(milan), tmp_path)
    chain, _, issuers = find(milan, source, owner=False)
    assert chain.root_origin == "AMD's pinned root"
    assert [origin for _, origin in issuers.shown] == ["bundled", "bundled"]
    assert shelf.asked == []


def test_a_root_of_the_owners_asks_the_source(
    milan: SimulatedRoots, chip: SimulatedChip, tmp_path: Path
) -> None:
    _, source = shelf_of(pem(milan), tmp_path)
    chain, ledger, _ = find(milan, source, parse_certificate(chip.vek()))
    assert chain.root_origin == "a root that the owner named"
    assert {found.outcome for found in ledger.findings} == {Outcome.PASS}


def test_a_root_of_the_owners_does_not_cost_amds_own_chips_their_chain(
    milan: SimulatedRoots, vectors: Path, tmp_path: Path
) -> None:
    genuine = parse_certificate((vectors / "sev-crate/vcek_milan.der").read_bytes())
    offline = CertificateSource(CertificateCache(tmp_path), None)
    assert find(milan, offline, genuine)[0].root_origin == "AMD's pinned root"
    assert find(milan, offline)[0].root_origin == "AMD's pinned root"
    shelf, hostile = shelf_of(pem(milan), tmp_path)
    assert find(milan, hostile, genuine)[0].root_origin == "AMD's pinned root"
    assert shelf.asked == []


def test_a_vek_of_the_owners_roots_needs_their_chain(
    milan: SimulatedRoots, chip: SimulatedChip, tmp_path: Path
) -> None:
    offline = CertificateSource(CertificateCache(tmp_path), None)
    with pytest.raises(KeyServiceError) as caught:
        find(milan, offline, parse_certificate(chip.vek()))
    assert "--chain" in caught.value.hint


def test_a_cached_chain_that_does_not_verify_is_replaced(
    milan: SimulatedRoots, chip: SimulatedChip, tmp_path: Path
) -> None:
    _, source = shelf_of(pem(milan), tmp_path)
    forged = bytearray(milan.ask)
    forged[-1] ^= 1
    url = CHAIN.url(KeyShelf.base_url)
    cache = CertificateCache(tmp_path)
    cache.store(CHAIN, pem(milan, bytes(forged)), url=url, fetched_at=AT)
    chain, ledger, issuers = find(milan, source, parse_certificate(chip.vek()))
    assert chain.intermediate.der == milan.ask
    assert {found.outcome for found in ledger.findings} == {Outcome.PASS}
    assert len(issuers.shown) == 2
    entry = cache.load(CHAIN).entry
    assert entry is not None
    assert entry.data == pem(milan)


@pytest.mark.parametrize("defect", ["forged", "another root's", "one certificate", "junk"])
def test_a_chain_of_the_sources_that_does_not_verify_could_not_be_had(
    milan: SimulatedRoots, chip: SimulatedChip, tmp_path: Path, defect: str
) -> None:
    flipped = bytearray(milan.ask)
    flipped[-1] ^= 1
    fake = SimulatedRoots(ProductLine.MILAN)
    fake.__dict__ |= {"ark_key": milan.asvk_key, "ask_key": milan.ask_key}
    data = {
        "forged": pem(milan, bytes(flipped)),
        "another root's": pem(fake),
        "one certificate": encode_pem_certificate(milan.ask),
        "junk": b"junk",
    }[defect]
    _, source = shelf_of(data, tmp_path)
    with pytest.raises(KeyServiceError, match="does not verify"):
        find(milan, source, parse_certificate(chip.vek()))
    assert CertificateCache(tmp_path).load(CHAIN).entry is None


def test_a_genuine_chain_that_has_expired_is_a_no(
    milan: SimulatedRoots, chip: SimulatedChip, tmp_path: Path
) -> None:
    past = SigningSpec(not_before=EPOCH - 2 * YEAR, not_after=EPOCH - YEAR)
    _, source = shelf_of(pem(milan, milan.make_intermediate(VekKind.VCEK, past)), tmp_path)
    with pytest.raises(CertificateExpired):
        find(milan, source, parse_certificate(chip.vek()))


def test_a_chain_that_is_given_is_the_only_one(
    milan: SimulatedRoots, chip: SimulatedChip, tmp_path: Path
) -> None:
    shelf, source = shelf_of(pem(milan), tmp_path)
    given = (parse_certificate(milan.ark), parse_certificate(milan.ask))
    issuers = Issuers(pinned_roots(milan.ark), AT, given, source)
    with pytest.raises(ChainBroken):
        issuers.find(
            VekKind.VCEK,
            ProductLine.MILAN,
            vek=parse_certificate(chip.vek()),
            ledger=Ledger(SNP_REPORT),
        )
    assert shelf.asked == []


def test_a_chain_is_two_certificates(milan: SimulatedRoots) -> None:
    ask = parse_certificate(milan.ask)
    for count in (0, 1, 3):
        with pytest.raises(FormatError):
            pair_of((ask,) * count)
