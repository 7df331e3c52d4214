from __future__ import annotations

import time
import warnings

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sevkit.abi.der import read_element
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


REMOVED = x509.CRLReason(x509.ReasonFlags.remove_from_crl)
PART = x509.IssuingDistributionPoint(
    full_name=None,
    relative_name=None,
    only_contains_user_certs=True,
    only_contains_ca_certs=False,
    only_some_reasons=None,
    indirect_crl=False,
    only_contains_attribute_certs=False,
)


@pytest.mark.parametrize(
    ("defect", "extension", "critical"),
    [
        ("a part of the certificates", PART, True),
        ("changes only", x509.DeltaCRLIndicator(1), True),
        ("changes only, not marked critical", x509.DeltaCRLIndicator(1), False),
        (
            "something unknown",
            x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\5\0"),
            True,
        ),
    ],
)
def test_a_list_that_is_not_whole_is_refused(
    milan: SimulatedRoots,
    chain: VerifiedChain,
    defect: str,
    extension: x509.ExtensionType,
    critical: bool,
) -> None:
    crl = milan.make_crl(extensions=[(extension, critical)])
    refused("crl.whole", VerificationError, crl, chain)
    assert defect


def test_a_critical_extension_of_an_entry_is_refused(
    milan: SimulatedRoots, chain: VerifiedChain
) -> None:
    crl = milan.make_crl([5, 6], entry_extensions=[(REMOVED, True)])
    assert parse_crl(crl).unusable == ("2.5.29.21",)
    refused("crl.whole", VerificationError, crl, chain)


def test_an_entry_that_is_to_be_removed_still_revokes(
    milan: SimulatedRoots, chain: VerifiedChain
) -> None:
    serial = parse_certificate(milan.ask).serial
    crl = milan.make_crl([serial], entry_extensions=[(REMOVED, False)])
    refused("chain.revocation", CertificateRevoked, crl, chain)


def test_extensions_that_change_nothing_pass(milan: SimulatedRoots, chain: VerifiedChain) -> None:
    crl = milan.make_crl(
        [99],
        extensions=[(x509.CRLNumber(7), False)],
        entry_extensions=[(x509.CRLReason(x509.ReasonFlags.key_compromise), False)],
    )
    verify_not_revoked(parse_crl(crl), chain, ledger=Ledger(SNP_REPORT))


def test_what_is_read_is_what_cryptography_reads(milan: SimulatedRoots) -> None:
    der = milan.make_crl(
        [1, 127, 128, 300, 2**64], entry_extensions=[(REMOVED, False)], extensions=[(PART, False)]
    )
    ours, theirs = parse_crl(der), x509.load_der_x509_crl(der)
    assert ours.signed == theirs.tbs_certlist_bytes
    assert ours.signature == theirs.signature
    assert ours.issuer == theirs.issuer.public_bytes()
    assert ours.serials == {entry.serial_number for entry in theirs}
    assert (ours.this_update, ours.next_update) == (theirs.last_update_utc, theirs.next_update_utc)


def test_only_one_list_with_nothing_around_it_is_read_from_pem(milan: SimulatedRoots) -> None:
    first = x509.load_der_x509_crl(milan.make_crl()).public_bytes(Encoding.PEM)
    second = x509.load_der_x509_crl(milan.make_crl([2])).public_bytes(Encoding.PEM)
    assert parse_crl(b"\n" + first.replace(b"\n", b"\r\n")).serials == frozenset()
    for data in (first + second, b"junk\n" + first, first + b"junk", first[:-5]):
        with pytest.raises(FormatError):
            parse_crl(data)


def test_a_byte_behind_the_list_and_two_algorithms_are_refused(milan: SimulatedRoots) -> None:
    der = milan.make_crl()
    with pytest.raises(FormatError, match="bytes after"):
        parse_crl(der + b"\0")
    at = der.rindex(bytes.fromhex("608648016503040202"))
    other = der[: at + 8] + b"\x01" + der[at + 9 :]
    with pytest.raises(FormatError, match="algorithms differ"):
        parse_crl(other)


def test_a_name_of_odd_length_makes_no_noise(milan: SimulatedRoots) -> None:
    der = milan.make_crl(issuer_cn="ARK-Genoa")
    odd = der.replace(b"\x13\x02US", b"\x0c\x02US").replace(b"\x0c\x02CA", b"\x0c\x02C\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parse_crl(odd)


def wrap(content: bytes) -> bytes:
    return b"\x30\x83" + len(content).to_bytes(3, "big") + content


def content_of(der: bytes) -> bytes:
    return der[read_element(der, 0, len(der), "DER").content :]


def test_a_list_with_100000_entries_is_read_in_seconds(milan: SimulatedRoots) -> None:
    small = milan.make_crl([0x40000000])
    entry = bytes.fromhex("3015020440000000170d") + b"240101000000Z"
    entries = b"".join(
        entry[:4] + number.to_bytes(4, "big") + entry[8:]
        for number in range(0x40000000, 0x40000000 + 100_000)
    )
    body = x509.load_der_x509_crl(small).tbs_certlist_bytes
    many = content_of(body).replace(b"\x30\x17" + entry, wrap(entries))
    large = wrap(content_of(small).replace(body, wrap(many)))
    assert len(large) > 2_000_000
    before = time.perf_counter()
    assert len(parse_crl(large).serials) == 100_000
    assert time.perf_counter() - before < 10
