from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from sevkit.attest import checks
from sevkit.attest.verdict import (
    Check,
    Finding,
    Kind,
    Ledger,
    Outcome,
    Verdict,
    conclude,
    render_time,
)
from sevkit.errors import ChainBroken, InternalError, SignatureMismatch

AT = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
CATALOGUE = (
    Check("key.signed", Kind.AUTHENTICITY, "A 1", "Did it sign?", required=True),
    Check("key.fresh", Kind.AUTHENTICITY, "A 2", "Is it fresh?"),
    Check("policy.debug", Kind.ACCEPTANCE, "B 1", "Is it closed?", required=True),
    Check("policy.chip", Kind.ACCEPTANCE, "B 2", "Is it listed?"),
)


def close(ledger: Ledger) -> Verdict:
    return conclude("example", "00" * 32, AT, ledger, {"product": "Milan"})


def all_passed() -> Ledger:
    ledger = Ledger(CATALOGUE)
    for check in CATALOGUE:
        ledger.passed(check.name)
    return ledger


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        ("2026-11-23T12:30:00+00:00", "2026-11-23T12:30:00Z"),
        ("2026-11-23T01:30:00.999999+02:00", "2026-11-22T23:30:00Z"),
        ("0001-01-01T00:00:00+00:00", "0001-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59+00:00", "9999-12-31T23:59:59Z"),
    ],
)
def test_times_are_written_as_rfc_3339_in_utc(moment: str, text: str) -> None:
    assert render_time(datetime.fromisoformat(moment)) == text


def test_indecision_is_taken_over_with_the_findings() -> None:
    ledger, scratch = Ledger(CATALOGUE), Ledger(CATALOGUE)
    scratch.undecided = True
    scratch.skipped("key.fresh", "nobody knows")
    ledger.adopt(scratch)
    assert ledger.undecided
    ledger.adopt(Ledger(CATALOGUE))
    assert ledger.undecided


def test_everything_passed_is_accepted() -> None:
    verdict = close(all_passed())
    assert verdict.accepted
    assert verdict.exit_code == 0


@pytest.mark.parametrize(
    ("failed", "code"),
    [
        (("key.signed",), 1),
        (("policy.debug",), 3),
        (("policy.debug", "key.fresh"), 1),
        (("policy.chip", "policy.debug"), 3),
    ],
)
def test_not_authentic_outweighs_not_acceptable(failed: tuple[str, ...], code: int) -> None:
    ledger = Ledger(CATALOGUE)
    for check in CATALOGUE:
        ledger.judge(check.name, check.name not in failed)
    verdict = close(ledger)
    assert verdict.exit_code == code
    assert not verdict.accepted


def test_warnings_and_skips_of_what_need_not_be_made_decide_nothing() -> None:
    ledger = Ledger(CATALOGUE)
    ledger.passed("key.signed")
    ledger.passed("policy.debug")
    ledger.warned("key.fresh", detail="old")
    ledger.skipped("policy.chip", "no list given")
    assert close(ledger).exit_code == 0


@pytest.mark.parametrize(
    ("required", "outcome"),
    [
        ("key.signed", Outcome.SKIP),
        ("key.signed", Outcome.WARN),
        ("key.signed", None),
        ("policy.debug", Outcome.SKIP),
        ("policy.debug", None),
    ],
)
def test_an_acceptance_without_a_required_check_is_a_bug(
    required: str, outcome: Outcome | None
) -> None:
    ledger = Ledger(CATALOGUE)
    for check in CATALOGUE:
        if check.name != required:
            ledger.passed(check.name)
        elif outcome is not None:
            ledger.record(check.name, outcome)
    with pytest.raises(InternalError, match=required):
        close(ledger)


def test_a_risk_that_was_accepted_by_name_is_a_warning_and_an_acceptance() -> None:
    ledger = Ledger(CATALOGUE)
    ledger.passed("key.signed")
    ledger.warned("policy.debug", detail="allowed by name")
    assert close(ledger).exit_code == 0


def test_an_empty_ledger_is_never_an_acceptance() -> None:
    with pytest.raises(InternalError):
        close(Ledger(CATALOGUE))


def test_undecided_outweighs_everything() -> None:
    ledger = Ledger(CATALOGUE)
    ledger.failed("key.signed")
    ledger.undecided = True
    verdict = close(ledger)
    assert verdict.exit_code == 4
    assert not verdict.accepted


def test_every_check_appears_in_the_catalogues_order_with_the_reason() -> None:
    ledger = Ledger(CATALOGUE)
    ledger.passed("key.fresh")
    ledger.failed("key.signed", expected="a", actual="b")
    verdict = close(ledger)
    assert [found.check for found in verdict.findings] == [check.name for check in CATALOGUE]
    missed = verdict.findings[2]
    assert missed.outcome is Outcome.SKIP
    assert missed.detail == "not reached: key.signed failed"
    assert missed.source == "B 1"


@pytest.mark.parametrize("later", list(Outcome))
def test_a_failure_is_never_softened(later: Outcome) -> None:
    ledger = Ledger(CATALOGUE)
    ledger.failed("key.signed", detail="first")
    ledger.record("key.signed", later, detail="second")
    assert ledger.findings[0].outcome is Outcome.FAIL
    assert ledger.findings[0].detail == "first"


def test_a_pass_can_become_a_failure() -> None:
    ledger = all_passed()
    ledger.failed("key.fresh")
    assert close(ledger).exit_code == 1


def test_a_check_that_no_catalogue_has_is_a_bug() -> None:
    with pytest.raises(InternalError, match=r"key\.unknown"):
        Ledger(CATALOGUE).passed("key.unknown")


def test_a_demand_that_holds_is_recorded_and_one_that_does_not_ends_it() -> None:
    ledger = Ledger(CATALOGUE)
    ledger.require("key.fresh", True, ChainBroken, "unused")
    with pytest.raises(SignatureMismatch) as caught:
        ledger.require("key.signed", False, SignatureMismatch, "it did not sign", expected="x")
    assert caught.value.check == "key.signed"
    assert [(found.check, found.outcome) for found in ledger.findings] == [
        ("key.fresh", Outcome.PASS),
        ("key.signed", Outcome.FAIL),
    ]
    assert ledger.findings[1].detail == "it did not sign"


def test_an_error_from_below_fails_its_check_once() -> None:
    ledger = Ledger(CATALOGUE)
    ledger.note(ChainBroken("first", check="key.fresh"))
    ledger.note(ChainBroken("second", check="key.fresh"))
    assert [found.detail for found in ledger.findings] == ["first"]


def test_the_document_has_the_shape_of_the_contract() -> None:
    ledger = all_passed()
    ledger.failed("policy.debug", expected="off", actual="on", detail="why")
    document = json.loads(json.dumps(close(ledger).to_json()))
    assert list(document) == [
        "schema",
        "subject",
        "accepted",
        "exit_code",
        "at",
        "findings",
        "evidence",
    ]
    assert document["schema"] == "sevkit.io/verdict/v1"
    assert document["subject"] == {"kind": "example", "sha256": "00" * 32}
    assert (document["accepted"], document["exit_code"]) == (False, 3)
    assert document["at"] == "2026-11-23T12:30:00Z"
    assert document["evidence"] == {"product": "Milan"}
    assert document["findings"][2] == {
        "check": "policy.debug",
        "outcome": "fail",
        "expected": "off",
        "actual": "on",
        "detail": "why",
        "source": "B 1",
    }


def test_a_finding_of_no_catalogue_does_not_pass_for_an_acceptance() -> None:
    stray = Finding("key.unknown", Outcome.FAIL)
    with pytest.raises(KeyError):
        _ = Verdict("example", "", AT, (stray,), CATALOGUE).exit_code


CATALOGUES = {
    name: rows for name, rows in vars(checks).items() if name.isupper() and name[0] != "_"
}


@pytest.mark.parametrize("name", CATALOGUES)
def test_names_in_a_real_catalogue_are_dotted_and_occur_once(name: str) -> None:
    names = [check.name for check in CATALOGUES[name]]
    assert len(set(names)) == len(names)
    assert all("." in name and name == name.lower() for name in names)


@pytest.mark.parametrize("name", [name for name in CATALOGUES if name != "COVERAGE"])
def test_a_real_catalogue_demands_something_authentic(name: str) -> None:
    rows: tuple[Check, ...] = CATALOGUES[name]
    assert any(check.required and check.kind is Kind.AUTHENTICITY for check in rows)
    assert all(check.question and check.source for check in rows)
