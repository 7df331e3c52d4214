"""A fleet in words that a terminal and a page share: short, and safe to show.

What nodes wrote is shown as ASCII: everything else is escaped, so that no letter looks like
another, is wider than one column, or runs from right to left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from sevkit.host.capability import Technology
from sevkit.kubevirt.fleet import availability, whats_missing
from sevkit.kubevirt.node_summary import Readiness, TierState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sevkit.cli.fleet_source import Fleet
    from sevkit.kubevirt.fleet import FleetGroup, Missing

TITLES: Final = (
    "nodes",
    "product",
    "firmware",
    "TCB",
    *(one.spelling for one in Technology),
    "names",
)
LEGEND: Final = (
    "guests free/total; ? is not known; [n] is a reason; TCB is the SNP SVN of the current TCB"
)
_ANSWERS: Final = {True: "yes", False: "NO", None: "could not find out"}


def ascii_only(text: str) -> str:
    """Return ``text`` with everything but printable ASCII escaped."""
    return "".join(c if c.isascii() and c.isprintable() else ascii(c)[1:-1] for c in text)


@final
class Notes:
    """The reasons of a fleet, numbered from 1, so that a cell can point to its own."""

    def __init__(self, fleet: Fleet) -> None:
        self.rows: Final = whats_missing(fleet.nodes)
        self._numbers: Final = {
            (row.technology, row.state, row.reason): number
            for number, row in enumerate(self.rows, 1)
        }

    def cells(self, group: FleetGroup) -> tuple[str, ...]:
        """Return a group's row without its names: as ``TITLES`` without the last."""
        like = group.like
        facts = (like.product, like.firmware_version, like.tcb_snp)
        return (
            str(len(group.nodes)),
            *(ascii_only(fact) or "-" for fact in facts),
            *(self._tier(group, one) for one in Technology),
        )

    def _tier(self, group: FleetGroup, technology: Technology) -> str:
        """Return ``free/total``, or the state where no guest can run, and the reason's number."""
        tier = group.like.tiers[technology]
        free, total = group.free[technology], group.total[technology]
        words = tier.state.replace("-", " ")
        if tier.state is TierState.USABLE:
            words = f"{'?' if free is None else free}/{'?' if total is None else total}"
        number = self._numbers.get((technology, tier.state, tier.reason)) or self._numbers.get(
            (None, tier.state, tier.reason)
        )
        return f"{words} [{number}]" if number else words

    def heads(self) -> tuple[str, ...]:
        """Return the head of each reason: number, technology, state, code, and how many nodes."""
        return tuple(f"[{number}] {_subject(row)}" for number, row in enumerate(self.rows, 1))


def marks(group: FleetGroup) -> str:
    """Return what else is to be known of a group; empty if there is nothing."""
    like = group.like
    words = [
        _READINESS[like.readiness],
        "cordoned" if like.cordoned else "",
        "simulated" if like.simulated else "",
    ]
    return ", ".join(word for word in words if word)


_READINESS: Final = {
    Readiness.READY: "",
    Readiness.NOT_READY: "not ready",
    Readiness.UNKNOWN: "readiness not known",
}


def _subject(row: Missing) -> str:
    name = "" if row.technology is None else f"{row.technology.spelling} "
    state = row.state.replace("-", " ")
    return f"{name}{state}: {ascii_only(row.reason)} ({counted(row.nodes)})"


def wording(row: Missing) -> str:
    """Return the explanation, and how many nodes explain it otherwise."""
    more = f"({counted(row.others)} in other words)" if row.others else ""
    return " ".join(word for word in (ascii_only(row.explanation), more) if word)


def counted(count: int) -> str:
    """Return a number of nodes."""
    return f"{count} node{'' if count == 1 else 's'}"


def verdicts(fleet: Fleet, required: Iterable[Technology]) -> Sequence[str]:
    """Return one line for each technology that is required."""
    lines = []
    for technology in required:
        answer = availability(fleet.nodes, technology)
        real = [node for node in fleet.nodes if not node.simulated]
        is_simulated = answer is True and availability(real, technology) is not True
        more = ", on simulated hardware only" if is_simulated else ""
        lines.append(f"{technology.spelling} usable: {_ANSWERS[answer]}{more}")
    return lines


def summary(fleet: Fleet, groups: Sequence[FleetGroup]) -> str:
    """Return the whole fleet in one line: what ready nodes can run."""
    parts = []
    for technology in Technology:
        able = [group for group in groups if availability([group.like], technology)]
        count = sum(len(group.nodes) for group in able)
        parts.append(f"{technology.spelling} on {count}")
    words = "group" if len(groups) == 1 else "groups"
    usable = ", ".join(parts)
    return f"{counted(len(fleet.nodes))} in {len(groups)} {words}; ready and usable: {usable}"
