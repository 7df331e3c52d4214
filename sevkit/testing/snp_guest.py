"""The inside of a simulated SNP guest: the half of the message channel that Linux' driver has.

``GuestChannel`` reads a VMPCK from the secrets page, seals requests and opens answers, and keeps
the sequence number, as ``/dev/sev-guest`` does. A guest that loses an answer can only ask the same
again: another message under the same number would show both.

Source: 56860 8.26, Linux ``drivers/virt/coco/sev-guest``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from sevkit.abi.firmware_status import CommandError, FirmwareStatus
from sevkit.abi.guest_message import (
    VMPCK_SIZE,
    VMPLS,
    KeySelect,
    Message,
    MessageType,
    encode_report_request,
    open_message,
    parse_report_response,
    seal_message,
)
from sevkit.errors import SignatureMismatch, UsageError
from sevkit.secret import Secret

if TYPE_CHECKING:
    from sevkit.testing.virtual_machine import SimulatedKvm, SnpMachine

_FIRST_VMPCK: Final = 0x20


@final
class GuestChannel:
    """Asks the secure processor as software at ``vmpl`` (0 to 3) would."""

    def __init__(self, kvm: SimulatedKvm, machine: SnpMachine, *, vmpl: int = 0) -> None:
        if not 0 <= vmpl < VMPLS:
            raise UsageError(f"there is no VMPL {vmpl}")
        page = kvm.processor.snp_guests[machine.context].secrets_page
        if page is None:
            raise UsageError(
                "the guest has no secrets page",
                hint="its firmware declares none; take one built for SNP",
            )
        start = _FIRST_VMPCK + vmpl * VMPCK_SIZE
        self._key: Final = Secret(page.reveal()[start : start + VMPCK_SIZE])
        self._machine: Final = machine
        self._vmpl: Final = vmpl
        self._seqno = 1

    def get_report(
        self, report_data: bytes, *, key_select: int = KeySelect.VLEK_ELSE_VCEK
    ) -> bytes:
        """Return an attestation report (1184 bytes) over ``report_data`` (64 bytes).

        Raises ``CommandError`` with the status that the firmware put into its answer, and
        ``SignatureMismatch`` for an answer that is not the firmware's to this very request.
        """
        payload = encode_report_request(report_data, vmpl=self._vmpl, key_select=key_select)
        status, report = parse_report_response(self.exchange(payload))
        if status:
            raise CommandError("MSG_REPORT_REQ", FirmwareStatus(status))
        return report

    def exchange(self, payload: bytes) -> bytes:
        """Return the MSG_REPORT_RSP (1216 bytes) to a MSG_REPORT_REQ (96 bytes), whatever it says.

        Raises ``CommandError`` with the status that the host was given instead of an answer, and
        ``SignatureMismatch`` as ``get_report``.
        """
        request = Message(MessageType.REPORT_REQ, payload, self._seqno, self._vmpl)
        answer = open_message(self._machine.request(seal_message(request, self._key)), self._key)
        if (answer.kind, answer.seqno) != (MessageType.REPORT_RSP, self._seqno + 1):
            raise SignatureMismatch("the answer is to another request", check="message.seqno")
        self._seqno += 2
        return answer.payload
