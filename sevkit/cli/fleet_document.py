"""A fleet as one JSON document, ``sevkit.io/cluster-nodes/v1``: groups, reasons, every node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sevkit.host.capability import Technology
from sevkit.kubevirt.fleet import availability, group_nodes, whats_missing
from sevkit.kubevirt.labels import KEYS
from sevkit.kubevirt.name_ranges import shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sevkit.cli.fleet_source import Fleet
    from sevkit.kubevirt.fleet import FleetGroup, Missing
    from sevkit.kubevirt.node_summary import NodeSummary

SCHEMA: Final = "sevkit.io/cluster-nodes/v1"


def fleet_document(fleet: Fleet, required: Sequence[Technology], code: int) -> dict[str, Any]:
    """Return the document. Numbers that are not known are null, texts that are not there "".

    ``required`` is true, false, or null where it could not be found out. Explanations, hints and
    labels are nodes' own words, as they are: whoever shows them escapes them.
    """
    return {
        "schema": SCHEMA,
        "exit_code": code,
        "required": {one.value: availability(fleet.nodes, one) for one in required},
        "pods_refused": fleet.refusal,
        "groups": [_group(one) for one in group_nodes(fleet.nodes)],
        "reasons": [_reason(one) for one in whats_missing(fleet.nodes)],
        "nodes": [_node(one) for one in sorted(fleet.nodes, key=lambda node: node.name)],
    }


def _group(group: FleetGroup) -> dict[str, Any]:
    tiers = {
        one.value: {
            "state": group.like.tiers[one].state,
            "reason": group.like.tiers[one].reason,
            "free": group.free[one],
            "total": group.total[one],
        }
        for one in Technology
    }
    names = [node.name for node in group.nodes]
    return {
        "count": len(names),
        **_facts(group.like),
        "tiers": tiers,
        "ranges": shorten(names),
        "names": names,
    }


def _facts(node: NodeSummary) -> dict[str, Any]:
    return {
        "agent": node.has_agent,
        "product": node.product,
        "firmware_version": node.firmware_version,
        "tcb_snp": node.tcb_snp,
        "simulated": node.simulated,
        "readiness": node.readiness,
        "cordoned": node.cordoned,
    }


def _reason(row: Missing) -> dict[str, Any]:
    return {
        "tier": row.technology,
        "state": row.state,
        "reason": row.reason,
        "explanation": row.explanation,
        "hint": row.hint,
        "nodes": row.nodes,
        "other_words": row.others,
    }


def _node(node: NodeSummary) -> dict[str, Any]:
    facts = node.facts
    tiers = {
        technology.value: {
            "state": tier.state,
            "label": node.word.labels.get(KEYS[technology]),
            "reason": tier.reason,
            "explanation": tier.explanation,
            "hint": tier.hint,
            "total": tier.total,
            "requested": tier.requested,
            "free": tier.free,
        }
        for technology, tier in node.tiers.items()
    }
    return {
        "name": node.name,
        **_facts(node),
        "c_bit": facts.get("cBit"),
        "reduced_phys_bits": facts.get("reducedPhysBits"),
        "current_tcb": facts.get("currentTcb"),
        "reported_tcb": facts.get("reportedTcb"),
        "snp_initialized": facts.get("snpInitialized"),
        "tiers": tiers,
        "labels": dict(node.word.labels),
    }
