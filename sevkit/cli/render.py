"""Verdicts for people and programs: text, JSON and one HTML page.

Everything shown may have been written by an attacker: control characters are escaped in text, and
every value in HTML. ``rich`` colours the table where it is installed and stdout is a terminal.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Final

import click

from sevkit.attest.verdict import Finding, Outcome, Verdict
from sevkit.cli.base import settings
from sevkit.cli.messages import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_MARKS: Final = {
    Outcome.PASS: "pass",
    Outcome.FAIL: "FAIL",
    Outcome.WARN: "warn",
    Outcome.SKIP: "skip",
}
_COLOURS: Final = {
    Outcome.PASS: "green",
    Outcome.FAIL: "bold red",
    Outcome.WARN: "yellow",
    Outcome.SKIP: "dim",
}
_HEADLINES: Final = {
    0: "accepted",
    1: "NOT AUTHENTIC",
    3: "authentic, but NOT ACCEPTABLE",
    4: "UNDECIDED: something demanded could not be had",
    5: "genuine, but NOTHING RELEASED: a risk is not accepted",
    65: "MALFORMED: the host's answer has not its shape",
}
_LONG: Final = 48


def show_json(document: object) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=True))


def show_verdict(verdict: Verdict, html: str | None = None) -> int:
    """Print a verdict as text or JSON, write the HTML page if asked, return the exit code.

    The page is written first: an answer on stdout says that the page is there.
    """
    if html is not None:
        from sevkit.cli.files import write_new  # noqa: PLC0415  # only with --html
        from sevkit.cli.page import render_page  # noqa: PLC0415  # only with --html

        write_new(html, render_page(verdict).encode())
    if settings().json:
        show_json(verdict.to_json())
    elif sys.stdout.isatty() and _rich_table(verdict):
        pass
    else:
        for line in render_text(verdict):
            click.echo(line)
    return verdict.exit_code


def headline(verdict: Verdict) -> str:
    """Return the verdict in a few words."""
    return _HEADLINES[verdict.exit_code]


def render_text(verdict: Verdict) -> Iterator[str]:
    """Yield the lines of a verdict: evidence, findings, and the verdict itself last."""
    yield f"{verdict.subject} {verdict.sha256}"
    yield from (f"  {name:<18} {value}" for name, value in flatten(verdict.evidence))
    yield ""
    width = max(len(found.check) for found in verdict.findings)
    for found in verdict.findings:
        yield f"{_MARKS[found.outcome]}  {found.check:<{width}}  {plain(describe(found))}".rstrip()
    yield ""
    yield f"{headline(verdict)} (exit code {verdict.exit_code})"


def describe(found: Finding) -> str:
    """Return what a finding says, in one line: the values that differ, then the detail."""
    words = []
    if found.outcome is Outcome.FAIL and (found.expected or found.actual):
        words.append(f"expected {found.expected or '-'}, got {found.actual or '-'}")
    elif found.actual:
        words.append(_shorten(found.actual))
    if found.detail:
        words.append(found.detail)
    return "; ".join(words)


def _shorten(text: str) -> str:
    """Cut long hex values short: the whole value stands in the JSON."""
    return text if len(text) <= _LONG or " " in text else f"{text[:_LONG]}…"


def flatten(evidence: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield (name, value) for every line of the evidence, escaped for a terminal.

    A list of words is one line, a list of mappings one line each.
    """
    for name, value in evidence.items():
        if isinstance(value, list):
            if all(isinstance(item, str) for item in value):
                yield name, plain(" ".join(map(str, value)) or "none")
                continue
            for item in value:
                yield name, plain(_words(item))
        else:
            yield name, plain(_words(value))


def _words(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key}={part}" for key, part in value.items())
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _rich_table(verdict: Verdict) -> bool:
    try:
        from rich.console import Console  # noqa: PLC0415  # the extra is optional
        from rich.table import Table  # noqa: PLC0415  # the extra is optional
        from rich.text import Text  # noqa: PLC0415  # the extra is optional
    except ModuleNotFoundError:
        return False
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(f"{verdict.subject} {verdict.sha256}")
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in flatten(verdict.evidence):
        facts.add_row(Text(name, style="dim"), Text(value))
    console.print(facts)
    table = Table(pad_edge=False, title=None)
    for column in ("", "check", "finding", "source"):
        table.add_column(column, overflow="fold")
    for found in verdict.findings:
        style = _COLOURS[found.outcome]
        table.add_row(
            Text(_MARKS[found.outcome], style=style),
            Text(found.check),
            Text(plain(describe(found)), style="" if found.outcome is Outcome.PASS else style),
            Text(found.source, style="dim"),
        )
    console.print(table)
    style = "bold green" if verdict.accepted else "bold red"
    console.print(Text(f"{headline(verdict)} (exit code {verdict.exit_code})", style=style))
    return True
