"""One test for each defect of a firmware image, named after it."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from sevkit.errors import FormatError
from sevkit.measure.kernel_hashes import compute_kernel_hashes
from sevkit.measure.launch_digest import compute_snp_base
from sevkit.measure.ovmf import (
    FOOTER_GUID,
    HASH_TABLE,
    MAX_SECTION_PAGES,
    PAGE,
    RESET_BLOCK,
    SECRET_AREA,
    SEV_METADATA,
    Area,
    Section,
    SectionType,
    parse_ovmf,
)
from sevkit.testing.firmware import AMDSEV_SECTIONS, FirmwareImage, encode_firmware

if TYPE_CHECKING:
    from pathlib import Path

SOUND = encode_firmware(FirmwareImage())


def patch(data: bytes, offset: int, value: bytes) -> bytes:
    return data[:offset] + value + data[offset + len(value) :]


def with_length(guid: UUID, length: int) -> bytes:
    """Give the entry with this GUID another length."""
    return patch(SOUND, SOUND.index(guid.bytes_le) - 2, struct.pack("<H", length))


def with_metadata(field: int, value: int) -> bytes:
    """Change one u32 of the metadata header or its first section."""
    return patch(SOUND, SOUND.index(b"ASEV") + field, struct.pack("<I", value))


def with_metadata_offset(value: int) -> bytes:
    return patch(SOUND, SOUND.index(SEV_METADATA.bytes_le) - 6, struct.pack("<I", value))


def refused(data: bytes, match: str) -> None:
    with pytest.raises(FormatError, match=match):
        parse_ovmf(data)


def sections_refused(data: bytes, match: str) -> None:
    found = parse_ovmf(data)
    with pytest.raises(FormatError, match=match):
        _ = found.sections
    with pytest.raises(FormatError, match=match):
        compute_snp_base(data)


def test_a_sound_image_gives_back_what_it_was_made_of() -> None:
    found = parse_ovmf(SOUND)
    assert found.reset_eip == 0x80B004
    assert found.hash_table == Area(0x810C00, 0x400)
    assert found.secret_area == Area(0x810000, 0xC00)
    assert found.sections == AMDSEV_SECTIONS
    assert found.gpa == (1 << 32) - PAGE


def test_a_real_amdsev_build_is_read(vectors: Path) -> None:
    found = parse_ovmf((vectors / "sev-crate" / "ovmf_AmdSev_suffix.bin").read_bytes())
    assert found.reset_eip == 0x80B004
    assert found.hash_table == Area(0x810C00, 0x400)
    assert found.secret_area == Area(0x810000, 0xC00)
    assert [s.kind for s in found.sections or ()] == [1, 1, 2, 3, 4, 0x10, 1]


def test_a_plain_build_has_no_place_for_hashes_or_secrets(vectors: Path) -> None:
    found = parse_ovmf((vectors / "sev-crate" / "ovmf_OvmfX64_suffix.bin").read_bytes())
    assert found.hash_table is None
    assert found.secret_area is None


@pytest.mark.parametrize("size", [0, 1, 49, 4095])
def test_a_too_small_image_is_refused(size: int) -> None:
    refused(SOUND[-size:] if size else b"", "multiple of 4096")


def test_an_image_that_is_not_a_multiple_of_4096_bytes_is_refused() -> None:
    refused(b"\xff" * 16 + SOUND, "4112 bytes")


def test_an_image_of_more_than_64_mib_is_refused() -> None:
    refused(bytes((64 << 20) + PAGE), "at most 67108864")


def test_an_image_without_footer_has_no_tables() -> None:
    found = parse_ovmf(bytes(PAGE))
    assert found.entries is None
    assert (found.reset_eip, found.hash_table, found.secret_area) == (None, None, None)
    assert found.sections is None
    with pytest.raises(FormatError, match="no SEV metadata"):
        compute_snp_base(bytes(PAGE))


@pytest.mark.parametrize("length", [0, 1, 17, 65535])
def test_a_footer_of_this_length_is_refused(length: int) -> None:
    refused(with_length(FOOTER_GUID, length), f"length {length} is not between")


@pytest.mark.parametrize("length", [19, 35])
def test_a_footer_with_stray_bytes_is_refused(length: int) -> None:
    refused(with_length(FOOTER_GUID, length), "stray bytes|has length")


@pytest.mark.parametrize("length", [0, 17])
def test_an_entry_shorter_than_its_own_header_is_refused(length: int) -> None:
    refused(with_length(RESET_BLOCK, length), f"has length {length}")


def test_an_entry_without_data_is_read() -> None:
    other = UUID(int=7)
    tail = struct.pack("<H", 18) + other.bytes_le + struct.pack("<H", 36) + FOOTER_GUID.bytes_le
    found = parse_ovmf(bytes(PAGE - 32 - len(tail)) + tail + bytes(32))
    assert [(entry.guid, entry.data) for entry in found.entries or ()] == [(other, b"")]


@pytest.mark.parametrize("length", [1000, 65535])
def test_an_entry_longer_than_the_table_is_refused(length: int) -> None:
    refused(with_length(RESET_BLOCK, length), f"has length {length}")


def test_a_guid_that_occurs_twice_is_refused() -> None:
    at = SOUND.index(SECRET_AREA.bytes_le)
    refused(patch(SOUND, at, HASH_TABLE.bytes_le), "occurs twice")


def test_a_second_footer_guid_is_refused() -> None:
    at = SOUND.index(SECRET_AREA.bytes_le)
    refused(patch(SOUND, at, FOOTER_GUID.bytes_le), "occurs twice")


@pytest.mark.parametrize("offset", [0, 15, PAGE + 1, 0xFFFF_FFFF])
def test_a_metadata_offset_outside_of_the_image_is_refused(offset: int) -> None:
    sections_refused(with_metadata_offset(offset), "does not lie in the image")


def test_a_metadata_offset_that_points_past_the_end_is_refused() -> None:
    sections_refused(patch(with_metadata_offset(16), PAGE - 16, b"ASEV"), "version")


def test_metadata_longer_than_the_image_is_refused() -> None:
    tail = struct.pack("<4sIII", b"ASEV", 16 + 24, 1, 2)
    sections_refused(patch(with_metadata_offset(16), PAGE - 16, tail), "does not fit")


def test_metadata_without_its_signature_is_refused() -> None:
    sections_refused(with_metadata(0, 0), "does not start with ASEV")


def test_metadata_of_version_2_is_refused() -> None:
    sections_refused(with_metadata(8, 2), "version 2")


@pytest.mark.parametrize("count", [0, 6, 8, 2**32 - 1])
def test_metadata_with_another_number_of_sections_is_refused(count: int) -> None:
    sections_refused(with_metadata(12, count), f"does not fit {count} sections")


@pytest.mark.parametrize("size", [0, 1, 4095, 4097])
def test_a_section_that_is_not_whole_pages_is_refused(size: int) -> None:
    sections_refused(with_metadata(20, size), "not made of whole pages")


def test_a_section_that_does_not_start_at_a_page_is_refused() -> None:
    sections_refused(with_metadata(16, 0x80_0010), "not made of whole pages")


@pytest.mark.parametrize("kind", [0, 5, 0x11, 2**32 - 1])
def test_a_section_of_unknown_type_is_refused(kind: int) -> None:
    sections_refused(with_metadata(24, kind), f"type {kind:#x} is not known")


def test_a_section_that_overflows_4_gib_is_refused() -> None:
    sections_refused(with_metadata(16, 0xFFFF_F000), "ends above 4 GiB")


def test_a_section_may_end_at_4_gib() -> None:
    section = Section(0xFFFF_F000, PAGE, SectionType.SNP_SEC_MEM)
    assert parse_ovmf(image_with(section)).sections == (section,)


def image_with(*sections: Section) -> bytes:
    return encode_firmware(FirmwareImage(sections=sections))


def test_two_kernel_hash_sections_are_refused() -> None:
    one = Section(0x81_0000, PAGE, SectionType.SNP_KERNEL_HASHES)
    two = Section(0x82_0000, PAGE, SectionType.SNP_KERNEL_HASHES)
    sections_refused(image_with(one, two), "two SNP_KERNEL_HASHES")


@pytest.mark.parametrize(
    "kind", [SectionType.CPUID, SectionType.SNP_SECRETS, SectionType.SNP_KERNEL_HASHES]
)
def test_a_one_page_section_of_two_pages_is_refused(kind: SectionType) -> None:
    sections_refused(image_with(Section(0x81_0000, 2 * PAGE, kind)), "expected one page")


def test_overlapping_sections_are_refused() -> None:
    one = Section(0x80_0000, 2 * PAGE, SectionType.SNP_SEC_MEM)
    two = Section(0x80_1000, PAGE, SectionType.CPUID)
    sections_refused(image_with(two, one), "overlap")


def test_sections_of_too_many_pages_together_are_refused() -> None:
    one = Section(0, MAX_SECTION_PAGES * PAGE, SectionType.SNP_SEC_MEM)
    two = Section(MAX_SECTION_PAGES * PAGE, PAGE, SectionType.SNP_SEC_MEM)
    sections_refused(image_with(one, two), "more than")
    assert len(parse_ovmf(image_with(one)).sections or ()) == 1


def test_a_hash_table_that_leaves_its_page_is_refused() -> None:
    hashes = compute_kernel_hashes(b"kernel")
    fits = encode_firmware(FirmwareImage(hash_table=Area(0x81_0000 + PAGE - 176, 176)))
    compute_snp_base(fits, hashes)
    late = encode_firmware(FirmwareImage(hash_table=Area(0x81_0000 + PAGE - 175, 176)))
    with pytest.raises(FormatError, match="does not fit its page"):
        compute_snp_base(late, hashes)


def test_a_hash_table_outside_of_its_section_is_refused() -> None:
    data = encode_firmware(FirmwareImage(hash_table=Area(0x82_0000, 0x400)))
    with pytest.raises(FormatError, match="outside their section"):
        compute_snp_base(data, compute_kernel_hashes(b"kernel"))


def test_a_hash_table_that_is_too_small_is_refused() -> None:
    data = encode_firmware(FirmwareImage(hash_table=Area(0x81_0C00, 175)))
    with pytest.raises(FormatError, match="176 are needed"):
        compute_snp_base(data, compute_kernel_hashes(b"kernel"))


@pytest.mark.parametrize("guid", [HASH_TABLE, SECRET_AREA])
def test_an_area_that_overflows_4_gib_is_refused(guid: UUID) -> None:
    at = SOUND.index(guid.bytes_le) - 10
    found = parse_ovmf(patch(SOUND, at, struct.pack("<II", 0xFFFF_F000, 0x1001)))
    with pytest.raises(FormatError, match="above 4 GiB"):
        _ = (found.hash_table, found.secret_area)


@pytest.mark.parametrize("area", [Area(0, 0x400), Area(0x81_0C00, 0)])
def test_an_area_without_base_or_size_is_none(area: Area) -> None:
    found = parse_ovmf(encode_firmware(FirmwareImage(hash_table=area, secret_area=area)))
    assert found.hash_table is None
    assert found.secret_area is None


def test_a_malformed_entry_is_refused_only_where_it_is_used() -> None:
    at = SOUND.index(HASH_TABLE.bytes_le)
    data = patch(SOUND, at, RESET_BLOCK.bytes_le)
    data = patch(data, data.rindex(RESET_BLOCK.bytes_le), HASH_TABLE.bytes_le)
    found = parse_ovmf(data)
    assert found.secret_area == Area(0x810000, 0xC00)
    with pytest.raises(FormatError, match="has 8 bytes, expected 4"):
        _ = found.reset_eip
    with pytest.raises(FormatError, match="has 4 bytes, expected 8"):
        _ = found.hash_table
