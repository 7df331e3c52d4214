from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from sevkit.abi.session import (
    TransportKeys,
    aes_ctr,
    compute_shared_secret,
    derive_key,
    encode_godh,
    godh_key,
    open_session,
    parse_session,
    seal_session,
)
from sevkit.abi.sevcert import Algorithm, Usage, encode_sev_certificate, parse_sev_certificate
from sevkit.abi.signature import EcPublicKey, public_key_of
from sevkit.errors import FormatError, SignatureMismatch
from sevkit.secret import Secret

SHARED = Secret(bytes(range(48)))
KEYS = TransportKeys(tek=Secret(b"T" * 16), tik=Secret(b"I" * 16))


def test_a_session_is_opened_by_the_other_end_of_the_exchange() -> None:
    owner, platform = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    ours = compute_shared_secret(owner, public_key_of(platform.public_key()))
    blob = seal_session(ours, KEYS, 5, nonce=bytes(16), iv=bytes(16))
    godh = parse_sev_certificate(encode_godh(owner))
    theirs = compute_shared_secret(platform, godh_key(godh))
    assert ours == theirs
    assert open_session(parse_session(blob.encode()), theirs, 5) == KEYS


def test_a_blob_is_nonce_keys_iv_and_two_macs() -> None:
    blob = seal_session(SHARED, KEYS, 1, nonce=b"N" * 16, iv=b"V" * 16)
    data = blob.encode()
    assert len(data) == 128
    assert (data[:16], data[0x30:0x40]) == (b"N" * 16, b"V" * 16)
    assert (data[0x10:0x30], data[0x40:0x60]) == (blob.wrap_tk, blob.wrap_mac)
    assert data[0x60:] == blob.policy_mac


def test_neither_key_stands_in_the_blob() -> None:
    data = seal_session(SHARED, KEYS, 1, nonce=bytes(16), iv=bytes(16)).encode()
    assert KEYS.tek.reveal() not in data
    assert KEYS.tik.reveal() not in data


@pytest.mark.parametrize("size", [0, 127, 129])
def test_a_blob_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(FormatError, match="expected 128 bytes"):
        parse_session(bytes(size))


def test_a_session_for_another_platform_is_refused() -> None:
    blob = seal_session(SHARED, KEYS, 5, nonce=bytes(16), iv=bytes(16))
    with pytest.raises(SignatureMismatch, match="platform"):
        open_session(blob, Secret(bytes(48)), 5)


def test_a_session_under_another_policy_is_refused() -> None:
    blob = seal_session(SHARED, KEYS, 5, nonce=bytes(16), iv=bytes(16))
    with pytest.raises(SignatureMismatch, match="policy"):
        open_session(blob, SHARED, 4)


@pytest.mark.parametrize("offset", [0, 15, 0x10, 0x2F, 0x30, 0x3F, 0x40, 0x5F, 0x60, 0x7F])
def test_a_changed_byte_is_noticed_wherever_it_stands(offset: int) -> None:
    data = bytearray(seal_session(SHARED, KEYS, 5, nonce=bytes(16), iv=bytes(16)).encode())
    data[offset] ^= 1
    with pytest.raises(SignatureMismatch):
        open_session(parse_session(bytes(data)), SHARED, 5)


def test_longer_keys_than_one_block_are_derived_in_counter_mode() -> None:
    short = derive_key(SHARED, 256, "label", b"context")
    long = derive_key(SHARED, 512, "label", b"context")
    assert (len(short), len(long)) == (32, 64)
    assert short.reveal() != long.reveal()[:32]  # the length is part of what is hashed


@pytest.mark.parametrize("size", [0, 15, 17, 32])
def test_transport_keys_have_16_bytes(size: int) -> None:
    with pytest.raises(FormatError, match="TIK"):
        TransportKeys(tek=Secret(bytes(16)), tik=Secret(bytes(size)))
    with pytest.raises(FormatError, match="TEK"):
        TransportKeys(tek=Secret(bytes(size)), tik=Secret(bytes(16)))


def test_a_point_off_the_curve_gets_no_shared_secret() -> None:
    private = ec.generate_private_key(ec.SECP384R1())
    with pytest.raises(FormatError, match="not on the curve"):
        compute_shared_secret(private, EcPublicKey(2, 1, 1))


def test_a_key_on_another_curve_gets_no_shared_secret() -> None:
    private = ec.generate_private_key(ec.SECP384R1())
    other = public_key_of(ec.generate_private_key(ec.SECP256R1()).public_key())
    with pytest.raises(FormatError, match="P-384"):
        compute_shared_secret(private, other)


def test_a_guest_owners_certificate_is_an_unsigned_pdh() -> None:
    private = ec.generate_private_key(ec.SECP384R1())
    parsed = parse_sev_certificate(encode_godh(private))
    assert (parsed.usage, parsed.algorithm) == (Usage.PDH, Algorithm.ECDH_SHA256)
    assert parsed.signatures == ()
    assert parsed.key == public_key_of(private.public_key())


@pytest.mark.parametrize(
    ("usage", "algorithm"),
    [(Usage.PEK, Algorithm.ECDH_SHA256), (Usage.PDH, Algorithm.ECDSA_SHA256)],
)
def test_a_pdh_with_another_usage_or_algorithm_agrees_on_no_key(
    usage: Usage, algorithm: Algorithm
) -> None:
    key = public_key_of(ec.generate_private_key(ec.SECP384R1()).public_key())
    with pytest.raises(FormatError):
        godh_key(parse_sev_certificate(encode_sev_certificate(usage, algorithm, key)))


@pytest.mark.parametrize(("key", "iv"), [(15, 16), (32, 16), (16, 12), (16, 0)])
def test_ctr_takes_aes_128_keys_and_whole_blocks_only(key: int, iv: int) -> None:
    with pytest.raises(FormatError):
        aes_ctr(Secret(bytes(key)), bytes(iv), b"data")


def test_nothing_prints_a_key() -> None:
    assert "T" * 16 not in repr(KEYS)
    assert "54" * 16 not in repr(KEYS)
