from __future__ import annotations

from typing import Final

import pytest

from hack.fleet_documents import ANNOTATION, SEV, SEV_SNP, SNP_OFF, SNP_ON, annotation
from sevkit.host.capability import State, Technology
from sevkit.kubevirt.labels import KEYS
from sevkit.kubevirt.node_summary import (
    NodeSummary,
    Readiness,
    Tier,
    TierState,
    summarize_node,
)

SNP: Final = Technology.SEV_SNP
LABELS: Final = {
    "sevkit.io/sev": "true",
    "sevkit.io/sev-es": "true",
    "sevkit.io/sev-snp": "false",
    "sevkit.io/product": "milan",
    "sevkit.io/firmware-version": "1.55.40",
    "sevkit.io/tcb-snp": "22",
}
TOTALS: Final = {Technology.SEV: 410, Technology.SEV_ES: 99, SNP: 0}


def summary(
    labels: dict[str, str] | None = None, text: str | None = annotation(SNP_OFF)
) -> NodeSummary:
    annotations = {} if text is None else {ANNOTATION: text}
    return summarize_node("n", LABELS if labels is None else labels, annotations, {}, TOTALS)


def test_every_state_of_the_agents_is_one_of_the_readers() -> None:
    assert {TierState(state).value for state in State} == set(State)
    for state in State:
        assert TierState(state).answer is state.label


def test_a_node_says_what_it_is_and_why_not() -> None:
    found = summary()
    assert (found.product, found.firmware_version, found.tcb_snp) == ("milan", "1.55.40", "22")
    assert found.has_agent
    assert not found.simulated
    assert found.facts["cBit"] == 51
    assert found.tiers[Technology.SEV].state is TierState.USABLE
    missing = found.tiers[SNP]
    assert (missing.state, missing.reason) == (TierState.DISABLED, "iommu-passthrough")
    assert "passthrough" in missing.explanation
    assert "iommu=pt" in missing.hint


def test_a_node_without_our_keys_has_no_agent() -> None:
    found = summarize_node("n", {"kubevirt.io/sev": "true"}, {"a": "b"}, {"cpu": "4"}, {})
    assert not found.has_agent
    assert {tier.state for tier in found.tiers.values()} == {TierState.NO_AGENT}
    assert {tier.free for tier in found.tiers.values()} == {None}


def test_an_annotation_that_is_ill_formed_is_a_state_and_no_crash() -> None:
    found = summary(text='{"sev": \x1b[2J')
    assert {tier.state for tier in found.tiers.values()} == {TierState.UNREADABLE}
    assert found.tiers[SNP].reason == "annotation-unreadable"
    assert found.tiers[Technology.SEV].total == 410
    assert found.facts == {}


@pytest.mark.parametrize(
    ("label", "state"),
    [
        ("true", TierState.USABLE),
        ("false", TierState.NOT_USABLE),
        (None, TierState.UNKNOWN),
        ("maybe", TierState.CONTRADICTORY),
    ],
)
def test_without_an_annotation_the_label_counts(label: str | None, state: TierState) -> None:
    labels = {key: value for key, value in LABELS.items() if key != SEV_SNP}
    found = summary(labels | ({} if label is None else {SEV_SNP: label}), None)
    assert found.tiers[SNP].state is state


@pytest.mark.parametrize(
    ("said", "label", "state"),
    [
        ("usable", "true", TierState.USABLE),
        ("usable", "false", TierState.CONTRADICTORY),
        ("usable", None, TierState.CONTRADICTORY),
        ("disabled:smee-off", "false", TierState.DISABLED),
        ("disabled:smee-off", None, TierState.DISABLED),
        ("disabled:smee-off", "true", TierState.CONTRADICTORY),
        ("absent:no-silicon", "yes", TierState.CONTRADICTORY),
        ("unknown:kvm-unread", "true", TierState.UNKNOWN),
        ("unknown:kvm-unread", "false", TierState.UNKNOWN),
        ("unknown:kvm-unread", None, TierState.UNKNOWN),
        ("unknown:kvm-unread", "maybe", TierState.CONTRADICTORY),
    ],
)
def test_label_and_annotation_have_to_agree(said: str, label: str | None, state: TierState) -> None:
    labels = {key: value for key, value in LABELS.items() if key != SEV_SNP}
    labels |= {} if label is None else {SEV_SNP: label}
    tier = summary(labels, annotation(("usable", "usable", said))).tiers[SNP]
    assert tier.state is state
    if state is TierState.CONTRADICTORY:
        assert tier.reason == "label-disagrees"
        assert said.partition(":")[0] in tier.explanation


@pytest.mark.parametrize(
    ("total", "requested", "free"),
    [(99, 9, 90), (99, 99, 0), (99, 120, 0), (99, None, None), (None, 5, None), (0, None, 0)],
)
def test_free_is_known_only_if_both_are(
    total: int | None, requested: int | None, free: int | None
) -> None:
    assert Tier(TierState.USABLE, "usable", "", "", total, requested).free == free


def test_a_node_that_no_pod_asks_has_everything_free() -> None:
    found = summary().with_requests({Technology.SEV: 10})
    assert [found.tiers[one].free for one in Technology] == [400, 99, 0]


def test_what_is_simulated_and_not_ready_says_so() -> None:
    found = summarize_node(
        "n",
        LABELS | {"sevkit.io/simulated": "true"},
        {ANNOTATION: annotation(SNP_ON)},
        {SEV: "1"},
        {},
        readiness=Readiness.NOT_READY,
        cordoned=True,
    )
    assert found.simulated
    assert found.cordoned
    assert found.readiness is Readiness.NOT_READY
    assert set(KEYS) == set(Technology)
