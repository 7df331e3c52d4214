"""The checks of ``sevkit node doctor``: named, each with a verdict, a value and a fix.

They are the ones of ``sevctl ok`` and ``snphost ok``, made without the msr module and without
root as far as other sources say the same, and the ones that both lack. A check whose parent failed
is skipped, because its failure would say nothing new; so is one whose source could not be read.
Whether a host is ready is not counted from the checks: ``capabilities`` decides that.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple, final

from sevkit.host.capability import State, Technology
from sevkit.host.evidence import Evidence, weigh
from sevkit.host.reading import Unreadable
from sevkit.host.reasons import TEXTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sevkit.host.capability import Capabilities
    from sevkit.host.facts import HostFacts
    from sevkit.host.reading import Reading
    from sevkit.host.reasons import Reason

SEV, ES, SNP = Technology.SEV, Technology.SEV_ES, Technology.SEV_SNP
ALL: Final = frozenset(Technology)
ENCRYPTED_STATE: Final = frozenset({ES, SNP})
ONLY_SNP: Final = frozenset({SNP})
#: Of a check that is only told: no technology stands or falls with it.
NONE: Final = frozenset[Technology]()


class Verdict(StrEnum):
    """How a check came out. Only ``fail`` is a no; ``skip`` was not made."""

    PASS = "pass"  # noqa: S105  # an outcome, not a password
    FAIL = "fail"
    WARN = "warn"
    SKIP = "skip"


class Found(NamedTuple):
    """What one check saw: a verdict, the value, and why, in as few words as will do."""

    verdict: Verdict
    value: str = ""
    detail: str = ""


class Memlock(NamedTuple):
    """How much memory a process may lock, in bytes; -1 is without limit."""

    soft: int
    hard: int


@final
@dataclass(frozen=True, slots=True)
class Patient:
    """What checks look at."""

    e: Evidence
    facts: HostFacts
    found: Capabilities
    memlock: Memlock | None


@final
@dataclass(frozen=True, slots=True)
class Check:
    """One row of the catalogue.

    ``name`` is stable; ``needs`` are the technologies that do not work without it, empty for what
    is only told; ``parent`` names the check that must not have failed. ``snphost`` and ``sevctl``
    are the names under which those tools make the same check, ``source`` is what is looked at.
    """

    name: str
    summary: str
    needs: frozenset[Technology]
    look: Callable[[Patient], Found]
    fix: str = ""
    parent: str = ""
    snphost: str = ""
    sevctl: str = ""
    source: str = ""


@final
@dataclass(frozen=True, slots=True)
class Result:
    """One check that was made, or why it was not. ``fix`` is only there where one is needed."""

    check: Check
    verdict: Verdict
    value: str
    detail: str
    fix: str


def examine(
    facts: HostFacts,
    found: Capabilities,
    catalogue: Iterable[Check],
    *,
    memlock: Memlock | None = None,
) -> tuple[Result, ...]:
    """Return the result of every check, in the catalogue's order, parents before children."""
    patient = Patient(weigh(facts), facts, found, memlock)
    results: dict[str, Result] = {}
    for check in catalogue:
        results[check.name] = _examine(check, patient, results.get(check.parent))
    return tuple(results.values())


def _examine(check: Check, patient: Patient, parent: Result | None) -> Result:
    if parent is not None and (parent.verdict is Verdict.FAIL or _moot(parent)):
        return Result(check, Verdict.SKIP, "", f"{parent.check.name} did not pass", "")
    seen = check.look(patient)
    fix = check.fix if seen.verdict in {Verdict.FAIL, Verdict.WARN} else ""
    return Result(check, seen.verdict, seen.value, seen.detail, fix)


def _moot(parent: Result) -> bool:
    """Whether a parent was itself skipped for a parent's sake."""
    return parent.verdict is Verdict.SKIP and parent.detail.endswith("did not pass")


def readiness(found: Capabilities, required: Iterable[Technology]) -> State:
    """Return ``usable`` if a host is ready, ``unknown`` if that was not found out, else a no.

    It is ready if it can run everything that is required; if nothing is, anything at all.
    """
    asked = tuple(required)
    states = [found.of(one).state for one in asked or Technology]
    if asked:
        bad = [state for state in states if state not in {State.USABLE, State.UNKNOWN}]
        return bad[0] if bad else (State.UNKNOWN if State.UNKNOWN in states else State.USABLE)
    for state in (State.USABLE, State.UNKNOWN):
        if state in states:
            return state
    return states[0]


def from_flag(known: bool | None, why: str, *, yes: str = "yes", no: str = "no") -> Found:
    """Return a pass, a fail, or a skip because of ``why``."""
    if known is None:
        return Found(Verdict.SKIP, detail=why)
    return Found(Verdict.PASS, yes) if known else Found(Verdict.FAIL, no)


def told(value: object) -> Found:
    """Return a value that is shown and not judged."""
    if value is None:
        return Found(Verdict.SKIP, detail="not read")
    words = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
    return Found(Verdict.PASS, words)


def why_not(reading: Reading[object]) -> str:
    """Return why there is no value."""
    return reading.detail if isinstance(reading, Unreadable) else "not said"


def hint_of(reason: Reason) -> str:
    """Return what to do about a reason."""
    return TEXTS[reason].hint
