from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sevkit.abi.rsa import RsaPublicKey, check_rsa, verify_pss
from sevkit.errors import FormatError
from sevkit.testing.sev_chain import rsa_public_key, sign_pss

if TYPE_CHECKING:
    from sevkit.testing.sev_chain import SimulatedRoots

ODD_2048 = (1 << 2047) | 1


def check(bits: int = 2048, exponent: int = 65537, modulus: int = ODD_2048) -> RsaPublicKey:
    return check_rsa(
        "test",
        bits,
        exponent.to_bytes(512, "little"),
        modulus.to_bytes(512, "little"),
        offset=0x38,
    )


def test_a_padded_key_is_read_as_little_endian_numbers() -> None:
    assert check() == RsaPublicKey(2048, 65537, ODD_2048)


@pytest.mark.parametrize("bits", [0, 1024, 2047, 3072, 4097, 0xFFFFFFFF])
def test_a_modulus_size_that_amd_does_not_use_is_refused(bits: int) -> None:
    with pytest.raises(FormatError, match="2048 or 4096"):
        check(bits=bits)


@pytest.mark.parametrize("exponent", [0, 1, 3, 65536, 65538, (1 << 32) + 1])
def test_a_weak_or_slow_exponent_is_refused(exponent: int) -> None:
    with pytest.raises(FormatError, match="exponent") as caught:
        check(exponent=exponent)
    assert caught.value.offset == 0x38


@pytest.mark.parametrize("modulus", [0, 1, ODD_2048 - 1, ODD_2048 >> 1, ODD_2048 << 1 | 1])
def test_a_modulus_that_is_even_or_of_another_size_is_refused(modulus: int) -> None:
    with pytest.raises(FormatError, match="modulus"):
        check(modulus=modulus)


def test_a_pss_signature_verifies_over_its_body_and_hash_only(sev_roots: SimulatedRoots) -> None:
    key = rsa_public_key(sev_roots.ark_key)
    signature = sign_pss(sev_roots.ark_key, b"body")
    assert verify_pss(key, signature, b"body", sha384=False)
    assert not verify_pss(key, signature, b"bodY", sha384=False)
    assert not verify_pss(key, signature, b"body", sha384=True)
    assert not verify_pss(key, signature[::-1], b"body", sha384=False)


@pytest.mark.parametrize("signature", [b"", bytes(255), bytes(257), b"\xff" * 256, bytes(256)])
def test_bytes_that_are_no_signature_are_a_no(sev_roots: SimulatedRoots, signature: bytes) -> None:
    assert not verify_pss(rsa_public_key(sev_roots.ark_key), signature, b"body", sha384=False)


def test_numbers_that_are_no_key_are_refused_when_loaded() -> None:
    with pytest.raises(FormatError):
        RsaPublicKey(2048, 2, 4).load()
