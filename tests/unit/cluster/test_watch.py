from __future__ import annotations

import contextlib
import itertools
from random import Random
from typing import TYPE_CHECKING, Any, Final, final

import pytest

from sevkit.cluster.api import METADATA, METADATA_LIST, Kind
from sevkit.cluster.errors import (
    BadAnswer,
    Forbidden,
    Gone,
    NotFound,
    ServerFault,
    Timeout,
    TooMany,
    Unreachable,
)
from sevkit.cluster.watch import (
    FIRST_PAUSE,
    IDLE_SECONDS,
    LONGEST_ASKED,
    LONGEST_PAUSE,
    OVERTIME,
    STEADY_SECONDS,
    WATCH_SECONDS,
    Change,
    Collection,
    Contents,
    Heard,
    Key,
    Opened,
    Pause,
    watch,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from sevkit.cluster.api import Call
    from sevkit.cluster.watch import News
    from sevkit.documents import Json
    from sevkit.errors import ClusterError

THINGS: Final = Collection(Kind("example.org", "v1", "things"), page=2)


@final
class Scripted:
    """An API server that gives the answers and the streams it was given, in order.

    A stream is its lines; an error among them is raised there, and a number is time that passes.
    """

    def __init__(self) -> None:
        self.answers: list[Json | Exception] = []
        self.streams: list[Sequence[Json | Exception] | Exception] = []
        self.calls: list[Call] = []
        self.idle: set[float] = set()
        self.now = 0.0
        self.open = 0

    def clock(self) -> float:
        return self.now

    def call(self, call: Call) -> Json:
        self.calls.append(call)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @contextlib.contextmanager
    def stream(self, call: Call, *, idle: float) -> Iterator[Iterator[Json]]:
        self.calls.append(call)
        self.idle.add(idle)
        found = self.streams.pop(0)
        if isinstance(found, Exception):
            raise found
        self.open += 1
        try:
            yield self._lines(found)
        finally:
            self.open -= 1

    def _lines(self, lines: Sequence[Json | Exception]) -> Iterator[Json]:
        for line in lines:
            if isinstance(line, Exception):
                raise line
            if isinstance(line, int | float):
                self.now += line
            else:
                yield line

    def interrupt(self) -> None:
        raise NotImplementedError

    def queries(self) -> list[dict[str, str]]:
        return [dict(call.query) for call in self.calls]


@pytest.fixture
def server() -> Scripted:
    return Scripted()


def thing(name: str, value: str = "x", version: str = "5") -> dict[str, Json]:
    return {"metadata": {"name": name, "resourceVersion": version}, "value": value}


def page(*items: Json, after: str = "", version: str = "10") -> Json:
    return {"metadata": {"continue": after, "resourceVersion": version}, "items": list(items)}


def event(kind: str, name: str, value: str = "x", version: str = "11") -> Json:
    return {"type": kind, "object": thing(name, value, version)}


def bookmark(version: str) -> Json:
    return {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": version}}}


def refusal(code: Json, **more: Json) -> Json:
    return {"type": "ERROR", "object": {"kind": "Status", "code": code, **more}}


def reduce(document: Mapping[str, Json]) -> str | None:
    value = document["value"]
    return value if isinstance(value, str) and value else None


def watched(server: Scripted, collection: Collection = THINGS) -> Generator[News[str], None, None]:
    random = Random(7)  # noqa: S311  # chance that is the same each time
    return watch(server, collection, reduce, random=random, clock=server.clock)


def first(server: Scripted, count: int) -> list[News[str]]:
    return list(itertools.islice(watched(server), count))


def until_pause(news: Iterator[News[str]]) -> tuple[list[News[str]], Pause]:
    found: list[News[str]] = []
    for one in news:
        if isinstance(one, Pause):
            return found, one
        found.append(one)
    raise AssertionError


def named(**objects: str) -> Contents[str]:
    return Contents({Key("", name): value for name, value in objects.items()})


def test_a_list_comes_in_pages_and_a_watch_goes_on_from_its_version(server: Scripted) -> None:
    server.answers = [page(thing("a"), thing("b"), after="t"), page(thing("c", "y"))]
    server.streams = [[event("ADDED", "d"), event("MODIFIED", "a", "z"), event("DELETED", "b")]]
    assert first(server, 5) == [
        named(a="x", b="x", c="y"),
        Opened(),
        Change(Key("", "d"), "x"),
        Change(Key("", "a"), "z"),
        Change(Key("", "b"), None),
    ]
    seconds = server.queries()[2].pop("timeoutSeconds")
    assert WATCH_SECONDS[0] <= int(seconds) <= WATCH_SECONDS[1]
    assert server.queries() == [
        {"limit": "2"},
        {"limit": "2", "continue": "t"},
        {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": "10",
            "timeoutSeconds": seconds,
        },
    ]
    assert {call.path for call in server.calls} == {"/apis/example.org/v1/things"}
    assert server.idle == {IDLE_SECONDS}


def test_metadata_alone_is_asked_for_where_it_is_enough(server: Scripted) -> None:
    server.answers, server.streams = [page()], [[]]
    until_pause(watched(server, Collection(THINGS.kind, metadata_only=True)))
    assert [call.accept for call in server.calls] == [METADATA_LIST, METADATA]


def test_what_is_reduced_to_nothing_is_left_out_and_goes_when_it_becomes_nothing(
    server: Scripted,
) -> None:
    server.answers = [page(thing("a"), thing("b", ""))]
    server.streams = [[event("MODIFIED", "a", "")]]
    assert first(server, 3) == [named(a="x"), Opened(), Change(Key("", "a"), None)]


def test_objects_of_one_name_in_two_namespaces_are_two(server: Scripted) -> None:
    items: list[Json] = [
        {"metadata": {"name": "a", "namespace": space}, "value": space} for space in ("n", "m")
    ]
    server.answers, server.streams = [page(*items)], [[]]
    assert first(server, 1) == [Contents({Key("n", "a"): "n", Key("m", "a"): "m"})]


def test_a_bookmark_is_heard_and_gone_on_from(server: Scripted) -> None:
    server.answers = [page()]
    server.streams = [[STEADY_SECONDS, bookmark("20")], []]
    assert first(server, 4) == [named(), Opened(), Heard(), Opened()]
    assert server.queries()[-1]["resourceVersion"] == "20"


def test_a_watch_that_ends_in_its_time_goes_on_at_once(server: Scripted) -> None:
    server.answers = [page()]
    server.streams = [[STEADY_SECONDS, event("ADDED", "a", version="12")], [STEADY_SECONDS], []]
    found, _ = until_pause(watched(server))
    assert found == [named(), Opened(), Change(Key("", "a"), "x"), Opened(), Opened()]
    assert [query["resourceVersion"] for query in server.queries()[1:]] == ["10", "12", "12"]


def test_watches_that_end_at_once_are_paused_between_ever_longer(server: Scripted) -> None:
    server.answers, server.streams = [page()], [[] for _ in range(12)]
    news = watched(server)
    pauses = [until_pause(news)[1] for _ in range(12)]
    assert "soon after it began" in pauses[0].error.message
    for number, pause in enumerate(pauses):
        most = min(LONGEST_PAUSE, FIRST_PAUSE * 2**number)
        assert most / 2 <= pause.seconds <= most
    assert len(server.calls) == 13  # one list


def test_a_watch_that_says_nothing_is_listed_anew_without_a_pause(server: Scripted) -> None:
    server.answers = [page(thing("a")), page(thing("b"), version="70")]
    server.streams = [[IDLE_SECONDS, Timeout("late")], [Unreachable("cut")]]
    found, pause = until_pause(watched(server))
    assert found == [named(a="x"), Opened(), named(b="x"), Opened()]
    assert pause.error.message == "cut"
    assert server.queries()[-1]["resourceVersion"] == "70"


def test_a_watch_that_is_not_even_taken_in_time_is_a_failure(server: Scripted) -> None:
    server.answers, server.streams = [page()], [Timeout("late"), []]
    news = watched(server)
    assert isinstance(until_pause(news)[1].error, Timeout)
    assert until_pause(news)[0] == [Opened()]


@pytest.mark.parametrize("null", [None, []])
def test_an_empty_list_may_be_null(server: Scripted, null: Json) -> None:
    server.answers = [{"items": null, "metadata": {"resourceVersion": "1"}}]
    server.streams = [[]]
    assert first(server, 2) == [named(), Opened()]


@pytest.mark.parametrize("error", [Unreachable("cut"), TooMany(429)])
def test_a_break_is_gone_on_from_the_last_version(server: Scripted, error: ClusterError) -> None:
    server.answers = [page(thing("a"))]
    server.streams = [[event("ADDED", "b", version="33"), error], []]
    news = watched(server)
    found, pause = until_pause(news)
    assert found == [named(a="x"), Opened(), Change(Key("", "b"), "x")]
    assert pause.error is error
    until_pause(news)
    assert server.queries()[-1]["resourceVersion"] == "33"


@pytest.mark.parametrize(
    "error",
    [
        Gone(410),
        Forbidden(403),
        ServerFault(504, said="Too large resource version"),
        BadAnswer("x"),
    ],
)
@pytest.mark.parametrize("early", [True, False])
def test_what_speaks_against_the_version_lists_again_and_replaces_everything(
    server: Scripted, error: ClusterError, early: bool
) -> None:
    server.answers = [page(thing("a"), thing("b")), page(thing("b", "y"), version="90")]
    server.streams = [error if early else [error], []]
    news = watched(server)
    found, pause = until_pause(news)
    assert found[0] == named(a="x", b="x")
    assert pause.error is error
    found, _ = until_pause(news)
    assert found[0] == named(b="y")
    assert server.queries()[-1]["resourceVersion"] == "90"


def test_an_error_event_is_the_error_that_an_answer_would_be(server: Scripted) -> None:
    server.answers = [page()] * 4
    server.streams = [
        [refusal(410, reason="Expired", message="too old resource version: 1 (2)")],
        [refusal(429, message="later", details={"retryAfterSeconds": 7})],
        [refusal(None, message="what")],
        [refusal(12, message="what")],
    ]
    news = watched(server)
    errors = [until_pause(news)[1].error for _ in range(4)]
    assert [type(error) for error in errors] == [Gone, TooMany, ServerFault, ServerFault]
    assert "too old resource version" in errors[0].message
    assert isinstance(errors[1], TooMany)
    assert errors[1].retry_after == 7


def test_a_busy_server_is_left_alone_as_it_asks_but_not_for_ever(server: Scripted) -> None:
    server.answers = [TooMany(429, retry_after=20), TooMany(429, retry_after=86400)]
    news = watched(server)
    assert 20 <= until_pause(news)[1].seconds <= 24
    assert LONGEST_ASKED <= until_pause(news)[1].seconds <= LONGEST_ASKED * 1.2


def test_a_list_that_fails_is_begun_anew_and_half_of_it_is_never_told(server: Scripted) -> None:
    server.answers = [page(thing("a"), after="t"), Gone(410), NotFound(404), page(thing("b"))]
    server.streams = [[]]
    news = watched(server)
    assert until_pause(news)[0] == []
    assert until_pause(news)[0] == []
    assert until_pause(news)[0] == [named(b="x"), Opened()]
    assert "continue" not in server.queries()[2]


def test_a_failure_after_a_steady_while_is_a_first_one(server: Scripted) -> None:
    server.answers = [page()]
    server.streams = [[], [], [], [STEADY_SECONDS, Unreachable("cut")]]
    news = watched(server)
    for _ in range(3):
        until_pause(news)
    assert until_pause(news)[1].seconds <= FIRST_PAUSE


def test_a_watch_that_outlasts_its_time_is_left(server: Scripted) -> None:
    server.answers = [page()]
    late = WATCH_SECONDS[1] + OVERTIME + 1
    server.streams = [[late, event("ADDED", "a"), event("ADDED", "never")], []]
    assert first(server, 4) == [named(), Opened(), Change(Key("", "a"), "x"), Opened()]
    assert server.open == 0


def test_a_watch_that_is_closed_lets_go_of_its_stream(server: Scripted) -> None:
    server.answers, server.streams = [page()], [[bookmark("1")]]
    news = watched(server)
    assert list(itertools.islice(news, 3))[-1] == Heard()
    assert server.open == 1
    news.close()
    assert server.open == 0


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {"items": []},
        {"metadata": {"resourceVersion": "1"}},
        {"items": {}, "metadata": {"resourceVersion": "1"}},
        {"items": [], "metadata": {}},
        {"items": [], "metadata": {"resourceVersion": ""}},
        {"items": [], "metadata": {"resourceVersion": 7}},
        {"items": [], "metadata": {"resourceVersion": "1", "continue": 7}},
        {"items": ["x"], "metadata": {"resourceVersion": "1"}},
        {"items": [{"value": "x"}], "metadata": {"resourceVersion": "1"}},
        {"items": [{"value": "x", "metadata": {"name": ""}}], "metadata": {"resourceVersion": "1"}},
    ],
    ids=str,
)
def test_what_is_no_list_is_told_and_begun_anew(server: Scripted, answer: Json) -> None:
    server.answers = [answer, page()]
    server.streams = [[]]
    news = watched(server)
    found, pause = until_pause(news)
    assert found == []
    assert isinstance(pause.error, BadAnswer)
    assert until_pause(news)[0] == [named(), Opened()]


@pytest.mark.parametrize("tokens", ["tt", "tut", "tuvu"])
def test_a_list_that_goes_in_circles_ends(server: Scripted, tokens: str) -> None:
    server.answers = [page(thing("a"), after=token) for token in tokens]
    assert "no end" in until_pause(watched(server))[1].error.message


@pytest.mark.parametrize(
    "line",
    [
        None,
        [],
        {},
        {"type": "ADDED"},
        {"type": "ADDED", "object": []},
        {"type": "ADDED", "object": {"value": "x"}},
        {"type": "ADDED", "object": {"value": "x", "metadata": {"name": "a"}}},
        {"type": "ADDED", "object": {"value": "x", "metadata": {"resourceVersion": "3"}}},
        {"type": "BOOKMARK", "object": {"metadata": {}}},
        {"type": "added", "object": {"value": "x", "metadata": {"name": "a"}}},
        {"type": ["ADDED"], "object": {"metadata": {"name": "a", "resourceVersion": "3"}}},
        {"type": "RENAMED", "object": {"metadata": {"name": "a", "resourceVersion": "3"}}},
    ],
    ids=str,
)
def test_what_is_no_event_is_told_and_lists_again(server: Scripted, line: Json) -> None:
    server.answers = [page(), page(thing("a"))]
    server.streams = [[line], []]
    news = watched(server)
    found, pause = until_pause(news)
    assert found == [named(), Opened()]
    assert isinstance(pause.error, BadAnswer)
    assert until_pause(news)[0] == [named(a="x"), Opened()]


def test_a_bug_of_whoever_reduces_is_not_taken_for_the_clusters(server: Scripted) -> None:
    server.answers = [page({"metadata": {"name": "a"}})]
    with pytest.raises(KeyError):
        next(watched(server))


def test_the_times_of_many_watches_differ(server: Scripted) -> None:
    server.answers = [page()]
    server.streams = [*([STEADY_SECONDS] for _ in range(20)), []]
    until_pause(watched(server))
    times: set[Any] = {query.get("timeoutSeconds") for query in server.queries()[1:]}
    assert len(times) > 10
