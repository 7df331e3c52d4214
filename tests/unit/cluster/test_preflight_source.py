from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sevkit.cluster.api import Call
from sevkit.cluster.errors import (
    BadAnswer,
    Forbidden,
    NotFound,
    ServerFault,
    Timeout,
    Unauthorized,
    Unreachable,
)
from sevkit.cluster.kinds import INSTANCES, MUTATING, NAMESPACES, SERVICES, SLICES
from sevkit.cluster.preflight_source import Refusal, fold_objects, get_object, get_version
from sevkit.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sevkit.documents import Json
    from tests.unit.cluster.conftest import Recorded


def name_of(document: Mapping[str, Json]) -> Json:
    return document.get("name")


def listed(*names: str | None) -> Json:
    return {"metadata": {}, "items": [{"name": name} for name in names]}


def test_an_object_is_asked_for_by_its_name(server: Recorded) -> None:
    server.answers = [{"kind": "Service"}, {"kind": "M"}, {"gitVersion": "v1.34.0"}]
    assert get_object(server, SERVICES, "a", namespace="n") == {"kind": "Service"}
    assert get_object(server, MUTATING, "b") == {"kind": "M"}
    assert get_version(server) == {"gitVersion": "v1.34.0"}
    group = "/apis/admissionregistration.k8s.io/v1"
    assert server.calls == [
        Call("GET", "/api/v1/namespaces/n/services/a"),
        Call("GET", f"{group}/mutatingwebhookconfigurations/b"),
        Call("GET", "/version"),
    ]


def test_a_list_is_reduced_and_what_is_nothing_left_out(server: Recorded) -> None:
    server.answers = [listed("a", None, "b")]
    assert fold_objects(server, NAMESPACES, name_of, selector="x") == ("a", "b")
    assert dict(server.calls[0].query)["labelSelector"] == "x"


def test_what_is_not_there_or_not_served_is_nothing(server: Recorded) -> None:
    server.answers = [NotFound(404), NotFound(404)]
    assert get_object(server, MUTATING, "a") is None
    assert fold_objects(server, INSTANCES, name_of) == ()


def test_the_right_that_is_missing_is_named_as_people_grant_it(server: Recorded) -> None:
    server.answers = [Forbidden(403)] * 4
    assert get_object(server, SERVICES, "a", namespace="n") == Refusal(
        "forbidden", "get services in n"
    )
    right = "list virtualmachineinstances.kubevirt.io"
    assert fold_objects(server, INSTANCES, name_of) == Refusal("forbidden", right)
    found = fold_objects(server, SLICES, name_of, namespace="n")
    assert found == Refusal("forbidden", "list endpointslices.discovery.k8s.io in n")
    assert get_version(server) == Refusal("forbidden", "get /version")


@pytest.mark.parametrize("error", [ServerFault(500), Timeout("late"), BadAnswer("what")])
def test_what_is_not_answered_is_said_of_that_question_alone(
    server: Recorded, error: ServerFault | Timeout | BadAnswer
) -> None:
    server.answers = [error, listed("a")]
    assert get_object(server, MUTATING, "a") == Refusal(error.message)
    assert fold_objects(server, NAMESPACES, name_of) == ("a",)


def test_something_else_than_an_object_is_no_answer(server: Recorded) -> None:
    server.answers = [[], {"items": 7}]
    assert isinstance(get_object(server, MUTATING, "a"), Refusal)
    assert isinstance(fold_objects(server, NAMESPACES, name_of), Refusal)


def test_what_has_no_version_is_no_api_server(server: Recorded) -> None:
    server.answers = [NotFound(404)]
    with pytest.raises(BadAnswer) as caught:
        get_version(server)
    assert caught.value.hint == "is this the API server's address?"


def test_what_cannot_be_reduced_is_no_answer(server: Recorded) -> None:
    def refuse(_: Mapping[str, Json]) -> str | None:
        raise FormatError("object", "is ill-formed")

    server.answers = [listed("a"), listed()]
    found = fold_objects(server, NAMESPACES, refuse)
    assert isinstance(found, Refusal)
    assert "is ill-formed" in found.reason
    assert fold_objects(server, NAMESPACES, refuse) == ()


@pytest.mark.parametrize("error", [Unreachable("gone"), Unauthorized(401)])
def test_without_a_connection_or_an_identity_there_is_no_answer_to_anything(
    server: Recorded, error: Unreachable | Unauthorized
) -> None:
    server.answers = [error, error]
    with pytest.raises(type(error)):
        get_object(server, MUTATING, "a")
    with pytest.raises(type(error)):
        fold_objects(server, NAMESPACES, name_of)
