"""A stream of documents: JSON throughout, or YAML.

kubectl cuts a YAML stream at its lines of ``---`` before it parses anything, so that such a line
counts for it also where a YAML parser knows better; what the two would cut otherwise, or break into
other lines, is refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sevkit.documents.bounds import DOCUMENT_LIMIT, decode_text
from sevkit.documents.json_reader import read_json, split_json
from sevkit.documents.yaml_builder import YamlBuilder
from sevkit.documents.yaml_events import read_events
from sevkit.errors import FormatError

if TYPE_CHECKING:
    from sevkit.documents.bounds import Json

#: A line that kubectl, before it parses anything, takes for a mark or for a wrong one.
_WRONG_MARK: Final = re.compile(r"^---(?:#|[^\S\n]*[^\s#])", re.MULTILINE)
#: Two line breaks; kubectl, which takes one carriage return off the end of a line, sees one.
_TWO_BREAKS: Final = "\r\r\n"


def parse_documents(
    data: bytes, structure: str, *, limit: int = DOCUMENT_LIMIT
) -> tuple[Json, ...]:
    """Return the documents of a YAML or JSON stream; empty ones are left out, as kubectl does.

    ``structure`` names the stream in errors. Raises ``FormatError``.
    """
    text = decode_text(data, structure, limit)
    if text.lstrip()[:1] == "{":
        parts = split_json(text)
        if parts:
            return tuple(read_json(part, structure) for part in parts)
    if wrong := _WRONG_MARK.search(text):
        line = text.count("\n", 0, wrong.start()) + 1
        raise FormatError(structure, f"--- does not stand alone at line {line}")
    if (index := text.find(_TWO_BREAKS)) >= 0:
        line = text.count("\n", 0, index) + 1
        raise FormatError(structure, f"two carriage returns before a line feed at line {line}")
    text = end_last_line(text)
    found = tuple(YamlBuilder(read_events(text, structure), text, structure).documents())
    return tuple(value for value in found if value is not None)


def end_last_line(text: str) -> str:
    """Return a YAML text with a line feed at its end, as kubectl ends every line that it reads."""
    return text if text.endswith("\n") else f"{text}\n"
