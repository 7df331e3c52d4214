"""SNP_GUEST_REQUEST: the secure processor's half of the channel to a running guest.

Theory of operation. A message passes header, tag, sequence number, version and type, in that
order; what fails there is an error of the command, which the host sees, and moves no counter. What
fails in the payload is an answer, which only the guest can read, and moves the counter. The report
is put together from the guest's context and the platform, and signed by the key that the guest
selected and the platform allows.

Source: 56860 8.26 (SNP_GUEST_REQUEST), 7.3 (MSG_REPORT_REQ), table 23 (ATTESTATION_REPORT).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from sevkit.abi.certtable import ARK, ASK, VCEK, VLEK, encode_cert_table
from sevkit.abi.firmware_status import CommandError, FirmwareStatus
from sevkit.abi.guest_message import (
    REPORT_REQ,
    REPORT_RSP,
    KeySelect,
    Message,
    MessageType,
    open_message,
    read_header,
    seal_message,
)
from sevkit.abi.policy import PlatformInfo, SigningKey
from sevkit.abi.report import LAYOUT, SIGNED_SIZE
from sevkit.abi.signature import encode_signature, signature_from_der
from sevkit.errors import FormatError, SignatureMismatch
from sevkit.testing.snp_report import CPUID_FMS

if TYPE_CHECKING:
    from sevkit.testing.secure_processor.core import Core
    from sevkit.testing.secure_processor.identity import Vlek
    from sevkit.testing.secure_processor.snp_guests import SnpGuest, SnpGuests
    from sevkit.testing.secure_processor.snp_platform import SnpPlatform

_COMMAND: Final = "SNP_GUEST_REQUEST"
_LAST_SEQNO: Final = (1 << 64) - 2
_MAX_VMPL: Final = 3


@final
class SnpMessages:
    """Answers guests' messages and makes their reports."""

    def __init__(self, core: Core, platform: SnpPlatform, guests: SnpGuests) -> None:
        self._core: Final = core
        self._platform: Final = platform
        self._guests: Final = guests

    def guest_request(self, context: int, request: bytes) -> bytes:
        """SNP_GUEST_REQUEST: return the sealed answer to a sealed message.

        Raises ``CommandError`` for what the firmware refuses before it looks at the payload.
        """
        guest = self._guests.enter_request(context)
        try:
            vmpck = read_header(request).vmpck
            message = open_message(request, guest.vmpcks[vmpck])
        except FormatError as error:
            raise CommandError(_COMMAND, FirmwareStatus.INVALID_PARAM, error.message) from error
        except SignatureMismatch as error:
            raise CommandError(_COMMAND, FirmwareStatus.BAD_MEASUREMENT, error.message) from error
        counter = guest.counters[vmpck]
        if message.seqno != counter + 1 or counter >= _LAST_SEQNO:
            raise CommandError(_COMMAND, FirmwareStatus.AEAD_OFLOW)
        if message.version != 1 or message.kind != MessageType.REPORT_REQ:
            raise CommandError(_COMMAND, FirmwareStatus.INVALID_PARAM, "message")
        answer = self._answer_report(guest, message)
        guest.counters[vmpck] = counter + 2
        answered = Message(MessageType.REPORT_RSP, answer, message.seqno + 1, vmpck)
        return seal_message(answered, guest.vmpcks[vmpck])

    def _answer_report(self, guest: SnpGuest, message: Message) -> bytes:
        status, report = FirmwareStatus.SUCCESS, bytes(LAYOUT.size)
        try:
            report = self._report(guest, message)
        except FormatError:
            status = FirmwareStatus.INVALID_PARAM
        except CommandError as error:
            status = error.status
        return REPORT_RSP.encode({"status": status, "size": LAYOUT.size, "report": report})

    def _report(self, guest: SnpGuest, message: Message) -> bytes:
        """Return the report that a request asks for: reserved bits, key, VMPL, in that order."""
        request = REPORT_REQ.parse(message.payload)
        vmpl, select = request.int("vmpl"), request.int("key_select")
        if select >> 2:
            raise CommandError(_COMMAND, FirmwareStatus.INVALID_PARAM, "reserved bits")
        key = self._select(guest, select)
        if not message.vmpck <= vmpl <= _MAX_VMPL:
            raise CommandError(_COMMAND, FirmwareStatus.INVALID_PARAM, "VMPL")
        return self._make_report(guest, request.raw("report_data"), vmpl, key)

    def _select(self, guest: SnpGuest, select: int) -> SigningKey:
        """Return which key signs; raises ``CommandError`` (INVALID_KEY) if none may."""
        vlek = self._platform.vlek_key is not None
        choices: dict[int, SigningKey | None] = {
            KeySelect.VLEK_ELSE_VCEK: SigningKey.VLEK if vlek else SigningKey.VCEK,
            KeySelect.VCEK: SigningKey.VCEK,
            KeySelect.VLEK: SigningKey.VLEK if vlek else None,
        }
        found = choices.get(select)
        if found is None or (found is SigningKey.VCEK and guest.vcek_disabled):
            raise CommandError(_COMMAND, FirmwareStatus.INVALID_KEY)
        if found is SigningKey.VCEK and self._platform.mask_chip_key:
            return SigningKey.NONE
        return found

    def _make_report(
        self, guest: SnpGuest, report_data: bytes, vmpl: int, key: SigningKey
    ) -> bytes:
        body = LAYOUT.encode(self._fields(guest, report_data, vmpl, key))[:SIGNED_SIZE]
        private = (
            self._platform.vlek_key
            if key is SigningKey.VLEK
            else self._core.identity.vcek_key(self._platform.reported_tcb)
        )
        if key is SigningKey.NONE or private is None:
            return body + bytes(512)
        der = private.sign(body, ec.ECDSA(hashes.SHA384()))
        return body + encode_signature(signature_from_der(der))

    def _fields(
        self, guest: SnpGuest, report_data: bytes, vmpl: int, key: SigningKey
    ) -> dict[str, int | bytes]:
        platform, core = self._platform, self._core
        firmware, committed = core.firmware, core.committed
        info = platform.platform_info
        info |= PlatformInfo.ALIAS_CHECK_COMPLETE if firmware.alias_check else 0
        info |= PlatformInfo.CIPHERTEXT_HIDING_DRAM_EN if firmware.ciphertext_hiding else 0
        version = firmware.reports
        fms = CPUID_FMS[core.identity.product] if version >= 3 else (0, 0, 0)
        return {
            "version": version,
            "guest_svn": guest.identity.guest_svn,
            "policy": guest.policy,
            "family_id": guest.identity.family_id,
            "image_id": guest.identity.image_id,
            "vmpl": vmpl,
            "signature_algo": 1,
            "current_tcb": platform.raw(platform.current_tcb),
            "platform_info": info,
            "key_info": int(guest.author_key_en) | platform.mask_chip_key << 1 | key << 2,
            "report_data": report_data,
            "measurement": guest.digest,
            "host_data": guest.host_data,
            "id_key_digest": guest.identity.id_key_digest,
            "author_key_digest": guest.identity.author_key_digest,
            "report_id": guest.report_id,
            "report_id_ma": b"\xff" * 32,
            "reported_tcb": platform.raw(platform.reported_tcb),
            "cpuid_family": fms[0],
            "cpuid_model": fms[1],
            "cpuid_stepping": fms[2],
            "chip_id": bytes(64) if platform.mask_chip_id else core.identity.chip_id,
            "committed_tcb": platform.raw(platform.committed_tcb),
            "current_build": firmware.version.build,
            "current_minor": firmware.version.minor,
            "current_major": firmware.version.major,
            "committed_build": committed.version.build,
            "committed_minor": committed.version.minor,
            "committed_major": committed.version.major,
            "launch_tcb": platform.raw(guest.launch_tcb),
            "launch_mit_vector": guest.launch_mit_vector if version >= 5 else 0,
            "current_mit_vector": firmware.mit_vector if version >= 5 else 0,
            "signature": bytes(512),
        }

    def cert_table(self, vlek: Vlek | None = None) -> bytes:
        """Return the table that a host adds to extended requests: the VEK, ASK or ASVK, and ARK.

        ``vlek`` is the one that the host loaded; without it the table is for the VCEK.
        """
        identity = self._core.identity
        roots = identity.snp_roots
        if roots is None:
            return b""
        if vlek is not None:
            return encode_cert_table({VLEK: vlek.certificate, ASK: roots.asvk, ARK: roots.ark})
        vcek = identity.vcek(self._platform.reported_tcb)
        return encode_cert_table({VCEK: vcek, ASK: roots.ask, ARK: roots.ark})
