"""One X.509 certificate, read strictly and once: AMD's roots, ASK, ASVK and VEKs.

``cryptography`` parses the certificate; the bytes that were signed, the names and the extensions
are read here: an extension that occurs twice must become a finding, not an exception, and names
are compared as they were signed (``cryptography`` prints a warning for a name of odd length).
VEKs have serial number 0, which ``cryptography`` deprecates and will refuse: it is handed a copy
whose serial number is 1, and signatures are checked over the bytes received, never over the copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import SignatureAlgorithmOID

from sevkit.abi.der import (
    BIT_STRING,
    BOOLEAN,
    IA5_STRING,
    INTEGER,
    OBJECT_IDENTIFIER,
    OCTET_STRING,
    PRINTABLE_STRING,
    SEQUENCE,
    SET,
    UTF8_STRING,
    Element,
    expect_element,
    parse_oid,
    read_children,
)
from sevkit.attest.pem import parse_pem
from sevkit.errors import FormatError

if TYPE_CHECKING:
    from datetime import datetime

NAME: Final = "X.509 certificate"
MAX_SIZE: Final = 16 << 10
MAX_CERTIFICATES: Final = 8

BASIC_CONSTRAINTS: Final = "2.5.29.19"
KEY_USAGE: Final = "2.5.29.15"

#: AMD's one signature algorithm for X.509: RSASSA-PSS, SHA-384, MGF1 with SHA-384, salt 48.
PSS: Final = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)

_COMMON_NAME: Final = b"\x55\x04\x03"  # 2.5.4.3
_TEXTS: Final = {UTF8_STRING: "utf-8", PRINTABLE_STRING: "ascii", IA5_STRING: "ascii"}


@final
@dataclass(frozen=True, slots=True)
class Extension:
    """One extension: dotted OID, criticality, and the contents of extnValue."""

    oid: str
    critical: bool
    value: bytes


@final
@dataclass(frozen=True, slots=True)
class Certificate:
    """A well-formed certificate; nothing is verified. ``extensions`` may hold one OID twice."""

    der: bytes
    signed: bytes
    signature: bytes
    serial: int
    subject: bytes
    subject_cn: str
    issuer: bytes
    issuer_cn: str
    not_before: datetime
    not_after: datetime
    public_key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey
    pss_sha384: bool
    extensions: tuple[Extension, ...]

    @property
    def is_ca(self) -> bool:
        """Whether basicConstraints says CA and keyUsage, if any, allows signing certificates."""
        constraints = [e.value for e in self.extensions if e.oid == BASIC_CONSTRAINTS]
        return len(constraints) == 1 and _says_ca(constraints[0]) and self._may_sign(5)

    @property
    def may_sign_crls(self) -> bool:
        """Whether keyUsage, if any, allows signing revocation lists."""
        return self._may_sign(6)

    def _may_sign(self, bit: int) -> bool:
        usages = [e.value for e in self.extensions if e.oid == KEY_USAGE]
        if not usages:
            return True
        # BIT STRING: tag, length, unused bits, then bits from the most significant one
        value = usages[0]
        return (
            len(usages) == 1
            and len(value) >= 4
            and value[0] == BIT_STRING
            and bool(value[3] & 0x80 >> bit)
        )


def _says_ca(value: bytes) -> bool:
    try:
        outer = expect_element(value, 0, len(value), SEQUENCE, NAME)
        fields = read_children(value, outer, NAME)
    except FormatError:
        return False
    first = fields[0] if fields else None
    return (
        outer.end == len(value)
        and first is not None
        and first.tag == BOOLEAN
        and value[first.content : first.end] == b"\xff"
    )


def parse_certificates(data: bytes) -> tuple[Certificate, ...]:
    """Return the certificates in one DER certificate or one or more PEM blocks.

    Nothing but white space may stand between and around the blocks. Raises ``FormatError``.
    """
    if data[:1] == b"\x30":
        return (parse_certificate(data),)
    blocks = parse_pem(data, b"CERTIFICATE", NAME, most=MAX_CERTIFICATES)
    return tuple(parse_certificate(der) for der in blocks)


def parse_certificate(der: bytes) -> Certificate:
    """Return the certificate that is all of ``der``. Raises ``FormatError``."""
    if len(der) > MAX_SIZE:
        raise FormatError(NAME, f"larger than {MAX_SIZE} bytes", offset=MAX_SIZE)
    outer = expect_element(der, 0, len(der), SEQUENCE, NAME)
    if outer.end != len(der):
        raise FormatError(NAME, "bytes after the certificate", offset=outer.end)
    parts = read_children(der, outer, NAME)
    if [part.tag for part in parts] != [SEQUENCE, SEQUENCE, BIT_STRING]:
        raise FormatError(NAME, "not tbsCertificate, algorithm, signature", offset=outer.content)
    body = read_children(der, parts[0], NAME)
    signature = der[parts[2].content : parts[2].end]
    serial = _serial_element(body)
    if der[serial.content : serial.content + 1] >= b"\x80":
        raise FormatError(NAME, "serial number is negative", offset=serial.start)
    if der[body[2].start : body[2].end] != der[parts[1].start : parts[1].end]:
        raise FormatError(NAME, "the two signature algorithms differ", offset=parts[1].start)
    if signature[:1] != b"\0":
        raise FormatError(NAME, "signature has unused bits", offset=parts[2].content)
    parsed = _parse(_readable(der, serial))
    try:
        key = parsed.public_key()
        not_before, not_after = parsed.not_valid_before_utc, parsed.not_valid_after_utc
        pss = _is_pss_sha384(parsed)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise FormatError(NAME, f"not readable: {error}") from error
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise FormatError(NAME, f"public key is of kind {type(key).__name__}")
    return Certificate(
        der=bytes(der),
        signed=bytes(der[parts[0].start : parts[0].end]),
        signature=bytes(signature[1:]),
        serial=int.from_bytes(der[serial.content : serial.end], "big", signed=True),
        subject=bytes(der[body[5].start : body[5].end]),
        subject_cn=_common_name(der, body[5]),
        issuer=bytes(der[body[3].start : body[3].end]),
        issuer_cn=_common_name(der, body[3]),
        not_before=not_before,
        not_after=not_after,
        public_key=key,
        pss_sha384=pss,
        extensions=_extensions(der, body),
    )


def _serial_element(body: list[Element]) -> Element:
    # version is [0] EXPLICIT, and X.509 v3 always has it
    if len(body) < 7 or body[0].tag != 0xA0 or body[1].tag != INTEGER:
        raise FormatError(NAME, "tbsCertificate is not version 3", offset=0)
    return body[1]


def _readable(der: bytes, serial: Element) -> bytes:
    if der[serial.content : serial.end] != b"\0":
        return bytes(der)
    return bytes(der[: serial.content]) + b"\x01" + bytes(der[serial.end :])


def _parse(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise FormatError(NAME, f"not readable: {error}") from error


def _common_name(der: bytes, name: Element) -> str:
    """Return the one common name of a Name: SEQUENCE OF SET OF SEQUENCE { type, value }."""
    if name.tag != SEQUENCE:
        raise FormatError(NAME, "a name is not a SEQUENCE", offset=name.start)
    found = []
    for group in read_children(der, name, NAME):
        for attribute in read_children(der, group, NAME) if group.tag == SET else ():
            fields = read_children(der, attribute, NAME) if attribute.tag == SEQUENCE else []
            if len(fields) != 2 or fields[0].tag != OBJECT_IDENTIFIER:
                raise FormatError(NAME, "a name is not well formed", offset=attribute.start)
            if der[fields[0].content : fields[0].end] == _COMMON_NAME:
                found.append(fields[1])
    encoding = _TEXTS.get(found[0].tag) if len(found) == 1 else None
    if encoding is None:
        raise FormatError(NAME, "a name without exactly one common name", offset=name.start)
    try:
        return der[found[0].content : found[0].end].decode(encoding)
    except UnicodeDecodeError as error:
        raise FormatError(NAME, "a common name is not text", offset=found[0].start) from error


def _is_pss_sha384(parsed: x509.Certificate) -> bool:
    """Say what is declared; the salt length is enforced by every verification."""
    return parsed.signature_algorithm_oid == SignatureAlgorithmOID.RSASSA_PSS and isinstance(
        parsed.signature_hash_algorithm, hashes.SHA384
    )


def _extensions(der: bytes, body: list[Element]) -> tuple[Extension, ...]:
    holders = [element for element in body if element.tag == 0xA3]
    return read_extensions(der, holders[0], NAME) if holders else ()


def read_extensions(der: bytes, holder: Element, structure: str) -> tuple[Extension, ...]:
    """Return the extensions in an explicitly tagged ``Extensions``, any OID as often as it occurs.

    Raises ``FormatError``; a criticality that is neither absent nor TRUE in DER is refused, because
    what another reader takes for critical must not be ignored here.
    """
    outer = expect_element(der, holder.content, holder.end, SEQUENCE, structure)
    return read_extension_list(der, outer, structure)


def read_extension_list(der: bytes, outer: Element, structure: str) -> tuple[Extension, ...]:
    """Return the extensions in ``Extensions``, a SEQUENCE OF Extension; as ``read_extensions``."""
    found = []
    for element in read_children(der, outer, structure):
        fields = read_children(der, element, structure)
        tags = [field.tag for field in fields]
        critical = tags == [OBJECT_IDENTIFIER, BOOLEAN, OCTET_STRING]
        if not critical and tags != [OBJECT_IDENTIFIER, OCTET_STRING]:
            raise FormatError(structure, "extension is not well formed", offset=element.start)
        if critical and der[fields[1].content : fields[1].end] != b"\xff":
            raise FormatError(structure, "criticality is not TRUE in DER", offset=element.start)
        value = fields[-1]
        found.append(
            Extension(
                parse_oid(der, fields[0], structure),
                critical,
                bytes(der[value.content : value.end]),
            )
        )
    return tuple(found)


def is_signed_by(certificate: Certificate, issuer: Certificate) -> bool:
    """Return whether ``issuer``'s RSA key made the PSS signature over ``certificate``.

    Names, dates and the right to issue are not looked at.
    """
    return verifies_pss(issuer, certificate.signature, certificate.signed)


def verifies_pss(issuer: Certificate, signature: bytes, signed: bytes) -> bool:
    """Return whether ``signature`` over ``signed`` is PSS with SHA-384 by ``issuer``'s RSA key."""
    if not isinstance(issuer.public_key, rsa.RSAPublicKey):
        return False
    try:
        issuer.public_key.verify(signature, signed, PSS, hashes.SHA384())
    except InvalidSignature:
        return False
    return True
