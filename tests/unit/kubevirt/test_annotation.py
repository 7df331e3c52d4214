from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest

from hack.fleet_documents import SNP_OFF, annotation
from sevkit.errors import FormatError
from sevkit.host.capabilities import decide
from sevkit.host.capability import State, Technology
from sevkit.host.probe import probe_host
from sevkit.host.sources import open_host
from sevkit.kubevirt.annotation import parse_annotation
from sevkit.kubevirt.labels import MAX_ANNOTATION, encode_annotation
from sevkit.testing.host import PRESETS, write_host

if TYPE_CHECKING:
    from pathlib import Path

GOOD: Final[dict[str, Any]] = json.loads(annotation(SNP_OFF))


@pytest.mark.parametrize("preset", PRESETS)
def test_what_the_agent_writes_is_read_back(tmp_path: Path, preset: str) -> None:
    write_host(PRESETS[preset], tmp_path / "host")
    with open_host(str(tmp_path / "host")) as source:
        found = decide(probe_host(source))
    read = parse_annotation(encode_annotation(found))
    for technology in Technology:
        said, capability = read.said[technology], found.of(technology)
        assert (said.state, said.reason) == (capability.state, capability.reason)
        assert said.explanation in {capability.explanation, ""}
        assert said.hint in {capability.hint, ""}
    assert read.facts.get("cBit") == found.c_bit
    assert (read.facts.get("currentTcb") is None) is (found.current_tcb is None)


def test_words_may_be_missing_and_keys_may_be_new() -> None:
    short = {tier: {"state": "unknown", "reason": "kvm-unread"} for tier in Technology}
    read = parse_annotation(json.dumps(short | {"quantum": [1]}))
    assert read.said[Technology.SEV_ES].state is State.UNKNOWN
    assert read.said[Technology.SEV_ES].hint == ""
    assert read.facts == {}


@pytest.mark.parametrize(
    "change",
    [
        {"sev": None},
        {"sev": []},
        {"sev": {"state": "usable"}},
        {"sev": {"reason": "usable"}},
        {"sev": {"state": "splendid", "reason": "usable"}},
        {"sev": {"state": "no-agent", "reason": "usable"}},
        {"sev": {"state": 1, "reason": "usable"}},
        {"sev": {"state": "usable", "reason": ["usable"]}},
        {"sev": {"state": "usable", "reason": "Usable"}},
        {"sev": {"state": "usable", "reason": "a\n"}},
        {"sev": {"state": "usable", "reason": "a--b"}},
        {"sev": {"state": "usable", "reason": "a" * 64}},
        {"sev": {"state": "usable", "reason": "usable", "hint": 7}},
        {"cBit": True},
        {"cBit": -1},
        {"cBit": "51"},
        {"reducedPhysBits": 1 << 16},
        {"firmware": 1},
        {"currentTcb": 1},
        {"currentTcb": {"snp": "x"}},
        {"snpInitialized": 1},
    ],
    ids=str,
)
def test_a_defect_refuses_it_whole(change: dict[str, Any]) -> None:
    assert parse_annotation(json.dumps(GOOD)).facts["cBit"] == 51
    with pytest.raises(FormatError, match=r"annotation sevkit\.io/capabilities"):
        parse_annotation(json.dumps(GOOD | change))


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", '"usable"', "{", "{}", "[" * 2000, '{"sev":1,"sev":2}', "\0", "\ud800"],
    ids=repr,
)
def test_what_is_no_annotation_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_annotation(text)


def test_two_kib_are_the_limit_in_bytes_and_not_in_letters() -> None:
    empty = len(json.dumps(GOOD | {"note": ""}))
    fits = json.dumps(GOOD | {"note": "x" * (MAX_ANNOTATION - empty)})
    assert len(fits) == MAX_ANNOTATION
    assert parse_annotation(fits).said[Technology.SEV].state is State.USABLE
    for text in (fits + " ", fits.replace("xx", "é", 1) + "é", "x" * (64 << 20)):
        with pytest.raises(FormatError, match="limit of 2048"):
            parse_annotation(text)


def test_equal_texts_are_read_once() -> None:
    text = annotation(SNP_OFF)
    assert parse_annotation(text) is parse_annotation(str(text.encode(), "ascii"))
