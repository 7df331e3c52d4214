"""What is found out about one launch in KubeVirt, from its chain to its secret: one verdict. Pure.

Findings are collected while the launch goes on, kept with it across a crash, and closed when it
ends. The host's answers are judged here: a chain by ``judge_chain``, a measurement by
``judge_measurement``, both against what the owner brought.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final, final

from sevkit.abi.policy import SevPolicy, parse_sev_policy
from sevkit.attest.checks import KUBEVIRT_LAUNCH
from sevkit.attest.sev_explain import explain_launch
from sevkit.attest.sev_launch import LaunchClaim, judge_launch
from sevkit.attest.sev_platform import judge_platform
from sevkit.attest.verdict import Ledger, Verdict, conclude
from sevkit.attest.verdict import Outcome as Found
from sevkit.errors import FormatError
from sevkit.guest_owner.owner import refuse_coverage
from sevkit.guest_owner.terms import Outcome
from sevkit.kubevirt.subresources import parse_measurement_info, parse_platform_info
from sevkit.measure.launch_measurement import parse_launch_measurement
from sevkit.measure.terms import Mode

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sevkit.attest.sev_launch import VerifiedLaunch
    from sevkit.attest.sev_platform import VerifiedPlatform
    from sevkit.attest.sev_session import LaunchSession
    from sevkit.documents import Json
    from sevkit.guest_owner.owner import Owner
    from sevkit.kubevirt.launch_status import LaunchStatus

SUBJECT: Final = "kubevirt-launch"
_MOST_KNOWN: Final = 256
_NAMES: Final = frozenset(check.name for check in KUBEVIRT_LAUNCH)

#: How a launch that came to no verdict ended: the check that says so, and in which words.
_NO_VERDICT: Final[Mapping[Outcome, tuple[str, str]]] = {
    Outcome.ABSENT: ("vmi.launch", "there is no such VMI"),
    Outcome.DELETED: ("vmi.launch", "the VMI was deleted"),
    Outcome.REPLACED: ("vmi.launch", "the VMI was replaced by another of its name"),
    Outcome.OVER: ("vmi.launch", "the VMI ended"),
    Outcome.FOREIGN: ("vmi.session", "the VMI has, or was started with, somebody else's session"),
    Outcome.RELEASED: ("vmi.launch", "somebody let the guest run before it had its secret"),
    Outcome.LATE: ("vmi.launch", "the launcher's time was over before the guest was there"),
    Outcome.TIMEOUT: ("vmi.launch", "the time that was given was over"),
    Outcome.FORBIDDEN: ("vmi.launch", "the cluster refuses what has to be asked"),
    Outcome.SPENT: ("vmi.session", "this launch ended before, and its session is used up"),
}


@final
class Report:
    """The findings of one launch so far, and what the evidence says."""

    def __init__(self, namespace: str, name: str) -> None:
        self._ledger = Ledger(KUBEVIRT_LAUNCH)
        self._sha256 = hashlib.sha256(f"{namespace}/{name}".encode()).hexdigest()
        self._evidence: Final[dict[str, Any]] = {"vmi": f"{namespace}/{name}"}

    def to_json(self) -> dict[str, Json]:
        """Return what ``restore`` takes."""
        return {
            "sha256": self._sha256,
            "findings": [dict(found.to_json()) for found in self._ledger.findings],
            "evidence": self._evidence,
        }

    def restore(self, kept: Mapping[str, Json]) -> None:
        """Take over what was found before a crash. Raises ``FormatError``."""
        findings, evidence = kept.get("findings", []), kept.get("evidence", {})
        sha256 = kept.get("sha256", self._sha256)
        if not isinstance(findings, list) or not isinstance(evidence, dict):
            raise FormatError("launch record", "report is malformed")
        if not isinstance(sha256, str):
            raise FormatError("launch record", "report is malformed")
        self._sha256 = sha256
        self._evidence.update(evidence)
        for row in findings:
            words = {key: str(value) for key, value in row.items()} if isinstance(row, dict) else {}
            if words.get("check") not in _NAMES or words.get("outcome") not in set(Found):
                raise FormatError("launch record", "report has a finding that is none")
            self._ledger.record(
                words["check"],
                Found(words["outcome"]),
                expected=words.get("expected", ""),
                actual=words.get("actual", ""),
                detail=words.get("detail", ""),
            )

    def see(self, status: LaunchStatus) -> None:
        """Note which VMI it is."""
        self._evidence["uid"] = status.uid

    def fits(self, mode: Mode, policy: int) -> None:
        """Note that the VMI is one of the owner's."""
        self._ledger.passed("vmi.mode", actual=f"{mode}, policy {policy:#x}")

    def judge_chain(
        self,
        owner: Owner,
        data: bytes,
        at: datetime,
        *,
        known: dict[bytes, tuple[Verdict, VerifiedPlatform]] | None = None,
    ) -> VerifiedPlatform | Outcome:
        """Judge a host's SEVPlatformInfo; return the platform, or how the launch ends.

        The CEK comes from the firmware without AMD's signature, so the owner's own copy of the
        same key is put in its place, if he has one. ``known`` holds what this owner accepted
        before: guests of one host show one chain, in which nothing has a date.
        """
        known = {} if known is None else known
        if data in known:
            verdict, platform = known[data]
            self._adopt(verdict)
            return platform
        judged = self._judge_chain(owner, data, at)
        if not isinstance(judged, tuple):
            return judged
        if len(known) < _MOST_KNOWN:
            known[data] = judged
        return judged[1]

    def _judge_chain(
        self, owner: Owner, data: bytes, at: datetime
    ) -> tuple[Verdict, VerifiedPlatform] | Outcome:
        try:
            chain = parse_platform_info(data)
            signed = (cek for cek in owner.ceks if cek.key_sha256 == chain.cek.key_sha256)
            cek = next(signed, None)
            chain = chain if cek is None else chain.with_cek(cek)
            verdict, platform = judge_platform(
                chain, owner.platform, at=at, ca=owner.ca, roots=owner.roots
            )
        except FormatError as error:
            return self._malformed(error)
        self._adopt(verdict)
        if platform is not None:
            return verdict, platform
        return Outcome.UNDECIDED if verdict.undecided else Outcome.REFUSED

    def judge_measurement(
        self, owner: Owner, data: bytes, session: LaunchSession, at: datetime, *, release: bool
    ) -> VerifiedLaunch | Outcome:
        """Judge a host's SEVMeasurementInfo; return the launch, or how it ends.

        ``release`` says whether a secret is to go to it, so that what is not measured matters.
        """
        is_es = SevPolicy.ES in parse_sev_policy(session.policy)
        references = owner.references.get(Mode.SEV_ES if is_es else Mode.SEV, ())
        try:
            info = parse_measurement_info(data)
            claim = LaunchClaim(
                parse_launch_measurement(info.measurement),
                info.api_major,
                info.api_minor,
                info.build_id,
                info.policy,
                info.loader_sha,
            )
            verdict, launch = judge_launch(
                claim,
                session.keys.tik,
                session.policy,
                references,
                owner.launch,
                at=at,
                explain=explain_launch(owner.firmware, None, vcpus=owner.vcpus),
            )
        except FormatError as error:
            return self._malformed(error)
        self._ledger.passed("vmi.answers")
        self._ledger.passed("vmi.session")
        self._ledger.passed("vmi.launch", detail="it waits paused with the owner's session")
        self._adopt(verdict)
        if launch is None:
            return Outcome.REFUSED
        return self._cover(owner, launch) if release else launch

    def _cover(self, owner: Owner, launch: VerifiedLaunch) -> VerifiedLaunch | Outcome:
        risks = owner.unaccepted((launch.matched,))
        if risks:
            error = refuse_coverage(risks)
            self._ledger.failed("secret.coverage", detail=f"{error.message}; {error.hint}")
            return Outcome.UNCOVERED
        accepted = ", ".join(sorted(owner.accept)) or "nothing"
        self._ledger.passed("secret.coverage", detail=f"accepted: {accepted}")
        return launch

    def conclude(self, outcome: Outcome, said: str, at: datetime, *, injected: bool) -> Verdict:
        """Return the verdict on a launch that ended like this; ``said`` is what was said of it."""
        row = _NO_VERDICT.get(outcome)
        if row is not None:
            check, words = row
            self._ledger.failed(check, detail=f"{words}{said and f'; {said}'}")
            self._ledger.undecided = True
        if outcome is Outcome.UNFIT:
            self._ledger.failed("vmi.mode", detail=said)
        if outcome is Outcome.ATTESTED and injected:
            self._ledger.passed("secret.injected")
        elif outcome in {Outcome.ATTESTED, Outcome.VERIFIED}:
            self._ledger.skipped("secret.injected", "not asked for")
            self._ledger.skipped("secret.coverage", "no secret was released")
        self._evidence["outcome"] = outcome.value
        return conclude(SUBJECT, self._sha256, at, self._ledger, self._evidence)

    def resumed(self, *, runs: bool) -> None:
        """Note whether the guest runs."""
        if runs:
            self._ledger.passed("vmi.resumed")
        else:
            self._ledger.skipped("vmi.resumed", "not asked for: it waits paused")

    def _adopt(self, verdict: Verdict) -> None:
        for found in verdict.findings:
            self._ledger.record(
                found.check,
                found.outcome,
                expected=found.expected,
                actual=found.actual,
                detail=found.detail,
            )
        self._ledger.undecided = self._ledger.undecided or verdict.undecided
        self._evidence.update(verdict.evidence)
        self._sha256 = verdict.sha256

    def _malformed(self, error: FormatError) -> Outcome:
        self._ledger.failed("vmi.answers", detail=error.message)
        return Outcome.REFUSED
