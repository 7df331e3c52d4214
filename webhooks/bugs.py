"""Bugs of our own, told once each by where they are, and not by what was said.

What an exception says may be what a tenant wrote, and an event loop may meet the same bug ten
thousand times a second. So a line in the log names the exception's type and its place alone.
"""

from __future__ import annotations

import logging
import traceback
from typing import Final, final

_LOG: Final = logging.getLogger("sevkit.webhooks.bugs")
#: How many different bugs are told of.
_MOST: Final = 100


@final
class Bugs:
    """Those that were told of already. For one thread."""

    def __init__(self) -> None:
        self._told: Final[set[str]] = set()

    def tell(self, error: BaseException) -> None:
        """Log where a bug is, the first time."""
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "an unknown place"
        self.tell_of(f"{type(error).__name__} at {place}")

    def tell_of(self, where: str) -> None:
        """Log ``where``, which no stranger has written, the first time."""
        if where not in self._told and len(self._told) < _MOST:
            self._told.add(where)
            _LOG.error("internal error, a bug", extra={"where": where})
