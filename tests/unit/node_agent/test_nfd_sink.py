from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

import pytest

from node_agent.nfd_sink import NfdSink, encode_features, parse_features
from sevkit.cluster.events import Event
from sevkit.errors import HostReadError, UsageError
from sevkit.kubevirt.labels import NodeWord, encode_node_word
from sevkit.testing.host import PRESETS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sevkit.host.capability import Capabilities

WORD: Final = NodeWord(
    {"sevkit.io/sev": "true", "sevkit.io/sev-snp": "false"},
    {"sevkit.io/capabilities": "{}"},
    {"sevkit.io/sev": "754", "sevkit.io/sev-snp": "0"},
)
TEXT: Final = """\
sevkit.io/sev=true
sevkit.io/sev-snp=false
# +no-label
sevkit.io/capacity.sev=754
# +no-label
sevkit.io/capacity.sev-snp=0
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sevkit"


@pytest.fixture
def sink(path: Path) -> NfdSink:
    return NfdSink(str(path))


def test_labels_are_lines_and_guests_are_lines_without_a_label(sink: NfdSink, path: Path) -> None:
    assert sink.publish(WORD, whole=True) == ()
    assert path.read_text() == TEXT
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_written_is_recalled(
    preset: str, found_on: Callable[..., Capabilities], sink: NfdSink, path: Path
) -> None:
    word = encode_node_word(found_on(preset))
    assert not sink.holds(word)
    sink.publish(word, whole=False)
    assert sink.holds(word)
    assert NfdSink(str(path)).recall() == NodeWord(word.labels, {}, word.capacity)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_line_is_one_that_node_feature_discovery_takes(
    preset: str, found_on: Callable[..., Capabilities]
) -> None:
    """A feature's name, and a value that is a label's."""
    for line in encode_features(encode_node_word(found_on(preset))).splitlines():
        assert line == "# +no-label" or re.fullmatch(
            r"sevkit\.io/[a-z0-9][a-z0-9.-]{0,61}[a-z0-9]=[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?",
            line,
        ), line


def test_a_file_that_is_not_there_recalls_nothing(sink: NfdSink) -> None:
    assert sink.recall() == NodeWord()
    assert not sink.holds(WORD)
    assert sink.holds(NodeWord())


def test_lines_that_are_not_ours_are_left_out() -> None:
    text = (
        "other.io/sev=true\nsevkit.io/unknown=1\nsevkit.io/sev=true\n# sevkit.io/sev-es=true\n"
        " sevkit.io/sev-es=true\nsevkit.io/sev-snp\n=\n\nsevkit.io/capacity.sev=7\n"
        "sevkit.io/capacity.cpu=9\n# +expiry-time=2026-01-01T00:00:00Z\nsevkit.io/=x\n"
    )
    assert parse_features(text) == NodeWord({"sevkit.io/sev": "true"}, {}, {"sevkit.io/sev": "7"})


@pytest.mark.parametrize("data", [b"", b"\0\xff" * 1000, b"\n" * 70_000, os.urandom(100_000)])
def test_a_garbled_file_says_nothing_and_is_replaced(
    data: bytes, sink: NfdSink, path: Path
) -> None:
    path.write_bytes(data)
    assert sink.recall() == NodeWord()
    sink.publish(WORD, whole=True)
    assert path.read_text() == TEXT


def test_a_change_replaces_the_whole_file(sink: NfdSink, path: Path) -> None:
    sink.publish(WORD, whole=True)
    sink.publish(NodeWord({"sevkit.io/sev": "false"}), whole=False)
    assert path.read_text() == "sevkit.io/sev=false\n"
    assert [one.name for one in path.parent.iterdir()] == ["sevkit"]


def test_a_folder_that_is_not_there_is_refused_at_the_start() -> None:
    with pytest.raises(UsageError, match="is not a folder") as refused:
        NfdSink("/nonexistent/features.d/sevkit")
    assert "mounted" in refused.value.hint


def test_a_name_without_a_folder_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    NfdSink("sevkit").publish(WORD, whole=True)
    assert (tmp_path / "sevkit").read_text() == TEXT


def test_a_file_that_cannot_be_read_is_not_nothing(sink: NfdSink, path: Path) -> None:
    path.mkdir()
    with pytest.raises(HostReadError, match="cannot be read: is a directory"):
        sink.recall()


def test_a_folder_that_vanishes_is_a_failure_with_a_hint(tmp_path: Path) -> None:
    folder = tmp_path / "features.d"
    folder.mkdir()
    sink = NfdSink(str(folder / "sevkit"))
    folder.rmdir()
    with pytest.raises(HostReadError, match="cannot be written: no such file") as failed:
        sink.publish(WORD, whole=True)
    assert failed.value.hint
    assert "\n" not in failed.value.message
    folder.mkdir()
    sink.publish(WORD, whole=True)
    assert (folder / "sevkit").read_text() == TEXT


def test_telling_is_left_to_the_log(sink: NfdSink, path: Path) -> None:
    sink.tell(Event("CapabilityLost", "Publish", "SEV is disabled", "Warning"))
    assert not path.exists()
