"""JSON documents: strict, with no key twice and no number that JSON does not have."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Final, NoReturn

from sevkit.documents.bounds import (
    DOCUMENT_LIMIT,
    MAX_VALUES,
    check_depth,
    check_text,
    decode_text,
    quote_key,
)
from sevkit.errors import FormatError

if TYPE_CHECKING:
    from sevkit.documents.bounds import Json

_WORD: Final = re.compile(r"\S")
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(data: bytes, structure: str, *, limit: int = DOCUMENT_LIMIT) -> Json:
    """Return the value of one JSON document in UTF-8.

    ``structure`` names the document in errors. Raises ``FormatError`` for more than ``limit``
    bytes, duplicate keys, NaN and infinities, nesting that is too deep, and what is not JSON.
    """
    return read_json(decode_text(data, structure, limit), structure)


def read_json(text: str, structure: str) -> Json:
    """Return the value of one JSON document; as ``parse_json``, of its text."""
    try:
        found: Json = _DECODER.decode(text)
    except _RefusedError as error:
        raise FormatError(structure, str(error)) from error
    except json.JSONDecodeError as error:
        raise FormatError(
            structure, f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from error
    except RecursionError as error:
        raise FormatError(structure, "nested too deep") from error
    except ValueError as error:  # an integer of thousands of digits
        raise FormatError(structure, "a number is too long") from error
    check_depth(found, structure)
    if _SURROGATE.search(text):
        check_text(json.dumps(found, ensure_ascii=False), structure)
    return found


class _RefusedError(Exception):
    """What Python's decoder would take, and we do not."""


def _pairs(items: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(items)
    if len(found) != len(items):
        for key, _ in items:
            if key not in found:
                message = f"key {quote_key(key)} occurs twice"
                raise _RefusedError(message)
            del found[key]
    return found


def _refuse(constant: str) -> NoReturn:
    message = f"{constant} is not JSON"
    raise _RefusedError(message)


def _real(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _refuse(digits[:20])


#: Made once: a decoder costs as much as it needs for a small document.
_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_constant=_refuse, parse_float=_real
)


def split_json(text: str) -> list[str]:
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
