from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sevkit.cluster.api import APPLY, Call
from sevkit.cluster.errors import BadAnswer, Conflict, Contested, NotFound
from sevkit.cluster.nodes import (
    AGENT_MANAGER,
    NodeClient,
    NodeKeys,
    contested_keys,
    parse_node,
)
from sevkit.kubevirt.name_ranges import natural

if TYPE_CHECKING:
    from sevkit.documents import Json
    from tests.unit.cluster.conftest import Recorded

#: As kube-apiserver prints it after an apply of ours.
NODE: dict[str, Any] = {
    "kind": "Node",
    "apiVersion": "v1",
    "metadata": {
        "name": "n1",
        "uid": "d9df6a76-7c10-4fc8-8713-a7b5d21d433b",
        "resourceVersion": "213",
        "labels": {"sevkit.io/sev": "true", "kubernetes.io/os": "linux"},
        "annotations": {"sevkit.io/capabilities": "{}"},
        "managedFields": [
            {
                "manager": "sevkit-node-agent",
                "operation": "Apply",
                "apiVersion": "v1",
                "fieldsType": "FieldsV1",
                "fieldsV1": {
                    "f:metadata": {
                        "f:annotations": {"f:sevkit.io/capabilities": {}},
                        "f:labels": {"f:sevkit.io/sev": {}},
                    },
                    "f:status": {"f:capacity": {"f:sevkit.io/sev": {}}},
                },
                "subresource": "status",
            },
            {
                "manager": "sevkit-node-agent",
                "operation": "Update",
                "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:sevkit.io/by-hand": {}}}},
            },
            {
                "manager": "kubelet",
                "operation": "Update",
                "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:kubernetes.io/os": {}}}},
            },
        ],
    },
    "spec": {},
    "status": {"capacity": {"sevkit.io/sev": "1k", "cpu": "8"}, "allocatable": {"cpu": "7500m"}},
}


def test_a_node_is_read() -> None:
    view = parse_node(NODE)
    assert (view.name, view.resource_version) == ("n1", "213")
    assert view.uid.startswith("d9df6a76")
    assert view.labels["kubernetes.io/os"] == "linux"
    assert view.annotations == {"sevkit.io/capabilities": "{}"}
    assert view.capacity["sevkit.io/sev"] == "1k"
    assert view.allocatable == {"cpu": "7500m"}
    assert [(one.name, one.operation, one.subresource) for one in view.managers] == [
        ("sevkit-node-agent", "Apply", "status"),
        ("sevkit-node-agent", "Update", ""),
        ("kubelet", "Update", ""),
    ]


def test_ours_is_what_we_applied_and_nothing_else() -> None:
    view = parse_node(NODE)
    sev = frozenset({"sevkit.io/sev"})
    assert view.owned_by(AGENT_MANAGER) == NodeKeys(sev, frozenset({"sevkit.io/capabilities"}), sev)
    assert not view.owned_by("kubelet")
    assert not view.owned_by("nobody")


@pytest.mark.parametrize(
    ("labels", "capacity", "has"),
    [
        ({"sevkit.io/sev": "true"}, {"sevkit.io/sev": "1000"}, True),
        ({}, {"sevkit.io/sev": "1k"}, True),
        ({}, {}, True),
        ({"sevkit.io/sev": "false"}, {}, False),
        ({"sevkit.io/snp": "true"}, {}, False),
        ({}, {"sevkit.io/sev": "1"}, False),
        ({}, {"sevkit.io/snp": "1"}, False),
    ],
)
def test_whether_a_node_has_it_all_is_known(
    labels: dict[str, str], capacity: dict[str, str], *, has: bool
) -> None:
    assert parse_node(NODE).has(labels, {}, capacity) is has
    assert not parse_node(NODE).has(labels, {"sevkit.io/other": ""}, capacity)


def test_a_bare_node_has_nothing() -> None:
    view = parse_node({"metadata": {"name": "n", "uid": "u", "resourceVersion": "1"}})
    assert not view.labels
    assert not view.capacity
    assert view.managers == ()


def test_a_name_may_be_as_long_as_a_name_can_be() -> None:
    metadata: Json = {"name": "9" * 253, "uid": "u", "resourceVersion": "1"}
    assert natural(parse_node({"metadata": metadata}).name)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        "n1",
        {},
        {"metadata": []},
        {"metadata": {"uid": "u", "resourceVersion": "1"}},
        {"metadata": {"name": "n", "resourceVersion": "1"}},
        {"metadata": {"name": "n", "uid": 7, "resourceVersion": "1"}},
        {"metadata": {"name": "9" * 254, "uid": "u", "resourceVersion": "1"}},
        {"metadata": {"name": "9" * 5000, "uid": "u", "resourceVersion": "1"}},
        {"metadata": {"name": "n", "uid": "u", "resourceVersion": "1", "labels": [1]}},
        {"metadata": {"name": "n", "uid": "u", "resourceVersion": "1", "labels": {"a": 1}}},
        {"metadata": {"name": "n", "uid": "u", "resourceVersion": "1"}, "status": "x"},
        {
            "metadata": {"name": "n", "uid": "u", "resourceVersion": "1"},
            "status": {"capacity": "x"},
        },
    ],
    ids=str,
)
def test_what_is_no_node_is_refused(answer: Json) -> None:
    with pytest.raises(BadAnswer):
        parse_node(answer)


@pytest.mark.parametrize(
    "fields",
    [
        None,
        "text",
        [None, 7, "x"],
        [{}],
        [{"fieldsV1": []}],
        [{"fieldsV1": {"f:metadata": 1, "f:status": {"f:capacity": [1]}}}],
    ],
)
def test_managed_fields_of_any_shape_are_survived(fields: Json) -> None:
    metadata: dict[str, Json] = {"name": "n", "uid": "u", "resourceVersion": "1"}
    view = parse_node({"metadata": {**metadata, "managedFields": fields}})
    assert not view.owned_by("")


def test_an_apply_is_one_patch_of_the_status(server: Recorded) -> None:
    server.answers = [NODE]
    view = NodeClient(server, "n1").apply_status(
        {"sevkit.io/sev": "true"}, {"sevkit.io/capabilities": "{}"}, {"sevkit.io/sev": "1000"}
    )
    assert view.resource_version == "213"
    assert server.calls == [
        Call(
            "PATCH",
            "/api/v1/nodes/n1/status",
            (("fieldManager", "sevkit-node-agent"), ("force", "false")),
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {
                    "name": "n1",
                    "labels": {"sevkit.io/sev": "true"},
                    "annotations": {"sevkit.io/capabilities": "{}"},
                },
                "status": {"capacity": {"sevkit.io/sev": "1000"}},
            },
            APPLY,
        )
    ]


def test_a_get_is_one_get(server: Recorded) -> None:
    server.answers = [NODE]
    NodeClient(server, "n1").get()
    assert server.calls == [Call("GET", "/api/v1/nodes/n1")]


def test_an_error_goes_through(server: Recorded) -> None:
    server.answers = [NotFound(404)]
    with pytest.raises(NotFound):
        NodeClient(server, "n1").get()


@pytest.mark.parametrize(
    ("field", "keys"),
    [
        (".metadata.labels.sevkit.io/sev", NodeKeys(labels=frozenset({"sevkit.io/sev"}))),
        (".metadata.annotations.a.b/c.d", NodeKeys(annotations=frozenset({"a.b/c.d"}))),
        (".status.capacity.sevkit.io/sev", NodeKeys(capacity=frozenset({"sevkit.io/sev"}))),
        (".status.labels.x", NodeKeys()),
        (".metadata.capacity.x", NodeKeys()),
        (".spec.unschedulable", NodeKeys()),
        (".metadata.labels", NodeKeys()),
        ("metadata.labels.x", NodeKeys()),
        ("", NodeKeys()),
    ],
)
def test_a_conflict_names_the_keys_to_leave_out(field: str, keys: NodeKeys) -> None:
    assert contested_keys(Conflict(409, contested=(Contested(field, "m"),))) == keys


def test_a_conflict_may_name_many() -> None:
    fields = (".metadata.labels.a", ".metadata.labels.b", ".status.capacity.a")
    conflict = Conflict(409, contested=tuple(Contested(field, "m") for field in fields))
    assert contested_keys(conflict) == NodeKeys(
        labels=frozenset({"a", "b"}), capacity=frozenset({"a"})
    )
