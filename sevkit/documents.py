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
    return _json(_text(data, structure, limit), structure)


def _json(text: str, structure: str) -> Json:
    def pairs(items: list[tuple[str, Json]]) -> dict[str, Json]:
        found: dict[str, Json] = {}
        for key, value in items:
            if key in found:
                raise FormatError(structure, f"key {_short(key)} occurs twice")
            found[key] = value
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
    _check_depth(found, structure)
    if _SURROGATE.search(text):
        _check_text(json.dumps(found, ensure_ascii=False), structure)
    return found


def _check_text(text: str, structure: str, where: str = "") -> None:
    """Refuse half a surrogate pair, which escapes can write and nothing can print."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise FormatError(structure, f"half a surrogate pair{where}") from error


def _check_depth(value: Json, structure: str) -> None:
    """Refuse what a reader that recurses would not come back from."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH + 1):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
    if level:
        raise FormatError(structure, f"nested more than {MAX_DEPTH} deep")


def parse_documents(
    data: bytes, structure: str, *, limit: int = DOCUMENT_LIMIT
) -> tuple[Json, ...]:
    """Return the documents of a YAML or JSON stream; empty ones are left out, as kubectl does.

    ``structure`` names the stream in errors. Raises ``FormatError``.
    """
    text = _text(data, structure, limit)
    if text.lstrip()[:1] == "{":
        parts = _json_parts(text)
        if parts:
            return tuple(_json(part, structure) for part in parts)
    found = tuple(_Builder(_events(text, structure), structure).documents())
    return tuple(value for value in found if value is not None)


def _json_parts(text: str) -> list[str]:
    """Return the JSON values of a stream; none if it is not JSON throughout: then it is YAML."""
    decoder = json.JSONDecoder()
    parts: list[str] = []
    end = 0
    while found := _WORD.search(text, end):
        start = found.start()
        try:
            _, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            return []  # a flow mapping, or wrong: the YAML parser says where
        parts.append(text[start:end])
        if len(parts) > MAX_VALUES:
            return []
    return parts


def _events(text: str, structure: str) -> Iterator[Any]:
    """Yield the parser's events; whatever it raises over hostile text is a malformed document."""
    from ruamel.yaml import YAML  # noqa: PLC0415  # 30 ms that a command without YAML does not pay
    from ruamel.yaml.error import MarkedYAMLError  # noqa: PLC0415  # as above
    from ruamel.yaml.parser import Parser  # noqa: PLC0415  # as above

    class ShortTags(Parser):
        """Refuses a long tag before it is decoded, which takes quadratic time."""

        def select_tag_transform(self, tag: Any) -> None:  # noqa: ANN401  # as above
            if tag is not None and len(tag.suffix or "") > _LONGEST_TAG:
                raise FormatError(structure, f"tag {tag.suffix[:_LONGEST_TAG]}… is not allowed")
            super().select_tag_transform(tag)

    reader = YAML(typ="safe", pure=True)
    reader.Parser = ShortTags
    events = reader.parse(text)
    while True:
        try:
            event = next(events)
        except StopIteration:
            return
        except FormatError:
            raise
        except MarkedYAMLError as error:
            mark = error.problem_mark
            where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
            raise FormatError(structure, f"not YAML: {_line(error.problem)}{where}") from error
        except Exception as error:  # also ArithmeticError, for a character beyond Unicode
            raise FormatError(structure, f"not YAML: {_line(str(error))}") from error
        yield event


def _text(data: bytes, structure: str, limit: int) -> str:
    if len(data) > limit:
        raise FormatError(structure, f"larger than the limit of {limit} bytes", offset=limit)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(structure, "not UTF-8", offset=error.start) from error


def _short(key: str) -> str:
    return repr(key if len(key) <= 80 else f"{key[:80]}…")


def _line(text: str | None) -> str:
    return " ".join((text or "unreadable").split())[:200]


_LONGEST_TAG: Final = 80
_WORD: Final = re.compile(r"\S")
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
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
        self._anchors: dict[str, tuple[Json, int, int]] = {}
        self._deepest = 0

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
            _check_text(text, self._structure, f" at line {event.start_mark.line + 1}")
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
                self._refuse(f"key {_short(key)} occurs twice", item)
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
