"""Names of many nodes in few characters: ``worker-[0001-2400,2402]``. Pure.

Names that differ in one number only are one item. A number that begins with zero keeps its width;
any other has none, so that ``[8-11]`` is 8, 9, 10, 11 and ``[08-11]`` is 08, 09, 10, 11. Names are
those of objects, with at most 253 characters, so that each number in one is soon read.
"""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import groupby
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_NUMBERS: Final = re.compile(r"([0-9]+)")


def natural(name: str) -> tuple[tuple[str, int, str], ...]:
    """Return a key that sorts ``node-9`` before ``node-10``, and differs for different names."""
    parts = _NUMBERS.split(name)
    numbers = [*parts[1::2], "0"]
    return tuple(
        (text, int(number), number) for text, number in zip(parts[::2], numbers, strict=True)
    )


def shorten(names: Iterable[str]) -> list[str]:
    """Return items that together name every one of ``names``, in natural order."""
    shapes: defaultdict[tuple[str, ...], list[list[str]]] = defaultdict(list)
    for name in sorted(set(names), key=natural):
        parts = _NUMBERS.split(name)
        shapes[tuple(parts[::2])].append(parts)
    return [item for rows in shapes.values() for item in _items(rows)]


def fit(items: Sequence[str], limit: int) -> str:
    """Return the items in at most ``limit`` characters, 1 or more: what is cut off ends in ``…``.

    The cut is after a whole number or name wherever that leaves anything.
    """
    whole = ",".join(items)
    if len(whole) <= limit:
        return whole
    head = whole[: limit - 1]
    comma = head.rfind(",")
    return f"{head[: comma + 1] if comma > 0 else head}…"


def _items(rows: list[list[str]]) -> Iterator[str]:
    """Yield the items of names with the same text between their numbers."""
    places = range(1, len(rows[0]), 2)
    # The number that differs most: in ip-10-0-3-7.ec2 it is neither the first nor the last.
    place = max(places, key=lambda at: (len({row[at] for row in rows}), at), default=None)
    if place is None:
        yield from ("".join(row) for row in rows)
        return
    alike: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        alike["".join(row[:place]), "".join(row[place + 1 :])].append(row[place])
    for (before, after), numbers in alike.items():
        text = ",".join(_ranges(numbers))
        yield f"{before}{text}{after}" if len(numbers) == 1 else f"{before}[{text}]{after}"


def _ranges(numbers: list[str]) -> Iterator[str]:
    padded = {len(number) for number in numbers if number[0] == "0" and len(number) > 1}
    widths = [len(number) if len(number) in padded else 0 for number in numbers]
    ordered = sorted((width, int(number)) for width, number in zip(widths, numbers, strict=True))
    # Within a run of neighbours, number less position is the same.
    runs = groupby(enumerate(ordered), key=lambda one: (one[1][0], one[1][1] - one[0]))
    for (width, _), run in runs:
        members = [number for _, (_, number) in run]
        first, last = (str(number).zfill(width) for number in (members[0], members[-1]))
        yield first if first == last else f"{first}-{last}"
