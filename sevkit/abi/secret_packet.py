"""Launch secrets of SEV and SEV-ES: the secret table, and the packet that carries it.

A table is a GUIDed list, ``{GUID, u32 length, data}`` with lengths that include their own header,
padded with zeros to a multiple of 16. The packet is a header of 52 bytes (flags, IV, MAC) and the
table encrypted under the TEK. The MAC also covers the launch measurement, so a packet opens only
in the very launch that it was made for.

Sources: 55766 6.6 (LAUNCH_SECRET, packet header and MAC), OVMF's and Linux' ``efi-coco-secret``
(table). Lengths in the table are without the padding, as libvirt and sevctl write them; readers
accept both.
"""

from __future__ import annotations

import hashlib
import hmac
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.abi.layout import Layout, integer, raw
from sevkit.abi.session import IV_SIZE, TransportKeys, aes_ctr
from sevkit.errors import ExpectationError, FormatError, SignatureMismatch
from sevkit.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable

TABLE_GUID: Final = uuid.UUID("1e74f542-71dd-4d66-963e-ef4287ff173b")
#: The GUID under which firmware and initrds look for a disk passphrase.
DISK_GUID: Final = uuid.UUID("736869e5-84f0-4973-92ec-06879ce3da0b")
_HEADER_SIZE: Final = 20
_ALIGNMENT: Final = 16
#: What one LAUNCH_SECRET command takes, in bytes, padding included.
MAX_TABLE_SIZE: Final = 16384
#: Size of the launch measurement that the MAC covers: HMAC only, without its nonce.
MEASURE_SIZE: Final = 32

PACKET_HEADER: Final = Layout(
    "launch secret header",
    52,
    (integer(0x00, 4, "flags"), raw(0x04, 16, "iv"), raw(0x14, 32, "mac")),
)


@final
@dataclass(frozen=True, slots=True)
class SecretEntry:
    """One secret and the GUID by which the guest finds it."""

    guid: uuid.UUID
    data: Secret


@final
@dataclass(frozen=True, slots=True)
class SecretPacket:
    """What LAUNCH_SECRET takes: 52 bytes of header and the ciphertext. Nothing in it is secret."""

    header: bytes
    ciphertext: bytes


def parse_guid(text: str) -> uuid.UUID:
    """Return the GUID in its one usual form, 8-4-4-4-12 hex digits. Raises ``FormatError``."""
    try:
        guid = uuid.UUID(text)
    except ValueError as error:
        raise FormatError("GUID", "expected 8-4-4-4-12 hex digits") from error
    if str(guid) != text.lower():
        raise FormatError("GUID", "expected 8-4-4-4-12 hex digits")
    return guid


def encode_secret_table(entries: Iterable[SecretEntry]) -> Secret:
    """Return the table, padded to a multiple of 16.

    Refuses an empty table, an empty secret (a guest that takes it for a key would encrypt with
    nothing), the nil GUID (it ends a table for some readers), the table's own GUID, one GUID
    twice, and more than 16,384 bytes. Raises ``FormatError``.
    """
    body = b""
    seen: set[uuid.UUID] = set()
    for entry in entries:
        if entry.guid.int == 0 or entry.guid == TABLE_GUID:
            raise FormatError("secret table", f"GUID {entry.guid} cannot name a secret")
        if entry.guid in seen:
            raise FormatError("secret table", f"GUID {entry.guid} occurs twice")
        if len(entry.data) == 0:
            raise FormatError("secret table", f"the secret for {entry.guid} is empty")
        seen.add(entry.guid)
        size = _HEADER_SIZE + len(entry.data)
        if _padded(_HEADER_SIZE + len(body) + size) > MAX_TABLE_SIZE:
            raise FormatError(
                "secret table",
                f"larger than {MAX_TABLE_SIZE} bytes with its headers and padding",
                offset=MAX_TABLE_SIZE,
            )
        body += entry.guid.bytes_le + size.to_bytes(4, "little") + entry.data.reveal()
    if not seen:
        raise FormatError("secret table", "there is no secret in it")
    total = _HEADER_SIZE + len(body)
    table = TABLE_GUID.bytes_le + total.to_bytes(4, "little") + body
    return Secret(table.ljust(_padded(total), b"\0"))


def parse_secret_table(table: Secret) -> tuple[SecretEntry, ...]:
    """Return the entries of a table, as a guest reads them. Raises ``FormatError``.

    The length in the table's header may or may not include the padding: KubeVirt's own test
    writes it padded, libvirt and sevctl do not.
    """
    data = table.reveal()
    if not _HEADER_SIZE <= len(data) <= MAX_TABLE_SIZE:
        raise FormatError("secret table", f"{len(data)} bytes are not a table", offset=0)
    total = int.from_bytes(data[16:20], "little")
    if data[:16] != TABLE_GUID.bytes_le:
        raise FormatError("secret table", "does not start with the table's GUID", offset=0)
    if not _HEADER_SIZE <= total <= len(data):
        raise FormatError("secret table", f"length {total} is out of range", offset=16)
    if any(data[total:]):
        raise FormatError("secret table", "the padding is not zero", offset=total)
    entries: list[SecretEntry] = []
    seen: set[uuid.UUID] = set()
    offset = _HEADER_SIZE
    while offset < total and any(data[offset:total]):
        if total - offset < _HEADER_SIZE:
            raise FormatError("secret table", "an entry is cut off", offset=offset)
        guid = uuid.UUID(bytes_le=data[offset : offset + 16])
        size = int.from_bytes(data[offset + 16 : offset + 20], "little")
        if guid.int == 0 or guid in seen:
            raise FormatError("secret table", f"GUID {guid} is nil or occurs twice", offset=offset)
        if not _HEADER_SIZE < size <= total - offset:
            raise FormatError("secret table", f"length {size} is out of range", offset=offset + 16)
        seen.add(guid)
        entries.append(SecretEntry(guid, Secret(data[offset + _HEADER_SIZE : offset + size])))
        offset += size
    return tuple(entries)


def check_secret_area(table: Secret, area: tuple[int, int] | None) -> None:
    """Refuse a table that the firmware has no room for, before a session is spent on it.

    ``area`` is (base, size) of the firmware's launch secret area in bytes, or None where it
    declares none; a base or size of 0 means the same. Raises ``ExpectationError``.
    """
    if area is None or 0 in area:
        raise ExpectationError(
            "secret.area: the firmware has no launch secret area",
            hint="use a firmware that declares one, such as OVMF.amdsev.fd",
        )
    if len(table) > area[1]:
        raise ExpectationError(
            f"secret.area: the table needs {len(table)} bytes and the firmware's launch secret "
            f"area has {area[1]}",
            hint="inject a short key and let the guest fetch or unwrap the rest with it",
        )


def seal_packet(keys: TransportKeys, table: Secret, *, measure: bytes, iv: bytes) -> SecretPacket:
    """Return the packet that injects ``table`` into the launch with this ``measure``.

    ``measure`` is the HMAC of the launch measurement, 32 bytes, which must have been verified;
    ``iv`` is 16 fresh random bytes: one IV under one TEK covers one table, ever.
    """
    if len(measure) != MEASURE_SIZE:
        raise FormatError("launch measurement", f"expected {MEASURE_SIZE} bytes of HMAC")
    if not table or len(table) % _ALIGNMENT or len(table) > MAX_TABLE_SIZE:
        raise FormatError("secret table", f"{len(table)} bytes cannot be injected")
    if len(iv) != IV_SIZE:
        raise FormatError("launch secret header", f"the IV has {IV_SIZE} bytes", offset=0x04)
    ciphertext = aes_ctr(keys.tek, iv, table.reveal())
    mac = _packet_mac(keys, 0, iv, ciphertext, measure)
    return SecretPacket(PACKET_HEADER.encode({"flags": 0, "iv": iv, "mac": mac}), ciphertext)


def open_packet(keys: TransportKeys, packet: SecretPacket, *, measure: bytes) -> Secret:
    """Return the table in a packet, as the secure processor takes it at LAUNCH_SECRET.

    Raises ``FormatError`` for sizes, ``SignatureMismatch`` if it was not made for this launch, and
    ``FormatError`` for flags, which are authentic then: no firmware in the field does compression.
    """
    record = PACKET_HEADER.parse(packet.header)
    flags = record.int("flags")
    size = len(packet.ciphertext)
    if not 0 < size <= MAX_TABLE_SIZE or size % _ALIGNMENT:
        raise FormatError("launch secret", f"{size} bytes cannot be injected")
    expected = _packet_mac(keys, flags, record.raw("iv"), packet.ciphertext, measure)
    if not hmac.compare_digest(expected, record.raw("mac")):
        raise SignatureMismatch("the packet was not made for this launch", check="secret.mac")
    if flags:
        raise FormatError(PACKET_HEADER.name, "compressed or unknown flags are set", offset=0)
    return Secret(aes_ctr(keys.tek, record.raw("iv"), packet.ciphertext))


def _packet_mac(
    keys: TransportKeys, flags: int, iv: bytes, ciphertext: bytes, measure: bytes
) -> bytes:
    length = len(ciphertext).to_bytes(4, "little")
    covered = b"\x01" + flags.to_bytes(4, "little") + iv + length + length + ciphertext + measure
    return hmac.digest(keys.tik.reveal(), covered, hashlib.sha256)


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
