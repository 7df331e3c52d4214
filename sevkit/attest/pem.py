"""PEM as files of certificates and revocation lists have it, and nothing around it.

Source: RFC 7468. Text before, between or behind the blocks is refused, because readers disagree on
what to do with it: a file must not show one certificate to one reader and another to the next.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from sevkit.errors import FormatError

#: One block from the current position, with the white space around it. No part of the pattern can
#: match what its neighbour matches, so that hostile text costs time in proportion to its length.
_BLOCK: Final = (
    rb"\s*-----BEGIN %(label)s-----\r?\n([A-Za-z0-9+/=\r\n]+?)-----END %(label)s-----\s*"
)


def parse_pem(data: bytes, label: bytes, structure: str, *, most: int) -> tuple[bytes, ...]:
    """Return the contents of one to ``most`` blocks labelled ``label``, which are all of ``data``.

    Raises ``FormatError``.
    """
    pattern = re.compile(_BLOCK % {b"label": re.escape(label)})
    found: list[bytes] = []
    position = 0
    while position < len(data) or not found:
        match = pattern.match(data, position)
        if match is None:
            message = "neither DER nor PEM without anything around it"
            raise FormatError(structure, message, offset=position)
        if len(found) == most:
            raise FormatError(structure, f"more than {most} PEM block(s)", offset=position)
        try:
            text = match[1].translate(None, b"\r\n")
            found.append(base64.b64decode(text, validate=True))
        except binascii.Error as error:
            raise FormatError(structure, "PEM block is not base64", offset=position) from error
        position = match.end()
    return tuple(found)
