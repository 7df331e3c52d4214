from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import pytest

from sevkit.attest.checks import SEV_LAUNCH
from sevkit.attest.sev_launch import (
    LaunchClaim,
    LaunchExpectations,
    VerifiedLaunch,
    judge_launch,
    verify_launch,
)
from sevkit.attest.verdict import Ledger, Outcome, Verdict
from sevkit.errors import FormatError, MeasurementMismatch, UsageError
from sevkit.measure.launch_measurement import LaunchMeasurement, compute_launch_measurement
from sevkit.measure.reference import Reference
from sevkit.measure.terms import Mode
from sevkit.secret import Secret

AT: Final = datetime(2026, 11, 23, tzinfo=UTC)
TIK: Final = Secret(b"I" * 16)
SEV: Final = Reference(hashlib.sha256(b"sev").digest(), Mode.SEV, "any vCPUs", covers_kernel=False)
ES: Final = Reference(hashlib.sha256(b"es").digest(), Mode.SEV_ES, "4 vCPUs, init", False)
ES2: Final = Reference(hashlib.sha256(b"es2").digest(), Mode.SEV_ES, "4 vCPUs, init2", True)
SNP: Final = Reference(bytes(48), Mode.SNP, "snp", covers_kernel=True)


def claim(digest: bytes, policy: int, version: tuple[int, int, int] = (1, 55, 21)) -> LaunchClaim:
    """Return what a genuine platform reports for a launch with this digest and policy."""
    mnonce = bytes(range(16))
    measure = compute_launch_measurement(
        TIK,
        api_major=version[0],
        api_minor=version[1],
        build_id=version[2],
        policy=policy,
        digest=digest,
        mnonce=mnonce,
    )
    return LaunchClaim(LaunchMeasurement(measure, mnonce), *version)


def verify(made: LaunchClaim, policy: int, *references: Reference) -> VerifiedLaunch:
    return verify_launch(made, TIK, policy, references, Ledger(SEV_LAUNCH))


def judge(
    made: LaunchClaim,
    policy: int,
    *references: Reference,
    expected: LaunchExpectations | None = None,
) -> Verdict:
    verdict, launch = judge_launch(
        made, TIK, policy, references, expected or LaunchExpectations(), at=AT
    )
    assert (launch is None) == (verdict.exit_code != 0)
    assert [found.check for found in verdict.findings] == [row.name for row in SEV_LAUNCH]
    return verdict


def outcome(verdict: Verdict, check: str) -> Outcome:
    return next(found.outcome for found in verdict.findings if found.check == check)


def test_a_launch_that_the_tik_confirms_is_verified() -> None:
    launch = verify(claim(SEV.digest, 1), 1, SEV)
    assert launch.matched is SEV
    assert launch.measure == launch.claim.measurement.measure


def test_the_answer_says_which_era_matched() -> None:
    assert verify(claim(ES2.digest, 5), 5, ES, ES2).matched is ES2
    assert verify(claim(ES.digest, 5), 5, ES, ES2).matched is ES
    verdict = judge(claim(ES.digest, 5), 5, ES, ES2)
    assert verdict.evidence["matched"] == "4 vCPUs, init"


@pytest.mark.parametrize("level", [(99, 55, 21), (1, 99, 21), (1, 55, 99)])
def test_a_firmware_level_that_the_host_made_up_is_not_authentic(
    level: tuple[int, int, int],
) -> None:
    made = LaunchClaim(claim(SEV.digest, 1).measurement, *level)
    with pytest.raises(MeasurementMismatch):
        verify(made, 1, SEV)


def test_a_measurement_under_another_tik_is_not_authentic() -> None:
    with pytest.raises(MeasurementMismatch) as caught:
        verify_launch(claim(SEV.digest, 1), Secret(b"J" * 16), 1, [SEV], Ledger(SEV_LAUNCH))
    assert caught.value.check == "launch.measurement"


@pytest.mark.parametrize("part", ["measure", "mnonce"])
def test_a_changed_measurement_is_not_authentic(part: str) -> None:
    made = claim(SEV.digest, 1)
    value = getattr(made.measurement, part)
    broken = replace(made.measurement, **{part: bytes([value[0] ^ 1]) + value[1:]})
    with pytest.raises(MeasurementMismatch):
        verify(replace(made, measurement=broken), 1, SEV)


def test_an_all_zero_measurement_passes_for_nothing() -> None:
    made = LaunchClaim(LaunchMeasurement(bytes(32), bytes(16)), 0, 0, 0)
    assert judge(made, 1, SEV).exit_code == 1


def test_nothing_to_compare_with_is_no_pass() -> None:
    with pytest.raises(UsageError):
        verify(claim(SEV.digest, 1), 1)
    with pytest.raises(UsageError):
        verify(claim(SEV.digest, 1), 1, SNP)


def test_a_digest_of_another_size_is_malformed() -> None:
    with pytest.raises(FormatError):
        verify(claim(SEV.digest, 1), 1, replace(SEV, digest=bytes(31)))


def test_a_mismatch_says_what_was_expected_and_what_came() -> None:
    made = claim(b"x" * 32, 5)
    verdict = judge(made, 5, ES, ES2)
    finding = verdict.findings[0]
    assert (verdict.exit_code, finding.outcome) == (1, Outcome.FAIL)
    assert ES.digest.hex() in finding.expected
    assert ES2.digest.hex() in finding.expected
    assert finding.actual == made.measurement.measure.hex()
    assert verdict.evidence["authenticated"] is False


def test_a_mismatch_that_another_policy_explains_says_so() -> None:
    verdict = judge(claim(ES.digest, 5), 1, ES)
    assert verdict.exit_code == 1
    assert "it fits guest policy 0x5" in verdict.findings[0].detail


def test_a_mismatch_that_the_hosts_policy_explains_says_so() -> None:
    made = replace(claim(ES.digest, 0x25), policy=0x25)
    assert "it fits guest policy 0x25" in judge(made, 5, ES).findings[0].detail


def test_a_mismatch_is_handed_to_the_search() -> None:
    ledger = Ledger(SEV_LAUNCH)
    with pytest.raises(MeasurementMismatch) as caught:
        verify_launch(
            claim(ES2.digest, 5),
            TIK,
            5,
            [ES],
            ledger,
            explain=lambda confirms: "the other era" if confirms(ES2.digest) else "nothing",
        )
    assert caught.value.hint == "the other era"
    assert "the other era" in ledger.findings[0].detail


@pytest.mark.parametrize("policy", [0, 4])
def test_a_policy_without_nodbg_is_not_acceptable(policy: int) -> None:
    reference = ES if policy & 4 else SEV
    made = claim(reference.digest, policy)
    assert judge(made, policy, reference).exit_code == 3
    accepted = judge(made, policy, reference, expected=LaunchExpectations(allow_debug=True))
    assert accepted.exit_code == 0


@pytest.mark.parametrize(("policy", "reference"), [(1, ES), (5, SEV)])
def test_a_policy_that_does_not_demand_what_was_measured_is_not_acceptable(
    policy: int, reference: Reference
) -> None:
    verdict = judge(claim(reference.digest, policy), policy, reference)
    assert verdict.exit_code == 3
    assert outcome(verdict, "launch.policy-es") is Outcome.FAIL


def test_a_digest_for_another_policy_is_not_acceptable() -> None:
    strict = replace(ES, parameters={"guest_policy": "0xd"})
    verdict = judge(claim(ES.digest, 5), 5, strict)
    assert verdict.exit_code == 3
    assert outcome(verdict, "launch.measurement") is Outcome.PASS
    assert outcome(verdict, "launch.policy-reference") is Outcome.FAIL
    fitting = replace(ES, parameters={"guest_policy": "0x5"})
    for references in ((strict, fitting), (fitting, strict)):
        verdict = judge(claim(ES.digest, 5), 5, *references)
        assert verdict.exit_code == 0
        assert outcome(verdict, "launch.policy-reference") is Outcome.PASS
    verdict = judge(claim(ES.digest, 5), 5, ES)
    assert outcome(verdict, "launch.policy-reference") is Outcome.SKIP


def test_a_host_that_states_another_policy_is_not_acceptable() -> None:
    made = replace(claim(SEV.digest, 1), policy=3)
    verdict = judge(made, 1, SEV)
    assert verdict.exit_code == 3
    assert outcome(verdict, "launch.info-policy") is Outcome.FAIL
    assert judge(replace(made, policy=1), 1, SEV).exit_code == 0


@pytest.mark.parametrize(
    ("minimum", "code"),
    [
        ((1, 55, 21), 0),
        ((1, 55, 0), 0),
        ((0, 99, 99), 0),
        ((1, 55, 22), 3),
        ((1, 56, 0), 3),
        ((2, 0, 0), 3),
    ],
)
def test_firmware_is_compared_by_major_minor_and_build(
    minimum: tuple[int, int, int], code: int
) -> None:
    expected = LaunchExpectations(min_firmware=minimum)
    assert judge(claim(SEV.digest, 1), 1, SEV, expected=expected).exit_code == code


@pytest.mark.parametrize(
    ("loader", "shown"), [("", Outcome.SKIP), ("aa" * 32, Outcome.SKIP), ("bb" * 32, Outcome.WARN)]
)
def test_the_hosts_loader_hash_decides_nothing(loader: str, shown: Outcome) -> None:
    expected = LaunchExpectations(firmware_sha256="aa" * 32)
    made = replace(claim(SEV.digest, 1), loader_sha=loader)
    verdict = judge(made, 1, SEV, expected=expected)
    assert (verdict.exit_code, outcome(verdict, "launch.loader")) == (0, shown)


def test_a_matching_loader_hash_saves_no_wrong_measurement() -> None:
    expected = LaunchExpectations(firmware_sha256="aa" * 32)
    made = replace(claim(b"x" * 32, 1), loader_sha="aa" * 32)
    assert judge(made, 1, SEV, expected=expected).exit_code == 1


@pytest.mark.parametrize(
    ("reference", "policy", "vcpu_state", "kernel"),
    [
        (SEV, 1, Outcome.WARN, Outcome.WARN),
        (ES, 5, Outcome.PASS, Outcome.WARN),
        (ES2, 5, Outcome.PASS, Outcome.PASS),
    ],
)
def test_the_verdict_says_what_the_digest_covers(
    reference: Reference, policy: int, vcpu_state: Outcome, kernel: Outcome
) -> None:
    verdict = judge(claim(reference.digest, policy), policy, reference)
    assert outcome(verdict, "coverage.firmware") is Outcome.PASS
    assert outcome(verdict, "coverage.vcpu-state") is vcpu_state
    assert outcome(verdict, "coverage.kernel") is kernel
    assert outcome(verdict, "coverage.uefi-variables") is Outcome.WARN


def test_no_verdict_shows_the_tik() -> None:
    for verdict in (judge(claim(SEV.digest, 1), 1, SEV), judge(claim(b"x" * 32, 1), 1, SEV)):
        assert TIK.reveal().hex() not in repr(verdict.to_json())
