"""Is what came the kind of thing that was asked for? Shape only: nothing is verified here.

A captive portal's page or half a file must not reach a verifier, who would have to call it a
forged certificate. Sources: RFC 5280 4.1 and 5.1 (outer shapes, times), 55766 appendix C.1 (CEK).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from sevkit.abi.der import BIT_STRING, SEQUENCE, Element, expect_element, read_children
from sevkit.errors import FormatError
from sevkit.kds.encoding import check_der_sequence, parse_pem_certificates
from sevkit.kds.urls import Kind, Resource

CERTIFICATE_LIMIT: Final = 1 << 20
CRL_LIMIT: Final = 16 << 20
_CEK_SIZE: Final = 2084
_CEK_VERSION: Final = (1).to_bytes(4, "little")
_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18
CRLS: Final = (Kind.VCEK_CRL, Kind.VLEK_CRL)


def size_limit(resource: Resource) -> int:
    """Return the most bytes that ``resource`` may have."""
    return CRL_LIMIT if resource.kind in CRLS else CERTIFICATE_LIMIT


def check_content(resource: Resource, data: bytes) -> None:
    """Raise ``FormatError`` unless ``data`` has the outer shape of ``resource``.

    VCEK and CRL: one signed DER object. Chain: two certificates in PEM. CEK: 2084 bytes, version 1.
    """
    name = resource.kind.value
    if len(data) > size_limit(resource):
        raise FormatError(name, f"larger than {size_limit(resource)} bytes")
    if not data:
        raise FormatError(name, "is empty")
    if data.lstrip()[:1] == b"<":
        raise FormatError(name, "is a web page")
    if resource.kind in {Kind.VCEK_CHAIN, Kind.VLEK_CHAIN}:
        for der in parse_pem_certificates(name, data, count=2):
            _signed_parts(name, der)
    elif resource.kind is Kind.CEK:
        if len(data) != _CEK_SIZE or data[:4] != _CEK_VERSION:
            raise FormatError(name, f"is not a SEV certificate of {_CEK_SIZE} bytes, version 1")
    else:
        _signed_parts(name, data)
        if resource.kind in CRLS:
            crl_next_update(data)


def crl_next_update(data: bytes) -> datetime | None:
    """Return nextUpdate of a revocation list in DER, or None if it has none.

    Not authenticated: good for deciding when to fetch again, and for nothing else. Raises
    ``FormatError``.
    """
    name = "CRL"
    body = _signed_parts(name, data)
    parts = read_children(data, body, name)
    times = [part for part in parts if part.tag in {_UTC_TIME, _GENERALIZED_TIME}]
    if not 1 <= len(times) <= 2:
        raise FormatError(name, "has no thisUpdate", offset=body.start)
    return _time(name, data, times[1]) if len(times) == 2 else None


def _signed_parts(name: str, data: bytes) -> Element:
    """Return the signed part of SEQUENCE { signed, algorithm, signature BIT STRING }."""
    check_der_sequence(name, data)
    whole = expect_element(data, 0, len(data), SEQUENCE, name)
    parts = read_children(data, whole, name)
    if [part.tag for part in parts] != [SEQUENCE, SEQUENCE, BIT_STRING]:
        raise FormatError(name, "is not a signed object", offset=whole.content)
    return parts[0]


def _time(name: str, data: bytes, element: Element) -> datetime:
    text = data[element.content : element.end]
    digits = 12 if element.tag == _UTC_TIME else 14
    if len(text) != digits + 1 or text[-1:] != b"Z" or not text[:-1].isdigit():
        raise FormatError(name, "time is not in UTC with seconds", offset=element.content)
    word = text[:-1].decode()
    if element.tag == _UTC_TIME:
        word = ("19" if word[:2] >= "50" else "20") + word
    try:
        return datetime.strptime(word, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError as error:
        raise FormatError(name, "time does not exist", offset=element.content) from error
