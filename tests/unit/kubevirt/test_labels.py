from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.host.capabilities import decide
from sevkit.host.capability import Capabilities, State
from sevkit.host.probe import probe_host
from sevkit.host.sources import open_host
from sevkit.kubevirt import labels
from sevkit.kubevirt.labels import NodeWord, encode_annotation, encode_node_word, parse_node_word
from sevkit.testing.host import DEFECTS, PRESETS, with_defects, write_host

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: A label's key and value (Kubernetes, labels and selectors).
KEY: Final = re.compile(r"sevkit\.io/[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
VALUE: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def found_on(tmp_path: Path, preset: str, *defects: str) -> Capabilities:
    root = tmp_path / "host"
    write_host(with_defects(preset, defects), root)
    with open_host(str(root)) as source:
        return decide(probe_host(source))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_gives_labels_that_kubernetes_takes(tmp_path: Path, preset: str) -> None:
    word = encode_node_word(found_on(tmp_path, preset))
    for key, value in word.labels.items():
        assert KEY.fullmatch(key), key
        assert VALUE.fullmatch(value), value
    assert set(word.labels) <= set(labels.LABELS)
    assert word.labels[labels.SIMULATED] == "true"
    for key in labels.RESOURCES:
        assert (int(word.capacity[key]) > 0) is (word.labels[key] == "true")


def test_a_genoa_host_says_what_it_is(tmp_path: Path) -> None:
    spec = PRESETS["genoa"]
    word = encode_node_word(found_on(tmp_path, "genoa"))
    assert spec.firmware is not None
    assert spec.firmware.current is not None
    version = ".".join(map(str, (*spec.firmware.api, spec.firmware.build)))
    ours = spec.bios.min_sev_asid - 1
    assert word.labels == {
        labels.SEV: "true",
        labels.SEV_ES: "false",
        labels.SEV_SNP: "true",
        labels.PRODUCT: "genoa",
        labels.FIRMWARE_VERSION: version,
        labels.TCB_SNP: str(spec.firmware.current.snp),
        labels.SEV_ASIDS: str(spec.bios.max_asid - ours),
        labels.ENCRYPTED_STATE_ASIDS: str(ours),
        labels.SIMULATED: "true",
    }
    assert word.capacity == {
        labels.SEV: str(spec.bios.max_asid - ours),
        labels.SEV_ES: "0",
        labels.SEV_SNP: str(ours),
    }


def test_no_chip_is_named(tmp_path: Path, name_chip: Callable[[Path], str]) -> None:
    write_host(PRESETS["turin"], tmp_path / "host")
    chip = name_chip(tmp_path / "host")
    with open_host(str(tmp_path / "host")) as source:
        word = encode_node_word(decide(probe_host(source)))
    assert word.labels[labels.FIRMWARE_VERSION], "it was read"
    assert chip not in json.dumps(word.to_json()).lower()


def test_what_is_unknown_keeps_its_last_value_and_says_why(tmp_path: Path) -> None:
    found = found_on(tmp_path, "milan")
    last = encode_node_word(found)
    lost = replace(
        found,
        sev_snp=replace(found.sev_snp, state=State.UNKNOWN, guests=0),
        firmware_version=None,
        current_tcb=None,
    )
    word = encode_node_word(lost, last)
    assert (word.labels, word.capacity) == (last.labels, last.capacity)
    annotation = word.to_json()["annotations"][labels.CAPABILITIES]
    assert annotation["sev-snp"]["state"] == "unknown"
    never = encode_node_word(lost)
    assert not {labels.SEV_SNP, labels.FIRMWARE_VERSION, labels.TCB_SNP} & never.labels.keys()
    assert labels.SEV_SNP not in never.capacity


@pytest.mark.parametrize("was_simulated", [True, False])
def test_nothing_is_kept_of_other_hardware(tmp_path: Path, *, was_simulated: bool) -> None:
    """A label from simulated hardware would stay on a real host, and without its mark."""
    found = found_on(tmp_path, "milan")
    last = encode_node_word(replace(found, simulated=was_simulated))
    lost = replace(
        found,
        sev_snp=replace(found.sev_snp, state=State.UNKNOWN, guests=0),
        firmware_version=None,
        current_tcb=None,
        simulated=not was_simulated,
    )
    assert encode_node_word(lost, last) == encode_node_word(lost)


def test_a_no_replaces_a_yes_on_evidence(tmp_path: Path) -> None:
    before = encode_node_word(found_on(tmp_path / "a", "milan"))
    word = encode_node_word(found_on(tmp_path / "b", "milan", "smee-off"), before)
    assert [word.labels[key] for key in labels.RESOURCES] == ["false"] * 3
    assert [word.capacity[key] for key in labels.RESOURCES] == ["0"] * 3


@pytest.mark.parametrize("defect", DEFECTS)
def test_the_annotation_fits_and_has_every_state_and_reason(tmp_path: Path, defect: str) -> None:
    preset = next(name for name in reversed(list(PRESETS)) if name in DEFECTS[defect].applies_to)
    found = found_on(tmp_path, preset, defect)
    text = encode_annotation(found)
    assert len(text.encode()) <= labels.MAX_ANNOTATION
    document = json.loads(text)
    for name, capability in (
        ("sev", found.sev),
        ("sev-es", found.sev_es),
        ("sev-snp", found.sev_snp),
    ):
        assert document[name]["state"] == capability.state
        assert document[name]["reason"] == capability.reason


def test_what_does_not_fit_is_cut_from_the_words_only(tmp_path: Path) -> None:
    found = found_on(tmp_path, "milan", "smee-off")
    long = replace(found.sev, explanation="x" * 2000)
    hints = json.loads(encode_annotation(replace(found, sev=long)))
    assert "explanation" not in hints["sev"]
    assert hints["sev-es"]["hint"]
    bare = json.loads(encode_annotation(replace(found, sev=replace(long, hint="y" * 2000))))
    assert bare["sev"] == {"state": "disabled", "reason": "smee-off"}


def test_only_what_is_ours_is_read_back(tmp_path: Path) -> None:
    word = encode_node_word(found_on(tmp_path, "naples"))
    others = {"kubevirt.io/sev": "true", "sevkit.io/other": "1"}
    again = parse_node_word(
        {**word.labels, **others}, {**word.annotations, **others}, {**word.capacity, "cpu": "4"}
    )
    assert again == word


def test_words_are_equal_by_what_they_say() -> None:
    one = NodeWord({"a": "1", "b": "2"})
    assert one == NodeWord({"b": "2", "a": "1"})
    assert one != NodeWord({"a": "1"}, {"b": "2"})
    assert one
    assert not NodeWord()
    assert one
