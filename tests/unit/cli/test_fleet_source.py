from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

import pytest

from hack.fleet_documents import NOTHING, SEV, SEV_SNP, Kind, node, pod
from sevkit.cli.fleet_source import read_fleet
from sevkit.cluster.errors import Forbidden, Rejected, ServerFault
from sevkit.errors import UsageError
from sevkit.host.capability import Technology
from sevkit.kubevirt.node_summary import Readiness

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sevkit.cluster.api import Call
    from sevkit.documents import Json

SNP: Final = Technology.SEV_SNP
Documents: TypeAlias = "Sequence[dict[str, Any]] | Exception"


@final
class Cluster:
    """Nodes and pods, or an error in their place."""

    def __init__(self, nodes: Documents, pods: Documents = ()) -> None:
        self.answers: dict[str, Documents] = {"/api/v1/nodes": nodes, "/api/v1/pods": pods}
        self.calls: list[Call] = []

    def call(self, call: Call) -> Json:
        self.calls.append(call)
        answer = self.answers[call.path]
        if isinstance(answer, Exception):
            raise answer
        return {"metadata": {}, "items": list(answer)}


def test_free_is_what_pods_do_not_ask_for() -> None:
    pods = [pod("a", {SEV_SNP: 3}), pod("a", {SEV: 1, SEV_SNP: 2}), pod("gone", {SEV: 9})]
    cluster = Cluster([node("a", Kind()), node("b", Kind())], pods)
    fleet = read_fleet(cluster, selector="", all_pods=False)
    assert [one.tiers[SNP].free for one in fleet.nodes] == [94, 99]
    assert [one.tiers[Technology.SEV].free for one in fleet.nodes] == [409, 410]
    assert not fleet.refusal


def test_where_nobody_can_run_a_guest_pods_are_not_asked_for() -> None:
    cluster = Cluster([node("a", Kind(NOTHING, (0, 0, 0))), node("b")], AssertionError())
    fleet = read_fleet(cluster, selector="x", all_pods=False)
    assert [one.tiers[SNP].free for one in fleet.nodes] == [0, None]
    assert [call.path for call in cluster.calls] == ["/api/v1/nodes"]


def test_without_the_right_to_list_pods_free_is_not_known() -> None:
    refused = Forbidden(403, said="pods is forbidden")
    fleet = read_fleet(Cluster([node("a", Kind())], refused), selector="", all_pods=False)
    tier = fleet.nodes[0].tiers[SNP]
    assert (tier.total, tier.requested, tier.free) == (99, None, None)
    assert fleet.refusal == "pods is forbidden"


@pytest.mark.parametrize(
    ("answer", "selector", "error"),
    [
        (Rejected(400, said="unable to parse"), "a==", UsageError),
        (Rejected(400), "", Rejected),
        (Rejected(422), "a", Rejected),
        (Forbidden(403), "a", Forbidden),
    ],
)
def test_a_selector_that_is_refused_is_usage(
    answer: Exception, selector: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        read_fleet(Cluster(answer), selector=selector, all_pods=False)


def test_pods_that_cannot_be_had_are_no_answer() -> None:
    with pytest.raises(ServerFault):
        read_fleet(Cluster([node("a", Kind())], ServerFault(500)), selector="", all_pods=False)


def test_readiness_is_passed_on() -> None:
    kinds = (Kind(), Kind(ready="False"), Kind(ready="Unknown"), Kind(cordoned=True))
    cluster = Cluster([node(str(number), kind) for number, kind in enumerate(kinds)])
    found = read_fleet(cluster, selector="", all_pods=True).nodes
    assert [one.readiness for one in found] == [
        Readiness.READY,
        Readiness.NOT_READY,
        Readiness.UNKNOWN,
        Readiness.READY,
    ]
    assert [one.cordoned for one in found] == [False, False, False, True]
    assert "labelSelector" not in dict(cluster.calls[1].query)
