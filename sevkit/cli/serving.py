"""How a command that serves ends: SIGTERM is its ordinary end, an interrupt is an interrupt."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Final, final

from sevkit.cli.values import StrictType
from sevkit.observe.listening import parse_address

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

#: Seconds between looks, so that an interrupt that came just before the wait is not lost.
_STEP: Final = 0.2


@final
class ListenAddress(StrictType[tuple[str, int]]):
    """``HOST:PORT`` to listen on; port 0 takes a free one: (host, port)."""

    name = "HOST:PORT"

    def read(self, text: str) -> tuple[str, int]:
        """Return (host, port)."""
        return parse_address(text)


@contextlib.contextmanager
def until_terminated() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM sets; what handled it before does so again afterwards."""
    ended = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        ended.set()

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield ended
    finally:
        signal.signal(signal.SIGTERM, before)


def wait(ended: threading.Event) -> None:
    """Return when ``ended`` is set; an interrupt gets through."""
    while not ended.wait(_STEP):
        pass
