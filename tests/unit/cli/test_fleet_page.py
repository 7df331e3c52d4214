from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from hack.fleet_documents import SNP_OFF, Kind, annotation, summary
from sevkit.cli.fleet_page import render_fleet_page
from sevkit.cli.fleet_source import Fleet
from sevkit.host.capability import Technology
from sevkit.host.reasons import TEXTS, Reason

AT: Final = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
EVIL: Final = '<script>alert(1)</script><img src=x onerror=x>" onload="x\' & \x1b[31m\u202e'
MILAN: Final = Kind(SNP_OFF, (410, 99, 0), "milan")


def page(*nodes: tuple[str, Kind | None], refusal: str = "") -> str:
    fleet = Fleet(tuple(summary(name, kind) for name, kind in nodes), refusal)
    return render_fleet_page(fleet, (Technology.SEV_SNP,), at=AT)


def test_nothing_that_a_node_writes_becomes_markup() -> None:
    labels = {"sevkit.io/product": EVIL, "sevkit.io/sev": EVIL, "sevkit.io/tcb-snp": EVIL}
    hint = TEXTS[Reason.IOMMU_PASSTHROUGH].hint
    said = annotation(SNP_OFF).replace(hint, EVIL.replace('"', r"\"").replace("\x1b", ""))
    made = page((EVIL, Kind(labels=labels)), ("b", Kind(SNP_OFF, annotation=said)), refusal=EVIL)
    assert "&lt;script&gt;" in made
    assert "<script" not in made
    assert "<img" not in made
    assert 'onload="' not in made
    assert "\x1b" not in made
    assert "\u202e" not in made
    tags = {tag.lower() for tag in re.findall(r"<(\w+)", made)}
    assert not tags & {"script", "img", "iframe", "link", "object", "form", "a"}


def test_nothing_is_loaded_from_elsewhere() -> None:
    made = page(("a", Kind()))
    assert "default-src 'none'" in made
    assert not re.search(r"\b(src|href)\s*=|url\(|@import", made)


def test_the_page_says_groups_reasons_and_the_answer() -> None:
    made = page(*((f"worker-{number:03}", MILAN) for number in range(0, 200, 2)), ("z", None))
    assert made.count("<details>") == 1
    assert "worker-[000,002," in made
    assert ",198]</details>" in made
    assert "iommu-passthrough (100 nodes)" in made
    assert "fix: take iommu=pt" in made
    assert "SEV-SNP usable: could not find out" in made
    assert "2026-11-25" in made
    assert "no agent" in made


def test_a_refusal_is_said_and_an_empty_fleet_has_no_table() -> None:
    assert "not known: pods is forbidden" in page(("a", Kind()), refusal="pods is forbidden")
    assert "<table" not in page()
