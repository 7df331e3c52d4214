from __future__ import annotations

import pytest

from sevkit.abi.idblock import (
    IdAuth,
    IdBlock,
    compute_key_digest,
    encode_id_auth,
    encode_id_block,
    parse_id_auth,
    parse_id_block,
)
from sevkit.abi.signature import P256, P384, EcdsaSignature, EcPublicKey
from sevkit.errors import FormatError

DIGEST = bytes(range(48))
KEY = EcPublicKey(P384, 7, 8)
SIGNATURE = EcdsaSignature(3, 4)
WITH_AUTHOR = IdAuth(SIGNATURE, KEY, EcdsaSignature(5, 6), EcPublicKey(P384, 9, 10))


def patched(data: bytes, offset: int, value: bytes) -> bytes:
    return data[:offset] + value + data[offset + len(value) :]


def test_an_id_block_is_96_bytes_in_amds_order() -> None:
    data = encode_id_block(IdBlock(DIGEST, b"f" * 16, b"i" * 16, 0x01020304, 0x3001F))
    assert len(data) == 96
    assert data[:48] == DIGEST
    assert data[0x30:0x50] == b"f" * 16 + b"i" * 16
    assert data[0x50:0x58] == bytes((1, 0, 0, 0, 4, 3, 2, 1))
    assert data[0x58:] == (0x3001F).to_bytes(8, "little")
    assert parse_id_block(data) == IdBlock(DIGEST, b"f" * 16, b"i" * 16, 0x01020304, 0x3001F)


@pytest.mark.parametrize(
    ("defect", "offset", "value"),
    [
        ("version 0", 0x50, b"\0"),
        ("version 2", 0x50, b"\2"),
        ("policy without bit 17", 0x5A, b"\1"),
        ("policy bit 63", 0x5F, b"\x80"),
    ],
)
def test_a_malformed_id_block_is_refused(defect: str, offset: int, value: bytes) -> None:
    with pytest.raises(FormatError):
        parse_id_block(patched(encode_id_block(IdBlock(DIGEST)), offset, value))
    assert defect


@pytest.mark.parametrize(
    "block",
    [
        IdBlock(DIGEST[:47]),
        IdBlock(DIGEST, family_id=b""),
        IdBlock(DIGEST, guest_svn=1 << 32),
        IdBlock(DIGEST, policy=0),
        IdBlock(DIGEST, policy=1 << 64),
    ],
)
def test_a_block_that_the_firmware_would_refuse_is_not_made(block: IdBlock) -> None:
    with pytest.raises(FormatError):
        encode_id_block(block)


@pytest.mark.parametrize("auth", [IdAuth(SIGNATURE, KEY), WITH_AUTHOR])
def test_id_authentication_survives_a_round_trip(auth: IdAuth) -> None:
    data = encode_id_auth(auth)
    assert len(data) == 4096
    assert parse_id_auth(data) == auth


@pytest.mark.parametrize(
    ("defect", "offset", "value"),
    [
        ("another ID key algorithm", 0x000, b"\2"),
        ("another author key algorithm", 0x004, b"\2"),
        ("reserved after the algorithms", 0x03F, b"\1"),
        ("signature out of range", 0x040, b"\xff" * 48),
        ("signature of zero", 0x040, bytes(48)),
        ("ID key of no curve", 0x240, b"\3"),
        ("ID key on P-256", 0x240, bytes((P256,))),
        ("coordinate too large", 0x244 + 48, b"\1"),
        ("reserved after the ID key", 0x67F, b"\1"),
        ("author signature of zero", 0x680, bytes(144)),
        ("reserved at the end", 0xFFF, b"\1"),
        ("an author that is not announced", 0x004, b"\0"),
    ],
)
def test_malformed_id_authentication_is_refused(defect: str, offset: int, value: bytes) -> None:
    with pytest.raises(FormatError):
        parse_id_auth(patched(encode_id_auth(WITH_AUTHOR), offset, value))
    assert defect


@pytest.mark.parametrize("size", [0, 95, 97, 4095, 4097])
def test_other_sizes_are_refused(size: int) -> None:
    for parse in (parse_id_block, parse_id_auth):
        with pytest.raises(FormatError, match="bytes"):
            parse(bytes(size))


def test_a_key_digest_covers_the_whole_key_field() -> None:
    assert len(compute_key_digest(KEY)) == 48
    assert compute_key_digest(KEY) != compute_key_digest(EcPublicKey(P384, 8, 7))
