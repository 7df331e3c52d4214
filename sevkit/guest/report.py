"""What a guest asks its secure processor, and what it hands to the owner.

The guest verifies nothing: it may be the one that is not to be believed. It only sees to it that
what it hands over is the answer to this very question. The certificates are the host's words, and
a hint: what of them has not the form of a certificate table is left out, because it would make a
good report unreadable.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

from sevkit.abi.certtable import encode_cert_table, parse_cert_table
from sevkit.abi.report import LAYOUT
from sevkit.errors import FirmwareError, FormatError

if TYPE_CHECKING:
    import uuid
    from collections.abc import Mapping

#: Bytes of report data in a request: neither firmware nor kernel pads a shorter nonce.
REPORT_DATA_SIZE: Final = 64


@final
@dataclass(frozen=True, slots=True)
class ReportRequest:
    """Report data (64 bytes) and VMPL (0 to 3); None is the VMPL that this guest runs at."""

    report_data: bytes
    vmpl: int | None = None


@final
@dataclass(frozen=True, slots=True)
class GuestReport:
    """A report (1184 bytes), which nobody has verified, and the host's certificates by GUID.

    ``source`` is the door that it came through, ``left_out`` why there are no certificates though
    the host gave some, and ``closed`` why doors before this one gave nothing.
    """

    report: bytes
    certificates: Mapping[uuid.UUID, bytes]
    vmpl: int
    source: str
    left_out: str = ""
    closed: tuple[str, ...] = field(default=())

    def encode(self) -> bytes:
        """Return the report, with the certificate table behind it if there are certificates."""
        table = encode_cert_table(self.certificates) if self.certificates else b""
        return self.report + table


def take_report(
    asked: ReportRequest,
    vmpl: int,
    report: bytes,
    *,
    table: bytes,
    source: str,
    left_out: str = "",
) -> GuestReport:
    """Return an answer to ``asked`` at ``vmpl``, as it came from ``source``.

    Raises ``FormatError`` for what is no report, and ``FirmwareError`` for one that answers
    another question.
    """
    record = LAYOUT.parse(report, check_reserved=False)
    if record.raw("report_data") != asked.report_data:
        raise FirmwareError(f"{source}: the report is over other data than was asked for")
    if record.int("vmpl") != vmpl:
        raise FirmwareError(
            f"{source}: the report is for VMPL {record.int('vmpl')}, asked for was VMPL {vmpl}"
        )
    certificates: Mapping[uuid.UUID, bytes] = {}
    try:
        certificates = parse_cert_table(table)
    except FormatError as error:
        left_out = f"the host's certificates are left out: {error.message}"
    return GuestReport(report, certificates, vmpl, source, left_out)
