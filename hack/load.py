"""Work spread over threads, for the soak tests, and a line on how fast it went."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar, final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: Seconds that nothing may take at full size, on two slow cores.
LIMIT: Final = 200.0
_T = TypeVar("_T")
_R = TypeVar("_R")


@final
class Load:
    """Does the same thing to many, with several threads, and says how long that took."""

    def __init__(self, say: Callable[[str, object], None]) -> None:
        self._say: Final = say

    def run(
        self,
        what: str,
        threads: int,
        do: Callable[[_T], _R],
        rows: Iterable[_T],
        *,
        limit: float = LIMIT,
    ) -> list[_R]:
        """Return what ``do`` returned for each row, in order; the first error ends it.

        Raises ``TimeoutError`` where it took more than ``limit`` seconds.
        """
        started = time.monotonic()
        with ThreadPoolExecutor(threads) as pool:
            done = list(pool.map(do, rows))
        seconds = time.monotonic() - started
        if seconds > limit:
            message = f"{len(done)} {what} took {seconds:.0f} s, more than {limit:g}"
            raise TimeoutError(message)
        rate = len(done) / seconds
        self._say("said", f"{len(done)} {what}: {seconds:.1f} s, {rate:.0f}/s, {threads} threads")
        return done
