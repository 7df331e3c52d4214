"""RSA public keys in AMD's format: little-endian exponent and modulus, 2048 or 4096 bits.

Signatures are RSASSA-PSS with MGF1 over the same hash and a salt as long as the hash; a signature
is little-endian too, so its bytes are reversed before OpenSSL sees them. Sources: 55766
appendices B and C (RSA keys and signatures).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.errors import FormatError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

#: Modulus sizes that AMD uses, in bits: Naples has 2048, every later line 4096.
SIZES: Final = (2048, 4096)
_MIN_EXPONENT: Final = 65537
_MAX_EXPONENT: Final = (1 << 32) - 1


@final
@dataclass(frozen=True, slots=True)
class RsaPublicKey:
    """One RSA public key whose modulus has exactly ``bits`` bits."""

    bits: int
    exponent: int
    modulus: int

    def load(self) -> RSAPublicKey:
        """Return the key for use. Raises ``FormatError`` for numbers that OpenSSL refuses."""
        from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415  # costs 30 ms

        try:
            return rsa.RSAPublicNumbers(self.exponent, self.modulus).public_key()
        except ValueError as error:
            raise FormatError("RSA public key", "the numbers are not a key") from error


def check_rsa(
    structure: str, bits: int, exponent: bytes, modulus: bytes, *, offset: int
) -> RsaPublicKey:
    """Return the key in little-endian ``exponent`` and ``modulus``, padded with zeros.

    ``offset`` is where the size field stood. Refuses sizes other than 2048 and 4096, a modulus
    that is even or not of that size, and an exponent that is even, below 65537 or above 32 bits: a
    small one weakens the signature, a huge one makes each verification slow. Raises
    ``FormatError``.
    """
    if bits not in SIZES:
        raise FormatError(structure, f"modulus size {bits} is not 2048 or 4096", offset=offset)
    e = int.from_bytes(exponent, "little")
    n = int.from_bytes(modulus, "little")
    if not _MIN_EXPONENT <= e <= _MAX_EXPONENT or e % 2 == 0:
        raise FormatError(structure, "the public exponent is out of range", offset=offset)
    if n.bit_length() != bits or n % 2 == 0:
        raise FormatError(
            structure, f"the modulus is not an odd number of {bits} bits", offset=offset
        )
    return RsaPublicKey(bits, e, n)


def verify_pss(key: RsaPublicKey, signature: bytes, body: bytes, *, sha384: bool) -> bool:
    """Return whether ``signature`` (little-endian, as long as the modulus) is ``key``'s over body.

    RSASSA-PSS, salt as long as the hash. The only answers are yes and no: a signature that is not
    below the modulus is no.
    """
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415  # costs 30 ms
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415  # the same
    from cryptography.hazmat.primitives.asymmetric import padding  # noqa: PLC0415  # the same

    if len(signature) != key.bits // 8:
        return False
    algorithm = hashes.SHA384() if sha384 else hashes.SHA256()
    scheme = padding.PSS(mgf=padding.MGF1(algorithm), salt_length=algorithm.digest_size)
    try:
        key.load().verify(signature[::-1], body, scheme, algorithm)
    except InvalidSignature:
        return False
    return True
