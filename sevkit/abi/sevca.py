"""AMD's own certificates for SEV and SEV-ES: ARK (root) and ASK (signs every CEK of a line).

A header of 64 bytes, then exponent, modulus and signature, each as long as the key: 832 bytes for
Naples (2048 bits), 1600 for every later line (4096 bits). AMD once published the Naples ARK without
its signature, 576 bytes; it is recognised here and can be accepted by its pinned bytes only.
Source: 55766 appendix B.1 (AMD root and signing keys).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, final

from sevkit.abi.layout import Layout, integer, raw, zero
from sevkit.abi.rsa import RsaPublicKey, check_rsa
from sevkit.abi.sevcert import Usage
from sevkit.errors import FormatError

HEADER: Final = Layout(
    "AMD signing key certificate",
    64,
    (
        integer(0x00, 4, "version"),
        raw(0x04, 16, "key_id"),
        raw(0x14, 16, "certifying_id"),
        integer(0x24, 4, "key_usage"),
        zero(0x28, 16),
        integer(0x38, 4, "pubexp_size"),
        integer(0x3C, 4, "modulus_size"),
    ),
)
#: Total size in bytes by modulus size in bits, and that of the Naples ARK without a signature.
SIZES: Final = {2048: 832, 4096: 1600}
UNSIGNED_NAPLES_ARK_SIZE: Final = 576


@final
@dataclass(frozen=True, slots=True)
class CaCertificate:
    """An ARK or ASK; ``data`` is what was received, ``signature`` is empty only in one old file."""

    data: bytes
    key_id: bytes
    certifying_id: bytes
    usage: Usage
    key: RsaPublicKey
    signature: bytes

    @property
    def body(self) -> bytes:
        """The bytes that the signature covers: header, exponent and modulus."""
        return self.data[: HEADER.size + 2 * self.key.bits // 8]

    @property
    def sha256(self) -> bytes:
        """SHA-256 of the whole certificate as received: what a root is pinned by."""
        return hashlib.sha256(self.data).digest()


@final
@dataclass(frozen=True, slots=True)
class CaChain:
    """The two certificates above a CEK."""

    ask: CaCertificate
    ark: CaCertificate


def parse_ca_certificate(data: bytes, *, name: str = HEADER.name) -> CaCertificate:
    """Return the ARK or ASK in exactly 832 or 1600 bytes, or 576 for an unsigned Naples ARK.

    Raises ``FormatError``.
    """
    if len(data) < HEADER.size:
        raise FormatError(name, f"expected 832 or 1600 bytes, got {len(data)}", offset=len(data))
    try:
        record = HEADER.parse(data[: HEADER.size])
    except FormatError as error:
        raise FormatError(name, error.message.partition(": ")[2], offset=error.offset) from error
    if record.int("version") != 1:
        raise FormatError(name, f"version {record.int('version')} is not 1", offset=0)
    usage = record.int("key_usage")
    if usage not in {Usage.ARK, Usage.ASK}:
        raise FormatError(name, f"usage {usage:#x} is neither ARK nor ASK", offset=0x24)
    bits = record.int("modulus_size")
    if bits not in SIZES:
        raise FormatError(name, f"modulus size {bits} is not 2048 or 4096", offset=0x3C)
    if record.int("pubexp_size") != bits:
        raise FormatError(name, "exponent and modulus differ in size", offset=0x38)
    unsigned = len(data) == UNSIGNED_NAPLES_ARK_SIZE and bits == 2048 and usage == Usage.ARK
    if len(data) != SIZES[bits] and not unsigned:
        raise FormatError(
            name,
            f"expected {SIZES[bits]} bytes, got {len(data)}",
            offset=min(len(data), SIZES[bits]),
        )
    width = bits // 8
    key = check_rsa(
        name, bits, data[64 : 64 + width], data[64 + width : 64 + 2 * width], offset=0x3C
    )
    return CaCertificate(
        data,
        record.raw("key_id"),
        record.raw("certifying_id"),
        Usage(usage),
        key,
        data[64 + 2 * width :],
    )


def encode_ca_body(key_id: bytes, certifying_id: bytes, usage: Usage, key: RsaPublicKey) -> bytes:
    """Return the bytes that the issuer signs; the certificate is these and the signature."""
    width = key.bits // 8
    header = HEADER.encode(
        {
            "version": 1,
            "key_id": key_id,
            "certifying_id": certifying_id,
            "key_usage": usage,
            "pubexp_size": key.bits,
            "modulus_size": key.bits,
        }
    )
    return header + key.exponent.to_bytes(width, "little") + key.modulus.to_bytes(width, "little")


def parse_ca_chain(data: bytes) -> CaChain:
    """Return the chain in ``ask ‖ ark``, as AMD publishes it and as sevctl appends it.

    3200 bytes, 1664 for Naples, or 1408 where the Naples ARK lacks its signature. Raises
    ``FormatError``. Whether the first is an ASK and the second an ARK is for the verifier to say.
    """
    sizes = {3200: 1600, 1664: 832, 1408: 832}
    split = sizes.get(len(data))
    if split is None:
        raise FormatError(
            "ask ‖ ark", f"expected 3200 or 1664 bytes, got {len(data)}", offset=len(data)
        )
    return CaChain(
        parse_ca_certificate(data[:split], name="ASK"),
        parse_ca_certificate(data[split:], name="ARK"),
    )
