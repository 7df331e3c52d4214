from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from sevkit.abi.product import Product, ProductLine
from sevkit.abi.sevcert import Usage, parse_sev_certificate
from sevkit.abi.tcb import TcbVersion
from sevkit.abi.vek import VekKind
from sevkit.attest.chain import read_vek_extensions
from sevkit.attest.sev_links import read_links
from sevkit.attest.x509 import parse_certificate
from sevkit.errors import UsageError
from sevkit.kds import urls
from sevkit.kds.content import check_content
from sevkit.kds.encoding import parse_pem_certificates
from sevkit.testing import key_service_faults as faults
from sevkit.testing.key_service import (
    SimulatedKeyService,
    chip_provider,
    parse_target,
    processor_provider,
)
from sevkit.testing.key_service_rate import RateLimit
from sevkit.testing.secure_processor.core import Firmware
from sevkit.testing.secure_processor.identity import ChipIdentity
from sevkit.testing.secure_processor.processor import SecureProcessor
from sevkit.testing.snp_chain import SimulatedRoots
from sevkit.testing.snp_report import SimulatedChip

if TYPE_CHECKING:
    from sevkit.testing import sev_chain
    from sevkit.testing.key_service import Provider

CHIP = bytes(range(64))
HWID = CHIP.hex()


@pytest.mark.parametrize(
    ("target", "resource"),
    [
        ("/vcek/v1/Milan/cert_chain", urls.chain(ProductLine.MILAN, vlek=False)),
        ("/vlek/v1/Genoa/cert_chain", urls.chain(ProductLine.GENOA, vlek=True)),
        ("/vlek/v1/Turin/crl", urls.crl(ProductLine.TURIN, vlek=True)),
        (f"/cek/id/{HWID}", urls.cek(CHIP)),
        # as Go's verifier writes it, without leading zeros
        (
            f"/vcek/v1/Milan/{HWID}?blSPL=0&teeSPL=0&snpSPL=5&ucodeSPL=68",
            urls.vcek(ProductLine.MILAN, CHIP, TcbVersion(0, 0, 5, 68)),
        ),
        # as the Rust tools write it
        (
            f"/vcek/v1/Genoa/{HWID.upper()}?blSPL=09&teeSPL=00&snpSPL=23&ucodeSPL=213",
            urls.vcek(ProductLine.GENOA, CHIP, TcbVersion(9, 0, 23, 213)),
        ),
        (
            "/vcek/v1/Turin/0001020304050607?fmcSPL=01&blSPL=02&teeSPL=03&snpSPL=04&ucodeSPL=05",
            urls.vcek(ProductLine.TURIN, CHIP[:8], TcbVersion(2, 3, 4, 5, fmc=1)),
        ),
    ],
)
def test_addresses_as_the_field_writes_them_are_understood(
    target: str, resource: urls.Resource
) -> None:
    assert parse_target(target) == resource


@pytest.mark.parametrize(
    "target",
    [
        "",
        "/",
        "/vcek/v1/Naples/cert_chain",
        "/vcek/v1/milan/cert_chain",
        "/vcek/v1/Milan/cert_chain?x=1",
        "/vcek/v1/Milan/../Milan/crl",
        "/vcek/v2/Milan/crl",
        "/vlek/v1/Milan/cert?blSPL=00",
        f"/vcek/v1/Milan/{HWID}",
        f"/vcek/v1/Milan/{HWID}?blSPL=0&teeSPL=0&snpSPL=5",
        f"/vcek/v1/Milan/{HWID}?blSPL=0&blSPL=0&teeSPL=0&snpSPL=5&ucodeSPL=68",
        f"/vcek/v1/Milan/{HWID}?blSPL=0&teeSPL=0&snpSPL=5&ucodeSPL=256",
        f"/vcek/v1/Milan/{HWID}?blSPL=-1&teeSPL=0&snpSPL=5&ucodeSPL=68",
        f"/vcek/v1/Milan/{HWID}?fmcSPL=1&blSPL=0&teeSPL=0&snpSPL=5&ucodeSPL=68",
        f"/vcek/v1/Turin/{HWID}?fmcSPL=1&blSPL=0&teeSPL=0&snpSPL=5&ucodeSPL=68",
        f"/vcek/v1/Turin/{HWID[:16]}?blSPL=0&teeSPL=0&snpSPL=5&ucodeSPL=68",
        f"/vcek/v1/Milan/{'0' * 128}?blSPL=0&teeSPL=0&snpSPL=5&ucodeSPL=68",
        f"/vcek/v1/Milan/{HWID[:-1]}?blSPL=0&teeSPL=0&snpSPL=5&ucodeSPL=68",
        "/cek/id/00",
        f"/cek/id/{HWID}?x",
    ],
)
def test_other_addresses_are_nothing(target: str) -> None:
    assert parse_target(target) is None


def test_simulated_chips_are_served_with_the_roots_of_their_line() -> None:
    roots = SimulatedRoots(ProductLine.TURIN)
    chip = SimulatedChip(roots, Product.TURIN)
    provide = chip_provider(chip)
    for resource in (
        urls.vcek(chip.line, chip.hardware_id, chip.tcb),
        urls.chain(chip.line, vlek=False),
        urls.chain(chip.line, vlek=True),
        urls.crl(chip.line, vlek=False),
    ):
        data = provide(resource)
        assert data is not None
        check_content(resource, data)
    assert provide(urls.vcek(chip.line, b"\xff" * 8, chip.tcb)) is None
    assert provide(urls.chain(ProductLine.MILAN, vlek=False)) is None
    assert provide(urls.cek(CHIP)) is None


def test_a_service_that_is_left_at_once_ends() -> None:
    with SimulatedKeyService(lambda _: None) as service:
        assert service.base_url.startswith("https://127.0.0.1:")
    assert service.stopping.is_set()
    assert service.targets == ()


class Site(NamedTuple):
    """Two Genoa chips and one without SNP, under one AMD, and its key service without a network."""

    one: SecureProcessor
    other: SecureProcessor
    rome: SecureProcessor
    provide: Provider

    def vcek(self, tcb: TcbVersion, processor: SecureProcessor | None = None) -> bytes | None:
        chip = (processor or self.one).identity
        return self.provide(urls.vcek(chip.line, chip.hardware_id, tcb))


@pytest.fixture(scope="module")
def roots() -> SimulatedRoots:
    """A line's roots with keys of 2048 bits: what is signed here nobody verifies against AMD's."""
    made = SimulatedRoots(ProductLine.GENOA)
    made.ark_key, made.ask_key, made.asvk_key = (
        rsa.generate_private_key(65537, 2048) for _ in range(3)
    )
    return made


TCB = TcbVersion(bootloader=9, tee=1, snp=23, microcode=72)


@pytest.fixture
def site(roots: SimulatedRoots, sev_roots: sev_chain.SimulatedRoots) -> Site:
    one, other = (
        SecureProcessor(ChipIdentity(Product.GENOA, sev_roots, roots), Firmware(tcb=TCB))
        for _ in range(2)
    )
    rome = SecureProcessor(ChipIdentity(Product.ROME, sev_roots))
    return Site(one, other, rome, processor_provider(one, other, rome))


COMPONENTS = ("bootloader", "tee", "snp", "microcode")


@pytest.mark.parametrize("component", ["", *COMPONENTS])
def test_the_vcek_of_what_runs_and_of_every_lower_version_is_computed(
    site: Site, component: str
) -> None:
    tcb = TcbVersion(**TCB.components | ({component: 0} if component else {}))
    data = site.vcek(tcb)
    assert data is not None
    claims = read_vek_extensions(VekKind.VCEK, parse_certificate(data))
    assert (claims.hwid, claims.tcb) == (site.one.identity.hardware_id, tcb)
    key = x509.load_der_x509_certificate(data).public_key()
    assert key == site.one.identity.vcek_key(tcb).public_key()
    assert site.vcek(tcb) == data
    assert site.vcek(tcb, site.other) != data


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_version_with_one_component_above_what_runs_does_not_exist(
    site: Site, component: str
) -> None:
    none = dict.fromkeys(COMPONENTS, 0)
    above = TcbVersion(**none | {component: TCB.components[component] + 1})
    assert site.vcek(above) is None


def test_an_update_of_the_firmware_brings_its_vcek(site: Site) -> None:
    newer = TcbVersion(bootloader=10, tee=1, snp=24, microcode=72)
    assert site.vcek(newer) is None
    site.one.snp.update_firmware(Firmware(tcb=newer))
    assert site.vcek(newer) is not None
    assert site.vcek(TCB) is not None
    assert site.vcek(newer, site.other) is None


def test_strangers_have_nothing(site: Site, sev_roots: sev_chain.SimulatedRoots) -> None:
    stranger = ChipIdentity(Product.ROME, sev_roots)
    chip = site.one.identity
    for resource in (
        urls.cek(stranger.chip_id),
        urls.vcek(ProductLine.GENOA, stranger.chip_id, TCB),
        urls.vcek(ProductLine.MILAN, chip.hardware_id, TCB),
        urls.vcek(ProductLine.GENOA, site.rome.identity.chip_id, TCB),
        urls.chain(ProductLine.TURIN, vlek=False),
        urls.crl(ProductLine.MILAN, vlek=True),
    ):
        assert site.provide(resource) is None


def test_ceks_come_with_the_signature_that_firmware_leaves_out(
    site: Site, sev_roots: sev_chain.SimulatedRoots
) -> None:
    for processor in (site.one, site.other, site.rome):
        data = site.provide(urls.cek(processor.sev.get_id()))
        assert data is not None
        cek = parse_sev_certificate(data)
        (link,) = read_links(cek, {Usage.ASK: sev_roots.ca.ask.key})
        assert link.holds()
        exported = parse_sev_certificate(processor.identity.cek)
        assert (exported.key, exported.signatures) == (cek.key, ())


@pytest.mark.parametrize("vlek", [False, True])
def test_a_line_has_its_chains_and_lists(site: Site, roots: SimulatedRoots, vlek: bool) -> None:
    chain = urls.chain(ProductLine.GENOA, vlek=vlek)
    data = site.provide(chain)
    assert data is not None
    intermediate = roots.asvk if vlek else roots.ask
    assert parse_pem_certificates("chain", data, count=2) == (intermediate, roots.ark)
    crl = urls.crl(ProductLine.GENOA, vlek=vlek)
    data = site.provide(crl)
    assert data is not None
    check_content(crl, data)
    loaded = x509.load_der_x509_crl(data)
    assert loaded.issuer == x509.load_der_x509_certificate(roots.ark).subject


def test_threads_that_ask_for_a_vcek_at_once_get_the_same(site: Site) -> None:
    barrier = threading.Barrier(4)
    found: list[bytes | None] = []

    def ask() -> None:
        barrier.wait()
        found.append(site.vcek(TCB))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1


CRL = "/vcek/v1/Genoa/crl"


def test_what_comes_too_often_is_refused_with_the_seconds_to_wait() -> None:
    now = [100.0]
    limit = RateLimit(1, 10)
    with SimulatedKeyService(
        lambda _: b"list", rate_limit=limit, monotonic=lambda: now[0]
    ) as service:
        taken = []
        for moment in (100.0, 103.5, 110.0):
            now[0] = moment
            taken.append(service.take_fault(CRL))
        assert taken == [None, faults.too_many_requests("7"), None]
        assert service.targets == (CRL, CRL, CRL)


def test_a_refusal_may_leave_out_how_long() -> None:
    limit = RateLimit(1, 10, retry_after=False)
    with SimulatedKeyService(lambda _: b"list", rate_limit=limit) as service:
        taken = [service.take_fault(CRL) for _ in range(2)]
    assert taken == [None, faults.too_many_requests()]


def test_a_fault_that_was_asked_for_is_met_before_the_rate_limit() -> None:
    limit = RateLimit(1, 10)
    with SimulatedKeyService(lambda _: b"list", rate_limit=limit, monotonic=lambda: 0.0) as service:
        service.fail(faults.not_found(), times=2)
        taken = [service.take_fault(CRL) for _ in range(4)]
    found = [faults.not_found(), faults.not_found(), None, faults.too_many_requests("10")]
    assert taken == found


def test_a_fault_instead_of_tls_is_met_by_connections_and_not_by_requests() -> None:
    early = faults.instead_of_tls(faults.silence())
    with SimulatedKeyService(lambda _: None) as service:
        service.fail(early, times=1)
        service.fail(faults.not_found(), times=1)
        assert service.take_fault(CRL) == faults.not_found()
        assert service.take_fault(CRL) is None
        assert [service.take_early_fault(), service.take_early_fault()] == [early, None]
        with pytest.raises(UsageError, match="cannot know the target"):
            service.fail(early, pattern="crl")


def test_another_answer_than_asked_for_is_good_in_itself(site: Site) -> None:
    asvk_chain = urls.chain(ProductLine.GENOA, vlek=True)
    data = site.provide(asvk_chain)
    assert data is not None
    with SimulatedKeyService(site.provide) as service:
        service.answer_with(asvk_chain, pattern="/vcek/.*chain")
        assert service.take_fault("/vcek/v1/Genoa/cert_chain") == faults.content(data)
        assert service.take_fault(CRL) is None
        with pytest.raises(UsageError, match="has no vcek-chain Milan"):
            service.answer_with(urls.chain(ProductLine.MILAN, vlek=False))
