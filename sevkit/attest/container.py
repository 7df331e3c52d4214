"""Find the report in what the tools of the field hand over.

A report comes raw (1184 bytes), as hex or base64 text, as a configfs-tsm ``outblob`` (raw), inside
the MSG_REPORT_RSP that ``/dev/sev-guest`` fills (status u32, size u32, 24 reserved, report, and
zeros up to the buffer's end), or with the certificate table of an extended report behind it.
Sources: 56860 table 25 (MSG_REPORT_RSP), Linux ``Documentation/virt/coco/sev-guest.rst``.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

from sevkit.abi.certtable import parse_cert_table
from sevkit.abi.layout import Layout, integer, zero
from sevkit.abi.report import LAYOUT, NAME, VERSIONS
from sevkit.errors import FormatError

if TYPE_CHECKING:
    import uuid
    from collections.abc import Mapping

MAX_SIZE: Final = 4 << 20

RESPONSE: Final = Layout(
    "MSG_REPORT_RSP",
    0x20,
    (integer(0x00, 4, "status"), integer(0x04, 4, "report_size"), zero(0x08, 24)),
)

#: Size of the response buffer of SNP_GET_REPORT: snp_report_resp in the Linux ioctl header.
RESPONSE_BUFFER: Final = 4000

_TEXT: Final = frozenset(
    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+/= \t\r\n"
)


@final
@dataclass(frozen=True, slots=True)
class ReportContainer:
    """The 1184 bytes of a report, and the host's certificate table, which is only a hint."""

    report: bytes
    certificates: Mapping[uuid.UUID, bytes] = field(default_factory=dict)


def find_report(data: bytes) -> ReportContainer:
    """Return the report in ``data``, whichever of the known shapes it has.

    Nothing is skipped or searched for: bytes that belong to no shape are refused.
    Raises ``FormatError``.
    """
    if len(data) > MAX_SIZE:
        raise FormatError(NAME, f"larger than {MAX_SIZE} bytes", offset=MAX_SIZE)
    size = LAYOUT.size
    if len(data) == size:
        return ReportContainer(bytes(data))
    return _binary(_decode_text(data) if data and _TEXT.issuperset(data) else data)


def _decode_text(data: bytes) -> bytes:
    text = data.translate(None, b" \t\r\n")
    try:
        return binascii.unhexlify(text)
    except binascii.Error:
        pass
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise FormatError(NAME, "text that is neither hex nor base64") from error


def _binary(data: bytes) -> ReportContainer:
    size = LAYOUT.size
    # a report begins with its version, which is never 0; a good response with the status, 0
    version, second = (int.from_bytes(data[at : at + 4], "little") for at in (0, 4))
    if version not in VERSIONS and second == size:
        return _response(data)
    if len(data) < size:
        raise FormatError(NAME, f"expected {size} bytes, got {len(data)}", offset=len(data))
    return ReportContainer(bytes(data[:size]), _table(data[size:], size))


def _response(data: bytes) -> ReportContainer:
    if len(data) < RESPONSE.size + LAYOUT.size:
        raise FormatError(RESPONSE.name, "the report in it is cut short", offset=len(data))
    record = RESPONSE.parse(data[: RESPONSE.size])
    if record.int("status") != 0:
        raise FormatError(
            RESPONSE.name, f"the firmware answered with status {record.int('status'):#x}", offset=0
        )
    end = RESPONSE.size + LAYOUT.size
    rest = data[end:]
    if len(data) <= RESPONSE_BUFFER and not any(rest):
        return ReportContainer(bytes(data[RESPONSE.size : end]))
    return ReportContainer(bytes(data[RESPONSE.size : end]), _table(rest, end))


def _table(data: bytes, offset: int) -> Mapping[uuid.UUID, bytes]:
    try:
        return parse_cert_table(data)
    except FormatError as error:
        where = offset + (error.offset or 0)
        raise FormatError(
            NAME, f"what follows the report is no certificate table: {error.message}", offset=where
        ) from error
