from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING

import pytest

from sevkit.abi.rsa import RsaPublicKey
from sevkit.abi.sevcert import (
    Algorithm,
    Usage,
    encode_sev_certificate,
    parse_sev_certificate,
)
from sevkit.abi.signature import EcPublicKey, public_key_of
from sevkit.errors import FormatError
from sevkit.testing.sev_chain import rsa_public_key

if TYPE_CHECKING:
    from sevkit.testing.sev_chain import SimulatedPlatform, SimulatedRoots


def changed(data: bytes, offset: int, value: bytes) -> bytes:
    return data[:offset] + value + data[offset + len(value) :]


@pytest.fixture
def pek(sev_platform: SimulatedPlatform) -> bytes:
    return sev_platform.chain.pek.data


@pytest.fixture
def pdh(sev_platform: SimulatedPlatform) -> bytes:
    return sev_platform.chain.pdh.data


def test_a_certificate_has_its_fields_in_amds_places(pek: bytes) -> None:
    parsed = parse_sev_certificate(pek)
    assert (parsed.usage, parsed.algorithm) == (Usage.PEK, Algorithm.ECDSA_SHA256)
    assert (parsed.api_major, parsed.api_minor) == (pek[4], pek[5])
    assert struct.unpack_from("<II", pek, 0x08) == (0x1002, 0x2)
    assert [s.usage for s in parsed.signatures] == [Usage.OCA, Usage.CEK]
    assert [s.offset for s in parsed.signatures] == [0x41C, 0x624]
    assert parsed.signatures[1].data == pek[0x624:]


def test_the_signed_body_is_what_was_received_before_the_first_slot(pek: bytes) -> None:
    assert parse_sev_certificate(pek).body == pek[:0x414]


def test_a_key_is_named_by_its_whole_field(pek: bytes) -> None:
    assert parse_sev_certificate(pek).key_sha256 == hashlib.sha256(pek[0x10:0x414]).digest()


def test_the_name_of_a_key_does_not_depend_on_who_signed_it(
    sev_platform: SimulatedPlatform,
) -> None:
    unsigned = parse_sev_certificate(sev_platform.firmware_cek())
    assert unsigned.signatures == ()
    assert unsigned.key_sha256 == sev_platform.chain.cek.key_sha256


@pytest.mark.parametrize("size", [0, 1, 2083, 2085, 8336])
def test_another_size_is_refused(pek: bytes, size: int) -> None:
    with pytest.raises(FormatError, match=r"PEK.*expected 2084 bytes"):
        parse_sev_certificate(pek.ljust(size, b"\0")[:size], name="PEK")


@pytest.mark.parametrize(
    ("offset", "value", "words"),
    [
        (0x000, b"\x02", "version"),
        (0x006, b"\x01", "reserved"),
        (0x008, b"\x05\x10", "usage"),
        (0x008, b"\x00\x10", "no usage"),
        (0x00C, b"\x04", "algorithm"),
        (0x00C, b"\x00", "no algorithm"),
        (0x010, b"\x03", "curve"),
        (0x044, b"\x01", "too large"),
        (0x08C, b"\x01", "too large"),
        (0x0A4, b"\x01", "reserved"),
        (0x413, b"\x01", "reserved"),
        (0x414, b"\x06\x10", "usage"),
        (0x418, b"\x09", "algorithm"),
        (0x418, b"\x03", "cannot sign"),
        (0x418, b"\x00", "cannot sign"),
    ],
)
def test_a_value_that_amd_does_not_define_is_refused_with_its_offset(
    pek: bytes, offset: int, value: bytes, words: str
) -> None:
    with pytest.raises(FormatError, match=words) as caught:
        parse_sev_certificate(changed(pek, offset, value))
    assert caught.value.offset is not None
    assert abs(caught.value.offset - offset) <= 0x4C


@pytest.mark.parametrize(("offset", "value"), [(0x620, b"\x02"), (0x624, b"\x01"), (0x823, b"\1")])
def test_an_empty_slot_that_is_not_empty_is_refused(pdh: bytes, offset: int, value: bytes) -> None:
    with pytest.raises(FormatError):
        parse_sev_certificate(changed(pdh, offset, value))


def test_a_platform_owner_may_have_an_rsa_key(sev_roots: SimulatedRoots) -> None:
    key = rsa_public_key(sev_roots.ask_key)
    data = encode_sev_certificate(Usage.OCA, Algorithm.RSA_SHA256, key, api=(1, 2))
    parsed = parse_sev_certificate(data)
    assert isinstance(parsed.key, RsaPublicKey)
    assert parsed.key == key


@pytest.mark.parametrize("offset", [0xA4, 0x200, 0x413])
def test_what_an_owners_tool_left_behind_its_key_is_not_looked_at(
    sev_platform: SimulatedPlatform, offset: int
) -> None:
    chain = sev_platform.chain
    found = parse_sev_certificate(changed(chain.oca.data, offset, b"\xb9"))
    assert found.key == chain.oca.key
    for firmwares in (chain.pdh, chain.pek, chain.cek):
        with pytest.raises(FormatError, match="reserved"):
            parse_sev_certificate(changed(firmwares.data, offset, b"\xb9"))


def test_an_rsa_key_of_a_size_that_amd_does_not_use_is_refused(sev_roots: SimulatedRoots) -> None:
    key = rsa_public_key(sev_roots.ask_key)
    data = encode_sev_certificate(Usage.OCA, Algorithm.RSA_SHA256, key)
    with pytest.raises(FormatError, match="modulus size"):
        parse_sev_certificate(changed(data, 0x10, (1024).to_bytes(4, "little")))


def test_what_is_encoded_is_what_is_parsed(sev_platform: SimulatedPlatform) -> None:
    key = public_key_of(sev_platform.oca_key.public_key())
    slots = ((Usage.OCA, Algorithm.ECDSA_SHA384, bytes(range(256)) * 2),)
    data = encode_sev_certificate(
        Usage.OCA, Algorithm.ECDSA_SHA384, key, api=(3, 4), signatures=slots
    )
    parsed = parse_sev_certificate(data)
    assert isinstance(parsed.key, EcPublicKey)
    assert (parsed.data, parsed.key) == (data, key)
    assert [(s.usage, s.algorithm, s.data) for s in parsed.signatures] == list(slots)


def test_a_third_signature_has_no_slot(sev_platform: SimulatedPlatform) -> None:
    key = public_key_of(sev_platform.oca_key.public_key())
    slot = (Usage.OCA, Algorithm.ECDSA_SHA256, bytes(512))
    with pytest.raises(FormatError, match="two signatures"):
        encode_sev_certificate(
            Usage.OCA, Algorithm.ECDSA_SHA256, key, signatures=(slot, slot, slot)
        )


def test_a_point_off_the_curve_is_refused_when_the_key_is_loaded(pdh: bytes) -> None:
    parsed = parse_sev_certificate(changed(pdh, 0x14, bytes([pdh[0x14] ^ 1])))
    with pytest.raises(FormatError, match="not on the curve"):
        parsed.key.load()


@pytest.mark.parametrize("slot", [0x414, 0x61C])
def test_only_a_cek_may_have_a_slot_of_zeros(
    sev_platform: SimulatedPlatform, pek: bytes, slot: int
) -> None:
    cek = changed(sev_platform.firmware_cek(), slot, bytes(520))
    assert parse_sev_certificate(cek).signatures == ()
    with pytest.raises(FormatError, match="cannot sign"):
        parse_sev_certificate(changed(pek, slot, bytes(520)))
