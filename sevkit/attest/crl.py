"""Certificate revocation lists: which ASK or ASVK the ARK has taken back.

Source: 57230 chapter 4 (one list per line and kind, signed by the ARK), RFC 5280 chapters 5 and
6.3. A list that is forged, stale, not yet valid or without a next update is refused: it says
nothing. VEKs are not listed, because the ASK, not the ARK, issued them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import SignatureAlgorithmOID

from sevkit.attest.x509 import verifies_pss
from sevkit.errors import (
    CertificateExpired,
    CertificateRevoked,
    FormatError,
    SignatureMismatch,
)

if TYPE_CHECKING:
    from datetime import datetime

    from sevkit.attest.chain import VerifiedChain
    from sevkit.attest.verdict import Ledger

NAME: Final = "certificate revocation list"
MAX_SIZE: Final = 4 << 20


@final
@dataclass(frozen=True, slots=True)
class RevocationList:
    """A well-formed list; nothing is verified."""

    der: bytes
    signed: bytes
    signature: bytes
    issuer: bytes
    pss_sha384: bool
    this_update: datetime
    next_update: datetime | None
    serials: frozenset[int]
    critical: tuple[str, ...]


def parse_crl(data: bytes) -> RevocationList:
    """Return the list in DER or in one PEM block. Raises ``FormatError``."""
    if len(data) > MAX_SIZE:
        raise FormatError(NAME, f"larger than {MAX_SIZE} bytes", offset=MAX_SIZE)
    try:
        der = data[:1] == b"\x30"
        crl = x509.load_der_x509_crl(data) if der else x509.load_pem_x509_crl(data)
        return RevocationList(
            der=bytes(data),
            signed=crl.tbs_certlist_bytes,
            signature=crl.signature,
            issuer=crl.issuer.public_bytes(),
            pss_sha384=crl.signature_algorithm_oid == SignatureAlgorithmOID.RSASSA_PSS
            and isinstance(crl.signature_hash_algorithm, hashes.SHA384),
            this_update=crl.last_update_utc,
            next_update=crl.next_update_utc,
            serials=frozenset(entry.serial_number for entry in crl),
            critical=tuple(
                extension.oid.dotted_string
                for holder in (crl, *crl)
                for extension in holder.extensions
                if extension.critical
            ),
        )
    except (
        ValueError,
        TypeError,
        UnsupportedAlgorithm,
        x509.InvalidVersion,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ) as error:
        raise FormatError(NAME, f"not readable: {error}") from error


def verify_not_revoked(crl: RevocationList, chain: VerifiedChain, *, ledger: Ledger) -> None:
    """Refuse the chain if ``crl`` lists one of its certificates, or if ``crl`` is not sound.

    The list must be signed by the chain's ARK and in date at the time of verification.
    Raises ``VerificationError``.
    """
    ledger.require(
        "crl.signature",
        crl.issuer == chain.ark.subject
        and crl.pss_sha384
        and not crl.critical
        and chain.ark.may_sign_crls
        and verifies_pss(chain.ark, crl.signature, crl.signed),
        SignatureMismatch,
        "the revocation list is not the ARK's",
        expected=f"signed by {chain.ark.subject_cn}",
    )
    at = chain.at
    this_update = f"{crl.this_update:%Y-%m-%dT%H:%M:%SZ}"
    next_update = f"{crl.next_update:%Y-%m-%dT%H:%M:%SZ}" if crl.next_update else "never"
    ledger.require(
        "crl.dates",
        crl.next_update is not None and crl.this_update <= at <= crl.next_update,
        CertificateExpired,
        f"the revocation list is not in date: from {this_update}, next update {next_update}",
        expected=f"in date at {at:%Y-%m-%dT%H:%M:%SZ}",
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
