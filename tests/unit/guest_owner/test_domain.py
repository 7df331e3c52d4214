"""A domain is taken through attestation on a simulated host, which may lie and may fail."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NoReturn

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from sevkit.abi.product import Product
from sevkit.abi.secret_packet import DISK_GUID, SecretEntry, encode_secret_table
from sevkit.abi.session import (
    TransportKeys,
    compute_shared_secret,
    encode_godh,
    godh_key,
    seal_session,
)
from sevkit.abi.sevcert import parse_sev_certificate
from sevkit.attest.sev_domain import DomainExpectations
from sevkit.attest.sev_session import LaunchSession
from sevkit.attest.verdict import Outcome
from sevkit.errors import (
    ExpectationError,
    FormatError,
    HypervisorError,
    InsecureUsage,
    SevkitError,
)
from sevkit.guest_owner.domain import DomainOwner, SecretOffer, attest_domain, is_local
from sevkit.hypervisor.protocol import (
    DomainState,
    HypervisorUnreachable,
    LaunchSecurityInfo,
    NoSuchDomain,
    WrongState,
)
from sevkit.measure.sweep import Cpu, Request, compute_references
from sevkit.measure.terms import Mode
from sevkit.measure.vcpu import signature_of_model
from sevkit.secret import Secret
from sevkit.testing.firmware import FirmwareImage, encode_firmware
from sevkit.testing.hypervisor.connection import SimulatedHypervisor
from sevkit.testing.secure_processor.identity import ChipIdentity
from sevkit.testing.secure_processor.processor import SecureProcessor
from sevkit.testing.virtual_machine import SevMachine, SimulatedKvm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sevkit.attest.verdict import Verdict
    from sevkit.hypervisor.protocol import Domain, NodeSevInfo
    from sevkit.testing import sev_chain
    from sevkit.testing.hypervisor.domain import SimulatedDomain

pytest.importorskip("lxml", reason="no lxml (extra 'libvirt')")

AT: Final = datetime(2026, 11, 25, tzinfo=UTC)
FIRMWARE: Final = encode_firmware(FirmwareImage())
AREA: Final = (0x80C000, 0xC00)
TABLE: Final = encode_secret_table([SecretEntry(DISK_GUID, Secret(b"the key of the disk"))])
BOTH: Final = frozenset({"unmeasured-boot", "unmeasured-variables"})


class Stage:
    """A host, one domain that was launched on it, and the domain's owner."""

    def __init__(self, roots: sev_chain.SimulatedRoots, policy: int) -> None:
        self.kvm = SimulatedKvm(SecureProcessor(ChipIdentity(Product.NAPLES, roots)))
        self.hypervisor = SimulatedHypervisor(self.kvm, {"/ovmf.fd": FIRMWARE}, hostname="host")
        self.session = self._seal(policy)
        self.domain = self.launch("ledger", self.session)
        request = Request(Mode.SEV, FIRMWARE)
        if policy & 4:
            cpu = Cpu("EPYC-Rome", signature_of_model("EPYC-Rome"))
            request = Request(Mode.SEV_ES, FIRMWARE, 2, 2, (cpu,))
        self.owner = DomainOwner(
            self.session.keys.tik,
            compute_references(request).entries,
            DomainExpectations(policy, vcpus=2 if policy & 4 else None),
            BOTH,
            SecretOffer(TABLE, self.session.keys, AREA),
        )

    def launch(self, name: str, session: LaunchSession) -> SimulatedDomain:
        found = self.hypervisor.define(
            f"<domain type='kvm'><name>{name}</name><vcpu>2</vcpu>"
            "<os><loader type='rom'>/ovmf.fd</loader></os>"
            "<cpu mode='custom'><model>EPYC-Rome</model></cpu>"
            f"<launchSecurity type='sev'><policy>{session.policy:#x}</policy>"
            f"<dhCert>{session.godh_base64}</dhCert>"
            f"<session>{session.session_base64}</session></launchSecurity></domain>"
        )
        found.start()
        return found

    def attest(
        self,
        host: Lying | None = None,
        *,
        owner: DomainOwner | None = None,
        inject: bool = True,
        resume: bool = True,
        own_names: tuple[str, ...] = ("owner", "localhost"),
        elsewhere: bool = True,
    ) -> Verdict:
        return attest_domain(
            host or self.hypervisor,
            "ledger",
            owner or self.owner,
            own_names=own_names,
            elsewhere=elsewhere,
            at=AT,
            inject=inject,
            resume=resume,
        )

    def injected(self, domain: SimulatedDomain | None = None) -> list[bytes]:
        guest = (domain or self.domain).guest
        assert isinstance(guest, SevMachine)
        found = self.kvm.processor.sev_guests[guest.handle].injected
        return [table.reveal() for _, table in found]

    def untouched(self) -> bool:
        return self.injected() == [] and self.domain.state() is DomainState.PAUSED

    def _seal(self, policy: int) -> LaunchSession:
        pdh = parse_sev_certificate(self.kvm.processor.sev.pdh_cert_export()[0])
        private = ec.generate_private_key(ec.SECP384R1())
        keys = TransportKeys(Secret(os.urandom(16)), Secret(os.urandom(16)))
        shared = compute_shared_secret(private, godh_key(pdh))
        blob = seal_session(shared, keys, policy, nonce=os.urandom(16), iv=os.urandom(16))
        return LaunchSession(blob, encode_godh(private), keys, policy, "", simulated=True)


@dataclass
class Lying:
    """A hypervisor, and its one domain, that answers and does other things than the real one."""

    real: SimulatedHypervisor
    info: Callable[[LaunchSecurityInfo], LaunchSecurityInfo] | None = None
    inject: Callable[[], None] | None = None
    do_resume: Callable[[], None] | None = None
    gone: bool = False

    @property
    def name(self) -> str:
        return "ledger"

    def hostname(self) -> str:
        return self.real.hostname()

    def domain_capabilities(self) -> str:
        return self.real.domain_capabilities()

    def node_sev_info(self) -> NodeSevInfo:
        return self.real.node_sev_info()

    def domain(self, name: str) -> Domain:
        self.real.domain(name)
        return self

    def xml(self) -> str:
        return self.real.domain("ledger").xml()

    def state(self) -> DomainState:
        return self.real.domain("ledger").state()

    def launch_security_info(self) -> LaunchSecurityInfo:
        if self.gone:
            raise NoSuchDomain("gone")
        found = self.real.domain("ledger").launch_security_info()
        return found if self.info is None else self.info(found)

    def inject_launch_secret(
        self, header: bytes, secret: bytes, *, address: int | None = None
    ) -> None:
        if self.inject is not None:
            self.inject()
        self.real.domain("ledger").inject_launch_secret(header, secret, address=address)

    def resume(self) -> None:
        if self.do_resume is not None:
            self.do_resume()
        self.real.domain("ledger").resume()

    def pause(self) -> None:
        raise AssertionError

    def destroy(self) -> None:
        raise AssertionError


@pytest.fixture(params=[1, 5], ids=["sev", "sev-es"])
def stage(request: pytest.FixtureRequest, sev_roots: sev_chain.SimulatedRoots) -> Iterator[Stage]:
    found = Stage(sev_roots, request.param)
    with found.hypervisor:
        yield found


def outcome(verdict: Verdict, check: str) -> Outcome:
    return next(row.outcome for row in verdict.findings if row.check == check)


def test_the_secret_that_arrives_is_the_secret_that_was_sent(stage: Stage) -> None:
    verdict = stage.attest()
    assert verdict.exit_code == 0
    assert stage.injected() == [TABLE.reveal()]
    assert stage.domain.state() is DomainState.RUNNING
    assert verdict.evidence["injected"] is True
    assert verdict.evidence["resumed"] is True
    assert verdict.evidence["accepted_risks"] == ["unmeasured-boot", "unmeasured-variables"]


@pytest.mark.parametrize("offered", [True, False])
@pytest.mark.parametrize("inject", [True, False])
@pytest.mark.parametrize("resume", [True, False])
def test_nothing_is_done_that_was_not_asked_for(
    stage: Stage, offered: bool, inject: bool, resume: bool
) -> None:
    owner = stage.owner if offered else replace(stage.owner, offer=None, accepted=frozenset())
    verdict = stage.attest(owner=owner, inject=inject, resume=resume)
    assert verdict.accepted
    assert stage.injected() == ([TABLE.reveal()] if offered and inject else [])
    running = stage.domain.state() is DomainState.RUNNING
    assert running == resume
    assert verdict.evidence["injected"] is (offered and inject)
    assert verdict.evidence["resumed"] is resume


@pytest.mark.parametrize("inject", [True, False])
@pytest.mark.parametrize("missing", sorted(BOTH))
def test_without_the_owners_words_nothing_is_released(
    stage: Stage, missing: str, inject: bool
) -> None:
    owner = replace(stage.owner, accepted=BOTH - {missing})
    with pytest.raises(InsecureUsage, match="no secret is released"):
        stage.attest(owner=owner, inject=inject)
    assert stage.untouched()


@pytest.mark.parametrize("area", [None, (AREA[0], len(TABLE) - 16)])
def test_a_firmware_without_room_gets_nothing(stage: Stage, area: tuple[int, int] | None) -> None:
    offer = SecretOffer(TABLE, stage.session.keys, area)
    with pytest.raises(ExpectationError, match=r"secret\.area"):
        stage.attest(owner=replace(stage.owner, offer=offer))
    assert stage.untouched()


def test_another_firmware_is_not_authentic(stage: Stage) -> None:
    other = replace(stage.owner.references[0], digest=b"x" * 32)
    verdict = stage.attest(owner=replace(stage.owner, references=(other,)))
    assert verdict.exit_code == 1
    assert outcome(verdict, "launch.measurement") is Outcome.FAIL
    assert verdict.evidence["injected"] is verdict.evidence["resumed"] is False
    assert stage.untouched()


@pytest.mark.parametrize("number", ["api_major", "api_minor", "build_id"])
def test_a_changed_level_is_not_authentic(stage: Stage, number: str) -> None:
    def change(info: LaunchSecurityInfo) -> LaunchSecurityInfo:
        numbers = {
            name: getattr(info, name) ^ (name == number)
            for name in ("api_major", "api_minor", "build_id")
        }
        return LaunchSecurityInfo(info.measurement, policy=info.policy, **numbers)

    assert stage.attest(Lying(stage.hypervisor, change)).exit_code == 1
    assert stage.untouched()


def test_every_byte_of_the_measurement_counts(stage: Stage) -> None:
    for place in range(48):

        def flip(info: LaunchSecurityInfo, place: int = place) -> LaunchSecurityInfo:
            data = bytearray(info.measurement)
            data[place] ^= 1 << place % 8
            return replace(info, measurement=bytes(data))

        assert stage.attest(Lying(stage.hypervisor, flip)).exit_code == 1
    assert stage.untouched()


@pytest.mark.parametrize("size", [0, 32, 47, 49])
def test_a_measurement_of_another_size_is_none(stage: Stage, size: int) -> None:
    def cut(info: LaunchSecurityInfo) -> LaunchSecurityInfo:
        return replace(info, measurement=(info.measurement + b"x")[:size])

    with pytest.raises(FormatError):
        stage.attest(Lying(stage.hypervisor, cut))
    assert stage.untouched()


def test_the_measurement_of_another_launch_is_not_authentic(stage: Stage) -> None:
    other = stage.launch("other", stage._seal(stage.session.policy))
    replayed = other.launch_security_info()
    assert stage.attest(Lying(stage.hypervisor, lambda _: replayed)).exit_code == 1
    assert stage.untouched()
    assert stage.injected(other) == []


def test_a_replayed_measurement_of_the_same_session_opens_no_other_launch(stage: Stage) -> None:
    """The host starts twice with one session, and shows the measurement of the first launch."""
    shown = stage.domain.launch_security_info()
    stage.domain.destroy()
    stage.domain.start()
    with pytest.raises(HypervisorError, match="stays paused"):
        stage.attest(Lying(stage.hypervisor, lambda _: shown))
    assert stage.untouched()


def test_another_policy_that_is_only_said_is_not_acceptable(stage: Stage) -> None:
    lying = Lying(stage.hypervisor, lambda info: replace(info, policy=info.policy ^ 2))
    verdict = stage.attest(lying)
    assert verdict.exit_code == 3
    assert outcome(verdict, "launch.info-policy") is Outcome.FAIL
    assert stage.untouched()


def test_a_domain_that_runs_already_gets_nothing(stage: Stage) -> None:
    stage.domain.resume()
    verdict = stage.attest()
    assert verdict.exit_code == 3
    assert outcome(verdict, "domain.paused") is Outcome.FAIL
    assert stage.injected() == []


def test_a_domain_that_the_host_lets_run_in_the_middle_gets_nothing(stage: Stage) -> None:
    lying = Lying(stage.hypervisor, inject=stage.domain.resume)
    with pytest.raises(HypervisorError, match="may not be in"):
        stage.attest(lying)
    assert stage.injected() == []


def test_a_domain_that_is_shut_off_has_no_measurement(stage: Stage) -> None:
    stage.domain.destroy()
    with pytest.raises(WrongState, match="shut off") as caught:
        stage.attest()
    assert "--paused" in caught.value.hint


def test_a_domain_that_is_not_there_could_not_be_asked(stage: Stage) -> None:
    with pytest.raises(NoSuchDomain):
        attest_domain(stage.hypervisor, "absent", stage.owner, own_names=(), elsewhere=True, at=AT)
    with pytest.raises(NoSuchDomain):
        stage.attest(Lying(stage.hypervisor, gone=True))
    assert stage.untouched()


def broken() -> NoReturn:
    raise HypervisorUnreachable("the connection broke", hint="try again")


def test_an_injection_that_fails_lets_nothing_run(stage: Stage) -> None:
    with pytest.raises(
        HypervisorUnreachable, match=r"stays paused.*the connection broke"
    ) as caught:
        stage.attest(Lying(stage.hypervisor, inject=broken))
    assert caught.value.hint == "try again"
    assert stage.untouched()


@pytest.mark.parametrize("offered", [True, False])
def test_a_domain_that_is_not_resumed_is_told_with_what_it_has(stage: Stage, offered: bool) -> None:
    owner = stage.owner if offered else replace(stage.owner, offer=None)
    with pytest.raises(HypervisorUnreachable, match="was not resumed") as caught:
        stage.attest(Lying(stage.hypervisor, do_resume=broken), owner=owner)
    assert ("the secret is in" in caught.value.message) == offered
    assert stage.injected() == ([TABLE.reveal()] if offered else [])
    assert stage.domain.state() is DomainState.PAUSED


def test_the_xml_of_another_domain_is_refused(stage: Stage) -> None:
    stage.domain.show_xml(stage.domain.xml().replace("<name>ledger<", "<name>other<"))
    with pytest.raises(ExpectationError, match="shows the XML of 'other'"):
        stage.attest()
    assert stage.untouched()


def test_a_hypervisor_on_this_machine_is_refused(stage: Stage) -> None:
    with pytest.raises(InsecureUsage, match=r"domain\.remote"):
        stage.attest(own_names=("HOST.example",))
    with pytest.raises(InsecureUsage, match=r"domain\.remote"):
        stage.attest(own_names=("owner",), elsewhere=False)  # whatever it calls itself
    assert stage.untouched()
    owner = replace(stage.owner, accepted=BOTH | {"local-hypervisor"})
    verdict = stage.attest(owner=owner, own_names=("host",))
    assert verdict.accepted
    assert outcome(verdict, "domain.remote") is Outcome.WARN
    assert stage.injected() == [TABLE.reveal()]
    assert verdict.evidence["accepted_risks"][0] == "local-hypervisor"


@pytest.mark.parametrize(
    ("hostname", "own", "same"),
    [
        ("host", "host", True),
        ("Host", "hOST", True),
        ("host.example", "host", True),
        ("host", "host.example.", True),
        ("host.example", "HOST.Example.", True),
        ("host.example", "host.other", False),
        ("host1", "host", False),
        ("localhost", "localhost.localdomain", True),
        ("host", "", False),
    ],
)
def test_names_of_one_machine(hostname: str, own: str, same: bool) -> None:
    assert is_local(hostname, [own]) is same
    assert is_local(hostname, ["elsewhere", own]) is same
    assert not is_local(hostname, [])


def test_errors_never_name_the_secret(stage: Stage) -> None:
    with pytest.raises(SevkitError) as caught:
        stage.attest(Lying(stage.hypervisor, inject=broken))
    words = [repr(stage.owner), str(caught.value), caught.value.hint]
    for secret in (b"the key of the disk", stage.session.keys.tik.reveal()):
        assert not any(secret.hex() in text or repr(secret)[2:-1] in text for text in words)
