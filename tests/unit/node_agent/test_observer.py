from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING, Any, Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from node_agent.observer import ALIVE_SECONDS, Counted, Gauges, Watcher
from sevkit.cluster.api import Call
from sevkit.cluster.errors import Contested, Forbidden, TooMany, Unauthorized, Unreachable
from sevkit.cluster.events import Event
from sevkit.host.capabilities import decide
from sevkit.host.probe import probe_host
from sevkit.host.sources import open_host
from sevkit.kubevirt.labels import NodeWord, encode_node_word
from sevkit.observe.log import log_as_json
from sevkit.observe.metrics import Metrics
from sevkit.testing.host import with_defects, write_host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sevkit.documents import Json
    from sevkit.errors import SevkitError
    from sevkit.host.capability import Capabilities

WORD: Final = NodeWord({"sevkit.io/sev": "true"}, {}, {"sevkit.io/sev": "7"})
LABEL: Final = Contested(".metadata.labels.sevkit.io/sev", "kubectl-label")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def watcher(metrics: Metrics, clock: Clock) -> Watcher:
    made = Watcher(clock=clock)
    made.gauges = Gauges(metrics)
    return made


@pytest.fixture
def logged() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What was logged, as programs read it."""
    stream, logger = io.StringIO(), logging.getLogger("sevkit.node_agent")
    handler = log_as_json(stream, logger=logger)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logger.removeHandler(handler)


def samples(metrics: Metrics) -> dict[str, float]:
    return {
        "|".join([sample.name, *(sample.labels[name] for name in sorted(sample.labels))]): (
            sample.value
        )
        for family in text_string_to_metric_families(metrics.exposition().decode())
        for sample in family.samples
    }


def ours(metrics: Metrics, prefix: str) -> dict[str, float]:
    return {name: value for name, value in samples(metrics).items() if name.startswith(prefix)}


def test_what_a_probe_found_is_shown(
    watcher: Watcher, metrics: Metrics, found_on: Callable[..., Capabilities]
) -> None:
    watcher.probed(found_on("genoa"))
    assert ours(metrics, "sevkit_node_capability") == {
        "sevkit_node_capability|usable|usable|sev": 1,
        "sevkit_node_capability|es-open-to-cve-2025-48514|unusable|sev-es": 1,
        "sevkit_node_capability|usable|usable|sev-snp": 1,
    }
    assert ours(metrics, "sevkit_node_guests") == {
        "sevkit_node_guests|sev": 754,
        "sevkit_node_guests|sev-es": 0,
        "sevkit_node_guests|sev-snp": 252,
    }
    assert ours(metrics, "sevkit_node_asids|") == {
        "sevkit_node_asids|sev": 754,
        "sevkit_node_asids|sev-es": 252,
        "sevkit_node_asids|sev-snp": 252,
        "sevkit_node_asids|encrypted-state": 252,
    }
    found = samples(metrics)
    assert found["sevkit_node_firmware_info|1.55.40"] == 1
    assert found["sevkit_node_simulated"] == 1
    tcb = found_on("genoa").current_tcb
    assert tcb is not None
    assert found["sevkit_node_tcb_svn|snp|current"] == tcb.snp


def test_what_was_before_is_forgotten(
    watcher: Watcher, metrics: Metrics, found_on: Callable[..., Capabilities]
) -> None:
    watcher.probed(found_on("genoa"))
    watcher.probed(found_on("intel"))
    assert ours(metrics, "sevkit_node_capability") == {
        f"sevkit_node_capability|not-amd|absent|{name}": 1 for name in ("sev", "sev-es", "sev-snp")
    }
    assert ours(metrics, "sevkit_node_tcb_svn") == {}
    assert set(ours(metrics, "sevkit_node_asids|").values()) == {0}
    assert ours(metrics, "sevkit_node_firmware_info") == {}


def test_guests_that_run_are_counted(
    watcher: Watcher, metrics: Metrics, found_on: Callable[..., Capabilities]
) -> None:
    found = found_on("genoa", "guests-running")
    watcher.probed(found)
    used = ours(metrics, "sevkit_node_asids_in_use")
    assert used["sevkit_node_asids_in_use|sev"] == found.sev_asids.in_use
    assert used["sevkit_node_asids_in_use|encrypted-state"] == found.encrypted_state.in_use
    assert used["sevkit_node_asids_in_use|sev"] > 0


def test_no_exposition_and_no_line_names_a_chip(
    watcher: Watcher,
    metrics: Metrics,
    tmp_path: Path,
    name_chip: Callable[[Path], str],
    logged: Callable[[], list[dict[str, Any]]],
) -> None:
    write_host(with_defects("turin", ["guests-running"]), tmp_path / "host")
    chip = name_chip(tmp_path / "host")
    with open_host(str(tmp_path / "host")) as source:
        found = decide(probe_host(source))
    watcher.probed(found)
    watcher.published(encode_node_word(found), (LABEL,))
    watcher.happened(Event("CapabilityLost", "Publish", "SEV is disabled", "Warning"))
    text = metrics.exposition().decode() + json.dumps(logged())
    assert str(found.firmware_version) in text, "it was read"
    assert chip not in text.lower()


def test_it_is_not_ready_until_something_is_published(watcher: Watcher) -> None:
    assert watcher.ready() == ("nothing is published yet",)
    watcher.published(WORD, ())
    assert watcher.ready() == ()


def test_it_is_not_ready_while_it_cannot_publish(watcher: Watcher) -> None:
    watcher.published(WORD, ())
    watcher.publish_failed(Forbidden(403, said="no right"), 4.2)
    (said,) = watcher.ready()
    assert "cannot publish: API server forbids the request (403): no right" in said
    assert watcher.live() == (), "a restart would mend nothing"
    watcher.published(WORD, ())
    assert watcher.ready() == ()


def test_keys_that_others_own_do_not_make_it_unready(watcher: Watcher) -> None:
    """They are reported: whoever owns them decided so, and a roll-out goes on."""
    watcher.published(WORD, (LABEL,))
    assert watcher.ready() == ()


def test_a_probe_that_fails_does_not_make_it_unready(watcher: Watcher) -> None:
    watcher.published(WORD, ())
    watcher.probe_failed(ZeroDivisionError("a bug"))
    assert watcher.ready() == ()


def test_it_lives_until_its_loop_is_silent_for_minutes(watcher: Watcher, clock: Clock) -> None:
    assert watcher.live() == ()
    clock.now += ALIVE_SECONDS - 1
    assert watcher.live() == ()
    clock.now += 1
    assert watcher.live() == ("loop has not come round for 300 s",)
    watcher.beat()
    assert watcher.live() == ()


def test_publications_and_what_was_left_to_others_are_counted(
    watcher: Watcher, metrics: Metrics
) -> None:
    watcher.published(WORD, (LABEL,))
    found = samples(metrics)
    assert found["sevkit_node_contested_keys"] == 1
    assert found["sevkit_node_published_timestamp_seconds"] > 1.7e9
    watcher.publish_failed(TooMany(429), 1)
    watcher.publish_failed(Forbidden(403), 1)
    watcher.publish_failed(Forbidden(403), 1)
    watcher.probe_failed(OSError("x"))
    found = samples(metrics)
    assert found["sevkit_node_publish_failures_total|Forbidden"] == 2
    assert found["sevkit_node_publish_failures_total|TooMany"] == 1
    assert found["sevkit_node_probe_failures_total"] == 1
    watcher.published(WORD, ())
    assert samples(metrics)["sevkit_node_contested_keys"] == 0


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (Forbidden(403), "error"),
        (Unauthorized(401), "error"),
        (TooMany(429), "warning"),
        (Unreachable("API server cannot be reached"), "warning"),
    ],
)
def test_what_only_people_can_mend_is_loud(
    error: SevkitError,
    level: str,
    watcher: Watcher,
    logged: Callable[[], list[dict[str, Any]]],
) -> None:
    watcher.publish_failed(error, 12.34)
    watcher.tell_failed(error)
    first, second = logged()
    assert first["retry_seconds"] == 12.3
    for line in (first, second):
        assert line["level"] == level
        assert line["cause"] == type(error).__name__
        assert error.message in line["error"]


def test_a_probe_that_fails_in_the_same_way_is_logged_once(
    watcher: Watcher,
    found_on: Callable[..., Capabilities],
    logged: Callable[[], list[dict[str, Any]]],
) -> None:
    for error in (OSError("a"), OSError("a"), OSError("b"), OSError("b")):
        watcher.probe_failed(error)
    assert [line["error"] for line in logged()] == ["OSError: a", "OSError: b"]
    watcher.probed(found_on("genoa"))
    watcher.probe_failed(OSError("b"))
    assert len(logged()) == 3, "after a good one it is news again"


def test_what_is_published_is_logged_with_its_values(
    watcher: Watcher, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    watcher.published(WORD, (LABEL,))
    first, second = logged()
    assert (first["message"], first["labels"], first["capacity"]) == (
        "published",
        {"sevkit.io/sev": "true"},
        {"sevkit.io/sev": "7"},
    )
    assert (second["level"], second["field"], second["manager"]) == (
        "warning",
        LABEL.field,
        LABEL.manager,
    )


def test_a_dry_run_says_that_it_would(logged: Callable[[], list[dict[str, Any]]]) -> None:
    Watcher("would publish").published(WORD, ())
    assert [line["message"] for line in logged()] == ["would publish"]


def test_events_are_logged_as_loudly_as_they_are(
    watcher: Watcher, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    watcher.happened(Event("CapabilityGained", "Publish", "SEV is usable"))
    watcher.happened(Event("CapabilityLost", "Publish", "SEV is disabled", "Warning"))
    assert [(line["level"], line.get("reason")) for line in logged()] == [
        ("info", "CapabilityGained"),
        ("warning", "CapabilityLost"),
    ]


def test_without_gauges_everything_but_the_numbers_works(
    found_on: Callable[..., Capabilities],
) -> None:
    watcher = Watcher()
    watcher.probed(found_on("genoa"))
    watcher.probe_failed(OSError("x"))
    watcher.publish_failed(Forbidden(403), 1)
    watcher.published(WORD, (LABEL,))
    assert watcher.ready() == ()


class Server:
    def __init__(self, answer: Json | Exception) -> None:
        self._answer = answer

    def call(self, call: Call) -> Json:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [({"a": 1}, "ok"), (Forbidden(403), "403"), (Unreachable("down"), "Unreachable")],
)
def test_requests_are_counted_by_their_outcome_and_timed(
    answer: Json | Exception, outcome: str, metrics: Metrics
) -> None:
    counted = Counted(Server(answer), Gauges(metrics))
    call = Call("PATCH", "/api/v1/nodes/n1/status")
    if isinstance(answer, Exception):
        with pytest.raises(type(answer)):
            counted.call(call)
    else:
        assert counted.call(call) == answer
    found = samples(metrics)
    assert found[f"sevkit_node_api_requests_total|PATCH|{outcome}"] == 1
    assert found["sevkit_node_api_request_seconds_count|PATCH"] == 1
