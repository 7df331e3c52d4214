from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from sevkit.kubevirt.tiers import Tier
from webhooks.node_tiers import NodeTiers, Runnable, fold_nodes, parse_node

if TYPE_CHECKING:
    from sevkit.documents import Json

KUBEVIRT: Final = ("kubevirt.io/sev", "kubevirt.io/sev-es", "kubevirt.io/sev-snp")
OURS: Final = ("sevkit.io/sev", "sevkit.io/sev-es", "sevkit.io/sev-snp")
ALL: Final = dict.fromkeys((*KUBEVIRT, *OURS, "kubevirt.io/schedulable"), "true")
REAL: Final = frozenset(Tier)


def tiers(labels: dict[str, str]) -> set[Tier]:
    found = parse_node({"metadata": {"name": "n", "labels": dict[str, "Json"](labels)}})
    return set() if found is None else set(found.tiers)


def test_a_node_on_which_all_labels_agree_can_run_everything() -> None:
    assert tiers(ALL) == set(Tier)


@pytest.mark.parametrize(
    ("label", "lost"),
    [
        ("sevkit.io/sev", {Tier.SEV}),
        ("sevkit.io/sev-es", {Tier.SEV_ES}),
        ("sevkit.io/sev-snp", {Tier.SNP}),
        ("kubevirt.io/sev", set(Tier)),  # guests of all tiers select on it
        ("kubevirt.io/sev-es", {Tier.SEV_ES}),
        ("kubevirt.io/sev-snp", {Tier.SNP}),
        ("kubevirt.io/schedulable", set(Tier)),
    ],
)
@pytest.mark.parametrize("value", [None, "false", "", "True", "yes"])
def test_each_label_has_to_be_true(label: str, lost: set[Tier], value: str | None) -> None:
    labels = {**ALL, label: "" if value is None else value}
    if value is None:
        del labels[label]
    assert tiers(labels) == set(Tier) - lost


@pytest.mark.parametrize("one", [KUBEVIRT, OURS])
def test_one_side_alone_is_not_enough(one: tuple[str, ...]) -> None:
    labels = dict.fromkeys((*one, "kubevirt.io/schedulable"), "true")
    assert tiers(labels) == set()


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"metadata": None},
        {"metadata": []},
        {"metadata": {}},
        {"metadata": {"labels": None}},
        {"metadata": {"labels": ["sevkit.io/sev"]}},
        {"metadata": {"labels": dict.fromkeys(ALL, True)}},
    ],
    ids=str,
)
def test_what_is_ill_formed_or_says_nothing_can_run_nothing(document: dict[str, Json]) -> None:
    assert parse_node(document) is None


@pytest.mark.parametrize("value", ["true", "false", ""])
def test_whoever_says_anything_of_simulation_is_not_taken_for_real(value: str) -> None:
    labels: dict[str, Json] = {**ALL, "sevkit.io/simulated": value}
    assert parse_node({"metadata": {"labels": labels}}) == NodeTiers(REAL, simulated=True)


def test_of_many_nodes_the_tiers_are_joined_and_simulated_ones_apart() -> None:
    sev, es, snp = (frozenset({tier}) for tier in Tier)
    assert fold_nodes([]) == Runnable(frozenset(), frozenset())
    nodes = [NodeTiers(sev, False), NodeTiers(es, False)] * 3 + [NodeTiers(snp, True)]
    assert fold_nodes(nodes) == Runnable(sev | es, sev | es | snp)
    assert fold_nodes([NodeTiers(sev, True)]) == Runnable(frozenset(), sev)
