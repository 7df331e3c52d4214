"""The module that stands in for libvirt-python, called as programs call libvirt-python."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pytest

from sevkit.hypervisor.domain_xml import parse_domain_xml
from sevkit.hypervisor.libvirt_errors import LibvirtCode, translate_error
from sevkit.hypervisor.parameters import encode_launch_secret, parse_launch_security_info
from sevkit.hypervisor.protocol import NoSuchDomain, NotSupported, WrongState
from sevkit.testing.firmware import FirmwareImage, encode_firmware
from sevkit.testing.hypervisor.connection import SimulatedHypervisor
from sevkit.testing.hypervisor.libvirt_module import LibvirtError, make_libvirt
from sevkit.testing.virtual_machine import SimulatedKvm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sevkit.attest.sev_session import LaunchSession

pytest.importorskip("lxml", reason="no lxml (extra 'libvirt')")

#: libvirt-python has no types.
Libvirt: TypeAlias = Any
URI: Final = "qemu+ssh://host/system"
UUID: Final = "2c8c43d5-4a0c-4a5b-8f3e-0d1c5c3c9a01"


@pytest.fixture
def hypervisor(
    processor_of: Callable[..., Any], seal: Callable[..., LaunchSession]
) -> Iterator[SimulatedHypervisor]:
    kvm = SimulatedKvm(processor_of())
    session = seal(kvm.processor, 1)
    files = {"/ovmf.fd": encode_firmware(FirmwareImage())}
    with SimulatedHypervisor(kvm, files, hostname="host.example") as found:
        found.define(
            f"<domain type='kvm'><name>ledger</name><uuid>{UUID}</uuid><vcpu>3</vcpu>"
            "<os><loader type='rom'>/ovmf.fd</loader></os><launchSecurity type='sev'>"
            f"<policy>0x1</policy><dhCert>{session.godh_base64}</dhCert>"
            f"<session>{session.session_base64}</session></launchSecurity></domain>"
        )
        found.define("<domain type='kvm'><name>plain</name><os/></domain>").start(paused=False)
        yield found


@pytest.fixture
def libvirt(hypervisor: SimulatedHypervisor) -> Libvirt:
    return make_libvirt({URI: hypervisor}.__getitem__)


def test_a_domain_is_found_by_name_uuid_and_id(
    libvirt: Libvirt, hypervisor: SimulatedHypervisor
) -> None:
    connection = libvirt.openReadOnly(URI)
    assert connection.getHostname() == "host.example"
    found = connection.lookupByName("ledger")
    assert (found.name(), found.UUIDString(), found.ID()) == ("ledger", UUID, -1)
    assert not found.isActive()
    hypervisor.domain("ledger").start()
    assert found.state() == [libvirt.VIR_DOMAIN_PAUSED, 0]
    assert found.info()[0] == libvirt.VIR_DOMAIN_PAUSED
    assert found.info()[3] == 3
    other = libvirt.open(URI)
    assert other.lookupByUUIDString(UUID).name() == "ledger"
    assert other.lookupByID(found.ID()).name() == "ledger"
    assert parse_domain_xml(found.XMLDesc()).uuid == UUID
    assert connection.close() == 0


def test_a_launch_is_measured_and_let_run_by_libvirts_calls(
    libvirt: Libvirt, hypervisor: SimulatedHypervisor
) -> None:
    domain = hypervisor.domain("ledger")
    domain.start()
    found = libvirt.open(URI).lookupByName("ledger")
    assert parse_launch_security_info(found.launchSecurityInfo()) == domain.launch_security_info()
    spoiled = encode_launch_secret(bytes(52), bytes(16), None)
    with pytest.raises(LibvirtError, match="failed to inject secret"):
        found.setLaunchSecurityState(spoiled, 0)
    assert found.resume() == 0
    assert found.state()[0] == libvirt.VIR_DOMAIN_RUNNING
    assert found.suspend() == 0
    assert found.destroy() == 0


@pytest.mark.parametrize(
    ("doing", "error"),
    [
        (lambda connection: connection.lookupByName("absent"), NoSuchDomain),
        (lambda connection: connection.lookupByUUIDString("absent"), NoSuchDomain),
        (lambda connection: connection.lookupByID(77), NoSuchDomain),
        (lambda connection: connection.lookupByName("plain").launchSecurityInfo(), NotSupported),
        (lambda connection: connection.lookupByName("plain").resume(), WrongState),
        (lambda connection: connection.lookupByName("ledger").launchSecurityInfo(), WrongState),
    ],
)
def test_errors_are_what_libvirts_mean_to_us(
    libvirt: Libvirt, doing: Callable[[Any], object], error: type[Exception]
) -> None:
    with pytest.raises(libvirt.libvirtError) as caught:
        doing(libvirt.open(URI))
    found = caught.value
    translated = translate_error(
        "it", found.get_error_code(), found.get_error_message(), origin=found.get_error_domain()
    )
    assert isinstance(translated, error)
    assert found.get_error_code() in set(LibvirtCode)


def test_a_host_may_show_another_xml_than_it_launched(
    libvirt: Libvirt, hypervisor: SimulatedHypervisor
) -> None:
    domain = hypervisor.domain("ledger")
    domain.start()
    before = domain.launch_security_info()
    domain.show_xml(domain.xml().replace("0x1", "0x5"))
    found = libvirt.open(URI).lookupByName("ledger")
    security = parse_domain_xml(found.XMLDesc()).launch_security
    assert security is not None
    assert security.policy == 5
    assert domain.launch_security_info() == before
    measured = base64.b64decode(found.launchSecurityInfo()["sev-measurement"])
    assert hashlib.sha256(measured).digest() == hashlib.sha256(before.measurement).digest()
