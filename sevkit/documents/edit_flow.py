"""Changes of flow mappings, ``{a: b}``, as YAML and as JSON has them. Pure."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Final

from sevkit.documents.edit_places import Kind
from sevkit.documents.edit_source import Splice
from sevkit.documents.edit_text import FlowStyle, flow_entry, flow_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sevkit.documents.bounds import Json
    from sevkit.documents.edit_places import Member, Node
    from sevkit.documents.edit_source import Around, Source

#: What may follow the last value on its line, if the brace is on a later one.
_REST: Final = re.compile(r"[ \t]*(,?)[ \t]*(?:#[^\r\n]*)?(?=[\r\n])")
_COLON: Final = re.compile(r":[ \t]*")
_COMMA: Final = re.compile(r"[ \t\r\n]*,[ \t\r\n]*")
_STEP: Final = "  "
#: What a flow mapping is written in if nothing around it says otherwise.
PLAIN: Final = FlowStyle(is_quoted=False, colon=": ", comma=", ")
JSON: Final = FlowStyle(is_quoted=True, colon=": ", comma=", ")


def flow_style(source: Source, node: Node, *, quoted: bool) -> FlowStyle:
    """Return the style of a flow mapping, which has members."""
    member = node.members[-1]
    colon = source.text[member.end : member.value.start]
    if not quoted or not _COLON.fullmatch(colon):
        colon = PLAIN.colon
    return FlowStyle(quoted, colon, "," if colon == ":" else PLAIN.comma)


def change_flow(
    source: Source, node: Node, cut: Sequence[bool], added: Mapping[str, Json], around: Around
) -> Iterator[Splice]:
    """Yield what cuts the members out that ``cut`` marks, and puts others behind the last one.

    Raises ``PlaceRefused``.
    """
    if node.kind is Kind.FLOW_PAIR:
        source.refuse(node.start, around.path, "has no braces of its own", "write them")
    yield from _cut_members(source, node, cut, around)
    kept = [member for member, is_cut in zip(node.members, cut, strict=True) if not is_cut]
    if not added:
        return
    if not kept:
        index = node.members[0].start if node.members else node.tail - 1
        yield Splice(index, index, flow_value(source, added, around)[1:-1])
        return
    last = kept[-1]
    rest = _REST.match(source.text, last.value.tail)
    if rest is not None and not cut[-1] and source.leads(last.start):
        yield from _put_lines(source, node, added, around, last=last, rest=rest)
        return
    comma = around.flow.comma
    entries = (flow_entry(key, value, around.flow) for key, value in added.items())
    text = _blank(last) + "".join(comma + one for one in entries)
    yield Splice(last.value.tail, last.value.tail, text)


def flow_value(source: Source, value: Mapping[str, Json], around: Around) -> str:
    """Return a mapping as the whole value of the member that ``around`` names."""
    parent, member, style = around.parent, around.member, around.flow
    if not (around.is_spread and style.is_quoted) or parent is None or member is None:
        return flow_text(dict(value), style)
    line = source.newline + source.indent(member.start)
    return flow_text(dict(value), style, line, _step(source, parent, member))


def _put_lines(
    source: Source,
    node: Node,
    added: Mapping[str, Json],
    around: Around,
    *,
    last: Member,
    rest: re.Match[str],
) -> Iterator[Splice]:
    """Yield what puts each member on a line of its own, below that of the last one."""
    inner = source.newline + source.indent(last.start)
    line = inner if around.flow.is_quoted else None
    step = _step(source, node, last)
    entries = (flow_entry(key, value, around.flow, line, step) for key, value in added.items())
    if not rest[1]:
        yield Splice(last.value.tail, last.value.tail, f"{_blank(last)},")
    yield Splice(rest.end(), rest.end(), inner + f",{inner}".join(entries) + rest[1])


def _blank(member: Member) -> str:
    """Return what has to part a comma or a brace from a colon or a tag with nothing behind it."""
    if member.value.kind is not Kind.PLAIN or member.value.text:
        return ""
    return "" if member.colon is None and member.key else " "


def _cut_members(
    source: Source, node: Node, cut: Sequence[bool], around: Around
) -> Iterator[Splice]:
    """Yield what cuts each run of members, with the commas that go with them."""
    after = 0
    for is_cut, run in itertools.groupby(cut):
        first, after = after, after + len(list(run))
        if not is_cut:
            continue
        splice = _cut_run(source, node, first, after)
        if splice is None or source.has_comment(splice.start, splice.end, node):
            member = node.members[first]
            path, why = (*around.path, member.key or ""), "cannot be cut out of its line"
            source.refuse(member.start, path, why, "take it out by hand")
        yield splice


def _cut_run(source: Source, node: Node, first: int, after: int) -> Splice | None:
    """Return what cuts the members from ``first`` to before ``after``; None for no safe way."""
    members, text = node.members, source.text
    start, end = members[first].start, members[after - 1].value.tail
    if after < len(members):
        begin = members[after].start
        return Splice(start, begin, "") if _COMMA.fullmatch(text, end, begin) else None
    if not first:
        return Splice(start, node.tail - 1, "")
    last = members[first - 1]
    start = last.value.tail
    # A text's colon would become one that parts a key from a value, before a blank.
    is_text = text[start - 1] == ":" and last.colon != start
    return None if is_text else Splice(start, end, _blank(last))


def _step(source: Source, node: Node, member: Member) -> str:
    """Return by how much a mapping's members are indented more than the mapping's line."""
    outer, inner = source.indent(node.start), source.indent(member.start)
    return inner[len(outer) :] if inner != outer and inner.startswith(outer) else _STEP
