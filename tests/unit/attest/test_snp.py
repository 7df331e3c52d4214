"""What the caller and the host hand over is evidence; what the key service hands over is not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.abi.certtable import VCEK
from sevkit.abi.product import Product, ProductLine
from sevkit.abi.tcb import encode_tcb
from sevkit.abi.vek import VekKind
from sevkit.attest.container import ReportContainer, find_report
from sevkit.attest.expectations import Expectations, ExpectedMeasurement
from sevkit.attest.snp import Trust, judge_report, pinned_roots
from sevkit.attest.verdict import Finding, Outcome, Verdict
from sevkit.attest.x509 import parse_certificate
from sevkit.errors import FormatError, KeyServiceError, UndecidedError, UsageError
from sevkit.kds import urls
from sevkit.kds.cache import CertificateCache
from sevkit.kds.encoding import encode_pem_certificate
from sevkit.kds.source import CertificateSource
from sevkit.kds.urls import Kind, Resource
from sevkit.testing.key_service import chip_provider
from sevkit.testing.key_shelf import KeyShelf
from sevkit.testing.snp_chain import EPOCH, YEAR, SigningSpec, SimulatedRoots
from sevkit.testing.snp_report import SimulatedChip

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

AT: Final = datetime(2026, 6, 1, tzinfo=UTC)
EXPECTED: Final = Expectations(
    report_data=bytes(range(64)), measurements=(ExpectedMeasurement(bytes(range(100, 148))),)
)
OLD: Final = SigningSpec(ca=None, not_before=EPOCH - 2 * YEAR, not_after=EPOCH - YEAR)


@dataclass
class Site:
    """A verifier with a cache and a key service that hands out what a test says."""

    chip: SimulatedChip
    folder: Path
    shelf: KeyShelf

    def instead(self, kind: Kind, data: bytes | None) -> None:
        before = self.shelf.provider
        self.shelf.provider = lambda asked: data if asked.kind is kind else before(asked)

    def source(self, *, online: bool = True) -> CertificateSource:
        return CertificateSource(CertificateCache(self.folder), self.shelf if online else None)

    def cached(self, resource: Resource) -> bytes | None:
        entry = CertificateCache(self.folder).load(resource).entry
        return None if entry is None else entry.data

    def keep(self, resource: Resource, data: bytes) -> None:
        url = resource.url(self.shelf.base_url)
        CertificateCache(self.folder).store(resource, data, url=url, fetched_at=AT)

    def vcek(self) -> Resource:
        return urls.vcek(self.chip.line, self.chip.hardware_id, self.chip.tcb)

    def trust(self, *, online: bool = True) -> Trust:
        roots = pinned_roots(self.chip.roots.ark)
        return Trust(at=AT, roots=roots, source=self.source(online=online))

    def judge(self, trust: Trust | None = None, report: bytes | None = None) -> Verdict:
        data = self.chip.report(3) if report is None else report
        return judge_report(find_report(data), EXPECTED, trust or self.trust())

    def pem(self) -> bytes:
        roots = self.chip.roots
        return encode_pem_certificate(roots.ask) + encode_pem_certificate(roots.ark)


@pytest.fixture
def site(chip: SimulatedChip, tmp_path: Path) -> Site:
    return Site(chip, tmp_path, KeyShelf(chip_provider(chip)))


def finding(verdict: Verdict, check: str) -> Finding:
    return next(found for found in verdict.findings if found.check == check)


def failed(verdict: Verdict) -> list[str]:
    return [found.check for found in verdict.findings if found.outcome is Outcome.FAIL]


def test_a_good_report_is_accepted_with_everything_looked_up(site: Site) -> None:
    verdict = site.judge(replace(site.trust(), require_crl=True))
    assert verdict.exit_code == 0
    assert len(site.shelf.asked) == 3


def test_an_expired_vcek_of_another_chip_is_the_key_services_fault(site: Site) -> None:
    other = SimulatedChip(site.chip.roots, Product.MILAN, hwid=b"\7" * 64)
    key = other.key.public_key()
    site.instead(
        Kind.VCEK, site.chip.roots.make_vek(VekKind.VCEK, key, other.extensions(), spec=OLD)
    )
    with pytest.raises(KeyServiceError, match="another chip"):
        site.judge()


def test_a_forged_vcek_that_has_expired_is_the_key_services_fault(site: Site) -> None:
    chip, roots = site.chip, site.chip.roots
    forged = roots.make_vek(
        VekKind.VCEK, chip.key.public_key(), chip.extensions(), spec=OLD, signer=roots.ark_key
    )
    site.instead(Kind.VCEK, forged)
    with pytest.raises(KeyServiceError, match="does not verify"):
        site.judge()
    assert site.cached(site.vcek()) is None


def test_this_chips_own_vcek_that_has_expired_is_a_no(site: Site) -> None:
    chip = site.chip
    old = chip.roots.make_vek(VekKind.VCEK, chip.key.public_key(), chip.extensions(), spec=OLD)
    site.instead(Kind.VCEK, old)
    assert failed(site.judge()) == ["chain.not-after"]


def test_a_chain_of_another_line_is_the_callers_and_costs_the_cache_nothing(
    site: Site, roots_of: Callable[[ProductLine], SimulatedRoots]
) -> None:
    assert site.judge().accepted
    genoa = roots_of(ProductLine.GENOA)
    chain = encode_pem_certificate(genoa.ask) + encode_pem_certificate(genoa.ark)
    trust = replace(site.trust(), roots=pinned_roots(genoa.ark), chain=chain)
    before = len(site.shelf.asked)
    verdict = site.judge(trust)
    assert (verdict.exit_code, failed(verdict)) == (1, ["chain.names"])
    assert len(site.shelf.asked) == before
    assert site.cached(site.vcek()) == site.chip.vek()


def test_a_chain_for_vleks_is_the_callers_too(site: Site) -> None:
    roots = site.chip.roots
    chain = encode_pem_certificate(roots.asvk) + encode_pem_certificate(roots.ark)
    verdict = site.judge(replace(site.trust(), chain=chain))
    assert (verdict.exit_code, failed(verdict)) == (1, ["chain.names"])


def test_a_chain_that_is_given_places_a_version_2_report(
    roots_of: Callable[[ProductLine], SimulatedRoots], tmp_path: Path
) -> None:
    chip = SimulatedChip(roots_of(ProductLine.GENOA), Product.GENOA)
    site = Site(chip, tmp_path, KeyShelf(chip_provider(chip)))
    verdict = site.judge(replace(site.trust(), chain=site.pem()), chip.report(2))
    assert verdict.accepted
    assert {asked.line for asked in site.shelf.asked} == {ProductLine.GENOA}


def test_a_guess_that_comes_to_nothing_leaves_nothing_behind(
    roots_of: Callable[[ProductLine], SimulatedRoots], tmp_path: Path
) -> None:
    milan, genoa = roots_of(ProductLine.MILAN), roots_of(ProductLine.GENOA)
    chip = SimulatedChip(genoa, Product.GENOA)
    good = chip_provider(chip)
    revoked = milan.make_crl([parse_certificate(milan.ask).serial])

    def provide(asked: Resource) -> bytes | None:
        if asked.line is ProductLine.MILAN and asked.kind is Kind.VCEK_CHAIN:
            return encode_pem_certificate(milan.ask) + encode_pem_certificate(milan.ark)
        if asked.line is ProductLine.MILAN:
            return revoked if asked.kind is Kind.VCEK_CRL else None
        return good(asked)

    site = Site(chip, tmp_path, KeyShelf(provide))
    trust = replace(site.trust(), roots=pinned_roots(milan.ark, genoa.ark), require_crl=True)
    verdict = site.judge(trust, chip.report(2))
    assert verdict.exit_code == 0
    assert verdict.evidence["product"] == "Genoa"
    names = [row["subject"] for row in verdict.evidence["certificates"]]
    assert names == ["SEV-Genoa", "ARK-Genoa", "SEV-VCEK"]


def test_a_report_that_no_line_has_is_undecided(site: Site) -> None:
    site.instead(Kind.VCEK, None)
    with pytest.raises(UndecidedError):
        site.judge(report=site.chip.report(2))


def test_a_version_2_report_with_a_wrong_product_is_refused(site: Site) -> None:
    trust = replace(site.trust(), line=ProductLine.GENOA, chain=site.pem())
    assert failed(site.judge(trust, site.chip.report(2))) == ["chain.names"]
    given = replace(trust, vek=site.chip.vek())
    verdict = site.judge(given, site.chip.report(2))
    assert (verdict.exit_code, failed(verdict)) == (3, ["product.demanded"])


def test_a_demanded_product_is_judged_also_where_the_report_names_one(site: Site) -> None:
    verdict = site.judge(replace(site.trust(), line=ProductLine.GENOA))
    assert (verdict.exit_code, failed(verdict)) == (3, ["product.demanded"])
    assert site.judge(replace(site.trust(), line=ProductLine.MILAN)).accepted
    assert finding(site.judge(), "product.demanded").outcome is Outcome.SKIP


def test_undecided_goes_before_a_no_of_any_kind(site: Site) -> None:
    site.instead(Kind.VCEK_CRL, None)
    demanded = replace(site.trust(), require_crl=True)
    forged = bytearray(site.chip.report(3))
    forged[0x90] ^= 1
    for report in (bytes(forged), site.chip.report(3, vmpl=1), site.chip.report(3)):
        verdict = site.judge(demanded, report)
        assert verdict.exit_code == 4
        assert not verdict.accepted
    assert site.judge(report=bytes(forged)).exit_code == 1
    assert site.judge(report=site.chip.report(3, vmpl=1)).exit_code == 3


def test_a_no_of_authenticity_goes_before_one_of_acceptance(site: Site) -> None:
    lower = encode_tcb(ProductLine.MILAN, replace(site.chip.tcb, snp=22))
    report = site.chip.report(3, vmpl=1, reported_tcb=lower)
    verdict = site.judge(replace(site.trust(), vek=site.chip.vek()), report)
    assert (verdict.exit_code, failed(verdict)) == (1, ["tcb.vek"])


def test_all_files_are_read_before_anything_is_fetched(site: Site) -> None:
    for name in ("vek", "chain", "crl"):
        given: dict[str, bytes] = {name: b"junk"}
        with pytest.raises(FormatError):
            site.judge(replace(site.trust(), **given))  # type: ignore[arg-type]  # one of three
    container = ReportContainer(site.chip.report(3), {VCEK: b"junk"})
    with pytest.raises(FormatError):
        judge_report(container, EXPECTED, site.trust())
    assert site.shelf.asked == []


def test_a_vek_that_is_given_goes_before_the_hosts(site: Site) -> None:
    container = ReportContainer(site.chip.report(3), {VCEK: b"junk"})
    trust = replace(site.trust(), vek=site.chip.vek())
    assert judge_report(container, EXPECTED, trust).accepted


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(UsageError, match="zone"):
        Trust(at=datetime(2026, 6, 1), roots=pinned_roots())  # noqa: DTZ001  # the defect


def test_the_verdicts_time_is_utc(site: Site) -> None:
    east = datetime.fromisoformat("2026-06-01T02:00:00+02:00")
    assert site.judge(replace(site.trust(), at=east)).to_json()["at"] == "2026-06-01T00:00:00Z"
