"""One HTML page for a verdict: for people, self-contained, with no script and nothing remote."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

from sevkit import __version__
from sevkit.attest.verdict import Outcome, render_time
from sevkit.cli.messages import plain
from sevkit.cli.render import flatten, headline

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sevkit.attest.verdict import Finding, Verdict

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8883; --ok: #1a7f37; --no: #cf222e; --mind: #9a6700;
  --soft: #8881; }
@media (prefers-color-scheme: dark) { :root { --ok: #3fb950; --no: #ff7b72; --mind: #d29922; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.35rem; margin: 0 0 .2rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
.verdict { border-left: .5rem solid; background: var(--soft); padding: .6rem 1rem; margin: 1rem 0; }
.verdict strong { font-size: 1.15rem; }
.yes { border-color: var(--ok); } .not { border-color: var(--no); }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0;
  border-bottom: 1px solid var(--line); }
td { overflow-wrap: anywhere; } th[scope=row], td.check { white-space: nowrap; }
th[scope=row] { font-weight: 400; opacity: .75; }
code { font: .86em ui-monospace, monospace; overflow-wrap: anywhere; }
.mark { display: inline-block; min-width: 2.6rem; text-align: center; border-radius: .3rem;
  border: 1px solid; font-size: .8rem; }
.pass .mark { color: var(--ok); } .fail .mark { color: #fff; background: var(--no); }
.fail .says { color: var(--no); } .warn .mark { color: var(--mind); } .skip { opacity: .6; }
.chain { list-style: none; margin: 0; padding: 0; }
.chain li { border: 1px solid var(--line); border-radius: .4rem; padding: .4rem .8rem;
  margin-bottom: 1.3rem; position: relative; }
.chain li:not(:last-child)::after { content: "signs \\2193"; position: absolute; left: 1rem;
  bottom: -1.35rem; font-size: .75rem; opacity: .7; }
.chain.claimed li:not(:last-child)::after { content: "should have signed \\2193"; }
small, .source { opacity: .7; font-size: .85em; }
"""

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'"
_TITLES: Final = {
    "snp-report": "SEV-SNP attestation report",
    "sev-platform": "SEV platform certificate chain",
    "sev-launch": "SEV launch measurement",
    "sev-domain": "SEV libvirt domain",
    "kubevirt-launch": "Launch of a SEV guest in KubeVirt",
}
_TCBS: Final = ("reported", "committed", "current", "launch")


def render_page(verdict: Verdict) -> str:
    """Return the page as HTML; every value of the evidence and the findings is escaped."""
    return "\n".join(_lines(verdict)) + "\n"


def _text(value: object) -> str:
    return escape(plain(str(value)), quote=True)


def _lines(verdict: Verdict) -> Iterator[str]:
    title = _TITLES.get(verdict.subject, verdict.subject)
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{_text(title)}: {_text(headline(verdict))}</title>"
    yield f"<style>{_STYLE}</style></head><body>"
    yield f"<h1>{_text(title)}</h1>"
    at = render_time(verdict.at)
    yield f"<p><small>SHA-256 <code>{_text(verdict.sha256)}</code><br>judged at {at}</small></p>"
    yield from _summary(verdict)
    if not verdict.accepted:
        yield "<p>What follows is what the evidence claims. It was not accepted.</p>"
    yield from _chain(verdict.evidence)
    yield from _tcb_table(verdict.evidence)
    yield from _policy(verdict.evidence)
    yield from _findings(verdict)
    yield "<h2>Evidence</h2><table><tbody>"
    for name, value in flatten(verdict.evidence):
        yield f'<tr><th scope="row">{_text(name)}</th><td><code>{_text(value)}</code></td></tr>'
    yield f"</tbody></table><p><small>sevkit {__version__}</small></p></body></html>"


def _summary(verdict: Verdict) -> Iterator[str]:
    tone = "yes" if verdict.accepted else "not"
    counts = {o: sum(found.outcome is o for found in verdict.findings) for o in Outcome}
    words = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    yield f'<div class="verdict {tone}" role="status"><strong>{_text(headline(verdict))}</strong>'
    for found in verdict.findings:
        if found.outcome is Outcome.FAIL:
            yield f"<br>{_text(found.check)}: {_text(_reason(found))}"
    yield f"<br><small>{words}; exit code {verdict.exit_code}</small></div>"


def _reason(found: Finding) -> str:
    return found.detail or f"expected {found.expected or '-'}, found {found.actual or '-'}"


def _chain(evidence: Mapping[str, Any]) -> Iterator[str]:
    certificates = evidence.get("certificates")
    if not isinstance(certificates, list) or not certificates:
        return
    # the root first: the list holds the VEK before its issuers, or after them if it was fetched
    order = {"ARK": 0, "SEV-VCEK": 2, "SEV-VLEK": 2}
    rows = sorted(
        certificates,
        key=lambda row: order.get(row["subject"], order.get(row["subject"].partition("-")[0], 1)),
    )
    tone = "chain" if evidence.get("authentic") is True else "chain claimed"
    yield f'<h2>Chain</h2><ol class="{tone}">'
    for row in rows:
        dates = f"{row['not_before'][:10]} to {row['not_after'][:10]}"
        yield (
            f"<li><strong>{_text(row['subject'])}</strong> <small>{_text(dates)}, "
            f"{_text(row['origin'])}</small><br><code>{_text(row['sha256'])}</code></li>"
        )
    yield "<li><strong>this report</strong></li></ol>"


def _tcb_table(evidence: Mapping[str, Any]) -> Iterator[str]:
    tcbs = {which: evidence.get(f"{which}_tcb") for which in _TCBS}
    known = {which: tcb for which, tcb in tcbs.items() if isinstance(tcb, dict)}
    if not known:
        return
    names: list[str] = list(next(iter(known.values())))
    yield "<h2>TCB</h2>"
    yield _row("th", ("", *names), opening="<table><thead>", closing="</thead><tbody>")
    for which, tcb in known.items():
        yield _row("td", (which, *(tcb.get(name, "") for name in names)))
    yield "</tbody></table>"


def _row(cell: str, values: Iterable[object], *, opening: str = "", closing: str = "") -> str:
    cells = "".join(f"<{cell}>{_text(value)}</{cell}>" for value in values)
    return f"{opening}<tr>{cells}</tr>{closing}"


def _policy(evidence: Mapping[str, Any]) -> Iterator[str]:
    flags = evidence.get("policy_flags")
    if isinstance(flags, list):
        yield f"<h2>Guest policy</h2><p><code>{_text(evidence.get('policy'))}</code> "
        yield f"{_text(' '.join(map(str, flags)) or 'no flags')}</p>"


def _findings(verdict: Verdict) -> Iterator[str]:
    questions = {row.name: row.question for row in verdict.catalogue}
    yield "<h2>Findings</h2><table><thead><tr><th></th><th>Check</th><th>Finding</th>"
    yield "<th>Source</th></tr></thead><tbody>"
    for found in verdict.findings:
        yield _finding(found, questions[found.check])
    yield "</tbody></table>"


def _finding(found: Finding, question: str) -> str:
    parts = [_text(question)]
    if found.expected and found.expected != found.actual:
        parts.append(f"expected <code>{_text(found.expected)}</code>")
    if found.actual:
        parts.append(f"found <code>{_text(found.actual)}</code>")
    if found.detail:
        parts.append(_text(found.detail))
    return (
        f'<tr class="{found.outcome}"><td><span class="mark">{found.outcome}</span></td>'
        f'<td class="check">{_text(found.check)}</td>'
        f'<td class="says">{"<br>".join(parts)}</td>'
        f'<td class="source">{_text(found.source)}</td></tr>'
    )
