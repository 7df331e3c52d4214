from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, final

import pytest

from hack.preflight_documents import node
from sevkit.cli.preflight_survey import take_survey
from sevkit.cluster.errors import BadAnswer, Forbidden, NotFound
from sevkit.kubevirt.preflight.catalogue import GROUPS
from sevkit.kubevirt.preflight.guests import Guests, WeakGuest
from sevkit.kubevirt.preflight.survey import Names, Survey, Unasked

if TYPE_CHECKING:
    from sevkit.cluster.api import Call
    from sevkit.documents import Json

LABEL: Final = "sevkit.io/confidential"
NAMESPACES: Final = "/api/v1/namespaces"
INSTANCES: Final = "/apis/kubevirt.io/v1/virtualmachineinstances"
NODES: Final = "/api/v1/nodes"
NOW: Final = datetime(2026, 11, 25, tzinfo=UTC)


@final
class Server:
    """An API server with these answers by path; everything else is not there."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {"/version": {"gitVersion": "v1.34.0"}}
        self.calls: list[Call] = []

    def call(self, call: Call) -> Json:
        self.calls.append(call)
        answer: Json | Exception = self.answers.get(call.path, NotFound(404))
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def paths(self) -> set[str]:
        return {call.path for call in self.calls}


def items(*documents: dict[str, Any]) -> Json:
    return {"metadata": {}, "items": list(documents)}


def namespace(name: str, value: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {LABEL: value}}}


def vmi(space: str, name: str, launch: Json) -> dict[str, Any]:
    spec = {"domain": {"launchSecurity": launch}}
    return {"metadata": {"namespace": space, "name": name}, "spec": spec}


def survey(server: Server, *groups: str, names: Names | None = None) -> Survey:
    return take_survey(server, groups or GROUPS, names or Names(), frozenset(), NOW)


KUBEVIRT: Final = ["customresourcedefinitions", "kubevirts"]
WEBHOOK: Final = [
    "configmaps",
    "endpointslices",
    "mutatingwebhookconfigurations",
    "mutatingwebhookconfigurations",
    "services",
    "validatingwebhookconfigurations",
]
POLICY: Final = [
    "validatingadmissionpolicies",
    "validatingadmissionpolicies",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
]
TENANTS: Final = ["configmaps", "namespaces", "nodes", "virtualmachineinstances"]


@pytest.mark.parametrize(
    ("groups", "asked"),
    [
        (["kubernetes"], []),
        (["kubevirt"], KUBEVIRT),
        (["webhook"], WEBHOOK),
        (["policy"], POLICY),
        (["nodes"], ["configmaps", "nodes"]),
        (["tenants"], TENANTS),
        (["nodes", "tenants"], TENANTS),
        (["webhook", "nodes"], sorted([*WEBHOOK, "nodes"])),
        ([], sorted(KUBEVIRT + WEBHOOK + POLICY + TENANTS[1:])),
    ],
)
def test_what_the_groups_need_is_asked_once_and_nothing_else(
    groups: list[str], asked: list[str]
) -> None:
    server = Server()
    server.answers[NAMESPACES] = items()
    survey(server, *groups)
    assert server.calls[0].path == "/version"
    plurals = sorted(
        next(part for part in reversed(call.path.split("/")) if part in ALL_PLURALS)
        for call in server.calls[1:]
    )
    assert plurals == asked
    assert all(call.method == "GET" for call in server.calls)


ALL_PLURALS: Final = {
    *("kubevirts", "customresourcedefinitions", "mutatingwebhookconfigurations"),
    *("validatingwebhookconfigurations", "services", "endpointslices", "configmaps", "nodes"),
    *("validatingadmissionpolicies", "validatingadmissionpolicybindings", "namespaces"),
    "virtualmachineinstances",
}


def test_a_server_that_has_nothing_at_all_is_asked_nothing_else() -> None:
    server = Server()
    server.answers.clear()
    with pytest.raises(BadAnswer):
        survey(server)
    assert server.paths == {"/version"}


def test_what_is_not_there_is_told_from_what_may_not_be_asked() -> None:
    server = Server()
    server.answers[NODES] = Forbidden(403)
    found = survey(server)
    assert found.mutating is None
    assert found.kubevirts == ()
    assert found.nodes == Unasked("forbidden", "list nodes")


def test_the_webhook_is_looked_for_by_its_names() -> None:
    server = Server()
    survey(server, "webhook", names=Names("hook", "here"))
    assert "/api/v1/namespaces/here/services/hook" in server.paths
    slices = next(call for call in server.calls if "endpointslices" in call.path)
    assert ("labelSelector", "kubernetes.io/service-name=hook") in slices.query


def test_guests_are_judged_by_the_labels_of_their_namespaces() -> None:
    server = Server()
    server.answers[NAMESPACES] = items(namespace("a", "snp"), namespace("b", "best"))
    server.answers[INSTANCES] = items(
        vmi("a", "x", {"sev": {}}),
        vmi("a", "y", {"snp": {}}),
        vmi("b", "x", {"sev": {}}),
        vmi("c", "x", None),
    )
    server.answers[NODES] = items(node("n"))
    found = survey(server, "tenants")
    assert found.namespaces == {"a": "snp", "b": "best"}
    assert found.guests == Guests(3, (WeakGuest("a", "x", "snp", "sev"),))
    assert isinstance(found.nodes, tuple)
    assert [one.name for one in found.nodes] == ["n"]


def test_guests_cannot_be_judged_without_namespaces_or_from_what_is_none() -> None:
    server = Server()
    server.answers[NAMESPACES] = Forbidden(403)
    assert survey(server, "tenants").guests == Unasked("forbidden", "list namespaces")
    assert INSTANCES not in server.paths
    server.answers[NAMESPACES] = items()
    server.answers[INSTANCES] = Forbidden(403)
    right = "list virtualmachineinstances.kubevirt.io"
    assert survey(server, "tenants").guests == Unasked("forbidden", right)
    server.answers[INSTANCES] = items({"metadata": [], "spec": {}})
    assert isinstance(survey(server, "tenants").guests, Unasked)


@pytest.mark.parametrize("metadata", [7, {"name": "a", "labels": "t"}, {"labels": [LABEL]}])
def test_a_namespace_that_is_none_is_no_answer(metadata: Json) -> None:
    server = Server()
    server.answers[NAMESPACES] = items(namespace("b", "snp"), {"metadata": metadata})
    found = survey(server, "tenants")
    assert isinstance(found.namespaces, Unasked)
    assert found.namespaces.reason.startswith("API server's answer: ")
    assert found.guests == found.namespaces


def test_a_node_that_is_none_is_no_answer() -> None:
    server = Server()
    server.answers[NODES] = items({"metadata": {}})
    assert isinstance(survey(server, "nodes").nodes, Unasked)
