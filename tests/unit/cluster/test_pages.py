from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sevkit.cluster.api import Call
from sevkit.cluster.errors import BadAnswer, Forbidden, Gone, TooMany
from sevkit.cluster.pages import ATTEMPTS, BEGINNINGS, PAGE_LIMIT, fold_list

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sevkit.documents import Json
    from tests.unit.cluster.conftest import Recorded


def page(*names: str, after: str = "") -> Json:
    items: list[Json] = [{"name": name} for name in names]
    return {"metadata": {"continue": after}, "items": items}


def names(server: Recorded, waits: list[float] | None = None) -> list[str]:
    def start() -> list[str]:
        return []

    def fold(made: list[str], item: Mapping[str, Json]) -> None:
        made.append(str(item["name"]))

    pause = ([] if waits is None else waits).append
    query = (("labelSelector", "a=b"),)
    return fold_list(server, "/things", query, start=start, fold=fold, page=2, pause=pause)


def test_pages_follow_each_other_with_the_same_selector(server: Recorded) -> None:
    server.answers = [page("a", "b", after="x"), page("c", after="y"), page()]
    assert names(server) == ["a", "b", "c"]
    first = (("limit", "2"), ("labelSelector", "a=b"))
    assert server.calls == [
        Call("GET", "/things", query, limit=PAGE_LIMIT)
        for query in (first, (*first, ("continue", "x")), (*first, ("continue", "y")))
    ]


def test_a_list_that_was_forgotten_begins_again_with_nothing(server: Recorded) -> None:
    server.answers = [page("a", after="x"), Gone(410), page("b", after="y"), page("c")]
    assert names(server) == ["b", "c"]


def test_a_list_that_is_always_forgotten_ends(server: Recorded) -> None:
    server.answers = [page("a", after="x"), Gone(410)] * BEGINNINGS
    with pytest.raises(Gone):
        names(server)
    assert not server.answers


def test_a_busy_server_is_waited_for_as_it_asks(server: Recorded) -> None:
    waits: list[float] = []
    server.answers = [TooMany(429, retry_after=3), TooMany(429), page("a")]
    assert names(server, waits) == ["a"]
    assert waits == [3, 1]


def test_a_server_that_stays_busy_is_not_waited_for_long(server: Recorded) -> None:
    waits: list[float] = []
    server.answers = [TooMany(429)] * ATTEMPTS
    with pytest.raises(TooMany):
        names(server, waits)
    assert len(waits) == ATTEMPTS - 1
    server.answers = [TooMany(429, retry_after=3600)]
    with pytest.raises(TooMany):
        names(server, waits)
    assert len(waits) == ATTEMPTS - 1


def test_any_other_error_goes_through(server: Recorded) -> None:
    server.answers = [page("a", after="x"), Forbidden(403)]
    with pytest.raises(Forbidden):
        names(server)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {"items": []},
        {"metadata": {}},
        {"items": {}, "metadata": {}},
        {"items": [], "metadata": []},
        {"items": [], "metadata": {"continue": 7}},
        {"items": ["x"], "metadata": {}},
    ],
    ids=str,
)
def test_what_is_no_list_is_refused(server: Recorded, answer: Json) -> None:
    server.answers = [answer]
    with pytest.raises(BadAnswer):
        names(server)


@pytest.mark.parametrize("tokens", ["xx", "xyx", "xyzy", "xyzx"])
def test_a_list_that_goes_in_circles_ends(server: Recorded, tokens: str) -> None:
    server.answers = [page("a", after=token) for token in tokens * 2]
    with pytest.raises(BadAnswer, match="no end"):
        names(server)
    assert len(server.calls) == len(tokens)


def test_a_list_that_was_forgotten_may_go_the_same_way_again(server: Recorded) -> None:
    server.answers = [page("a", after="x"), Gone(410), page("a", after="x"), page("b")]
    assert names(server) == ["a", "b"]


def test_a_list_that_is_null_is_empty(server: Recorded) -> None:
    server.answers = [page("a", after="x"), {"metadata": {}, "items": None}]
    assert names(server) == ["a"]
