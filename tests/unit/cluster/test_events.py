from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from sevkit.cluster.api import MERGE_PATCH, Call
from sevkit.cluster.errors import NotFound
from sevkit.cluster.events import (
    Event,
    Speaker,
    Subject,
    Teller,
    create_event,
    repeat_event,
)
from sevkit.errors import UsageError

if TYPE_CHECKING:
    from tests.unit.cluster.conftest import Recorded

NOW = datetime(2026, 11, 25, 12, 0, 0, 42, tzinfo=UTC)
NODE = Subject("Node", "n1", "u-1")
AGENT = Speaker("sevkit.io/node-agent", "p")
POD = Subject("Pod", "w-1", "u-2", "ours")
SPEAKER = Speaker("sevkit.io/webhook", "w-1")


def made(server: Recorded, event: Event, node: Subject = NODE) -> Call:
    server.answers = [{}]
    name = create_event(server, node, event, speaker=AGENT, now=NOW)
    body = server.calls[-1].body
    assert body is not None
    assert body["metadata"] == {"name": name, "namespace": "default"}
    return server.calls[-1]


def test_an_event_is_about_the_node(server: Recorded) -> None:
    event = Event("CapabilityLost", "Publish", "sev-snp is off: turn it on", "Warning")
    call = made(server, event)
    assert (call.method, call.path) == ("POST", "/apis/events.k8s.io/v1/namespaces/default/events")
    assert call.body is not None
    assert {key: value for key, value in call.body.items() if key != "metadata"} == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "eventTime": "2026-11-25T12:00:00.000042+00:00",
        "reportingController": "sevkit.io/node-agent",
        "reportingInstance": "p",
        "action": "Publish",
        "reason": "CapabilityLost",
        "note": "sev-snp is off: turn it on",
        "type": "Warning",
        "regarding": {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u-1"},
    }


def test_each_event_has_a_name_of_its_own_that_fits(server: Recorded) -> None:
    long = Subject("Node", "n" * 253, "u")
    names = set()
    for _ in range(10):
        metadata = (made(server, Event("R", "A", ""), long).body or {})["metadata"]
        assert isinstance(metadata, dict)
        names.add(str(metadata["name"]))
    assert len(names) == 10
    assert {len(name) for name in names} == {253}


@pytest.mark.parametrize("note", ["x" * 2000, "ü" * 1000, "😀" * 1000, "a" + "😀" * 1000])
def test_a_long_note_is_cut_within_its_bytes(server: Recorded, note: str) -> None:
    cut = (made(server, Event("R", "A", note)).body or {})["note"]
    assert isinstance(cut, str)
    assert 1015 < len(cut.encode()) <= 1024
    assert cut.endswith("…")
    assert note.startswith(cut[:-1])


def test_a_note_that_fits_is_whole(server: Recorded) -> None:
    assert (made(server, Event("R", "A", "x" * 1024)).body or {})["note"] == "x" * 1024


@pytest.mark.parametrize("word", ["", "x" * 129])
def test_words_that_the_api_server_refuses_are_refused_at_once(word: str) -> None:
    for reason, action in ((word, "A"), ("R", word)):
        with pytest.raises(UsageError):
            Event(reason, action, "")


def test_a_time_without_a_zone_is_refused(server: Recorded) -> None:
    with pytest.raises(UsageError, match="no zone"):
        create_event(server, NODE, Event("R", "A", ""), speaker=AGENT, now=NOW.replace(tzinfo=None))
    assert server.calls == []


def test_an_event_that_happens_again_is_counted(server: Recorded) -> None:
    server.answers = [{}]
    repeat_event(server, "n1.abc", count=3, now=NOW)
    assert server.calls == [
        Call(
            "PATCH",
            "/apis/events.k8s.io/v1/namespaces/default/events/n1.abc",
            body={"series": {"count": 3, "lastObservedTime": "2026-11-25T12:00:00.000042+00:00"}},
            content_type=MERGE_PATCH,
        )
    ]


def test_an_event_of_what_is_in_a_namespace_is_in_that(server: Recorded) -> None:
    server.answers = [{}, {}]
    name = create_event(server, POD, Event("R", "A", ""), speaker=SPEAKER, now=NOW)
    repeat_event(server, name, count=2, now=NOW, namespace="ours")
    place = "/apis/events.k8s.io/v1/namespaces/ours/events"
    assert [call.path for call in server.calls] == [place, f"{place}/{name}"]
    body = server.calls[0].body or {}
    assert body["metadata"] == {"name": name, "namespace": "ours"}
    assert body["reportingController"] == "sevkit.io/webhook"
    assert body["regarding"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": "w-1",
        "uid": "u-2",
        "namespace": "ours",
    }


def test_a_teller_counts_up_what_it_told_of_the_same_object_within_the_hour(
    server: Recorded,
) -> None:
    now = [0.0]
    teller, event = Teller(server, SPEAKER, clock=lambda: now[0]), Event("R", "A", "")
    server.answers = [{}] * 9
    other = Subject("Pod", "w-1", "another", "ours")
    for now[0], subject in ((0, POD), (9, POD), (10, other), (3599, POD), (3600, POD)):
        teller.tell(subject, event)
    assert [call.method for call in server.calls] == ["POST", "PATCH", "POST", "PATCH", "POST"]


def test_what_the_api_server_dropped_is_made_anew(server: Recorded) -> None:
    teller, event = Teller(server, SPEAKER), Event("R", "A", "")
    server.answers = [{}, NotFound(404), {}, {}]
    for _ in range(3):
        teller.tell(POD, event)
    assert [call.method for call in server.calls] == ["POST", "PATCH", "POST", "PATCH"]
    assert (server.calls[-1].body or {})["series"]["count"] == 2  # type: ignore[index, call-overload]  # JSON


def test_a_teller_does_not_remember_for_ever(server: Recorded) -> None:
    teller = Teller(server, SPEAKER)
    server.answers = [{}] * 99
    for number in range(99):
        teller.tell(POD, Event("R", "A", f"{number}"))
    assert len(teller) == 32
