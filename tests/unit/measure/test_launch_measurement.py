from __future__ import annotations

import base64
import hashlib

import pytest

from sevkit.errors import FormatError, UsageError
from sevkit.measure.launch_measurement import (
    compute_launch_measurement,
    parse_launch_measurement,
    parse_launch_measurement_base64,
)
from sevkit.secret import Secret

BLOB = bytes(range(48))
TEXT = base64.b64encode(BLOB).decode()
#: What real firmware (API 0.18, build 15) gave; published with the sev crate's tests.
TIK = Secret(bytes.fromhex("66320db73158a35a255d051758e95ed4"))
MNONCE = bytes.fromhex("4fbe0bedbad6c86ae8f68971d103e554")
MEASURE = bytes.fromhex("6faab2daae389bcd3405a05d6cafe33c0414f7bedd0bae19ba5f38b7fd1664ea")


def compute(
    *,
    tik: Secret = TIK,
    api_major: int = 0,
    api_minor: int = 18,
    build_id: int = 15,
    policy: int = 0,
    digest: bytes | None = None,
    mnonce: bytes = MNONCE,
) -> bytes:
    return compute_launch_measurement(
        tik,
        api_major=api_major,
        api_minor=api_minor,
        build_id=build_id,
        policy=policy,
        digest=hashlib.sha256(b"").digest() if digest is None else digest,
        mnonce=mnonce,
    )


def test_the_measurement_of_real_firmware_is_reproduced() -> None:
    assert compute() == MEASURE


def test_every_input_changes_the_measurement() -> None:
    variants = {
        compute(),
        compute(tik=Secret(bytes(16))),
        compute(api_major=1),
        compute(api_minor=19),
        compute(build_id=16),
        compute(policy=1),
        compute(digest=bytes(32)),
        compute(mnonce=bytes(16)),
    }
    assert len(variants) == 8


@pytest.mark.parametrize("size", [0, 15, 17, 32])
def test_a_tik_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(FormatError, match=f"TIK: expected 16 bytes, got {size}"):
        compute(tik=Secret(bytes(size)))


def test_a_digest_or_nonce_of_another_size_is_refused() -> None:
    with pytest.raises(FormatError, match="launch digest"):
        compute(digest=bytes(48))
    with pytest.raises(FormatError, match="mnonce"):
        compute(mnonce=bytes(15))


def test_numbers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="API major 256"):
        compute(api_major=256)
    with pytest.raises(UsageError, match="API minor -1"):
        compute(api_minor=-1)
    with pytest.raises(UsageError, match="build ID 256"):
        compute(build_id=256)
    with pytest.raises(UsageError, match="guest policy"):
        compute(policy=1 << 32)


def test_the_parts_of_a_measurement_are_found() -> None:
    found = parse_launch_measurement_base64(TEXT)
    assert found == parse_launch_measurement(BLOB)
    assert (found.measure, found.mnonce) == (BLOB[:32], BLOB[32:])


@pytest.mark.parametrize("size", [0, 32, 47, 49, 64])
def test_a_measurement_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(FormatError, match=f"expected 48 bytes, got {size}"):
        parse_launch_measurement(bytes(size))
    with pytest.raises(FormatError, match=f"expected 48 bytes, got {size}"):
        parse_launch_measurement_base64(base64.b64encode(bytes(size)).decode())


@pytest.mark.parametrize(
    "text",
    [
        TEXT + "\n",
        " " + TEXT,
        TEXT[:32] + "\n" + TEXT[32:],
        base64.urlsafe_b64encode(b"\xff" * 48).decode(),
        TEXT[:-1],
        TEXT + "=",
        "ä" * 64,
        TEXT[:-1] + "\0",
    ],
)
def test_what_is_not_standard_base64_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_launch_measurement_base64(text)
