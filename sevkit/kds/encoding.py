"""PEM and DER as strictly as transport needs them: whole certificates, and nothing else.

Only the outermost shape is judged here; what a certificate says is for whoever verifies it.
Standard library only, so that reading the bundled roots does not cost loading cryptography.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from sevkit.errors import FormatError

_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_END: Final = b"-----END CERTIFICATE-----"
_SEQUENCE: Final = 0x30
#: No certificate or list of AMD's comes near; four length octets would allow 4 GiB.
_LENGTH_OCTETS: Final = 3


def der_sequence_size(data: bytes) -> int | None:
    """Return the size in bytes, header included, of the DER SEQUENCE that ``data`` starts with.

    None if it starts with none: another tag, an indefinite or non-minimal length, or a length in
    more than three octets (X.690 8.1.3, 10.1). ``data`` may be shorter than the answer.
    """
    if len(data) < 2 or data[0] != _SEQUENCE:
        return None
    first = data[1]
    if first < 0x80:
        return 2 + first
    octets = first & 0x7F
    if not 1 <= octets <= _LENGTH_OCTETS or len(data) < 2 + octets:
        return None
    length = int.from_bytes(data[2 : 2 + octets], "big")
    minimal = length >= 0x80 and data[2] != 0
    return 2 + octets + length if minimal else None


def check_der_sequence(structure: str, data: bytes) -> None:
    """Refuse ``data`` unless it is one DER SEQUENCE from its first byte to its last."""
    size = der_sequence_size(data)
    if size is None:
        raise FormatError(structure, "does not start with a DER SEQUENCE", offset=0)
    if size != len(data):
        message = f"the DER SEQUENCE has {size} bytes, the data {len(data)}"
        raise FormatError(structure, message, offset=min(size, len(data)))


def parse_pem_certificates(structure: str, data: bytes, *, count: int) -> tuple[bytes, ...]:
    """Return the DER of exactly ``count`` certificates in PEM (RFC 7468, strict form).

    Lines may end in LF or CRLF (the key service serves Turin's chain so) and empty lines may stand
    between and after the blocks. Explanatory text, other labels, headers, lines over 64 characters
    and base64 with junk are refused, so that no two readers see different certificates in one
    file. Raises ``FormatError``.
    """
    found: list[bytes] = []
    body: list[bytes] | None = None
    offset = 0
    for raw in data.split(b"\n"):
        line = raw.removesuffix(b"\r")
        if body is None:
            if line == _BEGIN:
                body = []
            elif line:
                raise FormatError(structure, "text outside of a PEM certificate", offset=offset)
        elif line == _END:
            found.append(_decode(structure, body, offset))
            body = None
        elif not line or len(line) > 64:
            message = "a PEM line must have 1 to 64 characters"
            raise FormatError(structure, message, offset=offset)
        else:
            body.append(line)
        offset += len(raw) + 1
    if body is not None:
        raise FormatError(structure, "a PEM certificate has no end", offset=len(data))
    if len(found) != count:
        raise FormatError(structure, f"expected {count} PEM certificates, got {len(found)}")
    return tuple(found)


def encode_pem_certificate(der: bytes) -> bytes:
    """Return one certificate in PEM, as ``parse_pem_certificates`` reads it."""
    text = base64.b64encode(der)
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return b"\n".join([_BEGIN, *lines, _END, b""])


def _decode(structure: str, lines: list[bytes], offset: int) -> bytes:
    text = b"".join(lines)
    try:
        der = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise FormatError(structure, "is not base64", offset=offset) from error
    # b64decode lets the unused low bits of the last character be anything.
    if base64.b64encode(der) != text:
        raise FormatError(structure, "is not canonical base64", offset=offset)
    check_der_sequence(structure, der)
    return der
