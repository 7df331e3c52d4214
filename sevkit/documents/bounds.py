"""What a document may hold, whatever it is written in: size, encoding, depth, text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from sevkit.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterable

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

#: Largest manifest, in bytes: the API server takes no object of more than 1.5 MiB either.
DOCUMENT_LIMIT: Final = 2 << 20
MAX_DEPTH: Final = 100
#: Most values of one stream, with aliases expanded.
MAX_VALUES: Final = 200_000

#: Of everything else it is asked what is in it. (Quicker than to ask what is a container.)
_LEAVES: Final = frozenset({str, int, float, bool, type(None)})
_LONGEST_KEY: Final = 80
_LONGEST_LINE: Final = 200


def decode_text(data: bytes, structure: str, limit: int) -> str:
    """Return the text of at most ``limit`` bytes of UTF-8, without a byte order mark.

    Raises ``FormatError``.
    """
    if len(data) > limit:
        raise FormatError(structure, f"larger than the limit of {limit} bytes", offset=limit)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(structure, "not UTF-8", offset=error.start) from error


def check_text(text: str, structure: str, where: str = "") -> None:
    """Refuse half a surrogate pair, which escapes can write and nothing can print.

    ``where`` follows the message. Raises ``FormatError``.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise FormatError(structure, f"half a surrogate pair{where}") from error


def check_depth(value: Json, structure: str) -> None:
    """Refuse what a reader that recurses would not come back from. Raises ``FormatError``."""
    level = [] if value.__class__ in _LEAVES else [value]
    for _ in range(MAX_DEPTH + 1):
        if not level:
            return
        level = [
            child
            for parent in level
            for child in _children(parent)
            if child.__class__ not in _LEAVES
        ]
    if level:
        raise FormatError(structure, f"nested more than {MAX_DEPTH} deep")


def _children(value: Json) -> Iterable[Json]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def quote_key(key: str) -> str:
    """Return a key for an error's message, shortened."""
    return repr(key if len(key) <= _LONGEST_KEY else f"{key[:_LONGEST_KEY]}…")


def one_line(text: str | None) -> str:
    """Return a parser's own words for an error's message: one line, shortened."""
    return " ".join((text or "unreadable").split())[:_LONGEST_LINE]
