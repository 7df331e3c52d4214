"""Put the webhook together and run it: settings in, an exit code out.

Three threads beside the server's: one that looks at files (certificate and policy), one that
serves metrics and health, and those of the caches. None of them is waited for by a review.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from typing import TYPE_CHECKING, Final, final

from sevkit.cluster.access import in_cluster
from sevkit.cluster.connection import Connection
from sevkit.cluster.kubeconfig import read_kubeconfig
from sevkit.errors import InternalError, SevkitError
from sevkit.kubevirt.webhook_paths import PATHS
from sevkit.observe.log import log_as_json
from sevkit.observe.metrics import Metrics
from sevkit.observe.server import HealthServer
from webhooks.caches import Caches
from webhooks.gauges import Gauges
from webhooks.policy_file import PolicyFile
from webhooks.reviews import Reviewer
from webhooks.server import Server
from webhooks.settings import parse_settings
from webhooks.tls import Certificates, FolderPairs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sevkit.cluster.access import Access
    from webhooks.exchange import Outcome
    from webhooks.settings import Settings

_LOG: Final = logging.getLogger("sevkit.webhook")
#: How often files are looked at: the kubelet takes a minute to change them.
FILES_SECONDS: Final = 2.0


def main(arguments: Sequence[str], environ: Mapping[str, str], stop: threading.Event) -> int:
    """Serve until ``stop`` is set. Raises ``SystemExit`` for ``--help``."""
    log_as_json(sys.stderr)
    # What uvicorn says of ill-formed requests is what strangers make it say; they are counted.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    try:
        settings = parse_settings(arguments, environ)
        logging.getLogger().setLevel(settings.log_level.upper())
        with contextlib.ExitStack() as stack:
            _run(settings, environ, stop, stack)
    except SevkitError as error:
        _LOG.critical("cannot go on", exc_info=error)
        return error.exit_code
    except Exception as error:  # noqa: BLE001  # the last place: a bug has a code of its own
        _LOG.critical("internal error, a bug", exc_info=error)
        return InternalError.exit_code
    return 0


def _run(
    settings: Settings,
    environ: Mapping[str, str],
    stop: threading.Event,
    stack: contextlib.ExitStack,
) -> None:
    metrics = Metrics()
    gauges = Gauges(metrics)
    files = Files(settings, gauges)
    connection = stack.enter_context(Connection(_access(settings, environ)))
    caches = stack.enter_context(Caches(connection, tally=gauges))
    server = Server(
        Reviewer(lambda: files.policy.policy, caches, gauges),
        lambda: files.certificates.current,
        settings.listen,
        paths=PATHS,
        count=lambda outcome: _count(gauges, outcome),
    )

    def wrong() -> Sequence[str]:
        told = [] if server.is_accepting else ["server does not accept"]
        told += [] if files.certificates.current else ["no certificate yet"]
        # Once it was: what is only not known now refuses best, and nobody else.
        return [*told, *(() if caches.is_settled else caches.problems())]

    if settings.health is not None:
        stack.enter_context(HealthServer(settings.health, metrics=metrics.exposition, ready=wrong))
    stack.enter_context(server)
    thread = threading.Thread(target=files.watch, args=(stop,), name="files", daemon=True)
    thread.start()
    _LOG.info("serving", extra={"port": server.port})
    server.run(stop)
    _LOG.info("stopped as asked")


def _count(gauges: Gauges, outcome: Outcome) -> None:
    gauges.connections.labels(outcome).inc()


@final
class Files:
    """The certificate and the policy, looked at again and again."""

    def __init__(self, settings: Settings, gauges: Gauges) -> None:
        self._gauges: Final = gauges
        self.policy: Final = PolicyFile(settings.policy)
        self.certificates: Final = Certificates(FolderPairs(settings.tls_folder), told=self._told)
        self.certificates.poll()

    def watch(self, stop: threading.Event) -> None:
        """Look at both until ``stop`` is set."""
        while not stop.wait(FILES_SECONDS):
            self.look()

    def look(self) -> None:
        """Look at both once."""
        self.certificates.poll()
        left = self.certificates.seconds_left
        if left is not None:
            self._gauges.certificate.set(time.time() + left)
        if self.policy.refresh():
            self._gauges.policy_problem.set(bool(self.policy.problem))
            if self.policy.problem:
                _LOG.error(
                    "policy is refused; the last good one stays in force",
                    extra={"problem": self.policy.problem},
                )
            else:
                _LOG.info("policy is in force", extra={"policy": self.policy.policy.digest})

    def _told(self, error: SevkitError | None) -> None:
        self._gauges.certificate_problem.set(error is not None)
        if error is None:
            _LOG.info("certificate is served")
        else:
            _LOG.error("certificate is refused; the one before is served", exc_info=error)


def _access(settings: Settings, environ: Mapping[str, str]) -> Access:
    if settings.kubeconfig is None:
        return in_cluster(environ)
    return read_kubeconfig([settings.kubeconfig], context=settings.context)
