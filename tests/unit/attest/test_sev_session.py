from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from sevkit.abi.secret_packet import DISK_GUID, SecretEntry, encode_secret_table, open_packet
from sevkit.abi.session import (
    TransportKeys,
    compute_shared_secret,
    godh_key,
    open_session,
    parse_session,
)
from sevkit.abi.sevcert import parse_sev_certificate
from sevkit.attest.checks import SEV_PLATFORM
from sevkit.attest.sev_launch import LaunchClaim, VerifiedLaunch
from sevkit.attest.sev_platform import VerifiedPlatform, verify_platform
from sevkit.attest.sev_session import check_policy, new_packet, new_session, seal_new_session
from sevkit.attest.verdict import Ledger
from sevkit.errors import FormatError, InsecureUsage, SignatureMismatch
from sevkit.measure.launch_measurement import LaunchMeasurement
from sevkit.measure.reference import Reference
from sevkit.measure.terms import Mode
from sevkit.secret import Secret

if TYPE_CHECKING:
    from sevkit.testing.sev_chain import SimulatedPlatform, SimulatedRoots


@pytest.fixture
def verified(sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots) -> VerifiedPlatform:
    return verify_platform(
        sev_platform.chain, Ledger(SEV_PLATFORM), ca=sev_roots.ca, roots=(sev_roots.root,)
    )


def test_the_platform_takes_the_keys_out_of_a_new_session(
    verified: VerifiedPlatform, sev_platform: SimulatedPlatform
) -> None:
    session = new_session(verified, 5)
    godh = parse_sev_certificate(base64.b64decode(session.godh_base64))
    blob = parse_session(base64.b64decode(session.session_base64))
    shared = compute_shared_secret(sev_platform.pdh_key, godh_key(godh))
    assert open_session(blob, shared, 5) == session.keys
    with pytest.raises(SignatureMismatch):
        open_session(blob, shared, 1)


def test_no_two_sessions_share_anything(verified: VerifiedPlatform) -> None:
    one, two = new_session(verified, 1), new_session(verified, 1)
    for field in ("nonce", "wrap_tk", "wrap_iv", "wrap_mac", "policy_mac"):
        assert getattr(one.blob, field) != getattr(two.blob, field)
    assert one.godh != two.godh
    assert one.keys.tik != two.keys.tik
    assert one.keys.tek != two.keys.tek
    assert one.keys.tik != one.keys.tek


def test_the_same_randomness_gives_the_same_session(verified: VerifiedPlatform) -> None:
    private = ec.generate_private_key(ec.SECP384R1())
    keys = TransportKeys(tek=Secret(b"T" * 16), tik=Secret(b"I" * 16))
    one, two = (
        seal_new_session(verified, 1, private=private, keys=keys, nonce=bytes(16), iv=bytes(16))
        for _ in range(2)
    )
    assert (one.blob, one.godh) == (two.blob, two.godh)


def test_a_policy_without_nodbg_is_insecure_unless_accepted(verified: VerifiedPlatform) -> None:
    with pytest.raises(InsecureUsage, match="debug") as caught:
        new_session(verified, 4)
    assert "--allow-debug" in caught.value.hint
    assert new_session(verified, 4, allow_debug=True).policy == 4


@pytest.mark.parametrize("policy", [0x41, 0x8001, 1 << 32, -1])
def test_a_policy_with_reserved_bits_is_refused(policy: int) -> None:
    with pytest.raises(FormatError):
        check_policy(policy, allow_debug=True)


def test_the_description_tells_the_policy_and_no_key(verified: VerifiedPlatform) -> None:
    session = new_session(verified, 0x37010005)
    described = session.describe()
    assert described["flags"] == ["NODBG", "ES"]
    assert (described["min_api"], described["simulated"]) == ("1.55", True)
    shown = repr(described) + repr(session)
    for key in (session.keys.tek.reveal(), session.keys.tik.reveal()):
        assert key.hex() not in shown
        assert base64.b64encode(key).decode() not in shown
        assert repr(key) not in shown


def test_a_packet_is_for_one_verified_launch_and_never_the_same_twice() -> None:
    keys = TransportKeys(tek=Secret(b"T" * 16), tik=Secret(b"I" * 16))
    claim = LaunchClaim(LaunchMeasurement(b"M" * 32, b"N" * 16), 1, 55, 21)
    launch = VerifiedLaunch(claim, 1, Reference(bytes(32), Mode.SEV, "any vCPUs", False))
    table = encode_secret_table([SecretEntry(DISK_GUID, Secret(b"hunter2"))])
    one, two = (new_packet(launch, keys, table) for _ in range(2))
    assert open_packet(keys, one, measure=b"M" * 32) == table
    assert (one.header[4:20], one.ciphertext) != (two.header[4:20], two.ciphertext)
    with pytest.raises(SignatureMismatch):
        open_packet(keys, one, measure=b"N" * 32)
