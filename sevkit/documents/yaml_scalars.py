"""What an unquoted scalar means: the words and numbers of YAML 1.1 as kubectl's parser has them.

The parser is go-yaml 2 with its YAML 1.1 words and Go's own number syntax (``strconv``); what it
made of a number, Kubernetes holds as a 64-bit integer where it is one, and else as a float.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Final

#: A number as Go's ``ParseInt`` with base 0 takes it, once underscores are gone.
_INTEGER: Final = re.compile(
    r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+|(?<=^0b)[-+][01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]*))"
)
_LONGEST_INTEGER: Final = 70
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
#: What begins with a point is taken with the underscores that Go allows: between two digits.
_POINTED: Final = re.compile(r"\.[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+(?:_[0-9]+)*)?")
_NO_NUMBER: Final = frozenset(
    f"{sign}.{word}"
    for sign, words in (("", ("inf", "nan")), ("+", ("inf",)), ("-", ("inf",)))
    for name in words
    for word in (name, name.upper(), {"inf": "Inf", "nan": "NaN"}[name])
)
_INT64: Final = 1 << 63
_UINT64: Final = 1 << 64

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


def read_plain(text: str) -> str | int | float | bool | None:
    """Return what an unquoted scalar means.

    Raises ``ValueError`` for infinities and what is not a number, which JSON cannot hold.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "-+.0123456789":
        return text
    if text in _NO_NUMBER:
        raise ValueError(text)
    if text[0] == ".":
        return _real(text.replace("_", ""), text) if _POINTED.fullmatch(text) else text
    digits = text.replace("_", "")
    found = _INTEGER.fullmatch(digits) if len(digits) <= _LONGEST_INTEGER else None
    if found:
        base, part = next(
            (base, part)
            for base, part in zip((16, 2, 8, 10), found.groups()[1:], strict=True)
            if part is not None
        )
        value = int(found[1] + part, base)
        # Unsigned only without a sign, as ParseUint takes none.
        if -_INT64 <= value < (_INT64 if found[1] else _UINT64):
            return value
    return _real(digits, text) if _FLOAT.fullmatch(digits) else text


def key_of_number(value: int) -> str | None:
    """Return the key that a whole number becomes; None beyond 63 bits, where kubectl has others."""
    return str(value) if -_INT64 <= value < _INT64 else None


def _real(digits: str, text: str) -> int | float | str:
    """Return a float, as the integer that Kubernetes makes of a whole one; text beyond floats."""
    value = float(digits)
    if not math.isfinite(value):
        return text
    whole = int(Decimal(repr(value))) if value.is_integer() else None
    return value if whole is None or not -_INT64 <= whole < _INT64 else whole
