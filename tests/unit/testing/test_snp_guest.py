from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from sevkit.abi.firmware_status import CommandError, FirmwareStatus
from sevkit.abi.guest_message import KeySelect
from sevkit.abi.policy import SigningKey
from sevkit.abi.report import parse_report
from sevkit.errors import SignatureMismatch, UsageError
from sevkit.measure.vcpu import Registers
from sevkit.testing.firmware import FirmwareImage, encode_firmware
from sevkit.testing.secure_processor.identity import Vlek
from sevkit.testing.snp_guest import GuestChannel
from sevkit.testing.virtual_machine import Machine, SimulatedKvm, SnpMachine

if TYPE_CHECKING:
    from sevkit.testing.secure_processor.processor import SecureProcessor

CPU: Final = Registers(0xA00F11, 1)
IMAGE: Final = encode_firmware(FirmwareImage())
NONCE: Final = bytes(range(64))


@pytest.fixture
def kvm(milan: SecureProcessor) -> SimulatedKvm:
    return SimulatedKvm(milan)


@pytest.fixture
def machine(kvm: SimulatedKvm) -> SnpMachine:
    return kvm.launch_snp(Machine(IMAGE, 1, CPU))


@pytest.mark.parametrize("vmpl", [0, 1, 2, 3])
def test_a_guest_gets_reports_at_its_vmpl_as_many_as_it_likes(
    kvm: SimulatedKvm, machine: SnpMachine, vmpl: int
) -> None:
    channel = GuestChannel(kvm, machine, vmpl=vmpl)
    for index in range(3):
        nonce = bytes([index]) * 64
        report = parse_report(channel.get_report(nonce))
        assert (report.vmpl, report.report_data) == (vmpl, nonce)
        assert report.measurement == kvm.processor.snp_guests[machine.context].digest


def test_channels_of_different_vmpls_count_apart(kvm: SimulatedKvm, machine: SnpMachine) -> None:
    channels = [GuestChannel(kvm, machine, vmpl=vmpl) for vmpl in (0, 3)]
    for channel in channels * 2:
        channel.get_report(NONCE)
    assert kvm.processor.snp_guests[machine.context].counters == [4, 0, 0, 4]


def test_a_guest_chooses_the_key(kvm: SimulatedKvm, machine: SnpMachine) -> None:
    channel = GuestChannel(kvm, machine)
    with pytest.raises(CommandError) as caught:
        channel.get_report(NONCE, key_select=KeySelect.VLEK)
    assert caught.value.status is FirmwareStatus.INVALID_KEY
    identity = kvm.processor.identity
    assert identity.snp_roots is not None
    vlek = Vlek(identity.snp_roots, kvm.processor.snp.reported_tcb)
    kvm.processor.snp.vlek_load(identity.seal_hashstick(vlek))
    # the refusal was an answer: the channel goes on
    signers = [
        parse_report(channel.get_report(NONCE, key_select=select)).key_info.signing_key
        for select in KeySelect
    ]
    assert signers == [SigningKey.VLEK, SigningKey.VCEK, SigningKey.VLEK]


@pytest.mark.parametrize("vmpl", [-1, 4])
def test_there_are_four_vmpls(kvm: SimulatedKvm, machine: SnpMachine, vmpl: int) -> None:
    with pytest.raises(UsageError, match=f"no VMPL {vmpl}"):
        GuestChannel(kvm, machine, vmpl=vmpl)


def test_a_guest_without_a_secrets_page_has_no_channel(kvm: SimulatedKvm) -> None:
    bare = encode_firmware(FirmwareImage(sections=()))
    machine = kvm.launch_snp(Machine(bare, 1, CPU))
    with pytest.raises(UsageError, match="no secrets page") as caught:
        GuestChannel(kvm, machine)
    assert "built for SNP" in caught.value.hint


class TamperingHost:
    """A host that keeps what it carries, and may hand over something else."""

    def __init__(self, machine: SnpMachine) -> None:
        self.machine = machine
        self.requests: list[bytes] = []
        self.answers: list[bytes] = []
        self.replay = False
        self.flip: int | None = None

    def request(self, message: bytes) -> bytes:
        self.requests.append(message)
        if self.replay:
            return self.answers[-1]
        answer = bytearray(self.machine.request(message))
        if self.flip is not None:
            answer[self.flip] ^= 1
        self.answers.append(bytes(answer))
        return bytes(answer)


def channel_over(kvm: SimulatedKvm, host: TamperingHost) -> GuestChannel:
    channel = GuestChannel(kvm, host.machine)
    channel._machine = host  # type: ignore[misc,assignment]  # the host is what is played here
    return channel


def test_a_host_sees_neither_question_nor_answer(kvm: SimulatedKvm, machine: SnpMachine) -> None:
    host = TamperingHost(machine)
    report = channel_over(kvm, host).get_report(NONCE)
    carried = b"".join(host.requests + host.answers)
    assert NONCE not in carried
    assert report[0x90:0xC0] not in carried


def test_an_old_answer_is_not_taken_for_a_new_one(kvm: SimulatedKvm, machine: SnpMachine) -> None:
    host = TamperingHost(machine)
    channel = channel_over(kvm, host)
    channel.get_report(NONCE)
    host.replay = True
    with pytest.raises(SignatureMismatch) as caught:
        channel.get_report(bytes(64))
    assert caught.value.check == "message.seqno"


@pytest.mark.parametrize("position", [0x00, 0x20, 0x60, 0x100, 0x51F])
def test_a_changed_answer_is_noticed(kvm: SimulatedKvm, machine: SnpMachine, position: int) -> None:
    host = TamperingHost(machine)
    host.flip = position
    with pytest.raises(SignatureMismatch):
        channel_over(kvm, host).get_report(NONCE)


def test_a_guest_that_lost_an_answer_can_only_ask_the_same_again(
    kvm: SimulatedKvm, machine: SnpMachine
) -> None:
    channel = GuestChannel(kvm, machine)
    kvm.processor.faults.fail("SNP_GUEST_REQUEST", FirmwareStatus.HWERROR_PLATFORM, times=1)
    with pytest.raises(CommandError):
        channel.get_report(NONCE)
    channel.get_report(NONCE)  # the firmware had not seen it
    stale = GuestChannel(kvm, machine)  # a kernel that has forgotten its counter
    with pytest.raises(CommandError) as caught:
        stale.get_report(NONCE)
    assert caught.value.status is FirmwareStatus.AEAD_OFLOW
