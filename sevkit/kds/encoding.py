"""PEM and DER as strictly as transport needs them: whole certificates, and nothing else.

Only the outermost shape is judged here; what a certificate says is for whoever verifies it.
Standard library only, so that reading the bundled roots does not cost loading cryptography.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from sevkit.abi.der import SEQUENCE, expect_element
from sevkit.errors import FormatError

_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_END: Final = b"-----END CERTIFICATE-----"


def check_der_sequence(structure: str, data: bytes) -> None:
    """Refuse ``data`` unless it is one DER SEQUENCE from its first byte to its last."""
    element = expect_element(data, 0, len(data), SEQUENCE, structure)
    if element.end != len(data):
        raise FormatError(structure, "bytes after the DER SEQUENCE", offset=element.end)


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
