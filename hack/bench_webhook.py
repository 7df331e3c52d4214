"""What the webhook costs: beside an echo in the same server, and beside one written in Go.

    python -m hack.bench_webhook [--rate 500] [--seconds 3]

Three processes on one core answer the same reviews of 6 KiB over TLS: an echo that parses the
review and answers without a patch, the webhook, and, where Go is, a webhook built on
controller-runtime that makes the same patch (``hack/go-webhook``). They are asked in turn, round by
round, so that what the machine does meanwhile is everybody's; bounds are on ratios. On a machine
that does other work the upper percentiles are that work's: the pauses that it made are told too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, final

import h11

from hack import debian
from hack.bench_agent import Figure
from hack.ports import free_port
from hack.webhook_load import (
    WHOLE,
    ask,
    at_most,
    at_rate,
    keep_apart,
    percentile,
    processor_seconds,
    resident,
)
from hack.webhook_scene import HOST, Identity, Process

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Mapping, Sequence

    from hack.webhook_load import AtRate, Target

#: Bounds: the time of a review and its p99 at a rate, as multiples of the echo's; and the
#: milliseconds of a new connection.
TIME: Final = 1 / 0.8
P99: Final = 1.5
GREETING: Final = 10.0
ECHO, OURS, IN_GO = "echo", "webhook", "in Go"
_ROUNDS: Final = 9
_SILENT: Final = 120
_ANNOTATION: Final = "snp; policy 000000000000; sevkit 0.0.0"


@final
class GoWebhook:
    """``hack/go-webhook`` in a process of its own, on one core like the others."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._identity: Final = Identity()
        pair = self._identity.pair()
        (folder / "tls.crt").write_bytes(pair.certificate)
        (folder / "tls.key").write_bytes(pair.key.reveal())
        self._port: Final = free_port()
        self._process: Final = subprocess.Popen(
            [program, folder, str(self._port), _ANNOTATION],
            env={**os.environ, "GOMAXPROCS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def __enter__(self) -> Self:
        if self._process.stdout is None or not self._process.stdout.readline():
            message = "go-webhook does not serve"
            raise RuntimeError(message)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def connect(self) -> ssl.SSLSocket:
        """Return a TLS connection to it."""
        return self._identity.connect((HOST, self._port))


def go_program() -> Path:
    """Return where ``hack/peers go-webhook`` puts the program."""
    return debian.cache_folder("SEVKIT_PEERS", "peers") / "go-webhook/bin/go-webhook"


@contextlib.contextmanager
def running() -> Iterator[Mapping[str, Target]]:
    """Yield all that are compared, by name, each on the first core."""
    with contextlib.ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(_SIDES)]
        targets: dict[str, Target] = {
            ECHO: stack.enter_context(Process(folders[0], "echo")),
            OURS: stack.enter_context(Process(folders[1], "decide")),
        }
        if go_program().exists():
            targets[IN_GO] = stack.enter_context(GoWebhook(go_program(), folders[2]))
        before = os.sched_getaffinity(0)
        stack.callback(os.sched_setaffinity, 0, before)
        keep_apart(list(targets.values()))
        yield targets


_SIDES: Final = 3


def most(targets: Mapping[str, Target], seconds: float) -> Iterator[Figure]:
    """Yield how many reviews each can answer, and how ours compares with the echo."""
    rates: dict[str, list[float]] = {name: [] for name in targets}
    for _ in range(_ROUNDS):
        for name, target in targets.items():
            rates[name].append(at_most(target, seconds / _ROUNDS))
    for name, found in rates.items():
        yield Figure(f"reviews a second on one core, {name}", statistics.median(found), "/s")
    ratios = [echo / ours for echo, ours in zip(rates[ECHO], rates[OURS], strict=True)]
    yield Figure("a review's time, of the echo's", statistics.median(ratios), "x", TIME)


def latency(targets: Mapping[str, Target], rate: float, seconds: float) -> Iterator[Figure]:
    """Yield what each takes at a rate, and how ours compares with the echo."""
    found: dict[str, list[AtRate]] = {name: [] for name in targets}
    for _ in range(_ROUNDS):
        for name, target in targets.items():
            found[name].append(at_rate(target, rate, seconds / _ROUNDS))
    for name, rounds in found.items():
        for share in (0.5, 0.99):
            said = f"latency at {rate:g}/s, p{share * 100:g}, {name}"
            yield Figure(said, _median(rounds, share) * 1000, "ms")
    pauses = [pause for rounds in found.values() for one in rounds for pause in one.overslept]
    yield Figure("pauses of this machine meanwhile, p99", percentile(pauses, 0.99) * 1000, "ms")
    ratio = _median(found[OURS], 0.99) / _median(found[ECHO], 0.99)
    yield Figure(f"latency at {rate:g}/s, p99, of the echo's", ratio, "x", P99)


def _median(rounds: Sequence[AtRate], share: float) -> float:
    """Return a percentile as it is in most rounds: what else the machine does comes in bursts."""
    return statistics.median(percentile(one.latencies, share) for one in rounds)


def parsed_by_h11() -> float:
    """Return the seconds that h11 alone needs for a request and its answer."""
    count, body = 500, json.dumps({"response": {"allowed": True}}).encode()
    begun = time.process_time()
    for _ in range(count):
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(WHOLE)
        while type(connection.next_event()) is not h11.EndOfMessage:
            pass
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        connection.send(h11.Response(status_code=200, headers=headers))
        connection.send(h11.Data(data=body))
        connection.send(h11.EndOfMessage())
    return (time.process_time() - begun) / count


def costs(target: Target, seconds: float) -> Iterator[Figure]:
    """Yield what a review and a connection cost the webhook."""
    before, rate = processor_seconds(target), at_most(target, seconds)
    each = (processor_seconds(target) - before) / (rate * seconds)
    yield Figure("processor time of a review", each * 1e6, "us")
    yield Figure("of it h11", parsed_by_h11() * 1e6, "us")
    count, begun = 300, time.monotonic()
    for _ in range(count):
        with target.connect() as connection:
            ask(connection)
    each = (time.monotonic() - begun) / count
    yield Figure("a new connection and a review on it", each * 1000, "ms", GREETING)


def figures(rate: float, seconds: float) -> Iterator[Figure]:
    """Yield everything that is measured."""
    with running() as targets:
        for target in targets.values():
            at_most(target, 1)  # what is imported and allocated once
        yield from most(targets, seconds * 2)
        yield from latency(targets, rate, seconds * 5)
        yield from costs(targets[OURS], seconds)
        yield from beside_silence(targets, rate, seconds)
        for name, target in targets.items():
            yield Figure(f"resident memory, {name}", resident(target), "MiB")


def beside_silence(targets: Mapping[str, Target], rate: float, seconds: float) -> Iterator[Figure]:
    """Yield what the webhook takes while strangers hold connections and say nothing."""
    target = targets[OURS]
    if not isinstance(target, Process):
        return
    silent = [socket.create_connection((HOST, target.port)) for _ in range(_SILENT)]
    seen = at_rate(target, rate, seconds)
    name = f"latency beside {_SILENT} silent connections, p99"
    yield Figure(name, percentile(seen.latencies, 0.99) * 1000, "ms")
    for one in silent:
        with contextlib.suppress(OSError):
            one.close()


def measure() -> Iterator[Figure]:
    """Yield what ``make bench`` tells."""
    yield from figures(500.0, 3.0)


def main() -> int:
    """Print every figure; 1 if a bound is broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    broken = False
    for figure in figures(options.rate, options.seconds):
        print(figure.line(), flush=True)
        broken |= not figure.kept
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
