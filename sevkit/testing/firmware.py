"""Firmware images made to order: well-formed OVMF footers and SEV metadata around filler pages.

They boot nothing. They are for rehearsing measurements, and for building each defect of a real
image by changing one field of a sound one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, final

from sevkit.errors import UsageError
from sevkit.measure.ovmf import (
    FOOTER_GUID,
    HASH_TABLE,
    PAGE,
    RESET_BLOCK,
    SECRET_AREA,
    SEV_METADATA,
    Area,
    Section,
    SectionType,
)

#: The sections of an AmdSev build of edk2, in the order of its table.
AMDSEV_SECTIONS: Final = (
    Section(0x80_0000, 9 * PAGE, SectionType.SNP_SEC_MEM),
    Section(0x80_A000, 3 * PAGE, SectionType.SNP_SEC_MEM),
    Section(0x80_D000, PAGE, SectionType.SNP_SECRETS),
    Section(0x80_E000, PAGE, SectionType.CPUID),
    Section(0x80_F000, PAGE, SectionType.SVSM_CAA),
    Section(0x81_1000, 15 * PAGE, SectionType.SNP_SEC_MEM),
    Section(0x81_0000, PAGE, SectionType.SNP_KERNEL_HASHES),
)

_HASH_TABLE: Final = Area(0x81_0C00, 0x400)
_SECRET_AREA: Final = Area(0x81_0000, 0xC00)


@final
@dataclass(frozen=True, slots=True)
class FirmwareImage:
    """What an image declares; None leaves the entry out. ``size`` is a multiple of 4096 bytes."""

    size: int = PAGE
    reset_eip: int | None = 0x80_B004
    hash_table: Area | None = _HASH_TABLE
    secret_area: Area | None = _SECRET_AREA
    sections: tuple[Section, ...] | None = AMDSEV_SECTIONS
    filler: int = 0xFF


def encode_firmware(image: FirmwareImage) -> bytes:
    """Return the bytes of an image; raises ``UsageError`` if its tables do not fit."""
    metadata = b""
    if image.sections is not None:
        rows = b"".join(struct.pack("<III", s.gpa, s.size, s.kind) for s in image.sections)
        metadata = struct.pack("<4sIII", b"ASEV", 16 + len(rows), 1, len(image.sections)) + rows
    table = _table(image, len(metadata))
    tail = metadata + table + bytes([0x90] * 32)
    if len(tail) > image.size or image.size % PAGE:
        raise UsageError(f"{len(tail)} bytes of tables do not fit an image of {image.size} bytes")
    return bytes([image.filler]) * (image.size - len(tail)) + tail


def _table(image: FirmwareImage, metadata_size: int) -> bytes:
    entries: list[tuple[bytes, bytes]] = []
    if image.reset_eip is not None:
        entries.append((RESET_BLOCK.bytes_le, struct.pack("<I", image.reset_eip)))
    for guid, area in ((SECRET_AREA, image.secret_area), (HASH_TABLE, image.hash_table)):
        if area is not None:
            entries.append((guid.bytes_le, struct.pack("<II", area.gpa, area.size)))
    if image.sections is not None:
        entries.append((SEV_METADATA.bytes_le, bytes(4)))
    length = 18 + sum(18 + len(data) for _, data in entries)
    if image.sections is not None:  # counted from the image's end: 32 bytes, table, metadata
        entries[-1] = (SEV_METADATA.bytes_le, struct.pack("<I", 32 + length + metadata_size))
    table = b""
    for name, data in entries:
        table = data + struct.pack("<H", 18 + len(data)) + name + table
    return table + struct.pack("<H", length) + FOOTER_GUID.bytes_le
