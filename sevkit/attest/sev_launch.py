"""Verify a SEV or SEV-ES launch: is the paused guest the one that its owner wants to start.

The host reports a launch measurement: an HMAC, keyed by the TIK of the session, over API level,
build, guest policy, launch digest and a nonce. Only the secure processor that took the session
and the owner have the TIK, so a measurement that the owner can make again from his own digest
proves all of these together; until then API level, build, policy and ``loaderSHA`` are words.

``verify_launch`` answers that; ``validate_launch`` judges policy and firmware level of what it
returned. Sources: 55766 6.5 (LAUNCH_MEASURE), chapter 3 (guest policy).

What the digest does not cover is said in the ``coverage`` findings. UEFI variables are always
among it: KubeVirt keeps them in a flash file of their own, and even for a store inside the
measured image the firmware reads that flash unencrypted, so the host answers. No digest can show
that a firmware does without, so the finding never passes for SEV and SEV-ES.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from sevkit.abi.policy import SevPolicy, parse_sev_policy
from sevkit.attest.checks import SEV_LAUNCH
from sevkit.attest.verdict import Ledger, Verdict, conclude
from sevkit.errors import MeasurementMismatch, UsageError, VerificationError
from sevkit.measure.launch_measurement import compute_launch_measurement
from sevkit.measure.terms import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from sevkit.measure.launch_measurement import LaunchMeasurement
    from sevkit.measure.reference import Reference
    from sevkit.secret import Secret

SUBJECT: Final = "sev-launch"
_SHOWN: Final = 8


@final
@dataclass(frozen=True, slots=True)
class LaunchClaim:
    """What the host says of a launch; nothing of it is authentic yet.

    ``policy`` and ``loader_sha`` (hex) are what KubeVirt's document adds, else None and empty.
    """

    measurement: LaunchMeasurement
    api_major: int
    api_minor: int
    build_id: int
    policy: int | None = None
    loader_sha: str = ""


@final
@dataclass(frozen=True, slots=True)
class VerifiedLaunch:
    """A launch whose measurement the TIK confirmed; ``verify_launch`` is where it comes from.

    ``matched`` is the owner's digest that fits; ``policy`` is the session's, so the guest's.
    """

    claim: LaunchClaim
    policy: int
    matched: Reference

    @property
    def measure(self) -> bytes:
        """The 32-byte HMAC that a secret packet for this launch must cover."""
        return self.claim.measurement.measure


@final
@dataclass(frozen=True, slots=True)
class LaunchExpectations:
    """What the owner accepts beside the digest; the defaults are strict.

    ``min_firmware`` is (API major, API minor, build); ``firmware_sha256`` in hex is his own copy
    of the firmware, only to be shown against the host's ``loaderSHA``.
    """

    min_firmware: tuple[int, int, int] | None = None
    allow_debug: bool = False
    firmware_sha256: str = ""


def verify_launch(
    claim: LaunchClaim,
    tik: Secret,
    policy: int,
    references: Iterable[Reference],
    ledger: Ledger,
    *,
    explain: Callable[[Callable[[bytes], bool]], str] | None = None,
) -> VerifiedLaunch:
    """Return the launch if its measurement is the TIK's HMAC over one of the owner's digests.

    ``policy`` is the one that the session was made with. ``references`` are the owner's own
    digests, 32 bytes each, of mode sev or sev-es; for SEV-ES usually one for each register era.
    On a mismatch ``explain`` is asked which other parameters would fit; its words go into the
    finding.

    Raises ``MeasurementMismatch``; ``UsageError`` if there is nothing to compare with.
    """
    accepted = tuple(references)
    if not accepted or any(entry.mode is Mode.SNP for entry in accepted):
        raise UsageError("a SEV or SEV-ES launch needs SEV or SEV-ES launch digests")

    def confirms(digest: bytes, other_policy: int = policy) -> bool:
        expected = compute_launch_measurement(
            tik,
            api_major=claim.api_major,
            api_minor=claim.api_minor,
            build_id=claim.build_id,
            policy=other_policy,
            digest=digest,
            mnonce=claim.measurement.mnonce,
        )
        return hmac.compare_digest(expected, claim.measurement.measure)

    # Of entries with one digest, one that is for this policy says what the owner expects.
    fitting = sorted(accepted, key=lambda entry: entry.guest_policy not in {None, policy})
    matched = next((entry for entry in fitting if confirms(entry.digest)), None)
    if matched is None:
        message = "the launch measurement is not the TIK's over any expected launch digest"
        found = _other_policy(claim, accepted, confirms)
        if not found and explain is not None:
            found = explain(confirms)
        ledger.failed(
            "launch.measurement",
            expected=_expected(accepted),
            actual=claim.measurement.measure.hex(),
            detail=f"{message}; {found or _UNEXPLAINED}",
        )
        raise MeasurementMismatch(message, check="launch.measurement", hint=found or _UNEXPLAINED)
    ledger.passed(
        "launch.measurement",
        expected=matched.digest.hex(),
        actual=claim.measurement.measure.hex(),
        detail=f"matched {matched.mode.value}: {matched.label}",
    )
    return VerifiedLaunch(claim, policy, matched)


def _other_policy(
    claim: LaunchClaim, accepted: tuple[Reference, ...], confirms: Callable[[bytes, int], bool]
) -> str:
    """Say so if the launch is the expected one but for the guest policy."""
    usual = (*_USUAL_POLICIES, *(() if claim.policy is None else (claim.policy,)))
    for policy in usual:
        for entry in accepted:
            if confirms(entry.digest, policy):
                return f"it fits guest policy {policy:#x} with {entry.label}"
    return ""


#: Guest policies seen in the field: KubeVirt's two, QEMU's default, and the same without NODBG.
_USUAL_POLICIES: Final = (1, 5, 3, 7, 0, 4)
_UNEXPLAINED: Final = (
    "compare TIK, guest policy, firmware file, vCPU count and CPU with those of the launch"
)


def validate_launch(launch: VerifiedLaunch, expected: LaunchExpectations, ledger: Ledger) -> None:
    """Record whether a verified launch is acceptable, and what its digest covers."""
    claim = launch.claim
    if claim.policy is None:
        ledger.skipped("launch.info-policy", "the host did not say")
    else:
        ledger.judge(
            "launch.info-policy",
            claim.policy == launch.policy,
            expected=f"{launch.policy:#x}",
            actual=f"{claim.policy:#x}",
        )
    _show_loader(claim, expected, ledger)
    flags = parse_sev_policy(launch.policy)
    debug = SevPolicy.NODBG not in flags
    if debug and expected.allow_debug:
        ledger.warned(
            "launch.policy-debug",
            expected="NODBG set",
            actual="NODBG not set",
            detail="accepted by the owner: the host can read the guest's memory",
        )
    else:
        ledger.judge(
            "launch.policy-debug",
            not debug,
            expected="NODBG set",
            actual="NODBG not set" if debug else "NODBG set",
            detail="the host can read the guest's memory" if debug else "",
        )
    ledger.judge(
        "launch.policy-es",
        (SevPolicy.ES in flags) == (launch.matched.mode is Mode.SEV_ES),
        expected="ES set" if launch.matched.mode is Mode.SEV_ES else "ES not set",
        actual="ES set" if SevPolicy.ES in flags else "ES not set",
    )
    if launch.matched.guest_policy is None:
        ledger.skipped("launch.policy-reference", "the matched digest names no policy")
    else:
        ledger.judge(
            "launch.policy-reference",
            launch.matched.guest_policy == launch.policy,
            expected=f"{launch.matched.guest_policy:#x}",
            actual=f"{launch.policy:#x}",
        )
    actual = (claim.api_major, claim.api_minor, claim.build_id)
    if expected.min_firmware is None:
        ledger.skipped("launch.firmware-version", "no minimum was given")
    else:
        ledger.judge(
            "launch.firmware-version",
            actual >= expected.min_firmware,
            expected="at least {}.{} build {}".format(*expected.min_firmware),
            actual="{}.{} build {}".format(*actual),
        )
    _show_coverage(launch.matched, ledger)


def judge_launch(
    claim: LaunchClaim,
    tik: Secret,
    policy: int,
    references: Iterable[Reference],
    expected: LaunchExpectations,
    *,
    at: datetime,
    explain: Callable[[Callable[[bytes], bool]], str] | None = None,
) -> tuple[Verdict, VerifiedLaunch | None]:
    """Verify, validate, and return the verdict, and the launch only if it is accepted.

    Raises ``FormatError`` and ``UsageError`` for inputs without their shape.
    """
    ledger = Ledger(SEV_LAUNCH)
    accepted = tuple(references)
    launch: VerifiedLaunch | None = None
    evidence: dict[str, Any] = {
        "measurement": claim.measurement.measure.hex(),
        "mnonce": claim.measurement.mnonce.hex(),
        "guest_policy": f"{policy:#x}",
        "authenticated": False,
        "firmware_version": f"{claim.api_major}.{claim.api_minor} build {claim.build_id}",
    }
    try:
        launch = verify_launch(claim, tik, policy, accepted, ledger, explain=explain)
    except VerificationError as error:
        ledger.note(error)
    else:
        validate_launch(launch, expected, ledger)
        evidence |= {
            "authenticated": True,
            "launch_digest": launch.matched.digest.hex(),
            "mode": launch.matched.mode.value,
            "matched": launch.matched.label,
            "parameters": dict(launch.matched.parameters),
        }
    raw = claim.measurement.measure + claim.measurement.mnonce
    verdict = conclude(SUBJECT, hashlib.sha256(raw).hexdigest(), at, ledger, evidence)
    return verdict, launch if verdict.accepted else None


def _show_loader(claim: LaunchClaim, expected: LaunchExpectations, ledger: Ledger) -> None:
    """Show what the host says of the firmware. It proves nothing, so it never passes or fails."""
    if not claim.loader_sha:
        ledger.skipped("launch.loader", "the host did not say")
    elif expected.firmware_sha256 and claim.loader_sha != expected.firmware_sha256:
        ledger.warned(
            "launch.loader",
            expected=expected.firmware_sha256,
            actual=claim.loader_sha,
            detail="the host names another firmware file than the owner's; never trusted",
        )
    else:
        ledger.skipped("launch.loader", f"the host says {claim.loader_sha}; never trusted")


def _show_coverage(matched: Reference, ledger: Ledger) -> None:
    ledger.passed("coverage.firmware", detail="the whole firmware file is measured")
    if matched.covers_vcpu_state:
        ledger.passed("coverage.vcpu-state", detail="every VMSA is measured")
    else:
        ledger.warned(
            "coverage.vcpu-state", detail="plain SEV: the host sets and sees all registers"
        )
    if matched.covers_kernel:
        ledger.passed("coverage.kernel", detail="the digest was computed with kernel hashes")
    else:
        ledger.warned(
            "coverage.kernel",
            detail="the digest covers no kernel: the firmware must verify what it boots",
        )
    ledger.warned(
        "coverage.uefi-variables",
        detail="the host keeps and answers for UEFI variables: the firmware must not use them",
    )


def _expected(references: tuple[Reference, ...]) -> str:
    shown = [f"{entry.digest.hex()} ({entry.label})" for entry in references[:_SHOWN]]
    more = len(references) - len(shown)
    return "launch digest " + " or ".join(shown) + (f" or {more} more" if more else "")
