"""Kubernetes quantities: ``1k`` is 1000, ``500m`` a half, ``1Ki`` 1024.

The API server writes a quantity in its own way, so that what was sent as ``1000`` comes back as
``1k``: quantities compare as numbers, never as text.

Source: k8s.io/apimachinery/pkg/api/resource, Quantity.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

from sevkit.errors import FormatError

_GRAMMAR: Final = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))"
    r"(?:(?P<suffix>[numkMGTPE]|[KMGTPE]i)|[eE](?P<exponent>[+-]?[0-9]{1,3}))?",
    re.ASCII,
)
_SUFFIXES: Final[dict[str | None, Fraction]] = {
    None: Fraction(1),
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "k": Fraction(1000),
    **{name: Fraction(1000 ** (power + 2)) for power, name in enumerate("MGTPE")},
    **{f"{name}i": Fraction(1024 ** (power + 1)) for power, name in enumerate("KMGTPE")},
}
_LIMIT: Final = 64


def parse_quantity(text: str) -> Fraction:
    """Return the number that ``text`` stands for, exactly. Raises ``FormatError``."""
    found = _GRAMMAR.fullmatch(text) if len(text) <= _LIMIT else None
    if found is None:
        raise FormatError("quantity", f"{text[:_LIMIT]!r} is none")
    return Fraction(found["number"]) * (
        Fraction(10) ** int(found["exponent"]) if found["exponent"] else _SUFFIXES[found["suffix"]]
    )


def same_quantity(one: str, other: str) -> bool:
    """Return whether both stand for the same number; what is no quantity equals only itself."""
    try:
        return parse_quantity(one) == parse_quantity(other)
    except FormatError:
        return one == other
