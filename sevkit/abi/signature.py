"""AMD's encodings of ECDSA keys and signatures: little-endian, 72 bytes a coordinate.

A 512-byte signature is r[72] ‖ s[72] ‖ zeros; a 1028-byte public key is curve u32 ‖ qx[72] ‖
qy[72] ‖ zeros. Sources: 56860 chapter 10 (signature and public key formats), 55766 appendix C.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.abi.layout import Layout, integer, raw, zero
from sevkit.errors import FormatError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

P256: Final = 1
P384: Final = 2
_CURVE_BYTES: Final = {P256: 32, P384: 48}

#: Order of each curve's base point (FIPS 186-5, SP 800-186 3.2.1): r and s lie in [1, order - 1].
_ORDERS: Final = {
    P256: 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    P384: int(
        "ffffffffffffffffffffffffffffffffffffffffffffffff"
        "c7634d81f4372ddf581a0db248b0a77aecec196accc52973",
        16,
    ),
}

SIGNATURE: Final = Layout(
    "ECDSA signature", 512, (raw(0x00, 72, "r"), raw(0x48, 72, "s"), zero(0x90, 368))
)
PUBLIC_KEY: Final = Layout(
    "ECDSA public key",
    1028,
    (
        integer(0x000, 4, "curve"),
        raw(0x004, 72, "qx"),
        raw(0x04C, 72, "qy"),
        zero(0x094, 880),
    ),
)
_ZEROS: Final = bytes(368)


@final
@dataclass(frozen=True, slots=True)
class EcdsaSignature:
    """One ECDSA signature as two integers, each in [1, order - 1]."""

    r: int
    s: int

    def to_der(self) -> bytes:
        """Return the DER that OpenSSL verifies."""
        from cryptography.hazmat.primitives.asymmetric.utils import (  # noqa: PLC0415  # costs 30 ms
            encode_dss_signature,
        )

        return encode_dss_signature(self.r, self.s)


def parse_signature(
    data: bytes, *, curve: int = P384, structure: str = "ECDSA signature", offset: int = 0
) -> EcdsaSignature:
    """Return the signature in 512 bytes of AMD's format; ``offset`` is where they stood.

    Refuses non-zero reserved bytes, values of 0 and values not below the order of the curve. A
    high s is accepted: AMD's firmware does not normalise it. Raises ``FormatError``.
    """
    if len(data) != SIGNATURE.size:
        raise FormatError(structure, f"a signature has 512 bytes, got {len(data)}", offset=offset)
    if data[0x90:] != _ZEROS:
        position = next(i for i in range(0x90, SIGNATURE.size) if data[i])
        raise FormatError(structure, "reserved byte is not 0", offset=offset + position)
    values = []
    for name, start in (("r", 0x00), ("s", 0x48)):
        value = int.from_bytes(data[start : start + 72], "little")
        if not 1 <= value < _ORDERS[curve]:
            raise FormatError(
                structure, f"signature component {name} is out of range", offset=offset + start
            )
        values.append(value)
    return EcdsaSignature(values[0], values[1])


def encode_signature(signature: EcdsaSignature) -> bytes:
    """Return 512 bytes in AMD's format."""
    return SIGNATURE.encode(
        {"r": signature.r.to_bytes(72, "little"), "s": signature.s.to_bytes(72, "little")}
    )


def signature_from_der(der: bytes) -> EcdsaSignature:
    """Return the signature in DER that our own signing gave."""
    from cryptography.hazmat.primitives.asymmetric.utils import (  # noqa: PLC0415  # costs 30 ms
        decode_dss_signature,
    )

    return EcdsaSignature(*decode_dss_signature(der))


@final
@dataclass(frozen=True, slots=True)
class EcPublicKey:
    """A point on ``curve`` (1 is P-256, 2 is P-384), not yet known to lie on it."""

    curve: int
    x: int
    y: int

    def load(self) -> EllipticCurvePublicKey:
        """Return the key for use; a point that is not on the curve is refused (invalid-curve)."""
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415  # costs 30 ms

        curve = ec.SECP384R1() if self.curve == P384 else ec.SECP256R1()
        try:
            return ec.EllipticCurvePublicNumbers(self.x, self.y, curve).public_key()
        except ValueError as error:
            raise FormatError("ECDSA public key", "the point is not on the curve") from error


def parse_public_key(
    data: bytes,
    *,
    structure: str = "ECDSA public key",
    offset: int = 0,
    check_reserved: bool = True,
) -> EcPublicKey:
    """Return the public key in 1028 bytes of AMD's format. Raises ``FormatError``.

    ``check_reserved=False`` is for keys that no firmware wrote, see ``parse_sev_certificate``.
    """
    try:
        record = PUBLIC_KEY.parse(data, check_reserved=check_reserved)
    except FormatError as error:
        where = None if error.offset is None else offset + error.offset
        raise FormatError(structure, f"public key: {error.message}", offset=where) from error
    curve = record.int("curve")
    size = _CURVE_BYTES.get(curve)
    if size is None:
        raise FormatError(structure, f"curve {curve} is not P-256 or P-384", offset=offset)
    for name, start in (("qx", 0x04), ("qy", 0x4C)):
        if any(record.raw(name)[size:]):
            raise FormatError(
                structure, f"{name} is too large for the curve", offset=offset + start
            )
    x, y = (int.from_bytes(record.raw(name), "little") for name in ("qx", "qy"))
    return EcPublicKey(curve, x, y)


def encode_public_key(key: EcPublicKey) -> bytes:
    """Return 1028 bytes in AMD's format, which are also what ID key digests are taken over."""
    return PUBLIC_KEY.encode(
        {
            "curve": key.curve,
            "qx": key.x.to_bytes(72, "little"),
            "qy": key.y.to_bytes(72, "little"),
        }
    )


def public_key_of(key: EllipticCurvePublicKey) -> EcPublicKey:
    """Return AMD's view of a loaded key. Raises ``FormatError`` for another curve."""
    curve = {"secp256r1": P256, "secp384r1": P384}.get(key.curve.name)
    if curve is None:
        raise FormatError("ECDSA public key", f"curve {key.curve.name} is not P-256 or P-384")
    numbers = key.public_numbers()
    return EcPublicKey(curve, numbers.x, numbers.y)
