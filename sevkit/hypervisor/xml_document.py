"""XML as libvirt prints it, read strictly: UTF-8, no document type, no own entities, bounded.

The documents come from a host that a guest owner does not trust, so a reader must come back from
whatever they hold. A document type is refused before anything is parsed: without one there are no
entities to expand and nothing external to load. What is left is bounded by a size limit and by
libxml2's own limits on depth and names. ``Node`` is the part of an element tree that strict readers
need: an element that may stand once and stands twice is an error, not a choice.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any, Final, NoReturn, final

from sevkit.errors import FormatError, UsageError

#: Largest document, in bytes. Domain capabilities have 70,000, of which CPU models are the most.
DOCUMENT_LIMIT: Final = 1 << 20
_LONGEST_NUMBER: Final = 20

#: What may stand before the root element; possessive, so that a hostile prolog costs linear time.
_PROLOG: Final = re.compile(r"(?>\s++|<\?.*?\?>|<!--.*?-->)*+<(?=[A-Za-z_])", re.DOTALL)
_ENCODING: Final = re.compile(r"<\?xml\s[^<>]{0,200}?\bencoding\s*=\s*[\"']([^\"'<>]{0,40})")
_UTF8: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
_BLANK: Final = " \t\r\n"
_FLAGS: Final = {"yes": True, "no": False}


@final
@dataclass(frozen=True, slots=True)
class Node:
    """One element; ``structure`` names the document in errors."""

    structure: str
    element: Any

    @property
    def name(self) -> str:
        """The element's name, with its namespace in braces where it has one."""
        return str(self.element.tag)

    def refuse(self, message: str) -> NoReturn:
        """Raise ``FormatError`` with the element's name and line."""
        line = self.element.sourceline
        raise FormatError(self.structure, f"<{self.name[:80]}> at line {line}: {message}")

    def all(self, name: str) -> tuple[Node, ...]:
        """Return all children of this name."""
        return tuple(Node(self.structure, found) for found in self.element.iterchildren(name))

    def find(self, *path: str) -> Node | None:
        """Return the element at ``path`` below this one, or None; one that stands twice is refused.

        Raises ``FormatError``.
        """
        node = self
        for name in path:
            found = node.all(name)
            if len(found) > 1:
                found[1].refuse(f"stands twice in <{node.name}>")
            if not found:
                return None
            node = found[0]
        return node

    def require(self, *path: str) -> Node:
        """Return the element at ``path``, as ``find``, but refuse a document without it."""
        found = self.find(*path)
        if found is None:
            self.refuse(f"has no <{'/'.join(path)}>")
        return found

    def attribute(self, name: str) -> str | None:
        """Return an attribute's value, or None."""
        value = self.element.get(name)
        return None if value is None else str(value)

    def require_attribute(self, name: str) -> str:
        """Return an attribute's value; raises ``FormatError`` without it."""
        value = self.attribute(name)
        if value is None:
            self.refuse(f"has no attribute {name}")
        return value

    def flag(self, name: str) -> bool | None:
        """Return an attribute that is ``yes`` or ``no``, or None without it."""
        value = self.attribute(name)
        if value is None:
            return None
        if value not in _FLAGS:
            self.refuse(f"{name} is neither yes nor no")
        return _FLAGS[value]

    def require_flag(self, name: str) -> bool:
        """Return ``flag``; raises ``FormatError`` without the attribute."""
        value = self.flag(name)
        if value is None:
            self.refuse(f"has no attribute {name}")
        return value

    def text(self) -> str:
        """Return the element's text as it stands. Raises ``FormatError`` if it has children."""
        if len(self.element):
            self.refuse("has elements where text is expected")
        return str(self.element.text or "")

    def number(self, *, limit: int, base: int = 10) -> int:
        """Return the text as a number from 0 to ``limit``; in base 16 with ``0x`` or without."""
        return self._number(self.text(), "its value", limit, base)

    def number_attribute(self, name: str, *, limit: int) -> int | None:
        """Return an attribute as a decimal number from 0 to ``limit``, or None without it."""
        value = self.attribute(name)
        return None if value is None else self._number(value, name, limit, 10)

    def _number(self, text: str, what: str, limit: int, base: int) -> int:
        digits = text.strip(_BLANK)
        pattern = r"(?:0[xX])?[0-9a-fA-F]+" if base == 16 else r"[0-9]+"
        if len(digits) > _LONGEST_NUMBER or re.fullmatch(pattern, digits, re.ASCII) is None:
            self.refuse(f"{what} is not a number of base {base}")
        value = int(digits, base)
        if value > limit:
            self.refuse(f"{what} is larger than {limit}")
        return value

    def base64(self) -> bytes:
        """Return the bytes that the text stands for; white space between its characters is none."""
        text = self.text().translate({ord(blank): None for blank in _BLANK})
        try:
            data = base64.b64decode(text.encode("ascii"), validate=True)
        except (UnicodeEncodeError, binascii.Error):
            self.refuse("its value is not base64")
        if base64.b64encode(data).decode("ascii") != text:
            self.refuse("its value is base64 with stray bits at its end")
        return data


def parse_xml(document: str | bytes, structure: str, root: str) -> Node:
    """Return the root element of a document, which must be named ``root``.

    ``structure`` names the document in errors. Raises ``FormatError`` for more than 1 MiB, for
    another encoding than UTF-8, for a document type, and for what is not XML or not that document.
    Raises ``UsageError`` where lxml is not installed.
    """
    etree = _load_lxml()
    text = _decode(document, structure)
    if _PROLOG.match(text) is None:
        raise FormatError(structure, "not XML, or XML with a document type, which is refused")
    declared = _ENCODING.match(text)
    if declared is not None and declared[1].lower() not in _UTF8:
        raise FormatError(structure, "declares another encoding than UTF-8")
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        recover=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        element = etree.fromstring(text.encode(), parser)
    except etree.XMLSyntaxError as error:
        raise FormatError(structure, f"not XML: {_line(str(error.msg))}") from error
    node = Node(structure, element)
    if node.name != root:
        raise FormatError(structure, f"its root is <{node.name[:80]}>, not <{root}>")
    return node


def _decode(document: str | bytes, structure: str) -> str:
    if len(document) > DOCUMENT_LIMIT:
        raise FormatError(structure, f"larger than the limit of {DOCUMENT_LIMIT} bytes")
    try:
        data = document.encode() if isinstance(document, str) else document
        text = data.decode("utf-8-sig")
    except UnicodeEncodeError as error:
        raise FormatError(structure, "half a surrogate pair") from error
    except UnicodeDecodeError as error:
        raise FormatError(structure, "not UTF-8", offset=error.start) from error
    if len(data) > DOCUMENT_LIMIT:
        raise FormatError(structure, f"larger than the limit of {DOCUMENT_LIMIT} bytes")
    return text


def _load_lxml() -> Any:  # noqa: ANN401  # lxml has no types
    try:
        from lxml import etree  # type: ignore[import-untyped]  # noqa: PLC0415  # an extra, 20 ms
    except ImportError as error:
        raise UsageError(
            f"libvirt's XML cannot be read: {error}", hint="pip install 'sevkit[libvirt]'"
        ) from error
    return etree


def _line(text: str) -> str:
    return " ".join(text.split())[:200]
