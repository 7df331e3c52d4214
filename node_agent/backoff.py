"""How long to wait: periods that do not march in step, and retries that come ever more rarely.

Thousands of agents start together, and see the API server fail and return together. Whatever they
do at the same moment, each of them does at another one because of what is here. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from random import Random

#: Waits longer than this end doublings: 2 to the power of it is beyond every cap.
_DOUBLINGS = 32


def jittered(seconds: float, random: Random) -> float:
    """Return a time around ``seconds``, by at most a fifth of it more or less."""
    return seconds * random.uniform(0.8, 1.2)


@final
@dataclass(frozen=True, slots=True)
class Backoff:
    """Capped exponential waiting with jitter, in seconds: half of each wait is left to chance."""

    first: float = 2.0
    cap: float = 300.0

    def delay(self, failures: int, random: Random, *, at_least: float = 0.0) -> float:
        """Return how long to wait after ``failures`` in a row, 1 and more.

        ``at_least`` is what the other side asked for; it is kept, and stretched by chance too,
        because everybody who was sent away together would come back together.
        """
        wait = min(self.cap, self.first * 2.0 ** min(failures - 1, _DOUBLINGS))
        return max(wait * random.uniform(0.5, 1), at_least * random.uniform(1, 1.2))
