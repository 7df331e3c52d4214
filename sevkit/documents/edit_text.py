"""New members as text: YAML in block and in flow style, and JSON. Pure.

Scalars are plain where every reader takes them for the same text, and in double quotes with JSON's
escapes otherwise, which YAML 1.1 has too.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.documents.yaml_scalars import read_plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sevkit.documents.bounds import Json

#: Nothing in it is an indicator, in flow style neither; the last character is no blank.
_PLAIN: Final = re.compile(r"[A-Za-z](?:[A-Za-z0-9._/; -]*[A-Za-z0-9._/-])?")
_LONGEST_PLAIN: Final = 200


@final
@dataclass(frozen=True, slots=True)
class FlowStyle:
    """How a flow mapping is written: whether texts are quoted, and what stands between."""

    is_quoted: bool
    colon: str
    comma: str


def scalar_text(value: Json, *, quoted: bool) -> str:
    """Return a value on one line, as YAML."""
    return flow_text(value, FlowStyle(quoted, ": ", ", "))


def flow_text(value: Json, style: FlowStyle, line: str | None = None, step: str = "") -> str:
    """Return a value in flow style: on one line, or its members each on a line of its own.

    ``line`` is then what a line begins with where the value stands: a line break, and indentation.
    """
    if isinstance(value, str):
        plain = not style.is_quoted and len(value) <= _LONGEST_PLAIN and _PLAIN.fullmatch(value)
        return value if plain and read_plain(value) == value else _quote(value)
    if isinstance(value, list):
        return "[" + style.comma.join(flow_text(item, style) for item in value) + "]"
    if not isinstance(value, dict):
        return json.dumps(value)
    inner = None if line is None or not value else line + step
    entries = (flow_entry(key, one, style, inner, step) for key, one in value.items())
    if inner is None:
        return "{" + style.comma.join(entries) + "}"
    return "{" + inner + f",{inner}".join(entries) + f"{line}}}"


def flow_entry(
    key: str, value: Json, style: FlowStyle, line: str | None = None, step: str = ""
) -> str:
    """Return a member in flow style; ``line`` and ``step`` as for ``flow_text``."""
    return f"{flow_text(key, style)}{style.colon}{flow_text(value, style, line, step)}"


def block_lines(
    members: Mapping[str, Json], column: int, step: int, *, quoted: bool
) -> Iterator[str]:
    """Yield the lines of members in block style, without line breaks."""
    for key, value in members.items():
        name = " " * column + scalar_text(key, quoted=quoted)
        if isinstance(value, dict) and value:
            yield f"{name}:"
            yield from block_lines(value, column + step, step, quoted=quoted)
        else:
            yield f"{name}: {scalar_text(value, quoted=quoted)}"


def _quote(text: str) -> str:
    """Return a text in double quotes; what not every reader takes as it is, is escaped."""
    return '"' + "".join(map(_escape, text)) + '"'


def _escape(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    code = ord(character)
    # Beyond the BMP JSON has pairs of escapes, which YAML has not: it stands as it is.
    return character if 0x20 <= code < 0x7F or code > 0xFFFF else f"\\u{code:04x}"
