from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from sevkit.abi.product import ProductLine
from sevkit.abi.tcb import TcbVersion
from sevkit.errors import FormatError
from sevkit.kds import urls
from sevkit.kds.content import check_content, crl_next_update, size_limit
from sevkit.kds.encoding import encode_pem_certificate
from sevkit.kds.roots import snp_chain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MILAN = ProductLine.MILAN
VCEK = urls.vcek(MILAN, bytes(range(64)), TcbVersion(1, 2, 3, 4))
CHAIN = urls.chain(MILAN, vlek=False)
CRL = urls.crl(MILAN, vlek=True)
CEK = urls.cek(bytes(range(64)))
NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


def test_real_vceks_are_in_shape(vectors: Path) -> None:
    for name in ("sev-crate/vcek_milan.der", "sev-crate/vcek_turin.der"):
        check_content(VCEK, (vectors / name).read_bytes())


def test_a_real_cek_is_in_shape(vectors: Path) -> None:
    check_content(CEK, (vectors / "sev-crate/naples/cek.cert").read_bytes())


def test_the_bundled_chain_is_in_shape_as_the_key_service_serves_it() -> None:
    pem = b"".join(map(encode_pem_certificate, snp_chain(MILAN, vlek=False)))
    check_content(CHAIN, pem)
    check_content(CHAIN, pem.replace(b"\n", b"\r\n"))


@pytest.mark.parametrize("later", [None, NOW + timedelta(days=30)])
def test_next_update_of_a_list_that_cryptography_made_is_read(later: datetime | None) -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ARK-Milan")])
    builder = x509.CertificateRevocationListBuilder().issuer_name(name).last_update(NOW)
    builder = builder.next_update(later or NOW + timedelta(days=365 * 40))
    key = ec.generate_private_key(ec.SECP256R1())
    data = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    check_content(CRL, data)
    assert crl_next_update(data) == (later or NOW + timedelta(days=365 * 40))


def test_a_list_without_next_update_says_so(make_crl: Callable[..., bytes]) -> None:
    assert crl_next_update(make_crl(b"240101000000Z")) is None


@pytest.mark.parametrize(
    ("text", "year"),
    [(b"491231235959Z", 2049), (b"500101000000Z", 1950), (b"20500101000000Z", 2050)],
)
def test_two_digit_years_follow_rfc_5280(
    make_crl: Callable[..., bytes], text: bytes, year: int
) -> None:
    found = crl_next_update(make_crl(b"240101000000Z", text))
    assert found is not None
    assert (found.year, found.tzinfo) == (year, UTC)


@pytest.mark.parametrize(
    "times",
    [
        (),
        (b"240101000000Z", b"250101000000Z", b"260101000000Z"),
        (b"240101000000Z", b"251301000000Z"),
        (b"240101000000Z", b"2501010000000"),
        (b"240101000000Z", b"+50101000000Z"),
        (b"240101000000Z", b"20250101000000.5Z"),
    ],
)
def test_a_list_with_other_times_is_refused(
    make_crl: Callable[..., bytes], times: tuple[bytes, ...]
) -> None:
    with pytest.raises(FormatError):
        check_content(CRL, make_crl(*times))


@pytest.mark.parametrize("resource", [VCEK, CHAIN, CRL, CEK])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html></html>",
        b"\r\n <!DOCTYPE html>",
        b"not found",
        b'{"error": 1}',
        b"\x30\x00",
        bytes(2084),
        b"\x30\x82\x02\x00" + bytes(512),
    ],
)
def test_what_is_something_else_is_refused(resource: urls.Resource, data: bytes) -> None:
    with pytest.raises(FormatError):
        check_content(resource, data)


def test_bytes_after_a_certificate_are_refused(make_certificate: Callable[[bytes], bytes]) -> None:
    data = make_certificate(b"x")
    check_content(VCEK, data)
    for bad in (data + b"\x00", data[:-1]):
        with pytest.raises(FormatError):
            check_content(VCEK, bad)


def test_a_chain_of_one_or_three_is_refused(make_certificate: Callable[[bytes], bytes]) -> None:
    pem = encode_pem_certificate(make_certificate(b"x"))
    check_content(CHAIN, pem * 2)
    for count in (1, 3):
        with pytest.raises(FormatError, match="expected 2"):
            check_content(CHAIN, pem * count)


def test_a_cek_of_another_size_or_version_is_refused() -> None:
    good = b"\x01\x00\x00\x00" + bytes(2080)
    check_content(CEK, good)
    for bad in (good[:-1], good + b"\x00", b"\x02" + good[1:]):
        with pytest.raises(FormatError):
            check_content(CEK, bad)


def test_lists_may_be_larger_than_certificates() -> None:
    assert size_limit(CRL) == 16 << 20
    assert size_limit(VCEK) == size_limit(CHAIN) == 1 << 20
    with pytest.raises(FormatError, match="larger"):
        check_content(VCEK, bytes((1 << 20) + 1))
