from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

from node_agent.sink import DryRun, StdoutSink
from sevkit.cluster.events import Event
from sevkit.kubevirt.labels import NodeWord, encode_node_word

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.host.capability import Capabilities
    from tests.unit.node_agent.conftest import Life

EVENT = Event("CapabilityLost", "Publish", "SEV is disabled")


def test_stdout_gets_one_document_a_line(found_on: Callable[..., Capabilities]) -> None:
    stream = io.StringIO()
    sink = StdoutSink(stream)
    words = [encode_node_word(found_on("genoa", *more)) for more in ((), ("smee-off",))]
    for word in words:
        assert sink.publish(word, whole=False) == ()
    sink.tell(EVENT)
    documents = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert documents == [word.to_json() for word in words]
    assert documents[0]["annotations"]["sevkit.io/capabilities"]["sev"]["state"] == "usable"


def test_stdout_recalls_nothing() -> None:
    sink = StdoutSink(io.StringIO())
    sink.publish(NodeWord({"sevkit.io/sev": "true"}), whole=True)
    assert sink.recall() == NodeWord()
    assert not sink.holds(NodeWord())


def test_a_document_can_be_for_people() -> None:
    stream = io.StringIO()
    StdoutSink(stream, indent=2).publish(NodeWord({"a": "1"}), whole=True)
    assert stream.getvalue().startswith('{\n  "labels": {\n')


def test_a_dry_run_asks_and_never_tells(live: Callable[..., Life]) -> None:
    place, stream = live().place, io.StringIO()
    place.word = NodeWord({"sevkit.io/sev": "true"})
    dry = DryRun(place, StdoutSink(stream))
    word = NodeWord({"sevkit.io/sev": "false"})
    assert dry.recall() == place.word
    assert not dry.holds(place.word), "it is shown in any case"
    dry.publish(word, whole=True)
    dry.tell(EVENT)
    assert json.loads(stream.getvalue())["labels"] == {"sevkit.io/sev": "false"}
    assert place.word == NodeWord({"sevkit.io/sev": "true"})
    assert (place.publications, place.told) == ([], [])
