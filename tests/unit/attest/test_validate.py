from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from sevkit.abi.product import Product, ProductLine
from sevkit.abi.tcb import TcbVersion, encode_tcb
from sevkit.abi.vek import VekKind
from sevkit.attest.chain import TrustedRoots, VerifiedVek, verify_chain, verify_vek
from sevkit.attest.checks import SNP_REPORT
from sevkit.attest.expectations import ANY, Expectations, ExpectedMeasurement
from sevkit.attest.validate import validate_report
from sevkit.attest.verdict import Finding, Ledger, Outcome, Verdict, conclude
from sevkit.attest.verify import verify_report
from sevkit.attest.x509 import parse_certificate
from sevkit.errors import InsecureUsage, UsageError
from sevkit.testing.snp_report import SimulatedChip

if TYPE_CHECKING:
    from sevkit.testing.snp_chain import SimulatedRoots

AT = datetime(2026, 6, 1, tzinfo=UTC)
NONCE = bytes(range(64))
DIGEST = bytes(range(100, 148))
STRICT = Expectations(report_data=NONCE, measurements=(ExpectedMeasurement(DIGEST),))


def vek_of(chip: SimulatedChip) -> VerifiedVek:
    roots, ledger = chip.roots, Ledger(SNP_REPORT)
    trusted = TrustedRoots(frozenset(), frozenset({hashlib.sha256(roots.ark).digest()}))
    intermediate = roots.ask if chip.kind is VekKind.VCEK else roots.asvk
    chain = verify_chain(
        parse_certificate(intermediate),
        parse_certificate(roots.ark),
        at=AT,
        roots=trusted,
        ledger=ledger,
    )
    return verify_vek(chain, parse_certificate(chip.vek()), ledger=ledger)


@pytest.fixture(scope="module")
def vek(chip: SimulatedChip) -> VerifiedVek:
    return vek_of(chip)


def judge(
    chip: SimulatedChip,
    vek: VerifiedVek,
    expectations: Expectations = STRICT,
    **changed: Any,  # noqa: ANN401  # fields of the report
) -> Verdict:
    ledger = Ledger(SNP_REPORT)
    # the chain was verified with another ledger: its rows are taken over, as judge_report does
    for row in SNP_REPORT:
        if row.required and row.name.startswith(("chain.", "vek.")):
            ledger.passed(row.name)
    verified = verify_report(chip.report(5, **changed), vek, ledger=ledger)
    validate_report(verified, expectations, ledger=ledger)
    return conclude("snp-report", "", AT, ledger, {})


def failed(verdict: Verdict) -> list[str]:
    return [found.check for found in verdict.findings if found.outcome is Outcome.FAIL]


def finding(verdict: Verdict, check: str) -> Finding:
    return next(found for found in verdict.findings if found.check == check)


def test_a_good_report_is_accepted_and_every_check_appears(
    chip: SimulatedChip, vek: VerifiedVek
) -> None:
    verdict = judge(chip, vek)
    assert verdict.exit_code == 0
    assert [found.check for found in verdict.findings] == [row.name for row in SNP_REPORT]


@pytest.mark.parametrize(
    ("check", "changed"),
    [
        ("report.data", {"report_data": NONCE[:63] + b"\0"}),
        ("report.data", {"report_data": bytes(64)}),
        ("report.data", {"report_data": bytes(32) + NONCE[:32]}),
        ("report.measurement", {"measurement": DIGEST[::-1]}),
        ("report.measurement", {"measurement": bytes(48)}),
        ("policy.debug", {"policy": 0x30000 | 1 << 19}),
        ("policy.migration-agent", {"policy": 0x30000 | 1 << 18}),
        ("report.vmpl", {"vmpl": 1}),
        ("report.vmpl", {"vmpl": 3}),
        ("report.vmpl", {"vmpl": 0xFFFFFFFF}),
    ],
)
def test_what_is_not_expected_is_authentic_but_not_acceptable(
    chip: SimulatedChip, vek: VerifiedVek, check: str, changed: dict[str, Any]
) -> None:
    verdict = judge(chip, vek, **changed)
    assert failed(verdict) == [check]
    assert verdict.exit_code == 3


def tcb(chip: SimulatedChip, **changed: int) -> int:
    return encode_tcb(chip.line, replace(chip.tcb, **changed))


@pytest.mark.parametrize(
    ("defect", "changed"),
    [
        ("committed above current", {"committed_tcb": {"snp": 24}}),
        ("reported above committed", {"committed_tcb": {"snp": 22}}),
        ("launch above current", {"launch_tcb": {"microcode": 214}}),
        (
            "an older bootloader behind a newer microcode",
            {"current_tcb": {"bootloader": 8, "microcode": 255}},
        ),
    ],
)
def test_tcbs_out_of_order_are_refused(
    chip: SimulatedChip, vek: VerifiedVek, defect: str, changed: dict[str, dict[str, int]]
) -> None:
    fields: dict[str, Any] = {name: tcb(chip, **parts) for name, parts in changed.items()}
    assert failed(judge(chip, vek, **fields)) == ["tcb.order"], defect


def test_a_newer_current_tcb_is_fine(chip: SimulatedChip, vek: VerifiedVek) -> None:
    assert judge(chip, vek, current_tcb=tcb(chip, microcode=220)).accepted


@pytest.mark.parametrize(
    ("minimum", "accepted"),
    [
        ({"microcode": 213}, True),
        ({"microcode": 214}, False),
        ({"bootloader": 9, "tee": 0, "snp": 23, "microcode": 213}, True),
        ({"bootloader": 10, "microcode": 0}, False),
        ({"fmc": 0}, False),
    ],
)
def test_the_minimum_tcb_is_compared_by_component(
    chip: SimulatedChip, vek: VerifiedVek, minimum: dict[str, int], accepted: bool
) -> None:
    verdict = judge(chip, vek, replace(STRICT, minimum_tcb=minimum))
    assert failed(verdict) == ([] if accepted else ["tcb.minimum"])


def test_components_without_a_minimum_are_named(chip: SimulatedChip, vek: VerifiedVek) -> None:
    verdict = judge(chip, vek, replace(STRICT, minimum_tcb={"microcode": 213, "snp": 1}))
    assert finding(verdict, "tcb.minimum").detail == "no minimum was given for bootloader, tee"
    whole = {"bootloader": 9, "tee": 0, "snp": 23, "microcode": 213}
    verdict = judge(chip, vek, replace(STRICT, minimum_tcb=whole))
    assert finding(verdict, "tcb.minimum").detail == ""


def test_debug_and_migration_agent_can_be_allowed_by_name(
    chip: SimulatedChip, vek: VerifiedVek
) -> None:
    allowed = replace(STRICT, allow_debug=True, allow_migration_agent=True)
    verdict = judge(chip, vek, allowed, policy=0x30000 | 3 << 18)
    assert verdict.accepted
    assert finding(verdict, "policy.debug").outcome is Outcome.WARN
    assert finding(verdict, "policy.migration-agent").outcome is Outcome.WARN


@pytest.mark.parametrize("policy", [0x30000, 0x130000])
def test_a_single_socket_can_be_required(
    chip: SimulatedChip, vek: VerifiedVek, policy: int
) -> None:
    verdict = judge(chip, vek, replace(STRICT, require_single_socket=True), policy=policy)
    assert verdict.accepted is (policy == 0x130000)


@pytest.mark.parametrize(
    ("policy", "owner", "accepted"),
    [
        (0x30000, STRICT, True),
        (0x20000, STRICT, False),
        (0x30037, STRICT, False),
        (0x130000, STRICT, False),
        (0x130000, replace(STRICT, require_single_socket=True), True),
        (0xB0000, STRICT, False),
        (0xB0000, replace(STRICT, allow_debug=True), True),
        (0xA0000, replace(STRICT, allow_debug=True), False),
        (0x70000, replace(STRICT, allow_migration_agent=True), True),
    ],
)
def test_a_digest_with_a_guest_policy_is_that_of_no_other(
    chip: SimulatedChip,
    vek: VerifiedVek,
    policy: int,
    owner: Expectations,
    accepted: bool,
) -> None:
    named = ExpectedMeasurement(DIGEST, "2 vCPUs", covers_kernel=False, guest_policy=0x30000)
    verdict = judge(chip, vek, replace(owner, measurements=(named,)), policy=policy)
    found = finding(verdict, "policy.reference")
    assert found.outcome is (Outcome.PASS if accepted else Outcome.FAIL)
    assert (found.expected, found.actual) == ("0x30000", f"{policy:#x}")
    assert verdict.accepted is accepted


def test_a_digest_may_be_expected_with_several_policies_or_without_one(
    chip: SimulatedChip, vek: VerifiedVek
) -> None:
    rows = tuple(
        ExpectedMeasurement(DIGEST, f"{policy}", covers_kernel=False, guest_policy=policy)
        for policy in (0x30000, 0x20000)
    )
    for policy in (0x30000, 0x20000):
        verdict = judge(chip, vek, replace(STRICT, measurements=rows), policy=policy)
        assert verdict.accepted
        assert finding(verdict, "report.measurement").detail == f"{policy}"
    assert not judge(chip, vek, replace(STRICT, measurements=rows), policy=0x130000).accepted
    bare = (*rows, ExpectedMeasurement(DIGEST))
    verdict = judge(chip, vek, replace(STRICT, measurements=bare), policy=0x130000)
    assert verdict.accepted
    assert finding(verdict, "policy.reference").outcome is Outcome.SKIP
    wrong = judge(chip, vek, replace(STRICT, measurements=rows), measurement=bytes(48))
    assert finding(wrong, "policy.reference").outcome is Outcome.SKIP


@pytest.mark.parametrize("info", [0x05, 0x25])
def test_the_alias_check_can_be_required(chip: SimulatedChip, vek: VerifiedVek, info: int) -> None:
    required = judge(chip, vek, replace(STRICT, require_alias_check=True), platform_info=info)
    assert required.accepted is (info == 0x25)
    warned = finding(judge(chip, vek, platform_info=info), "platform.alias-check").outcome
    assert warned is (Outcome.PASS if info == 0x25 else Outcome.WARN)


def test_unknown_platform_bits_warn_and_never_refuse(chip: SimulatedChip, vek: VerifiedVek) -> None:
    verdict = judge(chip, vek, platform_info=0x25 | 1 << 40)
    assert verdict.accepted
    assert finding(verdict, "platform.info").outcome is Outcome.WARN


@pytest.mark.parametrize(
    ("check", "field", "name"),
    [
        ("report.host-data", "host_data", "host_data"),
        ("report.id-key", "id_key_digest", "id_key_digest"),
        ("report.author-key", "author_key_digest", "author_key_digest"),
        ("report.family-id", "family_id", "family_id"),
        ("report.image-id", "image_id", "image_id"),
    ],
)
def test_a_field_that_is_expected_must_be_equal(
    chip: SimulatedChip, vek: VerifiedVek, check: str, field: str, name: str
) -> None:
    size = {"host_data": 32, "family_id": 16, "image_id": 16}.get(name, 48)
    value = b"\x5a" * size
    wanted: dict[str, Any] = {name: value}
    expected = replace(STRICT, **wanted)
    assert judge(chip, vek, expected, **{field: value}).accepted
    assert failed(judge(chip, vek, expected)) == [check]
    assert finding(judge(chip, vek), check).outcome is Outcome.SKIP


def test_the_guest_svn_has_a_floor(chip: SimulatedChip, vek: VerifiedVek) -> None:
    expected = replace(STRICT, minimum_guest_svn=4)
    assert judge(chip, vek, expected, guest_svn=4).accepted
    assert failed(judge(chip, vek, expected, guest_svn=3)) == ["report.guest-svn"]


def test_another_vmpl_can_be_expected(chip: SimulatedChip, vek: VerifiedVek) -> None:
    assert judge(chip, vek, replace(STRICT, vmpl=2), vmpl=2).accepted
    assert failed(judge(chip, vek, replace(STRICT, vmpl=2))) == ["report.vmpl"]


def test_only_listed_chips_are_accepted(chip: SimulatedChip, vek: VerifiedVek) -> None:
    assert judge(chip, vek, replace(STRICT, chips=(b"\1" * 64, chip.hardware_id))).accepted
    assert failed(judge(chip, vek, replace(STRICT, chips=(b"\1" * 64,)))) == ["chip.allowed"]


def test_a_masked_chip_is_still_known_by_its_vcek(chip: SimulatedChip, vek: VerifiedVek) -> None:
    listed = replace(STRICT, chips=(chip.hardware_id,))
    assert judge(chip, vek, listed, chip_id=bytes(64)).accepted
    other = replace(STRICT, chips=(b"\1" * 64,))
    assert failed(judge(chip, vek, other, chip_id=bytes(64))) == ["chip.allowed"]


def test_a_masked_chip_under_a_vlek_is_on_no_list(milan: SimulatedRoots) -> None:
    chip = SimulatedChip(milan, Product.MILAN, VekKind.VLEK)
    listed = replace(STRICT, chips=(chip.hardware_id,))
    assert judge(chip, vek_of(chip), listed).accepted
    assert failed(judge(chip, vek_of(chip), listed, chip_id=bytes(64))) == ["chip.allowed"]


def test_any_is_a_skip_with_a_reason_never_a_pass(chip: SimulatedChip, vek: VerifiedVek) -> None:
    verdict = judge(chip, vek, Expectations(report_data=ANY, measurements=ANY))
    assert verdict.accepted
    assert finding(verdict, "report.data").outcome is Outcome.SKIP
    assert finding(verdict, "report.measurement").outcome is Outcome.SKIP
    for check in ("firmware", "vcpu-state", "kernel", "uefi-variables"):
        assert finding(verdict, f"coverage.{check}").outcome is Outcome.WARN


@pytest.mark.parametrize(
    ("covers", "outcome"), [(True, Outcome.PASS), (False, Outcome.WARN), (None, Outcome.WARN)]
)
def test_the_kernel_is_covered_only_by_a_reference_that_says_so(
    chip: SimulatedChip, vek: VerifiedVek, covers: bool | None, outcome: Outcome
) -> None:
    expected = (ExpectedMeasurement(b"\0" * 48), ExpectedMeasurement(DIGEST, "2 vCPUs", covers))
    verdict = judge(chip, vek, replace(STRICT, measurements=expected))
    assert finding(verdict, "coverage.kernel").outcome is outcome
    assert finding(verdict, "report.measurement").detail == "2 vCPUs"


@pytest.mark.parametrize(
    "bad",
    [
        {"report_data": NONCE[:63]},
        {"report_data": NONCE + b"\0"},
        {"report_data": b""},
        {"measurements": (ExpectedMeasurement(DIGEST[:47]),)},
        {"host_data": b""},
        {"id_key_digest": b"x"},
        {"chips": (b"\1" * 9,)},
        {"chips": (bytes(64),)},
        {"vmpl": 4},
        {"vmpl": -1},
        {"minimum_guest_svn": 1 << 32},
    ],
)
def test_expectations_of_the_wrong_size_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        replace(STRICT, **bad)


def test_an_empty_list_of_digests_is_refused() -> None:
    with pytest.raises(InsecureUsage):
        replace(STRICT, measurements=())


def test_a_higher_component_does_not_hide_a_lower_one() -> None:
    floor = TcbVersion(3, 0, 8, 115)
    assert TcbVersion(2, 0, 8, 255).below(floor) == ("bootloader",)
    assert encode_tcb(ProductLine.MILAN, TcbVersion(2, 0, 8, 255)) > encode_tcb(
        ProductLine.MILAN, floor
    )
