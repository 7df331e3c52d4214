from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from sevkit.cluster.api import MERGE_PATCH, Call
from sevkit.cluster.events import NodeEvent, create_event, repeat_event
from sevkit.cluster.nodes import NodeView
from sevkit.errors import UsageError

if TYPE_CHECKING:
    from tests.unit.cluster.conftest import Recorded

NOW = datetime(2026, 11, 25, 12, 0, 0, 42, tzinfo=UTC)
NODE = NodeView("n1", "u-1", "1", {}, {}, {}, {}, ())


def made(server: Recorded, event: NodeEvent, node: NodeView = NODE, instance: str = "p") -> Call:
    server.answers = [{}]
    name = create_event(server, node, event, instance=instance, now=NOW)
    body = server.calls[-1].body
    assert body is not None
    assert body["metadata"] == {"name": name, "namespace": "default"}
    return server.calls[-1]


def test_an_event_is_about_the_node(server: Recorded) -> None:
    event = NodeEvent("CapabilityLost", "Publish", "sev-snp is off: turn it on", "Warning")
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
    long = NodeView("n" * 253, "u", "1", {}, {}, {}, {}, ())
    names = set()
    for _ in range(10):
        metadata = (made(server, NodeEvent("R", "A", ""), long).body or {})["metadata"]
        assert isinstance(metadata, dict)
        names.add(str(metadata["name"]))
    assert len(names) == 10
    assert {len(name) for name in names} == {253}


@pytest.mark.parametrize("note", ["x" * 2000, "ü" * 1000, "😀" * 1000, "a" + "😀" * 1000])
def test_a_long_note_is_cut_within_its_bytes(server: Recorded, note: str) -> None:
    cut = (made(server, NodeEvent("R", "A", note)).body or {})["note"]
    assert isinstance(cut, str)
    assert 1015 < len(cut.encode()) <= 1024
    assert cut.endswith("…")
    assert note.startswith(cut[:-1])


def test_a_note_that_fits_is_whole(server: Recorded) -> None:
    assert (made(server, NodeEvent("R", "A", "x" * 1024)).body or {})["note"] == "x" * 1024


@pytest.mark.parametrize("word", ["", "x" * 129])
def test_words_that_the_api_server_refuses_are_refused_at_once(word: str) -> None:
    for reason, action in ((word, "A"), ("R", word)):
        with pytest.raises(UsageError):
            NodeEvent(reason, action, "")


def test_a_time_without_a_zone_is_refused(server: Recorded) -> None:
    with pytest.raises(UsageError, match="no zone"):
        create_event(
            server, NODE, NodeEvent("R", "A", ""), instance="p", now=NOW.replace(tzinfo=None)
        )
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
