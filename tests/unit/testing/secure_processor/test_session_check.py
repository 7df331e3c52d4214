from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from sevkit.abi.firmware_status import FirmwareStatus
from sevkit.abi.session import (
    TransportKeys,
    compute_shared_secret,
    encode_godh,
    seal_session,
)
from sevkit.abi.sevcert import Algorithm, Usage, encode_sev_certificate
from sevkit.abi.signature import public_key_of
from sevkit.secret import Secret
from sevkit.testing.secure_processor.session_check import NO_KEYS, take_session

if TYPE_CHECKING:
    from collections.abc import Callable

    Refusal = Callable[[Callable[[], object]], FirmwareStatus]

PDH: Final = ec.generate_private_key(ec.SECP384R1())
OWNER: Final = ec.generate_private_key(ec.SECP384R1())
GODH: Final = encode_godh(OWNER)
KEYS: Final = TransportKeys(Secret(b"T" * 16), Secret(b"I" * 16))


def sealed(policy: int, key: ec.EllipticCurvePrivateKey = PDH) -> bytes:
    shared = compute_shared_secret(OWNER, public_key_of(key.public_key()))
    return seal_session(shared, KEYS, policy, nonce=b"N" * 16, iv=b"V" * 16).encode()


def take(
    policy: int = 1,
    session: bytes | None = None,
    godh: bytes = GODH,
    api: tuple[int, int] = (1, 55),
) -> TransportKeys:
    blob = sealed(policy) if session is None else session
    return take_session("LAUNCH_START", PDH, blob, godh, policy=policy, api=api)


def flipped(data: bytes, offset: int) -> bytes:
    return data[:offset] + bytes([data[offset] ^ 0x80]) + data[offset + 1 :]


def test_the_keys_that_the_owner_sealed_arrive() -> None:
    assert take() == KEYS


def test_keys_without_an_owner_are_zero() -> None:
    assert NO_KEYS.tek.reveal() == NO_KEYS.tik.reveal() == bytes(16)


@pytest.mark.parametrize("size", [0, 127, 129])
def test_a_session_of_another_size_is_refused_before_anything_is_read(
    refusal: Refusal, size: int
) -> None:
    assert refusal(lambda: take(session=bytes(size), godh=b"no certificate")) is (
        FirmwareStatus.INVALID_LEN
    )


@pytest.mark.parametrize("godh", [GODH[:-1], GODH + b"\0", b"x"])
def test_a_certificate_of_another_size_is_refused(refusal: Refusal, godh: bytes) -> None:
    assert refusal(lambda: take(godh=godh)) is FirmwareStatus.INVALID_LEN


def test_a_bad_certificate_comes_before_a_bad_session(refusal: Refusal) -> None:
    bad = partial(take, session=bytes(128), godh=flipped(GODH, 0x14))
    assert refusal(bad) is FirmwareStatus.INVALID_CERTIFICATE


def test_a_key_on_another_curve_is_a_bad_certificate(refusal: Refusal) -> None:
    key = public_key_of(ec.generate_private_key(ec.SECP256R1()).public_key())
    godh = encode_sev_certificate(Usage.PDH, Algorithm.ECDH_SHA256, key)
    assert refusal(lambda: take(godh=godh)) is FirmwareStatus.INVALID_CERTIFICATE


@pytest.mark.parametrize("offset", range(128))
def test_a_session_with_any_byte_changed_is_refused(refusal: Refusal, offset: int) -> None:
    changed = flipped(sealed(1), offset)
    assert refusal(lambda: take(session=changed)) is FirmwareStatus.BAD_MEASUREMENT


def test_a_session_for_another_platform_is_refused(refusal: Refusal) -> None:
    other = sealed(1, ec.generate_private_key(ec.SECP384R1()))
    assert refusal(lambda: take(session=other)) is FirmwareStatus.BAD_MEASUREMENT


def test_another_owners_certificate_opens_no_session(refusal: Refusal) -> None:
    godh = encode_godh(ec.generate_private_key(ec.SECP384R1()))
    assert refusal(lambda: take(godh=godh)) is FirmwareStatus.BAD_MEASUREMENT


def test_a_policy_that_the_owner_did_not_seal_is_refused_before_it_is_looked_at(
    refusal: Refusal,
) -> None:
    for policy in (0, 5, 0xFFFF_FFFF):
        swapped = partial(take, policy, session=sealed(1))
        assert refusal(swapped) is FirmwareStatus.BAD_MEASUREMENT


@pytest.mark.parametrize(
    ("policy", "api", "taken"),
    [
        (0x0000_0001, (0, 0), True),
        (0x3701_0001, (1, 55), True),  # exactly this firmware
        (0x3801_0001, (1, 55), False),  # a newer minor
        (0xFF00_0001, (1, 0), True),  # an older major, whatever the minor
        (0x0002_0001, (1, 255), False),  # a newer major
        (0x0000_003F, (1, 55), True),  # every flag that there is
        (0x0000_0041, (1, 55), False),  # reserved bits
        (0x0000_8001, (1, 55), False),
    ],
)
def test_a_policys_api_level_and_reserved_bits_are_held_to(
    refusal: Refusal, policy: int, api: tuple[int, int], taken: bool
) -> None:
    if taken:
        assert take(policy, api=api) == KEYS
    else:
        assert refusal(lambda: take(policy, api=api)) is FirmwareStatus.POLICY_FAILURE
