"""What the sink asks of an API server, and what it makes of each answer."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any, Final, final

import pytest

from node_agent.kubernetes_sink import KubernetesSink, is_ours
from sevkit.cluster.errors import Conflict, Contested, NotFound, Unreachable, parse_status
from sevkit.cluster.events import Event
from sevkit.errors import ClusterError
from sevkit.kubevirt.labels import NodeWord

if TYPE_CHECKING:
    from sevkit.cluster.api import Call
    from sevkit.documents import Json

SEV: Final = "sevkit.io/sev"
SNP: Final = "sevkit.io/sev-snp"
NOTE: Final = "sevkit.io/capabilities"
WORD: Final = NodeWord({SEV: "true", SNP: "true"}, {NOTE: "{}"}, {SEV: "1000", SNP: "10"})
EVENT: Final = Event("CapabilityLost", "Publish", "SEV is disabled", "Warning")


def owned(labels: tuple[str, ...] = (), capacity: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "f:metadata": {
            "f:labels": {f"f:{key}": {} for key in labels},
            "f:annotations": {f"f:{NOTE}": {}} if labels else {},
        },
        "f:status": {"f:capacity": {f"f:{key}": {} for key in capacity}},
    }


def node(*managers: tuple[str, dict[str, Any]], **parts: dict[str, str]) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "n1",
            "uid": "u",
            "resourceVersion": "7",
            "labels": parts.get("labels", {}),
            "annotations": parts.get("annotations", {}),
            "managedFields": [
                {"manager": name, "operation": "Apply", "fieldsV1": fields}
                for name, fields in managers
            ],
        },
        "status": {"capacity": parts.get("capacity", {})},
    }


def ours() -> dict[str, Any]:
    """The node as it is after ``WORD``; the API server writes quantities in its own way."""
    return node(
        ("sevkit-node-agent", owned((SEV, SNP), (SEV, SNP))),
        labels={**WORD.labels, "kubernetes.io/os": "linux"},
        annotations=dict(WORD.annotations),
        capacity={SEV: "1k", SNP: "10", "cpu": "8"},
    )


def conflict(*fields: tuple[str, str]) -> Conflict:
    """As the API server words it."""
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{manager}" using v1',
            "field": field,
        }
        for field, manager in fields
    ]
    body = {"kind": "Status", "reason": "Conflict", "details": {"causes": causes}}
    found = parse_status(409, json.dumps(body).encode())
    assert isinstance(found, Conflict)
    return found


LABEL: Final = (f".metadata.labels.{SNP}", "kubectl-label")
KUBELETS: Final = (f".status.capacity.{SEV}", "kubelet")


@final
class Server:
    """Gives the answers that it was given, in order, and keeps the calls."""

    def __init__(self, *answers: Json | Exception) -> None:
        self.answers = list(answers)
        self.calls: list[Call] = []

    def call(self, call: Call) -> Json:
        self.calls.append(call)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return copy.deepcopy(answer)

    def applied(self) -> list[tuple[str, set[str], set[str]]]:
        """Return of each apply whether it was forced, and the keys of its labels and capacity."""
        return [
            (
                dict(call.query)["force"],
                set(call.body["metadata"]["labels"]),  # type: ignore[index, call-overload, arg-type]  # JSON
                set(call.body["status"]["capacity"]),  # type: ignore[index, call-overload, arg-type]  # as above
            )
            for call in self.calls
            if call.method == "PATCH" and call.path.endswith("/status")
        ]


BOTH: Final = {SEV, SNP}


def test_what_is_ours_is_recalled_and_nothing_of_others() -> None:
    theirs = {SEV: "true", "sevkit.io/pool": "a"}
    server = Server(
        node(
            ("sevkit-node-agent", owned((SEV,))),
            ("kubectl-label", owned((SEV, SNP))),
            labels={**theirs, SNP: "true"},
            annotations={NOTE: "{}"},
            capacity={SEV: "5", "cpu": "8"},
        )
    )
    # The capacity of a node that lost account of its owners is recalled: it was nobody else's.
    assert KubernetesSink(server, "n1").recall() == NodeWord(
        {SEV: "true"}, {NOTE: "{}"}, {SEV: "5"}
    )
    (call,) = server.calls
    assert (call.method, call.path) == ("GET", "/api/v1/nodes/n1")


def test_a_node_without_anything_of_ours_recalls_nothing() -> None:
    sink = KubernetesSink(Server(node(labels={"kubernetes.io/os": "linux"})), "n1")
    assert not sink.recall()
    assert not sink.holds(WORD)


def test_a_node_that_has_it_all_holds_it_whatever_the_spelling_of_numbers() -> None:
    sink = KubernetesSink(Server(ours()), "n1")
    sink.recall()
    assert sink.holds(WORD)


@pytest.mark.parametrize(
    "word",
    [
        NodeWord({**WORD.labels, SEV: "false"}, WORD.annotations, WORD.capacity),
        NodeWord(WORD.labels, {NOTE: '{"a":1}'}, WORD.capacity),
        NodeWord(WORD.labels, WORD.annotations, {**WORD.capacity, SEV: "1001"}),
        NodeWord({SEV: "true"}, WORD.annotations, WORD.capacity),
        NodeWord({**WORD.labels, "sevkit.io/product": "genoa"}, WORD.annotations, WORD.capacity),
    ],
)
def test_more_less_or_other_is_not_held(word: NodeWord) -> None:
    sink = KubernetesSink(Server(ours()), "n1")
    sink.recall()
    assert not sink.holds(word)


def test_equal_values_that_are_somebody_elses_are_not_held() -> None:
    answer = ours()
    answer["metadata"]["managedFields"][0]["manager"] = "kubectl"
    sink = KubernetesSink(Server(answer), "n1")
    sink.recall()
    assert not sink.holds(WORD)


def test_before_the_node_was_read_nothing_is_held() -> None:
    assert not KubernetesSink(Server(), "n1").holds(WORD)


def test_one_apply_carries_everything_and_forces_nothing() -> None:
    server = Server(ours())
    assert KubernetesSink(server, "n1").publish(WORD, whole=True) == ()
    (call,) = server.calls
    assert (call.method, call.path) == ("PATCH", "/api/v1/nodes/n1/status")
    assert call.query == (("fieldManager", "sevkit-node-agent"), ("force", "false"))
    assert call.body == {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": "n1",
            "labels": dict(WORD.labels),
            "annotations": dict(WORD.annotations),
        },
        "status": {"capacity": dict(WORD.capacity)},
    }


def test_contested_keys_are_left_out_and_the_rest_is_applied() -> None:
    server = Server(conflict(LABEL), ours(), ours(), ours())
    sink = KubernetesSink(server, "n1")
    assert sink.publish(WORD, whole=True) == (Contested(*LABEL),)
    assert server.applied() == [("false", BOTH, BOTH), ("false", {SEV}, BOTH)]
    # Left out until the whole is due.
    assert sink.publish(WORD, whole=False) == (Contested(*LABEL),)
    assert server.applied()[2:] == [("false", {SEV}, BOTH)]
    assert sink.publish(WORD, whole=True) == ()
    assert server.applied()[3:] == [("false", BOTH, BOTH)]


def test_what_the_kubelet_zeroed_is_taken_over_and_nothing_else() -> None:
    server = Server(conflict(KUBELETS, LABEL), ours())
    done = KubernetesSink(server, "n1").publish(WORD, whole=True)
    assert done == (Contested(*LABEL),)
    assert server.applied() == [("false", BOTH, BOTH), ("true", {SEV}, BOTH)]


def test_a_key_that_the_kubelet_and_another_hold_is_not_taken_over() -> None:
    other = (KUBELETS[0], "someone")
    server = Server(conflict(KUBELETS, other), ours())
    done = KubernetesSink(server, "n1").publish(WORD, whole=True)
    assert done == (Contested(*other),)
    assert server.applied() == [("false", BOTH, BOTH), ("false", BOTH, {SNP})]


def test_owners_that_turn_up_meanwhile_are_left_alone_too() -> None:
    more = (f".status.capacity.{SNP}", "someone")
    server = Server(conflict(LABEL), conflict(more), ours())
    done = KubernetesSink(server, "n1").publish(WORD, whole=True)
    assert done == (Contested(*LABEL), Contested(*more))
    assert server.applied()[-1] == ("false", {SEV}, {SEV})


def test_a_conflict_without_end_is_given_up() -> None:
    server = Server(*[conflict(LABEL)] * 10)
    with pytest.raises(Conflict):
        KubernetesSink(server, "n1").publish(WORD, whole=True)
    assert len(server.calls) == 4


@pytest.mark.parametrize("field", [(), (".spec.taints", "someone")])
def test_a_conflict_that_is_not_about_our_keys_is_raised_at_once(
    field: tuple[str, str] | tuple[()],
) -> None:
    server = Server(conflict(field) if field else conflict())
    with pytest.raises(Conflict):
        KubernetesSink(server, "n1").publish(WORD, whole=True)
    assert len(server.calls) == 1


def test_a_failure_is_the_callers() -> None:
    sink = KubernetesSink(Server(Unreachable("down"), Unreachable("down")), "n1")
    with pytest.raises(Unreachable):
        sink.recall()
    with pytest.raises(Unreachable):
        sink.publish(WORD, whole=False)


@pytest.mark.parametrize(
    ("field", "manager", "expected"),
    [
        (f".status.capacity.{SEV}", "kubelet", True),
        (f".metadata.labels.{SEV}", "kubelet", False),
        (f".metadata.labels.{SEV}", "before-first-apply", True),
        (f".status.capacity.{SEV}", "someone", False),
        (f".status.capacity.{SEV}", "", False),
    ],
)
def test_who_has_no_opinion_of_a_key_is_known(field: str, manager: str, *, expected: bool) -> None:
    assert is_ours(Contested(field, manager)) is expected


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_event_that_is_said_again_within_the_hour_is_counted_up() -> None:
    clock, server = Clock(), Server(ours(), *[{}] * 10)
    sink = KubernetesSink(server, "n1", instance="agent-x", clock=clock)
    sink.recall()
    for clock.now in (0, 10, 3599, 3601):  # the clock is read by the sink
        sink.tell(EVENT)
    methods = [call.method for call in server.calls[1:]]
    assert methods == ["POST", "PATCH", "PATCH", "POST"]
    assert server.calls[1].body is not None
    assert server.calls[1].body["reportingInstance"] == "agent-x"
    counts = [call.body["series"]["count"] for call in server.calls[2:4]]  # type: ignore[index, call-overload]  # JSON
    assert counts == [2, 3]


def test_an_event_that_the_server_dropped_is_made_anew() -> None:
    server = Server(ours(), {}, {}, NotFound(404), {}, {})
    sink = KubernetesSink(server, "n1")
    sink.recall()
    for _ in range(4):
        sink.tell(EVENT)
    assert [call.method for call in server.calls[1:]] == ["POST", "PATCH", "PATCH", "POST", "PATCH"]
    assert server.calls[5].body is not None
    assert server.calls[5].body["series"]["count"] == 2  # type: ignore[index, call-overload]  # JSON


def test_an_event_that_could_not_be_counted_up_is_counted_up_the_next_time() -> None:
    server = Server(ours(), {}, Unreachable("API server cannot be reached"), {})
    sink = KubernetesSink(server, "n1")
    sink.recall()
    sink.tell(EVENT)
    with pytest.raises(Unreachable):
        sink.tell(EVENT)
    sink.tell(EVENT)
    assert [call.method for call in server.calls[1:]] == ["POST", "PATCH", "PATCH"]


def test_without_a_node_there_is_nothing_to_have_events() -> None:
    with pytest.raises(ClusterError, match="was not read yet"):
        KubernetesSink(Server(), "n1").tell(EVENT)
