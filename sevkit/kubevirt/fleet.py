"""A fleet at a glance: equal nodes in groups, what is missing and why, and whether it will do.

Nodes are equal if they say the same of everything but their names and their guests, so that
thousands of nodes are a few groups. What a group has free is the sum over its nodes; one node of
which it is not known makes the sum not known. Pure.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, final

from sevkit.host.capability import Technology
from sevkit.host.reasons import TEXTS, Reason
from sevkit.kubevirt.name_ranges import natural
from sevkit.kubevirt.node_summary import NodeSummary, Readiness, TierState

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from sevkit.kubevirt.node_summary import Tier

#: Most useful first.
_VALUE: Final = (Technology.SEV_SNP, Technology.SEV_ES, Technology.SEV)
_REASONS: Final = frozenset(Reason)


@final
@dataclass(frozen=True)  # no slots: it keeps what it computed
class FleetGroup:
    """Equal nodes, at least one, in natural order of their names.

    What is the same for all is that of ``like``, the first.
    """

    nodes: tuple[NodeSummary, ...]

    @property
    def like(self) -> NodeSummary:
        """One of them."""
        return self.nodes[0]

    @cached_property
    def free(self) -> dict[Technology, int | None]:
        """How many guests more there is room for; None is not known."""
        return {one: _sum(node.tiers[one].free for node in self.nodes) for one in Technology}

    @cached_property
    def total(self) -> dict[Technology, int | None]:
        """How many guests the scheduler would place; None is not known."""
        return {one: _sum(node.tiers[one].total for node in self.nodes) for one in Technology}


@final
@dataclass(frozen=True, slots=True)
class Missing:
    """Why some nodes have a technology not, or not as it should be.

    ``technology`` is None where it is about all three. ``explanation`` and ``hint`` are the words
    that most of the ``nodes`` use; ``others`` of them use other words, which may be one node's lie.
    """

    technology: Technology | None
    state: TierState
    reason: str
    explanation: str
    hint: str
    nodes: int
    others: int


def group_nodes(nodes: Iterable[NodeSummary]) -> tuple[FleetGroup, ...]:
    """Return the nodes in groups, the most useful first; equal fleets give equal answers."""
    found: defaultdict[Hashable, list[NodeSummary]] = defaultdict(list)
    for node in nodes:
        found[_likeness(node)].append(node)
    groups = [
        FleetGroup(tuple(sorted(members, key=lambda node: natural(node.name))))
        for members in found.values()
    ]
    return tuple(sorted(groups, key=_rank))


def _likeness(node: NodeSummary) -> Hashable:
    tiers = tuple((one.state, one.reason, one.total) for one in node.tiers.values())
    facts = (node.product, node.firmware_version, node.tcb_snp, node.simulated)
    return (tiers, facts, node.has_agent, node.readiness, node.cordoned)


def _rank(group: FleetGroup) -> tuple[object, ...]:
    """Return a key: can serve now, real, by technology, by how many, then by name."""
    like = group.like
    states = [like.tiers[one].state for one in _VALUE]
    return (
        not (like.readiness is Readiness.READY and TierState.USABLE in states),
        like.cordoned,
        like.simulated,
        [state is not TierState.USABLE for state in states],
        not like.has_agent,
        [state.answer is None for state in states],
        -len(group.nodes),
        natural(like.name),
    )


def _sum(numbers: Iterable[int | None]) -> int | None:
    total = 0
    for number in numbers:
        if number is None:
            return None
        total += number
    return total


def whats_missing(nodes: Iterable[NodeSummary]) -> tuple[Missing, ...]:
    """Return each distinct technology and reason once, by technology and how often it occurs.

    Reasons of a technology that is usable with a reservation are among them.
    """
    said: defaultdict[tuple[Technology | None, TierState, str], Counter[tuple[str, str]]]
    said = defaultdict(Counter)
    for node in nodes:
        for technology, tier in node.tiers.items():
            if tier.state in _OF_THE_NODE:
                said[None, tier.state, tier.reason][tier.explanation, tier.hint] += 1
                break  # once for the node
            if tier.state is not TierState.USABLE or tier.reason != Reason.USABLE:
                said[technology, tier.state, tier.reason][tier.explanation, tier.hint] += 1
    order: list[Technology | None] = [*reversed(_VALUE), None]
    rows = [_missing(*key, counts) for key, counts in said.items()]
    return tuple(
        sorted(rows, key=lambda row: (order.index(row.technology), -row.nodes, row.reason))
    )


#: States that are the node's as a whole.
_OF_THE_NODE: Final = frozenset({TierState.NO_AGENT, TierState.UNREADABLE})


def _missing(
    technology: Technology | None,
    state: TierState,
    reason: str,
    counts: Counter[tuple[str, str]],
) -> Missing:
    nodes = counts.total()
    (explanation, hint), most = min(counts.items(), key=lambda one: (-one[1], one[0]))
    # Words that did not fit into the annotation: sevkit's own for that code.
    if not hint and reason in _REASONS:
        hint = TEXTS[Reason(reason)].hint
    return Missing(technology, state, reason, explanation, hint, nodes, nodes - most)


def availability(nodes: Sequence[NodeSummary], technology: Technology) -> bool | None:
    """Return whether a node can run guests of ``technology``; None if that cannot be known.

    A node that is not ready runs none, and neither does one where the scheduler has no guest to
    place. One that says nothing, or nothing to be believed, might.
    """
    answers = {_runs(node, node.tiers[technology]) for node in nodes}
    return True if True in answers else None if None in answers else False


def _runs(node: NodeSummary, tier: Tier) -> bool | None:
    # What its label promises, a kubelet may have taken back: it zeroes resources when it begins.
    answer = False if tier.state.answer and tier.total == 0 else tier.state.answer
    if node.readiness is Readiness.NOT_READY or answer is False:
        return False
    return None if node.readiness is Readiness.UNKNOWN else answer
