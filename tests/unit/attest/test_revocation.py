from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from sevkit.abi.product import ProductLine
from sevkit.attest.chain import TrustedRoots, VerifiedChain, verify_chain
from sevkit.attest.checks import SNP_REPORT
from sevkit.attest.crl import RevocationList, parse_crl
from sevkit.attest.revocation import check_revocation
from sevkit.attest.verdict import Ledger, Outcome
from sevkit.attest.x509 import parse_certificate
from sevkit.errors import CertificateExpired, CertificateRevoked, SignatureMismatch
from sevkit.kds import urls
from sevkit.kds.cache import CertificateCache
from sevkit.kds.source import CertificateSource
from sevkit.testing.key_shelf import KeyShelf
from sevkit.testing.snp_chain import EPOCH, YEAR, SimulatedRoots

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

CRL: Final = urls.crl(ProductLine.MILAN, vlek=False)
NAMES: Final = ["crl.signature", "crl.whole", "crl.dates", "chain.revocation"]


def chain_at(milan: SimulatedRoots, trusted: TrustedRoots, at: datetime) -> VerifiedChain:
    return verify_chain(
        parse_certificate(milan.ask),
        parse_certificate(milan.ark),
        at=at,
        roots=trusted,
        ledger=Ledger(SNP_REPORT),
    )


@pytest.fixture(scope="module")
def chain(milan: SimulatedRoots, trusted: TrustedRoots) -> VerifiedChain:
    return chain_at(milan, trusted, EPOCH + 2 * YEAR)


def check(
    chain: VerifiedChain,
    source: CertificateSource | None = None,
    given: RevocationList | None = None,
    *,
    required: bool = False,
) -> tuple[set[Outcome], bool]:
    ledger = Ledger(SNP_REPORT)
    check_revocation(chain, given=given, source=source, required=required, ledger=ledger)
    assert [found.check for found in ledger.findings] == NAMES
    return {found.outcome for found in ledger.findings}, ledger.undecided


def shelf_of(data: bytes | None, folder: Path) -> tuple[KeyShelf, CertificateSource]:
    shelf = KeyShelf(lambda _: data)
    return shelf, CertificateSource(CertificateCache(folder), shelf)


@pytest.mark.parametrize("required", [False, True])
def test_a_list_that_nobody_has_is_skipped_and_undecided_if_it_is_required(
    chain: VerifiedChain, tmp_path: Path, required: bool
) -> None:
    assert check(chain, required=required) == ({Outcome.SKIP}, required)
    _, source = shelf_of(None, tmp_path)
    assert check(chain, source, required=required) == ({Outcome.SKIP}, required)


@pytest.mark.parametrize(
    "defect", ["forged", "stale", "of the future", "of another issuer", "HTML"]
)
def test_a_list_of_the_sources_that_is_not_sound_could_not_be_had(
    milan: SimulatedRoots, chain: VerifiedChain, tmp_path: Path, defect: str
) -> None:
    serial = parse_certificate(milan.ask).serial
    data = {
        "forged": milan.make_crl([serial], signer=milan.ask_key),
        "stale": milan.make_crl([serial], next_update=EPOCH + YEAR),
        "of the future": milan.make_crl([serial], this_update=EPOCH + 10 * YEAR),
        "of another issuer": milan.make_crl([serial], issuer_cn="ARK-Genoa"),
        "HTML": b"<html>",
    }[defect]
    _, source = shelf_of(data, tmp_path)
    assert check(chain, source, required=True) == ({Outcome.SKIP}, True)


def test_a_list_that_is_given_is_evidence(milan: SimulatedRoots, chain: VerifiedChain) -> None:
    assert check(chain, given=parse_crl(milan.make_crl())) == ({Outcome.PASS}, False)
    with pytest.raises(SignatureMismatch):
        check(chain, given=parse_crl(milan.make_crl(signer=milan.ask_key)))
    with pytest.raises(CertificateExpired):
        check(chain, given=parse_crl(milan.make_crl(next_update=EPOCH + YEAR)))


def test_a_list_that_is_given_goes_before_the_sources(
    milan: SimulatedRoots, chain: VerifiedChain, tmp_path: Path
) -> None:
    shelf, source = shelf_of(milan.make_crl([parse_certificate(milan.ask).serial]), tmp_path)
    given = parse_crl(milan.make_crl())
    assert check(chain, source, given) == ({Outcome.PASS}, False)
    assert shelf.asked == []
    with pytest.raises(CertificateRevoked):
        check(chain, source)


def test_a_forged_list_in_the_cache_is_replaced(
    milan: SimulatedRoots, chain: VerifiedChain, tmp_path: Path
) -> None:
    good = milan.make_crl()
    shelf, source = shelf_of(good, tmp_path)
    cache = CertificateCache(tmp_path)
    url = CRL.url(shelf.base_url)
    cache.store(CRL, milan.make_crl(signer=milan.ask_key), url=url, fetched_at=EPOCH)
    assert check(chain, source, required=True) == ({Outcome.PASS}, False)
    entry = cache.load(CRL).entry
    assert entry is not None
    assert entry.data == good


def test_a_judgement_of_the_past_does_not_cost_the_cache_the_list_of_today(
    milan: SimulatedRoots, trusted: TrustedRoots, chain: VerifiedChain, tmp_path: Path
) -> None:
    shelf, source = shelf_of(milan.make_crl(this_update=EPOCH + YEAR), tmp_path)
    assert check(chain, source) == ({Outcome.PASS}, False)
    past = chain_at(milan, trusted, EPOCH + YEAR / 2)
    assert check(past, source) == ({Outcome.SKIP}, False)
    assert len(shelf.asked) == 1
    offline = CertificateSource(CertificateCache(tmp_path), None)
    assert check(past, offline) == ({Outcome.SKIP}, False)
    assert check(chain, offline, required=True) == ({Outcome.PASS}, False)
