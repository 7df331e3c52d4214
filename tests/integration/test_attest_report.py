"""``sevkit attest report`` against simulated chips and a simulated key service, over real HTTPS."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from sevkit.abi.certtable import ASK, VCEK, encode_cert_table
from sevkit.abi.certtable import VLEK as VLEK_GUID
from sevkit.abi.product import Product, ProductLine
from sevkit.abi.vek import VekKind
from sevkit.attest.x509 import parse_certificate
from sevkit.cli.main import main
from sevkit.kds import urls
from sevkit.kds.cache import CertificateCache
from sevkit.kds.encoding import encode_pem_certificate
from sevkit.testing import key_service_faults as faults
from sevkit.testing.key_service import SimulatedKeyService, chip_provider
from sevkit.testing.snp_chain import EPOCH, YEAR, SimulatedRoots
from sevkit.testing.snp_report import SimulatedChip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AT = "2026-06-01T00:00:00Z"
EXPECTED = (
    *("--report-data", bytes(range(64)).hex()),
    *("--measurement", bytes(range(100, 148)).hex()),
)


class Site(NamedTuple):
    """One owner's machine: a chip somewhere, a key service, and files."""

    chip: SimulatedChip
    service: SimulatedKeyService
    folder: Path
    genoa: SimulatedRoots

    def write(self, name: str, data: bytes) -> str:
        path = self.folder / name
        path.write_bytes(data)
        return str(path)

    def attest(self, report: bytes, *options: str, online: bool = True) -> int:
        where = (
            *("--kds-url", self.service.base_url),
            *("--kds-ca", self.write("ca.pem", self.service.ca)),
        )
        return main(
            [
                *("attest", "report", self.write("report.bin", report)),
                *("--root", self.write("ark.der", self.chip.roots.ark), "--at", AT),
                *("--cache", str(self.folder / "cache")),
                *(where if online else ("--offline",)),
                *options,
            ]
        )

    def chain(self, kind: VekKind = VekKind.VCEK) -> str:
        roots = self.chip.roots
        intermediate = roots.ask if kind is VekKind.VCEK else roots.asvk
        pem = encode_pem_certificate(intermediate) + encode_pem_certificate(roots.ark)
        return self.write("chain.pem", pem)

    def cache_path(self) -> Path:
        chip = self.chip
        resource = urls.vcek(chip.line, chip.hardware_id, chip.tcb)
        return CertificateCache(self.folder / "cache").path(resource)


@pytest.fixture
def site(milan_chip: SimulatedChip, genoa_roots: SimulatedRoots, tmp_path: Path) -> Iterator[Site]:
    with SimulatedKeyService(chip_provider(milan_chip)) as service:
        yield Site(milan_chip, service, tmp_path, genoa_roots)


def outcome(capsys: pytest.CaptureFixture[str], check: str) -> dict[str, Any]:
    verdict = json.loads(capsys.readouterr().out)
    found: dict[str, Any] = next(row for row in verdict["findings"] if row["check"] == check)
    return found


def test_everything_is_fetched_once_and_then_cached(site: Site) -> None:
    report = site.chip.report(3)
    assert site.attest(report, *EXPECTED, "--require-crl") == 0
    assert (site.service.count("blSPL"), site.service.count("crl")) == (1, 1)
    before = site.service.count()
    assert site.attest(report, *EXPECTED, "--require-crl") == 0
    assert site.service.count() == before
    assert (
        site.attest(report, *EXPECTED, "--require-crl", "--chain", site.chain(), online=False) == 0
    )


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_every_version_is_judged_without_a_vek_at_hand(site: Site, version: int) -> None:
    assert site.attest(site.chip.report(version), *EXPECTED) == 0


def test_a_simulated_root_is_trusted_only_when_it_is_named(site: Site) -> None:
    report = site.write("r.bin", site.chip.report(3))
    vek = site.write("vek.der", site.chip.vek())
    code = main(
        ["attest", "report", report, "--vek", vek, "--chain", site.chain(), "--offline", *EXPECTED]
    )
    assert code == 1


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("404", faults.not_found()),
        ("HTML", faults.web_page()),
        ("a redirect", faults.redirect("https://example.invalid/")),
        ("status 500", faults.status(500)),
        ("an empty body", faults.content(b"")),
        ("a truncated body", faults.truncated(b"\x30\x82\x05\x4c" + bytes(500))),
        ("10 GiB", faults.endless(declared=True)),
        ("an endless body", faults.endless(declared=False)),
        ("another DER", faults.content(b"\x30\x03\x02\x01\x05")),
    ],
)
def test_a_key_service_that_fails_is_undecided_and_the_cache_unharmed(
    site: Site, name: str, fault: faults.Fault
) -> None:
    site.service.fail(fault, pattern="/vcek/v1/Milan/[0-9a-f]{16}")
    assert site.attest(site.chip.report(3), *EXPECTED) == 4, name
    assert not site.cache_path().exists()
    site.service.heal()
    assert site.attest(site.chip.report(3), *EXPECTED) == 0


def test_a_vcek_of_another_chip_from_the_key_service_is_undecided(site: Site) -> None:
    other = SimulatedChip(site.chip.roots, Product.MILAN, hwid=b"\x07" * 64)
    site.service.fail(faults.content(other.vek()), pattern="/vcek/v1/Milan/[0-9a-f]{16}")
    assert site.attest(site.chip.report(3), *EXPECTED) == 4
    assert not site.cache_path().exists()


def test_a_revocation_list_that_cannot_be_had_is_named(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.service.fail(faults.not_found(), pattern="crl")
    assert site.attest(site.chip.report(3), *EXPECTED, "--output", "json") == 0
    assert outcome(capsys, "chain.revocation")["outcome"] == "skip"
    assert site.attest(site.chip.report(3), *EXPECTED, "--require-crl") == 4


@pytest.mark.parametrize("defect", ["forged", "stale", "HTML"])
def test_a_fetched_list_that_is_no_good_is_not_had(site: Site, defect: str) -> None:
    roots = site.chip.roots
    body = {
        "forged": roots.make_crl(signer=roots.ask_key),
        "stale": roots.make_crl(next_update=EPOCH + YEAR),
        "HTML": b"<html>",
    }[defect]
    site.service.fail(faults.content(body), pattern="crl")
    assert site.attest(site.chip.report(3), *EXPECTED, "--require-crl") == 4
    assert site.attest(site.chip.report(3), *EXPECTED) == 0


@pytest.mark.parametrize(
    ("check", "defect"),
    [
        ("chain.revocation", "revoked"),
        ("crl.signature", "forged"),
        ("crl.dates", "stale"),
        ("crl.dates", "from the future"),
    ],
)
def test_a_given_list_is_enforced_and_must_be_sound(
    site: Site, capsys: pytest.CaptureFixture[str], check: str, defect: str
) -> None:
    roots = site.chip.roots
    crl = {
        "revoked": roots.make_crl([parse_certificate(roots.ask).serial]),
        "forged": roots.make_crl(signer=roots.ask_key),
        "stale": roots.make_crl(next_update=EPOCH + YEAR),
        "from the future": roots.make_crl(this_update=EPOCH + 10 * YEAR),
    }[defect]
    options = ("--crl", site.write("crl.der", crl), "--output", "json")
    assert site.attest(site.chip.report(3), *EXPECTED, *options) == 1
    assert outcome(capsys, check)["outcome"] == "fail"


def test_a_fetched_list_that_revokes_the_ask_is_a_no(site: Site) -> None:
    roots = site.chip.roots
    crl = roots.make_crl([parse_certificate(roots.ask).serial])
    site.service.fail(faults.content(crl), pattern="crl")
    assert site.attest(site.chip.report(3), *EXPECTED) == 1


def test_a_poisoned_cache_entry_is_replaced(site: Site) -> None:
    report = site.chip.report(3)
    assert site.attest(report, *EXPECTED) == 0
    path = site.cache_path()
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes((good[-1] ^ 1,)))
    assert site.attest(report, *EXPECTED) == 0
    assert path.read_bytes()[-100:] == good[-100:]


def test_an_entry_poisoned_with_its_hash_is_dropped_by_the_verifier(site: Site) -> None:
    report = site.chip.report(3)
    chip = site.chip
    resource = urls.vcek(chip.line, chip.hardware_id, chip.tcb)
    evil = SimulatedChip(SimulatedRoots(ProductLine.MILAN), Product.MILAN).vek()
    cache = CertificateCache(site.folder / "cache")
    cache.store(resource, evil, url=resource.url(site.service.base_url), fetched_at=EPOCH)
    assert site.attest(report, *EXPECTED) == 0
    entry = cache.load(resource).entry
    assert entry is not None
    assert entry.data == chip.vek()
    cache.store(resource, evil, url=resource.url(site.service.base_url), fetched_at=EPOCH)
    options = (*EXPECTED, "--chain", site.chain())
    assert site.attest(report, *options, online=False) == 4
    assert cache.load(resource).entry is None


def test_a_forged_report_does_not_cost_the_cache_its_good_vcek(site: Site) -> None:
    assert site.attest(site.chip.report(3), *EXPECTED) == 0
    forged = bytearray(site.chip.report(3))
    forged[0x90] ^= 1
    requests = site.service.count("/vcek/v1/Milan/[0-9a-f]{16}")
    assert site.attest(bytes(forged), *EXPECTED) == 1
    assert site.service.count("/vcek/v1/Milan/[0-9a-f]{16}") == requests
    assert site.cache_path().exists()


def test_the_hosts_certificate_table_is_used_and_verified(site: Site) -> None:
    table = encode_cert_table({VCEK: site.chip.vek(), ASK: b"ignored"})
    assert site.attest(site.chip.report(3) + table, *EXPECTED) == 0
    assert site.service.count("/vcek/v1/Milan/[0-9a-f]{16}") == 0
    evil = SimulatedChip(SimulatedRoots(ProductLine.MILAN), Product.MILAN).vek()
    assert site.attest(site.chip.report(3) + encode_cert_table({VCEK: evil}), *EXPECTED) == 1
    assert site.attest(site.chip.report(3) + encode_cert_table({VCEK: b"junk"}), *EXPECTED) == 65


def test_a_vlek_must_be_brought_along(site: Site) -> None:
    chip = SimulatedChip(site.chip.roots, Product.MILAN, VekKind.VLEK)
    report = chip.report(3)
    assert site.attest(report, *EXPECTED) == 4
    table = encode_cert_table({VLEK_GUID: chip.vek()})
    assert site.attest(report + table, *EXPECTED) == 0
    chain = ("--chain", site.chain(VekKind.VLEK), "--vek", site.write("vlek.der", chip.vek()))
    assert site.attest(report, *EXPECTED, *chain, online=False) == 0
    swapped = ("--chain", site.chain(VekKind.VCEK), "--vek", site.write("vlek.der", chip.vek()))
    assert site.attest(report, *EXPECTED, *swapped, online=False) == 1


def test_a_masked_chip_cannot_be_looked_up_but_its_vcek_may_be_given(site: Site) -> None:
    report = site.chip.report(3, chip_id=bytes(64))
    assert site.attest(report, *EXPECTED) == 4
    vek = ("--vek", site.write("vek.der", site.chip.vek()))
    assert site.attest(report, *EXPECTED, *vek) == 0


@pytest.mark.parametrize(
    ("shape", "code"),
    [
        ("PEM", 0),
        ("PEM with CRLF", 0),
        ("two certificates", 65),
        ("PEM with junk", 65),
        ("PEM cut", 65),
        ("empty", 65),
        ("DER with a byte more", 65),
        ("DER cut", 65),
        ("the ASK", 1),
    ],
)
def test_a_vek_file_is_one_certificate(site: Site, shape: str, code: int) -> None:
    der = site.chip.vek()
    pem = encode_pem_certificate(der)
    data = {
        "PEM": pem,
        "PEM with CRLF": pem.replace(b"\n", b"\r\n"),
        "two certificates": pem + pem,
        "PEM with junk": b"junk\n" + pem,
        "PEM cut": pem[:-20],
        "empty": b"",
        "DER with a byte more": der + b"\0",
        "DER cut": der[:-1],
        "the ASK": site.chip.roots.ask,
    }[shape]
    assert site.attest(site.chip.report(3), *EXPECTED, "--vek", site.write("vek", data)) == code


@pytest.mark.parametrize(
    ("defect", "code"),
    [("reversed", 1), ("only the ASK", 65), ("three", 65), ("another line's", 1), ("empty", 65)],
)
def test_a_chain_file_is_ask_and_then_ark(site: Site, defect: str, code: int) -> None:
    roots, genoa = site.chip.roots, site.genoa
    ask, ark = encode_pem_certificate(roots.ask), encode_pem_certificate(roots.ark)
    data = {
        "reversed": ark + ask,
        "only the ASK": ask,
        "three": ask + ark + ark,
        "another line's": encode_pem_certificate(genoa.ask) + encode_pem_certificate(genoa.ark),
        "empty": b"",
    }[defect]
    options = (
        *("--chain", site.write("chain.pem", data)),
        *("--vek", site.write("vek.der", site.chip.vek())),
        *("--root", site.write("genoa.der", genoa.ark)),
    )
    assert site.attest(site.chip.report(3), *EXPECTED, *options, online=False) == code


def test_the_page_says_everything_and_escapes_it(site: Site) -> None:
    evil = "CN=<script>alert(1)</script>"
    chip = SimulatedChip(site.chip.roots, Product.MILAN, VekKind.VLEK, csp_id=evil)
    report = chip.report(3) + encode_cert_table({VLEK_GUID: chip.vek()})
    page = site.folder / "verdict.html"
    assert site.attest(report, *EXPECTED, "--html", str(page)) == 0
    text = page.read_text()
    assert "<script" not in text
    assert not re.search(r"(src|href|url)\s*[=(]", text)
    assert "report.signature" in text
    assert site.attest(report, *EXPECTED, "--html", str(page)) == 2
    assert page.read_text() == text


def test_an_expectations_file_stands_for_the_options(site: Site) -> None:
    text = f'report-data: "{EXPECTED[1]}"\nmeasurement: "{EXPECTED[3]}"\n'
    path = site.write("expect.yaml", text.encode())
    assert site.attest(site.chip.report(3), "--expectations", path) == 0
    assert site.attest(site.chip.report(3, vmpl=1), "--expectations", path) == 3
    assert site.attest(site.chip.report(3), "--expectations", path, *EXPECTED) == 2
    wrong = site.write("wrong.yaml", (text + "unknown: 1\n").encode())
    assert site.attest(site.chip.report(3), "--expectations", wrong) == 65


def test_a_reference_set_names_what_matched(
    site: Site, capsys: pytest.CaptureFixture[str], vectors: Path
) -> None:
    firmware = str(vectors / "sev-crate/ovmf_AmdSev_suffix.bin")
    measure = ["measure", "--mode", "snp", "--firmware", firmware, "--vcpus", "1-4"]
    assert main([*measure, "--vcpu-type", "EPYC-v4", "--output", "json"]) == 0
    path = site.write("reference.json", capsys.readouterr().out.encode())
    assert main([*measure[:-1], "3", "--vcpu-type", "EPYC-v4"]) == 0
    digest = bytes.fromhex(capsys.readouterr().out.strip())
    report = site.chip.report(3, measurement=digest)
    options = ("--report-data", EXPECTED[1], "--reference", path, "--output", "json")
    assert site.attest(report, *options) == 0
    found = outcome(capsys, "report.measurement")
    assert (found["outcome"], "3" in found["detail"]) == ("pass", True)
    assert site.attest(site.chip.report(3), *options) == 3


def test_a_report_on_standard_input_can_be_only_one_file(site: Site) -> None:
    assert site.attest(site.chip.report(3), *EXPECTED, "--vek", "-", "--chain", "-") == 2


def test_missing_and_unreadable_files_are_told_apart(site: Site) -> None:
    missing = str(site.folder / "none")
    assert main(["attest", "report", missing, *EXPECTED, "--offline"]) == 2
    assert main(["attest", "report", str(site.folder), *EXPECTED, "--offline"]) == 2


def test_times_are_given_with_their_zone(site: Site) -> None:
    report = site.chip.report(3)
    assert site.attest(report, *EXPECTED, "--at", "2026-06-01T02:00:00+02:00") == 0
