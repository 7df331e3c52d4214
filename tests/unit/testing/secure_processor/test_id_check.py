from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from sevkit.abi.firmware_status import FirmwareStatus
from sevkit.abi.idblock import IdBlock, encode_id_auth, encode_id_block
from sevkit.abi.signature import (
    encode_public_key,
    encode_signature,
    public_key_of,
    signature_from_der,
)
from sevkit.attest.idblock import sign_id_block
from sevkit.testing.secure_processor.id_check import GuestIdentity, check_id_block

if TYPE_CHECKING:
    from collections.abc import Callable

    Refusal = Callable[[Callable[[], object]], FirmwareStatus]

S: Final = FirmwareStatus
DIGEST: Final = bytes(range(48))
BLOCK_OF: Final = IdBlock(DIGEST, b"F" * 16, b"I" * 16, 7, 0x30000)
ID_KEY, AUTHOR = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
GOOD: Final = encode_id_block(BLOCK_OF)
AUTH: Final = encode_id_auth(sign_id_block(BLOCK_OF, ID_KEY, AUTHOR))


def key_digest(key: ec.EllipticCurvePrivateKey) -> bytes:
    return hashlib.sha384(encode_public_key(public_key_of(key.public_key()))).digest()


def check(
    block: bytes = GOOD, auth: bytes = AUTH, *, author: bool = False, policy: int = 0x30000
) -> GuestIdentity:
    return check_id_block(block, auth, digest=DIGEST, policy=policy, author_key=author)


def patched(data: bytes, offset: int, value: bytes) -> bytes:
    return data[:offset] + value + data[offset + len(value) :]


def flipped(data: bytes, offset: int) -> bytes:
    return patched(data, offset, bytes([data[offset] ^ 1]))


def test_an_id_block_gives_the_guest_its_identity() -> None:
    identity = GuestIdentity(b"F" * 16, b"I" * 16, 7, key_digest(ID_KEY))
    assert check() == identity
    assert check(author=True) == replace(identity, author_key_digest=key_digest(AUTHOR))


def test_without_one_everything_is_zero() -> None:
    assert GuestIdentity() == GuestIdentity(bytes(16), bytes(16), 0, bytes(48), bytes(48))


def test_an_author_key_is_looked_at_only_if_it_is_asked_for() -> None:
    spoilt = flipped(flipped(patched(AUTH, 4, b"\7"), 0x680), 0x884)
    assert check(auth=spoilt).author_key_digest == bytes(48)


@pytest.mark.parametrize(
    ("name", "author", "expected"),
    [
        ("another digest", False, S.BAD_MEASUREMENT),
        ("another policy", False, S.POLICY_FAILURE),
        ("ID key algorithm 0", False, S.INVALID_PARAM),
        ("ID key algorithm 2", False, S.INVALID_PARAM),
        ("author key algorithm 0", True, S.INVALID_PARAM),
        ("ID key on another curve", False, S.BAD_SIGNATURE),
        ("ID key that is one of another curve", False, S.BAD_SIGNATURE),
        ("ID key off the curve", False, S.BAD_SIGNATURE),
        ("another ID key", False, S.BAD_SIGNATURE),
        ("a changed signature", False, S.BAD_SIGNATURE),
        ("no signature", False, S.BAD_SIGNATURE),
        ("a changed family ID", False, S.BAD_SIGNATURE),
        ("another author key", True, S.BAD_SIGNATURE),
        ("a changed author signature", True, S.BAD_SIGNATURE),
        ("author key on another curve", True, S.BAD_SIGNATURE),
    ],
)
def test_each_defect_has_its_status(
    refusal: Refusal, name: str, author: bool, expected: FirmwareStatus
) -> None:
    stranger = ec.generate_private_key(ec.SECP384R1())
    other = encode_id_auth(sign_id_block(BLOCK_OF, stranger, AUTHOR))
    p256 = encode_public_key(public_key_of(ec.generate_private_key(ec.SECP256R1()).public_key()))
    others_author = encode_id_auth(sign_id_block(BLOCK_OF, ID_KEY, stranger))
    block, auth = {
        "another digest": (flipped(GOOD, 0), AUTH),
        "another policy": (flipped(GOOD, 0x5A), AUTH),
        "ID key algorithm 0": (GOOD, patched(AUTH, 0, bytes(4))),
        "ID key algorithm 2": (GOOD, patched(AUTH, 0, b"\2")),
        "author key algorithm 0": (GOOD, patched(AUTH, 4, bytes(4))),
        "ID key on another curve": (GOOD, patched(AUTH, 0x240, b"\1")),
        "ID key that is one of another curve": (GOOD, patched(AUTH, 0x240, p256)),
        "ID key off the curve": (GOOD, flipped(AUTH, 0x244)),
        "another ID key": (GOOD, patched(AUTH, 0x240, other[0x240:0x644])),
        "a changed signature": (GOOD, flipped(AUTH, 0x40)),
        "no signature": (GOOD, patched(AUTH, 0x40, bytes(512))),
        "a changed family ID": (flipped(GOOD, 0x30), AUTH),
        "another author key": (GOOD, patched(AUTH, 0x880, others_author[0x880:0xC84])),
        "a changed author signature": (GOOD, flipped(AUTH, 0x680)),
        "author key on another curve": (GOOD, patched(AUTH, 0x880, b"\1")),
    }[name]
    assert refusal(partial(check, block, auth, author=author)) is expected


def test_digest_policy_algorithm_and_signatures_are_looked_at_in_this_order(
    refusal: Refusal,
) -> None:
    auth = flipped(patched(AUTH, 0, b"\2"), 0x40)
    assert refusal(partial(check, flipped(GOOD, 0), auth, policy=1)) is S.BAD_MEASUREMENT
    assert refusal(partial(check, GOOD, auth, policy=1)) is S.POLICY_FAILURE
    assert refusal(partial(check, GOOD, auth)) is S.INVALID_PARAM
    assert refusal(partial(check, GOOD, flipped(AUTH, 0x40))) is S.BAD_SIGNATURE


def test_neither_the_blocks_version_nor_reserved_bytes_are_looked_at() -> None:
    other = patched(GOOD, 0x50, b"\x09")
    der = ID_KEY.sign(other, ec.ECDSA(hashes.SHA384()))
    auth = patched(AUTH, 0x40, encode_signature(signature_from_der(der)))
    auth = patched(patched(auth, 0x08, b"\1"), 0xFFF, b"\1")
    assert check(other, auth).guest_svn == 7


@pytest.mark.parametrize(("block", "auth"), [(95, 4096), (97, 4096), (96, 4095), (96, 0)])
def test_sizes_are_fixed(refusal: Refusal, block: int, auth: int) -> None:
    assert refusal(partial(check, bytes(block), bytes(auth))) is S.INVALID_PARAM
