from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from sevkit.errors import FormatError
from sevkit.kubevirt.subresources import (
    encode_secret_options,
    encode_session_options,
    parse_measurement_info,
    parse_platform_info,
)

if TYPE_CHECKING:
    from sevkit.testing.sev_chain import SimulatedPlatform

GOOD: dict[str, Any] = {
    "measurement": base64.b64encode(bytes(range(48))).decode(),
    "apiMajor": 1,
    "apiMinor": 55,
    "buildID": 21,
    "policy": 5,
    "loaderSHA": "Ab" * 32,
}


def parse(**changes: object) -> object:
    return parse_measurement_info(json.dumps(GOOD | changes).encode())


def test_a_measurement_is_read_with_what_the_host_says_beside_it() -> None:
    info = parse_measurement_info(json.dumps(GOOD, indent=1).encode())
    assert info.measurement == bytes(range(48))
    assert (info.api_major, info.api_minor, info.build_id, info.policy) == (1, 55, 21, 5)
    assert info.loader_sha == "ab" * 32


def test_absent_numbers_are_zero() -> None:
    info = parse_measurement_info(json.dumps({"measurement": GOOD["measurement"]}).encode())
    assert (info.api_major, info.api_minor, info.build_id, info.policy) == (0, 0, 0, 0)
    assert info.loader_sha == ""


@pytest.mark.parametrize("name", ["apiMajor", "apiMinor", "buildID", "policy"])
@pytest.mark.parametrize("value", [-1, 1 << 32, 1.0, "1", True, None, [], {}])
def test_a_number_of_another_type_or_size_is_refused(name: str, value: object) -> None:
    with pytest.raises(FormatError, match=name):
        parse(**{name: value})


def test_a_version_of_more_than_a_byte_is_refused_and_a_policy_of_32_bits_is_not() -> None:
    with pytest.raises(FormatError, match="0 to 255"):
        parse(apiMinor=256)
    assert parse(policy=0xFFFFFFFF)


@pytest.mark.parametrize("size", [0, 32, 47, 49])
def test_a_measurement_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(FormatError, match="expected 48 bytes"):
        parse(measurement=base64.b64encode(bytes(size)).decode())


@pytest.mark.parametrize(
    "text",
    [
        GOOD["measurement"] + "\n",
        " " + GOOD["measurement"],
        GOOD["measurement"][:32] + " " + GOOD["measurement"][32:],
        base64.urlsafe_b64encode(b"\xff" * 48).decode(),
        GOOD["measurement"] + "=",
        "é" * 64,
        "\ud800",
        7,
        None,
    ],
)
def test_base64_that_is_not_strict_is_refused(text: object) -> None:
    with pytest.raises(FormatError, match="SEVMeasurementInfo"):
        parse(measurement=text)


def test_base64_with_stray_bits_is_refused() -> None:
    with pytest.raises(FormatError, match="canonical"):
        parse_platform_info(b'{"pdh": "AB==", "certChain": ""}')


@pytest.mark.parametrize("text", ["zz" * 32, "ab", "ab" * 33, 5, "\N{KELVIN SIGN}" * 64])
def test_a_loader_hash_that_is_none_is_refused(text: object) -> None:
    with pytest.raises(FormatError, match="loaderSHA"):
        parse(loaderSHA=text)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b"\xff\xfe",
        b'{"policy": 1, "policy": 5}',
        b'{"policy": NaN}',
        b"[" * 100_000,
        b'{"policy": ' + b"9" * 5000 + b"}",
        b" " * (1 << 17) + b"{}",
    ],
)
def test_what_is_not_one_small_object_is_refused(data: bytes) -> None:
    for read in (parse_measurement_info, parse_platform_info):
        with pytest.raises(FormatError):
            read(data)


def test_a_platforms_chain_is_read(sev_platform: SimulatedPlatform) -> None:
    data = sev_platform.chain.encode()
    document = {
        "kind": "SEVPlatformInfo",
        "pdh": base64.b64encode(data[:2084]).decode(),
        "certChain": base64.b64encode(data[2084:]).decode(),
    }
    assert parse_platform_info(json.dumps(document).encode()) == sev_platform.chain


@pytest.mark.parametrize("missing", ["pdh", "certChain"])
def test_half_a_platform_is_refused(sev_platform: SimulatedPlatform, missing: str) -> None:
    data = sev_platform.chain.encode()
    document = {
        "pdh": base64.b64encode(data[:2084]).decode(),
        "certChain": base64.b64encode(data[2084:]).decode(),
    }
    del document[missing]
    with pytest.raises(FormatError, match="got 0"):
        parse_platform_info(json.dumps(document).encode())


def test_what_is_put_has_kubevirts_names() -> None:
    session = encode_session_options(bytes(128), bytes(2084))
    assert list(session) == ["session", "dhCert"]
    assert base64.b64decode(session["session"]) == bytes(128)
    secret = encode_secret_options(bytes(52), bytes(16))
    assert list(secret) == ["header", "secret"]
    assert base64.b64decode(secret["secret"]) == bytes(16)


@pytest.mark.parametrize(("session", "godh"), [(127, 2084), (128, 2085), (0, 2084), (128, 0)])
def test_a_session_of_another_size_never_reaches_the_one_attempt(session: int, godh: int) -> None:
    with pytest.raises(FormatError):
        encode_session_options(bytes(session), bytes(godh))


@pytest.mark.parametrize(("header", "secret"), [(51, 16), (52, 0), (52, 17)])
def test_an_empty_or_odd_secret_is_never_sent(header: int, secret: int) -> None:
    with pytest.raises(FormatError):
        encode_secret_options(bytes(header), bytes(secret))
