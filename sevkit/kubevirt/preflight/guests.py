"""Which VMIs have less launch security than their namespace or they themselves ask for. Pure.

A label that was set after a VMI had started changes nothing for it: neither the webhook nor the
policies look at what runs. A namespace's unknown value is taken for ``best``, the least.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.kubevirt.json_patch import member
from sevkit.kubevirt.tiers import BEST, LABEL, Tier, tier_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sevkit.documents import Json

#: A tuple, because a phase that is no text may not be hashable.
_ENDED: Final = ("Succeeded", "Failed")
_NOTHING: Final = "nothing"


@final
@dataclass(frozen=True, slots=True)
class WeakGuest:
    """A VMI with less than is required: a tier or ``best``, and a tier or ``nothing``."""

    namespace: str
    name: str
    required: str
    has: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name} ({self.has}, not {self.required})"


@final
@dataclass(frozen=True, slots=True)
class Guests:
    """All VMIs that have not ended: how many something is required of, and those that lack it."""

    count: int
    weak: tuple[WeakGuest, ...]


def judge_guest(vmi: Mapping[str, Json], namespaces: Mapping[str, str]) -> WeakGuest | bool:
    """Return what a VMI lacks, True if it has all that is required, False if nothing is.

    ``namespaces`` are the values of our label by namespace. Raises ``FormatError``.
    """
    namespace = str(member(vmi, "metadata", "namespace") or "")
    own = member(vmi, "metadata", "labels", LABEL)
    asked = [value for value in (namespaces.get(namespace), own) if isinstance(value, str)]
    if not asked or member(vmi, "status", "phase") in _ENDED:
        return False
    required = max(asked, key=_strength)
    has = tier_of(member(vmi, "spec", "domain", "launchSecurity"))
    if has is not None and has.strength >= _strength(required):
        return True
    name = str(member(vmi, "metadata", "name") or "")
    word = required if required in frozenset(Tier) else BEST
    return WeakGuest(namespace, name, word, _NOTHING if has is None else has.value)


def _strength(value: str) -> int:
    return Tier(value).strength if value in frozenset(Tier) else 0
