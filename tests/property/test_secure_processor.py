"""Any commands in any order: the simulated firmware does what a model of the specification says.

The model is a table of states and lists of checks in the specification's order, written apart from
the firmware that it is held against. After every command what the specification forbids is looked
for: states without a reason, ASIDs without an owner, keys that should be gone, counters that go
back.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sevkit.abi.firmware_status import CommandError, FirmwareStatus
from sevkit.abi.guest_message import Message, MessageType, encode_report_request, seal_message
from sevkit.abi.platform_status import PlatformState
from sevkit.abi.product import Product, ProductLine
from sevkit.abi.report import FirmwareVersion
from sevkit.abi.secret_packet import seal_packet
from sevkit.abi.session import (
    TransportKeys,
    compute_shared_secret,
    encode_godh,
    godh_key,
    seal_session,
)
from sevkit.abi.sevcert import parse_sev_certificate
from sevkit.abi.tcb import TcbVersion
from sevkit.secret import Secret
from sevkit.testing.secure_processor.core import AsidRange, Firmware
from sevkit.testing.secure_processor.faults import NoAnswer
from sevkit.testing.secure_processor.identity import ChipIdentity
from sevkit.testing.secure_processor.processor import SecureProcessor
from sevkit.testing.secure_processor.sev_guests import GuestState
from sevkit.testing.secure_processor.snp_guests import SnpGuestState
from sevkit.testing.sev_chain import make_roots
from sevkit.testing.snp_chain import SimulatedRoots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Checks = Iterator[tuple[bool, FirmwareStatus]]

S: Final = FirmwareStatus
UNINIT, INIT, WORKING = PlatformState
LUPDATE, LSECRET, RUNNING = GuestState.LUPDATE, GuestState.LSECRET, GuestState.RUNNING
SNP_INIT, SNP_LAUNCH, SNP_RUNNING = SnpGuestState
MAX_ASID, MIN_SEV = 4, 3
ZERO: Final = TransportKeys(Secret(bytes(16)), Secret(bytes(16)))
UP: Final = {INIT, WORKING}
ANY: Final = {UNINIT, INIT, WORKING}

#: SEV platform commands: in which PSTATEs.
SEV: Final = {
    "init": {UNINIT},
    "shutdown": ANY,
    "factory_reset": {UNINIT},
    "status": ANY,
    "pek_gen": {INIT},
    "pek_csr": UP,
    "pdh_cert_export": UP,
    "pdh_gen": UP,
    "get_id": ANY,
}
#: They in a row, those that end everything once.
SEV_OFTEN: Final = [*sorted(SEV), *sorted(SEV.keys() - {"shutdown", "factory_reset"}) * 3]
#: SEV guest commands: in which GSTATEs, the one after, and whether the guest must have an ASID.
GUEST: Final[dict[str, tuple[set[GuestState], GuestState | None, bool]]] = {
    "activate": ({LUPDATE, LSECRET, RUNNING}, None, False),
    "deactivate": ({LUPDATE, LSECRET, RUNNING}, None, True),
    "decommission": ({LUPDATE, LSECRET, RUNNING}, None, False),
    "launch_update_data": ({LUPDATE}, None, True),
    "launch_update_vmsa": ({LUPDATE}, None, True),
    "launch_measure": ({LUPDATE}, LSECRET, False),
    "launch_secret": ({LSECRET}, None, True),
    "launch_finish": ({LSECRET}, RUNNING, False),
    "attestation": ({LSECRET, RUNNING}, None, False),
}
#: The same of SNP.
SNP_GUEST: Final[dict[str, tuple[set[SnpGuestState], SnpGuestState | None, bool]]] = {
    "launch_start": ({SNP_INIT}, SNP_LAUNCH, False),
    "activate": ({SNP_LAUNCH, SNP_RUNNING}, None, False),
    "launch_update": ({SNP_LAUNCH}, None, True),
    "launch_finish": ({SNP_LAUNCH}, SNP_RUNNING, True),
    "decommission": ({SNP_INIT, SNP_LAUNCH, SNP_RUNNING}, None, False),
    "guest_request": ({SNP_RUNNING}, None, False),
}


def first(checks: Iterable[tuple[bool, FirmwareStatus]]) -> FirmwareStatus:
    """Return the status of the first check that finds something wrong."""
    return next((status for wrong, status in checks if wrong), S.SUCCESS)


def moved(tcb: tuple[int, ...], changes: tuple[int, ...]) -> tuple[int, ...]:
    """Return a TCB version with each component changed by as much."""
    return tuple(min(max(a + b, 0), 255) for a, b in zip(tcb, changes, strict=True))


@dataclass
class Guest:
    """What the model keeps of a guest, SEV or SNP."""

    policy: int = 0
    state: int = 0
    asid: int | None = None
    ran: bool = False
    keys: TransportKeys = ZERO
    measure: bytes = b""
    digest: bytes = b""
    counters: list[int] = field(default_factory=lambda: [0] * 4)


@dataclass
class Model:
    """The specification's view of one platform."""

    up: bool = False
    es: bool = False
    snp: bool = False
    guests: dict[int, Guest] = field(default_factory=dict)
    contexts: dict[int, Guest] = field(default_factory=dict)
    dirty: set[int] = field(default_factory=set)
    written_back: bool = True
    current: tuple[int, ...] = (4, 0, 24, 219)
    committed: tuple[int, ...] = (4, 0, 24, 219)
    reported: tuple[int, ...] | None = None

    @property
    def pstate(self) -> PlatformState:
        """WORKING if and only if there is a guest."""
        if not self.up:
            return UNINIT
        return WORKING if self.guests else INIT

    @property
    def owned(self) -> dict[int, Guest]:
        every = [*self.guests.values(), *self.contexts.values()]
        return {guest.asid: guest for guest in every if guest.asid is not None}

    def soil(self) -> None:
        self.dirty |= set(range(1, MAX_ASID + 1)) - self.owned.keys()

    def release(self, guest: Guest) -> None:
        if guest.asid is not None and guest.ran:
            self.dirty.add(guest.asid)
            self.written_back = False
        guest.asid = None

    def sev_command(self, name: str) -> FirmwareStatus:
        return first([(self.pstate not in SEV[name], S.INVALID_PLATFORM_STATE)])

    def guest_command(self, name: str, handle: int) -> Checks:
        states, _, active = GUEST[name]
        yield self.pstate is not WORKING, S.INVALID_PLATFORM_STATE
        yield handle not in self.guests, S.INVALID_GUEST
        yield self.guests[handle].state not in states, S.INVALID_GUEST_STATE
        yield active and self.guests[handle].asid is None, S.INACTIVE

    def snp_command(self, name: str, context: int) -> Checks:
        states, _, active = SNP_GUEST[name]
        yield not self.snp, S.INVALID_PLATFORM_STATE
        yield context not in self.contexts, S.INVALID_GUEST
        yield self.contexts[context].state not in states, S.INVALID_GUEST_STATE
        yield active and self.contexts[context].asid is None, S.INACTIVE

    def asid(self, guest: Guest, asid: int, *, es: bool) -> Checks:
        yield not 1 <= asid <= MAX_ASID, S.INVALID_ASID
        yield asid in self.owned, S.ASID_OWNED
        yield guest.asid is not None, S.ACTIVE
        yield asid in self.dirty, S.DFFLUSH_REQUIRED
        yield es is not (asid < MIN_SEV), S.INVALID_ASID

    def activate(self, handle: int, asid: int) -> Checks:
        yield from self.guest_command("activate", handle)
        guest = self.guests[handle]
        yield from self.asid(guest, asid, es=bool(guest.policy & 4))

    def activate_snp(self, context: int, asid: int) -> Checks:
        yield from self.snp_command("activate", context)
        yield from self.asid(self.contexts[context], asid, es=True)

    def vmsa(self, handle: int, size: int) -> Checks:
        yield size != 4096, S.INVALID_LEN
        yield self.pstate is not WORKING, S.INVALID_PLATFORM_STATE
        yield handle not in self.guests, S.INVALID_GUEST
        yield self.guests[handle].state != LUPDATE, S.INVALID_GUEST_STATE
        yield not self.guests[handle].policy & 4, S.UNSUPPORTED
        yield self.guests[handle].asid is None, S.INACTIVE

    def secret(self, handle: int, address: int, sizes: tuple[int, int], *, good: bool) -> Checks:
        yield self.pstate is not WORKING, S.INVALID_PLATFORM_STATE
        yield handle not in self.guests, S.INVALID_GUEST
        yield address % 16 != 0, S.INVALID_ADDRESS
        yield sizes[0] != 52 or sizes[1] % 16 != 0 or not 0 < sizes[1] <= 16384, S.INVALID_LEN
        yield from self.guest_command("launch_secret", handle)
        yield not good, S.BAD_MEASUREMENT

    def launch(self, policy: int, share: int, *, sealed_for: int | None) -> Checks:
        yield self.pstate not in UP, S.INVALID_PLATFORM_STATE
        yield sealed_for not in {None, policy}, S.BAD_MEASUREMENT
        yield sealed_for is not None and (policy >> 16 & 0xFF) > 1, S.POLICY_FAILURE
        if share:
            yield share not in self.guests, S.INVALID_GUEST
            other = self.guests[share].policy
            yield other != policy or bool(other & 2), S.POLICY_FAILURE
        yield bool(policy & 4) and not self.es, S.UNSUPPORTED

    def update(self, context: int, kind: int, size: int, gpa: int) -> Checks:
        yield not self.snp, S.INVALID_PLATFORM_STATE
        yield context not in self.contexts, S.INVALID_GUEST
        yield size not in {0, 4096}, S.INVALID_PAGE_SIZE
        yield gpa % 4096 != 0 or (kind in {1, 2} and not size), S.INVALID_ADDRESS
        yield not 1 <= kind <= 6, S.INVALID_PARAM
        yield from self.snp_command("launch_update", context)

    def start_snp(self, context: int, policy: int) -> Checks:
        yield from self.snp_command("launch_start", context)
        legal = policy & 0x30000 == 0x30000 and not policy >> 21
        yield not legal or (policy >> 8 & 0xFF, policy & 0xFF) > (1, 55), S.POLICY_FAILURE

    def request(self, context: int, vmpck: int, step: int, *, flipped: bool) -> Checks:
        yield from self.snp_command("guest_request", context)
        yield flipped, S.BAD_MEASUREMENT
        yield step != 1, S.AEAD_OFLOW

    def shutdown_snp(self) -> Checks:
        yield self.up, S.INVALID_PLATFORM_STATE
        yield self.snp and bool(self.owned or self.dirty), S.DFFLUSH_REQUIRED

    def config(self, wanted: tuple[int, ...]) -> Checks:
        higher = any(a > b for a, b in zip(wanted, self.committed, strict=True))
        yield any(wanted) and higher, S.INVALID_PARAM

    def firmware(self, tcb: tuple[int, ...]) -> Checks:
        yield self.up, S.INVALID_PLATFORM_STATE
        yield any(a < b for a, b in zip(tcb, self.committed, strict=True)), S.UPDATE_FAILED


@cache
def chip() -> ChipIdentity:
    return ChipIdentity(Product.MILAN, make_roots(), SimulatedRoots(ProductLine.MILAN))


#: Which of the guests that there are, or of the handles that are none.
CHOICES: Final = st.integers(0, 11)
NO_HANDLES: Final = (0, -1, 1025, 1 << 40)
ASIDS: Final = st.integers(0, MAX_ASID + 1)
SIZES: Final = st.sampled_from((0, 1, 16, 4080, 4096, 4112))
POLICIES: Final = st.sampled_from((0, 1, 2, 3, 4, 5, 7, 0x3701_0001, 0x0002_0001))
PARTS: Final = st.sampled_from((-1, 0, 0, 1))


guest_there = precondition(lambda self: bool(self.model.guests))
context_there = precondition(lambda self: bool(self.model.contexts))


class Firmwares(RuleBasedStateMachine):
    """Drives both."""

    def __init__(self) -> None:
        super().__init__()
        self.real = SecureProcessor(chip(), asids=AsidRange(MAX_ASID, MIN_SEV))
        self.model = Model()
        self.seen: dict[int, tuple[int, bytes]] = {}
        self.counted: dict[tuple[int, int], int] = {}

    def run(self, expected: FirmwareStatus, command: Callable[[], Any]) -> tuple[bool, Any]:
        """Run a command; return whether it succeeded, which the model foretold, and its answer."""
        status, found = S.SUCCESS, None
        try:
            found = command()
        except CommandError as refused:
            status = refused.status
        assert status is expected
        return status is S.SUCCESS, found

    @initialize(
        up=st.sampled_from(("both", "both", "sev", "snp", "nothing")),
        es=st.booleans(),
        steps=st.lists(st.tuples(CHOICES, ASIDS), max_size=12),
    )
    def boot(self, up: str, es: bool, steps: list[tuple[int, int]]) -> None:
        """Bring up what Linux would, and some guests: there is little to be seen before."""
        if up in {"both", "snp"}:
            self.snp_platform(up=True)
        if up in {"both", "sev"}:
            self.sev("init", es)
        self.flush(snp=False, wbinvd=True)
        for choice, asid in steps:
            self.go_on(choice, asid)
            self.go_on_snp(choice, asid)

    @rule(name=st.sampled_from(SEV_OFTEN), es=st.booleans())
    def sev(self, name: str, es: bool) -> None:
        command = getattr(self.real.sev, name)
        if name == "init":
            command = partial(command, es=es)
        done, found = self.run(self.model.sev_command(name), command)
        if not done:
            return
        if name == "status":
            assert (found.state, found.guest_count) == (self.model.pstate, len(self.model.guests))
        if name == "init":
            self.model.up, self.model.es = True, es
            self.model.soil()
        if name == "shutdown":
            for guest in self.model.guests.values():
                self.model.release(guest)
            self.model.guests.clear()
            self.model.up = self.model.es = False

    @rule(snp=st.booleans(), wbinvd=st.booleans())
    def flush(self, snp: bool, wbinvd: bool) -> None:
        if wbinvd:
            self.real.core.wbinvd()
            self.model.written_back = True
        command = self.real.snp.df_flush if snp else self.real.sev.df_flush
        expected = first([(not self.model.written_back, S.WBINVD_REQUIRED)])
        if self.run(expected, command)[0]:
            self.model.dirty.clear()

    @rule(policy=POLICIES, share=st.integers(0, 3), owner=st.sampled_from(("none", "his", "other")))
    def launch_start(self, policy: int, share: int, owner: str) -> None:
        sealed_for = None
        session: dict[str, bytes] = {}
        keys = ZERO
        if owner != "none" and self.model.up:
            sealed_for = policy if owner == "his" else policy ^ 8
            pdh = parse_sev_certificate(self.real.sev.pdh_cert_export()[0])
            private = ec.generate_private_key(ec.SECP384R1())
            shared = compute_shared_secret(private, godh_key(pdh))
            keys = TransportKeys(Secret(os.urandom(16)), Secret(os.urandom(16)))
            blob = seal_session(shared, keys, sealed_for, nonce=bytes(16), iv=bytes(16))
            session = {"session": blob.encode(), "godh": encode_godh(private)}
        command = partial(self.real.sev_guests.launch_start, policy, share_with=share, **session)
        expected = first(self.model.launch(policy, share, sealed_for=sealed_for))
        done, handle = self.run(expected, command)
        if done:
            free = next(number for number in range(1, 1025) if number not in self.model.guests)
            assert handle == free
            self.model.guests[handle] = Guest(policy, LUPDATE, keys=keys)

    @guest_there
    @rule(choice=CHOICES, asid=ASIDS)
    def activate(self, choice: int, asid: int) -> None:
        handle = self.some_handle(choice)
        command = partial(self.real.sev_guests.activate, handle, asid)
        if self.run(first(self.model.activate(handle, asid)), command)[0]:
            guest = self.model.guests[handle]
            guest.asid = asid
            guest.ran = guest.ran or guest.state == RUNNING

    @guest_there
    @rule(choice=CHOICES)
    def deactivate(self, choice: int) -> None:
        handle = self.some_handle(choice)
        command = partial(self.real.sev_guests.deactivate, handle)
        expected = first(self.model.guest_command("deactivate", handle))
        if self.run(expected, command)[0]:
            self.model.release(self.model.guests[handle])

    @guest_there
    @rule(choice=CHOICES)
    def decommission(self, choice: int) -> None:
        handle = self.some_handle(choice)
        expected = first(self.model.guest_command("decommission", handle))
        if expected is S.SUCCESS and self.model.guests[handle].asid is not None:
            expected = S.ACTIVE
        if self.run(expected, partial(self.real.sev_guests.decommission, handle))[0]:
            del self.model.guests[handle]

    @guest_there
    @rule(choice=CHOICES)
    def guest_status(self, choice: int) -> None:
        handle = self.some_handle(choice)
        expected = first([(self.model.pstate not in UP, S.INVALID_PLATFORM_STATE)])
        done, status = self.run(expected, partial(self.real.sev_guests.guest_status, handle))
        if done:
            guest = self.model.guests.get(handle, Guest())
            assert status == (guest.policy, guest.asid or 0, guest.state)

    @guest_there
    @rule(choice=CHOICES, size=SIZES)
    def update_data(self, choice: int, size: int) -> None:
        handle = self.some_handle(choice)
        expected = first(self.model.guest_command("launch_update_data", handle))
        if expected is S.SUCCESS and (size == 0 or size % 16):
            expected = S.INVALID_LEN
        self.run(expected, partial(self.real.sev_guests.launch_update_data, handle, bytes(size)))

    @guest_there
    @rule(choice=CHOICES, size=SIZES)
    def update_vmsa(self, choice: int, size: int) -> None:
        handle = self.some_handle(choice)
        command = partial(self.real.sev_guests.launch_update_vmsa, handle, bytes(size))
        self.run(first(self.model.vmsa(handle, size)), command)

    @guest_there
    @rule(choice=CHOICES)
    def measure(self, choice: int) -> None:
        handle = self.some_handle(choice)
        expected = first(self.model.guest_command("launch_measure", handle))
        done, blob = self.run(expected, partial(self.real.sev_guests.launch_measure, handle))
        if done:
            guest = self.model.guests[handle]
            guest.state, guest.measure = LSECRET, blob[:32]
            guest.digest = self.real.sev_guests[handle].digest.digest()

    @guest_there
    @rule(
        choice=CHOICES,
        address=st.sampled_from((0, 8, 0x81_0000)),
        sizes=st.sampled_from(((52, 32), (52, 32), (51, 32), (52, 0), (52, 24), (52, 16400))),
        good=st.booleans(),
    )
    def secret(self, choice: int, address: int, sizes: tuple[int, int], good: bool) -> None:
        handle = self.some_handle(choice)
        guest = self.model.guests.get(handle, Guest())
        measure = guest.measure if good and guest.measure else bytes(32)
        packet = seal_packet(guest.keys, Secret(bytes(32)), measure=measure, iv=bytes(16))
        ciphertext = packet.ciphertext if sizes[1] == 32 else bytes(sizes[1])
        command = partial(
            self.real.sev_guests.launch_secret,
            handle,
            packet.header[: sizes[0]],
            ciphertext,
            guest_address=address,
        )
        self.run(first(self.model.secret(handle, address, sizes, good=good)), command)

    @guest_there
    @rule(choice=CHOICES)
    def finish(self, choice: int) -> None:
        handle = self.some_handle(choice)
        expected = first(self.model.guest_command("launch_finish", handle))
        if self.run(expected, partial(self.real.sev_guests.launch_finish, handle))[0]:
            guest = self.model.guests[handle]
            guest.state, guest.keys, guest.ran = RUNNING, ZERO, guest.asid is not None

    @guest_there
    @rule(choice=CHOICES, size=st.sampled_from((16, 16, 15)))
    def attestation(self, choice: int, size: int) -> None:
        handle = self.some_handle(choice)
        expected = first(self.model.guest_command("attestation", handle))
        if expected is S.SUCCESS and size != 16:
            expected = S.INVALID_LEN
        command = partial(self.real.sev_guests.attestation, handle, bytes(size))
        done, report = self.run(expected, command)
        assert not done or len(report) == 208

    @rule(up=st.booleans())
    def snp_platform(self, up: bool) -> None:
        model, snp = self.model, self.real.snp
        if up:
            expected = first([(model.snp or model.up, S.INVALID_PLATFORM_STATE)])
            if self.run(expected, snp.init)[0]:
                model.snp = True
                model.soil()
        elif self.run(first(model.shutdown_snp()), snp.shutdown)[0]:
            if model.snp:
                model.contexts.clear()
            model.snp = False

    @rule(
        what=st.sampled_from(("config", "reset", "commit", "update")),
        changes=st.tuples(PARTS, PARTS, PARTS, PARTS),
    )
    def tcb(self, what: str, changes: tuple[int, ...]) -> None:
        model, snp = self.model, self.real.snp
        if what == "commit":
            self.run(S.SUCCESS, snp.commit)
            model.committed, model.reported = model.current, None
        elif what == "reset":
            self.run(S.SUCCESS, snp.config)
            model.reported = model.committed
        elif what == "config":
            wanted = moved(model.committed, changes)
            raw = snp.raw(TcbVersion(*wanted))
            if self.run(first(model.config(wanted)), partial(snp.config, raw))[0]:
                model.reported = wanted
        else:
            wanted = moved(model.current, changes)
            firmware = Firmware(FirmwareVersion(1, 55, 40), TcbVersion(*wanted))
            command = partial(snp.update_firmware, firmware)
            if self.run(first(model.firmware(wanted)), command)[0]:
                model.current = wanted

    @rule()
    def gctx_create(self) -> None:
        expected = first([(not self.model.snp, S.INVALID_PLATFORM_STATE)])
        done, context = self.run(expected, self.real.snp_guests.gctx_create)
        if done:
            assert context not in self.model.contexts
            self.model.contexts[context] = Guest()

    def some_handle(self, choice: int) -> int:
        """Return the handle of a guest, the oldest more often than others, or one of none."""
        known = [*self.model.guests, *NO_HANDLES]
        return known[choice % len(known) if choice > 5 else 0]

    def some_context(self, choice: int) -> int:
        """Return one of the contexts in the same way."""
        known = [*self.model.contexts, 0, 1 << 20]
        return known[choice % len(known) if choice > 5 else 0]

    @context_there
    @rule(
        choice=CHOICES,
        policy=st.sampled_from((0x30000, 0x30000, 0x10000, 0x20000, 0x30200, 1 << 30 | 0x30000)),
    )
    def start_snp(self, choice: int, policy: int) -> None:
        context = self.some_context(choice)
        command = partial(self.real.snp_guests.launch_start, context, policy)
        if self.run(first(self.model.start_snp(context, policy)), command)[0]:
            self.model.contexts[context].state = SNP_LAUNCH

    @context_there
    @rule(choice=CHOICES, asid=ASIDS)
    def activate_snp(self, choice: int, asid: int) -> None:
        context = self.some_context(choice)
        command = partial(self.real.snp_guests.activate, context, asid)
        if self.run(first(self.model.activate_snp(context, asid)), command)[0]:
            self.model.contexts[context].asid = asid

    @context_there
    @rule(
        choice=CHOICES,
        kind=st.integers(-1, 8),
        size=st.sampled_from((0, 4096, 4096, 100)),
        gpa=st.sampled_from((0, 0x1000, 0x800)),
    )
    def update_snp(self, choice: int, kind: int, size: int, gpa: int) -> None:
        context = self.some_context(choice)
        command = partial(self.real.snp_guests.launch_update, context, kind, bytes(size), gpa=gpa)
        self.run(first(self.model.update(context, kind, size, gpa)), command)

    @context_there
    @rule(choice=CHOICES)
    def finish_snp(self, choice: int) -> None:
        context = self.some_context(choice)
        command = partial(self.real.snp_guests.launch_finish, context)
        if self.run(first(self.model.snp_command("launch_finish", context)), command)[0]:
            guest = self.model.contexts[context]
            guest.state, guest.ran = SNP_RUNNING, True
            guest.digest = self.real.snp_guests[context].digest

    @context_there
    @rule(choice=CHOICES)
    def decommission_snp(self, choice: int) -> None:
        context = self.some_context(choice)
        command = partial(self.real.snp_guests.decommission, context)
        if self.run(first(self.model.snp_command("decommission", context)), command)[0]:
            self.model.release(self.model.contexts.pop(context))

    @context_there
    @rule(
        choice=CHOICES,
        vmpck=st.integers(0, 3),
        step=st.sampled_from((1, 1, 1, 0, 2, 3)),
        flipped=st.booleans(),
        vmpl=st.integers(0, 4),
    )
    def request(self, choice: int, vmpck: int, step: int, flipped: bool, vmpl: int) -> None:
        context = self.some_context(choice)
        guest = self.model.contexts.get(context)
        message = bytes(192)
        if guest is not None and guest.state == SNP_RUNNING:
            payload = encode_report_request(bytes(64), vmpl=vmpl)
            number = guest.counters[vmpck] + step
            key = self.real.snp_guests[context].vmpcks[vmpck]
            message = seal_message(Message(MessageType.REPORT_REQ, payload, number, vmpck), key)
        if flipped:
            message = message[:-1] + bytes([message[-1] ^ 1])
        command = partial(self.real.messages.guest_request, context, message)
        expected = first(self.model.request(context, vmpck, step, flipped=flipped))
        if self.run(expected, command)[0]:
            assert guest is not None
            guest.counters[vmpck] += 2

    @rule(name=st.sampled_from(sorted(GUEST)), handle=st.sampled_from(NO_HANDLES))
    def sev_nobody(self, name: str, handle: int) -> None:
        """Name a guest that is none, with arguments that are right in themselves."""
        arguments: dict[str, tuple[object, ...]] = {
            "activate": (1,),
            "launch_update_data": (bytes(16),),
            "launch_update_vmsa": (bytes(4096),),
            "launch_secret": (bytes(52), bytes(16)),
            "attestation": (bytes(16),),
        }
        command = partial(getattr(self.real.sev_guests, name), handle, *arguments.get(name, ()))
        self.run(first(self.model.guest_command(name, handle)), command)

    @rule(name=st.sampled_from(sorted(SNP_GUEST)), context=st.sampled_from(NO_HANDLES))
    def snp_nobody(self, name: str, context: int) -> None:
        """The same with a context."""
        owner = self.real.messages if name == "guest_request" else self.real.snp_guests
        arguments: dict[str, tuple[object, ...]] = {
            "launch_start": (0x30000,),
            "activate": (1,),
            "launch_update": (1, bytes(4096)),
            "guest_request": (bytes(192),),
        }
        command = partial(getattr(owner, name), context, *arguments.get(name, ()))
        self.run(first(self.model.snp_command(name, context)), command)

    @rule(choice=CHOICES, asid=st.integers(1, MAX_ASID))
    def go_on(self, choice: int, asid: int) -> None:
        """Take a SEV guest one step further."""
        guest = self.model.guests.get(self.some_handle(choice))
        if guest is None:
            self.launch_start(choice & 5, 0, ("none", "his")[choice & 1])
        elif guest.asid is None:
            self.activate(choice, asid)
        elif guest.state == LUPDATE:
            self.measure(choice)
        else:
            self.finish(choice)

    @rule(choice=CHOICES, asid=st.integers(1, MAX_ASID))
    def go_on_snp(self, choice: int, asid: int) -> None:
        """Take an SNP guest one step further."""
        guest = self.model.contexts.get(self.some_context(choice))
        if guest is None:
            self.gctx_create()
        elif guest.state == SNP_INIT:
            self.start_snp(choice, 0x30000)
        elif guest.asid is None:
            self.activate_snp(choice, asid)
        else:
            self.finish_snp(choice)

    @rule()
    def die_and_be_healed(self) -> None:
        real = self.real
        real.faults.kill()
        for command in (
            real.sev.status,
            real.sev.shutdown,
            real.snp.status,
            real.snp.shutdown,
            partial(real.sev_guests.launch_start, 1),
            partial(real.sev_guests.decommission, 1),
            partial(real.sev_guests.launch_update_vmsa, 1, b""),
            partial(real.snp_guests.decommission, 1),
            partial(real.messages.guest_request, 1, bytes(192)),
        ):
            with pytest.raises(NoAnswer):
                command()
        real.faults.heal()

    @invariant()
    def states_have_their_reasons(self) -> None:
        real, model = self.real, self.model
        assert real.sev.state is model.pstate
        assert real.core.snp_initialized is model.snp
        assert set(real.sev_guests.handles) == set(model.guests)
        assert set(real.snp_guests.contexts) == set(model.contexts)
        for handle, guest in model.guests.items():
            context = real.sev_guests[handle]
            assert (context.state, context.asid, context.ran) == (
                guest.state,
                guest.asid,
                guest.ran,
            )
        for number, guest in model.contexts.items():
            assert real.snp_guests[number].state is SnpGuestState(guest.state)
            assert real.snp_guests[number].asid == guest.asid

    @invariant()
    def every_asid_has_one_owner_that_is_there(self) -> None:
        owners = dict(self.real.core.owned_asids)
        by_guest = {
            guest.asid: handle
            for handle in self.real.sev_guests.handles
            if (guest := self.real.sev_guests[handle]).asid is not None
        }
        by_context = {
            found.asid: -context
            for context in self.real.snp_guests.contexts
            if (found := self.real.snp_guests[context]).asid is not None
        }
        assert not by_guest.keys() & by_context.keys()
        assert owners == {asid: who for asid, who in (by_guest | by_context).items() if asid}
        assert self.real.core.asids_clean is not bool(owners or self.model.dirty)

    @invariant()
    def keys_live_until_a_guest_runs_and_digests_are_fixed_before(self) -> None:
        for handle, guest in self.model.guests.items():
            context = self.real.sev_guests[handle]
            assert context.keys == guest.keys
            if guest.digest:
                assert context.digest.digest() == guest.digest
        for number, guest in self.model.contexts.items():
            assert not guest.digest or self.real.snp_guests[number].digest == guest.digest

    @invariant()
    def tcb_versions_stand_in_their_order(self) -> None:
        snp, model = self.real.snp, self.model
        assert snp.current_tcb == TcbVersion(*model.current)
        assert snp.committed_tcb == TcbVersion(*model.committed)
        assert snp.reported_tcb == TcbVersion(*(model.reported or model.committed))
        assert not snp.committed_tcb.below(snp.reported_tcb)
        assert not snp.current_tcb.below(snp.committed_tcb)

    @invariant()
    def counters_only_grow(self) -> None:
        for number, guest in self.model.contexts.items():
            assert self.real.snp_guests[number].counters == guest.counters
            for index, count in enumerate(guest.counters):
                assert count >= self.counted.get((number, index), 0)
                self.counted[number, index] = count


TestFirmwares = Firmwares.TestCase
TestFirmwares.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
