from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.abi.firmware_status import FirmwareStatus
from sevkit.abi.platform_status import PlatformState
from sevkit.abi.policy import SevPolicy
from sevkit.abi.product import Product
from sevkit.abi.report import FirmwareVersion
from sevkit.abi.secret_packet import (
    DISK_GUID,
    SecretEntry,
    SecretPacket,
    encode_secret_table,
    seal_packet,
)
from sevkit.abi.sevchain import parse_parts
from sevkit.abi.signature import EcPublicKey, parse_signature
from sevkit.abi.tcb import TcbVersion
from sevkit.attest.sev_links import Link
from sevkit.errors import UsageError
from sevkit.measure.launch_measurement import compute_launch_measurement
from sevkit.secret import Secret
from sevkit.testing.secure_processor.core import AsidRange, Firmware
from sevkit.testing.secure_processor.session_check import NO_KEYS
from sevkit.testing.secure_processor.sev_guests import MAX_GUESTS, GuestState

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.attest.sev_session import LaunchSession
    from sevkit.testing.secure_processor.processor import SecureProcessor
    from sevkit.testing.secure_processor.sev_guests import SevGuests

    Refusal = Callable[[Callable[[], object]], FirmwareStatus]
    ProcessorOf = Callable[..., SecureProcessor]
    Seal = Callable[..., LaunchSession]

S: Final = FirmwareStatus
LUPDATE, LSECRET, RUNNING = GuestState.LUPDATE, GuestState.LSECRET, GuestState.RUNNING
TABLE: Final = encode_secret_table([SecretEntry(DISK_GUID, Secret(b"hunter2"))])
VMSA: Final = bytes(4096)
ES: Final = int(SevPolicy.NODBG | SevPolicy.ES)
#: What each command demands: GSTATEs, and whether the guest must have an ASID.
RULES: Final = {
    "activate": ({LUPDATE, LSECRET, RUNNING}, False),
    "deactivate": ({LUPDATE, LSECRET, RUNNING}, True),
    "decommission": ({LUPDATE, LSECRET, RUNNING}, False),
    "launch_update_data": ({LUPDATE}, True),
    "launch_update_vmsa": ({LUPDATE}, True),
    "launch_measure": ({LUPDATE}, False),
    "launch_secret": ({LSECRET}, True),
    "launch_finish": ({LSECRET}, False),
    "attestation": ({LSECRET, RUNNING}, False),
}


def command(guests: SevGuests, name: str, handle: int) -> Callable[[], object]:
    """Return a command with arguments that are right in themselves."""
    arguments: dict[str, tuple[object, ...]] = {
        "activate": (1,),
        "launch_update_data": (bytes(16),),
        "launch_update_vmsa": (VMSA,),
        "launch_secret": (bytes(52), bytes(16)),
        "attestation": (bytes(16),),
    }
    return partial(getattr(guests, name), handle, *arguments.get(name, ()))


def guest_in(
    processor: SecureProcessor, state: GuestState, *, active: bool = True, es: bool = True
) -> int:
    """Launch a guest without an owner and bring it to ``state``."""
    guests = processor.sev_guests
    handle = guests.launch_start(ES if es else 1)
    if active:
        guests.activate(handle, 1 if es else 5)
    if state is not LUPDATE:
        guests.launch_measure(handle)
    if state is RUNNING:
        guests.launch_finish(handle)
    return handle


def owned(processor: SecureProcessor, seal: Seal, policy: int = 1) -> tuple[int, LaunchSession]:
    """Return an active guest of an owner's, and his session."""
    session = seal(processor, policy)
    guests = processor.sev_guests
    handle = guests.launch_start(policy, session=session.blob.encode(), godh=session.godh)
    guests.activate(handle, 1 if policy & SevPolicy.ES else 5)
    return handle, session


@pytest.mark.parametrize("state", [LUPDATE, LSECRET, RUNNING])
@pytest.mark.parametrize("name", list(RULES))
def test_each_command_is_legal_in_its_guest_states_only(
    sev: SecureProcessor, refusal: Refusal, name: str, state: GuestState
) -> None:
    handle = guest_in(sev, state, active=name not in {"activate", "decommission"})
    run = command(sev.sev_guests, name, handle)
    if state not in RULES[name][0]:
        assert refusal(run) is S.INVALID_GUEST_STATE
        assert sev.sev_guests[handle].state is state
    elif name == "launch_secret":  # legal, and the packet is nonsense
        assert refusal(run) is S.BAD_MEASUREMENT
    else:
        run()


@pytest.mark.parametrize("name", list(RULES))
def test_only_what_touches_memory_needs_an_active_guest(
    sev: SecureProcessor, refusal: Refusal, name: str
) -> None:
    states, active = RULES[name]
    handle = guest_in(sev, min(states), active=False)
    run = command(sev.sev_guests, name, handle)
    if active:
        assert refusal(run) is S.INACTIVE
    else:
        run()


@pytest.mark.parametrize("name", list(RULES))
def test_a_guest_command_needs_a_platform_with_guests(
    milan: SecureProcessor, refusal: Refusal, name: str
) -> None:
    run = command(milan.sev_guests, name, 1)
    assert refusal(run) is S.INVALID_PLATFORM_STATE
    milan.sev.init(es=True)
    assert refusal(run) is S.INVALID_PLATFORM_STATE


@pytest.mark.parametrize("handle", [0, 2, MAX_GUESTS + 1, -1, 1 << 32])
@pytest.mark.parametrize("name", list(RULES))
def test_a_handle_without_a_guest_is_refused(
    sev: SecureProcessor, refusal: Refusal, name: str, handle: int
) -> None:
    guest_in(sev, LUPDATE)
    assert refusal(command(sev.sev_guests, name, handle)) is S.INVALID_GUEST


def test_guest_status_answers_for_no_guest_too(milan: SecureProcessor, refusal: Refusal) -> None:
    guests = milan.sev_guests
    assert refusal(lambda: guests.guest_status(1)) is S.INVALID_PLATFORM_STATE
    milan.sev.init(es=True)
    milan.sev.df_flush()
    assert guests.guest_status(1).state is GuestState.UNINIT
    handle = guest_in(milan, LSECRET)
    assert guests.guest_status(handle) == (ES, 1, LSECRET)
    guests.deactivate(handle)
    assert guests.guest_status(handle) == (ES, 0, LSECRET)
    assert guests.guest_status(handle + 1).state is GuestState.UNINIT


def test_the_first_guest_makes_the_platform_working_and_the_last_one_init(
    sev: SecureProcessor,
) -> None:
    guests = sev.sev_guests
    first, second = guests.launch_start(1), guests.launch_start(1)
    states = [sev.sev.state]
    guests.decommission(first)
    states.append(sev.sev.state)
    guests.decommission(second)
    states.append(sev.sev.state)
    assert states == [PlatformState.WORKING, PlatformState.WORKING, PlatformState.INIT]


def test_the_lowest_free_handle_is_given(sev: SecureProcessor) -> None:
    guests = sev.sev_guests
    assert [guests.launch_start(1) for _ in range(3)] == [1, 2, 3]
    guests.decommission(2)
    assert [guests.launch_start(1) for _ in range(2)] == [2, 4]


def test_there_are_1024_guests_at_most(sev: SecureProcessor, refusal: Refusal) -> None:
    guests = sev.sev_guests
    for _ in range(1024):
        guests.launch_start(1)
    assert max(guests.handles) == 1024
    assert refusal(lambda: guests.launch_start(1)) is S.RESOURCE_LIMIT
    guests.decommission(512)
    assert guests.launch_start(1) == 512


def test_a_launch_needs_an_initialised_platform(milan: SecureProcessor, refusal: Refusal) -> None:
    assert refusal(lambda: milan.sev_guests.launch_start(1)) is S.INVALID_PLATFORM_STATE


@pytest.mark.parametrize("policy", [-1, 1 << 32])
def test_a_policy_has_32_bits(sev: SecureProcessor, policy: int) -> None:
    with pytest.raises(UsageError, match="32 bits"):
        sev.sev_guests.launch_start(policy)


def test_a_guest_gets_the_keys_that_its_owner_sealed(sev: SecureProcessor, seal: Seal) -> None:
    handle, session = owned(sev, seal)
    assert sev.sev_guests[handle].keys == session.keys


def test_a_session_for_a_pdh_that_was_replaced_is_refused(
    sev: SecureProcessor, seal: Seal, refusal: Refusal
) -> None:
    session = seal(sev)
    start = partial(
        sev.sev_guests.launch_start, 1, session=session.blob.encode(), godh=session.godh
    )
    start()
    sev.sev.pdh_gen()
    assert refusal(start) is S.BAD_MEASUREMENT
    assert len(sev.sev_guests.handles) == 1


def test_without_an_owner_nothing_of_the_policy_is_looked_at(sev: SecureProcessor) -> None:
    # reserved bits and an API level that no firmware has
    handle = sev.sev_guests.launch_start(0xFFFF_FFC1, session=b"never read")
    assert sev.sev_guests[handle].keys == NO_KEYS


def test_an_encrypted_state_guest_needs_sev_es(
    milan: SecureProcessor, seal: Seal, refusal: Refusal
) -> None:
    milan.sev.init(es=False)
    assert refusal(lambda: milan.sev_guests.launch_start(ES)) is S.UNSUPPORTED
    session = seal(milan, ES)
    good = partial(milan.sev_guests.launch_start, session=session.blob.encode(), godh=session.godh)
    assert refusal(partial(good, ES)) is S.UNSUPPORTED
    assert refusal(partial(good, ES | 2)) is S.BAD_MEASUREMENT  # the session comes first
    assert milan.sev.state is PlatformState.INIT
    milan.sev_guests.launch_start(1)


@pytest.mark.parametrize(
    ("product", "last_open"),
    [
        (Product.MILAN, TcbVersion(4, 0, 0x1A, 219)),
        (Product.GENOA, TcbVersion(9, 0, 0x1A, 72)),
        (Product.TURIN, TcbVersion(1, 1, 3, 80, fmc=1)),
    ],
)
def test_newer_snp_firmware_refuses_sev_es_once_snp_is_initialised(
    processor_of: ProcessorOf, refusal: Refusal, product: Product, last_open: TcbVersion
) -> None:
    for blocked in (False, True):
        tcb = replace(last_open, snp=last_open.snp + blocked)
        processor = processor_of(product, Firmware(tcb=tcb))
        processor.sev.init(es=True)
        processor.sev_guests.launch_start(ES)  # without SNP every firmware takes it
        processor.sev.shutdown()
        processor.snp.init()
        processor.sev.init(es=True)
        start = partial(processor.sev_guests.launch_start, ES)
        if blocked:
            assert int(refusal(start)) == 0x15
        else:
            start()
        processor.sev_guests.launch_start(1)  # plain SEV goes on


def test_a_memory_key_is_shared_between_guests_of_one_policy(
    sev: SecureProcessor, refusal: Refusal
) -> None:
    guests = sev.sev_guests
    first = guests.launch_start(1)
    assert guests.launch_start(1, share_with=first) == 2
    assert refusal(lambda: guests.launch_start(1, share_with=9)) is S.INVALID_GUEST
    assert refusal(lambda: guests.launch_start(9, share_with=first)) is S.POLICY_FAILURE
    alone = guests.launch_start(int(SevPolicy.NODBG | SevPolicy.NOKS))
    assert refusal(lambda: guests.launch_start(3, share_with=alone)) is S.POLICY_FAILURE


def test_sharing_is_checked_after_the_session_and_before_sev_es(
    milan: SecureProcessor, refusal: Refusal
) -> None:
    milan.sev.init(es=False)
    start = milan.sev_guests.launch_start
    assert refusal(lambda: start(ES, godh=b"x", share_with=9)) is S.INVALID_LEN
    assert refusal(lambda: start(ES, share_with=9)) is S.INVALID_GUEST


@pytest.mark.parametrize("size", [0, 8, 15, 17, 4095])
def test_data_comes_in_whole_blocks(sev: SecureProcessor, refusal: Refusal, size: int) -> None:
    handle = guest_in(sev, LUPDATE)
    assert refusal(lambda: sev.sev_guests.launch_update_data(handle, bytes(size))) is S.INVALID_LEN


@pytest.mark.parametrize("size", [0, 4080, 4112])
def test_a_vmsas_length_comes_before_the_platforms_state(
    milan: SecureProcessor, refusal: Refusal, size: int
) -> None:
    run = partial(milan.sev_guests.launch_update_vmsa, 7, bytes(size))
    assert refusal(run) is S.INVALID_LEN
    assert list(milan.core.log) == ["LAUNCH_UPDATE_VMSA"]


def test_a_guest_without_encrypted_state_takes_no_vmsa(
    sev: SecureProcessor, refusal: Refusal
) -> None:
    active, inactive = (guest_in(sev, LUPDATE, es=False, active=on) for on in (True, False))
    for handle in (active, inactive):
        run = partial(sev.sev_guests.launch_update_vmsa, handle, VMSA)
        assert refusal(run) is S.UNSUPPORTED
    sev.sev_guests.launch_measure(active)
    run = partial(sev.sev_guests.launch_update_vmsa, active, VMSA)
    assert refusal(run) is S.INVALID_GUEST_STATE


@pytest.mark.parametrize(("policy", "pages"), [(1, 0), (ES, 1), (ES, 3)])
def test_a_measurement_is_the_one_that_the_owner_computes(
    sev: SecureProcessor, seal: Seal, policy: int, pages: int
) -> None:
    handle, session = owned(sev, seal, policy)
    guests = sev.sev_guests
    covered = hashlib.sha256()
    for data in (b"firmware".ljust(4096, b"\0"), b"hashes".ljust(176, b"\0")):
        guests.launch_update_data(handle, data)
        covered.update(data)
    for index in range(pages):
        page = bytes([index]) * 4096
        guests.launch_update_vmsa(handle, page)
        covered.update(page)
    blob = guests.launch_measure(handle)
    assert len(blob) == 48
    assert blob[:32] == compute_launch_measurement(
        session.keys.tik,
        api_major=1,
        api_minor=55,
        build_id=40,
        policy=policy,
        digest=covered.digest(),
        mnonce=blob[32:],
    )
    assert guests[handle].vmsas == pages


def test_a_measurement_of_real_firmware_is_repeated(processor_of: ProcessorOf, seal: Seal) -> None:
    """The answer is that of a real Naples platform, as virtee/sev publishes it."""
    mnonce = bytes.fromhex("4fbe0bedbad6c86ae8f68971d103e554")
    processor = processor_of(
        Product.NAPLES, Firmware(FirmwareVersion(0, 18, 15)), draw=lambda size: mnonce[:size]
    )
    processor.sev.init()
    tik = Secret(bytes.fromhex("66320db73158a35a255d051758e95ed4"))
    session = seal(processor, 0, tik=tik)
    handle = processor.sev_guests.launch_start(0, session=session.blob.encode(), godh=session.godh)
    expected = "6faab2daae389bcd3405a05d6cafe33c0414f7bedd0bae19ba5f38b7fd1664ea"
    assert processor.sev_guests.launch_measure(handle).hex() == expected + mnonce.hex()


def test_every_measurement_has_a_nonce_of_its_own(sev: SecureProcessor) -> None:
    guests = sev.sev_guests
    blobs = {guests.launch_measure(guests.launch_start(1)) for _ in range(3)}
    assert len({blob[32:] for blob in blobs}) == 3


def test_a_launch_is_measured_once(sev: SecureProcessor, refusal: Refusal) -> None:
    handle = guest_in(sev, LSECRET)
    before = sev.sev_guests[handle].digest.digest()
    for name in ("launch_measure", "launch_update_data", "launch_update_vmsa"):
        assert refusal(command(sev.sev_guests, name, handle)) is S.INVALID_GUEST_STATE
    assert sev.sev_guests[handle].digest.digest() == before


def test_the_secret_that_arrives_is_the_one_that_was_sent(sev: SecureProcessor, seal: Seal) -> None:
    handle, session = owned(sev, seal)
    guests = sev.sev_guests
    measure = guests.launch_measure(handle)[:32]
    packets = [
        seal_packet(session.keys, TABLE, measure=measure, iv=os.urandom(16)) for _ in range(2)
    ]
    for address, packet in zip((0x80_C000, 0x80_D000), packets, strict=True):
        guests.launch_secret(handle, packet.header, packet.ciphertext, guest_address=address)
    # the firmware does not notice a packet that comes twice
    guests.launch_secret(handle, packets[0].header, packets[0].ciphertext)
    assert guests[handle].injected == [(0x80_C000, TABLE), (0x80_D000, TABLE), (0, TABLE)]
    assert guests[handle].state is LSECRET


def test_the_largest_secret_arrives(sev: SecureProcessor, seal: Seal) -> None:
    handle, session = owned(sev, seal)
    table = Secret(os.urandom(16384))
    measure = sev.sev_guests.launch_measure(handle)[:32]
    packet = seal_packet(session.keys, table, measure=measure, iv=bytes(16))
    sev.sev_guests.launch_secret(handle, packet.header, packet.ciphertext)
    assert sev.sev_guests[handle].injected == [(0, table)]


@pytest.mark.parametrize("position", [*range(52), 52, 67, 68, 99])
def test_a_packet_with_any_byte_changed_is_refused(
    sev: SecureProcessor, seal: Seal, refusal: Refusal, position: int
) -> None:
    handle, session = owned(sev, seal)
    measure = sev.sev_guests.launch_measure(handle)[:32]
    packet = seal_packet(session.keys, TABLE, measure=measure, iv=bytes(16))
    data = bytearray(packet.header + packet.ciphertext)
    data[position] ^= 1
    run = partial(sev.sev_guests.launch_secret, handle, bytes(data[:52]), bytes(data[52:]))
    assert refusal(run) is S.BAD_MEASUREMENT
    assert sev.sev_guests[handle].injected == []


def test_a_packet_for_another_launch_is_refused(
    sev: SecureProcessor, seal: Seal, refusal: Refusal
) -> None:
    handle, session = owned(sev, seal)
    sev.sev_guests.launch_measure(handle)
    packet = seal_packet(session.keys, TABLE, measure=bytes(32), iv=bytes(16))
    run = partial(sev.sev_guests.launch_secret, handle, packet.header, packet.ciphertext)
    assert refusal(run) is S.BAD_MEASUREMENT


def test_compression_that_the_owner_asked_for_is_unsupported(
    sev: SecureProcessor, seal: Seal, refusal: Refusal
) -> None:
    handle, session = owned(sev, seal)
    measure = sev.sev_guests.launch_measure(handle)[:32]
    packet = seal_packet(session.keys, TABLE, measure=measure, iv=bytes(16))
    flags, size = (1).to_bytes(4, "little"), len(TABLE).to_bytes(4, "little")
    covered = b"\1" + flags + bytes(16) + size * 2 + packet.ciphertext + measure
    mac = hmac.digest(session.keys.tik.reveal(), covered, "sha256")
    run = partial(sev.sev_guests.launch_secret, handle, flags + bytes(16) + mac, packet.ciphertext)
    assert refusal(run) is S.UNSUPPORTED


def test_a_secrets_address_and_lengths_come_before_the_guests_state(
    sev: SecureProcessor, refusal: Refusal
) -> None:
    handle = guest_in(sev, LUPDATE, active=False)

    def inject(packet: SecretPacket, address: int = 0) -> FirmwareStatus:
        run = partial(sev.sev_guests.launch_secret, guest_address=address)
        return refusal(partial(run, handle, packet.header, packet.ciphertext))

    good = SecretPacket(bytes(52), bytes(16))
    assert inject(SecretPacket(b"", b""), 8) is S.INVALID_ADDRESS
    assert inject(good, 1) is S.INVALID_ADDRESS
    for bad in (
        SecretPacket(bytes(51), bytes(16)),
        SecretPacket(bytes(53), bytes(16)),
        SecretPacket(bytes(52), b""),
        SecretPacket(bytes(52), bytes(8)),
        SecretPacket(bytes(52), bytes(16400)),
    ):
        assert inject(bad) is S.INVALID_LEN
    assert inject(good) is S.INVALID_GUEST_STATE
    sev.sev_guests.launch_measure(handle)
    assert inject(good) is S.INACTIVE


def test_a_running_guest_has_no_keys_any_more(sev: SecureProcessor, seal: Seal) -> None:
    handle, session = owned(sev, seal)
    guests = sev.sev_guests
    guests.launch_measure(handle)
    assert guests[handle].keys == session.keys
    guests.launch_finish(handle)
    assert guests[handle].keys == NO_KEYS
    assert guests[handle].state is RUNNING


@pytest.mark.parametrize("state", [LSECRET, RUNNING])
def test_an_attestation_report_is_signed_by_the_pek(
    sev: SecureProcessor, state: GuestState
) -> None:
    handle = guest_in(sev, LUPDATE)
    guests = sev.sev_guests
    guests.launch_update_data(handle, b"firmware" * 512)
    guests.launch_measure(handle)
    if state is RUNNING:
        guests.launch_finish(handle)
    mnonce = bytes(range(16))
    report = guests.attestation(handle, mnonce)
    assert len(report) == 208
    assert report[:16] == mnonce
    assert report[16:48] == hashlib.sha256(b"firmware" * 512).digest()
    assert report[48:64] == ES.to_bytes(4, "little") + bytes.fromhex("02100000 02000000 00000000")
    pek = parse_parts(*sev.sev.pdh_cert_export()).pek.key
    assert isinstance(pek, EcPublicKey)
    signature = parse_signature(report[64:].ljust(512, b"\0"))
    assert Link(pek, signature, sha384=False, body=report[:52]).holds()
    assert not Link(pek, signature, sha384=False, body=bytes(52)).holds()


@pytest.mark.parametrize("size", [0, 15, 17])
def test_an_attestation_nonce_has_16_bytes(
    sev: SecureProcessor, refusal: Refusal, size: int
) -> None:
    handle = guest_in(sev, RUNNING)
    assert refusal(lambda: sev.sev_guests.attestation(handle, bytes(size))) is S.INVALID_LEN


@pytest.mark.parametrize(
    ("policy", "asid", "expected"),
    [
        (1, 0, S.INVALID_ASID),
        (1, 9, S.INVALID_ASID),
        (1, 4, S.INVALID_ASID),  # of the range for encrypted state
        (ES, 5, S.INVALID_ASID),
        (1, 6, S.ASID_OWNED),
    ],
)
def test_an_asid_that_the_guest_cannot_have_is_refused(
    sev: SecureProcessor, refusal: Refusal, policy: int, asid: int, expected: FirmwareStatus
) -> None:
    guests = sev.sev_guests
    guests.activate(guests.launch_start(1), 6)
    handle = guests.launch_start(policy)
    assert refusal(lambda: guests.activate(handle, asid)) is expected
    assert guests[handle].asid is None


def test_a_guest_is_activated_once(sev: SecureProcessor, refusal: Refusal) -> None:
    handle = guest_in(sev, LUPDATE)
    assert refusal(lambda: sev.sev_guests.activate(handle, 2)) is S.ACTIVE
    sev.sev_guests.deactivate(handle)
    sev.sev_guests.activate(handle, 2)


def test_an_active_guest_is_not_decommissioned(sev: SecureProcessor, refusal: Refusal) -> None:
    handle = guest_in(sev, RUNNING)
    assert refusal(lambda: sev.sev_guests.decommission(handle)) is S.ACTIVE
    sev.sev_guests.deactivate(handle)
    sev.sev_guests.decommission(handle)
    assert sev.sev_guests.handles == ()


@pytest.mark.parametrize(("state", "dirty"), [(LUPDATE, False), (LSECRET, False), (RUNNING, True)])
def test_an_asid_is_dirty_only_after_a_guest_that_ran(
    sev: SecureProcessor, refusal: Refusal, state: GuestState, dirty: bool
) -> None:
    guests = sev.sev_guests
    handle = guest_in(sev, state)
    guests.deactivate(handle)
    guests.decommission(handle)
    again = partial(guests.activate, guests.launch_start(ES), 1)
    if dirty:
        assert refusal(sev.sev.df_flush) is S.WBINVD_REQUIRED
        sev.core.wbinvd()
        assert refusal(again) is S.DFFLUSH_REQUIRED
        sev.sev.df_flush()
    again()


def test_a_guest_that_was_finished_without_an_asid_runs_when_it_gets_one(
    sev: SecureProcessor, refusal: Refusal
) -> None:
    handle = guest_in(sev, RUNNING, active=False)
    guests = sev.sev_guests
    assert not guests[handle].ran
    guests.activate(handle, 1)
    guests.deactivate(handle)
    assert refusal(sev.sev.df_flush) is S.WBINVD_REQUIRED


def test_a_shutdown_ends_guests_with_and_without_an_asid(sev: SecureProcessor) -> None:
    for active in (True, False):
        guest_in(sev, LSECRET, active=active)
    sev.sev.shutdown()
    assert sev.sev_guests.handles == ()
    assert not sev.core.owned_asids


def test_a_key_generation_needs_no_guests(sev: SecureProcessor, refusal: Refusal) -> None:
    handle = guest_in(sev, RUNNING)
    assert refusal(sev.sev.pek_gen) is S.INVALID_PLATFORM_STATE
    sev.sev.pdh_gen()  # sessions that are open stay so
    assert sev.sev_guests[handle].state is RUNNING


def test_a_platform_with_many_asids_gives_each_guest_its_own(processor_of: ProcessorOf) -> None:
    processor = processor_of(asids=AsidRange(509, 100))
    processor.sev.init(es=True)
    processor.sev.df_flush()
    guests = processor.sev_guests
    for asid in range(100, 510):
        guests.activate(guests.launch_start(1), asid)
    assert len(processor.core.owned_asids) == 410
