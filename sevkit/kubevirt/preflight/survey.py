"""What ``sevkit cluster preflight`` asked a cluster, and what it answered.

An object that is not there is None; what could not be asked is ``Unasked``, which is neither a yes
nor a no. Objects are as the API server gave them: whoever reads one says what is ill-formed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar, final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sevkit.documents import Json
    from sevkit.kubevirt.claims import NodeClaims
    from sevkit.kubevirt.preflight.guests import Guests
    from sevkit.kubevirt.tiers import Tier

Document: TypeAlias = "Mapping[str, Json]"
_T = TypeVar("_T")


@final
@dataclass(frozen=True, slots=True)
class Unasked:
    """Why there is no answer. ``right`` is the one that is missing, such as ``list nodes``."""

    reason: str
    right: str = ""


Answer: TypeAlias = _T | Unasked
_NOT: Final = Unasked("not asked")


class NotAskedError(Exception):
    """Leaves a check that needs an answer that is not there; ``examine`` makes a skip of it."""

    def __init__(self, unasked: Unasked) -> None:
        super().__init__(unasked.reason)
        self.unasked = unasked


def known(answer: _T | Unasked) -> _T:
    """Return an answer, or raise ``NotAskedError``."""
    if isinstance(answer, Unasked):
        raise NotAskedError(answer)
    return answer


@final
@dataclass(frozen=True, slots=True)
class Names:
    """What this installation of sevkit is called."""

    webhook: str = "sevkit-webhook"
    namespace: str = "sevkit-system"


@final
@dataclass(frozen=True, slots=True)
class Survey:
    """All answers. ``required`` are the tiers without which the cluster is not ready, if any.

    ``kubevirt_mutating`` is KubeVirt's own mutating configuration, ``policies`` are by name,
    ``namespaces`` are those that have our label, with its value.
    """

    now: datetime
    required: frozenset[Tier] = frozenset()
    names: Names = field(default_factory=Names)
    version: Answer[Document | None] = _NOT
    kubevirts: Answer[tuple[Document, ...]] = _NOT
    definition: Answer[Document | None] = _NOT
    mutating: Answer[Document | None] = _NOT
    kubevirt_mutating: Answer[Document | None] = _NOT
    validating: Answer[Document | None] = _NOT
    choices: Answer[Document | None] = _NOT
    service: Answer[Document | None] = _NOT
    slices: Answer[tuple[Document, ...]] = _NOT
    policies: Mapping[str, Answer[Document | None]] = field(default_factory=dict)
    bindings: Answer[tuple[Document, ...]] = _NOT
    nodes: Answer[tuple[NodeClaims, ...]] = _NOT
    namespaces: Answer[Mapping[str, str]] = _NOT
    guests: Answer[Guests] = _NOT
