"""A fleet as text: one row a group, no line longer than the terminal is wide, then the reasons."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING, Final

import click

from sevkit.cli.fleet_words import (
    LEGEND,
    TITLES,
    Notes,
    ascii_only,
    marks,
    summary,
    verdicts,
    wording,
)
from sevkit.host.capability import Technology
from sevkit.kubevirt.fleet import group_nodes
from sevkit.kubevirt.name_ranges import fit, shorten
from sevkit.kubevirt.node_summary import TierState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sevkit.cli.fleet_source import Fleet
    from sevkit.kubevirt.fleet import FleetGroup, Missing

_GAP: Final = 2
#: Names stand in the row if they have at least so many columns, else below it.
_NAMES: Final = 24
_LEAST: Final = 20
_NUMERIC: Final = frozenset({"nodes", "TCB"})
_COLOURS: Final = {
    TierState.USABLE: "green",
    TierState.DISABLED: "yellow",
    TierState.UNUSABLE: "yellow",
    TierState.UNKNOWN: "red",
    TierState.CONTRADICTORY: "red",
    TierState.UNREADABLE: "red",
}
#: Where each technology's cell is.
_PLACES: Final = {technology: TITLES.index(technology.spelling) for technology in Technology}
_PIECES: Final = re.compile(r"[^,]*,|[^,]+$")


def render_fleet(
    fleet: Fleet,
    required: Sequence[Technology],
    *,
    width: int,
    all_names: bool = False,
    colour: bool = False,
) -> Iterator[str]:
    """Yield the lines, each printable ASCII (and ``…``) of at most ``width`` columns, 20 or more.

    ``colour`` adds a terminal's sequences, which have no width.
    """
    width = max(width, _LEAST)
    groups = group_nodes(fleet.nodes)
    notes = Notes(fleet)
    rows = [notes.cells(group) for group in groups]
    widths = [max(map(len, column)) for column in zip(TITLES[:-1], *rows, strict=True)]
    left = width - sum(widths) - _GAP * len(widths)
    if groups and left + _GAP < 0:
        for group, row in zip(groups, rows, strict=True):
            yield from _stacked(group, row, width, all_names=all_names)
    elif groups:
        beside = left >= _NAMES and not all_names
        yield _row(TITLES if beside else TITLES[:-1], widths)
        for group, row in zip(groups, rows, strict=True):
            lines = _names(group, left if beside else width - _GAP, all_names=all_names)
            values = (*row, lines[0]) if beside else row
            yield _row(values, widths, group if colour else None)
            yield from (" " * _GAP + line for line in lines[beside:])
    for head, missing in zip(notes.heads(), notes.rows, strict=True):
        yield ""
        yield from _reason(head, missing, width)
    yield ""
    for line in (LEGEND, summary(fleet, groups), *verdicts(fleet, required)):
        yield from textwrap.wrap(line, width)


def _row(values: Sequence[str], widths: Sequence[int], coloured: FleetGroup | None = None) -> str:
    parts = [
        f"{value:>{size}}" if title in _NUMERIC else f"{value:<{size}}"
        for title, value, size in zip(TITLES, values, [*widths, 0], strict=False)
    ]
    parts[-1] = parts[-1].rstrip()
    states = coloured.like.tiers.items() if coloured is not None else ()
    for technology, tier in states:
        state, place = tier.state, _PLACES[technology]
        parts[place] = click.style(parts[place], fg=_COLOURS.get(state), dim=state not in _COLOURS)
    return (" " * _GAP).join(parts)


def _names(group: FleetGroup, width: int, *, all_names: bool) -> list[str]:
    """Return the names in one line that is cut, or in as many as there have to be; marks first."""
    mark = marks(group)
    head = f"({mark}) " if mark else ""
    items = [ascii_only(item) for item in shorten(node.name for node in group.nodes)]
    if not all_names:
        room = width - len(head)
        return [f"{head}{fit(items, room)}" if room >= 1 else head[:width]]
    lines = [head.rstrip()] if head else []
    return lines + _packed(",".join(items), width)


def _packed(text: str, width: int) -> list[str]:
    """Return ``text`` in lines that end after a comma, where a comma comes in time."""
    lines = [""]
    for piece in _PIECES.findall(text):
        for start in range(0, len(piece), width):
            part = piece[start : start + width]
            if len(lines[-1]) + len(part) > width:
                lines.append("")
            lines[-1] += part
    return lines


def _stacked(
    group: FleetGroup, row: Sequence[str], width: int, *, all_names: bool
) -> Iterator[str]:
    """Yield a line for each value: for terminals that are narrower than any table."""
    for title, value in zip(TITLES, row, strict=False):
        yield from textwrap.wrap(f"{title}: {value}", width)
    yield from (" " * _GAP + line for line in _names(group, width - _GAP, all_names=all_names))
    yield ""


def _reason(head: str, row: Missing, width: int) -> Iterator[str]:
    indent = " " * _GAP
    yield from textwrap.wrap(head, width, subsequent_indent=indent)
    words = [wording(row), f"fix: {ascii_only(row.hint)}" if row.hint else ""]
    for text in filter(None, words):
        # Options stay whole: they are copied from here.
        yield from textwrap.wrap(
            text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
        )
