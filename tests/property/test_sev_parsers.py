"""No bytes make a parser of SEV structures raise anything but a SevkitError."""

from __future__ import annotations

import contextlib
import uuid
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sevkit.abi.product import ProductLine
from sevkit.abi.secret_packet import (
    SecretEntry,
    SecretPacket,
    encode_secret_table,
    open_packet,
    parse_guid,
    parse_secret_table,
    seal_packet,
)
from sevkit.abi.session import TransportKeys, open_session, parse_session, seal_session
from sevkit.abi.sevca import parse_ca_certificate, parse_ca_chain
from sevkit.abi.sevcert import (
    Algorithm,
    Usage,
    encode_sev_certificate,
    parse_sev_certificate,
)
from sevkit.abi.sevchain import parse_chain_export
from sevkit.abi.signature import EcPublicKey
from sevkit.attest.checks import SEV_PLATFORM
from sevkit.attest.sev_platform import verify_platform
from sevkit.attest.verdict import Ledger
from sevkit.errors import SevkitError
from sevkit.kds.roots import sev_ca
from sevkit.kubevirt.subresources import parse_measurement_info, parse_platform_info
from sevkit.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEYS = TransportKeys(tek=Secret(b"T" * 16), tik=Secret(b"I" * 16))
EDITS = st.lists(
    st.tuples(st.integers(0, 8335), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4
)


def edited(data: bytes, edits: list[tuple[int, bytes]]) -> bytes:
    changed = bytearray(data)
    for offset, value in edits:
        start = offset % len(changed)
        changed[start : start + len(value)] = value
    return bytes(changed[: len(data)])


@pytest.mark.parametrize(
    "parse",
    [
        parse_sev_certificate,
        parse_ca_certificate,
        parse_ca_chain,
        parse_chain_export,
        parse_session,
        parse_measurement_info,
        parse_platform_info,
        lambda data: parse_secret_table(Secret(data)),
        lambda data: open_packet(KEYS, SecretPacket(data[:52], data[52:]), measure=bytes(32)),
        lambda data: parse_guid(data.decode("latin-1")),
    ],
)
@given(data=st.binary(max_size=4096))
def test_random_bytes_are_parsed_or_refused(parse: Callable[[bytes], object], data: bytes) -> None:
    with contextlib.suppress(SevkitError):
        parse(data)


@given(edits=EDITS)
def test_an_edited_ca_chain_is_parsed_or_refused(edits: list[tuple[int, bytes]]) -> None:
    data = b"".join(sev_ca(ProductLine.NAPLES))
    with contextlib.suppress(SevkitError):
        parse_ca_chain(edited(data, edits))


@given(edits=EDITS)
def test_an_edited_chain_never_verifies(vectors: Path, edits: list[tuple[int, bytes]]) -> None:
    folder = vectors / "sev-crate" / "naples"
    data = b"".join((folder / f"{n}.cert").read_bytes() for n in ("pdh", "pek", "oca", "cek"))
    changed = edited(data, edits)
    accepted = False
    with contextlib.suppress(SevkitError):
        verify_platform(parse_chain_export(changed)[0], Ledger(SEV_PLATFORM))
        accepted = True
    assert accepted == (changed == data)


@given(
    usage=st.sampled_from([u for u in Usage if u is not Usage.INVALID]),
    algorithm=st.sampled_from([Algorithm.ECDSA_SHA256, Algorithm.ECDH_SHA384]),
    x=st.integers(0, (1 << 384) - 1),
    y=st.integers(0, (1 << 384) - 1),
    api=st.tuples(st.integers(0, 255), st.integers(0, 255)),
)
def test_certificates_survive_the_round_trip(
    usage: Usage, algorithm: Algorithm, x: int, y: int, api: tuple[int, int]
) -> None:
    key = EcPublicKey(2, x, y)
    data = encode_sev_certificate(usage, algorithm, key, api=api)
    parsed = parse_sev_certificate(data)
    assert (parsed.usage, parsed.algorithm, parsed.key) == (usage, algorithm, key)
    assert (parsed.api_major, parsed.api_minor) == api
    assert parsed.data == data


@given(
    shared=st.binary(min_size=48, max_size=48),
    tek=st.binary(min_size=16, max_size=16),
    tik=st.binary(min_size=16, max_size=16),
    policy=st.integers(0, (1 << 32) - 1),
    nonce=st.binary(min_size=16, max_size=16),
    iv=st.binary(min_size=16, max_size=16),
)
def test_sessions_survive_the_round_trip(
    shared: bytes, tek: bytes, tik: bytes, policy: int, nonce: bytes, iv: bytes
) -> None:
    keys = TransportKeys(tek=Secret(tek), tik=Secret(tik))
    blob = seal_session(Secret(shared), keys, policy, nonce=nonce, iv=iv)
    assert open_session(parse_session(blob.encode()), Secret(shared), policy) == keys


@given(
    secrets=st.dictionaries(
        st.integers(1, (1 << 128) - 1).map(lambda n: uuid.UUID(int=n)),
        st.binary(min_size=1, max_size=200),
        min_size=1,
        max_size=8,
    ),
    iv=st.binary(min_size=16, max_size=16),
    measure=st.binary(min_size=32, max_size=32),
)
def test_secrets_survive_the_round_trip(
    secrets: dict[uuid.UUID, bytes], iv: bytes, measure: bytes
) -> None:
    entries = tuple(SecretEntry(guid, Secret(data)) for guid, data in secrets.items())
    table = encode_secret_table(entries)
    packet = seal_packet(KEYS, table, measure=measure, iv=iv)
    assert parse_secret_table(open_packet(KEYS, packet, measure=measure)) == entries
