"""Reviews sent to a webhook as fast as they come back, or at a rate, and what comes of it.

A target is one process on one core; whoever sends has the other cores. Latency is counted from
when a request was due, not from when it could be sent, so that a pause of the server shows in
every request that it held up.
"""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, final

from hack.webhook_scene import PATIENCE, REVIEW, head

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

CONNECTIONS: Final = 8
WHOLE: Final = head(len(REVIEW)) + REVIEW
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class Target(Protocol):
    """A webhook in a process of its own."""

    @property
    def pid(self) -> int:
        """Its process id."""

    def connect(self) -> ssl.SSLSocket:
        """Return a TLS connection to it."""


@final
@dataclass(frozen=True)
class AtRate:
    """Latencies of all requests in seconds, and by how much our own sleeps were too long."""

    latencies: Sequence[float]
    overslept: Sequence[float]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that ``share`` of all are at most, 0 for none."""
    return sorted(values)[int(len(values) * share)] if values else 0.0


def keep_apart(targets: Sequence[Target]) -> None:
    """Put every target, with all of its threads, on the first core, and us on the others.

    Does nothing on a machine with one core.
    """
    first, *others = sorted(os.sched_getaffinity(0))
    if not others:
        return
    os.sched_setaffinity(0, others)
    for target in targets:
        for thread in Path(f"/proc/{target.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {first})


def ask(connection: ssl.SSLSocket) -> None:
    """Send one review and read its answer, with as little as can be."""
    connection.sendall(WHOLE)
    data = connection.recv(1 << 16)
    while b"\r\n\r\n" not in data:
        data += _some(connection)
    start = data.lower().index(b"content-length: ") + 16
    length = int(data[start : data.index(b"\r\n", start)])
    missing = data.index(b"\r\n\r\n") + 4 + length - len(data)
    while missing > 0:
        missing -= len(_some(connection))
    if not data.startswith(b"HTTP/1.1 200"):
        message = f"the server answers {data[:40]!r}"
        raise RuntimeError(message)


def _some(connection: ssl.SSLSocket) -> bytes:
    data = connection.recv(1 << 16)
    if not data:
        message = "the server hangs up"
        raise RuntimeError(message)
    return data


def processor_seconds(target: Target) -> float:
    """Return what a process has used of a processor."""
    fields = Path(f"/proc/{target.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident(target: Target) -> float:
    """Return a process' resident memory in MiB."""
    pages = int(Path(f"/proc/{target.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / (1 << 20)


def at_rate(target: Target, rate: float, seconds: float) -> AtRate:
    """Return what happens when ``rate`` requests are due in a second."""
    latencies: list[float] = []
    overslept: list[float] = []
    begun = 0.0

    def begin() -> None:
        nonlocal begun
        begun = time.monotonic()

    connected = threading.Barrier(CONNECTIONS, begin, timeout=PATIENCE)

    def work(number: int) -> None:
        with target.connect() as connection:
            connected.wait()
            for index in range(number, int(rate * seconds), CONNECTIONS):
                due = begun + index / rate
                if (wait := due - time.monotonic()) > 0:
                    time.sleep(wait)
                    overslept.append(time.monotonic() - due)
                    due += overslept[-1]
                ask(connection)
                latencies.append(time.monotonic() - due)

    _together(work)
    return AtRate(latencies, overslept)


def at_most(target: Target, seconds: float) -> float:
    """Return the requests a second that come back as fast as they can."""
    counts = [0] * CONNECTIONS
    end = time.monotonic() + seconds

    def work(number: int) -> None:
        with target.connect() as connection:
            while time.monotonic() < end:
                ask(connection)
                counts[number] += 1

    _together(work)
    return sum(counts) / seconds


def _together(work: Callable[[int], None]) -> None:
    """Run ``work`` for each connection at once; raises what any of them raises."""
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for done in [pool.submit(work, number) for number in range(CONNECTIONS)]:
            done.result()
