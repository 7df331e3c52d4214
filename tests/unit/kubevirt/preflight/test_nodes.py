from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest

from hack.preflight_documents import choices, claims
from sevkit.kubevirt.preflight.survey import Unasked
from sevkit.kubevirt.tiers import Tier

if TYPE_CHECKING:
    from sevkit.kubevirt.claims import NodeClaims
    from tests.unit.kubevirt.preflight.conftest import Cluster

OFF: Final = {"kubevirt.io__schedulable": "false"}
DENIED: Final = {"sevkit.io__sev-snp": "false"}
UNSEEN: Final = {"kubevirt.io__sev-snp": "false"}
SIMULATED: Final = {"sevkit.io__simulated": "true"}


def offering(node: NodeClaims, **counts: int | None) -> NodeClaims:
    return replace(node, capacity={Tier(word): count for word, count in counts.items()})


def test_where_nobody_published_anything_there_is_no_agent(cluster: Cluster) -> None:
    bare = replace(claims("a"), has_agent=False)
    cluster.change(nodes=(bare, bare))
    assert cluster.result("nodes.agent").verdict == "fail"
    assert cluster.result("nodes.sev").verdict == "skip"
    cluster.change(nodes=(bare, claims("b")))
    assert (cluster.result("nodes.agent").verdict, cluster.result("nodes.agent").value) == (
        "pass",
        "1 of 2",
    )


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (UNSEEN, "1 by our label only: KubeVirt's is missing"),
        (DENIED, "1 by KubeVirt's label only"),
        (OFF, "1 not kubevirt.io/schedulable"),
    ],
)
def test_a_tier_that_no_node_runs_is_a_no_if_it_is_required(
    cluster: Cluster, labels: dict[str, str], why: str
) -> None:
    cluster.change(nodes=(claims("a", **labels),))
    result = cluster.result("nodes.sev-snp")
    assert (result.verdict, result.detail, result.objects) == ("warn", why, ("a",))
    cluster.change(required=frozenset({Tier.SNP}))
    assert cluster.result("nodes.sev-snp").verdict == "fail"
    assert cluster.result("nodes.sev").verdict == ("warn" if labels == OFF else "pass")


def test_without_any_tier_a_cluster_is_not_ready(cluster: Cluster) -> None:
    cluster.change(nodes=(claims("a", **OFF),))
    assert cluster.result("nodes.kubevirt").verdict == "fail"
    assert cluster.result("nodes.any").verdict == "fail"
    assert cluster.result("nodes.capacity").verdict == "skip"


def test_what_kubevirt_promises_and_the_agent_denies_is_named(cluster: Cluster) -> None:
    cluster.change(nodes=(claims("b", **DENIED), claims("a", **DENIED), claims("c")))
    result = cluster.result("nodes.false-claims")
    assert (result.verdict, result.objects) == ("warn", ("a (SEV-SNP)", "b (SEV-SNP)"))


def test_a_node_that_offers_nothing_is_named_and_a_fleet_that_does_is_a_no(
    cluster: Cluster,
) -> None:
    full, empty = claims("a"), offering(claims("b"), sev=410, snp=0)
    cluster.change(nodes=(full, empty))
    result = cluster.result("nodes.capacity")
    assert (result.verdict, result.objects) == ("warn", ("b (sevkit.io/sev-snp)",))
    assert result.value == "sevkit.io/sev 820, sevkit.io/sev-snp 99"
    cluster.change(nodes=(offering(full, sev=410, snp=None), empty))
    assert cluster.result("nodes.capacity").verdict == "fail"
    cluster.change(choices=choices("capacityResource: false\n"))
    assert cluster.result("nodes.capacity").value == "not asked for"
    assert "nodes.capacity" not in cluster.odd()


def test_devices_count_once_for_each_node(cluster: Cluster) -> None:
    cluster.change(nodes=(claims("a"), replace(claims("b"), devices=0)))
    result = cluster.result("nodes.devices")
    assert (result.verdict, result.value) == ("warn", "devices.kubevirt.io/sev 1000")
    assert result.objects == ("b (devices.kubevirt.io/sev)",)


def test_simulated_nodes_are_marked_and_count_only_if_the_policy_says_so(cluster: Cluster) -> None:
    cluster.change(nodes=(claims("a", **SIMULATED),))
    result = cluster.result("nodes.simulated")
    assert (result.verdict, result.objects, result.detail) == ("warn", ("a",), "they do not count")
    assert cluster.result("nodes.any").verdict == "fail"
    cluster.change(choices=choices("simulatedNodes: true\n"))
    assert cluster.result("nodes.any").verdict == "pass"
    assert cluster.result("nodes.simulated").verdict == "warn"


def test_a_no_that_another_policy_would_make_a_yes_is_not_known(cluster: Cluster) -> None:
    simulated = claims("a", **SIMULATED)
    cluster.change(nodes=(simulated,), choices=Unasked("forbidden", "get configmaps"))
    result = cluster.result("nodes.any")
    assert (result.verdict, result.right) == ("skip", "get configmaps")
    cluster.change(nodes=(simulated, claims("b")))
    assert cluster.result("nodes.any").verdict == "pass"
    cluster.change(nodes=(offering(claims("b"), sev=0, snp=0),))
    assert cluster.result("nodes.capacity").verdict == "skip"
    cluster.change(nodes=(claims("a", **OFF),))
    assert cluster.result("nodes.any").verdict == "fail"
    cluster.change(nodes=(simulated,), choices=choices("noNode: [\n"))
    assert cluster.result("nodes.any").detail == "the webhook's policy file is ill-formed"


def test_a_yes_that_another_policy_would_make_a_no_is_not_known(cluster: Cluster) -> None:
    real = claims("a", **UNSEEN)
    pretended = offering(claims("b", **SIMULATED), sev=410, snp=0)
    cluster.change(nodes=(real, pretended), choices=choices())
    assert cluster.result("nodes.capacity").verdict == "pass"
    cluster.change(choices=choices("simulatedNodes: true\n"))
    assert cluster.result("nodes.capacity").verdict == "fail"
    cluster.change(choices=Unasked("forbidden", "get configmaps"))
    result = cluster.result("nodes.capacity")
    assert (result.verdict, result.right) == ("skip", "get configmaps")
    assert cluster.code == 4
    cluster.change(nodes=(claims("a"),))
    assert cluster.result("nodes.capacity").verdict == "pass"
