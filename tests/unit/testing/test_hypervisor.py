"""The simulated libvirt: the contract of all hypervisors, and what is libvirt's own about it."""

from __future__ import annotations

import base64
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import pytest

from sevkit.abi.firmware_status import FirmwareStatus
from sevkit.abi.product import Product
from sevkit.abi.report import parse_report
from sevkit.abi.secret_packet import (
    SecretEntry,
    encode_secret_table,
    parse_secret_table,
    seal_packet,
)
from sevkit.abi.sevchain import parse_parts
from sevkit.errors import FormatError, HypervisorError
from sevkit.hypervisor.domain_capabilities import parse_domain_capabilities
from sevkit.hypervisor.protocol import DomainState, NoSuchDomain, NotSupported, WrongState
from sevkit.measure.kernel_hashes import compute_kernel_hashes
from sevkit.measure.launch_digest import (
    compute_sev_digest,
    compute_sev_es_digest,
    compute_snp_digest,
)
from sevkit.measure.launch_measurement import parse_launch_measurement
from sevkit.measure.terms import Era
from sevkit.measure.vcpu import Registers, signature_of, signature_of_model
from sevkit.secret import Secret
from sevkit.testing.contracts.hypervisor import (
    NoSevHypervisorContract,
    SevHypervisorContract,
    SevLaunch,
)
from sevkit.testing.firmware import FirmwareImage, encode_firmware
from sevkit.testing.hypervisor.capabilities import Software
from sevkit.testing.hypervisor.connection import SimulatedHypervisor
from sevkit.testing.secure_processor.core import AsidRange
from sevkit.testing.snp_guest import GuestChannel
from sevkit.testing.virtual_machine import SevMachine, SimulatedKvm, SnpMachine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sevkit.attest.sev_session import LaunchSession
    from sevkit.hypervisor.protocol import Hypervisor
    from sevkit.testing.hypervisor.domain import SimulatedDomain

LOADER: Final = "/usr/share/OVMF/OVMF.amdsev.fd"
FIRMWARE: Final = encode_firmware(FirmwareImage())
FILES: Final = {
    LOADER: FIRMWARE,
    "/no-area.fd": encode_firmware(FirmwareImage(secret_area=None)),
    "/no-hashes.fd": encode_firmware(FirmwareImage(hash_table=None)),
    "/cut.fd": FIRMWARE[:-1],
    "/vmlinuz": b"kernel",
    "/initrd": b"initrd",
}
GUID: Final = UUID("736869e5-84f0-4973-92ec-06879ce3da0b")
PLAIN: Final = (
    "<domain type='kvm'><name>plain</name><os><type arch='x86_64'>hvm</type></os></domain>"
)


def domain_xml(
    session: LaunchSession | None = None,
    *,
    kind: str = "sev",
    policy: int = 1,
    name: str = "ledger",
    loader: str | None = LOADER,
    boot: str = "",
    vcpus: str = "<vcpu>2</vcpu>",
    cpu: str = "<cpu mode='custom'><model>EPYC-Milan</model></cpu>",
    hashes: str = "",
    more: str = "",
) -> str:
    """Return a domain as an operator writes it."""
    if session is not None:
        policy = session.policy
        more += f"<dhCert>{session.godh_base64}</dhCert><session>{session.session_base64}</session>"
    return (
        f"<domain type='kvm'><name>{name}</name>{vcpus}<os>"
        + (f"<loader type='rom'>{loader}</loader>" if loader else "")
        + f"{boot}</os>{cpu}<launchSecurity type='{kind}'{hashes}>"
        + f"<policy>{policy:#x}</policy>{more}</launchSecurity></domain>"
    )


@pytest.fixture
def kvm(processor_of: Callable[..., Any]) -> SimulatedKvm:
    return SimulatedKvm(processor_of())


@pytest.fixture
def hypervisor(kvm: SimulatedKvm) -> Iterator[SimulatedHypervisor]:
    with SimulatedHypervisor(kvm, FILES) as found:
        yield found


@pytest.fixture
def seal_for(
    kvm: SimulatedKvm, seal: Callable[..., LaunchSession]
) -> Callable[[int], LaunchSession]:
    return partial(seal, kvm.processor)


class TestContract(SevHypervisorContract):
    @pytest.fixture
    def hypervisor(self, kvm: SimulatedKvm) -> Iterator[SimulatedHypervisor]:
        with SimulatedHypervisor(kvm, FILES) as found:
            yield found

    @pytest.fixture
    def plain_domain(self, hypervisor: SimulatedHypervisor) -> str:
        hypervisor.define(PLAIN).start(paused=False)
        return "plain"

    @pytest.fixture(params=[1, 5], ids=["sev", "sev-es"])
    def sev_launch(
        self,
        request: pytest.FixtureRequest,
        hypervisor: SimulatedHypervisor,
        seal_for: Callable[[int], LaunchSession],
    ) -> SevLaunch:
        session = seal_for(request.param)
        hypervisor.define(domain_xml(session)).start()
        registers = Registers(signature_of_model("EPYC-Milan"), 0, era=Era.INIT)
        digest = (
            compute_sev_digest(FIRMWARE)
            if session.policy == 1
            else compute_sev_es_digest(FIRMWARE, registers, 2)
        )
        return SevLaunch("ledger", session.keys, session.policy, digest)


class TestContractWithoutSev(NoSevHypervisorContract):
    @pytest.fixture
    def hypervisor(self) -> SimulatedHypervisor:
        return SimulatedHypervisor(None)

    @pytest.fixture
    def plain_domain(self, hypervisor: SimulatedHypervisor) -> str:
        hypervisor.define(PLAIN, persistent=False).start(paused=False)
        return "plain"


# What libvirt says of the host.


def test_the_numbers_are_libvirts_own_for_the_same_cpuid(
    processor_of: Callable[..., Any], corpus: Path
) -> None:
    printed = (corpus / "node/libvirt-11.3.0/qemu_10.0.0-q35.x86_64+amdsev.xml").read_bytes()
    theirs = parse_domain_capabilities(printed)
    kvm = SimulatedKvm(processor_of(Product.GENOA, asids=AsidRange(509, 451)))
    ours = parse_domain_capabilities(SimulatedHypervisor(kvm).domain_capabilities())
    assert theirs.sev is not None
    assert ours.sev is not None
    for name in ("supported", "cbitpos", "reduced_phys_bits", "max_guests", "max_es_guests"):
        assert getattr(ours.sev, name) == getattr(theirs.sev, name)
    assert ours.launch_security == theirs.launch_security
    assert ours.host_model is not None
    assert theirs.host_model is not None
    assert ours.host_model.model == theirs.host_model.model


@pytest.mark.parametrize(
    ("asids", "guests"),
    [(AsidRange(509, 100), (410, 99)), (AsidRange(15, 1), (15, 0)), (AsidRange(8, 9), (0, 8))],
)
def test_guests_are_counted_from_cpuid_alone(
    processor_of: Callable[..., Any], asids: AsidRange, guests: tuple[int, int]
) -> None:
    node = SimulatedHypervisor(SimulatedKvm(processor_of(asids=asids))).node_sev_info()
    assert (node.max_guests, node.max_es_guests) == guests


@pytest.mark.parametrize(
    ("libvirt", "counts", "chip", "security"),
    [
        ((11, 3), True, True, ("sev", "sev-snp")),
        ((10, 5), True, True, ("sev", "sev-snp")),
        ((10, 4), True, True, None),
        ((8, 0), True, False, None),
        ((7, 10), False, False, None),
    ],
)
def test_an_older_libvirt_leaves_out_what_it_did_not_know(
    kvm: SimulatedKvm,
    libvirt: tuple[int, int],
    counts: bool,
    chip: bool,
    security: tuple[str, ...] | None,
) -> None:
    hypervisor: Hypervisor = SimulatedHypervisor(kvm, software=Software(libvirt))
    found = parse_domain_capabilities(hypervisor.domain_capabilities())
    assert found.sev is not None
    assert (found.sev.max_guests is not None) is counts
    assert (found.sev.cpu0_id is not None) is chip
    assert found.launch_security == security


def test_snp_is_offered_where_only_qemu_has_it_and_fails_when_it_starts(
    processor_of: Callable[..., Any],
) -> None:
    hypervisor = SimulatedHypervisor(SimulatedKvm(processor_of(), snp=False), FILES)
    found = parse_domain_capabilities(hypervisor.domain_capabilities())
    assert found.launch_security == ("sev", "sev-snp")
    domain = hypervisor.define(domain_xml(kind="sev-snp", policy=0x30000))
    with pytest.raises(HypervisorError, match="SEV-SNP not supported by KVM"):
        domain.start()
    assert domain.state() is DomainState.SHUT_OFF


def test_a_qemu_without_snp_offers_none(kvm: SimulatedKvm) -> None:
    hypervisor = SimulatedHypervisor(kvm, software=Software(qemu_snp=False))
    found = parse_domain_capabilities(hypervisor.domain_capabilities())
    assert found.launch_security == ("sev",)
    with pytest.raises(NotSupported, match="SEV SNP launch security is not supported"):
        hypervisor.define(domain_xml(kind="sev-snp"))


def test_a_processor_that_does_not_answer_is_no_sev_at_all(kvm: SimulatedKvm) -> None:
    kvm.processor.faults.fail("GET_ID", FirmwareStatus.HWERROR_PLATFORM)
    hypervisor = SimulatedHypervisor(kvm)
    found = parse_domain_capabilities(hypervisor.domain_capabilities())
    assert found.sev is not None
    assert not found.sev.supported
    assert found.launch_security == ()
    with pytest.raises(NotSupported, match="QEMU does not support SEV guest"):
        hypervisor.node_sev_info()


def test_a_new_pdh_is_not_seen_before_the_cache_is_renewed(
    kvm: SimulatedKvm, hypervisor: SimulatedHypervisor
) -> None:
    before = hypervisor.node_sev_info().pdh
    kvm.processor.sev.pdh_gen()
    assert hypervisor.node_sev_info().pdh == before
    hypervisor.renew_cache()
    assert hypervisor.node_sev_info().pdh == kvm.processor.sev.pdh_cert_export()[0] != before


def test_the_chain_is_the_processors_own(
    kvm: SimulatedKvm, hypervisor: SimulatedHypervisor
) -> None:
    node = hypervisor.node_sev_info()
    assert parse_parts(node.pdh, node.cert_chain).cek.data == kvm.processor.identity.cek
    assert node.cpu0_id == kvm.processor.identity.chip_id


# What a domain's XML makes of the launch.


def snp_digest(kvm: SimulatedKvm, domain: SimulatedDomain) -> bytes:
    assert isinstance(domain.guest, SnpMachine)
    return kvm.processor.snp_guests[domain.guest.context].digest


@pytest.mark.parametrize(
    ("cpu", "signature"),
    [
        ("<cpu mode='custom'><model>EPYC-Rome</model></cpu>", signature_of_model("EPYC-Rome")),
        ("<cpu mode='host-model'/>", signature_of_model("EPYC-Milan")),
        ("<cpu mode='host-passthrough'/>", signature_of(0x19, 0x01, 0x01)),
    ],
)
def test_the_cpu_of_the_xml_is_measured(
    kvm: SimulatedKvm, hypervisor: SimulatedHypervisor, cpu: str, signature: int
) -> None:
    domain = hypervisor.define(domain_xml(kind="sev-snp", policy=0x30000, cpu=cpu))
    domain.start(paused=False)
    expected = compute_snp_digest(FIRMWARE, Registers(signature, 1), 2)
    assert snp_digest(kvm, domain) == expected


def test_vcpus_that_are_plugged_in_later_are_not_measured(
    kvm: SimulatedKvm, hypervisor: SimulatedHypervisor
) -> None:
    vcpus = (
        "<vcpu current='2'>4</vcpu><vcpus><vcpu id='0' enabled='yes' hotpluggable='no'/>"
        "<vcpu id='1' enabled='yes' hotpluggable='yes'/><vcpu id='2' enabled='no'/></vcpus>"
    )
    domain = hypervisor.define(domain_xml(kind="sev-snp", policy=0x30000, vcpus=vcpus))
    domain.start(paused=False)
    registers = Registers(signature_of_model("EPYC-Milan"), 1)
    assert snp_digest(kvm, domain) == compute_snp_digest(FIRMWARE, registers, 1)


def test_a_boot_vcpu_is_needed(hypervisor: SimulatedHypervisor) -> None:
    vcpus = "<vcpu>1</vcpu><vcpus><vcpu id='0' enabled='yes' hotpluggable='yes'/></vcpus>"
    with pytest.raises(NotSupported, match="vcpu0"):
        hypervisor.define(domain_xml(vcpus=vcpus))


KERNEL: Final = "<kernel>/vmlinuz</kernel><initrd>/initrd</initrd><cmdline>quiet</cmdline>"


@pytest.mark.parametrize(("flag", "measured"), [("yes", True), ("no", False), (None, False)])
def test_a_kernel_is_measured_if_the_xml_says_so(
    kvm: SimulatedKvm, hypervisor: SimulatedHypervisor, flag: str | None, measured: bool
) -> None:
    said = f" kernelHashes='{flag}'" if flag else ""
    xml = domain_xml(kind="sev-snp", policy=0x30000, boot=KERNEL, hashes=said)
    domain = hypervisor.define(xml)
    domain.start(paused=False)
    hashes = compute_kernel_hashes(b"kernel", initrd=b"initrd", cmdline="quiet")
    registers = Registers(signature_of_model("EPYC-Milan"), 1)
    expected = compute_snp_digest(FIRMWARE, registers, 2, hashes if measured else None)
    assert snp_digest(kvm, domain) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loader": "/absent.fd"}, "No such file or directory"),
        ({"loader": None}, "Unable to find 'efi' firmware"),
        ({"loader": "/cut.fd"}, "expected a multiple of 4096"),
        (
            {"loader": "/no-hashes.fd", "boot": KERNEL, "hashes": " kernelHashes='yes'"},
            "no hashes table GUID",
        ),
        (
            {"boot": "<kernel>/absent</kernel>", "hashes": " kernelHashes='yes'"},
            "Failed to open file '/absent'",
        ),
        ({"policy": 5, "cpu": ""}, "qemu64"),
        ({"policy": 5, "cpu": "<cpu><model>Nehalem</model></cpu>"}, "Nehalem"),
    ],
)
def test_a_domain_that_cannot_be_put_together_is_not_started(
    kvm: SimulatedKvm, hypervisor: SimulatedHypervisor, options: dict[str, Any], message: str
) -> None:
    domain = hypervisor.define(domain_xml(**options))
    with pytest.raises(HypervisorError, match=message):
        domain.start()
    assert domain.state() is DomainState.SHUT_OFF
    assert kvm.asids.current == {"sev": 0, "sev_es": 0}


def test_files_can_be_a_folder_and_nothing_outside_it(kvm: SimulatedKvm, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "ovmf.fd").write_bytes(FIRMWARE)
    (tmp_path / "outside.fd").write_bytes(FIRMWARE)
    with SimulatedHypervisor(kvm, root) as hypervisor:
        hypervisor.define(domain_xml(loader="/ovmf.fd")).start()
        for name, path in (("outside", "/../outside.fd"), ("folder", "/"), ("absent", "/no.fd")):
            other = hypervisor.define(domain_xml(name=name, loader=path))
            with pytest.raises(HypervisorError, match=f"'{path}': No such file"):
                other.start()


def test_a_session_for_another_policy_is_refused_by_the_firmware(
    kvm: SimulatedKvm, hypervisor: SimulatedHypervisor, seal_for: Callable[[int], LaunchSession]
) -> None:
    xml = domain_xml(seal_for(5)).replace("<policy>0x5<", "<policy>0x1<")
    domain = hypervisor.define(xml)
    with pytest.raises(HypervisorError, match="LAUNCH_START ret=1 fw_error=11 'BAD_MEASUREMENT'"):
        domain.start()
    assert domain.state() is DomainState.SHUT_OFF
    assert kvm.asids.current == {"sev": 0, "sev_es": 0}


def test_a_processor_that_dies_at_the_launch_ends_it(
    kvm: SimulatedKvm, hypervisor: SimulatedHypervisor
) -> None:
    domain = hypervisor.define(domain_xml())
    kvm.processor.faults.hang("LAUNCH_START")
    with pytest.raises(HypervisorError, match="did not answer"):
        domain.start()
    assert domain.state() is DomainState.SHUT_OFF


def test_a_host_without_a_free_asid_starts_no_more(
    processor_of: Callable[..., Any],
) -> None:
    hypervisor = SimulatedHypervisor(SimulatedKvm(processor_of(asids=AsidRange(2, 2))), FILES)
    hypervisor.define(domain_xml(name="one")).start()
    two = hypervisor.define(domain_xml(name="two"))
    with pytest.raises(HypervisorError, match="failed to initialize ret=-16"):
        two.start()
    hypervisor.domain("one").destroy()
    two.start()
    assert two.state() is DomainState.PAUSED


# What libvirt lets be done with a domain, and when.


@pytest.fixture
def ledger(
    hypervisor: SimulatedHypervisor, seal_for: Callable[[int], LaunchSession]
) -> tuple[SimulatedDomain, LaunchSession]:
    session = seal_for(1)
    return hypervisor.define(domain_xml(session)), session


def inject(domain: SimulatedDomain, session: LaunchSession, *, address: int | None = None) -> None:
    measure = parse_launch_measurement(domain.launch_security_info().measurement).measure
    table = encode_secret_table([SecretEntry(GUID, Secret(b"disk key"))])
    packet = seal_packet(session.keys, table, measure=measure, iv=bytes(16))
    domain.inject_launch_secret(packet.header, packet.ciphertext, address=address)


@pytest.mark.parametrize(("address", "expected"), [(None, 0x81_0000), (0x9000, 0x9000)])
def test_a_secret_arrives_where_the_firmware_or_the_caller_says(
    kvm: SimulatedKvm,
    ledger: tuple[SimulatedDomain, LaunchSession],
    address: int | None,
    expected: int,
) -> None:
    domain, session = ledger
    domain.start()
    inject(domain, session, address=address)
    assert isinstance(domain.guest, SevMachine)
    ((where, table),) = kvm.processor.sev_guests[domain.guest.handle].injected
    assert where == expected
    (entry,) = parse_secret_table(table)
    assert (entry.guid, entry.data.reveal()) == (GUID, b"disk key")


def test_a_firmware_without_a_secret_area_needs_an_address(
    hypervisor: SimulatedHypervisor, seal_for: Callable[[int], LaunchSession]
) -> None:
    session = seal_for(1)
    domain = hypervisor.define(domain_xml(session, loader="/no-area.fd"))
    domain.start()
    with pytest.raises(HypervisorError, match="no secret area found in OVMF"):
        inject(domain, session)
    inject(domain, session, address=0x9000)


def test_a_domain_that_was_not_started_has_nothing_to_measure(
    ledger: tuple[SimulatedDomain, LaunchSession],
) -> None:
    domain, _ = ledger
    for call in (
        domain.launch_security_info,
        lambda: domain.inject_launch_secret(bytes(52), bytes(16)),
        domain.resume,
        domain.pause,
        domain.destroy,
    ):
        with pytest.raises(WrongState, match="domain is not running"):
            call()


def test_an_snp_domain_is_launched_when_it_runs_and_measured_by_its_report_alone(
    kvm: SimulatedKvm, hypervisor: SimulatedHypervisor
) -> None:
    more = f"<hostData>{'QUJD' * 10}QUI=</hostData>"
    domain = hypervisor.define(domain_xml(kind="sev-snp", policy=0x30000, more=more))
    domain.start()
    assert (domain.state(), domain.guest) == (DomainState.PAUSED, None)
    with pytest.raises(HypervisorError, match="SEV launch measurement is not available"):
        domain.launch_security_info()
    with pytest.raises(NotSupported, match="only supported in SEV-enabled domains"):
        domain.inject_launch_secret(bytes(52), bytes(16))
    domain.resume()
    assert isinstance(domain.guest, SnpMachine)
    report = parse_report(GuestChannel(kvm, domain.guest).get_report(bytes(64)))
    registers = Registers(signature_of_model("EPYC-Milan"), 1)
    assert report.measurement == compute_snp_digest(FIRMWARE, registers, 2)
    assert report.host_data == b"ABC" * 10 + b"AB"


@pytest.mark.parametrize("size", [96, 3])
def test_an_id_block_that_does_not_fit_ends_the_launch(
    hypervisor: SimulatedHypervisor, size: int
) -> None:
    block = base64.b64encode(bytes(size)).decode()
    auth = base64.b64encode(bytes(4096)).decode()
    more = f"<idBlock>{block}</idBlock><idAuth>{auth}</idAuth>"
    domain = hypervisor.define(domain_xml(kind="sev-snp", policy=0x30000, more=more))
    domain.start()
    with pytest.raises(HypervisorError, match="sev_snp_launch_finish"):
        domain.resume()
    assert domain.state() is DomainState.SHUT_OFF


def test_a_launch_that_the_firmware_does_not_finish_ends_the_domain(
    kvm: SimulatedKvm, ledger: tuple[SimulatedDomain, LaunchSession]
) -> None:
    domain, _ = ledger
    domain.start()
    kvm.processor.faults.fail("LAUNCH_FINISH", FirmwareStatus.HWERROR_UNSAFE, times=1)
    with pytest.raises(HypervisorError, match="HWERROR_UNSAFE"):
        domain.resume()
    assert domain.state() is DomainState.SHUT_OFF
    assert kvm.asids.current == {"sev": 0, "sev_es": 0}
    domain.start(paused=False)
    assert domain.state() is DomainState.RUNNING


def test_a_domain_that_libvirt_keeps_can_be_started_again_and_is_measured_anew(
    ledger: tuple[SimulatedDomain, LaunchSession],
) -> None:
    domain, _ = ledger
    domain.start()
    before = domain.launch_security_info().measurement
    with pytest.raises(WrongState, match="already running"):
        domain.start()
    domain.destroy()
    assert domain.state() is DomainState.SHUT_OFF
    domain.start()
    assert domain.launch_security_info().measurement != before


def test_a_domain_that_libvirt_does_not_keep_is_gone_when_it_ends(
    hypervisor: SimulatedHypervisor,
) -> None:
    domain = hypervisor.define(domain_xml(), persistent=False)
    domain.start()
    domain.destroy()
    for call in (domain.state, domain.xml, domain.start, lambda: hypervisor.domain("ledger")):
        with pytest.raises(NoSuchDomain, match="no domain with matching name 'ledger'"):
            call()


def test_a_name_is_taken_once(hypervisor: SimulatedHypervisor) -> None:
    hypervisor.define(domain_xml())
    with pytest.raises(HypervisorError, match="already exists"):
        hypervisor.define(domain_xml())


@pytest.mark.parametrize("kind", ["sev", "sev-snp", "tdx"])
def test_a_host_without_sev_defines_no_confidential_domain(kind: str) -> None:
    with pytest.raises(NotSupported, match="launch security is not supported"):
        SimulatedHypervisor(None).define(domain_xml(kind=kind))


def test_xml_that_is_none_is_refused(hypervisor: SimulatedHypervisor) -> None:
    with pytest.raises(FormatError):
        hypervisor.define("<domain>")


def test_closing_ends_every_domain_and_frees_its_asid(
    kvm: SimulatedKvm, hypervisor: SimulatedHypervisor
) -> None:
    running = hypervisor.define(domain_xml(name="one"))
    running.start(paused=False)
    hypervisor.define(domain_xml(name="two"))
    assert kvm.asids.current == {"sev": 1, "sev_es": 0}
    hypervisor.close()
    assert kvm.asids.current == {"sev": 0, "sev_es": 0}
    assert running.state() is DomainState.SHUT_OFF
