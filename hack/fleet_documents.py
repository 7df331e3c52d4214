"""Nodes and pods of a fleet as the API server has them, for tests without and with a cluster."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sevkit.cli.fleet_source import summarize
from sevkit.cluster.fleet_nodes import parse_fleet_node
from sevkit.host.reasons import TEXTS, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sevkit.kubevirt.node_summary import NodeSummary

SEV: Final = "sevkit.io/sev"
SEV_ES: Final = "sevkit.io/sev-es"
SEV_SNP: Final = "sevkit.io/sev-snp"
ANNOTATION: Final = "sevkit.io/capabilities"
TIERS: Final = ("sev", "sev-es", "sev-snp")
#: States of all technologies, each with a reason.
SNP_ON: Final = ("usable", "unusable:es-refused-beside-snp", "usable")
SNP_OFF: Final = ("usable", "usable", "disabled:iommu-passthrough")
NOTHING: Final = ("disabled:smee-off", "disabled:smee-off", "disabled:smee-off")


@dataclass(frozen=True)
class Kind:
    """A kind of node: ``states`` is ``state[:reason]`` of each technology, ``guests`` how many."""

    states: tuple[str, str, str] = SNP_ON
    guests: tuple[int, int, int] = (410, 0, 99)
    product: str = "genoa"
    labels: Mapping[str, str] = field(default_factory=dict)
    annotation: str | None = None
    ready: str = "True"
    cordoned: bool = False


def annotation(states: tuple[str, str, str]) -> str:
    """Return the annotation of these states, with sevkit's own words for their reasons."""
    document: dict[str, Any] = {"cBit": 51, "reducedPhysBits": 5, "firmware": "1.55.40"}
    for tier, word in zip(TIERS, states, strict=True):
        state, _, reason = word.partition(":")
        document[tier] = {"state": state, "reason": reason or "usable"}
        if reason in frozenset(Reason):
            text = TEXTS[Reason(reason)]
            document[tier] |= {"explanation": text.sentence, "hint": text.hint}
    return json.dumps(document)


def node(name: str, kind: Kind | None = None) -> dict[str, Any]:
    """Return a node of that kind, bare and ready without one: its agent never published."""
    document: dict[str, Any] = {
        "metadata": {"name": name, "uid": name, "resourceVersion": "1", "labels": {}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }
    if kind is None:
        return document
    labels = {
        f"sevkit.io/{tier}": str(state.startswith("usable")).lower()
        for tier, state in zip(TIERS, kind.states, strict=True)
        if not state.startswith("unknown")
    }
    labels |= {"sevkit.io/product": kind.product, "sevkit.io/firmware-version": "1.55.40"}
    document["metadata"]["labels"] = {**labels, **kind.labels}
    text = annotation(kind.states) if kind.annotation is None else kind.annotation
    document["metadata"]["annotations"] = {ANNOTATION: text}
    capacity = {
        f"sevkit.io/{tier}": str(count) for tier, count in zip(TIERS, kind.guests, strict=True)
    }
    document["status"] |= {"capacity": capacity, "allocatable": capacity}
    document["status"]["conditions"] = [{"type": "Ready", "status": kind.ready}]
    document["spec"] = {"unschedulable": True} if kind.cordoned else {}
    return document


def pod(on: str, asks: Mapping[str, int], *, launcher: bool = True) -> dict[str, Any]:
    """Return a pod on the node ``on`` whose one container asks for so much."""
    labels = {"kubevirt.io": "virt-launcher"} if launcher else {}
    amounts = {name: str(count) for name, count in asks.items()}
    resources = {"requests": amounts, "limits": amounts}
    containers = [{"name": "compute", "image": "i", "resources": resources}]
    return {"metadata": {"labels": labels}, "spec": {"nodeName": on, "containers": containers}}


def summary(name: str, kind: Kind | None = None) -> NodeSummary:
    """Return the summary of that node."""
    return summarize(parse_fleet_node(node(name, kind)))
