"""OVMF images: the table of GUIDs at the end of the file, and the SEV metadata that it points to.

Sources: edk2 ``OvmfPkg/ResetVector``, QEMU ``hw/i386/pc_sysfw_ovmf.c`` and ``target/i386/sev.c``.

The last 32 bytes of an image are the reset vector. Before it lies the footer table, read
backwards: each entry is data, then its length (u16, 18 bytes of its own included), then its GUID;
the last entry, whose GUID names the table, has the length of the whole. Everything is strict: what
QEMU would skip over in silence is refused here, because a digest of something half understood is
worth nothing. But only what a launch uses is looked at: the sections, for one, are read when they
are asked for, so that plain SEV does not depend on them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, final
from uuid import UUID

from sevkit.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

PAGE: Final = 4096
FOUR_GIB: Final = 1 << 32
MAX_FIRMWARE: Final = 64 << 20
#: Most pages that all sections may have together: 256 MiB, a thousand times what OVMF asks for.
MAX_SECTION_PAGES: Final = 1 << 16

_RESET_VECTOR: Final = 32
_TRAILER: Final = 18
_ASEV: Final = struct.Struct("<4sIII")
_SECTION: Final = struct.Struct("<III")
_IMAGE: Final = "OVMF image"
_FOOTER: Final = "OVMF footer table"
_METADATA: Final = "OVMF SEV metadata"

FOOTER_GUID: Final = UUID("96b582de-1fb2-45f7-baea-a366c55a082d")
RESET_BLOCK: Final = UUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e")
HASH_TABLE: Final = UUID("7255371f-3a3b-4b04-927b-1da6efa8d454")
SECRET_AREA: Final = UUID("4c2eb361-7d9b-4cc3-8081-127c90d3d294")
SEV_METADATA: Final = UUID("dc886566-984a-4798-a75e-5585a7bf67cc")

#: What the entries are called, for people; others are shown by their GUID.
ENTRY_NAMES: Final[Mapping[UUID, str]] = MappingProxyType(
    {
        RESET_BLOCK: "SEV-ES reset block",
        HASH_TABLE: "SEV hash table area",
        SECRET_AREA: "SEV launch secret area",
        SEV_METADATA: "SEV metadata offset",
        UUID("e47a6535-984a-4798-865e-4685a7bf8ec2"): "TDX metadata offset",
        UUID("784fa70e-3176-4677-8a20-04b68699e374"): "IGVM metadata offset",
        UUID("a789a612-0597-4c4b-a49f-cbb1fe9d1ddd"): "SVSM info",
    }
)


@final
class SectionType(IntEnum):
    """Types of sections in the SEV metadata (edk2 ``OvmfSevMetadata.asm``)."""

    SNP_SEC_MEM = 1
    SNP_SECRETS = 2
    CPUID = 3
    SVSM_CAA = 4
    SNP_KERNEL_HASHES = 0x10


_ONE_PAGE: Final = frozenset(
    {SectionType.SNP_SECRETS, SectionType.CPUID, SectionType.SNP_KERNEL_HASHES}
)


@final
@dataclass(frozen=True, slots=True)
class Area:
    """A range of guest physical memory, in bytes."""

    gpa: int
    size: int


@final
@dataclass(frozen=True, slots=True)
class Section:
    """One section of the SEV metadata: whole pages that the launch fills before the guest runs."""

    gpa: int
    size: int
    kind: SectionType


@final
@dataclass(frozen=True, slots=True)
class FooterEntry:
    """One entry of the footer table; ``offset`` is where its data starts in the file."""

    guid: UUID
    offset: int
    data: bytes


@final
@dataclass(frozen=True, slots=True)
class Ovmf:
    """A firmware image whose footer table is well-formed, or that has none (``entries`` is None).

    The properties read one entry each and raise ``FormatError`` for one that is malformed.
    """

    data: bytes = field(repr=False)
    entries: tuple[FooterEntry, ...] | None

    @property
    def gpa(self) -> int:
        """Where the image starts in guest memory: it ends at 4 GiB."""
        return FOUR_GIB - len(self.data)

    def entry(self, guid: UUID) -> FooterEntry | None:
        """Return the entry with this GUID, or None."""
        return next((found for found in self.entries or () if found.guid == guid), None)

    @property
    def reset_eip(self) -> int | None:
        """Where application processors start under SEV-ES and SNP, or None if it does not say."""
        found = self.entry(RESET_BLOCK)
        if found is None:
            return None
        return int.from_bytes(_sized(found, 4), "little")

    @property
    def hash_table(self) -> Area | None:
        """Where the table of kernel hashes goes; None if there is no place for it."""
        return self._area(HASH_TABLE)

    @property
    def secret_area(self) -> Area | None:
        """Where SEV and SEV-ES launch secrets go; None if there is no place for them."""
        return self._area(SECRET_AREA)

    @property
    def sections(self) -> tuple[Section, ...] | None:
        """The sections of the SEV metadata in the table's order, or None without metadata."""
        found = self.entry(SEV_METADATA)
        if found is None:
            return None
        return _parse_metadata(self.data, found)

    def _area(self, guid: UUID) -> Area | None:
        found = self.entry(guid)
        if found is None:
            return None
        gpa, size = struct.unpack("<II", _sized(found, 8))
        if gpa == 0 or size == 0:  # how a build without the feature fills the entry
            return None
        if gpa + size > FOUR_GIB:
            message = f"{ENTRY_NAMES[guid]} {gpa:#x}+{size:#x} ends above 4 GiB"
            raise FormatError(_FOOTER, message, offset=found.offset)
        return Area(gpa, size)


def parse_ovmf(data: bytes) -> Ovmf:
    """Return an image's footer table. An image without one is still measurable for plain SEV.

    Source: edk2 ``OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm``. Raises ``FormatError`` for an
    image that is empty, larger than 64 MiB or no multiple of 4096 bytes, and for a table that has
    an entry which does not fit, overlaps, or occurs twice.
    """
    check_image_size(data)
    end = len(data) - _RESET_VECTOR
    guid, length = _trailer(data, end)
    if guid != FOOTER_GUID:
        return Ovmf(data, None)
    if not _TRAILER <= length <= end:
        message = f"length {length} is not between {_TRAILER} and {end}"
        raise FormatError(_FOOTER, message, offset=end - _TRAILER)
    start = end - length
    entries: list[FooterEntry] = []
    seen = {FOOTER_GUID}
    end -= _TRAILER
    while end > start:
        room = end - start
        if room < _TRAILER:
            raise FormatError(_FOOTER, f"{room} stray bytes before its first entry", offset=start)
        guid, length = _trailer(data, end)
        if not _TRAILER <= length <= room:
            message = f"entry {guid} has length {length}, not between {_TRAILER} and {room}"
            raise FormatError(_FOOTER, message, offset=end - _TRAILER)
        if guid in seen:
            raise FormatError(_FOOTER, f"entry {guid} occurs twice", offset=end - length)
        seen.add(guid)
        entries.append(FooterEntry(guid, end - length, data[end - length : end - _TRAILER]))
        end -= length
    return Ovmf(data, tuple(entries))


def check_image_size(data: bytes) -> None:
    """Refuse what no hypervisor loads as firmware: QEMU maps whole 4096-byte pages only."""
    size = len(data)
    if not 0 < size <= MAX_FIRMWARE or size % PAGE:
        message = f"{size} bytes; expected a multiple of {PAGE}, at most {MAX_FIRMWARE}"
        raise FormatError(_IMAGE, message, hint="is this the whole firmware file (OVMF.fd)?")


def _trailer(data: bytes, end: int) -> tuple[UUID, int]:
    return UUID(bytes_le=data[end - 16 : end]), int.from_bytes(data[end - 18 : end - 16], "little")


def _sized(entry: FooterEntry, size: int) -> bytes:
    if len(entry.data) != size:
        message = f"{ENTRY_NAMES[entry.guid]} has {len(entry.data)} bytes, expected {size}"
        raise FormatError(_FOOTER, message, offset=entry.offset)
    return entry.data


def _parse_metadata(data: bytes, entry: FooterEntry) -> tuple[Section, ...]:
    from_end = int.from_bytes(_sized(entry, 4), "little")
    if not _ASEV.size <= from_end <= len(data):
        message = f"metadata offset {from_end:#x} does not lie in the image"
        raise FormatError(_FOOTER, message, offset=entry.offset)
    start = len(data) - from_end
    signature, length, version, count = _ASEV.unpack_from(data, start)
    if signature != b"ASEV":
        raise FormatError(_METADATA, "does not start with ASEV", offset=start)
    if version != 1:
        raise FormatError(_METADATA, f"version {version} is not known", offset=start + 8)
    if length != _ASEV.size + count * _SECTION.size or length > from_end:
        message = f"length {length} does not fit {count} sections or the image"
        raise FormatError(_METADATA, message, offset=start + 4)
    sections: list[Section] = []
    for index in range(count):
        offset = start + _ASEV.size + index * _SECTION.size
        gpa, size, kind = _SECTION.unpack_from(data, offset)
        sections.append(_section(gpa, size, kind, offset))
    _check_together(sections, start)
    return tuple(sections)


def _section(gpa: int, size: int, kind: int, offset: int) -> Section:
    try:
        known = SectionType(kind)
    except ValueError:
        raise FormatError(
            _METADATA, f"section type {kind:#x} is not known", offset=offset + 8
        ) from None
    if gpa % PAGE or size % PAGE or size == 0:
        message = f"section {gpa:#x}+{size:#x} is not made of whole pages"
        raise FormatError(_METADATA, message, offset=offset)
    if gpa + size > FOUR_GIB:
        raise FormatError(_METADATA, f"section {gpa:#x}+{size:#x} ends above 4 GiB", offset=offset)
    if known in _ONE_PAGE and size != PAGE:
        message = f"a {known.name} section of {size:#x} bytes, expected one page"
        raise FormatError(_METADATA, message, offset=offset + 4)
    return Section(gpa, size, known)


def _check_together(sections: list[Section], start: int) -> None:
    if sum(section.size for section in sections) > MAX_SECTION_PAGES * PAGE:
        message = f"its sections have more than {MAX_SECTION_PAGES} pages"
        raise FormatError(_METADATA, message, offset=start)
    if sum(section.kind is SectionType.SNP_KERNEL_HASHES for section in sections) > 1:
        raise FormatError(_METADATA, "has two SNP_KERNEL_HASHES sections", offset=start)
    for low, high in pairwise(sorted(sections, key=lambda section: section.gpa)):
        if low.gpa + low.size > high.gpa:
            message = f"sections {low.gpa:#x} and {high.gpa:#x} overlap"
            raise FormatError(_METADATA, message, offset=start)
