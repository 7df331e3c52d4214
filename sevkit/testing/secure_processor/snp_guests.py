"""SNP guests: launch page by page, and what the secure processor keeps of them.

Theory of operation. GCTX_CREATE makes a context in GSTATE INIT, LAUNCH_START binds a policy and
draws the guest's secrets (LAUNCH), LAUNCH_UPDATE chains each page into the launch digest, and
LAUNCH_FINISH checks the ID block, takes the host data and leads to RUNNING, where the guest may
send messages. A failed LAUNCH_FINISH leaves the guest in LAUNCH. Nothing leads back.

What is wrong is found in the firmware's order: parameters, platform, context, page, GSTATE,
activity, then contents. Page contents are hashed, not kept, except for what the firmware itself
writes: the guest's secrets page with its VMPCKs.

Source: 56860 chapters 4 (guest states, page types) and 8.10 to 8.26 (guest commands).
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Final, final

from sevkit.abi.firmware_status import CommandError, FirmwareStatus
from sevkit.abi.guest_message import VMPCK_SIZE, VMPLS
from sevkit.abi.policy import PlatformInfo, SnpPolicy, parse_snp_policy
from sevkit.errors import FormatError, UsageError
from sevkit.measure.vcpu import signature_of
from sevkit.secret import Secret
from sevkit.testing.secure_processor.id_check import GuestIdentity, check_id_block
from sevkit.testing.snp_report import CPUID_FMS

if TYPE_CHECKING:
    from sevkit.abi.tcb import TcbVersion
    from sevkit.testing.secure_processor.core import Core
    from sevkit.testing.secure_processor.snp_platform import SnpPlatform

PAGE: Final = 4096
#: The address under which every VMSA page is measured (56860 8.17).
VMSA_GPA: Final = 0x0000_FFFF_FFFF_F000
_ZEROS: Final = bytes(48)
_PAGE_INFO: Final = struct.Struct("<48s48sHBBBBBBQ")
_MAX_CPUID: Final = 64
#: The head of a secrets page: its version, IMI_EN, and the chip's CPUID signature.
_SECRETS: Final = struct.Struct("<III")
_SECRETS_VERSION: Final = 3
_SECRETS_VMPCK: Final = 0x20


class SnpGuestState(IntEnum):
    """GSTATE of an SNP guest."""

    INIT = 0
    LAUNCH = 1
    RUNNING = 2


class PageType(IntEnum):
    """PAGE_TYPE of SNP_LAUNCH_UPDATE."""

    NORMAL = 1
    VMSA = 2
    ZERO = 3
    UNMEASURED = 4
    SECRETS = 5
    CPUID = 6


#: Types whose contents are measured; of the others only the fact that they are there is.
_MEASURED: Final = frozenset({PageType.NORMAL, PageType.VMSA})
#: Policy bits that firmware knows from ABI 1.56 on; before, they are reserved.
_POLICY_SINCE_1_56: Final = (
    SnpPolicy.CXL_ALLOW
    | SnpPolicy.MEM_AES_256_XTS
    | SnpPolicy.RAPL_DIS
    | SnpPolicy.CIPHERTEXT_HIDING_DRAM
    | SnpPolicy.PAGE_SWAP_DISABLE
)
#: GUEST_TSC_SCALE and GUEST_TSC_OFFSET of a VMSA, which are measured as zero.
_VMSA_TSC: Final = slice(0x2F0, 0x300)


@final
@dataclass(slots=True)
class SnpGuest:
    """One guest context; ``secrets_page`` is what the firmware wrote into the guest's memory."""

    context: int
    launch_tcb: TcbVersion
    launch_mit_vector: int
    state: SnpGuestState = SnpGuestState.INIT
    policy: int = 0
    digest: bytes = _ZEROS
    asid: int | None = None
    report_id: bytes = b""
    vmpcks: tuple[Secret, ...] = ()
    counters: list[int] = field(default_factory=lambda: [0] * VMPLS)
    identity: GuestIdentity = field(default_factory=GuestIdentity)
    host_data: bytes = bytes(32)
    author_key_en: bool = False
    vcek_disabled: bool = False
    secrets_page: Secret | None = None

    @property
    def ran(self) -> bool:
        """Whether caches may hold the guest's data."""
        return self.state is SnpGuestState.RUNNING


@final
class SnpGuests:
    """The SNP guest commands of one secure processor; each raises ``CommandError``."""

    def __init__(self, core: Core, platform: SnpPlatform) -> None:
        self._core: Final = core
        self._platform: Final = platform
        self._guests: Final[dict[int, SnpGuest]] = {}
        self._next = 1
        platform.guest_count = lambda: sum(
            guest.state is not SnpGuestState.INIT for guest in self._guests.values()
        )
        platform.end_guests = self._guests.clear

    def __getitem__(self, context: int) -> SnpGuest:
        """Return a guest's context: what nobody outside the processor can see of a real one."""
        return self._guests[context]

    @property
    def contexts(self) -> tuple[int, ...]:
        """All guest contexts."""
        return tuple(self._guests)

    def gctx_create(self) -> int:
        """SNP_GCTX_CREATE (56860 8.12): return a new guest context."""
        self._platform.enter("SNP_GCTX_CREATE", initialized=True)
        context = self._next
        self._next += 1
        committed = self._core.committed.mit_vector
        self._guests[context] = SnpGuest(context, self._platform.committed_tcb, committed)
        return context

    def launch_start(self, context: int, policy: int) -> None:
        """SNP_LAUNCH_START (56860 8.16): bind the 64-bit ``policy``, draw the guest's secrets."""
        command = "SNP_LAUNCH_START"
        if not 0 <= policy < 1 << 64:
            raise UsageError("an SNP guest policy has 64 bits")
        guest = self._enter(command, context, SnpGuestState.INIT)
        self._check_policy(command, policy)
        guest.policy = policy
        guest.report_id = self._core.draw(32)
        guest.vmpcks = tuple(Secret(self._core.draw(VMPCK_SIZE)) for _ in range(VMPLS))
        guest.state = SnpGuestState.LAUNCH

    def _check_policy(self, command: str, policy: int) -> None:
        firmware, info = self._core.firmware, self._platform.platform_info
        try:
            flags = parse_snp_policy(policy)
        except FormatError as error:
            raise CommandError(command, FirmwareStatus.POLICY_FAILURE, error.message) from error
        api = firmware.version[:2]
        for wrong, reason in (
            ((policy >> 8 & 0xFF, policy & 0xFF) > api, "ABI version"),
            (info & PlatformInfo.SMT_EN and not flags & SnpPolicy.SMT, "SMT is on"),
            (flags & _POLICY_SINCE_1_56 and api < (1, 56), "a bit that is reserved before 1.56"),
            *(
                (flags & bit and not on, f"{bit.name} is off")
                for bit, on in (
                    (SnpPolicy.CIPHERTEXT_HIDING_DRAM, firmware.ciphertext_hiding),
                    (SnpPolicy.MEM_AES_256_XTS, firmware.aes_256_xts),
                    (SnpPolicy.RAPL_DIS, info & PlatformInfo.RAPL_DIS),
                )
            ),
        ):
            if wrong:
                raise CommandError(command, FirmwareStatus.POLICY_FAILURE, reason)

    def launch_update(
        self, context: int, kind: int, contents: bytes = b"", *, gpa: int = VMSA_GPA
    ) -> None:
        """SNP_LAUNCH_UPDATE (56860 8.17): chain one 4096-byte page at ``gpa`` into the digest.

        ``kind`` is a ``PageType``. ``contents`` of types that are not measured may be left out. A
        VMSA is measured under one address wherever it is, and without its TSC fields. Raises
        ``UsageError`` for an address of more bits.
        """
        command = "SNP_LAUNCH_UPDATE"
        if not 0 <= gpa < 1 << 64:
            raise UsageError("a guest address has 64 bits")
        guest = self._find(command, context)
        if len(contents) not in {0, PAGE}:
            raise CommandError(command, FirmwareStatus.INVALID_PAGE_SIZE)
        if gpa % PAGE or (kind in _MEASURED and not contents):
            raise CommandError(command, FirmwareStatus.INVALID_ADDRESS)
        try:
            page = PageType(kind)
        except ValueError as error:
            status = FirmwareStatus.INVALID_PARAM
            raise CommandError(command, status, f"page type {kind}") from error
        self._check(command, guest, SnpGuestState.LAUNCH, active=True)
        if page is PageType.CPUID and contents:
            self._check_cpuid(command, contents)
        if page is PageType.VMSA:
            zeros = bytes(_VMSA_TSC.stop - _VMSA_TSC.start)
            contents = contents[: _VMSA_TSC.start] + zeros + contents[_VMSA_TSC.stop :]
        measured = hashlib.sha384(contents).digest() if page in _MEASURED else _ZEROS
        at = VMSA_GPA if page is PageType.VMSA else gpa
        info = _PAGE_INFO.pack(guest.digest, measured, _PAGE_INFO.size, page, 0, 0, 0, 0, 0, at)
        guest.digest = hashlib.sha384(info).digest()
        if page is PageType.SECRETS:
            guest.secrets_page = self._make_secrets(guest)

    def _make_secrets(self, guest: SnpGuest) -> Secret:
        signature = signature_of(*CPUID_FMS[self._core.identity.product])
        head = _SECRETS.pack(_SECRETS_VERSION, 0, signature)
        keys = b"".join(key.reveal() for key in guest.vmpcks)
        return Secret((head.ljust(_SECRETS_VMPCK, b"\0") + keys).ljust(PAGE, b"\0"))

    def _check_cpuid(self, command: str, contents: bytes) -> None:
        count, reserved, more = struct.unpack_from("<IIQ", contents)
        if count > _MAX_CPUID or reserved or more:
            raise CommandError(command, FirmwareStatus.INVALID_PARAM, "CPUID page")

    def launch_finish(
        self,
        context: int,
        *,
        id_block: bytes = b"",
        id_auth: bytes = b"",
        author_key: bool = False,
        host_data: bytes = bytes(32),
        vcek_disabled: bool = False,
    ) -> None:
        """SNP_LAUNCH_FINISH (56860 8.18): check the ID block if there is one, and let it run.

        ``id_block`` has 96 bytes, ``id_auth`` 4096, ``host_data`` 32.
        """
        command = "SNP_LAUNCH_FINISH"
        guest = self._enter(command, context, SnpGuestState.LAUNCH, active=True)
        if len(host_data) != 32:
            raise CommandError(command, FirmwareStatus.INVALID_PARAM, "host data")
        if id_block:
            guest.identity = check_id_block(
                id_block, id_auth, digest=guest.digest, policy=guest.policy, author_key=author_key
            )
        guest.author_key_en = author_key
        guest.host_data = host_data
        guest.vcek_disabled = vcek_disabled
        guest.state = SnpGuestState.RUNNING

    def activate(self, context: int, asid: int) -> None:
        """SNP_ACTIVATE (56860 8.14): SNP guests take ASIDs of the encrypted-state range."""
        command = "SNP_ACTIVATE"
        guest = self._find(command, context)
        if guest.state is SnpGuestState.INIT:
            raise CommandError(command, FirmwareStatus.INVALID_GUEST_STATE)
        self._core.activate(command, asid, -context, guest.asid, encrypted_state=True)
        guest.asid = asid

    def decommission(self, context: int) -> None:
        """SNP_DECOMMISSION (56860 8.13): forget the guest, its ASID included."""
        guest = self._find("SNP_DECOMMISSION", context)
        if guest.asid is not None:
            self._core.drop_asid(guest.asid, ran=guest.ran)
        del self._guests[context]

    def guest_status(self, context: int) -> SnpGuest:
        """SNP_GUEST_STATUS (56860 8.24): policy, ASID and state of a guest."""
        return self._find("SNP_GUEST_STATUS", context)

    def enter_request(self, context: int) -> SnpGuest:
        """Pass the gate for SNP_GUEST_REQUEST, which only a running guest may make."""
        return self._enter("SNP_GUEST_REQUEST", context, SnpGuestState.RUNNING)

    def _find(self, command: str, context: int) -> SnpGuest:
        self._platform.enter(command, initialized=True)
        guest = self._guests.get(context)
        if guest is None:
            raise CommandError(command, FirmwareStatus.INVALID_GUEST)
        return guest

    def _enter(
        self, command: str, context: int, state: SnpGuestState, *, active: bool = False
    ) -> SnpGuest:
        guest = self._find(command, context)
        self._check(command, guest, state, active=active)
        return guest

    @staticmethod
    def _check(command: str, guest: SnpGuest, state: SnpGuestState, *, active: bool) -> None:
        if guest.state is not state:
            raise CommandError(command, FirmwareStatus.INVALID_GUEST_STATE, guest.state.name)
        if active and guest.asid is None:
            raise CommandError(command, FirmwareStatus.INACTIVE)
