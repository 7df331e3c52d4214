"""Launch sessions of SEV and SEV-ES: how a guest owner hands TEK and TIK to the secure processor.

Owner and platform each have a Diffie-Hellman key on P-384. From the shared secret Z and a nonce
both derive a master secret and from it two keys: KEK encrypts TEK ‖ TIK, KIK authenticates the
result. The session blob carries nonce, IV, wrapped keys, their MAC, and a MAC of the guest policy
keyed by the TIK, so that the host cannot launch under another policy.

Sources: 55766 chapter 2.2 (keys), 4.3 (trusted channel, key derivation), 6.2 (LAUNCH_START, the
session structure), NIST SP 800-108 (counter mode). All of this module is pure: randomness comes
in through parameters, and ``sevkit.attest.sev_session`` is where it is drawn.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.abi.layout import Layout, raw
from sevkit.abi.sevcert import Algorithm, SevCertificate, Usage, encode_sev_certificate
from sevkit.abi.signature import P384, EcPublicKey, public_key_of
from sevkit.errors import FormatError, SignatureMismatch
from sevkit.secret import Secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

KEY_SIZE: Final = 16
NONCE_SIZE: Final = 16
IV_SIZE: Final = 16

SESSION: Final = Layout(
    "launch session",
    128,
    (
        raw(0x00, 16, "nonce"),
        raw(0x10, 32, "wrap_tk"),
        raw(0x30, 16, "wrap_iv"),
        raw(0x40, 32, "wrap_mac"),
        raw(0x60, 32, "policy_mac"),
    ),
)


@final
@dataclass(frozen=True, slots=True)
class SessionBlob:
    """The 128 bytes that LAUNCH_START takes, by AMD's field names. Nothing in it is secret."""

    nonce: bytes
    wrap_tk: bytes
    wrap_iv: bytes
    wrap_mac: bytes
    policy_mac: bytes

    def encode(self) -> bytes:
        """Return the 128 bytes."""
        return SESSION.encode({name: getattr(self, name) for name in self.__slots__})


@final
@dataclass(frozen=True, slots=True)
class TransportKeys:
    """The keys of one launch: TEK encrypts what is injected, TIK authenticates everything."""

    tek: Secret
    tik: Secret

    def __post_init__(self) -> None:
        for name, key in (("TEK", self.tek), ("TIK", self.tik)):
            if len(key) != KEY_SIZE:
                raise FormatError(name, f"expected {KEY_SIZE} bytes, got {len(key)}")


def parse_session(data: bytes) -> SessionBlob:
    """Return the session in exactly 128 bytes. Every value is possible; nothing is checked."""
    record = SESSION.parse(data)
    return SessionBlob(*(record.raw(field.name) for field in SESSION.fields))


def derive_key(key: Secret, bits: int, label: str, context: bytes) -> Secret:
    """Return ``bits`` / 8 bytes of key material: SP 800-108 counter mode over HMAC-SHA256.

    Source: 55766 4.3. Counter and length are 32-bit little-endian, label and context separated by
    one zero byte.
    """
    material = b""
    counter = 1
    while len(material) * 8 < bits:
        block = (
            counter.to_bytes(4, "little")
            + label.encode("ascii")
            + b"\0"
            + context
            + bits.to_bytes(4, "little")
        )
        material += hmac.digest(key.reveal(), block, hashlib.sha256)
        counter += 1
    return Secret(material[: bits // 8])


def derive_wrapping_keys(shared: Secret, nonce: bytes) -> tuple[Secret, Secret]:
    """Return (KEK, KIK) from the shared secret Z and the session's nonce."""
    master = derive_key(shared, 128, "sev-master-secret", nonce)
    return derive_key(master, 128, "sev-kek", b""), derive_key(master, 128, "sev-kik", b"")


def compute_shared_secret(private: EllipticCurvePrivateKey, peer: EcPublicKey) -> Secret:
    """Return Z: the 48-byte big-endian x coordinate of the Diffie-Hellman point.

    The peer's point is checked to lie on P-384, or the private key could be worked out bit by
    bit. Raises ``FormatError``.
    """
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415  # costs 30 ms

    if peer.curve != P384:
        raise FormatError("Diffie-Hellman key", "the key is not on P-384")
    return Secret(private.exchange(ec.ECDH(), peer.load()))


def encode_godh(private: EllipticCurvePrivateKey) -> bytes:
    """Return the guest owner's Diffie-Hellman certificate, 2084 bytes.

    It is unsigned: the firmware takes the key from it and looks at no signature (55766 6.2).
    """
    return encode_sev_certificate(
        Usage.PDH, Algorithm.ECDH_SHA256, public_key_of(private.public_key())
    )


def godh_key(certificate: SevCertificate) -> EcPublicKey:
    """Return the key of a PDH or of the owner's certificate. Raises ``FormatError``."""
    if certificate.usage is not Usage.PDH or not isinstance(certificate.key, EcPublicKey):
        raise FormatError("Diffie-Hellman certificate", "the key is not for key agreement")
    if certificate.algorithm not in {Algorithm.ECDH_SHA256, Algorithm.ECDH_SHA384}:
        raise FormatError("Diffie-Hellman certificate", "the algorithm is not ECDH", offset=0x0C)
    return certificate.key


def seal_session(
    shared: Secret, keys: TransportKeys, policy: int, *, nonce: bytes, iv: bytes
) -> SessionBlob:
    """Return the session that carries ``keys`` under ``policy`` (32 bits).

    ``nonce`` and ``iv`` are 16 fresh random bytes each.
    """
    kek, kik = derive_wrapping_keys(shared, nonce)
    wrapped = aes_ctr(kek, iv, keys.tek.reveal() + keys.tik.reveal())
    return SessionBlob(
        nonce,
        wrapped,
        iv,
        hmac.digest(kik.reveal(), wrapped, hashlib.sha256),
        compute_policy_mac(keys.tik, policy),
    )


def open_session(blob: SessionBlob, shared: Secret, policy: int) -> TransportKeys:
    """Return the keys in a session, as the secure processor takes them at LAUNCH_START.

    Raises ``SignatureMismatch`` if the keys were not wrapped under this shared secret, or the
    policy is not the one that the owner meant.
    """
    kek, kik = derive_wrapping_keys(shared, blob.nonce)
    expected = hmac.digest(kik.reveal(), blob.wrap_tk, hashlib.sha256)
    if not hmac.compare_digest(expected, blob.wrap_mac):
        raise SignatureMismatch("the session was not made for this platform", check="session.wrap")
    plain = aes_ctr(kek, blob.wrap_iv, blob.wrap_tk)
    keys = TransportKeys(Secret(plain[:KEY_SIZE]), Secret(plain[KEY_SIZE:]))
    if not hmac.compare_digest(compute_policy_mac(keys.tik, policy), blob.policy_mac):
        raise SignatureMismatch("the session is for another guest policy", check="session.policy")
    return keys


def compute_policy_mac(tik: Secret, policy: int) -> bytes:
    """Return HMAC-SHA256 of the 32-bit little-endian guest policy, keyed by the TIK."""
    return hmac.digest(tik.reveal(), policy.to_bytes(4, "little"), hashlib.sha256)


def aes_ctr(key: Secret, iv: bytes, data: bytes) -> bytes:
    """Return ``data`` under AES-128-CTR; encryption and decryption are the same.

    The 16-byte ``iv`` is the first counter block (55766 chapter 2.2). One pair of key and IV must
    never cover two texts.
    """
    from cryptography.hazmat.primitives.ciphers import (  # noqa: PLC0415  # costs 30 ms
        Cipher,
        algorithms,
        modes,
    )

    if len(key) != KEY_SIZE or len(iv) != IV_SIZE:
        raise FormatError("AES-128-CTR", "key and IV have 16 bytes each")
    context = Cipher(algorithms.AES128(key.reveal()), modes.CTR(iv)).encryptor()
    return context.update(data) + context.finalize()
