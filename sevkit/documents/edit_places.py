"""Where the values of a stream stand in its text: a tree of places, for those who change the text.

Positions are indexes of characters. What the parser says of them is taken where it is exact; where
a value's content ends, and where an empty value is, is worked out here, because there the parser's
marks lie behind blank lines and comments.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, final

from sevkit.documents.json_reader import split_json
from sevkit.documents.yaml_events import read_events
from sevkit.documents.yaml_scalars import key_of_number, read_plain

if TYPE_CHECKING:
    from collections.abc import Iterator

#: From a key to behind its colon. Comments may stand before that of a key with a question mark, and
#: in braces; a colon without a blank behind it is that of a key in braces, or the next key's own.
_FLOW_COLON: Final = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*+)*+:")
_BLOCK_COLON: Final = re.compile(_FLOW_COLON.pattern + r"(?=[ \t\r\n]|\Z)")
_SPACE: Final = re.compile(r"\s*")
_JSON_TEXT: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
_JSON_WORD: Final = re.compile(r"[^\s,\]}]+")
_STRING_TAGS: Final = frozenset({"!", "tag:yaml.org,2002:str"})


class Kind(Enum):
    """What stands at a place.

    ``BLOCK_TEXT`` is a literal or folded scalar, ``FLOW_PAIR`` the one member of a mapping without
    braces, as a list in brackets may hold it: ``[a: b]``.
    """

    PLAIN = auto()
    QUOTED = auto()
    BLOCK_TEXT = auto()
    ALIAS = auto()
    FLOW_MAPPING = auto()
    FLOW_PAIR = auto()
    BLOCK_MAPPING = auto()
    FLOW_SEQUENCE = auto()
    BLOCK_SEQUENCE = auto()


_WORDS: Final = frozenset({Kind.PLAIN, Kind.QUOTED, Kind.BLOCK_TEXT, Kind.ALIAS})


@final
@dataclass(frozen=True, slots=True)
class Node:
    """A value's place: from ``start`` to ``tail``, behind the last character of its content.

    ``start`` is that of its anchor or tag where it has one. ``column`` is where a block mapping's
    keys stand. ``text`` is a scalar's, ``anchor`` also the name that an alias repeats.
    """

    kind: Kind
    start: int
    tail: int
    column: int = 0
    anchor: str = ""
    has_tag: bool = False
    text: str = ""
    members: tuple[Member, ...] = ()
    items: tuple[Node, ...] = ()

    @property
    def is_null(self) -> bool:
        """Whether it is null, written or left out."""
        return self.kind is Kind.PLAIN and not self.has_tag and read_plain(self.text) is None

    def walk(self) -> Iterator[Node]:
        """Yield it and all that is in it, keys' places excepted."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += [*(member.value for member in node.members), *node.items]

    def words(self) -> Iterator[tuple[int, int]]:
        """Yield from where to where each scalar, alias and key in it stands."""
        for node in self.walk():
            if node.kind in _WORDS:
                yield node.start, node.tail
            yield from ((member.start, member.end) for member in node.members)


@final
@dataclass(frozen=True, slots=True)
class Member:
    """A key, from ``start`` to ``end``, and its value.

    ``key`` is None where it is an alias, or no key of a mapping's own (``<<``). ``colon`` is behind
    the colon, None where there is none to be found. ``is_simple`` says that it is written
    ``key: value``, without a question mark and an anchor.
    """

    key: str | None
    start: int
    end: int
    colon: int | None
    is_simple: bool
    value: Node


@final
@dataclass(frozen=True, slots=True)
class Place:
    """One document: its root, and the anchors' names that some alias in it repeats."""

    root: Node
    aliased: frozenset[str] = field(default_factory=frozenset)
    is_json: bool = False


def read_places(text: str, structure: str) -> tuple[Place, ...]:
    """Return the places of a stream that ``parse_documents`` has read, and of the same documents.

    Raises ``FormatError`` for what that would have refused.
    """
    if text.lstrip()[:1] == "{" and split_json(text):
        return tuple(Place(root, is_json=True) for root in _json_roots(text))
    return tuple(place for place in _Reader(text, structure).documents() if not place.root.is_null)


@final
class _Reader:
    """Makes nodes of the parser's events."""

    def __init__(self, text: str, structure: str) -> None:
        self._text = text
        self._events = read_events(text, structure)
        self._aliased: set[str] = set()

    def documents(self) -> Iterator[Place]:
        for event in self._events:
            if type(event).__name__ == "DocumentStartEvent":
                self._aliased = set()
                root = self._node(next(self._events))
                yield Place(root, frozenset(self._aliased))

    def _node(self, event: Any, empty: int | None = None) -> Node:  # noqa: ANN401  # ruamel's events are untyped
        """Return the node of an event; ``empty`` is where it stands if nothing is written."""
        kind = type(event).__name__
        start, end = event.start_mark.index, event.end_mark.index
        if kind == "AliasEvent":
            self._aliased.add(event.anchor)
            return Node(Kind.ALIAS, start, end, anchor=event.anchor)
        if kind == "ScalarEvent":
            return self._scalar(event, empty)
        known: dict[str, Any] = {"anchor": event.anchor or "", "has_tag": event.tag is not None}
        if kind == "SequenceStartEvent":
            items, after = self._items()
            tail = after if event.flow_style else items[-1].tail
            shape = Kind.FLOW_SEQUENCE if event.flow_style else Kind.BLOCK_SEQUENCE
            return Node(shape, start, tail, items=items, **known)
        members, after = self._members(is_flow=event.flow_style)
        if event.flow_style:
            if self._text[end - 1] == "{":
                return Node(Kind.FLOW_MAPPING, start, after, members=members, **known)
            return Node(Kind.FLOW_PAIR, start, members[-1].value.tail, members=members)
        # With an anchor or a tag it begins elsewhere than its keys stand.
        column = self._column(end) if event.anchor or event.tag else event.start_mark.column
        tail = members[-1].value.tail
        members = tuple(one if self._column(one.start) == column else _odd(one) for one in members)
        return Node(Kind.BLOCK_MAPPING, start, tail, column, members=members, **known)

    def _scalar(self, event: Any, empty: int | None) -> Node:  # noqa: ANN401  # as above
        start, end, text = event.start_mark.index, event.end_mark.index, str(event.value)
        known: dict[str, Any] = {
            "anchor": event.anchor or "",
            "has_tag": event.tag is not None,
            "text": text,
        }
        if not event.style:
            if start == end and empty is not None:
                start = end = empty
            return Node(Kind.PLAIN, start, end, **known)
        if event.style in "'\"":
            return Node(Kind.QUOTED, start, end, **known)
        source = self._text[start:end]
        header = re.split(r"[\r\n]", source, maxsplit=1)[0].partition("#")[0]
        if "+" in header:  # blank lines are its content
            kept = source.removesuffix("\n").removesuffix("\r")
        else:
            kept = source.rstrip("\r\n")
        return Node(Kind.BLOCK_TEXT, start, start + len(kept), **known)

    def _items(self) -> tuple[tuple[Node, ...], int]:
        found = []
        while type(event := next(self._events)).__name__ != "SequenceEndEvent":
            found.append(self._node(event))
        return tuple(found), event.end_mark.index

    def _members(self, *, is_flow: bool) -> tuple[tuple[Member, ...], int]:
        found = []
        while type(event := next(self._events)).__name__ != "MappingEndEvent":
            key = self._node(event)
            colon = (_FLOW_COLON if is_flow else _BLOCK_COLON).match(self._text, key.tail)
            after = colon.end() if colon else None
            value = self._node(next(self._events), key.tail if after is None else after)
            simple = after is not None and not key.anchor
            if is_flow:
                simple = simple and self._before(key.start) != "?"
            found.append(Member(_key(key), key.start, key.tail, after, simple, value))
        return tuple(found), event.end_mark.index

    def _column(self, index: int) -> int:
        before = max(self._text.rfind("\n", 0, index), self._text.rfind("\r", 0, index))
        return index - before - 1

    def _before(self, index: int) -> str:
        while index and self._text[index - 1].isspace():
            index -= 1
        return self._text[index - 1 : index]


def _odd(member: Member) -> Member:
    return Member(member.key, member.start, member.end, member.colon, False, member.value)  # noqa: FBT003  # a field


def _key(node: Node) -> str | None:
    """Return a key as JSON has it."""
    if node.kind is Kind.PLAIN and node.text == "<<":
        return None
    if node.kind is Kind.QUOTED or (node.kind is Kind.PLAIN and node.has_tag):
        return node.text
    if node.kind is not Kind.PLAIN:
        return None
    found = read_plain(node.text)
    if isinstance(found, bool):
        return "true" if found else "false"
    if isinstance(found, int):
        return key_of_number(found)
    return found if isinstance(found, str) else None


def _json_roots(text: str) -> Iterator[Node]:
    index = _after_space(text, 0)
    while index < len(text):
        root = _json_node(text, index)
        yield root
        index = _after_space(text, root.tail)


def _after_space(text: str, index: int) -> int:
    found = _SPACE.match(text, index)
    return found.end() if found else index


def _json_node(text: str, index: int) -> Node:
    """Return the node of a value, which is JSON and so well-formed, that begins at ``index``."""
    first = text[index]
    if first == '"':
        end = _end(_JSON_TEXT, text, index)
        return Node(Kind.QUOTED, index, end)
    if first not in "{[":
        end = _end(_JSON_WORD, text, index)
        return Node(Kind.PLAIN, index, end, text=text[index:end])
    members, items = [], []
    at = _after_space(text, index + 1)
    while text[at] not in "]}":
        if first == "[":
            item = _json_node(text, at)
            items.append(item)
            at = item.tail
        else:
            member = _json_member(text, at)
            members.append(member)
            at = member.value.tail
        at = _after_space(text, at)
        if text[at] == ",":
            at = _after_space(text, at + 1)
    if first == "[":
        return Node(Kind.FLOW_SEQUENCE, index, at + 1, items=tuple(items))
    return Node(Kind.FLOW_MAPPING, index, at + 1, members=tuple(members))


def _json_member(text: str, index: int) -> Member:
    end = _end(_JSON_TEXT, text, index)
    colon = _end(_FLOW_COLON, text, end)
    value = _json_node(text, _after_space(text, colon))
    key = json.loads(text[index:end])
    return Member(key, index, end, colon, is_simple=True, value=value)


def _end(pattern: re.Pattern[str], text: str, index: int) -> int:
    found = pattern.match(text, index)
    return found.end() if found else index
