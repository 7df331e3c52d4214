"""Evidence of simulated processors, judged by ``sevkit attest`` with a simulated key service.

Reports, platforms and launches are accepted where the simulated root is passed by name, and nowhere
else. What a key service may do wrong never becomes a verdict on a report: it stays undecided, and
nothing of it stays in the cache.
"""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest

from sevkit.abi.product import Product, ProductLine
from sevkit.abi.secret_packet import DISK_GUID, parse_secret_table
from sevkit.abi.sevcert import SIZE
from sevkit.abi.tcb import TcbVersion
from sevkit.attest.container import find_report
from sevkit.attest.expectations import Expectations, ExpectedMeasurement
from sevkit.attest.snp import Trust, judge_report, pinned_roots
from sevkit.cli.main import main
from sevkit.errors import KeyServiceError, SevkitError
from sevkit.kds import urls
from sevkit.kds.cache import CertificateCache
from sevkit.kds.client import Clock, KeyService
from sevkit.kds.encoding import encode_pem_certificate
from sevkit.kds.source import CertificateSource
from sevkit.measure.launch_digest import compute_snp_digest
from sevkit.measure.ovmf import FOUR_GIB, PAGE
from sevkit.measure.terms import Era
from sevkit.measure.vcpu import CPU_MODELS, Registers
from sevkit.testing import key_service_faults as faults
from sevkit.testing.firmware import FirmwareImage, encode_firmware
from sevkit.testing.key_service import SimulatedKeyService, processor_provider
from sevkit.testing.key_service_rate import RateLimit
from sevkit.testing.secure_processor.core import Firmware
from sevkit.testing.secure_processor.identity import ChipIdentity, Vlek
from sevkit.testing.secure_processor.processor import SecureProcessor
from sevkit.testing.sev_chain import make_roots
from sevkit.testing.snp_chain import SimulatedRoots
from sevkit.testing.snp_guest import GuestChannel
from sevkit.testing.virtual_machine import Machine, SimulatedKvm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from sevkit.testing import sev_chain
    from sevkit.testing.key_service_faults import Fault
    from sevkit.testing.snp_report import SimulatedChip

OVMF: Final = encode_firmware(FirmwareImage())
NONCE: Final = bytes(range(64))
MODELS: Final = {
    Product.MILAN: "EPYC-Milan",
    Product.GENOA: "EPYC-Genoa",
    Product.BERGAMO_OR_SIENA: "EPYC-Genoa",
    Product.TURIN: "EPYC-Turin",
    Product.TURIN_DENSE: "EPYC-Turin",
}


@pytest.fixture(scope="module")
def sev_roots() -> sev_chain.SimulatedRoots:
    return make_roots()


@pytest.fixture(scope="module")
def snp_roots(milan_chip: SimulatedChip) -> Mapping[ProductLine, SimulatedRoots]:
    """Roots of every line with SNP; the keys are the same, because making some takes seconds."""
    made = {line: SimulatedRoots(line) for line in (ProductLine.GENOA, ProductLine.TURIN)}
    milan = milan_chip.roots
    for roots in made.values():
        roots.ark_key, roots.ask_key, roots.asvk_key = milan.ark_key, milan.ask_key, milan.asvk_key
    return {ProductLine.MILAN: milan, **made}


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@dataclass
class Host:
    """One SNP host, whose guest answers for its owner."""

    identity: ChipIdentity
    processor: SecureProcessor
    registers: Registers
    vlek: Vlek | None = None
    kvm: SimulatedKvm = field(init=False)

    def __post_init__(self) -> None:
        self.kvm = SimulatedKvm(self.processor)
        if self.vlek is not None:
            self.processor.snp.vlek_load(self.identity.seal_hashstick(self.vlek))

    @property
    def roots(self) -> SimulatedRoots:
        assert self.identity.snp_roots is not None
        return self.identity.snp_roots

    @property
    def vcek(self) -> urls.Resource:
        tcb = self.processor.snp.reported_tcb
        return urls.vcek(self.identity.line, self.identity.hardware_id, tcb)

    @property
    def digest(self) -> bytes:
        return compute_snp_digest(OVMF, self.registers, 2)

    def report(self) -> bytes:
        with self.kvm.launch_snp(Machine(OVMF, 2, self.registers)) as guest:
            return GuestChannel(self.kvm, guest).get_report(NONCE)

    def extended_report(self) -> bytes:
        return self.report() + self.processor.messages.cert_table(self.vlek)


@pytest.fixture
def make_host(
    sev_roots: sev_chain.SimulatedRoots, snp_roots: Mapping[ProductLine, SimulatedRoots]
) -> Callable[..., Host]:
    def make(
        product: Product = Product.MILAN,
        *,
        version: int = 3,
        vlek: bool = False,
        tcb: TcbVersion | None = None,
    ) -> Host:
        identity = ChipIdentity(product, sev_roots, snp_roots[product.line])
        firmware = Firmware(report_version=version, tcb=tcb)
        processor = SecureProcessor(identity, firmware)
        loaded = Vlek(snp_roots[product.line], processor.snp.reported_tcb) if vlek else None
        return Host(identity, processor, Registers(CPU_MODELS[MODELS[product]], 1), loaded)

    return make


@pytest.fixture
def host(make_host: Callable[..., Host]) -> Host:
    return make_host()


@pytest.fixture
def service(host: Host) -> Iterator[SimulatedKeyService]:
    with SimulatedKeyService(processor_provider(host.processor)) as running:
        yield running


class Owner:
    """Runs ``attest report`` as the guest's owner does: over HTTPS, with an empty cache."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.cache = CertificateCache(folder / "cache")
        self._capsys = capsys

    def write(self, name: str, data: bytes) -> str:
        path = self.folder / name
        path.write_bytes(data)
        return str(path)

    def attest(
        self, report: bytes, host: Host, service: SimulatedKeyService, *, root: bytes | None
    ) -> int:
        words = ["attest", "report", self.write("report.bin", report)]
        words += ["--kds-url", service.base_url, "--kds-ca", self.write("ca.pem", service.ca)]
        words += ["--report-data", NONCE.hex(), "--measurement", host.digest.hex()]
        words += ["--cache", str(self.cache.root), "--output", "json"]
        if root is not None:
            named = self.write("ark.pem", encode_pem_certificate(root))
            words += ["--root", named, "--require-crl"]
        return main(words)

    def verdict(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._capsys.readouterr().out)
        return found

    def failed(self) -> set[str]:
        return {row["check"] for row in self.verdict()["findings"] if row["outcome"] == "fail"}


@pytest.fixture
def owner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Owner:
    return Owner(tmp_path, capsys)


@pytest.mark.parametrize("version", [2, 3, 5])
@pytest.mark.parametrize("vlek", [False, True], ids=["VCEK", "VLEK"])
@pytest.mark.parametrize("product", list(MODELS))
def test_a_report_is_accepted_only_with_its_root(
    make_host: Callable[..., Host], owner: Owner, product: Product, vlek: bool, version: int
) -> None:
    host = make_host(product, version=version, vlek=vlek)
    data = host.extended_report()
    with SimulatedKeyService(processor_provider(host.processor)) as service:
        assert owner.attest(data, host, service, root=host.roots.ark) == 0
        kind = "vlek" if vlek else "vcek"
        line = host.identity.line
        assert set(service.targets) == {f"/{kind}/v1/{line}/cert_chain", f"/{kind}/v1/{line}/crl"}
        owner.verdict()
        assert owner.attest(data, host, service, root=None) == 1
        assert owner.failed() == {"chain.vek"}


@pytest.mark.parametrize("version", [2, 3, 5])
@pytest.mark.parametrize("product", list(MODELS))
def test_the_vcek_of_a_bare_report_is_found_by_chip_and_reported_tcb(
    make_host: Callable[..., Host], owner: Owner, product: Product, version: int
) -> None:
    host = make_host(product, version=version)
    data = host.report()
    with SimulatedKeyService(processor_provider(host.processor)) as service:
        assert owner.attest(data, host, service, root=host.roots.ark) == 0
        assert host.vcek.target in service.targets
        # A key service is no evidence: whose certificates nobody vouches for could not be had.
        owner.cache.drop(host.vcek)
        assert owner.attest(data, host, service, root=None) == 4


def test_the_root_of_another_line_or_another_amd_is_not_the_root(
    host: Host,
    owner: Owner,
    service: SimulatedKeyService,
    snp_roots: Mapping[ProductLine, SimulatedRoots],
    genoa_roots: SimulatedRoots,
) -> None:
    data = host.extended_report()
    for root in (snp_roots[ProductLine.GENOA].ark, genoa_roots.ark, host.roots.ask):
        assert owner.attest(data, host, service, root=root) in {1, 4}
    assert owner.attest(data, host, service, root=host.roots.ark) == 0


def test_a_host_that_reports_a_lower_tcb_than_it_runs_is_looked_up_by_it(
    make_host: Callable[..., Host], owner: Owner
) -> None:
    host = make_host()
    runs = host.processor.snp.current_tcb
    lower = TcbVersion(runs.bootloader, runs.tee, runs.snp - 2, runs.microcode - 1)
    host.processor.snp.config(host.processor.snp.raw(lower))
    with SimulatedKeyService(processor_provider(host.processor)) as service:
        assert owner.attest(host.report(), host, service, root=host.roots.ark) == 0
        assert service.count(f"snpSPL={lower.snp:02d}&ucodeSPL={lower.microcode}") == 1


def test_a_chip_that_the_key_service_does_not_know_is_undecided(
    make_host: Callable[..., Host], owner: Owner, service: SimulatedKeyService
) -> None:
    other = make_host()
    assert owner.attest(other.report(), other, service, root=other.roots.ark) == 4


NEWER: Final = TcbVersion(bootloader=5, tee=0, snp=25, microcode=220)


def test_an_update_is_reported_when_it_is_committed(host: Host, owner: Owner) -> None:
    with SimulatedKeyService(processor_provider(host.processor)) as service:
        before = host.vcek
        host.processor.sev.shutdown()
        host.processor.snp.update_firmware(Firmware(tcb=NEWER))
        assert owner.attest(host.report(), host, service, root=host.roots.ark) == 0
        assert host.vcek == before
        host.processor.snp.commit()
        assert owner.attest(host.report(), host, service, root=host.roots.ark) == 0
        assert service.count("snpSPL=24") == service.count("snpSPL=25") == 1


class FakeTime:
    """Time that passes only where somebody sleeps; the client and the service share it."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.passed += seconds

    def clock(self) -> Clock:
        return Clock(
            lambda: time.monotonic() + self.passed,
            self.sleep,
            lambda: datetime.now(UTC) + timedelta(seconds=self.passed),
        )


def judge(
    report: bytes,
    host: Host,
    service: SimulatedKeyService,
    cache: CertificateCache,
    fake: FakeTime,
    *,
    attempt: float = 30,
) -> int:
    """Return the exit code of ``attest report`` with requests that may take ``attempt`` seconds."""
    fetcher = KeyService(service.base_url, ca=service.ca, attempt=attempt, clock=fake.clock())
    trust = Trust(
        datetime.now(UTC),
        pinned_roots(host.roots.ark),
        require_crl=True,
        source=CertificateSource(cache, fetcher),
    )
    expected = Expectations(report_data=NONCE, measurements=(ExpectedMeasurement(host.digest),))
    try:
        return judge_report(find_report(report), expected, trust).exit_code
    except SevkitError as error:
        return error.exit_code


#: Any signed DER object of the right size: what stands where a VCEK should.
DER: Final = b"\x30\x82\x05\x4c" + bytes(0x54C)

#: Everything that a key service was seen, or may be feared, to do instead of answering.
HOSTILE: Final[Mapping[str, Fault]] = {
    "404": faults.not_found(),
    "HTML": faults.web_page(),
    "HTML in error": faults.status(403, body=b"<html>"),
    "429": faults.too_many_requests(),
    "429 until tomorrow": faults.too_many_requests("86400"),
    "429 until some day": faults.too_many_requests("Fri, 31 Dec 9999 23:59:59 GMT"),
    "429 with nonsense": faults.too_many_requests("soon"),
    "503": faults.status(503, "Retry-After: 120"),
    "500": faults.status(500),
    "redirect": faults.redirect("https://keys.example/vcek"),
    "redirect to plain HTTP": faults.redirect("http://127.0.0.1/"),
    "redirect to itself": faults.redirect("/vcek/v1/Milan/cert_chain"),
    "10 GiB": faults.endless(declared=True),
    "endless": faults.endless(declared=False),
    "empty": faults.content(b""),
    "truncated": faults.truncated(DER),
    "shorter than sent": faults.wrong_length(DER, declared=1000),
    "length of nothing": faults.wrong_length(DER, declared=0),
    "cut": faults.content(DER[:-1]),
    "a byte more": faults.content(DER + b"\0"),
    "DER of something": faults.content(DER),
    "text of another type": faults.mislabelled(b'{"error": "busy"}', "application/json"),
    "compressed": faults.status(200, "Content-Encoding: gzip", body=DER),
    "hangs up": faults.raw(b""),
    "not HTTP": faults.raw(b"220 mail.example ESMTP\r\n"),
    "silent": faults.silence(),
    "slow": faults.drip(DER, pause=0.01),
    "slow from the start": faults.drip(b"HTTP/1.1 200 OK\r\n", pause=0.1, after=b""),
    "TLS that stalls": faults.instead_of_tls(faults.silence()),
    "TLS that drips": faults.instead_of_tls(
        faults.drip(b"\x16\x03\x03\x40\x00" + bytes(1000), pause=0.02, after=b"")
    ),
    "no TLS": faults.instead_of_tls(faults.raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
    "TLS that ends": faults.instead_of_tls(faults.raw(b"")),
}
#: What meets them: the VCEK, its issuers, the list. A fault instead of TLS meets whatever is first.
ASKED: Final = {"VCEK": "SPL=", "chain": "cert_chain", "list": "crl"}
MET: Final = [
    (name, asked)
    for name, fault in HOSTILE.items()
    for asked in (["chain"] if fault.early else ASKED)
]


@pytest.mark.parametrize(("name", "asked"), MET)
def test_a_hostile_key_service_is_undecided_and_leaves_nothing_behind(
    host: Host, owner: Owner, service: SimulatedKeyService, name: str, asked: str
) -> None:
    fault = HOSTILE[name]
    report = host.report()
    service.fail(fault, pattern="" if fault.early else ASKED[asked])
    begin = time.monotonic()
    assert judge(report, host, service, owner.cache, FakeTime(), attempt=0.3) == 4
    assert time.monotonic() - begin < 5
    service.heal()
    faulty = {
        "VCEK": host.vcek,
        "chain": urls.chain(ProductLine.MILAN, vlek=False),
        "list": urls.crl(ProductLine.MILAN, vlek=False),
    }[asked]
    assert owner.cache.load(faulty).entry is None
    assert judge(report, host, service, owner.cache, FakeTime()) == 0
    # What was had is enough from now on, whatever the service does.
    service.fail(fault)
    assert judge(report, host, service, owner.cache, FakeTime()) == 0


@pytest.mark.parametrize("name", ["429 until tomorrow", "HTML", "redirect", "10 GiB", "no TLS"])
def test_the_command_says_the_same(
    host: Host, owner: Owner, service: SimulatedKeyService, name: str
) -> None:
    service.fail(HOSTILE[name])
    assert owner.attest(host.report(), host, service, root=host.roots.ark) == 4


WRONG_ANSWERS: Final = (
    "another chip's VCEK",
    "the VCEK of another TCB",
    "a list for a VCEK",
    "a chain for a VCEK",
    "a CEK for a VCEK",
    "the VLEKs' chain",
    "another line's chain",
    "a chain from its end",
    "another AMD's chain",
    "a VCEK for a list",
    "another AMD's list",
)


@pytest.mark.parametrize("name", WRONG_ANSWERS)
def test_a_good_answer_to_another_question_is_undecided(
    make_host: Callable[..., Host],
    owner: Owner,
    snp_roots: Mapping[ProductLine, SimulatedRoots],
    genoa_roots: SimulatedRoots,
    name: str,
) -> None:
    host, other, genoa = make_host(), make_host(), make_host(Product.GENOA)
    report, line = host.report(), ProductLine.MILAN
    runs = host.processor.snp.current_tcb
    lower = TcbVersion(runs.bootloader, runs.tee, runs.snp - 1, runs.microcode)
    chain, crl = urls.chain(line, vlek=False), urls.crl(line, vlek=False)
    pems = [encode_pem_certificate(der) for der in (host.roots.ask, host.roots.ark)]
    stranger = SimulatedRoots(line)
    stranger.ark_key, stranger.ask_key = genoa_roots.ark_key, genoa_roots.ask_key
    strangers = [encode_pem_certificate(der) for der in (stranger.ask, stranger.ark)]
    processors = (host.processor, other.processor, genoa.processor)
    with SimulatedKeyService(processor_provider(*processors)) as service:
        answers: dict[str, tuple[str, urls.Resource | bytes]] = {
            "another chip's VCEK": ("SPL=", other.vcek),
            "the VCEK of another TCB": ("SPL=", urls.vcek(line, host.identity.hardware_id, lower)),
            "a list for a VCEK": ("SPL=", crl),
            "a chain for a VCEK": ("SPL=", chain),
            "a CEK for a VCEK": ("SPL=", urls.cek(host.identity.chip_id)),
            "the VLEKs' chain": ("cert_chain", urls.chain(line, vlek=True)),
            "another line's chain": ("cert_chain", urls.chain(ProductLine.GENOA, vlek=False)),
            "a chain from its end": ("cert_chain", b"".join(pems[::-1])),
            "another AMD's chain": ("cert_chain", b"".join(strangers)),
            "a VCEK for a list": ("crl", host.vcek),
            "another AMD's list": ("crl", stranger.make_crl()),
        }
        where, resource = answers[name]
        if isinstance(resource, bytes):
            service.fail(faults.content(resource), pattern=where)
        else:
            service.answer_with(resource, pattern=where)
        assert owner.attest(report, host, service, root=host.roots.ark) == 4
        service.heal()
        assert owner.attest(report, host, service, root=host.roots.ark) == 0


def test_the_wrong_issuers_for_a_certificate_of_the_hosts_are_undecided(
    host: Host, owner: Owner, service: SimulatedKeyService
) -> None:
    data = host.extended_report()
    service.answer_with(urls.chain(ProductLine.MILAN, vlek=True), pattern="cert_chain")
    assert owner.attest(data, host, service, root=host.roots.ark) == 4
    service.heal()
    assert owner.attest(data, host, service, root=host.roots.ark) == 0


def test_a_label_that_lies_about_a_good_certificate_does_not_matter(
    host: Host, owner: Owner, service: SimulatedKeyService
) -> None:
    vcek = processor_provider(host.processor)(host.vcek)
    assert vcek is not None
    service.fail(faults.mislabelled(vcek, "text/html"), pattern="SPL=")
    assert owner.attest(host.report(), host, service, root=host.roots.ark) == 0


@pytest.fixture
def busy(host: Host) -> Iterator[tuple[SimulatedKeyService, FakeTime]]:
    """A key service that gives one answer to each request in ten seconds, and its clock."""
    fake = FakeTime()
    with SimulatedKeyService(
        processor_provider(host.processor),
        rate_limit=RateLimit(1, 10),
        monotonic=lambda: fake.passed,
    ) as running:
        yield running, fake


def test_a_busy_key_service_is_waited_for_as_long_as_it_says(
    host: Host, owner: Owner, busy: tuple[SimulatedKeyService, FakeTime]
) -> None:
    service, fake = busy
    assert judge(host.report(), host, service, owner.cache, fake) == 0
    assert fake.slept == []
    again = CertificateCache(owner.folder / "another owner's")
    assert judge(host.report(), host, service, again, fake) == 0
    # The chain is asked for first, and while that is waited for everything else becomes free.
    assert fake.slept == [10]


def test_a_limit_on_everything_slows_every_request_down(host: Host, owner: Owner) -> None:
    fake = FakeTime()
    limit = RateLimit(1, 10, per_target=False, retry_after=False)
    with SimulatedKeyService(
        processor_provider(host.processor), rate_limit=limit, monotonic=lambda: fake.passed
    ) as service:
        assert judge(host.report(), host, service, owner.cache, fake) == 0
        assert fake.slept == [10, 10]


def test_the_command_waits_too(host: Host, owner: Owner) -> None:
    limit = RateLimit(1, 1.0)
    with SimulatedKeyService(processor_provider(host.processor), rate_limit=limit) as service:
        root = host.roots.ark
        assert owner.attest(host.report(), host, service, root=root) == 0
        owner.verdict()
        for path in owner.cache.root.iterdir():
            path.unlink()
        assert owner.attest(host.report(), host, service, root=root) == 0
        assert service.count() == 7


def test_a_limit_that_is_too_long_to_wait_for_is_undecided(host: Host, owner: Owner) -> None:
    fake = FakeTime()
    limit = RateLimit(1, 3600)
    with SimulatedKeyService(
        processor_provider(host.processor), rate_limit=limit, monotonic=lambda: fake.passed
    ) as service:
        report = host.report()
        assert judge(report, host, service, owner.cache, fake) == 0
        again = CertificateCache(owner.folder / "another owner's")
        assert judge(report, host, service, again, fake) == 4
        assert judge(report, host, service, owner.cache, fake) == 0
        assert fake.slept == []


@dataclass
class SevSite:
    """One SEV host, whose platform an owner wants to trust, and what he writes down of it."""

    processor: SecureProcessor
    kvm: SimulatedKvm
    roots: sev_chain.SimulatedRoots
    folder: Path

    def write(self, name: str, data: bytes) -> str:
        path = self.folder / name
        path.write_bytes(data)
        return str(path)

    def chain(self) -> list[str]:
        """Return the options that name the chain, as the firmware exports it."""
        pdh, chain = self.processor.sev.pdh_cert_export()
        info = {
            "pdh": base64.b64encode(pdh).decode(),
            "certChain": base64.b64encode(chain).decode(),
        }
        return ["--chain", self.write("info.json", json.dumps(info).encode())]

    @property
    def cek(self) -> list[str]:
        """The options that give the CEK as the key service signed it."""
        chip = self.processor.sev.get_id()
        with SimulatedKeyService(processor_provider(self.processor)) as service:
            data = KeyService(service.base_url, ca=service.ca).fetch(urls.cek(chip)).data
        return ["--cek", self.write("cek.cert", data)]

    @property
    def ca(self) -> list[str]:
        return ["--ca", self.write("ca.cert", self.roots.ask_ark)]

    @property
    def root(self) -> list[str]:
        return ["--root", self.write("ark.cert", self.roots.root)]

    def read(self, name: str) -> bytes:
        return base64.b64decode((self.folder / "launch" / name).read_bytes())


@pytest.fixture(params=[Product.NAPLES, Product.ROME, Product.MILAN, Product.TURIN])
def sev_site(
    request: pytest.FixtureRequest,
    sev_roots: sev_chain.SimulatedRoots,
    snp_roots: Mapping[ProductLine, SimulatedRoots],
    tmp_path: Path,
) -> SevSite:
    product: Product = request.param
    identity = ChipIdentity(product, sev_roots, snp_roots.get(product.line))
    processor = SecureProcessor(identity)
    # Turin's firmware refuses SEV-ES beside SNP.
    kvm = SimulatedKvm(processor, snp=product.line is not ProductLine.TURIN)
    return SevSite(processor, kvm, sev_roots, tmp_path)


def test_a_platform_is_accepted_only_with_its_root(sev_site: SevSite) -> None:
    attest = ["attest", "platform", *sev_site.chain()]
    cek, ca, root = sev_site.cek, sev_site.ca, sev_site.root
    assert main([*attest, *cek, *ca, *root]) == 0
    assert main([*attest, *cek, *ca]) == 1
    assert main([*attest, *cek]) == 1
    # Without AMD's signature there is nothing to judge, whoever is trusted.
    assert main([*attest, *ca, *root]) == 4


def test_the_root_of_another_amd_does_not_help(sev_site: SevSite) -> None:
    attest = ["attest", "platform", *sev_site.chain(), *sev_site.cek]
    other = make_roots()
    wrong_root = ["--root", sev_site.write("other.cert", other.root)]
    wrong_ca = ["--ca", sev_site.write("other-ca.cert", other.ask_ark)]
    assert main([*attest, *sev_site.ca, *wrong_root]) == 1
    assert main([*attest, *wrong_ca, *wrong_root]) == 1


def test_another_chips_cek_is_not_this_chips(
    sev_site: SevSite, sev_roots: sev_chain.SimulatedRoots
) -> None:
    other = ChipIdentity(Product.ROME, sev_roots).signed_cek
    attest = ["attest", "platform", *sev_site.chain(), *sev_site.ca, *sev_site.root]
    assert main([*attest, "--cek", sev_site.write("other.cert", other)]) == 1


def test_a_cek_that_the_key_service_does_not_have_is_undecided(sev_site: SevSite) -> None:
    chip = sev_site.processor.sev.get_id()
    for fault in (
        faults.not_found(),
        faults.web_page(),
        faults.content(bytes(SIZE)),
        faults.raw(b""),
    ):
        with SimulatedKeyService(processor_provider(sev_site.processor)) as service:
            service.fail(fault)
            with pytest.raises(KeyServiceError) as caught:
                KeyService(service.base_url, ca=service.ca).fetch(urls.cek(chip))
            assert caught.value.exit_code == 4


VCPUS: Final = 2
POLICIES: Final = {1: "SEV", 5: "SEV-ES"}


@pytest.mark.parametrize("policy", POLICIES, ids=POLICIES.values())
def test_a_launch_is_accepted_only_with_a_session_for_a_platform_whose_root_is_named(
    sev_site: SevSite, policy: int
) -> None:
    processor, folder = sev_site.processor, sev_site.folder
    platform = [*sev_site.chain(), *sev_site.cek, *sev_site.ca]
    new = ["session", "new", *platform, "--guest-policy", str(policy)]
    launch = folder / "launch"
    assert main([*new, "--out", str(launch)]) == 1
    assert not launch.exists()
    assert main([*new, *sev_site.root, "--out", str(launch)]) == 0
    assert json.loads((launch / "session.json").read_bytes())["simulated"]

    firmware = ["--firmware", sev_site.write("OVMF.fd", OVMF)]
    tik, tek = (["--" + key, str(launch / f"{key}.bin")] for key in ("tik", "tek"))
    machine = Machine(OVMF, VCPUS, Registers(CPU_MODELS["EPYC-Rome"], 0, era=Era.INIT))
    guest = sev_site.kvm.launch_sev(
        machine, policy, session=sev_site.read("session.b64"), godh=sev_site.read("godh.b64")
    )
    with guest:
        version = processor.core.firmware.version
        info = {
            "measurement": base64.b64encode(guest.measurement).decode(),
            "apiMajor": version.major,
            "apiMinor": version.minor,
            "buildID": version.build,
            "policy": policy,
        }
        attest = ["attest", "launch", "--info", sev_site.write("m.json", json.dumps(info).encode())]
        attest += [*tik, "--guest-policy", str(policy), *firmware]
        vcpus = ["--vcpus", str(VCPUS), "--vcpu-type", "EPYC-Rome"] if policy == 5 else []
        assert main([*attest, *vcpus]) == 0
        disk = sev_site.write("disk.key", b"correct horse")
        (folder / "disk.key").chmod(0o600)
        packet = [str(folder / name) for name in ("header", "payload")]
        pack = ["secret", "pack", *tik, *tek, "--measurement", str(info["measurement"]), *firmware]
        pack += ["--secret", f"{DISK_GUID}={disk}"]
        pack += ["--out-header", packet[0], "--out-payload", packet[1]]
        assert main(pack) == 0
        header, payload = (base64.b64decode((folder / name).read_bytes()) for name in packet)
        area = FOUR_GIB - PAGE
        guest.inject(header, payload, guest_address=area)
        ((address, table),) = processor.sev_guests[guest.handle].injected
        (entry,) = parse_secret_table(table)
        assert (address, entry.guid, entry.data.reveal()) == (area, DISK_GUID, b"correct horse")
        guest.run()


def test_a_launch_with_nobodys_session_is_not_the_owners(sev_site: SevSite) -> None:
    new = ["session", "new", *sev_site.chain(), *sev_site.cek, *sev_site.ca, *sev_site.root]
    assert main([*new, "--guest-policy", "1", "--out", str(sev_site.folder / "launch")]) == 0
    version = sev_site.processor.core.firmware.version
    with sev_site.kvm.launch_sev(Machine(OVMF), 1) as guest:
        words = ["--measurement", base64.b64encode(guest.measurement).decode()]
    words += ["--api-major", str(version.major), "--api-minor", str(version.minor)]
    words += ["--build-id", str(version.build), "--guest-policy", "1"]
    words += ["--firmware", sev_site.write("OVMF.fd", OVMF)]
    words += ["--tik", str(sev_site.folder / "launch" / "tik.bin"), "--no-explain"]
    assert main(["attest", "launch", *words]) == 1
