from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import pytest

from sevkit.abi.policy import parse_sev_policy
from sevkit.abi.secret_packet import DISK_GUID, SecretEntry, encode_secret_table
from sevkit.attest.checks import KUBEVIRT_LAUNCH
from sevkit.attest.sev_launch import LaunchExpectations, VerifiedLaunch
from sevkit.attest.sev_platform import PlatformExpectations, VerifiedPlatform
from sevkit.attest.sev_session import LaunchSession, new_session
from sevkit.errors import FormatError, InsecureUsage
from sevkit.guest_owner.owner import Owner
from sevkit.guest_owner.report import Report
from sevkit.guest_owner.terms import Outcome
from sevkit.measure.launch_measurement import compute_launch_measurement
from sevkit.measure.sweep import Request, compute_references
from sevkit.measure.terms import Mode
from sevkit.secret import Secret
from sevkit.testing.firmware import FirmwareImage, encode_firmware

if TYPE_CHECKING:
    from sevkit.testing.sev_chain import SimulatedPlatform, SimulatedRoots

NOW: Final = datetime(2026, 11, 25, tzinfo=UTC)
FIRMWARE: Final = encode_firmware(FirmwareImage())
TABLE: Final = encode_secret_table([SecretEntry(DISK_GUID, Secret(b"key"))])
RISKS: Final = frozenset({"unmeasured-boot", "unmeasured-variables"})
API: Final = {"apiMajor": 1, "apiMinor": 55, "buildID": 21}


@pytest.fixture
def owner(sev_roots: SimulatedRoots) -> Owner:
    references = {Mode.SEV: compute_references(Request(Mode.SEV, FIRMWARE)).entries}
    return Owner(
        FIRMWARE,
        {Mode.SEV: 1},
        references,
        PlatformExpectations(),
        LaunchExpectations(),
        sev_roots.ca,
        (sev_roots.root,),
        accept=RISKS,
        table=TABLE,
    )


def chain_info(pdh: bytes, rest: bytes) -> bytes:
    document = {"pdh": pdh, "certChain": rest}
    return json.dumps({k: base64.b64encode(v).decode() for k, v in document.items()}).encode()


@pytest.fixture
def parts(sev_platform: SimulatedPlatform) -> tuple[bytes, bytes]:
    chain = sev_platform.chain
    return chain.pdh.data, chain.pek.data + chain.oca.data + chain.cek.data


@pytest.fixture
def session(owner: Owner, parts: tuple[bytes, bytes]) -> LaunchSession:
    found = Report("a", "b").judge_chain(owner, chain_info(*parts), NOW)
    assert isinstance(found, VerifiedPlatform)
    return new_session(found, 1)


def measurement(owner: Owner, session: LaunchSession) -> bytes:
    mnonce = bytes(range(16))
    measure = compute_launch_measurement(
        session.keys.tik,
        api_major=API["apiMajor"],
        api_minor=API["apiMinor"],
        build_id=API["buildID"],
        policy=session.policy,
        digest=owner.references[Mode.SEV][0].digest,
        mnonce=mnonce,
    )
    return measure + mnonce


def info(data: bytes, **changes: object) -> bytes:
    document: dict[str, Any] = {"measurement": base64.b64encode(data).decode(), "policy": 1}
    return json.dumps({**document, **API, **changes}).encode()


def test_every_byte_of_a_chain_counts_or_has_no_effect(
    owner: Owner, parts: tuple[bytes, bytes]
) -> None:
    """A stride through all of it; what passes has the key that the session is made for."""
    genuine = Report("a", "b").judge_chain(owner, chain_info(*parts), NOW)
    assert isinstance(genuine, VerifiedPlatform)
    whole = b"".join(parts)
    for at in range(0, len(whole), 23):
        changed = whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :]
        data = chain_info(changed[: len(parts[0])], changed[len(parts[0]) :])
        found = Report("a", "b").judge_chain(owner, data, NOW)
        if isinstance(found, VerifiedPlatform):
            assert found.chain.pdh.key == genuine.chain.pdh.key, at


def test_a_chain_is_judged_once_for_an_owner(owner: Owner, parts: tuple[bytes, bytes]) -> None:
    known: dict[bytes, Any] = {}
    data = chain_info(*parts)
    first = Report("a", "b").judge_chain(owner, data, NOW, known=known)
    again = Report("a", "c")
    assert again.judge_chain(owner, data, NOW, known=known) is first
    assert list(known) == [data]
    assert again.to_json()["evidence"] == {**dict(known[data][0].evidence), "vmi": "a/c"}
    bad = chain_info(parts[1][:2084], parts[1])
    assert again.judge_chain(owner, bad, NOW, known=known) is Outcome.REFUSED
    assert list(known) == [data]


def test_every_byte_of_a_measurement_counts(owner: Owner, session: LaunchSession) -> None:
    good = measurement(owner, session)
    for at in range(0, 48, 5):
        changed = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        assert judge(owner, session, info(changed)) is Outcome.REFUSED
    assert isinstance(judge(owner, session, info(good)), VerifiedLaunch)


@pytest.mark.parametrize("key", ["apiMajor", "apiMinor", "buildID", "policy"])
def test_every_number_counts(owner: Owner, session: LaunchSession, key: str) -> None:
    good = measurement(owner, session)
    for value in (0, 2, 255, 256, -1, "1", 1.0, None, True, 1 << 40):
        assert judge(owner, session, info(good, **{key: value})) is Outcome.REFUSED


def judge(
    owner: Owner, session: LaunchSession, data: bytes, *, release: bool = True
) -> VerifiedLaunch | Outcome:
    return Report("a", "b").judge_measurement(owner, data, session, NOW, release=release)


@pytest.mark.parametrize("accept", [frozenset(), frozenset({"unmeasured-boot"})])
def test_without_acceptance_a_verified_launch_gets_nothing(
    owner: Owner, session: LaunchSession, accept: frozenset[str]
) -> None:
    owner = replace(owner, accept=accept)
    data = info(measurement(owner, session))
    report = Report("a", "b")
    found = report.judge_measurement(owner, data, session, NOW, release=True)
    assert found is Outcome.UNCOVERED
    verdict = report.conclude(Outcome.UNCOVERED, "", NOW, injected=False)
    assert verdict.exit_code == 5
    assert isinstance(judge(owner, session, data, release=False), VerifiedLaunch)
    with pytest.raises(InsecureUsage):
        owner.check_release()


def test_what_was_found_survives_a_crash(
    owner: Owner, session: LaunchSession, parts: tuple[bytes, bytes]
) -> None:
    before = Report("a", "b")
    before.judge_chain(owner, chain_info(*parts), NOW)
    before.fits(Mode.SEV, 1)
    after = Report("a", "b")
    after.restore(json.loads(json.dumps(before.to_json())))
    data = info(measurement(owner, session))
    for report in (before, after):
        report.judge_measurement(owner, data, session, NOW, release=True)
        report.resumed(runs=True)
    done = [one.conclude(Outcome.ATTESTED, "", NOW, injected=True) for one in (before, after)]
    assert done[0] == done[1]
    assert done[0].accepted
    assert parse_sev_policy(session.policy)


@pytest.mark.parametrize(
    "kept",
    [
        {"findings": 7},
        {"evidence": []},
        {"sha256": 7},
        {"findings": [7]},
        {"findings": [{"check": "no.such", "outcome": "pass"}]},
        {"findings": [{"check": "vmi.mode", "outcome": "perhaps"}]},
    ],
)
def test_findings_that_are_none_are_refused(kept: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        Report("a", "b").restore(kept)


@pytest.mark.parametrize("outcome", [one for one in Outcome if one not in {
    Outcome.ATTESTED, Outcome.VERIFIED, Outcome.REFUSED, Outcome.UNDECIDED, Outcome.UNCOVERED
}])  # fmt: skip
def test_every_other_end_is_no_acceptance_and_says_why(outcome: Outcome) -> None:
    verdict = Report("a", "b").conclude(outcome, "because", NOW, injected=False)
    assert verdict.exit_code == (3 if outcome is Outcome.UNFIT else 4)
    assert not verdict.accepted
    assert any("because" in found.detail for found in verdict.findings)
    assert [found.check for found in verdict.findings] == [row.name for row in KUBEVIRT_LAUNCH]
