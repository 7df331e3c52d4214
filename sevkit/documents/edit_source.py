"""The text that is changed: its lines, what a change of it is, and how one is refused. Pure."""

from __future__ import annotations

import bisect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn, final

from sevkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sevkit.documents.edit_places import Member, Node
    from sevkit.documents.edit_text import FlowStyle

_BREAK: Final = re.compile(r"\r\n|\n|\r")
_NUMBER: Final = re.compile(r"[0-9]+")


@final
class PlaceRefused(UsageError):
    """A change that cannot be made safely: at ``parts`` of its document, on ``line``, from 1."""

    def __init__(self, path: Sequence[str], line: int, why: str, fix: str) -> None:
        self.parts: Final = tuple(path)
        self.line: Final = line
        self.why: Final = why
        super().__init__(f"{self.path} at line {line}: {why}", hint=fix)

    @property
    def path(self) -> str:
        """Where, in dots."""
        return dotted(self.parts) or "the document"


class Splice(NamedTuple):
    """Put ``text`` in the place of what is between ``start`` and ``end``."""

    start: int
    end: int
    text: str


@final
@dataclass(frozen=True, slots=True)
class Around:
    """Where a value stands: its path, and how its surroundings are written.

    ``step`` is by how much a block mapping is indented in another, ``flow`` how flow mappings are
    written, and ``is_spread`` that the one around has its members on lines of their own. The value
    is that of ``member`` in the mapping ``parent``; both are None for a document and in a list.
    """

    path: tuple[str, ...]
    step: int
    flow: FlowStyle
    is_spread: bool = False
    parent: Node | None = None
    member: Member | None = None


@final
class Source:
    """A text, and questions about its lines. Positions are indexes of characters."""

    def __init__(self, text: str) -> None:
        self.text: Final = text
        self._breaks: Final = [found.start() for found in _BREAK.finditer(text)]
        first = _BREAK.search(text)
        #: The line break that the text uses, of its first line.
        self.newline: Final = first[0] if first else "\n"

    def line_number(self, index: int) -> int:
        """Return the number of a line, from 1."""
        return bisect.bisect_left(self._breaks, index) + 1

    def line_start(self, index: int) -> int:
        """Return where the line of ``index`` begins."""
        return max(self.text.rfind("\n", 0, index), self.text.rfind("\r", 0, index)) + 1

    def line_end(self, index: int) -> tuple[int, int]:
        """Return where the line break behind ``index`` begins and ends; the text's end for none."""
        found = _BREAK.search(self.text, index)
        return found.span() if found else (len(self.text), len(self.text))

    def indent(self, index: int) -> str:
        """Return what the line of ``index`` begins with: blanks before ``index``."""
        line = self.text[self.line_start(index) : index]
        return line[: len(line) - len(line.lstrip(" \t"))]

    def leads(self, index: int) -> bool:
        """Return whether only blanks stand before ``index`` on its line."""
        return not self.text[self.line_start(index) : index].strip(" \t")

    def has_comment(self, start: int, end: int, *nodes: Node) -> bool:
        """Return whether a comment stands there, between the words of these nodes."""
        for first, last in sorted(word for node in nodes for word in node.words()):
            if "#" in self.text[start : max(start, min(first, end))]:
                return True
            start = max(start, last)
        return "#" in self.text[start:end]

    def refuse(self, index: int, path: Sequence[str], why: str, fix: str) -> NoReturn:
        """Raise ``PlaceRefused`` about what stands at ``index``."""
        raise PlaceRefused(path, self.line_number(index), why, fix)


def dotted(path: Sequence[str]) -> str:
    """Return a path as people write it: ``items[1].spec.template``."""
    found = ""
    for part in path:
        if _NUMBER.fullmatch(part) and found:
            found += f"[{part}]"
        else:
            found += f".{part}" if found else part
    return found
