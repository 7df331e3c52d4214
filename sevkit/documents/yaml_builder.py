"""Values out of the events of a YAML stream, counted and bounded.

They are built from the parser's events rather than by its constructor, because only so are
duplicate keys, depth, and what aliases expand to (a few lines can stand for gigabytes) under our
control, and no tag can name a type.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NoReturn, final

from sevkit.documents.bounds import MAX_DEPTH, MAX_VALUES, check_text, quote_key
from sevkit.documents.yaml_scalars import key_of_number, read_plain
from sevkit.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sevkit.documents.bounds import Json

#: What kubectl's parser takes in an anchor's name.
_ANCHOR: Final = re.compile(r"[0-9A-Za-z_-]+")
#: Line breaks of YAML 1.1 that the parsers do not agree on, but in quotes.
_SEPARATOR: Final = re.compile(r"[\x85\u2028\u2029]")
#: A block scalar, after its anchor and tag, whose indentation is found out and has a tab in it.
_BLOCK_WITH_TAB: Final = re.compile(r"(?:[&!]\S*\s+)*[|>][-+]?[ ]*(?:#[^\r\n]*)?[\r\n][ \r\n]*\t")


@final
class YamlBuilder:
    """Builds the values of one stream from its events, and counts them.

    ``text`` is the stream that the events, as ``read_events`` yields them, are about; ``structure``
    names it in errors.
    """

    def __init__(self, events: Iterator[Any], text: str, structure: str) -> None:
        self._events = events
        self._text = text
        self._structure = structure
        self._values = 0
        self._anchors: dict[str, tuple[Json, int, int]] = {}
        self._deepest = 0
        self._tabs = "\t" in text
        self._separators = len(_SEPARATOR.findall(text))

    def documents(self) -> Iterator[Json]:
        """Yield the documents' values, None for an empty one. Raises ``FormatError``."""
        for event in self._events:
            if type(event).__name__ == "DocumentStartEvent":
                self._check_mark(event)
                self._anchors.clear()
                yield self._value(next(self._events), 0)
        if self._separators:
            raise FormatError(self._structure, "U+0085, U+2028 or U+2029 outside of quotes")

    def _check_mark(self, event: Any) -> None:  # noqa: ANN401  # ruamel's events are untyped
        """Refuse what kubectl, which first cuts the stream at lines of ``---``, reads otherwise."""
        if not event.explicit:
            return
        text, start = self._text, event.start_mark.index
        end = text.find("\n", start)
        if start and text[start - 1] != "\n":
            self._refuse("a document begins within a line", event)
        if end >= 0 and text.startswith("\ufeff", end + 1):
            self._refuse("a byte order mark within the stream", event)

    def _refuse(self, message: str, event: Any) -> NoReturn:  # noqa: ANN401  # ruamel's events are untyped
        mark = event.start_mark
        where = f" at line {mark.line + 1}" if mark else ""
        raise FormatError(self._structure, message + where)

    def _value(self, event: Any, depth: int) -> Json:  # noqa: ANN401  # as above
        before, around = self._values, self._deepest
        self._count(1, event)
        self._descend(depth, event)
        self._deepest = depth
        build: dict[str, Callable[[Any, int], Json]] = {
            "AliasEvent": self._alias,
            "ScalarEvent": self._scalar,
            "SequenceStartEvent": self._sequence,
            "MappingStartEvent": self._mapping,
        }
        kind = type(event).__name__
        value = build[kind](event, depth)
        if kind != "AliasEvent" and event.anchor is not None:
            if not _ANCHOR.fullmatch(event.anchor):
                self._refuse(
                    f"anchor {event.anchor[:80]} is not of ASCII letters and digits", event
                )
            self._anchors[event.anchor] = (value, self._values - before, self._deepest - depth)
        self._deepest = max(self._deepest, around)
        return value

    def _descend(self, depth: int, event: Any) -> None:  # noqa: ANN401  # as above
        if depth > MAX_DEPTH:
            self._refuse(f"nested more than {MAX_DEPTH} deep", event)

    def _count(self, more: int, event: Any) -> None:  # noqa: ANN401  # as above
        self._values += more
        if self._values > MAX_VALUES:
            self._refuse(f"more than {MAX_VALUES} values, aliases expanded,", event)

    def _alias(self, event: Any, depth: int) -> Json:  # noqa: ANN401  # as above
        if event.anchor not in self._anchors:
            self._refuse(f"alias {event.anchor[:80]} refers to nothing before it", event)
        value, size, height = self._anchors[event.anchor]
        self._count(size, event)
        self._deepest = depth + height
        self._descend(self._deepest, event)
        return value

    def _tag(self, event: Any, *allowed: str) -> str | None:  # noqa: ANN401  # as above
        tag = None if event.tag is None else str(event.tag)
        if tag is not None and tag not in allowed:
            self._refuse(f"tag {tag} is not allowed", event)
        return tag

    def _scalar(self, event: Any, _: int) -> Json:  # noqa: ANN401  # as above
        tag = self._tag(event, "!", "tag:yaml.org,2002:str")
        text = str(event.value)
        if not text.isascii():
            check_text(text, self._structure, f" at line {event.start_mark.line + 1}")
        if event.style:
            self._check_source(event)
        if tag is not None or event.style:
            return text
        try:
            return read_plain(text)
        except ValueError:
            self._refuse(f"{text} is not a number of JSON's", event)

    def _check_source(self, event: Any) -> None:  # noqa: ANN401  # as above
        """Refuse the tab with which a block scalar may not begin; count what quotes hold."""
        if event.style in "'\"":
            if self._separators:
                self._separators -= len(_SEPARATOR.findall(self._source(event)))
        elif self._tabs and _BLOCK_WITH_TAB.match(self._source(event)):
            self._refuse("a tab where a block scalar is indented", event)

    def _source(self, event: Any) -> str:  # noqa: ANN401  # as above
        return self._text[event.start_mark.index : event.end_mark.index]

    def _sequence(self, event: Any, depth: int) -> Json:  # noqa: ANN401  # as above
        self._tag(event, "tag:yaml.org,2002:seq")
        found: list[Json] = []
        while type(item := next(self._events)).__name__ != "SequenceEndEvent":
            found.append(self._value(item, depth + 1))
        return found

    def _mapping(self, event: Any, depth: int) -> Json:  # noqa: ANN401  # as above
        self._tag(event, "tag:yaml.org,2002:map")
        found: dict[str, Json] = {}
        merged: dict[str, Json] = {}
        merges = 0
        while type(item := next(self._events)).__name__ != "MappingEndEvent":
            merge = type(item).__name__ == "ScalarEvent" and item.value == "<<" and not item.style
            key = self._key(self._value(item, depth + 1), item)
            value = self._value(next(self._events), depth + 1)
            if merge:
                merges += 1
                merged = self._merge(value, item)
                for twice in found.keys() & merged.keys():
                    self._refuse(f"'<<' merges key {quote_key(twice)} after it was given", item)
            elif key in found:
                self._refuse(f"key {quote_key(key)} occurs twice", item)
            else:
                found[key] = value
            if merges > 1:
                self._refuse("key '<<' occurs twice", item)
        return merged | found

    def _merge(self, value: Json, event: Any) -> dict[str, Json]:  # noqa: ANN401  # as above
        merged: dict[str, Json] = {}
        for source in reversed(value if isinstance(value, list) else [value]):
            if not isinstance(source, dict):
                self._refuse("'<<' merges something that is not a mapping", event)
            merged |= source
        return merged

    def _key(self, value: Json, event: Any) -> str:  # noqa: ANN401  # as above
        if isinstance(value, str):
            return value
        if isinstance(value, bool):
            return "true" if value else "false"
        key = key_of_number(value) if isinstance(value, int) else None
        if key is None:
            self._refuse("a key is neither text nor a whole number", event)
        return key
