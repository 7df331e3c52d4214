"""Messages between an SNP guest and the secure processor, and the report request they carry.

A message is a header of 96 bytes and a payload under AES-256-GCM, keyed by the VMPCK of the VMPL
that speaks: 32 bytes that the firmware put into the guest's secrets page at launch. The sequence
number is the IV, so none may ever be used twice. The host carries messages and can read none.

Sources: 56860 8.26 (SNP_GUEST_REQUEST, message header, types) and 7.3 (MSG_REPORT_REQ and _RSP,
key selection), table 26 ff.; Linux' ``include/uapi/linux/sev-guest.h`` for the same structures.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final, final

from sevkit.abi.layout import Field, Layout, integer, raw, zero
from sevkit.errors import FormatError, SignatureMismatch

if TYPE_CHECKING:
    from sevkit.secret import Secret

HEADER_SIZE: Final = 96
MAX_MESSAGE: Final = 4096
VMPCK_SIZE: Final = 32
VMPLS: Final = 4
_TAG_SIZE: Final = 16
#: What the tag covers of the header: everything from ALGO on.
_AAD: Final = slice(0x30, 0x60)
_AES_256_GCM: Final = 1
_BLOCK: Final = 16

HEADER: Final = Layout(
    "guest message header",
    HEADER_SIZE,
    (
        raw(0x00, 16, "tag"),
        zero(0x10, 16),
        integer(0x20, 8, "seqno"),
        zero(0x28, 8),
        integer(0x30, 1, "algo"),
        integer(0x31, 1, "header_version"),
        integer(0x32, 2, "header_size"),
        integer(0x34, 1, "type"),
        integer(0x35, 1, "version"),
        integer(0x36, 2, "size"),
        zero(0x38, 4),
        integer(0x3C, 1, "vmpck"),
        zero(0x3D, 35),
    ),
)
REPORT_REQ: Final = Layout(
    "MSG_REPORT_REQ",
    96,
    (
        raw(0x00, 64, "report_data"),
        integer(0x40, 4, "vmpl"),
        integer(0x44, 4, "key_select"),
        zero(0x48, 24),
    ),
)
REPORT_RSP: Final = Layout(
    "MSG_REPORT_RSP",
    1216,
    (
        integer(0x00, 4, "status"),
        integer(0x04, 4, "size"),
        Field(0x08, 24, "reserved", "zero"),
        raw(0x20, 1184, "report"),
    ),
)


class MessageType(IntEnum):
    """What a message asks or answers."""

    CPUID_REQ = 1
    CPUID_RSP = 2
    KEY_REQ = 3
    KEY_RSP = 4
    REPORT_REQ = 5
    REPORT_RSP = 6
    TSC_INFO_REQ = 17
    TSC_INFO_RSP = 18


class KeySelect(IntEnum):
    """Which key is to sign: the VLEK if there is one, else the VCEK; or one of them by name."""

    VLEK_ELSE_VCEK = 0
    VCEK = 1
    VLEK = 2


@final
@dataclass(frozen=True, slots=True)
class Message:
    """One message in the clear: ``seqno`` is its sequence number, ``vmpck`` the key's index."""

    kind: int
    payload: bytes
    seqno: int
    vmpck: int = 0
    version: int = 1


def seal_message(message: Message, key: Secret) -> bytes:
    """Return header and ciphertext of ``message`` under a VMPCK of 32 bytes."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415  # costs 30 ms

    values: dict[str, int | bytes] = {
        "tag": bytes(_TAG_SIZE),
        "seqno": message.seqno,
        "algo": _AES_256_GCM,
        "header_version": 1,
        "header_size": HEADER_SIZE,
        "type": message.kind,
        "version": message.version,
        "size": len(message.payload),
        "vmpck": message.vmpck,
    }
    header = HEADER.encode(values)
    sealed = AESGCM(key.reveal()).encrypt(_iv(message.seqno), message.payload, header[_AAD])
    return sealed[-_TAG_SIZE:] + header[_TAG_SIZE:] + sealed[:-_TAG_SIZE]


def read_header(data: bytes) -> Message:
    """Return the message of ``data`` with its payload still encrypted. Raises ``FormatError``.

    Nothing of it is authentic before ``open_message``.
    """
    if not HEADER_SIZE <= len(data) <= MAX_MESSAGE:
        message = f"expected {HEADER_SIZE} to {MAX_MESSAGE} bytes, got {len(data)}"
        raise FormatError(HEADER.name, message, offset=min(len(data), MAX_MESSAGE))
    record = HEADER.parse(data[:HEADER_SIZE])
    for name, wanted, offset in (
        ("algo", _AES_256_GCM, 0x30),
        ("header_version", 1, 0x31),
        ("header_size", HEADER_SIZE, 0x32),
    ):
        if record.int(name) != wanted:
            raise FormatError(
                HEADER.name, f"{name} is {record.int(name)}, not {wanted}", offset=offset
            )
    if record.int("vmpck") >= VMPLS:
        raise FormatError(HEADER.name, f"there is no VMPCK {record.int('vmpck')}", offset=0x3C)
    size = record.int("size")
    if not 0 < size <= len(data) - HEADER_SIZE or size % _BLOCK:
        raise FormatError(HEADER.name, f"a payload of {size} bytes is impossible", offset=0x36)
    return Message(
        record.int("type"),
        data[HEADER_SIZE : HEADER_SIZE + size],
        record.int("seqno"),
        record.int("vmpck"),
        record.int("version"),
    )


def open_message(data: bytes, key: Secret) -> Message:
    """Return the message in ``data``, decrypted and authentic under ``key``.

    Raises ``FormatError``, and ``SignatureMismatch`` if the tag is not right.
    """
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415  # costs 30 ms
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415  # the same

    found = read_header(data)
    try:
        plain = AESGCM(key.reveal()).decrypt(
            _iv(found.seqno), found.payload + data[:_TAG_SIZE], data[_AAD]
        )
    except InvalidTag as error:
        raise SignatureMismatch(
            "the guest message is not authentic", check="message.tag"
        ) from error
    return Message(found.kind, plain, found.seqno, found.vmpck, found.version)


def encode_report_request(
    report_data: bytes, *, vmpl: int = 0, key_select: int = KeySelect.VLEK_ELSE_VCEK
) -> bytes:
    """Return the 96-byte payload that asks for a report over ``report_data`` (64 bytes)."""
    return REPORT_REQ.encode({"report_data": report_data, "vmpl": vmpl, "key_select": key_select})


def parse_report_response(payload: bytes) -> tuple[int, bytes]:
    """Return the firmware's status and the report (1184 bytes) in a MSG_REPORT_RSP payload."""
    record = REPORT_RSP.parse(payload)
    return record.int("status"), record.raw("report")


def _iv(seqno: int) -> bytes:
    return seqno.to_bytes(12, "little")
