from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sevkit.cluster.errors import BadAnswer
from sevkit.cluster.pods import LAUNCHERS, fold_requests, parse_requests

if TYPE_CHECKING:
    from sevkit.documents import Json
    from tests.unit.cluster.conftest import Recorded


def asking(count: int | str, **more: Json) -> dict[str, Any]:
    return {"resources": {"requests": {"r": str(count), "cpu": "100m"}}, **more}


def pod(**spec: Json) -> dict[str, Any]:
    return {"spec": {"nodeName": "n", **spec}}


@pytest.mark.parametrize(
    ("containers", "before", "count"),
    [
        ([asking(1)], [], 1),
        ([asking(1), asking(2), {}], [], 3),
        ([asking(1)], [asking(3), asking(2)], 3),
        ([asking(4)], [asking(3)], 4),
        ([asking(1)], [asking(2, restartPolicy="Always")], 3),
        ([asking(1)], [asking(2, restartPolicy="Always"), asking(5)], 7),
        ([asking(1)], [asking(5), asking(2, restartPolicy="Always")], 5),
        ([], [asking(2, restartPolicy="Always"), asking(3, restartPolicy="Always")], 5),
        ([asking("1k")], [], 1000),
        ([{"resources": {"limits": {"r": "1"}}}], [], 0),
        ([{"resources": {}}, {"resources": {"requests": None}}], [], 0),
    ],
)
def test_a_pod_asks_as_the_scheduler_counts(
    containers: list[Json], before: list[Json], count: int
) -> None:
    found = parse_requests(pod(containers=containers, initContainers=before), ("r", "other"))
    assert found == ("n", {"r": count} if count else {})


@pytest.mark.parametrize(
    "other",
    [
        {"spec": {"containers": [asking(1)]}},
        {"spec": {"nodeName": "", "containers": [asking(1)]}},
        pod(containers=[asking(1)]) | {"status": {"phase": "Succeeded"}},
        pod(containers=[asking(1)]) | {"status": {"phase": "Failed"}},
    ],
    ids=str,
)
def test_pods_that_hold_nothing_ask_for_nothing(other: dict[str, Json]) -> None:
    assert parse_requests(other, ("r",)) == ("", {})


def test_a_pod_that_is_pending_or_being_deleted_holds_what_it_asked_for() -> None:
    waiting = pod(containers=[asking(1)]) | {
        "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"phase": "Pending"},
    }
    assert parse_requests(waiting, ("r",)) == ("n", {"r": 1})


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"spec": []},
        {"spec": {}, "status": 1},
        pod(containers=[]) | {"status": {"phase": ["Failed"]}},
        pod(containers=[]) | {"status": {"phase": {}}},
        pod(containers="x"),
        pod(containers=[1]),
        pod(containers=[asking("half")]),
        pod(containers=[asking("-1")]),
        pod(containers=[{"resources": {"requests": {"r": 1}}}]),
    ],
    ids=str,
)
def test_what_is_no_pod_is_refused(other: dict[str, Json]) -> None:
    with pytest.raises(BadAnswer):
        parse_requests(other, ("r",))


def test_requests_are_summed_for_each_node(server: Recorded) -> None:
    one, two = pod(containers=[asking(1)]), pod(containers=[asking(2)])
    other: dict[str, Json] = {"spec": {"nodeName": "m", "containers": [asking(5)]}}
    idle = pod(containers=[{}])
    server.answers = [
        {"metadata": {"continue": "x"}, "items": [one, other]},
        {"metadata": {}, "items": [two, idle]},
    ]
    assert fold_requests(server, ("r",)) == {"n": {"r": 3}, "m": {"r": 5}}
    query = dict(server.calls[0].query)
    assert query["labelSelector"] == LAUNCHERS
    assert "status.phase!=Failed" in query["fieldSelector"]


def test_all_pods_are_asked_for_without_a_label(server: Recorded) -> None:
    server.answers = [{"metadata": {}, "items": []}]
    assert fold_requests(server, ("r",), selector="") == {}
    assert "labelSelector" not in dict(server.calls[0].query)
