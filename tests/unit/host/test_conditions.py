"""From which SVN on firmware refuses SEV-ES beside SEV-SNP, on each product that has one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.abi.sev_es_block import SEV_ES_BLOCKED_FROM
from sevkit.abi.tcb import parse_tcb
from sevkit.host.capabilities import decide
from sevkit.host.capability import State
from sevkit.host.product import HostProduct

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sevkit.host.facts import HostFacts

#: Raw TCB versions at the limit of AMD-SB-3023, by hand: Milan and Genoa have the SNP SVN in
#: byte 6, Turin in byte 3.
LIMITS: Final = {
    "milan": ("0xdb1a000000000004", "0xdb1b000000000004", "0xdb1c000000000004"),
    "genoa": ("0x541a00000000000a", "0x541b00000000000a", "0x541c00000000000a"),
    "siena": ("0x191a00000000000a", "0x191b00000000000a", "0x191c00000000000a"),
    "turin": ("0x4b00000003010101", "0x4b00000004010101", "0x4b00000005010101"),
    "turin-dense": ("0x4700000003010101", "0x4700000004010101", "0x4700000005010101"),
}


@pytest.mark.parametrize(
    ("preset", "raw", "refused"),
    [
        (preset, raw, index > 0)
        for preset, versions in LIMITS.items()
        for index, raw in enumerate(versions)
    ],
)
def test_the_svn_that_refuses_sev_es_is_a_limit(
    preset: str,
    raw: str,
    refused: bool,
    tree: Callable[..., Path],
    facts_at: Callable[[Path], HostFacts],
) -> None:
    root = tree(preset)
    document = json.loads((root / "firmware.json").read_text())
    document["snp"] |= {"current_tcb": raw, "reported_tcb": "0x0"}
    (root / "firmware.json").chmod(0o644)
    (root / "firmware.json").write_text(json.dumps(document))
    facts = facts_at(root)
    found, given = decide(facts), decide(facts, allow_sev_es_beside_snp=5)
    reason = "es-refused-beside-snp" if refused else "es-open-to-cve-2025-48514"
    assert (found.sev_es.state, found.sev_es.reason) == (State.UNUSABLE, reason)
    assert found.current_tcb is not None
    assert f"SVN {found.current_tcb.snp} " in found.sev_es.explanation
    assert given.sev_es.guests == (0 if refused else 5)
    assert found.sev_snp.state is State.USABLE


def test_the_limits_above_are_those_of_the_bulletin() -> None:
    for preset, versions in LIMITS.items():
        line = HostProduct(preset).line
        found = [parse_tcb(line, int(raw, 16), structure="TCB", offset=0).snp for raw in versions]
        assert [svn - SEV_ES_BLOCKED_FROM[line] for svn in found] == [-1, 0, 1]
