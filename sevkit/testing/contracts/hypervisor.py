"""The contract of ``sevkit.hypervisor.protocol.Hypervisor``.

    class TestMine(NoSevHypervisorContract):
        @pytest.fixture
        def hypervisor(self) -> Iterator[Hypervisor]: …
        @pytest.fixture
        def plain_domain(self, hypervisor: Hypervisor) -> str: …

``SevHypervisorContract`` is for a host that has SEV, real or simulated; what it launches it must be
able to tell the keys of. ``NoSevHypervisorContract`` is for any other: it must say so, and not fail
in some other way.
"""
# ruff: noqa: D102, S101  # tests: their names say the behaviour, and assert is pytest's language

from __future__ import annotations

import hmac
import os
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, final

import pytest

from sevkit.abi.secret_packet import SecretEntry, encode_secret_table, seal_packet
from sevkit.abi.sevcert import Usage
from sevkit.abi.sevchain import parse_parts
from sevkit.errors import FormatError, HypervisorError
from sevkit.hypervisor.domain_capabilities import parse_domain_capabilities
from sevkit.hypervisor.domain_xml import parse_domain_xml
from sevkit.hypervisor.protocol import DomainState, NoSuchDomain, NotSupported, WrongState
from sevkit.measure.launch_measurement import (
    compute_launch_measurement,
    parse_launch_measurement,
)
from sevkit.secret import Secret

if TYPE_CHECKING:
    from sevkit.abi.secret_packet import SecretPacket
    from sevkit.abi.session import TransportKeys
    from sevkit.hypervisor.protocol import Domain, Hypervisor

_SECRET_GUID: Final = uuid.UUID("736869e5-84f0-4973-92ec-06879ce3da0b")
_HEADER: Final = bytes(52)
_BLOCK: Final = bytes(16)


@final
@dataclass(frozen=True, slots=True)
class SevLaunch:
    """A SEV or SEV-ES domain that was started paused, and what its guest owner knows of it.

    ``digest`` is the launch digest that it must have, 32 bytes.
    """

    domain: str
    keys: TransportKeys
    policy: int
    digest: bytes


class HypervisorContract:
    """What holds of every hypervisor. Derive from one of the two classes below instead."""

    #: Whether the driver knows domain capabilities; libvirt's ``test:///`` does not.
    has_domain_capabilities: ClassVar[bool] = True

    @pytest.fixture
    def hypervisor(self) -> Hypervisor:
        """Override: the hypervisor, in a state that no other test has changed."""
        raise NotImplementedError

    @pytest.fixture
    def plain_domain(self, hypervisor: Hypervisor) -> str:
        """Override: the name of a running domain without launch security."""
        raise NotImplementedError

    @pytest.fixture
    def plain(self, hypervisor: Hypervisor, plain_domain: str) -> Domain:
        """Return the running domain itself."""
        return hypervisor.domain(plain_domain)

    def test_domain_capabilities_can_be_read_or_are_not_supported(
        self, hypervisor: Hypervisor
    ) -> None:
        if self.has_domain_capabilities:
            found = parse_domain_capabilities(hypervisor.domain_capabilities())
            assert found.arch == "x86_64"
        else:
            with pytest.raises(NotSupported):
                hypervisor.domain_capabilities()

    def test_the_host_has_a_name(self, hypervisor: Hypervisor) -> None:
        found = hypervisor.hostname()
        assert found
        assert found.isprintable()
        assert hypervisor.hostname() == found

    def test_a_domain_that_is_not_there_is_told_apart(self, hypervisor: Hypervisor) -> None:
        name = f"absent-{os.urandom(4).hex()}"
        with pytest.raises(NoSuchDomain) as caught:
            hypervisor.domain(name)
        assert name in caught.value.message
        assert caught.value.hint

    def test_a_domain_says_its_name_and_xml(self, plain: Domain, plain_domain: str) -> None:
        definition = parse_domain_xml(plain.xml())
        assert plain.name == definition.name == plain_domain
        assert definition.launch_security is None

    def test_a_domain_is_paused_and_resumed(self, plain: Domain) -> None:
        assert plain.state() is DomainState.RUNNING
        plain.pause()
        assert plain.state() is DomainState.PAUSED
        plain.pause()
        assert plain.state() is DomainState.PAUSED
        plain.resume()
        assert plain.state() is DomainState.RUNNING

    def test_two_handles_are_one_domain(
        self, hypervisor: Hypervisor, plain: Domain, plain_domain: str
    ) -> None:
        plain.pause()
        assert hypervisor.domain(plain_domain).state() is DomainState.PAUSED

    def test_a_domain_that_is_not_paused_is_not_resumed(self, plain: Domain) -> None:
        with pytest.raises(WrongState):
            plain.resume()
        assert plain.state() is DomainState.RUNNING

    def test_a_domain_that_was_destroyed_does_nothing_any_more(self, plain: Domain) -> None:
        plain.destroy()
        for call in (plain.resume, plain.pause, plain.destroy):
            with pytest.raises((WrongState, NoSuchDomain)):
                call()

    def test_a_domain_without_sev_has_no_measurement(self, plain: Domain) -> None:
        with pytest.raises(NotSupported):
            plain.launch_security_info()

    def test_a_domain_without_sev_takes_no_secret(self, plain: Domain) -> None:
        with pytest.raises(NotSupported):
            plain.inject_launch_secret(_HEADER, _BLOCK)
        plain.pause()
        with pytest.raises(NotSupported):
            plain.inject_launch_secret(_HEADER, _BLOCK)

    def test_a_packet_of_another_shape_is_never_sent(self, plain: Domain) -> None:
        for header, secret in (
            (b"", _BLOCK),
            (_HEADER, b""),
            (_HEADER, b"x"),
            (_HEADER[1:], _BLOCK),
        ):
            with pytest.raises(FormatError):
                plain.inject_launch_secret(header, secret)

    def test_errors_are_one_line_and_say_what_was_tried(self, plain: Domain) -> None:
        with pytest.raises(HypervisorError) as caught:
            plain.inject_launch_secret(_HEADER, _BLOCK)
        assert plain.name in caught.value.message
        assert caught.value.message.isprintable()
        assert caught.value.hint


class NoSevHypervisorContract(HypervisorContract):
    """What a hypervisor without SEV says when it is asked for SEV."""

    def test_there_is_no_secure_processor_to_tell_of(self, hypervisor: Hypervisor) -> None:
        with pytest.raises(NotSupported) as caught:
            hypervisor.node_sev_info()
        assert caught.value.hint


class SevHypervisorContract(HypervisorContract):
    """What a hypervisor with SEV does for a guest owner, checked with the owner's own keys."""

    @pytest.fixture
    def sev_launch(self, hypervisor: Hypervisor) -> SevLaunch:
        """Override: a SEV or SEV-ES domain, started paused with a session of your own.

        Its firmware must declare a launch secret area.
        """
        raise NotImplementedError

    @pytest.fixture
    def sev(self, hypervisor: Hypervisor, sev_launch: SevLaunch) -> Domain:
        """Return the paused SEV domain itself."""
        return hypervisor.domain(sev_launch.domain)

    @pytest.fixture
    def packet(self, sev: Domain, sev_launch: SevLaunch) -> SecretPacket:
        """Return a secret that was packed for this very launch."""
        return self._pack(sev, sev_launch)

    @staticmethod
    def _pack(sev: Domain, sev_launch: SevLaunch, *, spoil: bool = False) -> SecretPacket:
        table = encode_secret_table([SecretEntry(_SECRET_GUID, Secret(b"of the contract"))])
        measure = parse_launch_measurement(sev.launch_security_info().measurement).measure
        if spoil:
            measure = measure[::-1]
        return seal_packet(sev_launch.keys, table, measure=measure, iv=os.urandom(16))

    def test_the_secure_processor_is_told_of(self, hypervisor: Hypervisor) -> None:
        found = hypervisor.node_sev_info()
        chain = parse_parts(found.pdh, found.cert_chain)
        assert (chain.pdh.usage, chain.pek.usage) == (Usage.PDH, Usage.PEK)
        assert (chain.oca.usage, chain.cek.usage) == (Usage.OCA, Usage.CEK)

    def test_domain_capabilities_agree_with_the_secure_processor(
        self, hypervisor: Hypervisor
    ) -> None:
        node = hypervisor.node_sev_info()
        sev = parse_domain_capabilities(hypervisor.domain_capabilities()).sev
        assert sev is not None
        assert sev.supported
        assert (sev.cbitpos, sev.reduced_phys_bits) == (node.cbitpos, node.reduced_phys_bits)
        assert (sev.max_guests, sev.max_es_guests) == (node.max_guests, node.max_es_guests)
        assert sev.cpu0_id == node.cpu0_id

    def test_the_measurement_is_that_of_the_launch(
        self, sev: Domain, sev_launch: SevLaunch
    ) -> None:
        info = sev.launch_security_info()
        found = parse_launch_measurement(info.measurement)
        expected = compute_launch_measurement(
            sev_launch.keys.tik,
            api_major=info.api_major,
            api_minor=info.api_minor,
            build_id=info.build_id,
            policy=sev_launch.policy,
            digest=sev_launch.digest,
            mnonce=found.mnonce,
        )
        assert hmac.compare_digest(found.measure, expected)
        assert info.policy == sev_launch.policy

    def test_the_measurement_stays_the_same_also_when_the_guest_runs(self, sev: Domain) -> None:
        before = sev.launch_security_info()
        assert sev.launch_security_info() == before
        sev.resume()
        assert sev.launch_security_info() == before

    def test_the_xml_says_that_it_is_a_sev_domain(self, sev: Domain, sev_launch: SevLaunch) -> None:
        security = parse_domain_xml(sev.xml()).launch_security
        assert security is not None
        assert (security.kind, security.policy) == ("sev", sev_launch.policy)

    def test_a_secret_goes_in_and_the_guest_runs(self, sev: Domain, packet: SecretPacket) -> None:
        assert sev.state() is DomainState.PAUSED
        sev.inject_launch_secret(packet.header, packet.ciphertext)
        assert sev.state() is DomainState.PAUSED
        sev.resume()
        assert sev.state() is DomainState.RUNNING

    def test_a_packet_for_another_launch_is_refused_and_spoils_nothing(
        self, sev: Domain, sev_launch: SevLaunch, packet: SecretPacket
    ) -> None:
        other = self._pack(sev, sev_launch, spoil=True)
        with pytest.raises(HypervisorError):
            sev.inject_launch_secret(other.header, other.ciphertext)
        assert sev.state() is DomainState.PAUSED
        sev.inject_launch_secret(packet.header, packet.ciphertext)

    def test_a_guest_that_runs_takes_no_secret(self, sev: Domain, packet: SecretPacket) -> None:
        sev.resume()
        with pytest.raises(WrongState):
            sev.inject_launch_secret(packet.header, packet.ciphertext)

    def test_a_guest_that_ran_takes_no_secret_when_it_is_paused_again(
        self, sev: Domain, packet: SecretPacket
    ) -> None:
        sev.resume()
        sev.pause()
        with pytest.raises(HypervisorError):
            sev.inject_launch_secret(packet.header, packet.ciphertext)

    def test_a_guest_that_was_destroyed_is_measured_no_more(
        self, sev: Domain, packet: SecretPacket
    ) -> None:
        sev.destroy()
        for call in (
            sev.launch_security_info,
            lambda: sev.inject_launch_secret(packet.header, packet.ciphertext),
        ):
            with pytest.raises((WrongState, NoSuchDomain)):
                call()
