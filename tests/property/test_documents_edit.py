"""Streams in every style that people write, changed at random: the value is the one asked for.

``Manuscript`` holds each result against what was asked for, and an internal error fails the test;
here it is seen that nothing else of the text moves, and that a refusal is the exception.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from sevkit.documents import parse_documents
from sevkit.documents.edit import Manuscript, PlaceRefused
from sevkit.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.documents import Json

KEYS: Final = ("a", "b", "cpu", "kind", "sevkit.io/x", "c d", "yes", "12", "<<", "é")
TEXTS: Final = st.sampled_from(
    ("x", "yes", "1", "", "a b", "é", "a: b", "# no", "- c", "\U0001f600", 'q"\\', "line\nline\n")
)
SCALARS: Final = st.none() | st.booleans() | st.integers(-9, 1 << 40) | TEXTS
VALUES: Final = st.recursive(
    SCALARS,
    lambda inner: (
        st.dictionaries(st.sampled_from(KEYS), inner, max_size=3) | st.lists(inner, max_size=2)
    ),
    max_leaves=6,
)
ROOTS: Final = st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=4)
#: The key by which added members are known.
NEW: Final = ("new", "newer", "sevkit.io/new")


class Writer:
    """Writes a value as YAML, in a style that is drawn at each step."""

    def __init__(self, draw: Callable[..., Any]) -> None:
        self._draw = draw
        self.comments = 0

    def document(self, value: dict[str, Json]) -> str:
        text = "".join(self._block(value, 0))
        return text + self._chance("", "# last\n", "\n\n")

    def _chance(self, *texts: str) -> str:
        found: str = self._draw(st.sampled_from(texts))
        return found

    def _comment(self) -> str:
        self.comments += 1
        return f"# comment {self.comments}"

    def _end(self) -> str:
        return self._chance("", "", "  ", f" {self._comment()}") + "\n"

    def _scalar(self, value: Json, *, key: bool = False) -> str:
        if not isinstance(value, str):
            return json.dumps(value)
        quoted = json.dumps(value, ensure_ascii=False)
        single = "'" + value.replace("'", "''") + "'"
        if "\n" in value:
            return quoted
        plain = value.isascii() and value.isalnum() and value not in {"yes", "1", "12"}
        choices = [quoted, single] + ([value, value] if plain or (key and value == "é") else [])
        return self._chance(*choices)

    def _flow(self, value: Json, indent: str | None) -> str:
        if not isinstance(value, dict | list) or not value:
            return self._chance("{}", "{ }") if value == {} else self._scalar(value)
        spread = indent is not None and self._draw(st.booleans())
        inner = f"{indent}  " if spread else None
        parts = (
            [
                f"{self._scalar(key, key=True)}: {self._flow(one, inner)}"
                for key, one in value.items()
            ]
            if isinstance(value, dict)
            else [self._flow(one, inner) for one in value]
        )
        opening, closing = "{}" if isinstance(value, dict) else "[]"
        comma = self._chance("", ",")
        if not spread:
            return opening + ", ".join(parts) + comma + closing
        lines = []
        for number, part in enumerate(parts, 1):
            end = "," if number < len(parts) else comma
            lines.append(f"{inner}{part}{end}{self._end()}")
        return f"{opening}\n{''.join(lines)}{indent}{closing}"

    def _block(self, value: Json, column: int) -> list[str]:
        """Return the lines of a mapping or a list that is not empty."""
        lines: list[str] = []
        pad = " " * column
        for key, one in value.items() if isinstance(value, dict) else enumerate(value or ()):  # type: ignore[arg-type]
            if self._draw(st.integers(0, 5)) == 0:
                lines.append(self._chance("\n", f"{pad}{self._comment()}\n"))
            head = f"{pad}{self._scalar(key, key=True)}:" if isinstance(value, dict) else f"{pad}-"
            lines += self._member(head, one, column, in_list=isinstance(value, list))
        return lines

    def _member(self, head: str, value: Json, column: int, *, in_list: bool) -> list[str]:
        if isinstance(value, dict | list) and value and self._draw(st.integers(0, 3)):
            step = self._draw(st.sampled_from((2, 2, 3, 4)))
            if isinstance(value, list) and not in_list:
                step = self._draw(st.sampled_from((0, 2)))
            inner = self._block(value, column + step)
            first = inner[0]
            if in_list and step > 1 and first.strip() and not first.lstrip().startswith("#"):
                return [head + first[len(head) :], *inner[1:]]
            return [head + self._end(), *inner]
        if isinstance(value, str) and value.endswith("\n") and self._draw(st.booleans()):
            pad = " " * (column + 2)
            style = self._chance("|", "|+", "| # why")
            return [f"{head} {style}\n", *(f"{pad}{line}\n" for line in value.splitlines())]
        if value is None and self._draw(st.booleans()):
            return [head + self._end()]
        return [f"{head} {self._flow(value, ' ' * (column + 2))}{self._end()}"]


@st.composite
def streams(draw: Callable[..., Any]) -> tuple[bytes, int]:
    """Return a stream and the number of its documents."""
    writer = Writer(draw)
    documents = [writer.document(draw(ROOTS)) for _ in range(draw(st.integers(1, 3)))]
    text = draw(st.sampled_from(("", "---\n", "# first\n---\n"))) + "---\n".join(documents)
    text += draw(st.sampled_from(("", "", "...\n")))
    if draw(st.integers(0, 4)) == 0:
        text = text.rstrip("\n")
    text = text.replace("\n", draw(st.sampled_from(("\n", "\n", "\n", "\r\n"))))
    return draw(st.sampled_from((b"", b"", b"\xef\xbb\xbf"))) + text.encode(), len(documents)


def copied(values: tuple[Json, ...]) -> dict[int, Any]:
    """Return the documents' values, in which nothing is shared as aliases share it."""
    return dict(enumerate(json.loads(json.dumps(values))))


def mappings(value: Json) -> list[dict[str, Json]]:
    """Return every mapping in a value."""
    if isinstance(value, list):
        return [found for item in value for found in mappings(item)]
    if not isinstance(value, dict):
        return []
    return [value, *(found for item in value.values() for found in mappings(item))]


def add(draw: Callable[..., Any], value: Json) -> None:
    place = draw(st.sampled_from(mappings(value)))
    place[draw(st.sampled_from(NEW))] = draw(VALUES)


def cut(draw: Callable[..., Any], value: Json) -> None:
    places = [place for place in mappings(value) if place]
    if places:
        place = draw(st.sampled_from(places))
        del place[draw(st.sampled_from(sorted(place)))]


def exchange(draw: Callable[..., Any], value: Json) -> None:
    places = [place for place in mappings(value) if place]
    if places:
        place = draw(st.sampled_from(places))
        place[draw(st.sampled_from(sorted(place)))] = draw(VALUES)


def is_part(small: bytes, large: bytes) -> bool:
    """Return whether ``small`` is ``large`` with some of it left out."""
    rest = iter(large)
    return all(byte in rest for byte in small)


@given(streams(), st.data())
@settings(max_examples=100)
def test_what_is_added_leaves_every_byte_where_it_was(
    stream: tuple[bytes, int], data: st.DataObject
) -> None:
    text, count = stream
    manuscript = Manuscript(text, "test")
    assert len(manuscript.values) <= count
    wanted = copied(manuscript.values)
    for number in data.draw(st.sets(st.sampled_from(range(len(wanted))), min_size=1)):
        # In braces that are empty, or below a key without a value, more than that may move.
        places = [place for place in mappings(wanted[number]) if place]
        for place in data.draw(st.lists(st.sampled_from(range(len(places))), min_size=1)):
            places[place][data.draw(st.sampled_from(NEW))] = data.draw(VALUES)
    try:
        changed = manuscript.change(wanted)
    except PlaceRefused as refused:
        event(f"refused: {refused.why}")
        return
    event("changed")
    assert parse_documents(changed, "test") == tuple(wanted.values())
    assert is_part(text, changed)
    assert Manuscript(changed, "test").change(wanted) == changed


@given(streams(), st.data())
@settings(max_examples=100)
def test_any_change_gives_the_value_that_was_asked_for(
    stream: tuple[bytes, int], data: st.DataObject
) -> None:
    manuscript = Manuscript(stream[0], "test")
    wanted = copied(manuscript.values)
    for value in wanted.values():
        for change in data.draw(st.lists(st.sampled_from((add, cut, exchange)), max_size=4)):
            change(data.draw, value)
    try:
        changed = manuscript.change(wanted)
    except PlaceRefused as refused:
        event(f"refused: {refused.why}")
        return
    event("changed")
    assert parse_documents(changed, "test") == tuple(wanted.values())


@given(
    st.lists(
        st.dictionaries(st.sampled_from((*KEYS, "", "\ud83d\ude00", '"')), VALUES), min_size=1
    ),
    st.sampled_from((None, 0, 2, 4, "\t")),
    st.sampled_from(((", ", ": "), (",", ":"), (",", ": "))),
    st.sampled_from(("", "\n", " ", "\n\n")),
    st.data(),
)
def test_json_stays_json(
    values: list[dict[str, Json]],
    indent: int | str | None,
    separators: tuple[str, str],
    between: str,
    data: st.DataObject,
) -> None:
    texts = (json.dumps(value, indent=indent, separators=separators) for value in values)
    manuscript = Manuscript(between.join(texts).encode(), "test")
    wanted = copied(manuscript.values)
    for value in wanted.values():
        for change in data.draw(st.lists(st.sampled_from((add, cut, exchange)), max_size=4)):
            change(data.draw, value)
    changed = manuscript.change(wanted)
    decoder, text, found = json.JSONDecoder(), changed.decode(), []
    while text := text.lstrip():
        value, end = decoder.raw_decode(text)
        text = text[end:]
        found.append(value)
    assert found == list(wanted.values())


TOKENS: Final = (
    *("a: ", "b: ", "c:\n  ", "d:\n    ", "- ", "? ", ": ", ":", "x", "1", "~", "yes", "a", "b"),
    *("\n", "\n  ", "\n    ", "\n\n", "\r\n", "\r", "  ", "{", "}", "[", "]", ", ", ",", '"', "'"),
    *("|\n    ", ">\n  ", "|-\n    ", "|+\n  ", " # c\n", "\n  # c\n", "\n---\n", "\n...\n"),
    *("&a ", "*a", "<<: *a", "!!str ", "!!map ", "! ", '"x"', "'y'", "{a: b}", "[a, b]", "{}"),
    *("&a {a: 1, b: 2}", "<<: {a: 1}", "a: 1\nb: 2\n", "{a, b: }", "{? a : b}", "\u2028"),
    *("#", "? a # c\n", "[a: {b: 1}]", "!!str <<: a", "{!!str }", "a: {}#", "'x'# c\n", "? a\n:b"),
)


@given(st.lists(st.sampled_from(TOKENS), min_size=2, max_size=14).map("".join), st.data())
@settings(max_examples=200, suppress_health_check=list(HealthCheck))
def test_whatever_can_be_read_is_changed_as_asked_or_refused(
    text: str, data: st.DataObject
) -> None:
    try:
        manuscript = Manuscript(text.encode(), "test")
    except FormatError:
        assume(False)
        raise
    wanted = copied(manuscript.values)
    for value in wanted.values():
        change = data.draw(st.sampled_from((add, cut, exchange)))
        if mappings(value):
            change(data.draw, value)
    try:
        changed = manuscript.change(wanted)
    except PlaceRefused as refused:
        event(f"refused: {refused.why}")
        return
    event("changed" if changed != text.encode() else "nothing to change")
    assert parse_documents(changed, "test") == tuple(wanted.values())
