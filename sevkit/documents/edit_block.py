"""Changes of block mappings, which go by whole lines. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sevkit.documents.edit_places import Kind
from sevkit.documents.edit_source import Splice
from sevkit.documents.edit_text import block_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sevkit.documents.bounds import Json
    from sevkit.documents.edit_places import Member, Node
    from sevkit.documents.edit_source import Around, Source

#: What a text in block style would take for its own if it came to stand right below it: blanks
#: and what may be indented as it is; and where it keeps the lines behind it, any that is empty.
_TAKEN: Final = re.compile(r"[\r\n]*[ ]+(?:[#\r\n]|\Z)")
_TAKEN_TO_KEEP: Final = re.compile(r"[ ]*[#\r\n]|[ ]+\Z")
_BLANKS: Final = re.compile(r"[\r\n][ ]")
_END: Final = "end the file with a line break"
_KEEPS: Final = re.compile(r"[^#\r\n]*\+")


def change_block(
    source: Source, node: Node, cut: Sequence[bool], added: Mapping[str, Json], around: Around
) -> Iterator[Splice]:
    """Yield what cuts the members out that ``cut`` marks, and puts others behind the last one.

    Raises ``PlaceRefused``.
    """
    if all(cut) and not added:
        yield _braces(source, node, around)
    members = node.members
    first = 0
    if cut[0] and source.text[source.line_start(members[0].start) : members[0].start].strip(" "):
        first = cut.index(False) if False in cut else len(cut)  # behind the dash of a list's item
        yield _cut_first(source, node, first, around)
    before: Member | None = None
    for number in range(first, len(members)):
        if cut[number]:
            yield _cut_line(source, members[number], before, around)
        else:
            before = members[number]
    if added:
        quoted = around.flow.is_quoted
        lines = list(block_lines(added, node.column, around.step, quoted=quoted))
        yield _put_lines(source, members[-1], lines, around, is_cut=cut[-1])


def expand(
    source: Source, node: Node, members: Mapping[str, Json], around: Around
) -> Iterator[Splice]:
    """Yield what writes members under a key of a block mapping, in the place of one small value.

    Raises ``PlaceRefused``.
    """
    parent, member = around.parent, around.member
    if parent is None or member is None or member.colon is None:
        source.refuse(node.start, around.path, "is not the value of a key", "write it as one")
    if "#" in source.text[member.colon : node.start]:
        source.refuse(node.start, around.path, "stands below a comment", "write it above")
    yield Splice(member.colon, node.tail, "")
    column, quoted = parent.column + around.step, around.flow.is_quoted
    lines = list(block_lines(members, column, around.step, quoted=quoted))
    yield _put_lines(source, member, lines, around)


def _braces(source: Source, node: Node, around: Around) -> Splice:
    """Return what leaves an empty mapping where the last member goes."""
    member = around.member
    if member is None or member.colon is None or node.anchor or node.has_tag:
        source.refuse(node.start, around.path, "would be left empty", "take it out by hand")
    return Splice(member.colon, member.colon, " {}")


def _cut_first(source: Source, node: Node, count: int, around: Around) -> Splice:
    """Return what cuts the first members out, so that the next one stands where they began."""
    members, start = node.members, node.members[0].start
    left = members[count] if count < len(members) else None
    if left is None or not left.is_simple or source.has_comment(start, left.start, node):
        path = (*around.path, members[0].key or "")
        source.refuse(start, path, "cannot be cut out of its line", "take it out by hand")
    return Splice(start, left.start, "")


def _cut_line(source: Source, member: Member, before: Member | None, around: Around) -> Splice:
    start = source.line_start(member.start)
    tail, end = source.line_end(member.value.tail)
    if tail == end:  # what is around it may have to end here, too
        path = (*around.path, member.key or "")
        source.refuse(member.start, path, "has no line break at its end", _END)
    text = None if before is None else _text_of(before)
    keeps = text is not None and (
        text.kind is not Kind.BLOCK_TEXT or _KEEPS.match(source.text, text.start)
    )
    if text is not None and (_TAKEN_TO_KEEP if keeps else _TAKEN).match(source.text, end):
        path = (*around.path, member.key or "")
        why = "keeps a text apart from what follows"
        source.refuse(member.start, path, why, "take it out by hand")
    return Splice(start, end, "")


def _put_lines(
    source: Source, behind: Member, lines: Sequence[str], around: Around, *, is_cut: bool = False
) -> Splice:
    """Return what puts lines below the one on which ``behind`` ends; it is cut if ``is_cut``."""
    start, end = source.line_end(behind.value.tail)
    text = _text_of(behind)
    is_blank = text is not None and not text.text.strip() and not is_cut
    # Where the indentation is found out, parsers look at blanks, and at what then follows them.
    if text is not None and is_blank and _BLANKS.search(source.text, text.start, text.tail):
        why = "ends with a text of nothing but blanks"
        source.refuse(text.start, around.path, why, "take the blanks out")
    if end > start:
        newline = source.text[start:end]
        return Splice(end, end, "".join(line + newline for line in lines))
    if text is not None:
        why = "ends with a text that has no line break at its end"
        source.refuse(text.start, around.path, why, _END)
    return Splice(end, end, "".join(source.newline + line for line in lines))


def _text_of(member: Member) -> Node | None:
    """Return the text in block style that a member ends with, None for another end.

    A member with a question mark, whose key may be such a text, counts as one.
    """
    return _last_text(member.value) if member.is_simple else member.value


def _last_text(node: Node) -> Node | None:
    """Return the same of a value."""
    while node.kind in {Kind.BLOCK_MAPPING, Kind.BLOCK_SEQUENCE}:
        if node.members:
            return _text_of(node.members[-1])
        node = node.items[-1]
    return node if node.kind is Kind.BLOCK_TEXT else None
