"""SIGTERM and SIGINT stop, SIGHUP probes at once; sleeping ends with any of them.

The kubelet gives a pod little time, and a request to an API server that hangs takes longer. So a
stop is only noted at first, which lets what is under way come to its end, and after ``GRACE``
seconds it is raised wherever the process is. Nothing is lost by either: what is published stays.
"""

from __future__ import annotations

import os
import select
import signal
from typing import Final, NoReturn, final

GRACE: Final = 0.7


class Stopped(BaseException):
    """The time for an orderly end is over."""


@final
class Signals:
    """The process's signals, from the moment that this is made. Main thread only."""

    def __init__(self) -> None:
        self.stopping = False
        self._hup = False
        self._ear, mouth = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # Python writes a byte here for every signal, so that none is missed before a sleep.
        signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop())
        signal.signal(signal.SIGHUP, lambda *_: self._hurry())
        signal.signal(signal.SIGALRM, lambda *_: self._too_late())

    def wait(self, seconds: float) -> None:
        """Sleep, until a signal comes at the latest."""
        if self.stopping:
            return
        if select.select([self._ear], [], [], max(seconds, 0))[0]:
            os.read(self._ear, 4096)

    def take_hup(self) -> bool:
        """Return whether SIGHUP came since this was asked before."""
        was, self._hup = self._hup, False
        return was

    def _stop(self) -> None:
        self.stopping = True
        signal.setitimer(signal.ITIMER_REAL, GRACE)

    def _hurry(self) -> None:
        self._hup = True

    def _too_late(self) -> NoReturn:
        raise Stopped
