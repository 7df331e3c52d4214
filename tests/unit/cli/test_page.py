from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest

from sevkit.attest.checks import SEV_PLATFORM, SNP_REPORT
from sevkit.attest.verdict import Ledger, Verdict, conclude
from sevkit.cli.messages import plain
from sevkit.cli.page import render_page
from sevkit.cli.render import describe, flatten, headline, render_text

AT = datetime(2026, 11, 23, tzinfo=UTC)
EVIL = "<script>alert('x')</script>\x1b[2J\u202e\"onload=\"&amp;"


def verdict(evidence: dict[str, Any] | None = None, *, text: str = "x") -> Verdict:
    ledger = Ledger(SNP_REPORT)
    ledger.passed("chain.root", actual=text)
    ledger.failed("report.data", expected=text, actual=text + "!", detail=text)
    return conclude("snp-report", "ab" * 32, AT, ledger, evidence or {})


EVIDENCE: dict[str, Any] = {
    "product": EVIL,
    "authentic": False,
    "policy": EVIL,
    "policy_flags": [EVIL],
    "reported_tcb": {"bootloader": 3, EVIL: 4},
    "certificates": [
        {
            "subject": EVIL,
            "issuer": EVIL,
            "not_before": EVIL,
            "not_after": EVIL,
            "sha256": EVIL,
            "origin": EVIL,
        }
    ],
}


def test_nothing_that_an_attacker_writes_becomes_markup() -> None:
    page = render_page(verdict(EVIDENCE, text=EVIL))
    assert "<script" not in page
    assert 'onload="' not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert page.count("<style>") == 1
    tags = {tag.lower() for tag in re.findall(r"<(\w+)", page)}
    assert not tags & {"script", "img", "iframe", "link", "object", "form", "a"}


def test_nothing_is_loaded_from_elsewhere() -> None:
    page = render_page(verdict(EVIDENCE))
    assert "default-src 'none'" in page
    assert not re.search(r"\b(src|href)\s*=|url\(|@import", page)


def test_text_cannot_move_the_cursor() -> None:
    lines = list(render_text(verdict(EVIDENCE, text=EVIL + "\n\rFAKE accepted")))
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("FAKE") for line in lines)


def test_the_page_says_the_reason_first_and_every_check() -> None:
    made = verdict(EVIDENCE, text="nonce")
    page = render_page(made)
    assert page.index("report.data: nonce") < page.index("<h2>Chain</h2>")
    assert all(f">{row.name}<" in page for row in SNP_REPORT)
    assert "should have signed" in page
    assert headline(made) == "authentic, but NOT ACCEPTABLE"


def test_a_platform_has_a_page_too() -> None:
    ledger = Ledger(SEV_PLATFORM)
    ledger.failed("platform.root", actual="x")
    page = render_page(conclude("sev-platform", "", AT, ledger, {"product": "Naples"}))
    assert "SEV platform certificate chain" in page
    assert "NOT AUTHENTIC" in page


@pytest.mark.parametrize(
    ("evidence", "line"),
    [
        ({"a": ["x", "y"]}, ("a", "x y")),
        ({"a": []}, ("a", "none")),
        ({"a": {"b": 1, "c": 2}}, ("a", "b=1 c=2")),
        ({"a": [{"b": 1}]}, ("a", "b=1")),
        ({"a": True}, ("a", "yes")),
        ({"a": False}, ("a", "no")),
        ({"a": "\x07"}, ("a", "\\x07")),
    ],
)
def test_evidence_is_one_line_a_value(evidence: dict[str, Any], line: tuple[str, str]) -> None:
    assert list(flatten(evidence)) == [line]


def test_a_failed_finding_says_both_values_whole() -> None:
    (found,) = [f for f in verdict(text="ab" * 64).findings if f.check == "report.data"]
    assert "ab" * 64 in describe(found)
    assert plain("é ok") == "é ok"
