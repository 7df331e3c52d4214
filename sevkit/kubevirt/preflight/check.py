"""The checks of ``sevkit cluster preflight``: named, each with a verdict, a value and a fix.

A check whose parent failed is skipped, because its failure would say nothing new. One that could
not be made, for want of a right or of an answer, is skipped with that reason: then nobody knows
whether the cluster is ready, unless something else says no.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, final

from sevkit.errors import ExpectationError, FormatError, UndecidedError
from sevkit.host.doctor.check import Verdict
from sevkit.kubevirt.preflight.survey import NotAskedError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from sevkit.kubevirt.preflight.survey import Survey


class Found(NamedTuple):
    """What one check saw: a verdict, the value, and why, in as few words as will do.

    ``objects`` are the names of what it is about, all of them; ``fix`` is for this finding alone.
    """

    verdict: Verdict
    value: str = ""
    detail: str = ""
    objects: tuple[str, ...] = ()
    fix: str = ""


@final
@dataclass(frozen=True, slots=True)
class Check:
    """One row of the catalogue.

    ``name`` is stable, and its first part the group; ``parent`` names the check that must not have
    failed; ``source`` is where it is written that it matters.
    """

    name: str
    summary: str
    look: Callable[[Survey], Found]
    fix: str
    source: str
    parent: str = ""

    @property
    def group(self) -> str:
        """The part of the cluster that it is about."""
        return self.name.partition(".")[0]


@final
@dataclass(frozen=True, slots=True)
class Result:
    """One check that was made, or why it was not. ``right`` is the one that is missing for it.

    ``fix`` is only there where one is needed.
    """

    check: Check
    verdict: Verdict
    value: str = ""
    detail: str = ""
    fix: str = ""
    right: str = ""
    objects: tuple[str, ...] = ()


def examine(
    survey: Survey, catalogue: Iterable[Check], groups: Collection[str]
) -> tuple[Result, ...]:
    """Return the result of every check of these groups, in the catalogue's order."""
    results: dict[str, Result] = {}
    for check in catalogue:
        if check.group in groups:
            results[check.name] = _examine(check, survey, results.get(check.parent))
    return tuple(results.values())


def _examine(check: Check, survey: Survey, parent: Result | None) -> Result:
    if parent is not None and parent.verdict in {Verdict.FAIL, Verdict.SKIP}:
        return Result(check, Verdict.SKIP, detail=f"{parent.check.name} did not pass")
    try:
        seen = check.look(survey)
    except NotAskedError as error:
        missing = error.unasked
        fix = f"grant the right to {missing.right}" if missing.right else ""
        return Result(check, Verdict.SKIP, "", missing.reason, fix, missing.right)
    except FormatError as error:
        return Result(check, Verdict.SKIP, detail=f"API server's answer: {error.message}")
    needs_fix = seen.verdict in {Verdict.FAIL, Verdict.WARN}
    fix = (seen.fix or check.fix) if needs_fix else ""
    return Result(check, seen.verdict, seen.value, seen.detail, fix, "", seen.objects)


def exit_code(results: Iterable[Result]) -> int:
    """Return 0 for a cluster that is ready, 3 for one that is not, 4 if that is not known."""
    verdicts = {one.verdict for one in results}
    if Verdict.FAIL in verdicts:
        return ExpectationError.exit_code
    return UndecidedError.exit_code if Verdict.SKIP in verdicts else 0
