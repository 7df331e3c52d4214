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
