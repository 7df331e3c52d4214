from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import pytest

from sevkit.attest.checks import SEV_DOMAIN
from sevkit.attest.release import Accept
from sevkit.attest.sev_domain import (
    LOCAL_HYPERVISOR,
    RISKS,
    SUBJECT,
    DomainClaim,
    DomainExpectations,
    check_risks,
    judge_domain,
    require_sev,
)
from sevkit.attest.sev_launch import LaunchClaim, LaunchExpectations, VerifiedLaunch
from sevkit.attest.verdict import Outcome, Verdict
from sevkit.errors import ExpectationError, InsecureUsage
from sevkit.hypervisor.domain_xml import parse_domain_xml
from sevkit.hypervisor.protocol import DomainState
from sevkit.measure.launch_measurement import LaunchMeasurement, compute_launch_measurement
from sevkit.measure.reference import Reference
from sevkit.measure.terms import Mode
from sevkit.secret import Secret

pytest.importorskip("lxml", reason="no lxml (extra 'libvirt')")

AT: Final = datetime(2026, 11, 25, tzinfo=UTC)
TIK: Final = Secret(b"I" * 16)
SESSION, GODH = b"s" * 128, b"g" * 2084
ES: Final = Reference(b"e" * 32, Mode.SEV_ES, "2 vCPUs", covers_kernel=False)
EXPECTED: Final = DomainExpectations(5, vcpus=2)
PARTS: Final = {
    "kernel": "<kernel>/vmlinuz</kernel>",
    "initrd": "<initrd>/initrd</initrd>",
    "cmdline": "<cmdline>quiet</cmdline>",
}
FLASH: Final = "<loader type='pflash' readonly='yes'{}>/ovmf.fd</loader>"


def claim(
    *,
    loader: str = "<loader type='rom'>/ovmf.fd</loader>",
    boot: str = "",
    attributes: str = "type='sev'",
    policy: str = "<policy>0x5</policy>",
    session: str = f"<session>{base64.b64encode(SESSION).decode()}</session>",
    godh: str = f"<dhCert>{base64.b64encode(GODH).decode()}</dhCert>",
    vcpus: str = "<vcpu>2</vcpu>",
    state: DomainState = DomainState.PAUSED,
    local: bool = False,
) -> DomainClaim:
    xml = (
        f"<domain type='kvm'><name>ledger</name>{vcpus}<os>{loader}{boot}</os>"
        f"<launchSecurity {attributes}>{policy}{godh}{session}</launchSecurity></domain>"
    )
    return DomainClaim(parse_domain_xml(xml), state, local=local)


def launched(digest: bytes = ES.digest, policy: int = 5) -> LaunchClaim:
    mnonce = bytes(16)
    measure = compute_launch_measurement(
        TIK, api_major=1, api_minor=55, build_id=21, policy=policy, digest=digest, mnonce=mnonce
    )
    return LaunchClaim(LaunchMeasurement(measure, mnonce), 1, 55, 21, policy)


def judge(
    found: DomainClaim,
    expected: DomainExpectations = EXPECTED,
    *accepted: str,
    launch: LaunchClaim | None = None,
) -> tuple[Verdict, VerifiedLaunch | None]:
    verdict, verified = judge_domain(
        found, launch or launched(), TIK, [ES], expected, accepted=accepted, at=AT
    )
    assert [row.check for row in verdict.findings] == [row.name for row in SEV_DOMAIN]
    assert (verified is None) == (not verdict.accepted)
    assert verdict.subject == SUBJECT
    return verdict, verified


def failed(verdict: Verdict) -> set[str]:
    return {row.check for row in verdict.findings if row.outcome is Outcome.FAIL}


def outcome(verdict: Verdict, check: str) -> Outcome:
    return next(row.outcome for row in verdict.findings if row.check == check)


def test_a_domain_as_it_should_be_is_accepted() -> None:
    verdict, verified = judge(claim())
    assert verdict.exit_code == 0
    assert verified is not None
    for row in SEV_DOMAIN:
        if row.name.startswith("domain."):
            assert outcome(verdict, row.name) is Outcome.PASS
    assert verdict.evidence["domain"] == "ledger"
    assert verdict.evidence["authenticated"] is True


@pytest.mark.parametrize(
    ("changed", "check"),
    [
        ({"state": state}, "domain.paused")
        for state in DomainState
        if state is not DomainState.PAUSED
    ]
    + [
        ({"session": ""}, "domain.session"),
        ({"session": "<session/>"}, "domain.session"),
        ({"godh": ""}, "domain.session"),
        ({"godh": "<dhCert> </dhCert>"}, "domain.session"),
        ({"policy": "<policy>0x1</policy>"}, "domain.policy"),
        ({"policy": "<policy>0x4</policy>"}, "domain.policy"),
        ({"loader": ""}, "domain.firmware"),
        ({"loader": "<loader type='rom'/>"}, "domain.firmware"),
        ({"vcpus": ""}, "domain.vcpus"),
        ({"vcpus": "<vcpu>4</vcpu>"}, "domain.vcpus"),
        ({"vcpus": "<vcpu current='2'>4</vcpu>"}, ""),
        ({"attributes": "type='sev' kernelHashes='yes'"}, "domain.boot"),
        (
            {"attributes": "type='sev' kernelHashes='yes'", "boot": PARTS["kernel"]},
            "domain.boot",
        ),
    ],
)
def test_what_is_wrong_with_a_domain_is_told_and_not_acceptable(
    changed: dict[str, str], check: str
) -> None:
    verdict, _ = judge(claim(**changed))  # type: ignore[arg-type]  # each by its name
    assert failed(verdict) == ({check} if check else set())
    assert verdict.exit_code == (3 if check else 0)


def test_vcpus_that_are_plugged_in_later_are_told_of() -> None:
    rows = "".join(
        f"<vcpu id='{n}' enabled='yes' hotpluggable='{'yes' if n else 'no'}'/>" for n in range(4)
    )
    verdict, _ = judge(claim(vcpus=f"<vcpu>4</vcpu><vcpus>{rows}</vcpus>"))
    found = next(row for row in verdict.findings if row.check == "domain.vcpus")
    assert (found.outcome, found.expected, found.actual) == (Outcome.FAIL, "2", "1")
    assert "3 more" in found.detail


def test_vcpus_that_no_digest_covers_are_not_judged() -> None:
    verdict, _ = judge(claim(vcpus="<vcpu>4</vcpu>"), replace(EXPECTED, vcpus=None))
    assert outcome(verdict, "domain.vcpus") is Outcome.SKIP


def test_a_session_is_the_owners_if_he_gave_his() -> None:
    known = replace(
        EXPECTED,
        session_sha256=hashlib.sha256(SESSION).hexdigest(),
        godh_sha256=hashlib.sha256(GODH).hexdigest(),
    )
    assert judge(claim(), known)[0].accepted
    for other in (replace(known, session_sha256="0" * 64), replace(known, godh_sha256="0" * 64)):
        verdict, _ = judge(claim(), other)
        assert failed(verdict) == {"domain.session"}
    found = next(row for row in judge(claim())[0].findings if row.check == "domain.session")
    assert "not compared" in found.detail


def test_a_measurement_that_does_not_fit_is_not_authentic_whatever_the_domain_says() -> None:
    verdict, _ = judge(claim(), launch=launched(b"x" * 32))
    assert verdict.exit_code == 1
    verdict, _ = judge(claim(vcpus="<vcpu>4</vcpu>"), launch=launched(b"x" * 32))
    assert verdict.exit_code == 1
    assert failed(verdict) == {"domain.vcpus", "launch.measurement"}


def test_the_checks_of_a_launch_are_made_as_well() -> None:
    strict = replace(EXPECTED, launch=LaunchExpectations(min_firmware=(1, 56, 0)))
    assert failed(judge(claim(), strict)[0]) == {"launch.firmware-version"}
    debug = replace(EXPECTED, policy=4)
    verdict, _ = judge(claim(policy="<policy>0x4</policy>"), debug, launch=launched(policy=4))
    assert failed(verdict) == {"launch.policy-debug"}
    lying = replace(launched(), policy=1)
    assert failed(judge(claim(), launch=lying)[0]) == {"launch.info-policy"}


RISKY: Final = {
    "local": (claim(local=True), LOCAL_HYPERVISOR, "domain.remote"),
    "nvram": (
        claim(loader=FLASH.format("") + "<nvram>/v.fd</nvram>"),
        Accept.UNMEASURED_VARIABLES,
        "domain.variables",
    ),
    "nvram beside rom": (
        claim(loader="<loader type='rom'>/ovmf.fd</loader><nvram/>"),
        Accept.UNMEASURED_VARIABLES,
        "domain.variables",
    ),
    "varstore": (
        claim(loader="<loader type='rom'>/ovmf.fd</loader><varstore/>"),
        Accept.UNMEASURED_VARIABLES,
        "domain.variables",
    ),
    "flash": (claim(loader=FLASH.format("")), Accept.UNMEASURED_VARIABLES, "domain.variables"),
    "stateful flash": (
        claim(loader=FLASH.format(" stateless='no'")),
        Accept.UNMEASURED_VARIABLES,
        "domain.variables",
    ),
    **{
        f"direct {name}": (claim(boot=part), Accept.UNMEASURED_BOOT, "domain.boot")
        for name, part in PARTS.items()
    },
    "hashes turned off": (
        claim(boot=PARTS["kernel"], attributes="type='sev' kernelHashes='no'"),
        Accept.UNMEASURED_BOOT,
        "domain.boot",
    ),
}


@pytest.mark.parametrize("name", RISKY)
def test_what_is_insecure_is_refused_until_its_word_accepts_it(name: str) -> None:
    found, word, check = RISKY[name]
    others = {*map(str, Accept), LOCAL_HYPERVISOR} - {str(word)}
    for accepted in ((), tuple(others)):
        with pytest.raises(InsecureUsage, match=check) as caught:
            judge(found, EXPECTED, *accepted)
        assert caught.value.exit_code == 5
        assert f"--accept {word}" in caught.value.hint
        assert not any(f"--accept {other}" in caught.value.hint for other in others)
    verdict, _ = judge(found, EXPECTED, str(word))
    assert verdict.exit_code == 0
    assert outcome(verdict, check) is Outcome.WARN


def test_a_refusal_names_everything_and_what_is_needed_is_returned() -> None:
    found = claim(loader=FLASH.format(""), boot=PARTS["kernel"], local=True)
    with pytest.raises(InsecureUsage) as caught:
        check_risks(found, EXPECTED, ())
    assert all(risk.check in caught.value.message for risk in RISKS)
    words = tuple(risk.accept for risk in RISKS)
    assert check_risks(found, EXPECTED, words) == words
    assert check_risks(claim(), EXPECTED, words) == ()
    assert check_risks(claim(loader=FLASH.format(" stateless='yes'")), EXPECTED, ()) == ()


@pytest.mark.parametrize("named", [(), ("kernel",), ("kernel", "initrd"), tuple(PARTS)])
@pytest.mark.parametrize("given", [(), ("kernel",), ("kernel", "cmdline"), tuple(PARTS)])
@pytest.mark.parametrize("hashes", [True, False])
def test_a_direct_boot_is_the_expected_one(
    named: tuple[str, ...], given: tuple[str, ...], hashes: bool
) -> None:
    found = claim(
        boot="".join(PARTS[part] for part in named),
        attributes=f"type='sev' kernelHashes='{'yes' if hashes else 'no'}'",
    )
    expected = replace(EXPECTED, boot=frozenset(given))
    if named and not hashes and not given:
        with pytest.raises(InsecureUsage):
            judge(found, expected)
        return
    verdict, _ = judge(found, expected)
    as_expected = named == given and hashes == bool(given)
    assert failed(verdict) == (set() if as_expected else {"domain.boot"})


def test_an_empty_command_line_is_measured_as_none() -> None:
    found = claim(
        boot=PARTS["kernel"] + "<cmdline></cmdline>", attributes="type='sev' kernelHashes='yes'"
    )
    verdict, _ = judge(found, replace(EXPECTED, boot=frozenset({"kernel"})))
    assert failed(verdict) == set()


@pytest.mark.parametrize(
    ("security", "hint"),
    [
        ("", "launchSecurity type='sev'"),
        ("<launchSecurity type='sev-snp'><policy>0x30000</policy></launchSecurity>", "report"),
        ("<launchSecurity type='tdx'/>", "launchSecurity type='sev'"),
        ("<launchSecurity type='s390-pv'/>", "launchSecurity type='sev'"),
    ],
)
def test_a_domain_that_is_no_sev_guest_has_nothing_to_judge(security: str, hint: str) -> None:
    xml = f"<domain type='kvm'><name>ledger</name><os/>{security}</domain>"
    found = DomainClaim(parse_domain_xml(xml), DomainState.PAUSED)
    with pytest.raises(ExpectationError, match=r"domain\.launch-security") as caught:
        judge(found)
    assert hint in caught.value.hint
    with pytest.raises(ExpectationError):
        require_sev(found.definition)
