from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from sevkit.abi.product import Product, ProductLine
from sevkit.abi.report import parse_report
from sevkit.abi.signature import EcdsaSignature, encode_signature
from sevkit.abi.tcb import encode_tcb
from sevkit.abi.vek import VekKind
from sevkit.attest.chain import TrustedRoots, VerifiedVek, verify_chain, verify_vek
from sevkit.attest.checks import SNP_REPORT
from sevkit.attest.verdict import Ledger, Outcome
from sevkit.attest.verify import verify_report
from sevkit.attest.x509 import parse_certificate
from sevkit.errors import ChainBroken, FormatError, SignatureMismatch, VerificationError
from sevkit.testing.snp_report import SimulatedChip

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.testing.snp_chain import SimulatedRoots

ORDER = 2**384 - 1388124618062372383947042015309946732620727252194336364173


def vek_of(chip: SimulatedChip, now: datetime) -> VerifiedVek:
    roots = chip.roots
    ark = parse_certificate(roots.ark)
    intermediate = roots.ask if chip.kind is VekKind.VCEK else roots.asvk
    trusted = TrustedRoots(frozenset(), frozenset({hashlib.sha256(roots.ark).digest()}))
    ledger = Ledger(SNP_REPORT)
    chain = verify_chain(parse_certificate(intermediate), ark, at=now, roots=trusted, ledger=ledger)
    return verify_vek(chain, parse_certificate(chip.vek()), ledger=ledger)


@pytest.fixture(scope="module")
def vek(chip: SimulatedChip) -> VerifiedVek:
    return vek_of(chip, datetime(2026, 6, 1, tzinfo=UTC))


def refused(check: str, kind: type[VerificationError], report: bytes, vek: VerifiedVek) -> None:
    ledger = Ledger(SNP_REPORT)
    with pytest.raises(kind) as caught:
        verify_report(report, vek, ledger=ledger)
    assert caught.value.check == check
    assert caught.value.exit_code == 1
    failed = [found.check for found in ledger.findings if found.outcome is Outcome.FAIL]
    assert failed == [check]


@pytest.mark.parametrize("version", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", list(VekKind))
@pytest.mark.parametrize("product", [p for p in Product if p.line.snp])
def test_every_version_of_every_product_verifies(
    roots_of: Callable[[ProductLine], SimulatedRoots],
    product: Product,
    kind: VekKind,
    version: int,
    now: datetime,
) -> None:
    chip = SimulatedChip(roots_of(product.line), product, kind)
    ledger = Ledger(SNP_REPORT)
    verified = verify_report(chip.report(version), vek_of(chip, now), ledger=ledger)
    assert verified.reported_tcb == chip.tcb
    assert {f.outcome for f in ledger.findings} <= {Outcome.PASS, Outcome.SKIP}


def test_a_high_s_is_accepted_because_amd_does_not_normalise_it(
    chip: SimulatedChip, vek: VerifiedVek
) -> None:
    data = chip.report()
    signature = parse_report(data).signature
    twin = EcdsaSignature(signature.r, ORDER - signature.s)
    for form in (signature, twin):
        body = data[:0x2A0] + encode_signature(form)
        verify_report(body, vek, ledger=Ledger(SNP_REPORT))


def test_another_chips_report_is_refused(milan: SimulatedRoots, vek: VerifiedVek) -> None:
    other = SimulatedChip(milan, Product.MILAN)
    refused("report.signature", SignatureMismatch, other.report(), vek)


def test_a_changed_report_is_refused(chip: SimulatedChip, vek: VerifiedVek) -> None:
    data = bytearray(chip.report())
    data[0x90] ^= 1
    refused("report.signature", SignatureMismatch, bytes(data), vek)


def test_a_report_that_names_a_vlek_is_refused_under_a_vcek(
    chip: SimulatedChip, vek: VerifiedVek
) -> None:
    refused("report.signing-key", ChainBroken, chip.report(key_info=4), vek)


def test_a_report_that_names_a_vcek_is_refused_under_a_vlek(
    milan: SimulatedRoots, now: datetime
) -> None:
    chip = SimulatedChip(milan, Product.MILAN, VekKind.VLEK)
    refused("report.signing-key", ChainBroken, chip.report(key_info=0), vek_of(chip, now))


def test_a_report_of_another_product_is_refused(chip: SimulatedChip, vek: VerifiedVek) -> None:
    report = chip.report(cpuid_family=0x19, cpuid_model=0x11)
    refused("report.product", ChainBroken, report, vek)


def test_a_reported_tcb_that_is_not_the_veks_is_refused(
    chip: SimulatedChip, vek: VerifiedVek
) -> None:
    lower = replace(chip.tcb, microcode=chip.tcb.microcode - 1)
    report = chip.report(reported_tcb=encode_tcb(ProductLine.MILAN, lower))
    refused("tcb.vek", VerificationError, report, vek)


def test_a_chip_id_that_is_not_the_hardware_id_is_refused(
    chip: SimulatedChip, vek: VerifiedVek
) -> None:
    refused("chip.id", VerificationError, chip.report(chip_id=b"\x07" * 64), vek)


def test_a_masked_chip_id_is_skipped_by_name(chip: SimulatedChip, vek: VerifiedVek) -> None:
    ledger = Ledger(SNP_REPORT)
    verify_report(chip.report(chip_id=bytes(64)), vek, ledger=ledger)
    (found,) = (f for f in ledger.findings if f.check == "chip.id")
    assert found.outcome is Outcome.SKIP
    assert "mask" in found.detail


@pytest.mark.parametrize("offset", [0x03A, 0x182, 0x1E2, 0x1F2])
def test_reserved_bytes_of_a_tcb_are_refused_even_if_signed(
    chip: SimulatedChip, vek: VerifiedVek, offset: int
) -> None:
    with pytest.raises(FormatError) as caught:
        verify_report(chip.report(patches={offset: b"\1"}), vek, ledger=Ledger(SNP_REPORT))
    assert caught.value.offset == offset


def test_turin_chip_ids_have_eight_bytes_and_zeros(
    roots_of: Callable[[ProductLine], SimulatedRoots], now: datetime
) -> None:
    chip = SimulatedChip(roots_of(ProductLine.TURIN), Product.TURIN)
    padded = chip.hardware_id.ljust(63, b"\0") + b"\1"
    refused("chip.id", VerificationError, chip.report(5, chip_id=padded), vek_of(chip, now))
