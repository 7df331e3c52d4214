"""Patience with what can no longer be read: a glitch of one probe is not news. Pure.

What is read is believed at once, whatever it says, and so is that a secure processor was given up,
which no glitch looks like. A source that was read before and cannot be read now keeps its last
value for ``PATIENCE`` probes in a row, so that one which fails now and then does not make a Node's
annotation go back and forth.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from sevkit.host.reading import Cause, Known, Unreadable

if TYPE_CHECKING:
    from sevkit.host.facts import HostFacts

#: The probe, counted from the first that fails, whose "cannot be read" is believed.
PATIENCE: Final = 3
_T = TypeVar("_T")


@final
class Steadiness:
    """Remembers each source's last word, and since how many probes there is none."""

    def __init__(self) -> None:
        self._last: Final[dict[str, Known[Any] | Unreadable]] = {}
        self._missed: Final[dict[str, int]] = {}

    def settle(self, facts: HostFacts) -> HostFacts:
        """Return ``facts`` with the last values of sources for which patience has not ended."""
        return self._settled(facts, "")

    def _settled(self, value: _T, place: str) -> _T:
        """Return a group of readings with each of them settled."""
        if not is_dataclass(value) or isinstance(value, type):
            return value
        changed = {}
        for field in fields(value):
            found, name = getattr(value, field.name), f"{place}.{field.name}"
            settled = (
                self._reading(found, name)
                if isinstance(found, Known | Unreadable)
                else self._settled(found, name)
            )
            if settled is not found:
                changed[field.name] = settled
        return replace(value, **changed) if changed else value

    def _reading(self, found: Known[Any] | Unreadable, name: str) -> Known[Any] | Unreadable:
        if isinstance(found, Known) or found.cause is Cause.SILENT:
            self._missed.pop(name, None)
            self._last[name] = found
            return found
        missed = self._missed[name] = self._missed.get(name, 0) + 1
        return self._last.get(name, found) if missed < PATIENCE else found
