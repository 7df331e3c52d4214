from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from sevkit.abi.firmware_status import CommandError, FirmwareStatus
from sevkit.abi.idblock import IdBlock, encode_id_auth, encode_id_block
from sevkit.abi.platform_status import PlatformState, StatusFlags
from sevkit.abi.policy import SNP_POLICY_DEFAULT
from sevkit.abi.product import Product
from sevkit.abi.report import FirmwareVersion
from sevkit.abi.secret_packet import (
    DISK_GUID,
    SecretEntry,
    encode_secret_table,
    seal_packet,
)
from sevkit.attest.idblock import sign_id_block
from sevkit.errors import FormatError, UsageError
from sevkit.measure.kernel_hashes import compute_kernel_hashes
from sevkit.measure.launch_digest import (
    compute_sev_digest,
    compute_sev_es_digest,
    compute_snp_digest,
)
from sevkit.measure.launch_measurement import compute_launch_measurement
from sevkit.measure.ovmf import Area, Section, SectionType
from sevkit.measure.terms import Era
from sevkit.measure.vcpu import Registers, signature_of_model
from sevkit.secret import Secret
from sevkit.testing.firmware import AMDSEV_SECTIONS, FirmwareImage, encode_firmware
from sevkit.testing.secure_processor.core import AsidRange, Firmware
from sevkit.testing.secure_processor.sev_guests import GuestState
from sevkit.testing.secure_processor.snp_guests import PageType, SnpGuestState
from sevkit.testing.virtual_machine import (
    IdentityBlocks,
    Machine,
    SimulatedKvm,
    snp_pages,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sevkit.attest.sev_session import LaunchSession
    from sevkit.measure.kernel_hashes import KernelHashes
    from sevkit.testing.secure_processor.processor import SecureProcessor

    ProcessorOf = Callable[..., SecureProcessor]
    Seal = Callable[..., LaunchSession]

S: Final = FirmwareStatus
IMAGE: Final = encode_firmware(FirmwareImage())
HASHES: Final = compute_kernel_hashes(b"kernel", initrd=b"initrd", cmdline="console=ttyS0")
MILAN: Final = signature_of_model("EPYC-Milan")
SNP_CPU: Final = Registers(MILAN, 1)
ES_CPU: Final = Registers(MILAN, 0, era=Era.INIT)
SEV, ES = 0x1, 0x5
TABLE: Final = encode_secret_table([SecretEntry(DISK_GUID, Secret(b"hunter2"))])


@pytest.fixture
def kvm(milan: SecureProcessor) -> SimulatedKvm:
    return SimulatedKvm(milan)


@pytest.fixture(scope="module")
def amdsev(ovmf_amdsev: Path) -> bytes:
    return ovmf_amdsev.read_bytes()


def measure_of(session: LaunchSession, digest: bytes, mnonce: bytes) -> bytes:
    return compute_launch_measurement(
        session.keys.tik,
        api_major=1,
        api_minor=55,
        build_id=40,
        policy=session.policy,
        digest=digest,
        mnonce=mnonce,
    )


def test_a_host_is_initialised_with_everything_that_it_has(kvm: SimulatedKvm) -> None:
    processor = kvm.processor
    assert processor.core.snp_initialized
    assert processor.sev.status().state is PlatformState.INIT
    assert processor.sev.status().flags & StatusFlags.CONFIG_ES
    assert processor.core.asids_clean
    SimulatedKvm(processor)  # kvm_amd may be loaded again


@pytest.mark.parametrize(
    ("product", "lowest", "snp", "es"),
    [
        (Product.MILAN, 5, False, True),
        (Product.MILAN, 1, True, False),
        (Product.ROME, 5, False, True),
        (Product.NAPLES, 1, False, False),
    ],
)
def test_a_host_is_initialised_with_no_more_than_it_has(
    processor_of: ProcessorOf, product: Product, lowest: int, snp: bool, es: bool
) -> None:
    processor = processor_of(product, asids=AsidRange(8, lowest))
    SimulatedKvm(processor, snp=snp)
    assert processor.core.snp_initialized is snp
    assert bool(processor.sev.status().flags & StatusFlags.CONFIG_ES) is es


@pytest.mark.parametrize(("minor", "snp"), [(50, False), (51, True)])
def test_linux_initialises_snp_with_firmware_from_1_51_on(
    processor_of: ProcessorOf, minor: int, snp: bool
) -> None:
    kvm = SimulatedKvm(processor_of(firmware=Firmware(FirmwareVersion(1, minor, 0))))
    assert kvm.processor.core.snp_initialized is snp
    kvm.launch_sev(Machine(IMAGE, 1, ES_CPU), ES).close()


@pytest.mark.parametrize("hashes", [None, HASHES], ids=["no kernel", "kernel"])
@pytest.mark.parametrize("vcpus", [1, 2, 3, 4])
@pytest.mark.parametrize("image", ["debian", "made"])
def test_an_snp_launch_has_the_digest_that_we_compute(
    kvm: SimulatedKvm, amdsev: bytes, image: str, vcpus: int, hashes: KernelHashes | None
) -> None:
    firmware = amdsev if image == "debian" else IMAGE
    with kvm.launch_snp(Machine(firmware, vcpus, SNP_CPU, hashes)) as guest:
        found = kvm.processor.snp_guests[guest.context]
        assert found.digest == compute_snp_digest(firmware, SNP_CPU, vcpus, hashes)
        assert found.state is SnpGuestState.RUNNING


@pytest.mark.parametrize("hashes", [None, HASHES], ids=["no kernel", "kernel"])
@pytest.mark.parametrize("image", ["debian", "made"])
def test_a_sev_launch_has_the_measurement_that_its_owner_computes(
    kvm: SimulatedKvm, seal: Seal, amdsev: bytes, image: str, hashes: KernelHashes | None
) -> None:
    firmware = amdsev if image == "debian" else IMAGE
    session = seal(kvm.processor, SEV)
    with kvm.launch_sev(
        Machine(firmware, hashes=hashes), SEV, session=session.blob.encode(), godh=session.godh
    ) as guest:
        measure, mnonce = guest.measurement[:32], guest.measurement[32:]
        assert measure == measure_of(session, compute_sev_digest(firmware, hashes), mnonce)


@pytest.mark.parametrize("hashes", [None, HASHES], ids=["no kernel", "kernel"])
@pytest.mark.parametrize("vcpus", [1, 2, 3, 4])
@pytest.mark.parametrize("era", list(Era))
def test_a_sev_es_launch_of_both_eras_has_the_measurement_that_its_owner_computes(
    kvm: SimulatedKvm, seal: Seal, era: Era, vcpus: int, hashes: KernelHashes | None
) -> None:
    registers = replace(ES_CPU, era=era)
    session = seal(kvm.processor, ES)
    machine = Machine(IMAGE, vcpus, registers, hashes)
    with kvm.launch_sev(machine, ES, session=session.blob.encode(), godh=session.godh) as guest:
        digest = compute_sev_es_digest(IMAGE, registers, vcpus, hashes)
        measure, mnonce = guest.measurement[:32], guest.measurement[32:]
        assert measure == measure_of(session, digest, mnonce)
        assert kvm.processor.sev_guests[guest.handle].vmsas == vcpus


def test_the_eras_are_told_apart(kvm: SimulatedKvm) -> None:
    digests = set()
    for era in Era:
        with kvm.launch_sev(Machine(IMAGE, 1, replace(ES_CPU, era=era)), ES) as guest:
            digests.add(kvm.processor.sev_guests[guest.handle].digest.digest())
    assert len(digests) == 2


def test_plain_sev_measures_no_vcpus(kvm: SimulatedKvm) -> None:
    with kvm.launch_sev(Machine(IMAGE, 4), SEV) as guest:
        digest = kvm.processor.sev_guests[guest.handle].digest.digest()
    assert digest == hashlib.sha256(IMAGE).digest()


def test_the_secret_that_an_owner_sent_is_in_the_guest_when_it_runs(
    kvm: SimulatedKvm, seal: Seal
) -> None:
    session = seal(kvm.processor, SEV)
    with kvm.launch_sev(
        Machine(IMAGE), SEV, session=session.blob.encode(), godh=session.godh
    ) as guest:
        packet = seal_packet(session.keys, TABLE, measure=guest.measurement[:32], iv=os.urandom(16))
        guest.inject(packet.header, packet.ciphertext, guest_address=0x81_0000)
        guest.run()
        context = kvm.processor.sev_guests[guest.handle]
        assert context.injected == [(0x81_0000, TABLE)]
        assert context.state is GuestState.RUNNING
        with pytest.raises(CommandError, match="INVALID_GUEST_STATE"):
            guest.inject(packet.header, packet.ciphertext, guest_address=0x81_0000)


def test_a_guest_that_asks_for_encrypted_state_needs_registers(kvm: SimulatedKvm) -> None:
    for launch in (
        partial(kvm.launch_sev, Machine(IMAGE), ES),
        partial(kvm.launch_snp, Machine(IMAGE)),
    ):
        with pytest.raises(UsageError, match="registers"):
            launch()
    assert kvm.asids.current == {"sev": 0, "sev_es": 0}


@pytest.mark.parametrize("vcpus", [0, -1, 513])
def test_a_number_of_vcpus_that_no_guest_has_is_refused(kvm: SimulatedKvm, vcpus: int) -> None:
    with pytest.raises(UsageError, match="vCPUs"):
        kvm.launch_snp(Machine(IMAGE, vcpus, SNP_CPU))


NO_SECTIONS: Final = encode_firmware(FirmwareImage(sections=None))
NO_HASH_TABLE: Final = encode_firmware(FirmwareImage(hash_table=None))
SMALL_TABLE: Final = encode_firmware(FirmwareImage(hash_table=Area(0x81_0C00, 100)))
NO_HASH_PAGE: Final = encode_firmware(
    FirmwareImage(
        sections=tuple(s for s in AMDSEV_SECTIONS if s.kind is not SectionType.SNP_KERNEL_HASHES)
    )
)
NO_RESET: Final = encode_firmware(FirmwareImage(reset_eip=None))


@pytest.mark.parametrize(
    ("firmware", "vcpus", "hashes", "reason"),
    [
        (NO_SECTIONS, 1, None, "no SEV metadata"),
        (NO_HASH_TABLE, 1, HASHES, "no place for kernel hashes"),
        (SMALL_TABLE, 1, HASHES, "no place for kernel hashes"),
        (NO_HASH_PAGE, 1, HASHES, "no page for kernel hashes"),
        (NO_RESET, 2, None, "further vCPUs"),
    ],
)
def test_a_firmware_that_the_guest_cannot_be_launched_with_is_refused_as_we_do(
    kvm: SimulatedKvm, firmware: bytes, vcpus: int, hashes: KernelHashes | None, reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        kvm.launch_snp(Machine(firmware, vcpus, SNP_CPU, hashes))
    with pytest.raises(FormatError):  # what we would measure it as
        compute_snp_digest(firmware, SNP_CPU, vcpus, hashes)
    assert kvm.asids.current == {"sev": 0, "sev_es": 0}
    assert kvm.processor.snp_guests.contexts == ()


@pytest.mark.parametrize("policy", [SEV, ES])
def test_a_sev_firmware_without_a_hash_table_takes_no_kernel(
    kvm: SimulatedKvm, policy: int
) -> None:
    with pytest.raises(UsageError, match="no place for kernel hashes"):
        kvm.launch_sev(Machine(NO_HASH_TABLE, 1, ES_CPU, HASHES), policy)
    assert kvm.processor.sev_guests.handles == ()
    # without a kernel it is as good as any
    kvm.launch_sev(Machine(NO_HASH_TABLE, 1, ES_CPU), policy).close()


def test_a_hash_table_may_fit_exactly(kvm: SimulatedKvm) -> None:
    image = encode_firmware(FirmwareImage(hash_table=Area(0x81_0C00, 176)))
    with kvm.launch_snp(Machine(image, 1, SNP_CPU, HASHES)) as guest:
        digest = kvm.processor.snp_guests[guest.context].digest
    assert digest == compute_snp_digest(image, SNP_CPU, 1, HASHES)


def test_pages_are_launched_in_qemus_order() -> None:
    firmware = encode_firmware(
        FirmwareImage(
            size=8192,
            sections=(
                Section(0x80_E000, 4096, SectionType.CPUID),
                Section(0x80_0000, 8192, SectionType.SNP_SEC_MEM),
                Section(0x80_D000, 4096, SectionType.SNP_SECRETS),
                Section(0x80_F000, 4096, SectionType.SVSM_CAA),
                Section(0x81_0000, 4096, SectionType.SNP_KERNEL_HASHES),
            ),
        )
    )
    end = [
        (PageType.CPUID, 0x80_E000),
        (PageType.ZERO, 0x80_0000),
        (PageType.ZERO, 0x80_1000),
        (PageType.SECRETS, 0x80_D000),
        (PageType.ZERO, 0x80_F000),
    ]
    start = [(PageType.NORMAL, 0xFFFF_E000), (PageType.NORMAL, 0xFFFF_F000)]
    for hashes, last in ((None, PageType.ZERO), (HASHES, PageType.NORMAL)):
        pages = list(snp_pages(Machine(firmware, 1, SNP_CPU, hashes)))
        assert [(kind, gpa) for kind, gpa, _ in pages] == [*start, *end, (last, 0x81_0000)]
        assert b"".join(contents for _, _, contents in pages[:2]) == firmware


def test_an_identity_is_checked_at_the_end_of_a_launch(kvm: SimulatedKvm) -> None:
    machine = Machine(IMAGE, 1, SNP_CPU)
    key = ec.generate_private_key(ec.SECP384R1())

    def blocks(digest: bytes) -> IdentityBlocks:
        block = IdBlock(digest, guest_svn=3)
        return IdentityBlocks(
            encode_id_block(block), encode_id_auth(sign_id_block(block, key, None))
        )

    right = blocks(compute_snp_digest(IMAGE, SNP_CPU, 1))
    with kvm.launch_snp(machine, identity=right, host_data=b"H" * 32) as guest:
        found = kvm.processor.snp_guests[guest.context]
        assert (found.identity.guest_svn, found.host_data) == (3, b"H" * 32)
    with pytest.raises(CommandError, match="BAD_MEASUREMENT"):
        kvm.launch_snp(machine, identity=blocks(bytes(48)))
    assert kvm.asids.current == {"sev": 0, "sev_es": 0}


@pytest.mark.parametrize(
    ("policy", "taken"),
    [
        (SNP_POLICY_DEFAULT, True),
        (0x1B0000, True),  # DEBUG and SINGLE_SOCKET
        (0x30137, True),
        (0x10000, False),  # bit 17
        (0x70000, False),  # MIGRATE_MA
        (0x230000, False),  # newer bits, which the firmware may know
        (0x2030000, False),
        (1 << 63 | 0x30000, False),
    ],
)
def test_kvm_lets_some_policies_through_only(kvm: SimulatedKvm, policy: int, taken: bool) -> None:
    machine = Machine(IMAGE, 1, SNP_CPU)
    if taken:
        kvm.launch_snp(machine, policy).close()
        return
    kvm.processor.core.log.clear()
    with pytest.raises(OSError, match="KVM refuses") as caught:
        kvm.launch_snp(machine, policy)
    assert caught.value.errno == errno.EINVAL
    assert not kvm.processor.core.log


def test_a_vcek_may_be_left_out_of_a_guests_reports(kvm: SimulatedKvm) -> None:
    machine = Machine(IMAGE, 1, SNP_CPU)
    with kvm.launch_snp(machine, vcek_disabled=True) as one, kvm.launch_snp(machine) as other:
        guests = kvm.processor.snp_guests
        assert [guests[guest.context].vcek_disabled for guest in (one, other)] == [True, False]


def test_guests_take_asids_until_there_are_none(kvm: SimulatedKvm) -> None:
    machine = Machine(IMAGE, 1, SNP_CPU)
    sev = [kvm.launch_sev(machine, SEV) for _ in range(4)]
    es = [kvm.launch_sev(machine, ES) for _ in range(2)]
    snp = [kvm.launch_snp(machine) for _ in range(2)]
    assert [guest.asid for guest in sev] == [5, 6, 7, 8]
    assert [guest.asid for guest in es] + [guest.asid for guest in snp] == [1, 2, 3, 4]
    for launch in (
        partial(kvm.launch_sev, machine, SEV),
        partial(kvm.launch_sev, machine, ES),
        partial(kvm.launch_snp, machine),
    ):
        with pytest.raises(OSError, match="are taken") as caught:
            launch()
        assert caught.value.errno == errno.EBUSY
    assert kvm.asids.current == {"sev": 4, "sev_es": 4}
    for guest in (*sev, *es, *snp):
        guest.close()
    assert kvm.asids.current == {"sev": 0, "sev_es": 0}
    assert not kvm.processor.core.owned_asids
    assert kvm.processor.sev.state is PlatformState.INIT
    assert kvm.processor.snp.status().guest_count == 0


def test_an_asid_is_used_again_after_a_guest_that_ran(kvm: SimulatedKvm) -> None:
    machine = Machine(IMAGE, 1, SNP_CPU)
    for _ in range(3):
        with kvm.launch_sev(machine, ES) as guest:
            assert guest.asid == 1
            guest.run()
        with kvm.launch_snp(machine) as other:
            assert other.asid == 1
    assert kvm.asids.peak == {"sev": 0, "sev_es": 1}


@pytest.mark.parametrize("hidden", [0, 1, 4])
def test_ciphertext_hiding_leaves_sev_es_the_rest(processor_of: ProcessorOf, hidden: int) -> None:
    kvm = SimulatedKvm(processor_of(), ciphertext_hiding=hidden)
    machine = Machine(IMAGE, 1, SNP_CPU)
    assert kvm.launch_snp(machine).asid == 1
    if hidden == 4:
        with pytest.raises(OSError, match="no ASIDs") as caught:
            kvm.launch_sev(machine, ES)
        assert caught.value.errno == errno.ENOTTY
    else:
        assert kvm.launch_sev(machine, ES).asid == 2


@pytest.mark.parametrize(
    "command",
    [
        "LAUNCH_START",
        "DF_FLUSH",
        "ACTIVATE",
        "LAUNCH_UPDATE_DATA",
        "LAUNCH_UPDATE_VMSA",
        "LAUNCH_MEASURE",
    ],
)
def test_a_sev_launch_that_fails_leaves_nothing_behind(kvm: SimulatedKvm, command: str) -> None:
    kvm.processor.faults.fail(command, S.HWERROR_PLATFORM, times=1)
    machine = Machine(IMAGE, 1, ES_CPU)
    with pytest.raises(CommandError, match=f"{command} returned 0x13"):
        kvm.launch_sev(machine, ES)
    assert kvm.asids.current == {"sev": 0, "sev_es": 0}
    assert kvm.processor.sev_guests.handles == ()
    assert not kvm.processor.core.owned_asids
    assert kvm.processor.sev.state is PlatformState.INIT
    kvm.launch_sev(machine, ES).close()


@pytest.mark.parametrize(
    "command",
    [
        "SNP_GCTX_CREATE",
        "SNP_LAUNCH_START",
        "DF_FLUSH",
        "SNP_ACTIVATE",
        "SNP_LAUNCH_UPDATE",
        "SNP_LAUNCH_FINISH",
    ],
)
def test_an_snp_launch_that_fails_leaves_nothing_behind(kvm: SimulatedKvm, command: str) -> None:
    kvm.processor.faults.fail(command, S.HWERROR_PLATFORM, times=1)
    machine = Machine(IMAGE, 1, SNP_CPU)
    with pytest.raises(CommandError, match=f"{command} returned 0x13"):
        kvm.launch_snp(machine)
    assert kvm.asids.current == {"sev": 0, "sev_es": 0}
    assert kvm.processor.snp_guests.contexts == ()
    assert not kvm.processor.core.owned_asids
    kvm.launch_snp(machine).close()


def test_the_firmwares_refusal_of_sev_es_reaches_the_caller(processor_of: ProcessorOf) -> None:
    firmware = Firmware().for_line(Product.MILAN.line)
    assert firmware.tcb is not None
    patched = replace(firmware, tcb=replace(firmware.tcb, snp=0x1B))
    machine = Machine(IMAGE, 1, ES_CPU)
    kvm = SimulatedKvm(processor_of(firmware=patched))
    with pytest.raises(CommandError) as caught:
        kvm.launch_sev(machine, ES)
    assert caught.value.status is S.UNSUPPORTED
    assert kvm.asids.current == {"sev": 0, "sev_es": 0}
    SimulatedKvm(processor_of(firmware=patched), snp=False).launch_sev(machine, ES).close()


@pytest.mark.parametrize("run", [False, True])
def test_a_guest_is_closed_once_and_however_it_ends(kvm: SimulatedKvm, run: bool) -> None:
    guest = kvm.launch_sev(Machine(IMAGE), SEV)
    if run:
        guest.run()
    guest.close()
    again = kvm.launch_sev(Machine(IMAGE), SEV)
    guest.close()  # and takes nothing from the next one
    assert kvm.processor.sev_guests.handles == (again.handle,)
    with pytest.raises(KeyError), kvm.launch_snp(Machine(IMAGE, 1, SNP_CPU)):
        raise KeyError
    assert kvm.asids.current == {"sev": 1, "sev_es": 0}


@pytest.mark.parametrize("command", ["DEACTIVATE", "DECOMMISSION"])
def test_a_sev_guest_that_firmware_does_not_let_go_is_gone_for_kvm(
    kvm: SimulatedKvm, command: str
) -> None:
    guest = kvm.launch_sev(Machine(IMAGE), SEV)
    kvm.processor.faults.fail(command, S.HWERROR_PLATFORM)
    guest.close()
    assert kvm.asids.current == {"sev": 0, "sev_es": 0}


def test_an_snp_guest_that_firmware_does_not_let_go_keeps_its_asid_for_ever(
    kvm: SimulatedKvm,
) -> None:
    machine = Machine(IMAGE, 1, SNP_CPU)
    guest = kvm.launch_snp(machine)
    kvm.processor.faults.fail("SNP_DECOMMISSION", S.HWERROR_PLATFORM, times=1)
    guest.close()
    assert kvm.asids.current == {"sev": 0, "sev_es": 1}
    assert kvm.launch_snp(machine).asid == 2


def test_guests_end_though_the_processor_is_dead(kvm: SimulatedKvm) -> None:
    guest = kvm.launch_sev(Machine(IMAGE), SEV)
    kvm.processor.faults.kill()
    guest.close()
    assert kvm.asids.current == {"sev": 0, "sev_es": 0}
