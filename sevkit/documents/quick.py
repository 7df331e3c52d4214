"""JSON that machines write, read and written quickly. The one door to orjson.

Theory of operation. orjson reads six times faster than Python, and is less strict than we are: of
a key that stands twice it keeps the last. So what it read is written again, and only what comes
back byte for byte is taken: a document whose every byte is what its values are written as had no
key twice, no number that two parsers might take for two, and no half of a surrogate pair. An API
server's reviews are such documents, but for the newline behind them. All others are read by
``parse_json``, and refused by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import orjson

from sevkit.documents.bounds import MAX_DEPTH, check_depth
from sevkit.documents.json_reader import parse_json
from sevkit.errors import FormatError

if TYPE_CHECKING:
    from sevkit.documents.bounds import Json

#: Longer ones are read by ``parse_json``: a second copy would cost more than it saves.
_LONGEST: Final = 256 << 10


def parse_machine_json(data: bytes, structure: str, *, limit: int) -> Json:
    """Return the value of a document, as ``parse_json`` does: the same, with the same refusals."""
    if len(data) <= min(limit, _LONGEST):
        found = _read_back(data.removesuffix(b"\n"))
        if found is not None:
            if data.count(b"{") + data.count(b"[") > MAX_DEPTH:
                check_depth(found, structure)
            return found
    return parse_json(data, structure, limit=limit)


def _read_back(data: bytes) -> Json:
    """Return what is written as exactly ``data``, None for what is not."""
    try:
        found: Json = orjson.loads(data)
        return found if orjson.dumps(found) == data else None
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):  # the latter is nested too deep
        return None


def write_json(value: object, structure: str) -> bytes:
    """Return a value as JSON without spaces. Raises ``FormatError`` for what JSON does not have."""
    try:
        return orjson.dumps(value)
    except TypeError as error:
        raise FormatError(structure, "is not JSON") from error
