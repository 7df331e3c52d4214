"""Judge a libvirt domain of SEV or SEV-ES: how it is configured, and whether its launch is genuine.

A domain's XML is the host's word, so nothing in it makes a launch acceptable: that is for the
launch measurement, which ``sevkit.attest.sev_launch`` judges. But a domain that says of itself that
it is set up insecurely is refused before anything else, and one that differs from what the owner
expects is told what differs, which an HMAC cannot say.

Two kinds of defects are told apart. What an owner may live with, because his firmware deals with
it, is ``InsecureUsage`` until he accepts it by its word (``RISKS`` below). What nobody can live
with is a failed check. Sources: 55766 chapter 3 and 6.2; libvirt's ``docs/formatdomain.rst``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from sevkit.attest.checks import SEV_DOMAIN
from sevkit.attest.release import Accept
from sevkit.attest.sev_launch import LaunchExpectations, judge_launch
from sevkit.attest.verdict import Ledger, conclude
from sevkit.errors import ExpectationError, InsecureUsage
from sevkit.hypervisor.protocol import DomainState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from sevkit.attest.sev_launch import LaunchClaim, VerifiedLaunch
    from sevkit.attest.verdict import Verdict
    from sevkit.hypervisor.domain_xml import Boot, DomainDefinition, LaunchSecurity
    from sevkit.measure.reference import Reference
    from sevkit.secret import Secret

SUBJECT: Final = "sev-domain"
#: The type of ``<launchSecurity>`` that both SEV and SEV-ES have.
_SEV: Final = "sev"
#: Accepts a hypervisor on the owner's own machine, which ``Accept`` has no word for: elsewhere
#: there is always a network between.
LOCAL_HYPERVISOR: Final = "local-hypervisor"


@final
@dataclass(frozen=True, slots=True)
class DomainExpectations:
    """What the owner knows of the domain beside its digests.

    ``policy`` is the session's. ``boot`` names the parts of a measured direct boot, of ``kernel``,
    ``initrd`` and ``cmdline``; ``vcpus`` is None where the digest covers none. ``session_sha256``
    and ``godh_sha256`` (hex) are of the session that the owner gave, or empty where he did not say.
    """

    policy: int
    boot: frozenset[str] = frozenset()
    vcpus: int | None = None
    session_sha256: str = ""
    godh_sha256: str = ""
    launch: LaunchExpectations = field(default_factory=LaunchExpectations)


@final
@dataclass(frozen=True, slots=True)
class DomainClaim:
    """What the host says of a domain; ``local``: the host may be the owner's own machine."""

    definition: DomainDefinition
    state: DomainState
    local: bool = False


class _Risk(NamedTuple):
    check: str
    accept: str
    #: What is wrong with this domain in words, or nothing.
    finds: Callable[[DomainClaim, DomainExpectations], str]


def _local(claim: DomainClaim, _: DomainExpectations) -> str:
    why = "the host may be this machine, which then has the keys and makes the verdict itself"
    return why * claim.local


def _variables(claim: DomainClaim, _: DomainExpectations) -> str:
    boot = claim.definition.boot
    if boot.nvram is not None or boot.varstore is not None:
        store = "<nvram>" if boot.nvram is not None else "<varstore>"
        return f"{store} holds UEFI variables that are not measured"
    loader = boot.loader
    if loader is not None and loader.kind == "pflash" and not loader.stateless:
        return "the flash of a loader that is not stateless='yes' holds UEFI variables"
    return ""


def _boot(claim: DomainClaim, expected: DomainExpectations) -> str:
    parts = _direct(claim.definition.boot)
    if not parts or _hashes(claim) or expected.boot:
        return ""
    return f"{' and '.join(parts)} of a direct boot are not measured without kernelHashes='yes'"


#: What is refused until it is accepted, in the order in which it is told.
RISKS: Final = (
    _Risk("domain.remote", LOCAL_HYPERVISOR, _local),
    _Risk("domain.variables", Accept.UNMEASURED_VARIABLES.value, _variables),
    _Risk("domain.boot", Accept.UNMEASURED_BOOT.value, _boot),
)


def require_sev(definition: DomainDefinition) -> LaunchSecurity:
    """Return the launch security of a SEV or SEV-ES domain.

    Raises ``ExpectationError`` for every other domain: it has no launch measurement.
    """
    security = definition.launch_security
    if security is not None and security.kind == _SEV:
        return security
    kind = "no launch security" if security is None else f"launch security {security.kind[:40]!r}"
    raise ExpectationError(
        f"domain.launch-security: domain {definition.name[:80]!r} has {kind}, not SEV or SEV-ES",
        hint="an SNP guest is asked for its own report: sevkit attest report"
        if security is not None and security.kind == "sev-snp"
        else "it needs <launchSecurity type='sev'>",
    )


def check_risks(
    claim: DomainClaim, expected: DomainExpectations, accepted: Iterable[str]
) -> tuple[str, ...]:
    """Return the accepted words that this domain needs.

    Raises ``InsecureUsage`` that names everything that is wrong and not accepted.
    """
    words = frozenset(map(str, accepted))
    found = [(risk, why) for risk in RISKS if (why := risk.finds(claim, expected))]
    refused = [(risk, why) for risk, why in found if risk.accept not in words]
    if refused:
        raise InsecureUsage(
            "the domain is insecure: " + "; ".join(f"{risk.check}: {why}" for risk, why in refused),
            hint="change it, or accept the risk with "
            + " ".join(f"--accept {risk.accept}" for risk, _ in refused),
        )
    return tuple(risk.accept for risk, _ in found)


def judge_domain(
    claim: DomainClaim,
    launch: LaunchClaim,
    tik: Secret,
    references: Iterable[Reference],
    expected: DomainExpectations,
    *,
    accepted: Iterable[str] = (),
    at: datetime,
    explain: Callable[[Callable[[bytes], bool]], str] | None = None,
) -> tuple[Verdict, VerifiedLaunch | None]:
    """Return the verdict on domain and launch, and the launch only if both are accepted.

    ``launch`` is what the host says of the launch; the rest as for ``judge_launch``, which raises
    what this raises; besides ``ExpectationError`` as ``require_sev`` and ``InsecureUsage`` as
    ``check_risks``.
    """
    security = require_sev(claim.definition)
    check_risks(claim, expected, accepted)
    ledger = Ledger(SEV_DOMAIN)
    _judge_risks(claim, expected, ledger)
    _judge_state(claim, ledger)
    _judge_session(security, expected, ledger)
    ledger.judge(
        "domain.policy",
        security.policy == expected.policy,
        expected=f"{expected.policy:#x}",
        actual="none" if security.policy is None else f"{security.policy:#x}",
    )
    _judge_boot(claim, expected, ledger)
    _judge_vcpus(claim, expected, ledger)
    measured, verified = judge_launch(
        launch, tik, expected.policy, references, expected.launch, at=at, explain=explain
    )
    for found in measured.findings:
        ledger.record(
            found.check,
            found.outcome,
            expected=found.expected,
            actual=found.actual,
            detail=found.detail,
        )
    evidence = _evidence(claim) | dict(measured.evidence)
    verdict = conclude(SUBJECT, measured.sha256, at, ledger, evidence)
    return verdict, verified if verdict.accepted else None


def _judge_risks(claim: DomainClaim, expected: DomainExpectations, ledger: Ledger) -> None:
    """Record the risks: none is left here but those that were accepted."""
    for risk in RISKS:
        why = risk.finds(claim, expected)
        if why:
            ledger.warned(risk.check, detail=f"accepted by the owner: {why}")
        else:
            ledger.passed(risk.check)


def _judge_state(claim: DomainClaim, ledger: Ledger) -> None:
    paused = claim.state is DomainState.PAUSED
    ledger.judge(
        "domain.paused",
        paused,
        expected=DomainState.PAUSED.value,
        actual=claim.state.value,
        detail="" if paused else "a guest is judged before it runs: virsh start --paused",
    )


def _judge_session(security: LaunchSecurity, expected: DomainExpectations, ledger: Ledger) -> None:
    """Record whose session it is. Without one the firmware draws TIK and TEK for itself."""
    missing = [
        name
        for name, data in (("dhCert", security.dh_cert), ("session", security.session))
        if not data
    ]
    if missing:
        ledger.failed(
            "domain.session",
            expected="dhCert and session",
            actual=f"no {' and no '.join(missing)}",
            detail="the launch was made without the owner, who has no key to verify it with",
        )
        return
    others = [
        name
        for name, data, wanted in (
            ("dhCert", security.dh_cert, expected.godh_sha256),
            ("session", security.session, expected.session_sha256),
        )
        if wanted and hashlib.sha256(data or b"").hexdigest() != wanted
    ]
    known = expected.godh_sha256 and expected.session_sha256
    ledger.judge(
        "domain.session",
        not others,
        expected="the session of the owner's files" if known else "dhCert and session",
        actual=f"another {' and another '.join(others)}" if others else "",
        detail="" if known else "not compared with the owner's: the measurement shows whose it is",
    )


def _judge_boot(claim: DomainClaim, expected: DomainExpectations, ledger: Ledger) -> None:
    boot = claim.definition.boot
    loader = boot.loader
    named = loader is not None and loader.path is not None
    ledger.judge(
        "domain.firmware",
        named,
        expected="one <loader> with a path",
        actual="a loader" if named else "none",
        detail="" if named else "libvirt was left to choose, and what it chose is not said",
    )
    actual = _described(frozenset(_direct(boot)), hashes=_hashes(claim))
    wanted = _described(expected.boot, hashes=bool(expected.boot))
    accepted = not expected.boot and not _hashes(claim)
    if actual != wanted and not accepted:
        ledger.failed("domain.boot", expected=wanted, actual=actual)


def _judge_vcpus(claim: DomainClaim, expected: DomainExpectations, ledger: Ledger) -> None:
    if expected.vcpus is None:
        ledger.skipped("domain.vcpus", "the expected digest covers no number of vCPUs")
        return
    found = claim.definition.vcpus
    ledger.judge(
        "domain.vcpus",
        found.at_launch == expected.vcpus,
        expected=str(expected.vcpus),
        actual=str(found.at_launch),
        detail=f"{found.hotpluggable} more are plugged in after the measurement"
        if found.hotpluggable
        else "",
    )


def _direct(boot: Boot) -> tuple[str, ...]:
    """Return the parts of a direct boot that the domain names, and that are not empty."""
    parts = {"kernel": boot.kernel, "initrd": boot.initrd, "cmdline": boot.cmdline}
    return tuple(name for name, value in parts.items() if value)


def _hashes(claim: DomainClaim) -> bool:
    security = claim.definition.launch_security
    return security is not None and bool(security.kernel_hashes)


def _described(parts: frozenset[str], *, hashes: bool) -> str:
    words = ", ".join(name for name in ("kernel", "initrd", "cmdline") if name in parts)
    return f"{words or 'no direct boot'}, {'with' if hashes else 'without'} kernel hashes"


def _evidence(claim: DomainClaim) -> dict[str, Any]:
    definition = claim.definition
    return {
        "domain": definition.name,
        "uuid": definition.uuid or "",
        "state": claim.state.value,
    }
