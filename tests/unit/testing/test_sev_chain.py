from __future__ import annotations

import pytest

from sevkit.abi.sevcert import Usage, parse_sev_certificate
from sevkit.attest.checks import SEV_PLATFORM
from sevkit.attest.sev_platform import verify_platform
from sevkit.attest.verdict import Ledger
from sevkit.testing.sev_chain import SimulatedPlatform, SimulatedRoots, make_platform, make_roots


def test_roots_and_platforms_are_never_the_same_twice(
    sev_roots: SimulatedRoots, sev_platform: SimulatedPlatform
) -> None:
    other = make_platform(sev_roots)
    assert other.chain.cek.key_sha256 != sev_platform.chain.cek.key_sha256
    assert make_roots().root != sev_roots.root


def test_files_have_the_sizes_of_naples(sev_roots: SimulatedRoots) -> None:
    assert (len(sev_roots.root), len(sev_roots.ask_ark)) == (832, 1664)


def test_roots_of_4096_bits_make_platforms_as_later_lines_have_them() -> None:
    roots = make_roots(bits=4096)
    platform = make_platform(roots)
    assert len(roots.ask_ark) == 3200
    found = verify_platform(platform.chain, Ledger(SEV_PLATFORM), ca=roots.ca, roots=(roots.root,))
    assert found.chain == platform.chain


def test_the_firmwares_cek_is_the_signed_one_without_its_signature(
    sev_platform: SimulatedPlatform,
) -> None:
    cek = parse_sev_certificate(sev_platform.firmware_cek())
    assert cek.usage is Usage.CEK
    assert cek.body == sev_platform.chain.cek.body
    assert cek.signatures == ()


@pytest.mark.parametrize("name", ["cek", "oca", "pek", "pdh"])
def test_private_keys_belong_to_their_certificates(
    sev_platform: SimulatedPlatform, name: str
) -> None:
    numbers = getattr(sev_platform, f"{name}_key").public_key().public_numbers()
    key = getattr(sev_platform.chain, name).key
    assert (key.x, key.y) == (numbers.x, numbers.y)
