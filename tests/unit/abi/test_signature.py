from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from sevkit.abi.signature import (
    P256,
    P384,
    EcdsaSignature,
    EcPublicKey,
    encode_public_key,
    encode_signature,
    parse_public_key,
    parse_signature,
    public_key_of,
    signature_from_der,
)
from sevkit.errors import FormatError

if TYPE_CHECKING:
    from pathlib import Path

#: Orders of the base points as SEC 2 prints them.
ORDER_P384 = int(
    "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"
    "C7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973",
    16,
)
ORDER_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def block(r: int, s: int) -> bytes:
    return r.to_bytes(72, "little") + s.to_bytes(72, "little") + bytes(368)


@pytest.mark.parametrize(
    ("curve", "order"), [(P256, ORDER_P256), (P384, ORDER_P384)], ids=["P-256", "P-384"]
)
def test_r_and_s_lie_between_one_and_the_order(curve: int, order: int) -> None:
    for good in (1, order - 1, order // 2 + 1):
        assert parse_signature(block(good, good), curve=curve) == EcdsaSignature(good, good)
    for bad in (0, order, order + 1, (1 << 576) - 1):
        with pytest.raises(FormatError) as caught:
            parse_signature(block(bad, 1), curve=curve, structure="R", offset=0x2A0)
        assert caught.value.offset == 0x2A0
        with pytest.raises(FormatError) as caught:
            parse_signature(block(1, bad), curve=curve, structure="R", offset=0x2A0)
        assert caught.value.offset == 0x2A0 + 72


@pytest.mark.parametrize("position", [144, 145, 300, 511])
def test_a_reserved_byte_is_refused_at_its_place(position: int) -> None:
    data = bytearray(block(1, 1))
    data[position] = 1
    with pytest.raises(FormatError) as caught:
        parse_signature(bytes(data), structure="R", offset=0x2A0)
    assert (caught.value.structure, caught.value.offset) == ("R", 0x2A0 + position)


@pytest.mark.parametrize("size", [0, 144, 511, 513])
def test_a_signature_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(FormatError):
        parse_signature(bytes(size))


def test_our_own_signature_survives_amds_encoding_and_verifies() -> None:
    private = ec.generate_private_key(ec.SECP384R1())
    der = private.sign(b"message", ec.ECDSA(hashes.SHA384()))
    back = parse_signature(encode_signature(signature_from_der(der)))
    key = parse_public_key(encode_public_key(public_key_of(private.public_key()))).load()
    key.verify(back.to_der(), b"message", ec.ECDSA(hashes.SHA384()))
    with pytest.raises(InvalidSignature):
        key.verify(back.to_der(), b"another", ec.ECDSA(hashes.SHA384()))


@pytest.mark.parametrize("line", ["naples", "rome"])
def test_a_real_oca_signed_itself(line: str, vectors: Path) -> None:
    certificate = (vectors / "sev-crate" / line / "oca.cert").read_bytes()
    key = parse_public_key(certificate[0x10:0x414])
    signature = parse_signature(certificate[0x41C:0x61C], curve=key.curve)
    key.load().verify(signature.to_der(), certificate[:0x414], ec.ECDSA(hashes.SHA256()))


def test_id_and_author_keys_of_a_real_id_authentication_are_read(vectors: Path) -> None:
    auth = (vectors / "sev-crate" / "test_auth_block.bin").read_bytes()
    for offset in (0x240, 0x880):
        data = auth[offset : offset + 1028]
        key = parse_public_key(data, structure="ID_AUTH_INFO", offset=offset)
        assert key.curve == P384
        assert encode_public_key(key) == data
        assert hashlib.sha384(encode_public_key(key)).digest() == hashlib.sha384(data).digest()
    author = parse_public_key(auth[0x880 : 0x880 + 1028]).load()
    signature = parse_signature(auth[0x680 : 0x680 + 512])
    author.verify(signature.to_der(), auth[0x240 : 0x240 + 1028], ec.ECDSA(hashes.SHA384()))


def test_a_point_that_is_not_on_the_curve_is_refused() -> None:
    numbers = ec.generate_private_key(ec.SECP384R1()).public_key().public_numbers()
    with pytest.raises(FormatError, match="not on the curve"):
        EcPublicKey(P384, numbers.x, numbers.y ^ 1).load()
    for x, y in ((0, 0), (ORDER_P384, 1), (1 << 384, 1)):
        with pytest.raises(FormatError):
            EcPublicKey(P384, x, y).load()


@pytest.mark.parametrize("curve", [0, 3, 0x100, 0xFFFFFFFF])
def test_a_curve_that_amd_does_not_use_is_refused(curve: int) -> None:
    data = curve.to_bytes(4, "little") + bytes(1024)
    with pytest.raises(FormatError) as caught:
        parse_public_key(data, structure="CERT", offset=0x10)
    assert (caught.value.structure, caught.value.offset) == ("CERT", 0x10)


@pytest.mark.parametrize(
    ("curve", "position"),
    [(P256, 0x04 + 32), (P256, 0x4C + 32), (P384, 0x04 + 48), (P384, 0x4C + 48), (P384, 0x94)],
)
def test_bytes_beyond_the_curve_are_refused(curve: int, position: int) -> None:
    data = bytearray(1028)
    data[0] = curve
    data[position] = 1
    with pytest.raises(FormatError):
        parse_public_key(bytes(data))


def test_a_public_key_on_another_curve_has_no_encoding() -> None:
    with pytest.raises(FormatError, match="secp521r1"):
        public_key_of(ec.generate_private_key(ec.SECP521R1()).public_key())
