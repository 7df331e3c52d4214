"""Findings and verdicts: what was checked, what came out, and what was not checked.

A ``Ledger`` collects findings while a verifier works. A check that is never reached does not
vanish: ``Verdict`` lists every check of its subject's catalogue, as ``skip`` where there is no
finding. Only this module turns findings into an exit code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any, Final, final

from sevkit.errors import InternalError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA: Final = "sevkit.io/verdict/v1"


def render_time(moment: datetime) -> str:
    """Return a time with its zone as RFC 3339 in UTC, to the second.

    Not by ``strftime``, which writes the year 1 with one digit.
    """
    return moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


class Outcome(StrEnum):
    """How one check came out. ``warn`` and ``skip`` never change the exit code."""

    PASS = "pass"  # noqa: S105  # an outcome, not a password
    FAIL = "fail"
    WARN = "warn"
    SKIP = "skip"


class Kind(Enum):
    """What a failed check means; the value is the exit code."""

    AUTHENTICITY = 1
    ACCEPTANCE = 3
    RISK = 5
    SHAPE = 65


_MADE: Final = {
    Kind.AUTHENTICITY: frozenset({Outcome.PASS}),
    Kind.ACCEPTANCE: frozenset({Outcome.PASS, Outcome.WARN}),
    Kind.RISK: frozenset({Outcome.PASS, Outcome.WARN}),
    Kind.SHAPE: frozenset({Outcome.PASS}),
}


@final
@dataclass(frozen=True, slots=True)
class Check:
    """One row of a catalogue: a stable dotted name, what failing means, and the source.

    A ``required`` check must have been made before anything is accepted: forgetting it is a bug,
    not an acceptance. One of acceptance may end as a warning, where the caller allowed the risk.
    """

    name: str
    kind: Kind
    source: str
    question: str
    required: bool = False


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check, in words for people and values for programs."""

    check: str
    outcome: Outcome
    expected: str = ""
    actual: str = ""
    detail: str = ""
    source: str = ""

    def to_json(self) -> dict[str, str]:
        """Return the finding as the verdict's JSON has it."""
        return {
            "check": self.check,
            "outcome": self.outcome.value,
            "expected": self.expected,
            "actual": self.actual,
            "detail": self.detail,
            "source": self.source,
        }


@final
class Ledger:
    """Collects findings for one subject; refuses names that its catalogue does not have."""

    def __init__(self, catalogue: tuple[Check, ...]) -> None:
        self.catalogue: Final = catalogue
        self._checks: Final = {check.name: check for check in catalogue}
        self._findings: Final[dict[str, Finding]] = {}
        self.undecided: bool = False

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings so far, in the order in which they were made."""
        return tuple(self._findings.values())

    def record(
        self,
        check: str,
        outcome: Outcome,
        *,
        expected: str = "",
        actual: str = "",
        detail: str = "",
    ) -> None:
        """Record one finding. A later finding of the same check never softens a failure."""
        row = self._checks.get(check)
        if row is None:
            raise InternalError(f"check {check} is in no catalogue")
        earlier = self._findings.get(check)
        if earlier is not None and earlier.outcome is Outcome.FAIL:
            return
        self._findings[check] = Finding(check, outcome, expected, actual, detail, row.source)

    def passed(self, check: str, *, expected: str = "", actual: str = "", detail: str = "") -> None:
        """Record that a check passed."""
        self.record(check, Outcome.PASS, expected=expected, actual=actual, detail=detail)

    def failed(self, check: str, *, expected: str = "", actual: str = "", detail: str = "") -> None:
        """Record that a check failed, and go on."""
        self.record(check, Outcome.FAIL, expected=expected, actual=actual, detail=detail)

    def warned(self, check: str, *, expected: str = "", actual: str = "", detail: str = "") -> None:
        """Record something that the reader should know and that decides nothing."""
        self.record(check, Outcome.WARN, expected=expected, actual=actual, detail=detail)

    def skipped(self, check: str, detail: str) -> None:
        """Record that a check was not made, and why."""
        self.record(check, Outcome.SKIP, detail=detail)

    def judge(
        self, check: str, holds: bool, *, expected: str = "", actual: str = "", detail: str = ""
    ) -> None:
        """Record ``pass`` or ``fail``, and go on: for acceptance, where all reasons are wanted."""
        outcome = Outcome.PASS if holds else Outcome.FAIL
        self.record(check, outcome, expected=expected, actual=actual, detail=detail)

    def require(
        self,
        check: str,
        holds: bool,
        error: type[VerificationError],
        message: str,
        *,
        expected: str = "",
        actual: str = "",
    ) -> None:
        """Record ``pass``, or record ``fail`` and raise: for authenticity, one no is enough."""
        if holds:
            self.passed(check, expected=expected, actual=actual)
            return
        self.failed(check, expected=expected, actual=actual, detail=message)
        raise error(message, check=check)

    def adopt(self, other: Ledger) -> None:
        """Take over the findings of another ledger of the same catalogue, and its indecision."""
        self.undecided = self.undecided or other.undecided
        for found in other.findings:
            self.record(
                found.check,
                found.outcome,
                expected=found.expected,
                actual=found.actual,
                detail=found.detail,
            )

    def note(self, error: VerificationError) -> None:
        """Record a verification error that came from below, unless its check already failed."""
        self.failed(error.check, detail=error.message)


@final
@dataclass(frozen=True, slots=True)
class Verdict:
    """Everything that was found out about one subject.

    ``undecided`` says that something demanded could not be had: the exit code is then 4, whatever
    else was found. ``evidence`` holds what the subject says, for people and programs.
    """

    subject: str
    sha256: str
    at: datetime
    findings: tuple[Finding, ...]
    catalogue: tuple[Check, ...]
    evidence: Mapping[str, Any] = field(default_factory=dict)
    undecided: bool = False

    @property
    def exit_code(self) -> int:
        """0 accepted, 1 not authentic, 3 not acceptable, 4 undecided, 5 a risk, 65 malformed."""
        kinds = {check.name: check.kind for check in self.catalogue}
        failed = {kinds[found.check] for found in self.findings if found.outcome is Outcome.FAIL}
        if Kind.SHAPE in failed:
            return Kind.SHAPE.value
        if self.undecided:
            return 4
        order = (Kind.AUTHENTICITY, Kind.ACCEPTANCE, Kind.RISK)
        return next((kind.value for kind in order if kind in failed), 0)

    @property
    def accepted(self) -> bool:
        """Whether the subject is authentic and acceptable."""
        return self.exit_code == 0

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``--output json`` prints."""
        return {
            "schema": SCHEMA,
            "subject": {"kind": self.subject, "sha256": self.sha256},
            "accepted": self.accepted,
            "exit_code": self.exit_code,
            "at": render_time(self.at),
            "findings": [found.to_json() for found in self.findings],
            "evidence": dict(self.evidence),
        }


def conclude(
    subject: str, sha256: str, at: datetime, ledger: Ledger, evidence: Mapping[str, Any]
) -> Verdict:
    """Close a ledger: every check of its catalogue appears, in the catalogue's order.

    A required check that neither passed nor lost to a failure is a bug, never an acceptance.
    """
    found = {finding.check: finding for finding in ledger.findings}
    failed = any(f.outcome is Outcome.FAIL for f in found.values())
    if not failed and not ledger.undecided:
        for row in ledger.catalogue:
            made = found.get(row.name)
            if row.required and (made is None or made.outcome not in _MADE[row.kind]):
                raise InternalError(f"required check {row.name} was not made")
    stopped = next((name for name, f in found.items() if f.outcome is Outcome.FAIL), None)
    reason = f"not reached: {stopped} failed" if stopped else "not reached"
    findings = tuple(
        found.get(row.name) or Finding(row.name, Outcome.SKIP, detail=reason, source=row.source)
        for row in ledger.catalogue
    )
    return Verdict(
        subject, sha256, at, findings, ledger.catalogue, evidence, undecided=ledger.undecided
    )
