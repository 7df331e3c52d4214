"""The changes of a text that change a document's value, and nothing else of the text. Pure.

Theory of operation. The old and the new value are compared, mapping by mapping. Where they differ,
the place of the nearest member is looked up, and text is cut out or put in there: new members
behind the last one of their mapping, in its own style; removed ones with their line. Positions are
those of the old text throughout, so changes do not move each other; of two that put text in at one
position, the deeper one comes first. What stands in more places than one (anchors, merges), or is
written in a way that is not understood for certain, is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from sevkit.documents.edit_block import change_block, expand
from sevkit.documents.edit_flow import JSON, PLAIN, change_flow, flow_style, flow_value
from sevkit.documents.edit_places import Kind
from sevkit.documents.edit_source import Around, Source, Splice
from sevkit.documents.edit_text import FlowStyle, scalar_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sevkit.documents.bounds import Json
    from sevkit.documents.edit_places import Member, Node, Place

_STEP: Final = 2
_WHOLE: Final = frozenset({Kind.BLOCK_TEXT, Kind.BLOCK_MAPPING, Kind.BLOCK_SEQUENCE})
_REPEATED: Final = "write out each of them"


def same(one: Json, other: Json) -> bool:
    """Return whether two values are the same JSON: true is not 1, and 1.0 is."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def find_splices(source: Source, place: Place, old: Json, new: Json) -> tuple[Splice, ...]:
    """Return what makes ``new`` of a document whose value is ``old``, in the order of the text.

    Raises ``PlaceRefused``.
    """
    found = _Finder(source, place)
    found.compare(place.root, old, new, Around((), _STEP, JSON if place.is_json else PLAIN))
    splices = sorted(found.splices, key=lambda splice: splice[:2])
    return tuple(_apart(source.text, splice) for splice in splices)


def _apart(text: str, splice: Splice) -> Splice:
    """Return a splice that leaves a comment right behind it one: with a blank before it."""
    before = splice.text[-1:] or text[splice.start - 1 : splice.start]
    if text[splice.end : splice.end + 1] != "#" or not before.strip(" \t\r\n"):
        return splice
    return splice._replace(text=f"{splice.text} ")


@final
class _Finder:
    def __init__(self, source: Source, place: Place) -> None:
        self._source = source
        self._aliased = place.aliased
        self.splices: list[Splice] = []

    def compare(self, node: Node, old: Json, new: Json, around: Around) -> None:
        """Find what makes ``new`` of the value at a node."""
        if same(old, new):
            return
        if node.kind is Kind.ALIAS:
            why = f"is the alias *{node.anchor}"
            self._source.refuse(node.start, around.path, why, "write out what it stands for")
        if node.anchor in self._aliased:
            self._refuse_repeated(node, around.path)
        if isinstance(old, dict) and isinstance(new, dict):
            if new and self._is_bare(node, around):
                self.splices += expand(self._source, node, new, around)
            else:
                self._mapping(node, old, new, around)
        elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            for number, (item, one, other) in enumerate(zip(node.items, old, new, strict=True)):
                inner = Around((*around.path, str(number)), around.step, around.flow)
                self.compare(item, one, other, inner)
        else:
            self._exchange(node, new, around)

    def _mapping(
        self, node: Node, old: Mapping[str, Json], new: Mapping[str, Json], around: Around
    ) -> None:
        is_flow = node.kind in {Kind.FLOW_MAPPING, Kind.FLOW_PAIR}
        here = self._flow_around(node, around) if is_flow else self._block_around(node, around)
        spread = is_flow and all(self._source.leads(one.start) for one in node.members[-1:])
        own = {one.key: one for one in node.members if one.key is not None}
        removed = set()
        for key, value in old.items():
            if key in new and same(value, new[key]):
                continue
            path = (*around.path, key)
            member = self._simple(own.get(key), node, path)
            if key in new:
                inner = Around(path, here.step, here.flow, spread, node, member)
                self.compare(member.value, value, new[key], inner)
            else:
                self._check_cut(member.value, path)
                removed.add(key)
        added = {key: value for key, value in new.items() if key not in old}
        if removed or added:
            change = change_flow if is_flow else change_block
            cut = [one.key in removed for one in node.members]
            self.splices += change(self._source, node, cut, added, here)

    def _flow_around(self, node: Node, around: Around) -> Around:
        quoted = any(self._source.text[one.start] == '"' for one in node.members[:1])
        flow = flow_style(self._source, node, quoted=quoted) if node.members else around.flow
        return _with(around, around.step, flow)

    def _block_around(self, node: Node, around: Around) -> Around:
        quoted = any(self._source.text[one.start] == '"' for one in node.members[:1])
        children = (one.value for one in node.members)
        columns = (one.column for one in children if one.kind is Kind.BLOCK_MAPPING)
        steps = (one - node.column for one in columns if one > node.column)
        return _with(around, next(steps, around.step), FlowStyle(quoted, PLAIN.colon, PLAIN.comma))

    def _simple(self, member: Member | None, node: Node, path: tuple[str, ...]) -> Member:
        if member is None:
            why = "comes from elsewhere, by '<<' or an alias"
            self._source.refuse(node.start, path, why, "write it out here")
        if not member.is_simple:
            self._source.refuse(member.start, path, "is not written as key: value", "write it so")
        return member

    def _is_bare(self, node: Node, around: Around) -> bool:
        """Return whether it is ``{}`` on its own, under a key of a block mapping."""
        if node.kind is not Kind.FLOW_MAPPING or node.anchor or node.has_tag:
            return False
        is_member = around.parent is not None and around.parent.kind is Kind.BLOCK_MAPPING
        return is_member and self._source.text[node.start : node.tail].replace(" ", "") == "{}"

    def _exchange(self, node: Node, new: Json, around: Around) -> None:
        """Put one value in the place of another, which is no mapping or does not stay one."""
        source = self._source
        if node.anchor or node.has_tag:
            source.refuse(node.start, around.path, "has an anchor or a tag", "take that away")
        if node.kind in _WHOLE or source.has_comment(node.start, node.tail, node):
            source.refuse(node.start, around.path, "cannot be exchanged", "write it on one line")
        self._check_cut(node, around.path)
        if isinstance(new, dict) and new:
            if around.parent is not None and around.parent.kind is Kind.BLOCK_MAPPING:
                self.splices += expand(source, node, new, around)
                return
            text = flow_value(source, new, around)
        else:
            text = scalar_text(new, quoted=around.flow.is_quoted)
        # Where nothing is written yet, a space has to part it from what it stands behind.
        blank = " " if node.start == node.tail else ""
        self.splices.append(Splice(node.start, node.tail, blank + text))

    def _check_cut(self, node: Node, path: tuple[str, ...]) -> None:
        """Refuse to cut out what other places repeat."""
        for inner in node.walk():
            if inner.kind is not Kind.ALIAS and inner.anchor in self._aliased:
                self._refuse_repeated(inner, path)

    def _refuse_repeated(self, node: Node, path: tuple[str, ...]) -> None:
        self._source.refuse(node.start, path, f"is used again as *{node.anchor}", _REPEATED)


def _with(around: Around, step: int, flow: FlowStyle) -> Around:
    return Around(around.path, step, flow, around.is_spread, around.parent, around.member)
