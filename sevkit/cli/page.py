"""One HTML page for a verdict: for people, self-contained, with no script and nothing remote."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from sevkit import __version__
from sevkit.attest.verdict import Outcome
from sevkit.cli.render import flatten, headline, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sevkit.attest.verdict import Finding, Verdict

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --ok: #1a7f37; --no: #cf222e; --mind: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --ok: #3fb950; --no: #ff7b72; --mind: #d29922; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; margin: 0 0 .2rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
.verdict { border-left: .5rem solid; padding: .6rem 1rem; margin: 1rem 0; }
.yes { border-color: var(--ok); } .not { border-color: var(--no); }
table { border-collapse: collapse; width: 100%; } caption { text-align: left; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0;
  border-bottom: 1px solid var(--line); }
td, code { overflow-wrap: anywhere; } code { font: .86em ui-monospace, monospace; }
.pass { color: var(--ok); } .fail { color: var(--no); font-weight: 700; }
.warn { color: var(--mind); } .skip { opacity: .65; }
small, .source { opacity: .7; font-size: .85em; }
"""

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'"


def render_page(verdict: Verdict) -> str:
    """Return the page as HTML; every value of the evidence and the findings is escaped."""
    return "\n".join(_lines(verdict)) + "\n"


def _text(value: str) -> str:
    return escape(plain(value), quote=True)


def _lines(verdict: Verdict) -> Iterator[str]:
    at = verdict.at.strftime("%Y-%m-%d %H:%M:%S UTC")
    tone = "yes" if verdict.accepted else "not"
    counts = {
        outcome: sum(found.outcome is outcome for found in verdict.findings) for outcome in Outcome
    }
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{_text(verdict.subject)}: {_text(headline(verdict))}</title>"
    yield f"<style>{_STYLE}</style></head><body>"
    yield f"<h1>{_text(verdict.subject)}</h1>"
    yield f"<p><small>SHA-256 <code>{_text(verdict.sha256)}</code><br>judged at {at}</small></p>"
    yield f'<div class="verdict {tone}" role="status"><strong>{_text(headline(verdict))}</strong>'
    summary = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    yield f"<br>{summary}; exit code {verdict.exit_code}</div>"
    yield "<h2>Findings</h2><table><thead><tr><th>Outcome</th><th>Check</th><th>Finding</th>"
    yield "<th>Source</th></tr></thead><tbody>"
    questions = {row.name: row.question for row in verdict.catalogue}
    for found in verdict.findings:
        yield _row(found, questions[found.check])
    yield "</tbody></table><h2>Evidence</h2>"
    if not verdict.accepted:
        yield "<p><small>What the evidence claims; it was not accepted.</small></p>"
    yield "<table><tbody>"
    for name, value in flatten(verdict.evidence):
        yield f"<tr><th>{_text(name)}</th><td><code>{_text(value)}</code></td></tr>"
    yield f"</tbody></table><p><small>sevkit {__version__}</small></p></body></html>"


def _row(found: Finding, question: str) -> str:
    parts = [f"{_text(question)}"]
    if found.expected:
        parts.append(f"expected <code>{_text(found.expected)}</code>")
    if found.actual:
        parts.append(f"found <code>{_text(found.actual)}</code>")
    if found.detail:
        parts.append(_text(found.detail))
    return (
        f'<tr class="{found.outcome}"><td>{found.outcome}</td><td>{_text(found.check)}</td>'
        f'<td>{"<br>".join(parts)}</td><td class="source">{_text(found.source)}</td></tr>'
    )
