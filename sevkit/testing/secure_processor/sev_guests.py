"""SEV and SEV-ES guests: from LAUNCH_START to a running guest, as the firmware goes through it.

Theory of operation. A guest is made by LAUNCH_START in GSTATE LUPDATE: the session that the guest
owner sealed is opened with the platform's DH key, and its MACs are checked. UPDATE_DATA and
UPDATE_VMSA feed the launch digest. MEASURE closes it: it draws a nonce, keys an HMAC with the
owner's TIK, and leads to LSECRET, in which SECRET takes packets that are bound to that very
measurement. FINISH forgets TEK and TIK and leads to RUNNING. Nothing leads back.

``_RULES`` says for each command in which states it is legal. What is wrong is found in the
firmware's own order: PSTATE, handle, GSTATE, activity, then lengths and contents, except where the
row says otherwise. Guest memory is not kept, only what the owner injected: plaintext that the guest
could read and the host cannot.

Source: 55766 chapters 4 (guest states) and 6 (guest management).
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple, final

from sevkit.abi.firmware_status import CommandError, FirmwareStatus
from sevkit.abi.platform_status import PlatformState
from sevkit.abi.policy import SevPolicy
from sevkit.abi.secret_packet import MAX_TABLE_SIZE, PACKET_HEADER, SecretPacket, open_packet
from sevkit.abi.sevcert import Algorithm, Usage
from sevkit.abi.vmsa import VMSA_SIZE
from sevkit.errors import FormatError, SignatureMismatch, UsageError
from sevkit.measure.launch_measurement import compute_launch_measurement
from sevkit.testing.secure_processor.session_check import NO_KEYS, take_session

if TYPE_CHECKING:
    from _hashlib import HASH
    from collections.abc import Mapping

    from sevkit.abi.session import TransportKeys
    from sevkit.secret import Secret
    from sevkit.testing.secure_processor.core import Core
    from sevkit.testing.secure_processor.sev_platform import SevPlatform

MAX_GUESTS: Final = 1024
_BLOCK: Final = 16
_REPORT: Final = struct.Struct("<16s32sIIII")
_REPORT_SIGNED: Final = 52


class GuestState(IntEnum):
    """GSTATE."""

    UNINIT = 0
    LUPDATE = 1
    LSECRET = 2
    RUNNING = 3


@final
@dataclass(slots=True)
class SevGuest:
    """One guest context. ``injected`` holds (guest address, plaintext) of every secret taken."""

    handle: int
    policy: int
    keys: TransportKeys
    digest: HASH
    state: GuestState = GuestState.LUPDATE
    asid: int | None = None
    ran: bool = False
    mnonce: bytes = b""
    measure: bytes = b""
    vmsas: int = 0
    injected: list[tuple[int, Secret]] = field(default_factory=list)

    @property
    def es(self) -> bool:
        """Whether the guest's register state is encrypted."""
        return bool(self.policy & SevPolicy.ES)


class SevGuestStatus(NamedTuple):
    """GUEST_STATUS: ``asid`` is 0 for a guest without one, ``state`` UNINIT for no guest at all."""

    policy: int
    asid: int
    state: GuestState


class _Rule(NamedTuple):
    states: frozenset[GuestState]
    active: bool = False


_ALL: Final = frozenset(GuestState) - {GuestState.UNINIT}
_LUPDATE: Final = frozenset({GuestState.LUPDATE})
_LSECRET: Final = frozenset({GuestState.LSECRET})
_WORKING: Final = frozenset({PlatformState.WORKING})
_UP: Final = frozenset({PlatformState.INIT, PlatformState.WORKING})

#: GSTATEs in which each command is legal, and whether the guest must have an ASID (55766 6).
_RULES: Final[Mapping[str, _Rule]] = {
    "ACTIVATE": _Rule(_ALL),
    "DEACTIVATE": _Rule(_ALL),
    "DECOMMISSION": _Rule(_ALL),
    "LAUNCH_UPDATE_DATA": _Rule(_LUPDATE, active=True),
    "LAUNCH_UPDATE_VMSA": _Rule(_LUPDATE, active=True),
    "LAUNCH_MEASURE": _Rule(_LUPDATE),
    "LAUNCH_SECRET": _Rule(_LSECRET, active=True),
    "LAUNCH_FINISH": _Rule(_LSECRET),
    "ATTESTATION": _Rule(frozenset({GuestState.LSECRET, GuestState.RUNNING})),
}


@final
class SevGuests:
    """The guest commands of one secure processor; each raises ``CommandError`` or ``NoAnswer``."""

    def __init__(self, core: Core, platform: SevPlatform) -> None:
        self._core: Final = core
        self._platform: Final = platform
        self._guests: Final[dict[int, SevGuest]] = {}
        platform.guest_count = lambda: len(self._guests)
        platform.end_guests = self._end_all

    def __getitem__(self, handle: int) -> SevGuest:
        """Return a guest's context: what nobody outside the processor can see of a real one."""
        return self._guests[handle]

    @property
    def handles(self) -> tuple[int, ...]:
        """Handles of all guests."""
        return tuple(self._guests)

    def launch_start(
        self, policy: int, *, session: bytes = b"", godh: bytes = b"", share_with: int = 0
    ) -> int:
        """LAUNCH_START (55766 6.2): return the handle of a new guest under ``policy`` (32 bits).

        ``session`` (128 bytes) and ``godh`` (2084 bytes) are the guest owner's; without ``godh``
        there is no owner: TEK and TIK are zero and nothing binds the policy. ``share_with`` is the
        handle of a guest whose memory key is shared. Raises ``UsageError`` for a policy of more
        bits.
        """
        command = "LAUNCH_START"
        if not 0 <= policy < 1 << 32:
            raise UsageError("a SEV guest policy has 32 bits")
        self._platform.enter(command, _UP)
        keys = NO_KEYS
        if godh:
            api = self._core.firmware.version[:2]
            pdh = self._platform.pdh_key()
            keys = take_session(command, pdh, session, godh, policy=policy, api=api)
        if share_with:
            other = self._guests.get(share_with)
            if other is None:
                raise CommandError(command, FirmwareStatus.INVALID_GUEST)
            if other.policy != policy or other.policy & SevPolicy.NOKS:
                raise CommandError(command, FirmwareStatus.POLICY_FAILURE)
        if len(self._guests) == MAX_GUESTS:
            raise CommandError(command, FirmwareStatus.RESOURCE_LIMIT)
        if policy & SevPolicy.ES and (not self._platform.es or self._core.sev_es_blocked):
            reason = "SNP is initialised" if self._platform.es else "SEV-ES is not initialised"
            raise CommandError(command, FirmwareStatus.UNSUPPORTED, reason)
        handle = next(number for number in range(1, MAX_GUESTS + 1) if number not in self._guests)
        self._guests[handle] = SevGuest(handle, policy, keys, hashlib.sha256())
        self._platform.state = PlatformState.WORKING
        return handle

    def activate(self, handle: int, asid: int) -> None:
        """ACTIVATE (55766 6.8): give the guest an ASID, so a slot in the memory controller."""
        guest = self._enter("ACTIVATE", handle)
        self._core.activate("ACTIVATE", asid, handle, guest.asid, encrypted_state=guest.es)
        guest.asid = asid
        guest.ran = guest.ran or guest.state is GuestState.RUNNING

    def deactivate(self, handle: int) -> None:
        """DEACTIVATE (55766 6.9): take the guest's ASID; caches may still hold its data."""
        guest = self._enter("DEACTIVATE", handle)
        if guest.asid is None:
            raise CommandError("DEACTIVATE", FirmwareStatus.INACTIVE)
        self._core.drop_asid(guest.asid, ran=guest.ran)
        guest.asid = None

    def decommission(self, handle: int) -> None:
        """DECOMMISSION (55766 6.7): forget the guest, which must have no ASID any more."""
        guest = self._enter("DECOMMISSION", handle)
        if guest.asid is not None:
            raise CommandError("DECOMMISSION", FirmwareStatus.ACTIVE)
        del self._guests[handle]
        if not self._guests:
            self._platform.state = PlatformState.INIT

    def guest_status(self, handle: int) -> SevGuestStatus:
        """GUEST_STATUS (55766 6.13): a handle without a guest is no error, its state is UNINIT."""
        self._platform.enter("GUEST_STATUS", _UP)
        guest = self._guests.get(handle)
        if guest is None:
            return SevGuestStatus(0, 0, GuestState.UNINIT)
        return SevGuestStatus(guest.policy, guest.asid or 0, guest.state)

    def launch_update_data(self, handle: int, data: bytes) -> None:
        """LAUNCH_UPDATE_DATA (55766 6.3): encrypt ``data`` into the guest and into its digest."""
        guest = self._enter("LAUNCH_UPDATE_DATA", handle)
        if not data or len(data) % _BLOCK:
            raise CommandError("LAUNCH_UPDATE_DATA", FirmwareStatus.INVALID_LEN)
        guest.digest.update(data)

    def launch_update_vmsa(self, handle: int, page: bytes) -> None:
        """LAUNCH_UPDATE_VMSA (55766 6.4): a vCPU's 4096-byte VMSA, of SEV-ES guests only."""
        command = "LAUNCH_UPDATE_VMSA"
        if len(page) != VMSA_SIZE:
            self._core.enter(command)
            raise CommandError(command, FirmwareStatus.INVALID_LEN)
        guest = self._enter(command, handle, active=False)
        if not guest.es:
            raise CommandError(command, FirmwareStatus.UNSUPPORTED)
        if guest.asid is None:
            raise CommandError(command, FirmwareStatus.INACTIVE)
        guest.digest.update(page)
        guest.vmsas += 1

    def launch_measure(self, handle: int) -> bytes:
        """LAUNCH_MEASURE (55766 6.5): 48 bytes, measure ‖ mnonce; then secrets may come."""
        guest = self._enter("LAUNCH_MEASURE", handle)
        version = self._core.firmware.version
        guest.mnonce = self._core.draw(16)
        guest.measure = compute_launch_measurement(
            guest.keys.tik,
            api_major=version.major,
            api_minor=version.minor,
            build_id=version.build,
            policy=guest.policy,
            digest=guest.digest.digest(),
            mnonce=guest.mnonce,
        )
        guest.state = GuestState.LSECRET
        return guest.measure + guest.mnonce

    def launch_secret(
        self, handle: int, header: bytes, ciphertext: bytes, *, guest_address: int = 0
    ) -> None:
        """LAUNCH_SECRET (55766 6.6): check and decrypt a packet, write its plaintext to the guest.

        May be repeated; the firmware does not notice a packet that comes twice.
        """
        command = "LAUNCH_SECRET"
        guest = self._enter(command, handle, check_state=False)
        if guest_address % _BLOCK:
            raise CommandError(command, FirmwareStatus.INVALID_ADDRESS)
        size = len(ciphertext)
        if len(header) != PACKET_HEADER.size or not 0 < size <= MAX_TABLE_SIZE or size % _BLOCK:
            raise CommandError(command, FirmwareStatus.INVALID_LEN)
        self._check_state(command, guest)
        try:
            packet = SecretPacket(header, ciphertext)
            table = open_packet(guest.keys, packet, measure=guest.measure)
        except SignatureMismatch as error:
            raise CommandError(command, FirmwareStatus.BAD_MEASUREMENT) from error
        except FormatError as error:
            raise CommandError(command, FirmwareStatus.UNSUPPORTED, error.message) from error
        guest.injected.append((guest_address, table))

    def launch_finish(self, handle: int) -> None:
        """LAUNCH_FINISH (55766 6.7): forget TEK and TIK; the guest may run."""
        guest = self._enter("LAUNCH_FINISH", handle)
        guest.keys = NO_KEYS
        guest.state = GuestState.RUNNING
        guest.ran = guest.asid is not None

    def attestation(self, handle: int, mnonce: bytes) -> bytes:
        """ATTESTATION (55766 6.14): 208 bytes over the caller's nonce, signed by the PEK."""
        guest = self._enter("ATTESTATION", handle)
        if len(mnonce) != 16:
            raise CommandError("ATTESTATION", FirmwareStatus.INVALID_LEN)
        body = _REPORT.pack(
            mnonce, guest.digest.digest(), guest.policy, Usage.PEK, Algorithm.ECDSA_SHA256, 0
        )
        return body + self._platform.sign_with_pek(body[:_REPORT_SIGNED])[:144]

    def _enter(
        self, command: str, handle: int, *, check_state: bool = True, active: bool | None = None
    ) -> SevGuest:
        """Pass the gate: log, faults, PSTATE, handle, and what the command's row demands."""
        self._platform.enter(command, _WORKING)
        guest = self._guests.get(handle)
        if guest is None:
            raise CommandError(command, FirmwareStatus.INVALID_GUEST)
        if check_state:
            self._check_state(command, guest, active=active)
        return guest

    def _check_state(self, command: str, guest: SevGuest, *, active: bool | None = None) -> None:
        rule = _RULES[command]
        if guest.state not in rule.states:
            raise CommandError(command, FirmwareStatus.INVALID_GUEST_STATE, guest.state.name)
        if (rule.active if active is None else active) and guest.asid is None:
            raise CommandError(command, FirmwareStatus.INACTIVE)

    def _end_all(self) -> None:
        for guest in self._guests.values():
            if guest.asid is not None:
                self._core.drop_asid(guest.asid, ran=guest.ran)
        self._guests.clear()
