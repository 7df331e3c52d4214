"""May a launch secret go to this launch: the one rule by which sevkit releases secrets.

A measurement that fits says "this firmware on a genuine chip", no more. Which system that firmware
boots is measured only with kernel hashes, and UEFI variables never are (SEV, SEV-ES): the host
keeps both and may change them. A secret that is handed to such a guest is safe only if the firmware
itself gives it to nothing that it did not verify. That is the owner's knowledge and not ours, so
while a coverage finding does not pass, nothing is released unless he accepted that risk by its
word. A finding that is missing, or was skipped, does not pass.

Everything here is decided twice. ``foresee_release`` is asked before a session is spent on a launch
or a host is asked anything: it refuses what no launch of these references could be given.
``decide_release`` is asked with the verdict at hand, and its answer is what a packet is made from.
Source: sevkit's trust model; 55766 6.6 (what one LAUNCH_SECRET takes).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple, final

from sevkit.abi.secret_packet import check_secret_area
from sevkit.attest.verdict import Outcome
from sevkit.errors import (
    ExpectationError,
    InsecureUsage,
    InternalError,
    SevkitError,
    UndecidedError,
    UsageError,
    VerificationError,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from sevkit.attest.sev_launch import VerifiedLaunch
    from sevkit.attest.verdict import Verdict
    from sevkit.measure.reference import Reference
    from sevkit.secret import Secret


@final
class Accept(StrEnum):
    """The words by which an owner accepts what a digest does not cover (``accept``)."""

    UNMEASURED_BOOT = "unmeasured-boot"
    UNMEASURED_VARIABLES = "unmeasured-variables"


class _Risk(NamedTuple):
    check: str
    accept: Accept
    why: str


_MEASUREMENT: Final = "launch.measurement"
#: What has to be measured before a secret is released, and the word that does without.
RISKS: Final = (
    _Risk(
        "coverage.kernel",
        Accept.UNMEASURED_BOOT,
        "the host chooses the system that boots and would be given the secret",
    ),
    _Risk(
        "coverage.uefi-variables",
        Accept.UNMEASURED_VARIABLES,
        "the host sets the UEFI variables that the firmware boots by",
    ),
)


@final
@dataclass(frozen=True, slots=True)
class Release:
    """A secret table that may go to this launch, and to no other; ``decide_release`` makes it.

    ``risks`` are the words that the owner had to accept for it.
    """

    launch: VerifiedLaunch
    table: Secret
    risks: tuple[Accept, ...]


def parse_accepted(words: Iterable[str]) -> frozenset[Accept]:
    """Return the risks that words name. Raises ``UsageError`` for a word that names none."""
    found = set()
    for word in words:
        try:
            found.add(Accept(word))
        except ValueError as error:
            known = ", ".join(accept.value for accept in Accept)
            raise UsageError(
                f"accept: {word[:40]!r} is no risk that can be accepted", hint=f"there are {known}"
            ) from error
    return frozenset(found)


def foresee_release(
    references: Iterable[Reference],
    accepted: Collection[Accept],
    *,
    area: tuple[int, int] | None,
    table: Secret,
) -> None:
    """Refuse, before a launch is made or looked at, what no launch could be given.

    ``references`` are the owner's digests of SEV and SEV-ES; ``area`` is (base, size) of his
    firmware's launch secret area in bytes, or None where it declares none. Where one reference
    would do, nothing is raised: which of them a launch matches is not known yet.

    Raises ``InsecureUsage`` (5) for a boot or variables that are measured in none and not accepted,
    ``ExpectationError`` (3) for a firmware without room for the table.
    """
    measured_boot = any(entry.covers_kernel for entry in references)
    outcomes = {"coverage.kernel": Outcome.PASS if measured_boot else Outcome.WARN}
    _require_covered(outcomes, accepted)
    check_secret_area(table, area)


def decide_release(
    verdict: Verdict,
    launch: VerifiedLaunch | None,
    accepted: Collection[Accept],
    *,
    area: tuple[int, int] | None,
    table: Secret,
) -> Release:
    """Return the release of ``table`` to the launch that this verdict accepts, or refuse it.

    ``area`` as in ``foresee_release``; the verdict's catalogue must have the launch's checks in it.

    Raises ``VerificationError`` (1), ``ExpectationError`` (3) or ``UndecidedError`` (4) for a
    verdict that does not accept; ``InsecureUsage`` (5) for coverage that is neither there nor
    accepted; ``ExpectationError`` (3) for a firmware without room; ``InternalError`` for a launch
    that is not the verdict's.
    """
    if not verdict.accepted:
        raise _refusal(verdict)
    if launch is None or _subject_of(launch) != verdict.sha256:
        raise InternalError("the verdict is about another launch than the secret")
    outcomes = {found.check: found.outcome for found in verdict.findings}
    if outcomes.get(_MEASUREMENT) is not Outcome.PASS:
        raise InternalError("the launch measurement was not verified")
    risks = _require_covered(outcomes, accepted)
    check_secret_area(table, area)
    return Release(launch, table, risks)


def _require_covered(
    outcomes: Mapping[str, Outcome], accepted: Collection[Accept]
) -> tuple[Accept, ...]:
    """Return the risks that are taken. Raises ``InsecureUsage`` with all that are not accepted."""
    open_risks = [risk for risk in RISKS if outcomes.get(risk.check) is not Outcome.PASS]
    refused = [risk for risk in open_risks if risk.accept not in accepted]
    if refused:
        reasons = "; ".join(f"{risk.check}: {risk.why}" for risk in refused)
        words = " ".join(f"--accept {risk.accept}" for risk in refused)
        raise InsecureUsage(
            f"no secret is released: {reasons}",
            hint=f"if your firmware gives it to nothing that it did not verify: {words}",
        )
    return tuple(risk.accept for risk in open_risks)


def _subject_of(launch: VerifiedLaunch) -> str:
    found = launch.claim.measurement
    return hashlib.sha256(found.measure + found.mnonce).hexdigest()


def _refusal(verdict: Verdict) -> SevkitError:
    """Return the error that a verdict means which does not accept."""
    failed = [found.check for found in verdict.findings if found.outcome is Outcome.FAIL]
    message = f"no secret is released: {', '.join(failed) or 'something demanded is missing'}"
    if verdict.undecided:
        return UndecidedError(message)
    if verdict.exit_code == VerificationError.exit_code:
        return VerificationError(message, check=failed[0])
    return ExpectationError(message)
