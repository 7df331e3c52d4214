"""Something that is done again and again in a thread of its own, and that a bug does not end."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final, Self, final

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

REST_SECONDS: Final = 60.0
#: How long ``stop`` waits for the thread.
STOP_SECONDS: Final = 1.0
_LOG: Final = logging.getLogger("sevkit.webhooks.background")


def nothing() -> None:
    """End no wait: for what never waits long."""


@final
class Background:
    """Calls ``step`` from ``start`` to ``stop``; it returns the seconds until the next time.

    ``interrupt`` ends, from another thread and for ever, what a step may be waiting for; ``rest``
    is how long it rests after a bug, in seconds. As a context manager it starts and stops.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], float],
        *,
        interrupt: Callable[[], None] = nothing,
        rest: float = REST_SECONDS,
    ) -> None:
        self._name: Final = name
        self._step: Final = step
        self._interrupt: Final = interrupt
        self._rest: Final = rest
        self._stopping: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                seconds = self._step()
            except Exception as error:  # noqa: BLE001  # a bug must not end the thread unseen
                _LOG.critical("internal error, a bug", exc_info=error, extra={"what": self._name})
                seconds = self._rest
            self._stopping.wait(seconds)

    def start(self) -> None:
        """Begin; once."""
        self._thread.start()

    def stop(self) -> bool:
        """End it, for ever; return whether it has ended within a second."""
        self._stopping.set()
        self._interrupt()
        if self._thread.ident is not None:
            self._thread.join(STOP_SECONDS)
        return not self._thread.is_alive()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
