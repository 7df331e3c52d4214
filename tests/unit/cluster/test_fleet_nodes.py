from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sevkit.cluster.errors import BadAnswer
from sevkit.cluster.fleet_nodes import fold_nodes, parse_fleet_node, whole

if TYPE_CHECKING:
    from sevkit.documents import Json
    from tests.unit.cluster.conftest import Recorded

METADATA: dict[str, Any] = {"name": "n", "uid": "u", "resourceVersion": "1"}


def node(**parts: Json) -> dict[str, Json]:
    return {"metadata": METADATA, **parts}


@pytest.mark.parametrize(
    ("conditions", "ready"),
    [
        ([{"type": "Ready", "status": "True"}], True),
        ([{"type": "Ready", "status": "False"}], False),
        ([{"type": "Ready", "status": "Unknown"}], None),
        ([{"type": "MemoryPressure", "status": "True"}], None),
        ([{"type": "DiskPressure", "status": "False"}, {"type": "Ready", "status": "True"}], True),
        ([], None),
        (None, None),
        ("True", None),
        ([None, {"type": "Ready"}], None),
        ([{"type": "Ready", "status": True}], True),
    ],
    ids=str,
)
def test_a_node_is_ready_if_it_says_so(conditions: Json, ready: bool | None) -> None:
    assert parse_fleet_node(node(status={"conditions": conditions})).ready is ready


def test_a_cordoned_node_says_so() -> None:
    assert parse_fleet_node(node(spec={"unschedulable": True})).cordoned
    assert not parse_fleet_node(node(spec={})).cordoned
    assert not parse_fleet_node(node()).cordoned


@pytest.mark.parametrize(
    ("capacity", "allocatable", "count"),
    [
        ({"r": "99"}, {"r": "98"}, 98),
        ({"r": "99"}, {"r": "0"}, 0),
        ({"r": "99"}, {"cpu": "1"}, 99),
        ({"r": "1k"}, {}, 1000),
        ({"cpu": "1"}, {}, None),
        ({"r": "500m"}, {}, None),
        ({"r": "many"}, {}, None),
    ],
    ids=str,
)
def test_allocatable_goes_before_capacity(
    capacity: dict[str, Json], allocatable: dict[str, Json], count: int | None
) -> None:
    status: Json = {"capacity": capacity, "allocatable": allocatable}
    assert parse_fleet_node(node(status=status)).count("r") == count


@pytest.mark.parametrize(
    ("text", "count"), [("7", 7), ("1k", 1000), ("-1", None), ("1.5", None), ("9E", None)]
)
def test_a_count_is_whole_and_not_absurd(text: str, count: int | None) -> None:
    assert whole(text) == count


def test_nodes_are_reduced_as_they_come(server: Recorded) -> None:
    counts: list[int] = []
    server.answers = [
        {"metadata": {"continue": "x"}, "items": [node(), node()]},
        {"metadata": {}, "items": [node()]},
    ]
    found = fold_nodes(
        server, lambda one: one.view.name, selector="a in (b)", page=2, told=counts.append
    )
    assert (found, counts) == (["n", "n", "n"], [2, 3])
    assert ("labelSelector", "a in (b)") in server.calls[0].query


def test_without_a_selector_none_is_sent(server: Recorded) -> None:
    server.answers = [{"metadata": {}, "items": []}]
    assert fold_nodes(server, lambda one: one) == []
    assert dict(server.calls[0].query).keys() == {"limit"}


def test_what_is_no_node_is_refused(server: Recorded) -> None:
    server.answers = [{"metadata": {}, "items": [{"metadata": {}}]}]
    with pytest.raises(BadAnswer):
        fold_nodes(server, lambda one: one)
