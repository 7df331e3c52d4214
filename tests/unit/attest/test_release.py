from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import pytest

from sevkit.abi.secret_packet import DISK_GUID, SecretEntry, encode_secret_table
from sevkit.attest.release import (
    RISKS,
    Accept,
    Release,
    decide_release,
    foresee_release,
    parse_accepted,
)
from sevkit.attest.sev_launch import LaunchClaim, LaunchExpectations, VerifiedLaunch, judge_launch
from sevkit.attest.verdict import Outcome, Verdict
from sevkit.errors import (
    ExpectationError,
    InsecureUsage,
    InternalError,
    UndecidedError,
    UsageError,
    VerificationError,
)
from sevkit.measure.launch_measurement import LaunchMeasurement, compute_launch_measurement
from sevkit.measure.reference import Reference
from sevkit.measure.terms import Mode
from sevkit.secret import Secret

AT: Final = datetime(2026, 11, 25, tzinfo=UTC)
TIK: Final = Secret(b"I" * 16)
PLAIN: Final = Reference(b"p" * 32, Mode.SEV_ES, "plain", covers_kernel=False)
MEASURED: Final = Reference(b"m" * 32, Mode.SEV_ES, "kernel hashes", covers_kernel=True)
TABLE: Final = encode_secret_table([SecretEntry(DISK_GUID, Secret(b"the disk's key"))])
ROOM: Final = (0x80C000, 0xC00)
ALL: Final = frozenset(Accept)
VARIABLES: Final = frozenset({Accept.UNMEASURED_VARIABLES})
BOOT: Final = frozenset({Accept.UNMEASURED_BOOT})


def judge(
    launched: Reference, *expected: Reference, policy: int = 5, mnonce: bytes = bytes(16)
) -> tuple[Verdict, VerifiedLaunch | None]:
    measure = compute_launch_measurement(
        TIK,
        api_major=1,
        api_minor=55,
        build_id=21,
        policy=policy,
        digest=launched.digest,
        mnonce=mnonce,
    )
    claim = LaunchClaim(LaunchMeasurement(measure, mnonce), 1, 55, 21)
    return judge_launch(claim, TIK, policy, expected, LaunchExpectations(), at=AT)


def decide(
    found: tuple[Verdict, VerifiedLaunch | None],
    accepted: frozenset[Accept],
    area: tuple[int, int] | None = ROOM,
) -> Release:
    return decide_release(*found, accepted, area=area, table=TABLE)


def test_the_words_are_those_of_the_contract() -> None:
    assert [accept.value for accept in Accept] == ["unmeasured-boot", "unmeasured-variables"]
    assert parse_accepted(["unmeasured-boot", "unmeasured-boot"]) == BOOT
    assert parse_accepted([]) == frozenset()


@pytest.mark.parametrize("word", ["", "all", "Unmeasured-Boot", "unmeasured-boot ", "UNMEASURED"])
def test_a_word_that_names_no_risk_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match="is no risk") as caught:
        parse_accepted([word])
    assert "unmeasured-boot, unmeasured-variables" in caught.value.hint


@pytest.mark.parametrize("accepted", [frozenset(), BOOT, VARIABLES, ALL])
@pytest.mark.parametrize("reference", [PLAIN, MEASURED])
def test_every_open_risk_must_be_accepted(
    reference: Reference, accepted: frozenset[Accept]
) -> None:
    open_risks = VARIABLES if reference.covers_kernel else ALL
    missing = open_risks - accepted
    found = judge(reference, reference)
    if not missing:
        foresee_release([reference], accepted, area=ROOM, table=TABLE)
        release = decide(found, accepted)
        assert release.launch is found[1]
        assert release.table == TABLE
        assert set(release.risks) == open_risks
        return
    with pytest.raises(InsecureUsage) as late:
        decide(found, accepted)
    with pytest.raises(InsecureUsage) as early:
        foresee_release([reference], accepted, area=ROOM, table=TABLE)
    for caught in (early, late):
        assert caught.value.exit_code == 5
        for risk in RISKS:
            assert (risk.check in caught.value.message) == (risk.accept in missing)
            assert (f"--accept {risk.accept}" in caught.value.hint) == (risk.accept in missing)


def test_which_reference_is_matched_is_judged_only_when_it_is_known() -> None:
    foresee_release([PLAIN, MEASURED], VARIABLES, area=ROOM, table=TABLE)
    decide(judge(MEASURED, PLAIN, MEASURED), VARIABLES)
    with pytest.raises(InsecureUsage, match=r"coverage\.kernel"):
        decide(judge(PLAIN, PLAIN, MEASURED), VARIABLES)


def test_no_reference_measures_nothing() -> None:
    with pytest.raises(InsecureUsage, match=r"coverage\.kernel"):
        foresee_release([], VARIABLES, area=ROOM, table=TABLE)


@pytest.mark.parametrize("outcome", [None, *(o for o in Outcome if o is not Outcome.PASS)])
@pytest.mark.parametrize("risk", RISKS)
def test_coverage_that_does_not_pass_or_is_missing_is_an_open_risk(
    risk: tuple[str, Accept, str], outcome: Outcome | None
) -> None:
    verdict, launch = judge(MEASURED, MEASURED)
    found = [
        replace(one, outcome=Outcome.PASS) if one.check.startswith("coverage.") else one
        for one in verdict.findings
    ]
    assert decide((replace(verdict, findings=tuple(found)), launch), frozenset()).risks == ()
    place = next(n for n, one in enumerate(found) if one.check == risk[0])
    if outcome is None:
        del found[place]
    else:
        found[place] = replace(found[place], outcome=outcome)
    changed = replace(verdict, findings=tuple(found))
    with pytest.raises((InsecureUsage, ExpectationError), match=risk[0]):
        decide((changed, launch), ALL - {risk[1]})


@pytest.mark.parametrize("area", [None, (0, 0xC00), (0x80C000, 0), (0x80C000, len(TABLE) - 1)])
def test_a_firmware_without_room_is_not_acceptable(area: tuple[int, int] | None) -> None:
    with pytest.raises(ExpectationError, match=r"secret\.area") as caught:
        foresee_release([PLAIN], ALL, area=area, table=TABLE)
    assert caught.value.exit_code == 3
    with pytest.raises(ExpectationError, match=r"secret\.area"):
        decide(judge(PLAIN, PLAIN), ALL, area)
    decide(judge(PLAIN, PLAIN), ALL, (0x80C000, len(TABLE)))


def test_nothing_is_released_to_a_launch_that_is_not_accepted() -> None:
    with pytest.raises(VerificationError, match=r"launch\.measurement") as mismatch:
        decide(judge(PLAIN, MEASURED), ALL)
    assert (mismatch.value.exit_code, mismatch.value.check) == (1, "launch.measurement")
    with pytest.raises(ExpectationError, match=r"launch\.policy-debug") as debug:
        decide(judge(PLAIN, PLAIN, policy=4), ALL)
    assert debug.value.exit_code == 3
    verdict, launch = judge(PLAIN, PLAIN)
    with pytest.raises(UndecidedError) as undecided:
        decide((replace(verdict, undecided=True), launch), ALL)
    assert undecided.value.exit_code == 4


def test_a_verdict_releases_nothing_to_another_launch() -> None:
    one, other = judge(PLAIN, PLAIN), judge(PLAIN, PLAIN, mnonce=b"n" * 16)
    with pytest.raises(InternalError, match="another launch"):
        decide((one[0], other[1]), ALL)
    with pytest.raises(InternalError, match="another launch"):
        decide((one[0], None), ALL)


def test_a_verdict_without_the_measurement_releases_nothing() -> None:
    verdict, launch = judge(PLAIN, PLAIN)
    findings = tuple(one for one in verdict.findings if one.check != "launch.measurement")
    with pytest.raises(InternalError, match="not verified"):
        decide((replace(verdict, findings=findings), launch), ALL)


def test_each_coverage_check_of_a_risk_exists() -> None:
    verdict, _ = judge(PLAIN, PLAIN)
    known = {found.check for found in verdict.findings}
    assert {risk.check for risk in RISKS} <= known
    assert len({risk.accept for risk in RISKS}) == len(RISKS) == len(Accept)
    assert not any(a.value in b.value for a, b in itertools.permutations(Accept, 2))
