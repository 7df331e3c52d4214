"""Is an authentic SNP report acceptable? One small function for each question, all of them asked.

Takes only a ``VerifiedReport``. Nothing raises here for an unacceptable value: every reason is
recorded, so that the reader sees all of them at once. Sources are in the catalogue (``checks``).
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from sevkit.abi.policy import PLATFORM_INFO_KNOWN, PlatformInfo, SnpPolicy
from sevkit.abi.report import VMPL_HOST
from sevkit.attest.expectations import ANY, ExpectedMeasurement
from sevkit.attest.verify import CHIP_ID_SIZE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sevkit.attest.expectations import Expectations
    from sevkit.attest.verdict import Ledger
    from sevkit.attest.verify import VerifiedReport


def validate_report(
    verified: VerifiedReport, expectations: Expectations, *, ledger: Ledger
) -> ExpectedMeasurement | None:
    """Record a finding for every acceptance check of the SNP catalogue.

    Returns the expected launch digest that matched, if one did; that alone accepts nothing.
    """
    _report_data(verified, expectations, ledger)
    matched = _measurement(verified, expectations, ledger)
    _policy(verified, expectations, ledger)
    _vmpl(verified, expectations, ledger)
    _tcb(verified, expectations, ledger)
    _chip(verified, expectations, ledger)
    _platform(verified, expectations, ledger)
    _fields(verified, expectations, ledger)
    _reference_policy(verified, matched, expectations, ledger)
    _coverage(matched, ledger)
    return matched


def _report_data(verified: VerifiedReport, expectations: Expectations, ledger: Ledger) -> None:
    actual = verified.report.report_data
    if expectations.report_data is ANY:
        ledger.skipped("report.data", "any report data is allowed: freshness is not checked")
        return
    ledger.judge(
        "report.data",
        hmac.compare_digest(expectations.report_data, actual),
        expected=expectations.report_data.hex(),
        actual=actual.hex(),
    )


def _measurement(
    verified: VerifiedReport, expectations: Expectations, ledger: Ledger
) -> ExpectedMeasurement | None:
    actual = verified.report.measurement
    if expectations.measurements is ANY:
        ledger.skipped("report.measurement", "any launch digest is allowed")
        return None
    found = [
        expected
        for expected in expectations.measurements
        if hmac.compare_digest(expected.digest, actual)
    ]
    # One digest may be expected with several policies, and without one on the command line.
    found.sort(key=lambda expected: _policy_difference(verified, expected, expectations) != 0)
    matched = found[0] if found else None
    count = len(expectations.measurements)
    expected_text = (
        expectations.measurements[0].digest.hex() if count == 1 else f"one of {count} digests"
    )
    ledger.judge(
        "report.measurement",
        matched is not None,
        expected=expected_text,
        actual=actual.hex(),
        detail=matched.label
        if matched
        else "sevkit attest explain finds which parameters would produce this digest",
    )
    return matched


def _policy_difference(
    verified: VerifiedReport, expected: ExpectedMeasurement, expectations: Expectations
) -> int:
    """Return the policy bits that are not the expected ones, less those judged by themselves."""
    if expected.guest_policy is None:
        return 0
    allowed = SnpPolicy.DEBUG * expectations.allow_debug
    allowed |= SnpPolicy.MIGRATE_MA * expectations.allow_migration_agent
    allowed |= SnpPolicy.SINGLE_SOCKET * expectations.require_single_socket
    return (expected.guest_policy ^ verified.report.policy) & ~allowed


def _reference_policy(
    verified: VerifiedReport,
    matched: ExpectedMeasurement | None,
    expectations: Expectations,
    ledger: Ledger,
) -> None:
    if matched is None or matched.guest_policy is None:
        reason = "no expected launch digest matched" if matched is None else "it names no policy"
        ledger.skipped("policy.reference", reason)
        return
    ledger.judge(
        "policy.reference",
        _policy_difference(verified, matched, expectations) == 0,
        expected=f"{matched.guest_policy:#x}",
        actual=f"{verified.report.policy:#x}",
    )


def _policy(verified: VerifiedReport, expectations: Expectations, ledger: Ledger) -> None:
    flags = verified.report.policy_flags
    for check, flag, allowed, option in (
        ("policy.debug", SnpPolicy.DEBUG, expectations.allow_debug, "--allow-debug"),
        (
            "policy.migration-agent",
            SnpPolicy.MIGRATE_MA,
            expectations.allow_migration_agent,
            "--allow-migration-agent",
        ),
    ):
        actual = "on" if flags & flag else "off"
        if flags & flag and allowed:
            ledger.warned(check, expected="off", actual=actual, detail=f"allowed by {option}")
        else:
            ledger.judge(check, not flags & flag, expected="off", actual=actual)
    single = bool(flags & SnpPolicy.SINGLE_SOCKET)
    if expectations.require_single_socket:
        ledger.judge(
            "policy.single-socket", single, expected="on", actual="on" if single else "off"
        )
    else:
        ledger.skipped("policy.single-socket", "not required")


def _vmpl(verified: VerifiedReport, expectations: Expectations, ledger: Ledger) -> None:
    actual = verified.report.vmpl
    ledger.judge(
        "report.vmpl",
        actual == expectations.vmpl,
        expected=str(expectations.vmpl),
        actual="the host asked, not the guest" if actual == VMPL_HOST else str(actual),
    )


def _tcb(verified: VerifiedReport, expectations: Expectations, ledger: Ledger) -> None:
    current, reported = verified.current_tcb, verified.reported_tcb
    committed, launch = verified.committed_tcb, verified.launch_tcb
    wrong = [
        f"{name} is above {bound_name} in {', '.join(bound.below(value))}"
        for name, value, bound_name, bound in (
            ("committed", committed, "current", current),
            ("reported", reported, "committed", committed),
            ("launch", launch, "current", current),
        )
        if bound.below(value)
    ]
    ledger.judge(
        "tcb.order",
        not wrong,
        expected="reported ≤ committed ≤ current, launch ≤ current",
        actual=f"reported {reported}; committed {committed}; current {current}; launch {launch}",
        detail="; ".join(wrong),
    )
    floor = expectations.minimum_tcb
    if not floor:
        ledger.skipped("tcb.minimum", "no minimum was given")
        return
    own = reported.components
    below = [name for name, value in floor.items() if own.get(name, -1) < value]
    ledger.judge(
        "tcb.minimum",
        not below,
        expected=",".join(f"{name}={value}" for name, value in floor.items()),
        actual=str(reported),
        detail=f"too low: {', '.join(below)}" if below else _unbounded(own, floor),
    )


def _unbounded(own: Mapping[str, int], floor: Mapping[str, int]) -> str:
    """Name the components that the demanded TCB says nothing of: nobody shall think it does."""
    missing = [name for name in own if name not in floor]
    return f"no minimum was given for {', '.join(missing)}" if missing else ""


def _chip(verified: VerifiedReport, expectations: Expectations, ledger: Ledger) -> None:
    if not expectations.chips:
        ledger.skipped("chip.allowed", "no list was given: any genuine chip is accepted")
        return
    # the VCEK's hardware ID is AMD's word for the chip, also where the host masks the chip ID
    hwid = verified.vek.extensions.hwid
    own = verified.report.chip_id if hwid is None else hwid.ljust(CHIP_ID_SIZE, b"\0")
    listed = {chip.ljust(CHIP_ID_SIZE, b"\0") for chip in expectations.chips}
    ledger.judge(
        "chip.allowed",
        any(own) and own in listed,
        expected=f"one of {len(listed)} chips",
        actual=own.hex() if any(own) else "masked",
    )


def _platform(verified: VerifiedReport, expectations: Expectations, ledger: Ledger) -> None:
    info = verified.report.platform_info
    unknown = info & ~PLATFORM_INFO_KNOWN
    names = [str(flag.name) for flag in PlatformInfo if info & flag]
    if unknown:
        ledger.warned("platform.info", actual=f"{info:#x}", detail=f"unknown bits {unknown:#x}")
    else:
        ledger.passed("platform.info", actual=" ".join(names) or "none")
    checked = bool(info & PlatformInfo.ALIAS_CHECK_COMPLETE)
    if expectations.require_alias_check:
        ledger.judge(
            "platform.alias-check",
            checked,
            expected="complete",
            actual="complete" if checked else "not made",
        )
    elif checked:
        ledger.passed("platform.alias-check", actual="complete")
    else:
        ledger.warned(
            "platform.alias-check",
            actual="not made",
            detail="memory aliases (BadRAM) are not ruled out; --require-alias-check refuses this",
        )


def _fields(verified: VerifiedReport, expectations: Expectations, ledger: Ledger) -> None:
    report = verified.report
    for check, expected, actual in (
        ("report.host-data", expectations.host_data, report.host_data),
        ("report.id-key", expectations.id_key_digest, report.id_key_digest),
        ("report.author-key", expectations.author_key_digest, report.author_key_digest),
        ("report.family-id", expectations.family_id, report.family_id),
        ("report.image-id", expectations.image_id, report.image_id),
    ):
        if expected is None:
            ledger.skipped(check, f"no expectation was given; the report says {actual.hex()}")
        else:
            same = hmac.compare_digest(expected, actual)
            ledger.judge(check, same, expected=expected.hex(), actual=actual.hex())
    minimum = expectations.minimum_guest_svn
    if minimum is None:
        ledger.skipped(
            "report.guest-svn", f"no minimum was given; the report says {report.guest_svn}"
        )
    else:
        ledger.judge(
            "report.guest-svn",
            report.guest_svn >= minimum,
            expected=f"at least {minimum}",
            actual=str(report.guest_svn),
        )


def _coverage(matched: ExpectedMeasurement | None, ledger: Ledger) -> None:
    if matched is None:
        for check in ("firmware", "vcpu-state", "kernel", "uefi-variables"):
            ledger.warned(f"coverage.{check}", detail="no expected launch digest matched")
        return
    ledger.passed("coverage.firmware", detail="every page of the firmware is measured")
    ledger.passed("coverage.vcpu-state", detail="every VMSA is measured")
    if matched.covers_kernel:
        ledger.passed("coverage.kernel", detail="the reference was computed with kernel hashes")
    else:
        unknown = matched.covers_kernel is None
        ledger.warned(
            "coverage.kernel",
            detail="a bare digest does not say whether the kernel is measured"
            if unknown
            else "the digest covers no kernel: the firmware must verify what it boots",
        )
    ledger.passed(
        "coverage.uefi-variables", detail="SNP firmware is one measured image without variables"
    )
