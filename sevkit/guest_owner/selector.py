"""Which VMIs an owner means: a namespace, and a name or labels; pure.

Labels select as Kubernetes' equality-based selectors do: ``a=b``, ``a==b``, ``a!=b``, ``a`` and
``!a``, all of which have to hold. Which VMIs are looked at is a choice, never an expectation: a
cluster that lies about labels decides which of its VMIs are not attested.

Source: Kubernetes, "Labels and Selectors".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

_PART: Final = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_KEY: Final = rf"(?:[a-z0-9](?:[-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_PART}"
_TERM: Final = re.compile(rf"\s*(!)?\s*({_KEY})\s*(?:(==|=|!=)\s*({_PART})?\s*)?")
_MOST: Final = 32


@final
@dataclass(frozen=True, slots=True)
class Term:
    """One condition. ``value`` is None to ask only whether the label is there."""

    key: str
    value: str | None
    wanted: bool

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether it holds for these labels."""
        found = self.key in labels if self.value is None else labels.get(self.key) == self.value
        return found is self.wanted


@final
@dataclass(frozen=True, slots=True)
class Selector:
    """VMIs of a namespace: the one called ``name``, or any if it is empty, with these labels."""

    namespace: str
    name: str
    terms: tuple[Term, ...]

    def selects(self, namespace: str, name: str, labels: Mapping[str, str]) -> bool:
        """Whether this VMI is meant."""
        return (
            namespace == self.namespace
            and self.name in {"", name}
            and all(term.holds(labels) for term in self.terms)
        )


def parse_selector(namespace: str, name: str, labels: str) -> Selector:
    """Return the selector; ``labels`` may be empty. Raises ``UsageError``."""
    parts = labels.split(",") if labels.strip() else []
    if len(parts) > _MOST:
        raise UsageError(f"more than {_MOST} conditions", hint="write fewer")
    return Selector(namespace, name, tuple(map(_term, parts)))


def _term(text: str) -> Term:
    found = _TERM.fullmatch(text)
    if found is None or (found[1] and found[3]):
        raise UsageError(
            "is no label selector of equalities", hint="such as app=ledger,tier!=test,critical"
        )
    if not found[3]:
        return Term(found[2], None, not found[1])
    return Term(found[2], found[4] or "", found[3] != "!=")
