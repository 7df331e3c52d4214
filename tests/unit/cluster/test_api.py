from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sevkit.cluster.api import APPLY, Call, Kind, apply, mapping
from sevkit.cluster.errors import BadAnswer

if TYPE_CHECKING:
    from sevkit.documents import Json

NODES = Kind("", "v1", "nodes", namespaced=False)
EVENTS = Kind("events.k8s.io", "v1", "events")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (NODES.path(), "/api/v1/nodes"),
        (NODES.path("n1"), "/api/v1/nodes/n1"),
        (NODES.path("n1", subresource="status"), "/api/v1/nodes/n1/status"),
        (NODES.path("n1", namespace="ignored"), "/api/v1/nodes/n1"),
        (EVENTS.path(), "/apis/events.k8s.io/v1/events"),
        (EVENTS.path(namespace="default"), "/apis/events.k8s.io/v1/namespaces/default/events"),
        (EVENTS.path("e", namespace="d"), "/apis/events.k8s.io/v1/namespaces/d/events/e"),
    ],
)
def test_paths_are_those_of_the_api_server(path: str, expected: str) -> None:
    assert path == expected


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("a/b", "a%2Fb"),
        ("..", "%2E%2E"),
        (".", "%2E"),
        ("a?b#c", "a%3Fb%23c"),
        ("a%2Fb", "a%252Fb"),
        ("a b\r\n", "a%20b%0D%0A"),
        ("{x}", "%7Bx%7D"),
    ],
)
def test_a_name_is_one_part_of_the_path_whatever_it_holds(name: str, quoted: str) -> None:
    assert NODES.path(name, subresource="status") == f"/api/v1/nodes/{quoted}/status"


@pytest.mark.parametrize(("force", "word"), [(False, "false"), (True, "true")])
def test_an_apply_names_its_manager_and_whether_it_takes_over(force: bool, word: str) -> None:
    assert apply("/p", {"a": 1}, manager="m", force=force) == Call(
        "PATCH", "/p", (("fieldManager", "m"), ("force", word)), {"a": 1}, APPLY
    )


def test_an_answer_that_is_no_object_is_refused() -> None:
    assert mapping({"a": 1}) == {"a": 1}
    answers: tuple[Json, ...] = (None, [], "text", 1, True)
    for answer in answers:
        with pytest.raises(BadAnswer):
            mapping(answer)
