"""A strict reader for the few DER shapes that AMD's certificates need.

X.509 itself is parsed by ``cryptography``; this reads what it cannot give: the bytes that were
signed, extensions that occur twice, and the INTEGERs inside AMD's extensions. Source: X.690
chapters 8, 10 and 11. Lengths are definite and minimal, at most 4 bytes.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from sevkit.errors import FormatError

BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
OBJECT_IDENTIFIER: Final = 0x06
UTF8_STRING: Final = 0x0C
PRINTABLE_STRING: Final = 0x13
IA5_STRING: Final = 0x16
SEQUENCE: Final = 0x30
SET: Final = 0x31


class Element(NamedTuple):
    """One tag-length-value: ``data[start:end]`` is all of it, ``data[content:end]`` the value."""

    tag: int
    start: int
    content: int
    end: int


def read_element(data: bytes, offset: int, end: int, structure: str) -> Element:
    """Return the element at ``offset``, which must end at or before ``end``."""
    if offset + 2 > end:
        raise FormatError(structure, "truncated DER element", offset=offset)
    tag, first = data[offset], data[offset + 1]
    if tag & 0x1F == 0x1F:
        raise FormatError(structure, "DER tag is too long", offset=offset)
    content = offset + 2
    length = first
    if first >= 0x80:
        count = first & 0x7F
        if not 1 <= count <= 4 or content + count > end:
            raise FormatError(structure, "DER length is not definite or too long", offset=offset)
        length = int.from_bytes(data[content : content + count], "big")
        if length < 0x80 or length >> 8 * (count - 1) == 0:
            raise FormatError(structure, "DER length is not minimal", offset=offset)
        content += count
    if content + length > end:
        raise FormatError(structure, "DER element reaches past its end", offset=offset)
    return Element(tag, offset, content, content + length)


def expect_element(data: bytes, offset: int, end: int, tag: int, structure: str) -> Element:
    """Return the element at ``offset``, which must have ``tag``."""
    element = read_element(data, offset, end, structure)
    if element.tag != tag:
        raise FormatError(
            structure, f"expected DER tag {tag:#04x}, got {element.tag:#04x}", offset=offset
        )
    return element


def read_children(data: bytes, parent: Element, structure: str) -> list[Element]:
    """Return the elements inside a constructed element."""
    found = []
    offset = parent.content
    while offset < parent.end:
        found.append(read_element(data, offset, parent.end, structure))
        offset = found[-1].end
    return found


def parse_small_integer(data: bytes, structure: str, *, most: int = 255) -> int:
    """Return a DER INTEGER that is all of ``data`` and lies in 0 to ``most``.

    Negative and non-minimal encodings are refused: 200 is ``02 02 00 c8``.
    """
    element = expect_element(data, 0, len(data), INTEGER, structure)
    value = data[element.content : element.end]
    if element.end != len(data) or not value:
        raise FormatError(structure, "INTEGER is empty or has bytes after it", offset=element.end)
    if value[0] & 0x80:
        raise FormatError(structure, "INTEGER is negative", offset=element.content)
    if len(value) > 1 and value[0] == 0 and not value[1] & 0x80:
        raise FormatError(structure, "INTEGER is not minimal", offset=element.content)
    number = int.from_bytes(value, "big")
    if number > most:
        raise FormatError(structure, f"INTEGER {number} is above {most}", offset=element.content)
    return number


def parse_ia5_string(data: bytes, structure: str) -> str:
    """Return a DER IA5String that is all of ``data``, printable ASCII only."""
    element = expect_element(data, 0, len(data), IA5_STRING, structure)
    value = data[element.content : element.end]
    if element.end != len(data) or not all(0x20 <= byte < 0x7F for byte in value):
        raise FormatError(structure, "IA5String is not printable ASCII, or has bytes after it")
    return value.decode("ascii")


def parse_oid(data: bytes, element: Element, structure: str) -> str:
    """Return the dotted form of an OBJECT IDENTIFIER element."""
    value = data[element.content : element.end]
    if not value or value[-1] & 0x80 or len(value) > 32:
        raise FormatError(structure, "OBJECT IDENTIFIER is not well formed", offset=element.start)
    arcs: list[int] = []
    number = 0
    fresh = True
    for byte in value:
        if fresh and byte == 0x80:
            raise FormatError(structure, "OBJECT IDENTIFIER is not minimal", offset=element.start)
        number = number << 7 | byte & 0x7F
        fresh = not byte & 0x80
        if fresh:
            arcs.append(number)
            number = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, [first, arcs[0] - 40 * first, *arcs[1:]]))
