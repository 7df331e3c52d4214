"""Patience with what can no longer be read: a glitch of one probe is not news. Pure.

What was read is believed at once, in both directions. What was read before and is not readable
now keeps its last value for ``PATIENCE`` probes in a row, so that a source which fails now and
then does not make a Node's annotation go back and forth.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Final, final

from sevkit.host.capability import Asids, Capability, State

if TYPE_CHECKING:
    from sevkit.host.capability import Capabilities

#: The probe, counted from the first that fails, whose "not known" is believed.
PATIENCE: Final = 3


@final
class Steadiness:
    """Remembers the last known value of each field, and since how many probes it is not known."""

    def __init__(self, patience: int = PATIENCE) -> None:
        self._patience: Final = patience
        self._last: Capabilities | None = None
        self._missed: Final[dict[str, int]] = {}

    def settle(self, found: Capabilities) -> Capabilities:
        """Return ``found`` with last known values where patience has not ended."""
        last = self._last
        held = {}
        for field in fields(found):
            if not _is_unknown(getattr(found, field.name)):
                self._missed.pop(field.name, None)
                continue
            missed = self._missed[field.name] = self._missed.get(field.name, 0) + 1
            if last is not None and missed < self._patience:
                held[field.name] = getattr(last, field.name)
        self._last = replace(found, **held) if held else found
        return self._last


def _is_unknown(value: object) -> bool:
    if isinstance(value, Capability):
        return value.state is State.UNKNOWN
    if isinstance(value, Asids):
        return value.total is None
    return value is None
