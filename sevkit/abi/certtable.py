"""The certificate table of an extended guest request: GUID, offset, length, then the blobs.

Source: GHCB specification 56421 4.1.8.1 (SNP Extended Guest Request); the same bytes are the
``auxblob`` of configfs-tsm. A table is written by the host, so it is hostile input. Unlike those of
OVMF and of the secret table, its GUIDs are in network byte order: the order in which AMD's
``snphost`` writes them and every reader expects them.
"""

from __future__ import annotations

import struct
import uuid
from typing import TYPE_CHECKING, Final

from sevkit.abi.layout import check_zero
from sevkit.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME: Final = "certificate table"
ENTRY_SIZE: Final = 24
MAX_ENTRIES: Final = 32
MAX_SIZE: Final = 1 << 20

VCEK: Final = uuid.UUID("63da758d-e664-4564-adc5-f4b93be8accd")
VLEK: Final = uuid.UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1")
ASK: Final = uuid.UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782")
ARK: Final = uuid.UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae")
CRL: Final = uuid.UUID("92f81bc3-5811-4d3d-97ff-d19f88dc67ea")
PLATFORM: Final = uuid.UUID("ecae0c0f-9502-43b1-afa2-0ae2e0d565b6")

NAMES: Final = {
    VCEK: "VCEK",
    VLEK: "VLEK",
    ASK: "ASK",
    ARK: "ARK",
    CRL: "CRL",
    PLATFORM: "extra platform info",
}

_NIL: Final = uuid.UUID(int=0)
_ENTRY: Final = struct.Struct("<16sII")


def parse_cert_table(data: bytes) -> dict[uuid.UUID, bytes]:
    """Return the blobs by GUID. Empty data is an empty table.

    Refuses a table without its closing zero entry, blobs that reach outside the data, into the
    entries or into each other, a GUID that occurs twice, more than 32 entries, and bytes that
    belong to no entry and are not zero, in which another reader might find something.
    Raises ``FormatError``.
    """
    if not data:
        return {}
    if len(data) > MAX_SIZE:
        raise FormatError(NAME, f"larger than {MAX_SIZE} bytes", offset=MAX_SIZE)
    entries: list[tuple[uuid.UUID, int, int]] = []
    position = 0
    while True:
        if position + ENTRY_SIZE > len(data) or len(entries) > MAX_ENTRIES:
            raise FormatError(NAME, "no closing zero entry", offset=position)
        guid_bytes, offset, length = _ENTRY.unpack_from(data, position)
        guid = _guid(guid_bytes)
        position += ENTRY_SIZE
        if guid == _NIL:
            if offset or length:
                raise FormatError(NAME, "closing entry is not zero", offset=position - ENTRY_SIZE)
            break
        entries.append((guid, offset, length))
    return _blobs(data, entries, position)


def _guid(data: bytes) -> uuid.UUID:
    """Return an entry's GUID. Little-endian ones are known too: some hosts write Windows' order.

    No GUID of ours reads as another of ours in the other order, and the table is a hint whose
    certificates are verified, so this can confuse nobody.
    """
    guid, other = uuid.UUID(bytes=data), uuid.UUID(bytes_le=data)
    return other if other in NAMES else guid


def _blobs(
    data: bytes, entries: list[tuple[uuid.UUID, int, int]], end_of_entries: int
) -> dict[uuid.UUID, bytes]:
    found: dict[uuid.UUID, bytes] = {}
    end = end_of_entries
    for guid, offset, length in sorted(entries, key=lambda entry: entry[1:]):
        if guid in found:
            raise FormatError(NAME, f"{guid} occurs twice")
        if offset < end or offset + length > len(data):
            raise FormatError(
                NAME, f"{guid} lies outside the data or over another entry", offset=offset
            )
        check_zero(NAME, data, end, offset - end)
        end = offset + length
        found[guid] = bytes(data[offset:end])
    check_zero(NAME, data, end, len(data) - end)
    return found


def encode_cert_table(blobs: Mapping[uuid.UUID, bytes]) -> bytes:
    """Return the table of ``blobs``, in their order."""
    offset = ENTRY_SIZE * (len(blobs) + 1)
    entries = bytearray()
    for guid, blob in blobs.items():
        entries += _ENTRY.pack(guid.bytes, offset, len(blob))
        offset += len(blob)
    return bytes(entries) + bytes(ENTRY_SIZE) + b"".join(blobs.values())
