"""What the firmware looks at in certificates that it is given, and in which order.

Source: 55766 5.8 (PEK_CERT_IMPORT), 6.2 (LAUNCH_START) and appendix C. An import tells two
mistakes apart. A certificate whose key cannot be used, that none of those has signed who should, or
that is for another key is INVALID_CERTIFICATE; a signature that is there and does not verify, or a
slot that is half empty, is BAD_SIGNATURE. Of the two slots those count whose usage and algorithm
are the signer's, and where both are, the second decides. Version and usage come after signatures.

Of a guest owner's DH certificate only the body is looked at: nobody signs it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from sevkit.abi.firmware_status import CommandError, FirmwareStatus
from sevkit.abi.rsa import RsaPublicKey
from sevkit.abi.session import godh_key
from sevkit.abi.sevcert import (
    BODY_SIZE,
    ECDH,
    RSA,
    SHA384,
    Algorithm,
    SevCertificate,
    Usage,
    parse_sev_certificate,
)
from sevkit.abi.signature import parse_signature
from sevkit.attest.sev_links import Link
from sevkit.errors import FormatError

if TYPE_CHECKING:
    from sevkit.abi.signature import EcPublicKey

_SLOTS: Final = (0x414, 0x61C)
_SIGNATURE: Final = 512
_HEAD: Final = struct.Struct("<II")
_EMPTY: Final = _HEAD.pack(Usage.INVALID, Algorithm.NONE) + bytes(_SIGNATURE)
_VERSION: Final = (1).to_bytes(4, "little")
_ALGORITHM: Final = slice(0x0C, 0x10)
_BEHIND_QY: Final = 0x14 + 72 + 72


class _Slot(NamedTuple):
    offset: int
    usage: int
    algorithm: int
    signature: bytes


def check_import(command: str, pek: bytes, oca: bytes, current_pek: bytes) -> int:
    """Return the offset of the slot in ``pek`` that is free for the CEK's signature.

    Raises ``CommandError``.
    """
    owner = _read_key(command, oca)
    _check_signed(command, oca, owner)
    if oca[:4] != _VERSION or owner.usage is not Usage.OCA:
        raise CommandError(command, FirmwareStatus.INVALID_CERTIFICATE, "not an OCA")
    _check_signed(command, pek, owner)
    if pek[:BODY_SIZE] != current_pek[:BODY_SIZE]:
        raise CommandError(command, FirmwareStatus.INVALID_CERTIFICATE, "another PEK")
    free = [slot.offset for slot in _slots(pek) if slot.usage == Usage.INVALID]
    if not free:
        raise CommandError(command, FirmwareStatus.INVALID_CERTIFICATE, "no slot for the CEK")
    return free[0]


def read_dh_key(command: str, godh: bytes) -> EcPublicKey:
    """Return the key in a guest owner's DH certificate (2084 bytes). Raises ``CommandError``."""
    certificate = _read_key(command, godh)
    try:
        key = godh_key(certificate)
    except FormatError as error:
        raise CommandError(command, FirmwareStatus.INVALID_CERTIFICATE, error.message) from error
    if godh[:4] != _VERSION or certificate.algorithm is not Algorithm.ECDH_SHA256:
        raise CommandError(command, FirmwareStatus.INVALID_CERTIFICATE, "version or algorithm")
    return key


def copy_signature(source: bytes, usage: Usage, target: bytes, slot: int) -> bytes:
    """Return ``target`` with the signature by ``usage`` on ``source`` in its slot at ``slot``."""
    found = next(each for each in _slots(source) if each.usage == usage)
    filled = _HEAD.pack(found.usage, found.algorithm) + found.signature
    return target[:slot] + filled + target[slot + len(filled) :]


def strip_signatures(certificate: bytes) -> bytes:
    """Return a certificate with both slots empty."""
    return certificate[:BODY_SIZE] + _EMPTY * len(_SLOTS)


def _slots(certificate: bytes) -> tuple[_Slot, ...]:
    found = []
    for offset in _SLOTS:
        usage, algorithm = _HEAD.unpack_from(certificate, offset)
        start = offset + _HEAD.size
        found.append(_Slot(offset, usage, algorithm, certificate[start : start + _SIGNATURE]))
    return tuple(found)


def _read_key(command: str, data: bytes) -> SevCertificate:
    """Return usage, algorithm and key; version, reserved bytes and signatures are not looked at.

    Nor is what follows a point in its field: sevctl leaves there what was in its memory.
    """
    body = _VERSION + data[4:6] + bytes(2) + data[8:BODY_SIZE]
    if int.from_bytes(data[_ALGORITHM], "little") not in RSA:
        body = body[:_BEHIND_QY].ljust(BODY_SIZE, b"\0")
    readable = body + _EMPTY * len(_SLOTS)
    try:
        certificate = parse_sev_certificate(readable)
        certificate.key.load()
    except FormatError as error:
        raise CommandError(command, FirmwareStatus.INVALID_CERTIFICATE, error.message) from error
    return certificate


def _check_signed(command: str, certificate: bytes, signer: SevCertificate) -> None:
    slots = _slots(certificate)
    if any(
        (slot.usage == Usage.INVALID) is not (slot.algorithm == Algorithm.NONE) for slot in slots
    ):
        raise CommandError(command, FirmwareStatus.BAD_SIGNATURE, "a slot is half empty")
    by = (signer.usage, signer.algorithm if signer.algorithm not in ECDH else None)
    matching = [slot for slot in slots if (slot.usage, slot.algorithm) == by]
    if not matching:
        reason = f"not signed by an {signer.usage.name} with {signer.algorithm.name}"
        raise CommandError(command, FirmwareStatus.INVALID_CERTIFICATE, reason)
    if not _holds(matching[-1].signature, certificate[:BODY_SIZE], signer):
        raise CommandError(command, FirmwareStatus.BAD_SIGNATURE)


def _holds(signature: bytes, body: bytes, signer: SevCertificate) -> bool:
    sha384 = signer.algorithm in SHA384
    if isinstance(signer.key, RsaPublicKey):
        width = signer.key.bits // 8
        if any(signature[width:]):
            return False
        return Link(signer.key, signature[:width], sha384, body).holds()
    try:
        parsed = parse_signature(signature, curve=signer.key.curve)
    except FormatError:
        return False
    return Link(signer.key, parsed, sha384, body).holds()
