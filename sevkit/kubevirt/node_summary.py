"""One node of a fleet: what it says of each technology, and whether that is to be believed.

A label says yes or no, which the scheduler goes by; the annotation says why. Both are written in
one request, so where they disagree, or one cannot be read, somebody else had a hand in it: these
are states of their own, neither yes nor no. Numbers that are not known are None, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final, final

from sevkit.errors import FormatError
from sevkit.host.capability import Technology
from sevkit.kubevirt.annotation import Annotation, parse_annotation
from sevkit.kubevirt.labels import (
    CAPABILITIES,
    FIRMWARE_VERSION,
    KEYS,
    PRODUCT,
    SIMULATED,
    TCB_SNP,
    NodeWord,
    parse_node_word,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sevkit.documents import Json
    from sevkit.kubevirt.annotation import Said


class TierState(StrEnum):
    """What is known of a technology on a node: the agent's five states, and four of the reader's.

    ``not-usable``: the label says false, and nothing says why. ``contradictory``: label and
    annotation disagree. ``unreadable``: the annotation is ill-formed. ``no-agent``: nothing was
    published.
    """

    USABLE = "usable"
    DISABLED = "disabled"
    UNUSABLE = "unusable"
    ABSENT = "absent"
    UNKNOWN = "unknown"
    NOT_USABLE = "not-usable"
    CONTRADICTORY = "contradictory"
    UNREADABLE = "unreadable"
    NO_AGENT = "no-agent"

    @property
    def answer(self) -> bool | None:
        """Whether a guest can run: yes, no, or None where that is not known."""
        return _ANSWERS[self]


_ANSWERS: Final = {
    TierState.USABLE: True,
    TierState.DISABLED: False,
    TierState.UNUSABLE: False,
    TierState.ABSENT: False,
    TierState.NOT_USABLE: False,
    TierState.UNKNOWN: None,
    TierState.CONTRADICTORY: None,
    TierState.UNREADABLE: None,
    TierState.NO_AGENT: None,
}


class Readiness(StrEnum):
    """A node's condition Ready. ``unknown``: its kubelet is silent, or never spoke."""

    READY = "ready"
    NOT_READY = "not-ready"
    UNKNOWN = "unknown"


@final
@dataclass(frozen=True, slots=True)
class Tier:
    """One technology on one node.

    ``total`` is how many guests the scheduler would place there, ``requested`` how many it has
    placed; None is not known. ``explanation`` and ``hint`` may be a node's own words.
    """

    state: TierState
    reason: str
    explanation: str
    hint: str
    total: int | None
    requested: int | None = None

    @property
    def free(self) -> int | None:
        """How many guests more there is room for; None is not known."""
        if self.total == 0:
            return 0
        if self.total is None or self.requested is None:
            return None
        return max(0, self.total - self.requested)


@final
@dataclass(frozen=True, slots=True)
class NodeSummary:
    """One node. ``word`` is all that is ours on it, ``facts`` what its annotation adds.

    ``product``, ``firmware_version`` and ``tcb_snp`` are its labels, empty where it has none.
    """

    name: str
    readiness: Readiness
    cordoned: bool
    word: NodeWord
    facts: Mapping[str, Json]
    tiers: Mapping[Technology, Tier]

    @property
    def has_agent(self) -> bool:
        """Whether anything of ours was ever published on it."""
        return bool(self.word)

    @property
    def product(self) -> str:
        """The processor, such as ``genoa``."""
        return self.word.labels.get(PRODUCT, "")

    @property
    def firmware_version(self) -> str:
        """The firmware's version, such as ``1.55.40``."""
        return self.word.labels.get(FIRMWARE_VERSION, "")

    @property
    def tcb_snp(self) -> str:
        """The SNP SVN of the current TCB."""
        return self.word.labels.get(TCB_SNP, "")

    @property
    def simulated(self) -> bool:
        """Whether the node says that its hardware is simulated."""
        return SIMULATED in self.word.labels

    def with_requests(self, requested: Mapping[Technology, int]) -> NodeSummary:
        """Return it with how many guests of each technology are placed on it, 0 if not named."""
        tiers = {
            technology: replace(tier, requested=requested.get(technology, 0))
            for technology, tier in self.tiers.items()
        }
        return replace(self, tiers=tiers)


def summarize_node(
    name: str,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    capacity: Mapping[str, str],
    totals: Mapping[Technology, int | None],
    *,
    readiness: Readiness = Readiness.READY,
    cordoned: bool = False,
) -> NodeSummary:
    """Return the summary of a node whose ``totals`` were counted. Raises nothing."""
    word = parse_node_word(labels, annotations, capacity)
    text = word.annotations.get(CAPABILITIES)
    annotation, unreadable = None, None
    try:
        annotation = None if text is None else parse_annotation(text)
    except FormatError as error:
        unreadable = (error.message, _REWRITE)
    tiers = {
        technology: Tier(
            *_judge(word, technology, annotation, unreadable), total=totals.get(technology)
        )
        for technology in Technology
    }
    facts = {} if annotation is None else annotation.facts
    return NodeSummary(name, readiness, cordoned, word, facts, tiers)


_REWRITE: Final = "restart the agent's pod on that node, which writes it anew; who changed it?"
_SILENT: Final = (
    TierState.NO_AGENT,
    "no-agent",
    "nothing of ours was ever published on this node",
    "install the node agent, or let its DaemonSet tolerate this node's taints",
)
#: Without an annotation, as where node-feature-discovery publishes labels alone.
_BY_LABEL: Final = {
    "true": (TierState.USABLE, "usable", "", ""),
    "false": (
        TierState.NOT_USABLE,
        "not-said",
        "the label says false, and no annotation says why",
        "run 'sevkit node doctor' on that node",
    ),
    "": (
        TierState.UNKNOWN,
        "never-known",
        "the node has neither a label nor an annotation for it",
        "look at the log of the agent's pod on that node",
    ),
}
_OWNER: Final = "kubectl get node NAME -o yaml --show-managed-fields says who owns the label"


def _judge(
    word: NodeWord,
    technology: Technology,
    annotation: Annotation | None,
    unreadable: tuple[str, str] | None,
) -> tuple[TierState, str, str, str]:
    """Return state, reason, explanation and hint."""
    if not word:
        return _SILENT
    if unreadable is not None:
        return (TierState.UNREADABLE, "annotation-unreadable", *unreadable)
    label = word.labels.get(KEYS[technology], "")
    if annotation is None:
        return _BY_LABEL.get(label) or _contradiction("no annotation", label)
    return _compare(annotation.said[technology], label)


def _compare(said: Said, label: str) -> tuple[TierState, str, str, str]:
    # An unknown state leaves the label as it was. A no needs none: nothing is placed there.
    agreeing = {True: {"true"}, False: {"false", ""}, None: {"true", "false", ""}}
    if label not in agreeing[said.state.label]:
        return _contradiction(f"annotation {said.state} ({said.reason})", label)
    return (TierState(said.state), said.reason, said.explanation, said.hint)


def _contradiction(there: str, label: str) -> tuple[TierState, str, str, str]:
    here = f"the label says {label!r}" if label else "there is no label"
    return (TierState.CONTRADICTORY, "label-disagrees", f"{here}, but {there}", _OWNER)
