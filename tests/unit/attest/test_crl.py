from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sevkit.attest.chain import TrustedRoots, VerifiedChain, verify_chain
from sevkit.attest.checks import SNP_REPORT
from sevkit.attest.crl import parse_crl, verify_not_revoked
from sevkit.attest.verdict import Ledger, Outcome
from sevkit.attest.x509 import parse_certificate
from sevkit.errors import (
    CertificateExpired,
    CertificateRevoked,
    FormatError,
    SignatureMismatch,
    VerificationError,
)
from sevkit.testing.snp_chain import EPOCH, YEAR, SimulatedRoots


@pytest.fixture(scope="module")
def chain(milan: SimulatedRoots, trusted: TrustedRoots) -> VerifiedChain:
    return verify_chain(
        parse_certificate(milan.ask),
        parse_certificate(milan.ark),
        at=EPOCH + 2 * YEAR,
        roots=trusted,
        ledger=Ledger(SNP_REPORT),
    )


def refused(check: str, kind: type[VerificationError], data: bytes, chain: VerifiedChain) -> None:
    ledger = Ledger(SNP_REPORT)
    with pytest.raises(kind) as caught:
        verify_not_revoked(parse_crl(data), chain, ledger=ledger)
    assert caught.value.check == check
    failed = [found.check for found in ledger.findings if found.outcome is Outcome.FAIL]
    assert failed == [check]


def test_a_sound_list_without_our_certificates_passes(
    milan: SimulatedRoots, chain: VerifiedChain
) -> None:
    ledger = Ledger(SNP_REPORT)
    verify_not_revoked(parse_crl(milan.make_crl([99])), chain, ledger=ledger)
    assert {found.outcome for found in ledger.findings} == {Outcome.PASS}
    names = ["crl.signature", "crl.whole", "crl.dates", "chain.revocation"]
    assert [f.check for f in ledger.findings] == names


def test_a_list_in_pem_is_read_too(milan: SimulatedRoots, chain: VerifiedChain) -> None:
    pem = x509.load_der_x509_crl(milan.make_crl()).public_bytes(Encoding.PEM)
    verify_not_revoked(parse_crl(pem), chain, ledger=Ledger(SNP_REPORT))


@pytest.mark.parametrize("who", ["ask", "ark"])
def test_a_revoked_certificate_is_refused(
    milan: SimulatedRoots, chain: VerifiedChain, who: str
) -> None:
    serial = parse_certificate(milan.ask if who == "ask" else milan.ark).serial
    refused("chain.revocation", CertificateRevoked, milan.make_crl([5, serial]), chain)


def test_a_stale_list_is_refused(milan: SimulatedRoots, chain: VerifiedChain) -> None:
    refused("crl.dates", CertificateExpired, milan.make_crl(next_update=EPOCH + YEAR), chain)


def test_a_list_from_the_future_is_refused(milan: SimulatedRoots, chain: VerifiedChain) -> None:
    crl = milan.make_crl(this_update=EPOCH + 3 * YEAR)
    refused("crl.dates", CertificateExpired, crl, chain)


def test_a_list_signed_by_the_ask_is_refused(milan: SimulatedRoots, chain: VerifiedChain) -> None:
    refused("crl.signature", SignatureMismatch, milan.make_crl(signer=milan.ask_key), chain)


def test_a_list_of_another_issuer_is_refused(milan: SimulatedRoots, chain: VerifiedChain) -> None:
    refused("crl.signature", SignatureMismatch, milan.make_crl(issuer_cn="ARK-Genoa"), chain)


def test_a_changed_list_is_refused(milan: SimulatedRoots, chain: VerifiedChain) -> None:
    crl = milan.make_crl([1000])
    changed = crl.replace(b"\x02\x02\x03\xe8", b"\x02\x02\x03\xe9")
    assert changed != crl
    refused("crl.signature", SignatureMismatch, changed, chain)


@pytest.mark.parametrize("data", [b"", b"\x30\x00", b"<html>", b"-----BEGIN X509 CRL-----\n"])
def test_what_is_no_list_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_crl(data)


def test_a_list_that_is_too_large_is_refused() -> None:
    with pytest.raises(FormatError, match="larger"):
        parse_crl(b"\x30" + bytes(4 << 20))


def test_a_list_without_a_next_update_is_refused(
    milan: SimulatedRoots, chain: VerifiedChain
) -> None:
    crl = milan.make_crl(next_update=None)
    assert parse_crl(crl).next_update is None
    refused("crl.dates", CertificateExpired, crl, chain)
