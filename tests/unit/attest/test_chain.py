from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sevkit.abi.product import Product, ProductLine
from sevkit.abi.vek import ARC, FMC_SPL, HWID, PRODUCT_NAME, SPLS, VekKind
from sevkit.attest.chain import (
    TrustedRoots,
    VerifiedVek,
    identify_chain,
    verify_chain,
    verify_vek,
)
from sevkit.attest.checks import SNP_REPORT
from sevkit.attest.snp import pinned_roots
from sevkit.attest.verdict import Ledger, Outcome
from sevkit.attest.x509 import parse_certificate
from sevkit.errors import CertificateExpired, ChainBroken, SignatureMismatch, VerificationError
from sevkit.kds.roots import snp_chain
from sevkit.testing.snp_chain import EPOCH, GOOD, YEAR, SigningSpec, SimulatedRoots
from sevkit.testing.snp_report import SimulatedChip

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

LEAF = SigningSpec(ca=None)
LINES = [Product.MILAN, Product.GENOA, Product.BERGAMO_OR_SIENA, Product.TURIN]


def trust(ark: bytes) -> TrustedRoots:
    return TrustedRoots(frozenset(), frozenset({hashlib.sha256(ark).digest()}))


def verify(
    vek: bytes,
    intermediate: bytes,
    ark: bytes,
    now: datetime,
    ledger: Ledger,
    roots: TrustedRoots | None = None,
) -> VerifiedVek:
    chain = verify_chain(
        parse_certificate(intermediate),
        parse_certificate(ark),
        at=now,
        roots=roots or trust(ark),
        ledger=ledger,
    )
    return verify_vek(chain, parse_certificate(vek), ledger=ledger)


def refused(check: str, kind: type[VerificationError], *args: bytes, now: datetime) -> Ledger:
    """Verify (vek, intermediate, ark) and see it refused by exactly this check."""
    ledger = Ledger(SNP_REPORT)
    with pytest.raises(kind) as caught:
        verify(args[0], args[1], args[2], now, ledger)
    assert caught.value.check == check
    failed = [found.check for found in ledger.findings if found.outcome is Outcome.FAIL]
    assert failed == [check]
    return ledger


@pytest.mark.parametrize("product", LINES)
@pytest.mark.parametrize("kind", list(VekKind))
def test_a_good_chain_of_every_line_verifies(
    roots_of: Callable[[ProductLine], SimulatedRoots],
    product: Product,
    kind: VekKind,
    now: datetime,
) -> None:
    roots = roots_of(product.line)
    chip = SimulatedChip(roots, product, kind)
    intermediate = roots.ask if kind is VekKind.VCEK else roots.asvk
    ledger = Ledger(SNP_REPORT)
    vek = verify(chip.vek(), intermediate, roots.ark, now, ledger)
    assert vek.chain.line is product.line
    assert vek.chain.kind is kind
    assert vek.extensions.tcb == chip.tcb
    assert all(found.outcome is Outcome.PASS for found in ledger.findings)


@pytest.mark.parametrize("line", [ProductLine.MILAN, ProductLine.GENOA, ProductLine.TURIN])
@pytest.mark.parametrize("vlek", [False, True])
def test_amds_own_chains_verify_under_the_pins(
    line: ProductLine, vlek: bool, now: datetime
) -> None:
    intermediate, ark = (parse_certificate(der) for der in snp_chain(line, vlek=vlek))
    ledger = Ledger(SNP_REPORT)
    chain = verify_chain(intermediate, ark, at=now, roots=pinned_roots(), ledger=ledger)
    assert chain.line is line
    assert chain.root_origin == "AMD's pinned root"


def test_a_self_made_ark_with_amds_names_is_refused(
    milan: SimulatedRoots, chip: SimulatedChip, now: datetime
) -> None:
    ledger = Ledger(SNP_REPORT)
    with pytest.raises(ChainBroken) as caught:
        verify(chip.vek(), milan.ask, milan.ark, now, ledger, roots=pinned_roots())
    assert caught.value.check == "chain.root"


def test_an_ark_that_did_not_sign_itself_is_refused(
    milan: SimulatedRoots, chip: SimulatedChip, now: datetime
) -> None:
    flipped = bytearray(milan.ark)
    flipped[-1] ^= 1
    refused("chain.ark", SignatureMismatch, chip.vek(), milan.ask, bytes(flipped), now=now)


def test_an_ask_that_the_ark_did_not_sign_is_refused(
    milan: SimulatedRoots, chip: SimulatedChip, now: datetime
) -> None:
    flipped = bytearray(milan.ask)
    flipped[-1] ^= 1
    refused("chain.ask", SignatureMismatch, chip.vek(), bytes(flipped), milan.ark, now=now)


def test_a_vek_that_the_ask_did_not_sign_is_refused(
    milan: SimulatedRoots, chip: SimulatedChip, now: datetime
) -> None:
    flipped = bytearray(chip.vek())
    flipped[-1] ^= 1
    refused("chain.vek", SignatureMismatch, bytes(flipped), milan.ask, milan.ark, now=now)


def test_a_vek_signed_by_the_ark_directly_is_refused(
    milan: SimulatedRoots, chip: SimulatedChip, now: datetime
) -> None:
    key = chip.key.public_key()
    vek = milan.make_vek(VekKind.VCEK, key, chip.extensions(), signer=milan.ark_key)
    refused("chain.vek", SignatureMismatch, vek, milan.ask, milan.ark, now=now)
    named = milan.make_vek(
        VekKind.VCEK, key, chip.extensions(), signer=milan.ark_key, issuer_cn="ARK-Milan"
    )
    refused("chain.names", ChainBroken, named, milan.ask, milan.ark, now=now)


def test_a_vcek_under_the_asvk_is_refused(
    milan: SimulatedRoots, chip: SimulatedChip, now: datetime
) -> None:
    refused("chain.names", ChainBroken, chip.vek(), milan.asvk, milan.ark, now=now)


def test_a_vlek_under_the_ask_is_refused(milan: SimulatedRoots, now: datetime) -> None:
    vlek = SimulatedChip(milan, Product.MILAN, VekKind.VLEK).vek()
    refused("chain.names", ChainBroken, vlek, milan.ask, milan.ark, now=now)


def test_a_vek_under_another_lines_chain_is_refused(
    roots_of: Callable[[ProductLine], SimulatedRoots], chip: SimulatedChip, now: datetime
) -> None:
    genoa = roots_of(ProductLine.GENOA)
    refused("chain.names", ChainBroken, chip.vek(), genoa.ask, genoa.ark, now=now)


def test_a_vek_of_another_product_under_this_line_is_refused(
    milan: SimulatedRoots, chip: SimulatedChip, now: datetime
) -> None:
    extensions = chip.extensions() | {PRODUCT_NAME: b"\x16\x05Genoa"}
    vek = milan.make_vek(VekKind.VCEK, chip.key.public_key(), extensions)
    refused("vek.product", ChainBroken, vek, milan.ask, milan.ark, now=now)


def test_ask_and_ark_in_reverse_order_are_refused(
    milan: SimulatedRoots, chip: SimulatedChip, now: datetime
) -> None:
    ledger = Ledger(SNP_REPORT)
    with pytest.raises(ChainBroken) as caught:
        verify(chip.vek(), milan.ark, milan.ask, now, ledger, roots=trust(milan.ark))
    assert caught.value.check == "chain.root"


@pytest.mark.parametrize("ca", [False, None])
def test_an_ask_that_is_no_ca_is_refused(
    milan: SimulatedRoots, chip: SimulatedChip, now: datetime, ca: bool | None
) -> None:
    ask = milan.make_intermediate(VekKind.VCEK, replace(GOOD, ca=ca))
    refused("chain.constraints", ChainBroken, chip.vek(), ask, milan.ark, now=now)


def test_a_vek_that_says_ca_is_refused(
    milan: SimulatedRoots, chip: SimulatedChip, now: datetime
) -> None:
    vek = milan.make_vek(
        VekKind.VCEK, chip.key.public_key(), chip.extensions(), spec=replace(LEAF, ca=True)
    )
    refused("chain.constraints", ChainBroken, vek, milan.ask, milan.ark, now=now)


PAST = SigningSpec(not_before=EPOCH - 2 * YEAR, not_after=EPOCH - YEAR)
FUTURE = SigningSpec(not_before=EPOCH + 10 * YEAR, not_after=EPOCH + 11 * YEAR)


@pytest.mark.parametrize(
    ("check", "spec"),
    [("chain.not-after", PAST), ("chain.not-before", FUTURE)],
    ids=["expired", "not yet valid"],
)
@pytest.mark.parametrize("who", ["vek", "ask", "ark"])
def test_a_certificate_out_of_date_is_refused(
    milan: SimulatedRoots,
    chip: SimulatedChip,
    now: datetime,
    check: str,
    spec: SigningSpec,
    who: str,
) -> None:
    leaf = replace(spec, ca=None)
    key = chip.key.public_key()
    vek = (
        milan.make_vek(VekKind.VCEK, key, chip.extensions(), spec=leaf)
        if who == "vek"
        else chip.vek()
    )
    ask = milan.make_intermediate(VekKind.VCEK, spec) if who == "ask" else milan.ask
    ark = milan.make_ark(spec) if who == "ark" else milan.ark
    refused(check, CertificateExpired, vek, ask, ark, now=now)


def test_the_last_second_is_valid_and_the_next_is_not(
    milan: SimulatedRoots, chip: SimulatedChip
) -> None:
    end = parse_certificate(chip.vek()).not_after
    verify(chip.vek(), milan.ask, milan.ark, end, Ledger(SNP_REPORT))
    refused(
        "chain.not-after",
        CertificateExpired,
        chip.vek(),
        milan.ask,
        milan.ark,
        now=end + dt.timedelta(seconds=1),
    )


def test_an_unknown_amd_extension_is_refused(
    milan: SimulatedRoots, chip: SimulatedChip, now: datetime
) -> None:
    extensions = chip.extensions() | {ARC + "77": b"\x02\x01\x00"}
    vek = milan.make_vek(VekKind.VCEK, chip.key.public_key(), extensions)
    refused("vek.known", ChainBroken, vek, milan.ask, milan.ark, now=now)


def test_turins_extension_in_a_milan_vek_is_refused(
    milan: SimulatedRoots, chip: SimulatedChip, now: datetime
) -> None:
    extensions = chip.extensions() | {FMC_SPL: b"\x02\x01\x00"}
    vek = milan.make_vek(VekKind.VCEK, chip.key.public_key(), extensions)
    refused("vek.known", ChainBroken, vek, milan.ask, milan.ark, now=now)


def test_an_unknown_critical_extension_is_refused(
    milan: SimulatedRoots, chip: SimulatedChip, now: datetime
) -> None:
    oid = "1.2.3.4.5"
    vek = milan.make_vek(
        VekKind.VCEK,
        chip.key.public_key(),
        chip.extensions() | {oid: b"\x05\x00"},
        spec=replace(LEAF, critical=frozenset({oid})),
    )
    refused("vek.known", ChainBroken, vek, milan.ask, milan.ark, now=now)


def test_an_extension_that_occurs_twice_is_refused(
    milan: SimulatedRoots, chip: SimulatedChip, now: datetime
) -> None:
    doubled = milan.make_vek(
        VekKind.VCEK,
        chip.key.public_key(),
        chip.extensions(),
        duplicate=SPLS["microcode"],
    )
    refused("vek.unique", ChainBroken, doubled, milan.ask, milan.ark, now=now)


@pytest.mark.parametrize(
    ("defect", "oid", "value"),
    [
        ("missing microcode", SPLS["microcode"], None),
        ("missing hardware ID", HWID, None),
        ("level 256", SPLS["snp"], "02020100"),
        ("level minus one", SPLS["snp"], "0201ff"),
        ("level not minimal", SPLS["snp"], "02020001"),
        ("hardware ID of 8 bytes", HWID, "0102030405060708"),
    ],
)
def test_a_defect_of_amds_extensions_is_refused(
    milan: SimulatedRoots,
    chip: SimulatedChip,
    now: datetime,
    defect: str,
    oid: str,
    value: str | None,
) -> None:
    extensions = chip.extensions()
    del extensions[oid]
    if value is not None:
        extensions[oid] = bytes.fromhex(value)
    vek = milan.make_vek(VekKind.VCEK, chip.key.public_key(), extensions)
    ledger = refused("vek.extensions", ChainBroken, vek, milan.ask, milan.ark, now=now)
    assert ledger.findings[-1].detail, defect


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()).public_key(),
        rsa.generate_private_key(65537, 2048).public_key(),
    ],
    ids=["P-256", "RSA"],
)
def test_a_vek_of_another_kind_of_key_is_refused(
    milan: SimulatedRoots,
    chip: SimulatedChip,
    now: datetime,
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
) -> None:
    vek = milan.make_vek(VekKind.VCEK, key, chip.extensions())
    refused("chain.algorithms", ChainBroken, vek, milan.ask, milan.ark, now=now)


def test_a_signature_with_sha256_is_refused(
    milan: SimulatedRoots, chip: SimulatedChip, now: datetime
) -> None:
    spec = replace(LEAF, hash_algorithm=hashes.SHA256())
    vek = milan.make_vek(VekKind.VCEK, chip.key.public_key(), chip.extensions(), spec=spec)
    refused("chain.algorithms", ChainBroken, vek, milan.ask, milan.ark, now=now)


def test_a_signature_with_another_salt_is_refused(
    milan: SimulatedRoots, chip: SimulatedChip, now: datetime
) -> None:
    spec = replace(LEAF, salt=32)
    vek = milan.make_vek(VekKind.VCEK, chip.key.public_key(), chip.extensions(), spec=spec)
    refused("chain.vek", SignatureMismatch, vek, milan.ask, milan.ark, now=now)


def test_an_ark_with_a_small_key_is_refused(chip: SimulatedChip, now: datetime) -> None:
    small = SimulatedRoots(ProductLine.MILAN)
    small.__dict__["ark_key"] = rsa.generate_private_key(65537, 2048)
    small.__dict__["ask_key"] = chip.roots.ask_key
    refused("chain.algorithms", ChainBroken, chip.vek(), small.ask, small.ark, now=now)


def test_a_vek_names_its_line_and_kind(milan: SimulatedRoots, chip: SimulatedChip) -> None:
    assert identify_chain(parse_certificate(chip.vek())) == (VekKind.VCEK, ProductLine.MILAN)
    assert identify_chain(parse_certificate(milan.ask)) is None
