from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from node_agent import news
from node_agent.news import capability_events, contested_event
from sevkit.cluster.errors import Contested
from sevkit.host.capability import Capabilities, State
from sevkit.kubevirt.labels import CAPABILITIES, NodeWord, encode_node_word
from sevkit.testing.host import DEFECTS

if TYPE_CHECKING:
    from collections.abc import Callable


def told(before: NodeWord, found: Capabilities) -> list[tuple[str, str]]:
    """Return reason and first words of each event."""
    return [
        (event.reason, " ".join(event.note.replace(":", ";").split(";")[0].split()))
        for event in capability_events(before, found)
    ]


@pytest.fixture
def good(found_on: Callable[..., Capabilities]) -> Capabilities:
    return found_on("genoa")


def test_nothing_new_is_no_event(good: Capabilities) -> None:
    assert told(encode_node_word(good), good) == []


def test_what_is_lost_is_a_warning_with_the_reason_and_the_fix(
    good: Capabilities, found_on: Callable[..., Capabilities]
) -> None:
    (event,) = capability_events(encode_node_word(good), found_on("genoa", "kvm-snp-off"))
    assert (event.reason, event.action, event.kind) == ("CapabilityLost", "Publish", "Warning")
    assert event.note.startswith("SEV-SNP is disabled (kvm-snp-off); ")
    assert "; fix: " in event.note


def test_what_is_gained_is_normal_and_says_how_many_guests(
    good: Capabilities, found_on: Callable[..., Capabilities]
) -> None:
    (event,) = capability_events(encode_node_word(found_on("genoa", "kvm-snp-off")), good)
    assert (event.reason, event.kind) == ("CapabilityGained", "Normal")
    assert event.note == "SEV-SNP is usable (usable): 252 guests"


def test_what_is_no_longer_known_is_told(good: Capabilities) -> None:
    unread = replace(good.sev, state=State.UNKNOWN, reason=good.sev_es.reason)
    (event,) = capability_events(encode_node_word(good), replace(good, sev=unread))
    assert (event.reason, event.kind) == ("CapabilityUnknown", "Warning")


def test_another_reason_for_the_same_no_is_a_change(
    found_on: Callable[..., Capabilities],
) -> None:
    before = encode_node_word(found_on("genoa", "smee-off"))
    assert told(before, found_on("genoa", "svm-off")) == [
        ("CapabilityChanged", f"{name} is disabled (svm-off)")
        for name in ("SEV", "SEV-ES", "SEV-SNP")
    ]


def test_other_words_for_the_same_reason_are_no_change(good: Capabilities) -> None:
    other = replace(good.sev_es, explanation="in other words", hint="as before")
    assert told(encode_node_word(good), replace(good, sev_es=other)) == []


def test_another_number_of_guests_is_no_event(good: Capabilities) -> None:
    assert told(encode_node_word(good), replace(good, sev=replace(good.sev, guests=1))) == []


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("naples", []),
        ("intel", []),
        ("virtual-machine", []),
        ("rome", [("CapabilityMissing", "SEV-ES is unusable (no-encrypted-state-asids)")]),
        ("rome-es", []),
    ],
)
def test_a_first_install_complains_of_what_can_be_mended_only(
    preset: str, expected: list[tuple[str, str]], found_on: Callable[..., Capabilities]
) -> None:
    assert told(NodeWord(), found_on(preset)) == expected


def test_a_first_install_does_not_complain_of_what_is_not_known(good: Capabilities) -> None:
    unread = replace(good.sev, state=State.UNKNOWN)
    found = replace(good, sev=unread, sev_es=unread, sev_snp=unread)
    assert told(NodeWord(), found) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "7",
        '"sev"',
        "{}",
        '{"sev": null, "sev-es": [], "sev-snp": 1}',
        '{"sev": {"state": "usable"}}',
        '{"sev": {"state": 1, "reason": 2}}',
        '{"sev": {}, "sev": {}}',
        "\x00",
        "\ud800".encode("utf-8", "surrogatepass").decode("utf-8", "replace"),
        "[" * 5000,
        '{"sev": {"state": "usable", "reason": "' + "x" * 10_000 + '"}}',
    ],
    ids=lambda text: ascii(text[:30]),
)
def test_an_annotation_that_somebody_garbled_says_nothing(
    text: str, found_on: Callable[..., Capabilities]
) -> None:
    """What is not known to be new is not told, and nothing is raised."""
    word = NodeWord({"sevkit.io/sev": "true"}, {CAPABILITIES: text})
    assert told(word, found_on("genoa", "smee-off")) == []


def test_one_readable_part_of_a_garbled_annotation_counts(
    found_on: Callable[..., Capabilities],
) -> None:
    text = '{"sev": {"state": "usable", "reason": "usable"}, "sev-snp": 1}'
    word = NodeWord({}, {CAPABILITIES: text})
    assert [reason for reason, _ in told(word, found_on("genoa", "smee-off"))] == ["CapabilityLost"]


def test_an_unknown_state_of_another_version_was_no_yes(
    found_on: Callable[..., Capabilities],
) -> None:
    text = '{"sev": {"state": "splendid", "reason": "of-the-future"}}'
    word = NodeWord({}, {CAPABILITIES: text})
    assert [reason for reason, _ in told(word, found_on("genoa", "smee-off"))] == [
        "CapabilityChanged"
    ]
    assert [reason for reason, _ in told(word, found_on("genoa"))] == ["CapabilityGained"]


# A host without free ASIDs has a thousand pods, which take time to write, and the same reasons.
@pytest.mark.parametrize("defect", sorted(DEFECTS.keys() - {"asids-exhausted"}))
def test_every_event_fits_and_no_note_is_cut(
    defect: str, found_on: Callable[..., Capabilities]
) -> None:
    preset = min(DEFECTS[defect].applies_to)
    found = found_on(preset, defect)
    before = encode_node_word(found_on("intel"))
    for event in capability_events(before, found):
        assert len(event.note.encode()) <= 1024
        assert "\n" not in event.note
        assert event.reason in {news.GAINED, news.CHANGED, news.UNKNOWN, news.LOST}


def test_contested_keys_are_named_with_their_owners() -> None:
    event = contested_event(
        [
            Contested(".metadata.labels.sevkit.io/sev", "kubectl-label"),
            Contested(".status.capacity.sevkit.io/sev-snp", "someone"),
        ]
    )
    assert (event.reason, event.kind) == ("KeysContested", "Warning")
    assert "labels.sevkit.io/sev (kubectl-label), " in event.note
    assert "capacity.sevkit.io/sev-snp (someone)" in event.note


def test_many_contested_keys_are_counted() -> None:
    every = [Contested(f".metadata.labels.sevkit.io/{n}", "m" * 128) for n in range(40)]
    note = contested_event(every).note
    assert "and 28 more" in note
