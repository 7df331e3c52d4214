from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Final

import pytest

from hack.fleet_documents import NOTHING, SNP_OFF, SNP_ON, Kind, annotation, node, summary
from sevkit.cli.fleet_source import summarize
from sevkit.cluster.fleet_nodes import parse_fleet_node
from sevkit.host.capability import Technology
from sevkit.host.reasons import TEXTS, Reason
from sevkit.kubevirt.fleet import availability, group_nodes, whats_missing
from sevkit.kubevirt.node_summary import TierState

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.kubevirt.node_summary import NodeSummary

SNP: Final = Technology.SEV_SNP
GENOA: Final = Kind()
MILAN: Final = Kind(SNP_OFF, (410, 99, 0), "milan")
OFF: Final = Kind(NOTHING, (0, 0, 0), "milan")


def fleet(*kinds: Kind | None) -> list[NodeSummary]:
    return [summary(f"n{number}", kind) for number, kind in enumerate(kinds)]


def test_equal_nodes_are_one_group_and_sums_are_theirs() -> None:
    nodes = fleet(MILAN, GENOA, MILAN, None, GENOA, GENOA)
    nodes[1] = nodes[1].with_requests({SNP: 9})
    nodes[4] = nodes[4].with_requests({})
    nodes[5] = nodes[5].with_requests({SNP: 200})
    first, second, third = group_nodes(nodes)
    assert [node.name for node in first.nodes] == ["n1", "n4", "n5"]
    assert (first.free[SNP], first.total[SNP]) == (90 + 99, 297)
    assert [node.name for node in second.nodes] == ["n0", "n2"]
    assert second.free[Technology.SEV] is None
    assert second.free[SNP] == 0
    assert [node.name for node in third.nodes] == ["n3"]
    assert third.total[SNP] is None


@pytest.mark.parametrize(
    "other",
    [
        Kind(product="turin"),
        Kind(guests=(410, 0, 98)),
        Kind(states=("usable", "unusable:es-open-to-cve-2025-48514", "usable")),
        Kind(labels={"sevkit.io/firmware-version": "1.55.41"}),
        Kind(labels={"sevkit.io/tcb-snp": "22"}),
        Kind(labels={"sevkit.io/simulated": "true"}),
        Kind(ready="False"),
        Kind(ready="Unknown"),
        Kind(cordoned=True),
    ],
    ids=str,
)
def test_what_differs_in_anything_shown_is_another_group(other: Kind) -> None:
    assert len(group_nodes(fleet(GENOA, other, GENOA))) == 2


def test_the_most_useful_is_first_and_the_order_is_stable() -> None:
    kinds = (
        None,
        OFF,
        Kind(annotation="{"),
        Kind(ready="False"),
        Kind(labels={"sevkit.io/simulated": "true"}),
        Kind(cordoned=True),
        Kind(("usable", "absent:no-silicon", "absent:no-silicon"), product="naples"),
        MILAN,
        GENOA,
    )
    nodes = fleet(*kinds)
    names = [group.like.name for group in group_nodes(nodes)]
    assert names == ["n8", "n7", "n6", "n4", "n5", "n3", "n1", "n2", "n0"]
    assert names == [group.like.name for group in group_nodes(reversed(nodes))]


def test_each_reason_is_told_once() -> None:
    rows = whats_missing(fleet(GENOA, MILAN, GENOA, OFF, None, Kind(annotation="x")))
    assert [(row.technology, row.reason, row.nodes) for row in rows] == [
        (Technology.SEV, "smee-off", 1),
        (Technology.SEV_ES, "es-refused-beside-snp", 2),
        (Technology.SEV_ES, "smee-off", 1),
        (SNP, "iommu-passthrough", 1),
        (SNP, "smee-off", 1),
        (None, "annotation-unreadable", 1),
        (None, "no-agent", 1),
    ]
    assert all(row.explanation and row.hint for row in rows)


def test_a_reservation_of_what_is_usable_is_told_too() -> None:
    (row,) = whats_missing(fleet(Kind(("usable", "usable:es-beside-snp", "usable"))))
    assert (row.technology, row.state) == (Technology.SEV_ES, TierState.USABLE)


def test_one_node_cannot_put_its_words_in_the_place_of_the_others() -> None:
    lie = json.loads(annotation(SNP_OFF))
    lie["sev-snp"]["hint"] = "run this program of mine"
    liar = Kind(SNP_OFF, (410, 99, 0), "milan", annotation=json.dumps(lie))
    (row,) = whats_missing(fleet(liar, MILAN, MILAN))
    assert row.hint == TEXTS[Reason.IOMMU_PASSTHROUGH].hint
    assert (row.nodes, row.others) == (3, 1)


def test_a_hint_that_did_not_fit_is_sevkits_own() -> None:
    short = {tier: {"state": "disabled", "reason": "smee-off"} for tier in Technology}
    rows = whats_missing(fleet(Kind(NOTHING, annotation=json.dumps(short))))
    assert {row.hint for row in rows} == {TEXTS[Reason.SMEE_OFF].hint}


@pytest.mark.parametrize(
    ("kinds", "answer"),
    [
        ((), False),
        ((GENOA,), True),
        ((MILAN, OFF), False),
        ((MILAN, GENOA), True),
        ((MILAN, None), None),
        ((None, GENOA), True),
        ((Kind(annotation="x"),), None),
        ((Kind(("usable", "usable", "unknown:kvm-unread")),), None),
        ((Kind(labels={"sevkit.io/sev-snp": "false"}),), None),
        ((Kind(ready="False"),), False),
        ((Kind(ready="Unknown"),), None),
        ((Kind(NOTHING, ready="Unknown"),), False),
        ((Kind(annotation="x", ready="False"),), False),
        ((Kind(cordoned=True),), True),
        ((Kind(guests=(410, 0, 0)),), False),
        ((Kind(guests=(410, 0, 0)), GENOA), True),
        ((Kind(guests=(410, 0, 0)), None), None),
        ((Kind(guests=(410, 0, 0), ready="Unknown"),), False),
        ((Kind(("usable", "usable", "unknown:kvm-unread"), (0, 0, 0)),), None),
    ],
)
def test_not_known_is_not_no_and_no_guest_is(
    kinds: tuple[Kind | None, ...], answer: bool | None
) -> None:
    assert availability(fleet(*kinds), SNP) is answer


def test_five_thousand_nodes_are_grouped_in_well_under_a_second(
    record_property: Callable[[str, object], None],
) -> None:
    kinds = (GENOA, MILAN, OFF, Kind(SNP_ON, product="turin"), None)
    views = [
        parse_fleet_node(node(f"worker-{number:04}", kinds[number % len(kinds)]))
        for number in range(5000)
    ]
    begun = time.process_time()
    nodes = [summarize(view).with_requests({SNP: 1}) for view in views]
    groups, rows = group_nodes(nodes), whats_missing(nodes)
    took = time.process_time() - begun
    record_property("said", f"fleet: 5,000 nodes summarised and grouped in {took:.2f} s")
    assert [len(group.nodes) for group in groups] == [1000] * 5
    assert len(rows) == 6
    assert took < 1


def test_how_many_are_placed_may_be_not_known_where_a_node_says_yes() -> None:
    document = node("n", GENOA)
    del document["status"]["capacity"]["sevkit.io/sev-snp"]
    assert document["status"]["allocatable"] is document["status"]["capacity"]
    silent = summarize(parse_fleet_node(document))
    assert silent.tiers[SNP].total is None
    assert availability([silent], SNP) is True
