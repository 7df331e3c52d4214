"""How long a guest waits for a host that throttles it: twice as long each time, within a bound.

Linux' own driver waits 2 s between its attempts; a host that counts requests forgives soon.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Callable

_FIRST: Final = 1.0
_LONGEST: Final = 8.0


@final
class Patience:
    """``seconds`` of waiting, counted from the first ``wait``."""

    def __init__(
        self,
        seconds: float,
        *,
        sleep: Callable[[float], object] = time.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.seconds: Final = seconds
        self._sleep: Final = sleep
        self._now: Final = now
        self._until: float | None = None
        self._delay = _FIRST
        #: Whether anything was waited for.
        self.tried = False

    def wait(self) -> bool:
        """Wait before another attempt; return False, at once, if the next would be too late."""
        self.tried = True
        now = self._now()
        if self._until is None:
            self._until = now + self.seconds
        if now + self._delay > self._until:
            return False
        self._sleep(self._delay)
        self._delay = min(2 * self._delay, _LONGEST)
        return True
