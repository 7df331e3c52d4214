from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from sevkit.abi.product import ProductLine
from sevkit.attest.x509 import is_signed_by, parse_certificate, parse_certificates
from sevkit.errors import FormatError
from sevkit.kds.encoding import encode_pem_certificate
from sevkit.kds.roots import snp_chain

if TYPE_CHECKING:
    from pathlib import Path

ASK, ARK = snp_chain(ProductLine.MILAN, vlek=False)


@pytest.fixture(scope="module")
def vcek(vectors: Path) -> bytes:
    return (vectors / "sev-crate/vcek_milan.der").read_bytes()


def test_a_vcek_with_serial_number_0_is_read_without_a_warning(vcek: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = parse_certificate(vcek)
    assert found.serial == 0
    assert found.der == vcek
    assert is_signed_by(found, parse_certificate(ASK))


def test_what_is_read_is_what_cryptography_reads() -> None:
    for der in (ASK, ARK):
        ours, theirs = parse_certificate(der), x509.load_der_x509_certificate(der)
        assert ours.signed == theirs.tbs_certificate_bytes
        assert ours.signature == theirs.signature
        assert ours.serial == theirs.serial_number
        assert ours.not_before == theirs.not_valid_before_utc
        assert ours.not_after == theirs.not_valid_after_utc
        assert [e.oid for e in ours.extensions] == [e.oid.dotted_string for e in theirs.extensions]
        assert [e.critical for e in ours.extensions] == [e.critical for e in theirs.extensions]


def test_names_are_compared_as_they_were_signed() -> None:
    ask, ark = parse_certificate(ASK), parse_certificate(ARK)
    theirs = x509.load_der_x509_certificate(ASK)
    assert ask.subject == theirs.subject.public_bytes()
    assert ask.issuer == ark.subject == theirs.issuer.public_bytes()
    # the same name in another string type is another name
    other = parse_certificate(ASK.replace(b"\x0c\x09ARK-Milan", b"\x13\x09ARK-Milan"))
    assert other.issuer_cn == "ARK-Milan"
    assert other.issuer != ark.subject


@pytest.mark.parametrize(
    ("defect", "old", "new"),
    [
        ("no common name", b"\x06\x03\x55\x04\x03", b"\x06\x03\x55\x04\x0b"),
        ("two common names", b"\x06\x03\x55\x04\x0b", b"\x06\x03\x55\x04\x03"),
        ("a common name in UTF-16", b"\x0c\x09SEV-Milan", b"\x1e\x09SEV-Milan"),
        ("a common name that is not UTF-8", b"\x0c\x09SEV-Milan", b"\x0c\x09SEV-Mil\xffn"),
    ],
)
def test_a_name_that_two_readers_read_in_two_ways_is_refused(
    defect: str, old: bytes, new: bytes
) -> None:
    assert old in ASK
    with pytest.raises(FormatError):
        parse_certificate(ASK.replace(old, new))
    assert defect


def test_nothing_hostile_makes_noise_on_stderr() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parse_certificate(ASK.replace(b"\x13\x02US", b"\x0c\x02\0\0"))
        with pytest.raises(FormatError, match="negative"):
            parse_certificate(ASK.replace(b"\x02\x03\x01\x00\x01\x30", b"\x02\x03\xff\x00\x01\x30"))


@pytest.mark.parametrize("value", [b"\x01", b"\x00", b"\x7f"])
def test_a_criticality_that_is_not_true_in_der_is_refused(value: bytes) -> None:
    with pytest.raises(FormatError):
        parse_certificate(ASK.replace(b"\x01\x01\xff", b"\x01\x01" + value, 1))


def test_ca_and_crl_rights_are_read() -> None:
    assert parse_certificate(ARK).is_ca
    assert parse_certificate(ARK).may_sign_crls
    assert parse_certificate(ASK).is_ca


def test_a_vcek_is_no_ca(vcek: bytes) -> None:
    assert not parse_certificate(vcek).is_ca


def test_pem_with_several_certificates_is_read_in_order() -> None:
    pem = encode_pem_certificate(ASK) + b"\r\n" + encode_pem_certificate(ARK)
    assert [c.subject_cn for c in parse_certificates(pem)] == ["SEV-Milan", "ARK-Milan"]


@pytest.mark.parametrize(
    ("defect", "data"),
    [
        ("empty", b""),
        ("empty sequence", b"\x30\x00"),
        ("a byte more", ASK + b"\0"),
        ("a byte less", ASK[:-1]),
        ("too large", b"\x30\x83\x00\x50\x00" + bytes(0x5000)),
        ("PEM of nothing", b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"),
        ("PEM of junk", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ("PEM not base64", b"-----BEGIN CERTIFICATE-----\nA=AA\n-----END CERTIFICATE-----\n"),
        ("PEM with text before", b"x\n" + encode_pem_certificate(ASK)),
        ("PEM with text after", encode_pem_certificate(ASK) + b"x"),
        ("PEM of a key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
        ("nine certificates", encode_pem_certificate(ASK) * 9),
    ],
)
def test_a_file_with_a_defect_is_refused(defect: str, data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_certificates(data)
    assert defect
