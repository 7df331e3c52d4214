"""A small certificate authority: P-256 keys, one CA certificate, and TLS server certificates.

For TLS between parts of one installation: the webhook and its API server, the simulated key
service and its clients. Nothing that SEV attests depends on it. Profile: RFC 5280, as strict
verifiers want it (key usage critical, subject and authority key identifiers, names in SAN).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sevkit.errors import FormatError, UsageError
from sevkit.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Clocks of two machines differ; a certificate must not be refused as not yet valid for that.
SKEW: Final = timedelta(minutes=5)
_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_USAGES: Final = {
    "digital_signature": False,
    "content_commitment": False,
    "key_encipherment": False,
    "data_encipherment": False,
    "key_agreement": False,
    "key_cert_sign": False,
    "crl_sign": False,
    "encipher_only": False,
    "decipher_only": False,
}


@final
@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """One leaf certificate and its key, both PEM, as a TLS server loads them.

    ``not_after`` is in UTC; the key is unencrypted PKCS #8.
    """

    certificate: bytes
    key: Secret
    not_after: datetime


@final
class CertificateAuthority:
    """A CA: made with ``create_authority``, or read back with ``parse_authority``."""

    __slots__ = ("_certificate", "_key")

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate: Final = certificate
        self._key: Final = key

    @property
    def certificate(self) -> bytes:
        """The CA certificate in PEM, for whoever is to trust it."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key(self) -> Secret:
        """The CA's key, unencrypted PKCS #8 in PEM."""
        return _encode_key(self._key)

    @property
    def not_after(self) -> datetime:
        """The end of the CA certificate's validity, in UTC."""
        return self._certificate.not_valid_after_utc

    def issue(
        self, names: Sequence[str], *, lifetime: timedelta, now: datetime
    ) -> ServerCertificate:
        """Return a new key and a server certificate for ``names``: DNS names or IP addresses.

        It ends after ``lifetime``, and never after the CA's own certificate. Raises ``UsageError``
        for no name, for what is not a name, and for a CA that has expired.
        """
        if not names:
            raise UsageError("a server certificate needs a name")
        not_after = min(now + lifetime, self.not_after)
        if not_after <= now:
            raise UsageError("certificate would have expired already", hint="make a new CA")
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage("digital_signature"), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            # Critical because the subject is empty (RFC 5280 4.2.1.6).
            .add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=True
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer.value),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        return ServerCertificate(pem, _encode_key(key), certificate.not_valid_after_utc)


def create_authority(
    name: str, *, lifetime: timedelta, now: datetime | None = None
) -> CertificateAuthority:
    """Return a new CA with the common name ``name`` (1 to 64 characters), valid from ``now``."""
    if not 1 <= len(name) <= 64:
        raise UsageError("the name of a CA must have 1 to 64 characters")
    start = now or datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - SKEW)
        .not_valid_after(start + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    return CertificateAuthority(certificate, key)


def parse_authority(certificate: bytes, key: Secret) -> CertificateAuthority:
    """Return a CA from the PEM that ``CertificateAuthority`` gave.

    Raises ``FormatError`` if it is not a P-256 CA certificate with its own key.
    """
    try:
        parsed = x509.load_pem_x509_certificate(certificate)
        private = serialization.load_pem_private_key(key.reveal(), password=None)
        constraints = parsed.extensions.get_extension_for_class(x509.BasicConstraints)
        parsed.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound) as error:
        raise FormatError("certificate authority", "is not a CA certificate and key") from error
    if not constraints.value.ca:
        raise FormatError("certificate authority", "the certificate is not a CA's")
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(
        private.curve, ec.SECP256R1
    ):
        raise FormatError("certificate authority", "the key is not a P-256 key")
    if private.public_key() != parsed.public_key():
        raise FormatError("certificate authority", "the key is not the certificate's")
    return CertificateAuthority(parsed, private)


def _usage(*names: str) -> x509.KeyUsage:
    return x509.KeyUsage(**(_USAGES | dict.fromkeys(names, True)))


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise UsageError(f"{name!r} is neither a DNS name in lower case nor an IP address")
    return x509.DNSName(name)


def _encode_key(key: ec.EllipticCurvePrivateKey) -> Secret:
    return Secret(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
