from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sevkit.abi.sevcert import parse_sev_certificate
from sevkit.abi.sevchain import parse_chain_export, parse_parts
from sevkit.errors import FormatError

if TYPE_CHECKING:
    from sevkit.testing.sev_chain import SimulatedPlatform, SimulatedRoots


def test_sevctls_export_is_read_back(sev_platform: SimulatedPlatform) -> None:
    data = sev_platform.chain.encode()
    assert len(data) == 8336
    assert parse_chain_export(data) == (sev_platform.chain, None)


def test_sevctls_full_export_brings_its_ask_and_ark(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots
) -> None:
    chain, ca = parse_chain_export(sev_platform.chain.encode() + sev_roots.ask_ark)
    assert (chain, ca) == (sev_platform.chain, sev_roots.ca)


@pytest.mark.parametrize("size", [0, 2084, 6252, 8335, 8337, 8336 + 832])
def test_an_export_of_another_size_is_refused(sev_platform: SimulatedPlatform, size: int) -> None:
    with pytest.raises(FormatError):
        parse_chain_export(sev_platform.chain.encode().ljust(size, b"\0")[:size])


def test_libvirts_two_parts_are_read(sev_platform: SimulatedPlatform) -> None:
    data = sev_platform.chain.encode()
    assert parse_parts(data[:2084], data[2084:]) == sev_platform.chain


@pytest.mark.parametrize("size", [0, 6251, 6253])
def test_a_cut_chain_is_refused(sev_platform: SimulatedPlatform, size: int) -> None:
    data = sev_platform.chain.encode()
    with pytest.raises(FormatError, match="expected 6252 bytes"):
        parse_parts(data[:2084], data[2084:].ljust(size, b"\0")[:size])


def test_an_error_names_the_certificate_that_is_wrong(sev_platform: SimulatedPlatform) -> None:
    data = bytearray(sev_platform.chain.encode())
    data[2 * 2084] = 9
    with pytest.raises(FormatError, match=r"^OCA at offset 0x0: version 9 is not 1"):
        parse_chain_export(bytes(data))


def test_a_signed_cek_takes_the_place_of_the_firmwares(sev_platform: SimulatedPlatform) -> None:
    unsigned = parse_sev_certificate(sev_platform.firmware_cek())
    exported = sev_platform.chain.with_cek(unsigned)
    assert exported.cek.signatures == ()
    assert exported.with_cek(sev_platform.chain.cek) == sev_platform.chain
