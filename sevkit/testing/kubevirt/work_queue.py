"""A queue of keys, as Kubernetes' controllers have one: each key is worked on by one at a time.

A key that is added while it is worked on comes again when that is over; a key that waits is not
added twice. Keys may be due later, by a clock that the caller gives.
"""

from __future__ import annotations

import heapq
import threading
from collections import deque
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.testing.kubevirt.instances import Key

#: Longest time between two looks at the clock, which need not be the machine's.
_POLL: Final = 0.02


@final
class WorkQueue:
    """Keys to look at; safe for any number of threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock: Final = clock
        self._changed: Final = threading.Condition()
        self._ready: Final[deque[Key]] = deque()
        self._busy: Final[set[Key]] = set()
        self._again: Final[set[Key]] = set()
        self._later: Final[list[tuple[float, Key]]] = []
        self._closed = False

    def add(self, key: Key) -> None:
        """Have ``key`` looked at."""
        with self._changed:
            self._add(key)

    def add_at(self, key: Key, time: float) -> None:
        """Have ``key`` looked at when the clock shows ``time`` seconds."""
        with self._changed:
            heapq.heappush(self._later, (time, key))
            self._changed.notify()

    def take(self) -> Key | None:
        """Wait for a key and return it; None when the queue is closed."""
        with self._changed:
            while not self._closed:
                while self._later and self._later[0][0] <= self._clock():
                    self._add(heapq.heappop(self._later)[1])
                if self._ready:
                    key = self._ready.popleft()
                    self._busy.add(key)
                    return key
                self._changed.wait(_POLL if self._later else None)
            return None

    def done(self, key: Key) -> None:
        """Say that the work on a key that was taken is over."""
        with self._changed:
            self._busy.discard(key)
            if key in self._again:
                self._again.discard(key)
                self._add(key)

    def close(self) -> None:
        """Let everybody who waits go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _add(self, key: Key) -> None:
        if key in self._busy:
            self._again.add(key)
        elif key not in self._ready:
            self._ready.append(key)
            self._changed.notify()
