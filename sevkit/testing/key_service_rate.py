"""How often the simulated key service answers before it says 429, as AMD's does.

AMD's service was seen to give one answer in about ten seconds to the same request, and to name the
seconds to wait in Retry-After, but not always. The window slides: a request that was refused does
not count, so whoever waits as long as he was told is answered.
"""

from __future__ import annotations

import math
import threading
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


@final
@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most ``requests`` answers within any ``seconds``.

    ``per_target`` counts every address for itself, as AMD's service does; else all together.
    ``retry_after`` says whether a refusal names the seconds to wait. Raises ``UsageError`` for a
    limit under which nothing would ever be answered, or that is none.
    """

    requests: int
    seconds: float
    per_target: bool = True
    retry_after: bool = True

    def __post_init__(self) -> None:
        if self.requests < 1 or not 0 < self.seconds < math.inf:
            raise UsageError(f"{self.requests} requests in {self.seconds} s are no rate limit")


@final
class RateLimiter:
    """Counts the answers of one service. ``monotonic`` is its clock, in seconds. Thread-safe."""

    def __init__(self, limit: RateLimit, monotonic: Callable[[], float]) -> None:
        self.limit: Final = limit
        self._monotonic: Final = monotonic
        self._lock: Final = threading.Lock()
        self._answered: Final[defaultdict[str, deque[float]]] = defaultdict(deque)

    def admit(self, target: str) -> int:
        """Return 0 if a request for ``target`` may be answered, else the whole seconds to wait."""
        with self._lock:
            now = self._monotonic()
            answered = self._answered[target if self.limit.per_target else ""]
            while answered and answered[0] + self.limit.seconds <= now:
                answered.popleft()
            if len(answered) < self.limit.requests:
                answered.append(now)
                return 0
            return max(1, math.ceil(answered[0] + self.limit.seconds - now))
