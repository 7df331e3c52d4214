"""What the webhook's server alone can do: requests a second, latency at a rate, and what they cost.

    python -m hack.bench_webhook [--rate 500] [--seconds 5]

The server runs in a process of its own with the echo of ``hack.webhook_scene``, which reads a
review of 8 KiB and admits it without a patch; whoever decides for real can be held against that.
Latency is counted from when a request was due, not from when it could be sent, so that a pause
of the server shows in every request that it held up. Both sides want a core of their own: on a
machine that does other work the upper percentiles are that work's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import h11

from hack.bench_agent import Figure
from hack.webhook_scene import HOST, PATH, REVIEW, Process, echo, head
from webhooks.exchange import Request

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

#: Bounds: requests a second at most, milliseconds at a rate, milliseconds of a new connection.
RATE: Final = 1000.0
P99: Final = 10.0
GREETING: Final = 10.0
CONNECTIONS: Final = 8
_WHOLE: Final = head(len(REVIEW)) + REVIEW
_SILENT: Final = 120
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def ask(connection: ssl.SSLSocket) -> None:
    """Send one review and read its answer, with as little as can be."""
    connection.sendall(_WHOLE)
    data = connection.recv(1 << 16)
    start = data.index(b"content-length: ") + 16
    length = int(data[start : data.index(b"\r\n", start)])
    missing = data.index(b"\r\n\r\n") + 4 + length - len(data)
    while missing > 0:
        missing -= len(connection.recv(1 << 16))
    if not data.startswith(b"HTTP/1.1 200"):
        message = f"the server answers {data[:40]!r}"
        raise RuntimeError(message)


def processor_seconds(pid: int) -> float:
    """Return what a process has used of a processor."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def at_rate(process: Process, rate: float, seconds: float) -> tuple[list[float], list[float]]:
    """Return the latency of each request when ``rate`` are due in a second, sorted.

    And by how much each of our own sleeps lasted too long meanwhile, which is the machine's doing.
    """
    latencies: list[float] = []
    overslept: list[float] = []
    begun = 0.0
    total = int(rate * seconds)

    def begin() -> None:
        nonlocal begun
        begun = time.monotonic()

    connected = threading.Barrier(CONNECTIONS, begin)

    def work(number: int) -> None:
        with process.identity.connect((HOST, process.port)) as connection:
            connected.wait()
            for index in range(number, total, CONNECTIONS):
                due = begun + index / rate
                if (wait := due - time.monotonic()) > 0:
                    time.sleep(wait)
                    overslept.append(time.monotonic() - due)
                    due += overslept[-1]
                ask(connection)
                latencies.append(time.monotonic() - due)

    _together(work)
    return sorted(latencies), sorted(overslept)


def at_most(process: Process, seconds: float) -> float:
    """Return the requests a second that come back as fast as they can."""
    counts = [0] * CONNECTIONS
    end = time.monotonic() + seconds

    def work(number: int) -> None:
        with process.identity.connect((HOST, process.port)) as connection:
            while time.monotonic() < end:
                ask(connection)
                counts[number] += 1

    _together(work)
    return sum(counts) / seconds


def _together(work: object) -> None:
    threads = [
        threading.Thread(target=work, args=(number,))  # type: ignore[arg-type]  # callable
        for number in range(CONNECTIONS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def parsed_by_h11() -> float:
    """Return the seconds that h11 alone needs for a request and its answer."""
    count, body = 500, json.dumps({"response": {"allowed": True}}).encode()
    begun = time.process_time()
    for _ in range(count):
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(_WHOLE)
        while type(connection.next_event()) is not h11.EndOfMessage:
            pass
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        connection.send(h11.Response(status_code=200, headers=headers))
        connection.send(h11.Data(data=body))
        connection.send(h11.EndOfMessage())
    return (time.process_time() - begun) / count


def figures(rate: float, seconds: float) -> Iterator[Figure]:
    """Yield everything that is measured."""
    with tempfile.TemporaryDirectory() as folder, Process(Path(folder)) as process:
        at_most(process, 1)  # what is imported and allocated once
        before = processor_seconds(process.pid)
        most = at_most(process, seconds)
        each = (processor_seconds(process.pid) - before) / (most * seconds)
        yield Figure(f"requests a second, {CONNECTIONS} connections, at least {RATE:g}", most, "/s")
        yield Figure("processor time of a request", each * 1e6, "us", 1e6 / RATE)
        request = Request(PATH, REVIEW)
        begun = time.process_time()
        for _ in range(500):
            echo(request)
        yield Figure("of it the echo", (time.process_time() - begun) / 500 * 1e6, "us")
        yield Figure("of it h11", parsed_by_h11() * 1e6, "us")
        latencies, overslept = at_rate(process, rate, seconds)
        for share in (0.5, 0.99, 0.999):
            value = latencies[int(len(latencies) * share)] * 1000
            name = f"latency at {rate:g}/s, p{share * 100:g}"
            yield Figure(name, value, "ms", P99 if share == 0.99 else None)
        pause = overslept[int(len(overslept) * 0.99)] * 1000
        yield Figure("pauses of this machine meanwhile, p99", pause, "ms")
        before, count = processor_seconds(process.pid), 300
        begun = time.monotonic()
        for _ in range(count):
            with process.identity.connect((HOST, process.port)) as connection:
                ask(connection)
        each = (time.monotonic() - begun) / count
        yield Figure("a new connection and a request on it", each * 1000, "ms", GREETING)
        each = (processor_seconds(process.pid) - before) / count
        yield Figure("processor time of that", each * 1e6, "us")
        silent = [socket.create_connection((HOST, process.port)) for _ in range(_SILENT)]
        latencies, _ = at_rate(process, rate, min(seconds, 2))
        yield Figure(
            f"latency at {rate:g}/s beside {_SILENT} silent connections, p99",
            latencies[int(len(latencies) * 0.99)] * 1000,
            "ms",
            P99,
        )
        for one in silent:
            with contextlib.suppress(OSError):
                one.close()
        yield Figure("resident memory", process.rss(), "MiB")


def main() -> int:
    """Print every figure; 1 if a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    broken = False
    for figure in figures(options.rate, options.seconds):
        print(figure.line(), flush=True)
        broken |= not figure.kept
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
