from __future__ import annotations

import hashlib

import pytest

from sevkit.errors import FormatError, UsageError
from sevkit.measure.kernel_hashes import (
    KernelHashes,
    compute_cmdline_hash,
    compute_kernel_hashes,
    encode_kernel_hashes,
    encode_kernel_hashes_page,
)


def test_the_table_holds_command_line_initrd_and_kernel_in_this_order() -> None:
    table = encode_kernel_hashes(KernelHashes(b"k" * 32, b"i" * 32, b"c" * 32))
    assert len(table) == 176
    assert table[16:18] == (168).to_bytes(2, "little")
    assert table[36:68] == b"c" * 32
    assert table[86:118] == b"i" * 32
    assert table[136:168] == b"k" * 32
    assert table[168:] == bytes(8)


def test_what_is_absent_counts_as_empty() -> None:
    hashes = compute_kernel_hashes(b"kernel")
    assert hashes == compute_kernel_hashes(b"kernel", initrd=b"", cmdline="")
    assert hashes.initrd == hashlib.sha256(b"").digest()
    assert hashes.cmdline == hashlib.sha256(b"\0").digest()


@pytest.mark.parametrize("text", ["a", "a ", "a\n", "a\t", " a", "ä", "a" * 5000])
def test_a_command_line_is_hashed_verbatim_with_one_nul(text: str) -> None:
    assert compute_cmdline_hash(text) == hashlib.sha256(text.encode() + b"\0").digest()


@pytest.mark.parametrize("text", ["a\0b", "\0", "a\0"])
def test_a_command_line_with_a_nul_inside_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="NUL"):
        compute_cmdline_hash(text)


def test_a_command_line_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(UsageError, match="UTF-8"):
        compute_cmdline_hash("a\udcff")


def test_a_hash_of_another_length_is_refused() -> None:
    with pytest.raises(FormatError, match="initrd must be 32 bytes"):
        encode_kernel_hashes(KernelHashes(bytes(32), bytes(31), bytes(32)))


@pytest.mark.parametrize("offset", [0, 0xC00, 4096 - 176])
def test_the_page_has_the_table_at_its_offset_and_zeros_around(offset: int) -> None:
    hashes = compute_kernel_hashes(b"kernel")
    page = encode_kernel_hashes_page(hashes, offset)
    assert page == bytes(offset) + encode_kernel_hashes(hashes) + bytes(4096 - 176 - offset)


@pytest.mark.parametrize("offset", [-1, 4096 - 175, 4096])
def test_a_table_that_does_not_fit_its_page_is_refused(offset: int) -> None:
    with pytest.raises(FormatError, match="does not fit"):
        encode_kernel_hashes_page(compute_kernel_hashes(b"kernel"), offset)
