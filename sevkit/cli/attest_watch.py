"""``sevkit attest watch``: every VMI that the owner's file names, led unattended."""

from __future__ import annotations

import json
import logging
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import click

from sevkit.cli.base import Command, settings
from sevkit.cli.cluster_options import cluster_options, connect
from sevkit.cli.files import read_file
from sevkit.cli.owner_options import files_beside
from sevkit.cli.serving import ListenAddress, until_terminated
from sevkit.errors import UsageError
from sevkit.guest_owner.owner import load_owner
from sevkit.guest_owner.owner_file import LIMIT, parse_owner_file
from sevkit.guest_owner.terms import Outcome

if TYPE_CHECKING:
    from sevkit.attest.verdict import Verdict
    from sevkit.guest_owner.watcher import Watcher
    from sevkit.observe.metrics import Metrics

LISTEN: Final = "127.0.0.1:9464"
#: Seconds; a launcher waits for 240 to 360.
_BUCKETS: Final = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 180.0, 240.0, 360.0)


@final
class _Teller:
    """Prints a line for each verdict, and counts; no name of a VMI is a label."""

    def __init__(self, metrics: Metrics) -> None:
        self._lock: Final = threading.Lock()
        name = "sevkit_launches"
        self._ended: Final = metrics.counter(name, "Launches that ended, by outcome", ("outcome",))
        self._under_way: Final = metrics.gauge("sevkit_launches_under_way", "Launches under way")
        self._breaks: Final = metrics.counter("sevkit_watch_breaks", "Watches that broke off")
        self._seconds: Final = metrics.histogram(
            "sevkit_launch_seconds", "Seconds that launches took", buckets=_BUCKETS
        )
        for outcome in Outcome:
            self._ended.labels(outcome.value).inc(0)

    def concluded(self, outcome: Outcome, verdict: Verdict, seconds: float) -> None:
        """Print the verdict as one line of JSON."""
        self._ended.labels(outcome.value).inc()
        self._seconds.observe(seconds)
        with self._lock:
            click.echo(json.dumps(verdict.to_json()))
            sys.stdout.flush()

    def led(self, count: int) -> None:
        """Show how many launches are under way."""
        self._under_way.set(count)

    def paused(self) -> None:
        """Count a watch that broke off."""
        self._breaks.inc()


@click.command(cls=Command, short_help="Attest every VMI of the owner's, unattended.")
@click.option("--owner", required=True, metavar="FILE", help="GuestOwner file with 'vmis'.")
@click.option(
    "--state",
    required=True,
    metavar="DIR",
    help="Where sessions are kept until their launch is over; for one process at a time.",
)
@cluster_options
@click.option(
    "--listen",
    type=ListenAddress(),
    default=LISTEN,
    show_default=True,
    help="Where /metrics, /healthz and /readyz are served, to anybody who can reach it.",
)
def command(owner: str, state: str, listen: tuple[str, int], **given: Any) -> int:  # noqa: ANN401  # the options of cluster_options
    """Lead every VMI that the owner's file names through its launch, as attest vmi does one.

    Runs until SIGTERM. Each verdict is one line of JSON on stdout, log lines in JSON go to stderr.
    Killed at any moment and started again with the same state, it goes on where it was: no session
    is used twice, and no packet but the stored one is sent.

    \b
    Example:
      sevkit attest watch --owner owner.yaml --state ./launches --kubeconfig owner.kubeconfig
    """  # noqa: D301  # \b is click's mark for lines kept as they are
    if state in {"", "-"}:
        raise UsageError("--state needs a folder")
    file = parse_owner_file(read_file(owner, limit=LIMIT))
    if not file.vmis:
        raise UsageError("the owner's file names no VMIs", hint="add vmis to its spec")
    found = load_owner(file, files_beside(owner))
    found.check_release()
    # Costly, and not for --help.
    from sevkit.cluster.launch_endpoints import ClusterEndpoints  # noqa: PLC0415
    from sevkit.guest_owner.session_store import SessionStore  # noqa: PLC0415
    from sevkit.guest_owner.watcher import Watcher  # noqa: PLC0415
    from sevkit.observe.log import log_as_json  # noqa: PLC0415
    from sevkit.observe.metrics import Metrics  # noqa: PLC0415
    from sevkit.observe.server import HealthServer  # noqa: PLC0415

    log_as_json(sys.stderr)
    logging.getLogger("sevkit").setLevel(logging.INFO if settings().verbose else logging.WARNING)
    metrics = Metrics()
    with (
        SessionStore(Path(state)) as store,
        connect(given) as streams,
        connect(given) as calls,
        until_terminated() as ended,
    ):
        endpoints = ClusterEndpoints(calls)
        watcher = Watcher(
            streams,
            endpoints,
            store,
            owner=found,
            selectors=file.vmis,
            observer=_Teller(metrics),
        )
        with HealthServer(listen, metrics=metrics.exposition, ready=watcher.ready) as server:
            logging.getLogger("sevkit.guest_owner").info("watching", extra={"port": server.port})
            _run(watcher, ended)
    return 0


def _run(watcher: Watcher, ended: threading.Event) -> None:
    def stop() -> None:
        ended.wait()
        watcher.stop()

    threading.Thread(target=stop, daemon=True).start()
    watcher.run()
