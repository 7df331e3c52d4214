"""Signatures in SEV certificates, read into the shape that the signer's key demands, and checked.

Reading is apart from checking, so that bytes without a signature's shape are refused as such
before any signature of the chain is judged. Source: 55766 appendix C (signature formats).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

from sevkit.abi.rsa import RsaPublicKey, verify_pss
from sevkit.abi.sevcert import (
    ECDSA,
    SHA384,
    Algorithm,
    CertificateSignature,
    SevCertificate,
    Usage,
)
from sevkit.abi.signature import EcdsaSignature, EcPublicKey, parse_signature
from sevkit.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Modulus size in bits of every line after Naples; its signatures use SHA-384.
LARGE: Final = 4096


@final
@dataclass(frozen=True, slots=True)
class Link:
    """One signature to check, already read into the shape that its signer's key demands."""

    signer: EcPublicKey | RsaPublicKey
    signature: EcdsaSignature | bytes
    sha384: bool
    body: bytes = field(repr=False)

    def holds(self) -> bool:
        """Return whether the signature is the signer's over the body."""
        if isinstance(self.signer, RsaPublicKey):
            if not isinstance(self.signature, bytes):
                return False
            return verify_pss(self.signer, self.signature, self.body, sha384=self.sha384)
        if isinstance(self.signature, bytes):
            return False
        return _verify_ecdsa(self.signer, self.signature, self.body, sha384=self.sha384)


def read_links(
    certificate: SevCertificate, keys: Mapping[Usage, EcPublicKey | RsaPublicKey]
) -> tuple[Link, ...]:
    """Read every signature on a certificate whose signer is known and of the right kind."""
    links = []
    for signature in certificate.signatures:
        key = keys.get(signature.usage)
        if isinstance(key, RsaPublicKey):
            link = rsa_link(signature, key, certificate)
            if link is not None:
                links.append(link)
        elif key is not None and signature.algorithm in ECDSA:
            parsed = parse_signature(
                signature.data,
                curve=key.curve,
                structure=certificate.usage.name,
                offset=signature.offset,
            )
            links.append(Link(key, parsed, signature.algorithm in SHA384, certificate.body))
    return tuple(links)


def rsa_link(
    signature: CertificateSignature, key: RsaPublicKey, certificate: SevCertificate
) -> Link | None:
    """Return the link for an RSA signature: SHA-256 under 2048 bits, SHA-384 under 4096."""
    wanted = Algorithm.RSA_SHA384 if key.bits == LARGE else Algorithm.RSA_SHA256
    if signature.algorithm is not wanted:
        return None
    width = key.bits // 8
    if any(signature.data[width:]):
        raise FormatError(
            certificate.usage.name, "reserved byte is not 0", offset=signature.offset + width
        )
    return Link(key, signature.data[:width], key.bits == LARGE, certificate.body)


def _verify_ecdsa(
    key: EcPublicKey, signature: EcdsaSignature, body: bytes, *, sha384: bool
) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415  # costs 30 ms
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415  # the same
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415  # the same

    algorithm = ec.ECDSA(hashes.SHA384() if sha384 else hashes.SHA256())
    try:
        key.load().verify(signature.to_der(), body, algorithm)
    except InvalidSignature:
        return False
    return True
