from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from sevkit.abi.product import ProductLine
from sevkit.abi.sevca import parse_ca_certificate, parse_ca_chain
from sevkit.abi.sevcert import Usage
from sevkit.errors import FormatError
from sevkit.kds.roots import sev_ca

if TYPE_CHECKING:
    from sevkit.testing.sev_chain import SimulatedRoots


def changed(data: bytes, offset: int, value: bytes) -> bytes:
    return data[:offset] + value + data[offset + len(value) :]


@pytest.mark.parametrize("line", list(ProductLine))
def test_every_bundled_certificate_is_read(line: ProductLine) -> None:
    ask, ark = (parse_ca_certificate(data) for data in sev_ca(line))
    assert (ask.usage, ark.usage) == (Usage.ASK, Usage.ARK)
    assert ark.key_id == ark.certifying_id == ask.certifying_id != ask.key_id
    assert ark.key.bits == (2048 if line is ProductLine.NAPLES else 4096)
    assert ark.body + ark.signature == ark.data
    assert ark.sha256 == hashlib.sha256(ark.data).digest()


@pytest.mark.parametrize("size", [0, 63, 64, 575, 577, 831, 833, 1600])
def test_another_size_is_refused(sev_roots: SimulatedRoots, size: int) -> None:
    data = sev_roots.root.ljust(size, b"\0")[:size]
    with pytest.raises(FormatError, match=r"ARK.*expected"):
        parse_ca_certificate(data, name="ARK")


@pytest.mark.parametrize(
    ("offset", "value", "words"),
    [
        (0x00, b"\x02", "version"),
        (0x24, b"\x14", "neither ARK nor ASK"),
        (0x25, b"\x10", "neither ARK nor ASK"),
        (0x28, b"\x01", "reserved"),
        (0x37, b"\x01", "reserved"),
        (0x38, b"\x00\x10", "differ in size"),
        (0x3C, b"\x00\x04", "2048 or 4096"),
        (0x40, b"\x02", "exponent"),
        (0x40 + 256, b"\x00", "odd number"),
    ],
)
def test_a_value_that_amd_does_not_define_is_refused(
    sev_roots: SimulatedRoots, offset: int, value: bytes, words: str
) -> None:
    with pytest.raises(FormatError, match=words):
        parse_ca_certificate(changed(sev_roots.root, offset, value))


def test_the_old_naples_ark_without_its_signature_is_read_as_unsigned() -> None:
    _, ark = sev_ca(ProductLine.NAPLES)
    parsed = parse_ca_certificate(ark[:576])
    assert parsed.signature == b""
    assert parsed.body == ark[:576]


def test_an_ask_without_a_signature_is_refused() -> None:
    ask, _ = sev_ca(ProductLine.NAPLES)
    with pytest.raises(FormatError, match="expected 832 bytes"):
        parse_ca_certificate(ask[:576])


def test_a_chain_is_ask_then_ark(sev_roots: SimulatedRoots) -> None:
    chain = parse_ca_chain(sev_roots.ask_ark)
    assert chain == sev_roots.ca


@pytest.mark.parametrize("line", [ProductLine.NAPLES, ProductLine.MILAN])
def test_amds_own_files_are_read(line: ProductLine) -> None:
    ask, ark = sev_ca(line)
    chain = parse_ca_chain(ask + ark)
    assert (chain.ask.data, chain.ark.data) == (ask, ark)


def test_amds_naples_file_of_old_is_read() -> None:
    ask, ark = sev_ca(ProductLine.NAPLES)
    assert parse_ca_chain(ask + ark[:576]).ark.signature == b""


@pytest.mark.parametrize("size", [0, 832, 1663, 1665, 3201])
def test_a_chain_of_another_size_is_refused(sev_roots: SimulatedRoots, size: int) -> None:
    with pytest.raises(FormatError):
        parse_ca_chain(sev_roots.ask_ark.ljust(size, b"\0")[:size])
