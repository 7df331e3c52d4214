from __future__ import annotations

import json
from typing import Any

from hack.fleet_documents import SNP_OFF, Kind, summary
from sevkit.cli.fleet_document import fleet_document
from sevkit.cli.fleet_source import Fleet
from sevkit.host.capability import Technology


def document(*kinds: Kind | None) -> dict[str, Any]:
    nodes = tuple(summary(f"n{number}", kind) for number, kind in enumerate(kinds))
    fleet = Fleet((nodes[0].with_requests({Technology.SEV_SNP: 9}), *nodes[1:]), "no")
    made = fleet_document(fleet, (Technology.SEV_SNP, Technology.SEV_ES), 3)
    read: dict[str, Any] = json.loads(json.dumps(made))
    return read


def test_a_group_has_sums_and_every_node_has_everything() -> None:
    made = document(Kind(), Kind(SNP_OFF, (410, 99, 0), "milan"), None)
    assert made["schema"] == "sevkit.io/cluster-nodes/v1"
    assert (made["exit_code"], made["pods_refused"]) == (3, "no")
    assert made["required"] == {"sev-snp": True, "sev-es": True}
    first = made["groups"][0]
    assert (first["count"], first["product"], first["names"]) == (1, "genoa", ["n0"])
    assert first["tiers"]["sev-snp"] == {
        "state": "usable",
        "reason": "usable",
        "free": 90,
        "total": 99,
    }
    assert [one["name"] for one in made["nodes"]] == ["n0", "n1", "n2"]
    milan = made["nodes"][1]
    assert milan["c_bit"] == 51
    assert milan["labels"]["sevkit.io/sev-snp"] == "false"
    snp = milan["tiers"]["sev-snp"]
    assert (snp["label"], snp["free"], snp["total"]) == ("false", 0, 0)
    assert "iommu=pt" in snp["hint"]


def test_what_is_not_known_is_null() -> None:
    bare = document(None, None)["nodes"][1]
    assert bare["agent"] is False
    assert bare["tiers"]["sev"]["state"] == "no-agent"
    assert bare["tiers"]["sev"]["total"] is None
    assert bare["tiers"]["sev"]["label"] is None
    assert document(None)["required"] == {"sev-snp": None, "sev-es": None}


def test_each_reason_stands_there_once() -> None:
    made = document(Kind(), Kind(SNP_OFF, product="milan"), None)
    assert [(row["tier"], row["reason"]) for row in made["reasons"]] == [
        ("sev-es", "es-refused-beside-snp"),
        ("sev-snp", "iommu-passthrough"),
        (None, "no-agent"),
    ]
