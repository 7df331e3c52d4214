from __future__ import annotations

import hashlib
import struct
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from sevkit.abi.firmware_status import FirmwareStatus
from sevkit.abi.idblock import IdBlock, encode_id_auth, encode_id_block
from sevkit.abi.policy import PlatformInfo, SnpPolicy
from sevkit.abi.product import Product
from sevkit.abi.report import FirmwareVersion
from sevkit.abi.tcb import TcbVersion
from sevkit.attest.idblock import sign_id_block
from sevkit.errors import UsageError
from sevkit.measure.vcpu import signature_of
from sevkit.testing.secure_processor.core import Firmware
from sevkit.testing.secure_processor.snp_guests import (
    PAGE,
    VMSA_GPA,
    PageType,
    SnpGuestState,
)
from sevkit.testing.snp_report import CPUID_FMS

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.testing.secure_processor.processor import SecureProcessor
    from sevkit.testing.secure_processor.snp_guests import SnpGuests

    Refusal = Callable[[Callable[[], object]], FirmwareStatus]
    ProcessorOf = Callable[..., SecureProcessor]

S: Final = FirmwareStatus
INIT, LAUNCH, RUNNING = SnpGuestState
POLICY: Final = 0x30000
DATA: Final = bytes(range(256)) * 16
#: What each command demands of GSTATE, and whether the guest must have an ASID.
RULES: Final = {
    "launch_start": ({INIT}, False),
    "activate": ({LAUNCH, RUNNING}, False),
    "launch_update": ({LAUNCH}, True),
    "launch_finish": ({LAUNCH}, True),
    "decommission": ({INIT, LAUNCH, RUNNING}, False),
    "guest_status": ({INIT, LAUNCH, RUNNING}, False),
    "enter_request": ({RUNNING}, False),
}


def command(guests: SnpGuests, name: str, context: int) -> Callable[[], object]:
    """Return a command with arguments that are right in themselves."""
    arguments: dict[str, tuple[object, ...]] = {
        "launch_start": (POLICY,),
        "activate": (1,),
        "launch_update": (PageType.NORMAL, DATA),
    }
    return partial(getattr(guests, name), context, *arguments.get(name, ()))


def guest_in(processor: SecureProcessor, state: SnpGuestState, *, active: bool = True) -> int:
    guests = processor.snp_guests
    context = guests.gctx_create()
    if state is not INIT:
        guests.launch_start(context, POLICY)
        if active or state is RUNNING:
            guests.activate(context, 1)
    if state is RUNNING:
        guests.launch_finish(context)
    return context


@pytest.fixture
def context(snp: SecureProcessor) -> int:
    """A guest under launch, with an ASID."""
    return guest_in(snp, LAUNCH)


@pytest.mark.parametrize("state", list(SnpGuestState))
@pytest.mark.parametrize("name", list(RULES))
def test_each_command_is_legal_in_its_guest_states_only(
    snp: SecureProcessor, refusal: Refusal, name: str, state: SnpGuestState
) -> None:
    context = guest_in(snp, state, active=name != "activate")
    run = command(snp.snp_guests, name, context)
    if state not in RULES[name][0]:
        assert refusal(run) is S.INVALID_GUEST_STATE
        assert snp.snp_guests[context].state is state
    elif name == "activate" and state is RUNNING:
        assert refusal(run) is S.ASID_OWNED  # by itself: a guest runs with an ASID only
    else:
        run()


@pytest.mark.parametrize("name", list(RULES))
def test_each_command_needs_snp_and_a_context(
    milan: SecureProcessor, refusal: Refusal, name: str
) -> None:
    run = command(milan.snp_guests, name, 7)
    assert refusal(run) is S.INVALID_PLATFORM_STATE
    milan.snp.init()
    assert refusal(run) is S.INVALID_GUEST


def test_a_context_needs_snp(milan: SecureProcessor, refusal: Refusal) -> None:
    assert refusal(milan.snp_guests.gctx_create) is S.INVALID_PLATFORM_STATE


@pytest.mark.parametrize("name", ["launch_update", "launch_finish"])
def test_pages_and_the_end_of_a_launch_need_an_active_guest(
    snp: SecureProcessor, refusal: Refusal, name: str
) -> None:
    context = guest_in(snp, LAUNCH, active=False)
    assert refusal(command(snp.snp_guests, name, context)) is S.INACTIVE


def test_contexts_are_never_the_same_twice(snp: SecureProcessor) -> None:
    guests = snp.snp_guests
    first = guests.gctx_create()
    guests.decommission(first)
    assert guests.gctx_create() != first
    assert len(guests.contexts) == 1


@pytest.mark.parametrize(
    ("policy", "version", "taken"),
    [
        (0x30000, (1, 55), True),
        (0, (1, 55), False),
        (0x30137, (1, 55), True),  # exactly this ABI
        (0x30138, (1, 55), False),  # a newer minor
        (0x300FF, (1, 55), True),  # an older major, whatever the minor
        (0x30200, (1, 255), False),  # a newer major
        (0x10000, (1, 55), False),  # bit 17 is not one
        (0x20000, (1, 55), False),  # no SMT, and it is on
        (0x1F0000, (1, 55), True),  # SMT, 17, MIGRATE_MA, DEBUG, SINGLE_SOCKET
        (1 << 63 | 0x30000, (1, 58), False),  # reserved for ever
        (1 << 26 | 0x30000, (1, 58), False),
        (1 << 21 | 0x30000, (1, 55), False),  # reserved before 1.56
        (1 << 21 | 0x30000, (1, 56), True),
        (1 << 25 | 0x30000, (1, 55), False),
        (1 << 25 | 0x30000, (1, 58), True),
        (1 << 21 | 0x30000, (2, 0), True),
        (1 << 22 | 0x30000, (1, 58), False),  # XTS is off
        (1 << 23 | 0x30000, (1, 58), False),  # RAPL is on
        (1 << 24 | 0x30000, (1, 58), False),  # ciphertext hiding is off
    ],
)
def test_a_policy_is_held_against_firmware_and_host(
    processor_of: ProcessorOf,
    refusal: Refusal,
    policy: int,
    version: tuple[int, int],
    taken: bool,
) -> None:
    processor = processor_of(firmware=Firmware(FirmwareVersion(*version, 0)))
    processor.snp.init()
    context = processor.snp_guests.gctx_create()
    start = partial(processor.snp_guests.launch_start, context, policy)
    if taken:
        start()
        assert processor.snp_guests[context].policy == policy
    else:
        assert refusal(start) is S.POLICY_FAILURE
        assert processor.snp_guests[context].state is INIT


@pytest.mark.parametrize(
    ("bit", "on"),
    [
        (SnpPolicy.MEM_AES_256_XTS, Firmware(FirmwareVersion(1, 58, 0), aes_256_xts=True)),
        (SnpPolicy.RAPL_DIS, Firmware(FirmwareVersion(1, 58, 0))),
        (
            SnpPolicy.CIPHERTEXT_HIDING_DRAM,
            Firmware(
                FirmwareVersion(1, 58, 0), ciphertext_hiding_capable=True, ciphertext_hiding=True
            ),
        ),
    ],
)
def test_what_a_policy_demands_may_be_on(
    processor_of: ProcessorOf, bit: SnpPolicy, on: Firmware
) -> None:
    processor = processor_of(Product.TURIN, on)
    processor.snp.platform_info |= PlatformInfo.RAPL_DIS
    processor.snp.init()
    processor.snp_guests.launch_start(processor.snp_guests.gctx_create(), POLICY | bit)


def test_a_host_without_smt_takes_either_policy(snp: SecureProcessor) -> None:
    snp.snp.platform_info &= ~PlatformInfo.SMT_EN
    for policy in (0x20000, 0x30000):
        snp.snp_guests.launch_start(snp.snp_guests.gctx_create(), policy)


@pytest.mark.parametrize("policy", [-1, 1 << 64])
def test_a_policy_has_64_bits(snp: SecureProcessor, policy: int) -> None:
    with pytest.raises(UsageError, match="64 bits"):
        snp.snp_guests.launch_start(snp.snp_guests.gctx_create(), policy)


def test_every_guest_has_secrets_of_its_own(snp: SecureProcessor) -> None:
    guests = [snp.snp_guests[guest_in(snp, LAUNCH, active=False)] for _ in range(2)]
    drawn = [guest.report_id for guest in guests]
    drawn += [key.reveal() for guest in guests for key in guest.vmpcks]
    assert len(set(drawn)) == 10
    assert {len(value) for value in drawn} == {32}


def test_each_page_is_chained_as_page_info_says(snp: SecureProcessor, context: int) -> None:
    digest = bytes(48)
    for kind, contents, gpa in (
        (PageType.NORMAL, DATA, 0xFFC0_0000),
        (PageType.ZERO, b"", 0x80_0000),
        (PageType.ZERO, b"", 0),
        (PageType.UNMEASURED, DATA, 0x80_1000),
        (PageType.SECRETS, b"", 0x80_D000),
        (PageType.CPUID, bytes(PAGE), 0x80_E000),
        (PageType.VMSA, DATA[:0x2F0] + bytes(16) + DATA[0x300:], VMSA_GPA),
    ):
        snp.snp_guests.launch_update(context, kind, contents, gpa=gpa)
        measured = kind in {PageType.NORMAL, PageType.VMSA}
        page = hashlib.sha384(contents).digest() if measured else bytes(48)
        tail = struct.pack("<HBBIQ", 0x70, kind, 0, 0, gpa)
        digest = hashlib.sha384(digest + page + tail).digest()
        assert snp.snp_guests[context].digest == digest


def test_a_vmsa_is_measured_at_one_address_and_without_its_tsc(snp: SecureProcessor) -> None:
    guests = snp.snp_guests
    digests = set()
    for asid, (gpa, tsc) in enumerate(((VMSA_GPA, 0), (0x1000, 0), (VMSA_GPA, 0xFF)), 1):
        context = guests.gctx_create()
        guests.launch_start(context, POLICY)
        guests.activate(context, asid)
        page = DATA[:0x2F0] + bytes([tsc]) * 16 + DATA[0x300:]
        guests.launch_update(context, PageType.VMSA, page, gpa=gpa)
        digests.add(guests[context].digest)
    assert len(digests) == 1


def test_a_secrets_page_holds_the_keys_of_the_guest(snp: SecureProcessor, context: int) -> None:
    assert snp.snp_guests[context].secrets_page is None
    snp.snp_guests.launch_update(context, PageType.SECRETS, gpa=0x80_D000)
    guest = snp.snp_guests[context]
    assert guest.secrets_page is not None
    page = guest.secrets_page.reveal()
    assert len(page) == PAGE
    fms = signature_of(*CPUID_FMS[Product.MILAN])
    assert page[:0x20] == struct.pack("<III", 3, 0, fms).ljust(0x20, b"\0")
    keys = b"".join(key.reveal() for key in guest.vmpcks)
    assert page[0x20:] == keys.ljust(PAGE - 0x20, b"\0")


@pytest.mark.parametrize("kind", [0, 7, 8, -1])
def test_a_page_type_that_is_none_is_refused(
    snp: SecureProcessor, refusal: Refusal, context: int, kind: int
) -> None:
    assert refusal(partial(snp.snp_guests.launch_update, context, kind, DATA)) is S.INVALID_PARAM


@pytest.mark.parametrize("size", [1, 4095, 4097, 2 << 20])
def test_a_page_has_4096_bytes(
    snp: SecureProcessor, refusal: Refusal, context: int, size: int
) -> None:
    run = partial(snp.snp_guests.launch_update, context, PageType.NORMAL, bytes(size))
    assert refusal(run) is S.INVALID_PAGE_SIZE


@pytest.mark.parametrize("gpa", [1, 0x800, 0xFFF])
def test_a_page_stands_at_a_pages_address(
    snp: SecureProcessor, refusal: Refusal, context: int, gpa: int
) -> None:
    run = partial(snp.snp_guests.launch_update, context, PageType.NORMAL, DATA, gpa=gpa)
    assert refusal(run) is S.INVALID_ADDRESS


@pytest.mark.parametrize("gpa", [-PAGE, 1 << 64])
def test_an_address_has_64_bits(snp: SecureProcessor, context: int, gpa: int) -> None:
    with pytest.raises(UsageError, match="64 bits"):
        snp.snp_guests.launch_update(context, PageType.NORMAL, DATA, gpa=gpa)


@pytest.mark.parametrize("kind", [PageType.NORMAL, PageType.VMSA])
def test_what_is_measured_must_be_there(
    snp: SecureProcessor, refusal: Refusal, context: int, kind: PageType
) -> None:
    assert refusal(partial(snp.snp_guests.launch_update, context, kind)) is S.INVALID_ADDRESS


def test_a_pages_faults_come_before_the_guests_state(
    snp: SecureProcessor, refusal: Refusal
) -> None:
    context = guest_in(snp, INIT)
    update = partial(snp.snp_guests.launch_update, context)
    assert refusal(partial(update, 0, b"x", gpa=1)) is S.INVALID_PAGE_SIZE
    assert refusal(partial(update, 0, DATA, gpa=1)) is S.INVALID_ADDRESS
    assert refusal(partial(update, 0, DATA)) is S.INVALID_PARAM
    assert refusal(partial(update, PageType.NORMAL, DATA)) is S.INVALID_GUEST_STATE
    snp.snp_guests.launch_start(context, POLICY)
    assert refusal(partial(update, PageType.NORMAL, DATA)) is S.INACTIVE


@pytest.mark.parametrize(
    ("head", "taken"),
    [((64, 0, 0), True), ((65, 0, 0), False), ((1, 1, 0), False), ((1, 0, 1), False)],
)
def test_a_cpuid_page_has_64_entries_at_most_and_nothing_reserved(
    snp: SecureProcessor,
    refusal: Refusal,
    context: int,
    head: tuple[int, int, int],
    taken: bool,
) -> None:
    page = struct.pack("<IIQ", *head).ljust(PAGE, b"\0")
    run = partial(snp.snp_guests.launch_update, context, PageType.CPUID, page)
    if taken:
        run()
    else:
        assert refusal(run) is S.INVALID_PARAM


def test_a_digest_is_fixed_once_the_guest_runs(snp: SecureProcessor, refusal: Refusal) -> None:
    context = guest_in(snp, RUNNING)
    before = snp.snp_guests[context].digest
    run = partial(snp.snp_guests.launch_update, context, PageType.NORMAL, DATA)
    assert refusal(run) is S.INVALID_GUEST_STATE
    assert snp.snp_guests[context].digest == before


def test_an_id_block_may_be_tried_again_after_a_bad_one(
    snp: SecureProcessor, refusal: Refusal, context: int
) -> None:
    guests = snp.snp_guests
    guests.launch_update(context, PageType.NORMAL, DATA)
    key = ec.generate_private_key(ec.SECP384R1())
    bad, good = (IdBlock(digest, guest_svn=5) for digest in (bytes(48), guests[context].digest))

    def finish(block: IdBlock) -> None:
        auth = encode_id_auth(sign_id_block(block, key, None))
        guests.launch_finish(context, id_block=encode_id_block(block), id_auth=auth)

    assert refusal(partial(finish, bad)) is S.BAD_MEASUREMENT
    assert guests[context].state is LAUNCH
    finish(good)
    assert (guests[context].state, guests[context].identity.guest_svn) == (RUNNING, 5)


def test_host_data_and_what_else_a_launch_ends_with_is_kept(
    snp: SecureProcessor, context: int
) -> None:
    host_data = bytes(range(32))
    snp.snp_guests.launch_finish(context, host_data=host_data, author_key=True, vcek_disabled=True)
    guest = snp.snp_guests[context]
    assert (guest.host_data, guest.author_key_en, guest.vcek_disabled) == (host_data, True, True)
    assert guest.identity.id_key_digest == bytes(48)  # without an ID block nothing is checked


@pytest.mark.parametrize("size", [0, 31, 33])
def test_host_data_has_32_bytes(
    snp: SecureProcessor, refusal: Refusal, context: int, size: int
) -> None:
    run = partial(snp.snp_guests.launch_finish, context, host_data=bytes(size))
    assert refusal(run) is S.INVALID_PARAM


@pytest.mark.parametrize(
    ("asid", "expected"),
    [(0, S.INVALID_ASID), (5, S.INVALID_ASID), (9, S.INVALID_ASID), (2, S.ASID_OWNED)],
)
def test_an_snp_guest_takes_a_free_asid_of_the_lower_range(
    snp: SecureProcessor, refusal: Refusal, asid: int, expected: FirmwareStatus
) -> None:
    guests = snp.snp_guests
    first = guests.gctx_create()
    guests.launch_start(first, POLICY)
    guests.activate(first, 2)
    context = guest_in(snp, LAUNCH, active=False)
    assert refusal(partial(guests.activate, context, asid)) is expected
    assert refusal(partial(guests.activate, first, 3)) is S.ACTIVE


def test_sev_and_snp_guests_share_one_space_of_asids(
    snp: SecureProcessor, refusal: Refusal
) -> None:
    guest_in(snp, LAUNCH)  # has ASID 1
    snp.sev.init(es=True)
    snp.sev.df_flush()
    handle = snp.sev_guests.launch_start(5)
    assert refusal(partial(snp.sev_guests.activate, handle, 1)) is S.ASID_OWNED
    snp.sev_guests.activate(handle, 2)
    snp.sev.shutdown()  # ends SEV's guests alone
    assert list(snp.core.owned_asids) == [1]


@pytest.mark.parametrize(("state", "dirty"), [(LAUNCH, False), (RUNNING, True)])
def test_a_guest_that_ran_leaves_its_asid_dirty(
    snp: SecureProcessor, refusal: Refusal, state: SnpGuestState, dirty: bool
) -> None:
    snp.snp_guests.decommission(guest_in(snp, state))
    context = guest_in(snp, LAUNCH, active=False)
    again = partial(snp.snp_guests.activate, context, 1)
    if dirty:
        assert refusal(snp.snp.df_flush) is S.WBINVD_REQUIRED
        snp.core.wbinvd()
        assert refusal(again) is S.DFFLUSH_REQUIRED
        snp.snp.df_flush()
    again()


def test_the_launch_tcb_is_the_committed_one_when_the_context_was_made(
    snp: SecureProcessor,
) -> None:
    committed = snp.snp.committed_tcb
    newer = Firmware(FirmwareVersion(1, 58, 0), TcbVersion(5, 0, 30, 220), mit_vector=7)
    snp.snp.update_firmware(newer)
    before = snp.snp_guests.gctx_create()
    snp.snp.commit()
    after = snp.snp_guests.gctx_create()
    assert snp.snp_guests[before].launch_tcb == committed
    assert snp.snp_guests[after].launch_tcb == newer.tcb
    assert [snp.snp_guests[c].launch_mit_vector for c in (before, after)] == [3, 7]


def test_guest_status_tells_policy_asid_and_state(snp: SecureProcessor, context: int) -> None:
    guest = snp.snp_guests.guest_status(context)
    assert (guest.policy, guest.asid, guest.state) == (POLICY, 1, LAUNCH)
