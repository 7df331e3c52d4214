"""SEV certificates: CEK, OCA, PEK, PDH and the guest owner's Diffie-Hellman key, 2084 bytes each.

A certificate is a signed body of 1044 bytes (version, API level, usage, algorithm, public key)
and two signature slots. It has no dates, no names and no serial number: usage and key are all it
says. Source: 55766 appendix C.1 (SEV certificate), tables of usages and algorithms.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, final

from sevkit.abi.layout import Layout, check_zero, integer, raw, zero
from sevkit.abi.rsa import RsaPublicKey, check_rsa
from sevkit.abi.signature import EcPublicKey, encode_public_key, parse_public_key
from sevkit.errors import FormatError

SIZE: Final = 2084
#: Size in bytes of the part that signatures cover: everything before the first slot.
BODY_SIZE: Final = 0x414
#: Where the public key stands, and how many bytes it takes with its padding.
KEY_OFFSET: Final = 0x10
KEY_SIZE: Final = 1028

SEV_CERTIFICATE: Final = Layout(
    "SEV certificate",
    SIZE,
    (
        integer(0x000, 4, "version"),
        integer(0x004, 1, "api_major"),
        integer(0x005, 1, "api_minor"),
        zero(0x006, 2),
        integer(0x008, 4, "pubkey_usage"),
        integer(0x00C, 4, "pubkey_algo"),
        raw(0x010, 1028, "pubkey"),
        integer(0x414, 4, "sig1_usage"),
        integer(0x418, 4, "sig1_algo"),
        raw(0x41C, 512, "sig1"),
        integer(0x61C, 4, "sig2_usage"),
        integer(0x620, 4, "sig2_algo"),
        raw(0x624, 512, "sig2"),
    ),
)
_RSA_KEY: Final = Layout(
    "RSA public key",
    KEY_SIZE,
    (integer(0x000, 4, "modulus_size"), raw(0x004, 512, "pubexp"), raw(0x204, 512, "modulus")),
)
_SLOTS: Final = (("sig1", 0x414), ("sig2", 0x61C))
_SLOT_SIZE: Final = 520


class Usage(IntEnum):
    """What a key is for, and so who signed."""

    ARK = 0x0
    ASK = 0x13
    INVALID = 0x1000
    OCA = 0x1001
    PEK = 0x1002
    PDH = 0x1003
    CEK = 0x1004


class Algorithm(IntEnum):
    """What a key does and with which hash; ``NONE`` stands in an empty signature slot."""

    NONE = 0x0
    RSA_SHA256 = 0x1
    ECDSA_SHA256 = 0x2
    ECDH_SHA256 = 0x3
    RSA_SHA384 = 0x101
    ECDSA_SHA384 = 0x102
    ECDH_SHA384 = 0x103


RSA: Final = frozenset({Algorithm.RSA_SHA256, Algorithm.RSA_SHA384})
ECDSA: Final = frozenset({Algorithm.ECDSA_SHA256, Algorithm.ECDSA_SHA384})
ECDH: Final = frozenset({Algorithm.ECDH_SHA256, Algorithm.ECDH_SHA384})
SHA384: Final = frozenset({Algorithm.RSA_SHA384, Algorithm.ECDSA_SHA384, Algorithm.ECDH_SHA384})


@final
@dataclass(frozen=True, slots=True)
class CertificateSignature:
    """One filled signature slot: who says he signed, how, and 512 bytes in AMD's format.

    ``offset`` is where the 512 bytes stood in the certificate. Nothing here is verified; whether
    the bytes are a signature at all is found out when they are checked against a key.
    """

    usage: Usage
    algorithm: Algorithm
    data: bytes
    offset: int


@final
@dataclass(frozen=True, slots=True)
class SevCertificate:
    """One parsed certificate; ``data`` is what was received, and what signatures cover."""

    data: bytes
    api_major: int
    api_minor: int
    usage: Usage
    algorithm: Algorithm
    key: EcPublicKey | RsaPublicKey
    signatures: tuple[CertificateSignature, ...]

    @property
    def body(self) -> bytes:
        """The 1044 bytes that both signatures cover."""
        return self.data[:BODY_SIZE]

    @property
    def key_sha256(self) -> bytes:
        """SHA-256 of the public key field: the 1028 bytes at offset 0x10, padding included.

        This is the name of a chip (of the CEK) and of a platform owner (of the OCA) in sevkit's
        lists. The key alone is hashed, because the rest of a CEK differs between the copy that
        the firmware exports and the one that the key service signs.
        """
        return hashlib.sha256(self.data[KEY_OFFSET : KEY_OFFSET + KEY_SIZE]).digest()


def parse_sev_certificate(data: bytes, *, name: str = "SEV certificate") -> SevCertificate:
    """Return the certificate in exactly 2084 bytes; ``name`` is how errors call it.

    Source: 55766 appendix C.1. Raises ``FormatError`` for another version, unknown usages and
    algorithms, a key that does not fit its algorithm, and any reserved or padding byte that is
    not zero, with one exception: what follows the key of an OCA. Owners make it with tools of their
    own, some of which left memory there, firmware does not look, and the signatures cover it as it
    is. A slot without a signature is marked INVALID; in a CEK it may also be all zero. That the
    point lies on its curve is found out when the key is loaded.
    """
    try:
        record = SEV_CERTIFICATE.parse(data)
    except FormatError as error:
        raise _renamed(error, name) from error
    if record.int("version") != 1:
        raise FormatError(name, f"version {record.int('version')} is not 1", offset=0)
    usage = _usage(record.int("pubkey_usage"), name, 0x08)
    if usage is Usage.INVALID:
        raise FormatError(name, "the key has no usage", offset=0x08)
    algorithm = _algorithm(record.int("pubkey_algo"), name, 0x0C)
    if algorithm is Algorithm.NONE:
        raise FormatError(name, "the key has no algorithm", offset=0x0C)
    key: EcPublicKey | RsaPublicKey
    if algorithm in RSA:
        key = _parse_rsa_key(record.raw("pubkey"), name)
    else:
        key = parse_public_key(
            record.raw("pubkey"),
            structure=name,
            offset=KEY_OFFSET,
            check_reserved=usage is not Usage.OCA,
        )
    signatures = []
    for slot, offset in _SLOTS:
        if usage is Usage.CEK and not any(data[offset : offset + _SLOT_SIZE]):
            continue  # how firmware may leave the slots that only AMD's key service can fill
        filled = _parse_slot(
            name, data, record.int(f"{slot}_usage"), record.int(f"{slot}_algo"), offset
        )
        if filled is not None:
            signatures.append(filled)
    return SevCertificate(
        data,
        record.int("api_major"),
        record.int("api_minor"),
        usage,
        algorithm,
        key,
        tuple(signatures),
    )


def encode_sev_certificate(
    usage: Usage,
    algorithm: Algorithm,
    key: EcPublicKey | RsaPublicKey,
    *,
    api: tuple[int, int] = (0, 0),
    signatures: tuple[tuple[Usage, Algorithm, bytes], ...] = (),
) -> bytes:
    """Return the 2084 bytes of a certificate; slots without a signature are marked empty.

    ``api`` is 0.0 for a certificate that no SEV firmware made, as a guest owner's.
    """
    if len(signatures) > len(_SLOTS):
        raise FormatError(SEV_CERTIFICATE.name, f"two signatures at most, got {len(signatures)}")
    empty = (Usage.INVALID, Algorithm.NONE, bytes(512))
    slots = (*signatures, empty, empty)
    pubkey = encode_public_key(key) if isinstance(key, EcPublicKey) else _encode_rsa_key(key)
    return SEV_CERTIFICATE.encode(
        {
            "version": 1,
            "api_major": api[0],
            "api_minor": api[1],
            "pubkey_usage": usage,
            "pubkey_algo": algorithm,
            "pubkey": pubkey,
            "sig1_usage": slots[0][0],
            "sig1_algo": slots[0][1],
            "sig1": slots[0][2],
            "sig2_usage": slots[1][0],
            "sig2_algo": slots[1][1],
            "sig2": slots[1][2],
        }
    )


def _parse_slot(
    name: str, data: bytes, usage: int, algorithm: int, offset: int
) -> CertificateSignature | None:
    who = _usage(usage, name, offset)
    how = _algorithm(algorithm, name, offset + 4)
    if who is Usage.INVALID:
        if how is not Algorithm.NONE:
            raise FormatError(name, "an empty signature slot has an algorithm", offset=offset + 4)
        check_zero(name, data, offset + 8, 512)
        return None
    if how not in RSA and how not in ECDSA:
        raise FormatError(name, f"{how.name} cannot sign", offset=offset + 4)
    return CertificateSignature(who, how, data[offset + 8 : offset + 520], offset + 8)


def _parse_rsa_key(data: bytes, name: str) -> RsaPublicKey:
    record = _RSA_KEY.parse(data)
    return check_rsa(
        name,
        record.int("modulus_size"),
        record.raw("pubexp"),
        record.raw("modulus"),
        offset=KEY_OFFSET,
    )


def _encode_rsa_key(key: RsaPublicKey) -> bytes:
    return _RSA_KEY.encode(
        {
            "modulus_size": key.bits,
            "pubexp": key.exponent.to_bytes(512, "little"),
            "modulus": key.modulus.to_bytes(512, "little"),
        }
    )


def _usage(value: int, name: str, offset: int) -> Usage:
    try:
        return Usage(value)
    except ValueError as error:
        raise FormatError(name, f"usage {value:#x} is not known", offset=offset) from error


def _algorithm(value: int, name: str, offset: int) -> Algorithm:
    try:
        return Algorithm(value)
    except ValueError as error:
        raise FormatError(name, f"algorithm {value:#x} is not known", offset=offset) from error


def _renamed(error: FormatError, name: str) -> FormatError:
    _, _, text = error.message.partition(": ")
    return FormatError(name, text, offset=error.offset)
