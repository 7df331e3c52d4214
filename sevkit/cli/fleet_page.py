"""One HTML page for a fleet: for people, self-contained, with no script and nothing remote."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from sevkit import __version__
from sevkit.attest.verdict import render_time
from sevkit.cli.fleet_words import (
    LEGEND,
    TITLES,
    Notes,
    ascii_only,
    counted,
    marks,
    summary,
    verdicts,
    wording,
)
from sevkit.host.capability import Technology
from sevkit.kubevirt.fleet import group_nodes
from sevkit.kubevirt.name_ranges import fit, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from sevkit.cli.fleet_source import Fleet
    from sevkit.kubevirt.fleet import FleetGroup

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8883; --ok: #1a7f37; --no: #cf222e; --mind: #9a6700;
  --soft: #8881; }
@media (prefers-color-scheme: dark) { :root { --ok: #3fb950; --no: #ff7b72; --mind: #d29922; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 80rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.35rem; margin: 0 0 .2rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
.answer { border-left: .5rem solid var(--line); background: var(--soft); padding: .6rem 1rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0;
  border-bottom: 1px solid var(--line); }
td { white-space: nowrap; } td.names { white-space: normal; overflow-wrap: anywhere; }
.usable { color: var(--ok); font-weight: 600; } .disabled, .unusable { color: var(--mind); }
.unknown, .contradictory, .unreadable { color: var(--no); } .absent, .no-agent { opacity: .6; }
.mark { border: 1px solid var(--mind); color: var(--mind); border-radius: .3rem; padding: 0 .3rem;
  font-size: .85em; }
dt { font-weight: 600; margin-top: .8rem; } dd { margin: 0 0 0 1.5rem; overflow-wrap: anywhere; }
summary { cursor: pointer; } small { opacity: .7; }
"""

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'"
#: Where the technologies' cells begin.
_TIERS: Final = TITLES.index(Technology.SEV.spelling)
_SHORT: Final = 80


def render_fleet_page(fleet: Fleet, required: Sequence[Technology], *, at: datetime) -> str:
    """Return the page as HTML; everything that a node or the cluster wrote is escaped.

    ``at`` is when the cluster was asked.
    """
    return "\n".join(_lines(fleet, required, at)) + "\n"


def _text(text: str) -> str:
    return escape(ascii_only(text), quote=True)


def _lines(fleet: Fleet, required: Sequence[Technology], at: datetime) -> Iterator[str]:
    groups, notes = group_nodes(fleet.nodes), Notes(fleet)
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>SEV nodes: {_text(counted(len(fleet.nodes)))}</title>"
    yield f"<style>{_STYLE}</style></head><body><h1>What nodes can do</h1>"
    yield f"<p><small>asked at {render_time(at)}</small></p>"
    yield f'<div class="answer" role="status"><strong>{_text(summary(fleet, groups))}</strong>'
    yield from (f"<br>{_text(line)}" for line in verdicts(fleet, required))
    if fleet.refusal:
        yield f"<br>free guests are not known: {_text(fleet.refusal)}"
    yield "</div>"
    if groups:
        heads = "".join(f'<th scope="col">{_text(title)}</th>' for title in TITLES)
        yield f'<h2>Groups of equal nodes</h2><div class="wide"><table><thead><tr>{heads}</tr>'
        yield "</thead><tbody>"
        yield from (_row(group, notes) for group in groups)
        yield f"</tbody></table></div><p><small>{_text(LEGEND)}</small></p>"
    yield from _reasons(notes)
    yield "<p><small>Labels and explanations are the nodes' own words: a hint for scheduling. "
    yield f"Trust comes from attestation. sevkit {__version__}</small></p></body></html>"


def _row(group: FleetGroup, notes: Notes) -> str:
    values = [_text(value) for value in notes.cells(group)]
    parts = [f"<td>{value}</td>" for value in values[:_TIERS]]
    for technology, value in zip(Technology, values[_TIERS:], strict=True):
        tier = group.like.tiers[technology]
        title = _text(tier.reason)
        parts.append(f'<td class="{tier.state}" title="{title}">{value}</td>')
    mark = marks(group)
    shown = f'<span class="mark">{_text(mark)}</span> ' if mark else ""
    return f'<tr>{"".join(parts)}<td class="names">{shown}{_names(group)}</td></tr>'


def _names(group: FleetGroup) -> str:
    items = shorten(node.name for node in group.nodes)
    whole, short = ",".join(items), fit(items, _SHORT)
    if whole == short:
        return _text(whole)
    head = _text(short.removesuffix("…")) + "…"
    # Commas alone are no place where a browser breaks a line: the cell's style breaks anywhere.
    return f"<details><summary>{head}</summary>{_text(whole)}</details>"


def _reasons(notes: Notes) -> Iterator[str]:
    if not notes.rows:
        return
    yield "<h2>What is missing, and why</h2><dl>"
    for head, row in zip(notes.heads(), notes.rows, strict=True):
        yield f"<dt>{_text(head)}</dt>"
        if words := wording(row):
            yield f"<dd>{_text(words)}</dd>"
        if row.hint:
            yield f"<dd>fix: {_text(row.hint)}</dd>"
    yield "</dl>"
