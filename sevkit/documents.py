"""YAML and JSON documents, read as kubectl reads them, and bounded.

kubectl turns YAML 1.1 into JSON: ``on`` and ``yes`` are booleans, ``010`` is eight, keys are
strings, dates stay text. The values are built here from the parser's events rather than by its
constructor, because only so are duplicate keys, depth, and what aliases expand to (a few lines can
stand for gigabytes) under our control, and no tag can name a type.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias, final

from sevkit.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

#: Largest manifest, in bytes: the API server takes no object of more than 1.5 MiB either.
DOCUMENT_LIMIT: Final = 2 << 20
MAX_DEPTH: Final = 100
#: Most values of one stream, with aliases expanded.
MAX_VALUES: Final = 200_000


def parse_json(data: bytes, structure: str, *, limit: int = DOCUMENT_LIMIT) -> Json:
    """Return the value of one JSON document in UTF-8.

    ``structure`` names the document in errors. Raises ``FormatError`` for more than ``limit``
    bytes, duplicate keys, NaN and infinities, nesting that is too deep, and what is not JSON.
    """
    text = _text(data, structure, limit)

    def pairs(items: list[tuple[str, Json]]) -> dict[str, Json]:
        found = dict(items)
        if len(found) != len(items):
            keys = [key for key, _ in items]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise FormatError(structure, f"key {twice!r} occurs twice")
        return found

    def refuse(constant: str) -> NoReturn:
        raise FormatError(structure, f"{constant} is not JSON")

    def real(digits: str) -> float:
        value = float(digits)
        return value if math.isfinite(value) else refuse(digits[:20])

    try:
        found: Json = json.loads(
            text, object_pairs_hook=pairs, parse_constant=refuse, parse_float=real
        )
    except json.JSONDecodeError as error:
        raise FormatError(
            structure, f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from error
    except RecursionError as error:
        raise FormatError(structure, "nested too deep") from error
    except ValueError as error:  # an integer of thousands of digits
        raise FormatError(structure, "a number is too long") from error
    return found


def parse_documents(
    data: bytes, structure: str, *, limit: int = DOCUMENT_LIMIT
) -> tuple[Json, ...]:
    """Return the documents of a YAML or JSON stream; empty ones are left out, as kubectl does.

    ``structure`` names the stream in errors. Raises ``FormatError``.
    """
    text = _text(data, structure, limit)
    if text.lstrip()[:1] == "{":
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            pass  # a YAML flow mapping, or wrong: the YAML parser says where
        else:
            return (parse_json(data, structure, limit=limit),)
    from ruamel.yaml import YAML  # noqa: PLC0415  # 30 ms that a command without YAML does not pay
    from ruamel.yaml.error import MarkedYAMLError, YAMLError  # noqa: PLC0415  # as above

    reader = YAML(typ="safe", pure=True)
    try:
        found = tuple(_Builder(reader.parse(text), structure).documents())
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise FormatError(structure, f"not YAML: {_line(error.problem)}{where}") from error
    except (YAMLError, ValueError) as error:
        raise FormatError(structure, f"not YAML: {_line(str(error))}") from error
    return tuple(value for value in found if value is not None)


def _text(data: bytes, structure: str, limit: int) -> str:
    if len(data) > limit:
        raise FormatError(structure, f"larger than the limit of {limit} bytes", offset=limit)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(structure, "not UTF-8", offset=error.start) from error


def _line(text: str | None) -> str:
    return " ".join((text or "unreadable").split())[:200]


_DECIMAL: Final = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)")
_OCTAL: Final = re.compile(r"([-+]?)0o?([0-7_]+)")
_HEX: Final = re.compile(r"([-+]?)0x([0-9a-fA-F_]+)")
_BINARY: Final = re.compile(r"([-+]?)0b([01_]+)")
_FLOAT: Final = re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?")

_WORDS: Final[dict[str, bool | None]] = {
    spelling: value
    for value, words in (
        (None, ("null",)),
        (True, ("true", "yes", "on", "y")),
        (False, ("false", "no", "off", "n")),
    )
    for word in words
    for spelling in (word, word.capitalize(), word.upper())
} | {"": None, "~": None}


def _plain(text: str) -> str | int | float | bool | None:
    """Return what an unquoted scalar means in YAML 1.1 as kubectl's parser has it."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > 64 or text[0] not in "-+.0123456789":
        return text
    if _DECIMAL.fullmatch(text):
        return int(text.replace("_", ""))
    for pattern, base in ((_HEX, 16), (_BINARY, 2), (_OCTAL, 8)):
        found = pattern.fullmatch(text)
        digits = found[2].replace("_", "") if found else ""
        if found and digits:
            return int(found[1] + digits, base)
    if _FLOAT.fullmatch(text):
        value = float(text.replace("_", ""))
        return value if math.isfinite(value) else text
    return text


@final
class _Builder:
    """Builds values from events, and counts them."""

    def __init__(self, events: Iterator[Any], structure: str) -> None:
        self._events = events
        self._structure = structure
        self._values = 0
        self._anchors: dict[str, tuple[Json, int]] = {}

    def documents(self) -> Iterator[Json]:
        for event in self._events:
            if type(event).__name__ == "DocumentStartEvent":
                self._anchors.clear()
                yield self._value(next(self._events), 0)

    def _refuse(self, message: str, event: Any) -> NoReturn:  # noqa: ANN401  # ruamel's events are untyped
        mark = event.start_mark
        where = f" at line {mark.line + 1}" if mark else ""
        raise FormatError(self._structure, message + where)

    def _value(self, event: Any, depth: int) -> Json:  # noqa: ANN401  # as above
        before = self._values
        self._count(1, event)
        if depth > MAX_DEPTH:
            self._refuse(f"nested more than {MAX_DEPTH} deep", event)
        build: dict[str, Callable[[Any, int], Json]] = {
            "AliasEvent": self._alias,
            "ScalarEvent": self._scalar,
            "SequenceStartEvent": self._sequence,
            "MappingStartEvent": self._mapping,
        }
        kind = type(event).__name__
        value = build[kind](event, depth)
        if kind != "AliasEvent" and event.anchor is not None:
            self._anchors[event.anchor] = (value, self._values - before)
        return value

    def _count(self, more: int, event: Any) -> None:  # noqa: ANN401  # as above
        self._values += more
        if self._values > MAX_VALUES:
            self._refuse(f"more than {MAX_VALUES} values, aliases expanded,", event)

    def _alias(self, event: Any, _: int) -> Json:  # noqa: ANN401  # as above
        if event.anchor not in self._anchors:
            self._refuse(f"alias {event.anchor} refers to nothing before it", event)
        value, size = self._anchors[event.anchor]
        self._count(size, event)
        return value

    def _tag(self, event: Any, *allowed: str) -> str | None:  # noqa: ANN401  # as above
        tag = None if event.tag is None else str(event.tag)
        if tag is not None and tag not in allowed:
            self._refuse(f"tag {tag} is not allowed", event)
        return tag

    def _scalar(self, event: Any, _: int) -> Json:  # noqa: ANN401  # as above
        tag = self._tag(event, "!", "tag:yaml.org,2002:str")
        text = str(event.value)
        return text if tag is not None or event.style else _plain(text)

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
            elif key in found:
                self._refuse(f"key {key!r} occurs twice", item)
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
        if not isinstance(value, int):
            self._refuse("a key is neither text nor a whole number", event)
        return str(value)
