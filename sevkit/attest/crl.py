"""Certificate revocation lists: which ASK or ASVK the ARK has taken back.

Source: 57230 chapter 4 (one list per line and kind, signed by the ARK), RFC 5280 chapters 5 and
6.3. A list that is forged, stale, not yet valid, without a next update or only part of a list is
refused: it says nothing. VEKs are not listed, because the ASK, not the ARK, issued them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import SignatureAlgorithmOID

from sevkit.abi.der import (
    BIT_STRING,
    INTEGER,
    SEQUENCE,
    Element,
    expect_element,
    read_children,
    read_element,
)
from sevkit.attest.pem import parse_pem
from sevkit.attest.verdict import render_time
from sevkit.attest.x509 import read_extension_list, verifies_pss
from sevkit.errors import (
    CertificateExpired,
    CertificateRevoked,
    FormatError,
    SignatureMismatch,
    VerificationError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sevkit.attest.chain import VerifiedChain
    from sevkit.attest.verdict import Ledger

NAME: Final = "certificate revocation list"
MAX_SIZE: Final = 4 << 20

#: deltaCRLIndicator: a list of changes, which alone does not say who is revoked.
_DELTA: Final = "2.5.29.27"
_CRL_EXTENSIONS: Final = 0xA0


@final
@dataclass(frozen=True, slots=True)
class RevocationList:
    """A well-formed list; nothing is verified.

    ``serials`` are all that it lists, whatever the reason, so also what a list of changes takes
    off again. ``unusable`` are the extensions that make it say less than that: critical ones, of
    the list or of an entry, none of which is known here, and the mark of a list of changes.
    """

    der: bytes
    signed: bytes
    signature: bytes
    issuer: bytes
    pss_sha384: bool
    this_update: datetime
    next_update: datetime | None
    serials: frozenset[int]
    unusable: tuple[str, ...]


def parse_crl(data: bytes) -> RevocationList:
    """Return the list in DER, or in one PEM block with nothing around it. Raises ``FormatError``.

    Names and extensions are read here and not by ``cryptography``, which prints a warning for a
    name of odd length and takes one of two equal extensions for an error of its own.
    """
    if len(data) > MAX_SIZE:
        raise FormatError(NAME, f"larger than {MAX_SIZE} bytes", offset=MAX_SIZE)
    der = data if data[:1] == b"\x30" else parse_pem(data, b"X509 CRL", NAME, most=1)[0]
    outer = expect_element(der, 0, len(der), SEQUENCE, NAME)
    if outer.end != len(der):
        raise FormatError(NAME, "bytes after the list", offset=outer.end)
    parts = read_children(der, outer, NAME)
    if [part.tag for part in parts] != [SEQUENCE, SEQUENCE, BIT_STRING]:
        raise FormatError(NAME, "not tbsCertList, algorithm, signature", offset=outer.content)
    fields = read_children(der, parts[0], NAME)
    fields = fields[1:] if fields and fields[0].tag == INTEGER else fields
    if len(fields) < 3 or [field.tag for field in fields[:2]] != [SEQUENCE, SEQUENCE]:
        raise FormatError(NAME, "not algorithm, issuer, thisUpdate", offset=parts[0].content)
    if der[fields[0].start : fields[0].end] != der[parts[1].start : parts[1].end]:
        raise FormatError(NAME, "the two signature algorithms differ", offset=parts[1].start)
    try:
        crl = x509.load_der_x509_crl(der)
        pss = crl.signature_algorithm_oid == SignatureAlgorithmOID.RSASSA_PSS and isinstance(
            crl.signature_hash_algorithm, hashes.SHA384
        )
        signature, this_update, next_update = (
            crl.signature,
            crl.last_update_utc,
            crl.next_update_utc,
        )
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise FormatError(NAME, f"not readable: {error}") from error
    serials: set[int] = set()
    unusable = list(_list_extensions(der, fields))
    for serial, extensions in _entries(der, fields):
        serials.add(serial)
        unusable += extensions
    return RevocationList(
        der=bytes(der),
        signed=bytes(der[parts[0].start : parts[0].end]),
        signature=signature,
        issuer=bytes(der[fields[1].start : fields[1].end]),
        pss_sha384=pss,
        this_update=this_update,
        next_update=next_update,
        serials=frozenset(serials),
        unusable=tuple(dict.fromkeys(unusable)),
    )


def _list_extensions(der: bytes, fields: list[Element]) -> Iterator[str]:
    for holder in fields:
        if holder.tag == _CRL_EXTENSIONS:
            outer = expect_element(der, holder.content, holder.end, SEQUENCE, NAME)
            for extension in read_extension_list(der, outer, NAME):
                if extension.critical or extension.oid == _DELTA:
                    yield extension.oid


def _entries(der: bytes, fields: list[Element]) -> Iterator[tuple[int, list[str]]]:
    """Yield the serial number and the critical extensions of every entry.

    The first three fields are the algorithm, the issuer and thisUpdate; a SEQUENCE after them is
    revokedCertificates. Entries are stepped through one by one: a list may have 100,000 of them.
    """
    for holder in fields[3:]:
        if holder.tag != SEQUENCE:
            continue
        offset = holder.content
        while offset < holder.end:
            entry = expect_element(der, offset, holder.end, SEQUENCE, NAME)
            serial = expect_element(der, entry.content, entry.end, INTEGER, NAME)
            when = read_element(der, serial.end, entry.end, NAME)
            critical: list[str] = []
            if when.end < entry.end:
                outer = expect_element(der, when.end, entry.end, SEQUENCE, NAME)
                found = read_extension_list(der, outer, NAME)
                critical = [extension.oid for extension in found if extension.critical]
            yield int.from_bytes(der[serial.content : serial.end], "big", signed=True), critical
            offset = entry.end


def verify_not_revoked(crl: RevocationList, chain: VerifiedChain, *, ledger: Ledger) -> None:
    """Refuse the chain if ``crl`` lists one of its certificates, or if ``crl`` is not sound.

    The list must be signed by the chain's ARK and in date at the time of verification.
    Raises ``VerificationError``.
    """
    ledger.require(
        "crl.signature",
        crl.issuer == chain.ark.subject
        and crl.pss_sha384
        and chain.ark.may_sign_crls
        and verifies_pss(chain.ark, crl.signature, crl.signed),
        SignatureMismatch,
        "the revocation list is not the ARK's",
        expected=f"signed by {chain.ark.subject_cn}",
    )
    ledger.require(
        "crl.whole",
        not crl.unusable,
        VerificationError,
        f"extension {', '.join(crl.unusable)} makes the list less than a whole one",
        expected="no critical extension",
    )
    at = chain.at
    this_update = render_time(crl.this_update)
    next_update = render_time(crl.next_update) if crl.next_update else "never"
    ledger.require(
        "crl.dates",
        crl.next_update is not None and crl.this_update <= at <= crl.next_update,
        CertificateExpired,
        f"the revocation list is not in date: from {this_update}, next update {next_update}",
        expected=f"in date at {render_time(at)}",
        actual=f"{this_update} to {next_update}",
    )
    for certificate in (chain.ark, chain.intermediate):
        ledger.require(
            "chain.revocation",
            certificate.serial not in crl.serials,
            CertificateRevoked,
            f"{certificate.subject_cn}, serial number {certificate.serial}, is revoked",
            actual=f"{len(crl.serials)} serial numbers listed until {next_update}",
        )
