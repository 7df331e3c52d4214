"""Put the webhook together and run it: settings in, an exit code out.

Some threads beside the server's: one looks at files, those of the caches watch the cluster, one
serves metrics and health; where the certificate is of our own making one keeps it, and one tells
people of the policy file. None of them is waited for by a review.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from random import SystemRandom
from typing import TYPE_CHECKING, Final, final

from sevkit.cluster.connection import Connection
from sevkit.cluster.events import Speaker, Teller
from sevkit.cluster.kinds import MUTATING, VALIDATING
from sevkit.cluster.pod_access import component_access
from sevkit.errors import InternalError, SevkitError
from sevkit.kubevirt.webhook_paths import PATHS
from sevkit.observe.log import log_as_json
from sevkit.observe.metrics import Metrics
from sevkit.observe.server import HealthServer
from webhooks.background import Background, nothing
from webhooks.caches import Caches
from webhooks.custody import ClusterBundles, ClusterSecret, Custodian
from webhooks.gauges import Gauges
from webhooks.keeper import Keeper
from webhooks.news import CONTROLLER, PolicyNews, policy_event
from webhooks.policy_file import PolicyFile
from webhooks.reviews import Reviewer
from webhooks.server import Server
from webhooks.settings import parse_settings
from webhooks.tls import Certificates, FolderPairs

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping, Sequence

    from sevkit.cluster.access import Access
    from sevkit.cluster.events import Event
    from webhooks.exchange import Outcome
    from webhooks.settings import SelfManaged, Settings

_LOG: Final = logging.getLogger("sevkit.webhook")
#: How often files are looked at: the kubelet takes a minute to change them.
FILES_SECONDS: Final = 2.0
#: How long an API server may take for an Event.
EVENT_SECONDS: Final = 10.0


def main(arguments: Sequence[str], environ: Mapping[str, str], stop: threading.Event) -> int:
    """Serve until ``stop`` is set. Raises ``SystemExit`` for ``--help``."""
    log_as_json(sys.stderr)
    try:
        settings = parse_settings(arguments, environ)
        logging.getLogger().setLevel(settings.log_level.upper())
        with contextlib.ExitStack() as stack:
            access = component_access(settings.kubeconfig, settings.context, environ)
            _run(settings, access, stop, stack)
    except SevkitError as error:
        _LOG.critical("cannot go on", exc_info=error)
        return error.exit_code
    except Exception as error:  # noqa: BLE001  # the last place: a bug has a code of its own
        _LOG.critical("internal error, a bug", exc_info=error)
        return InternalError.exit_code
    return 0


def _run(
    settings: Settings, access: Access, stop: threading.Event, stack: contextlib.ExitStack
) -> None:
    metrics = Metrics()
    gauges = Gauges(metrics)
    said = CertificateNews(gauges)
    policy = _policy(settings, access, stack)
    if settings.self_managed is None:
        certificates = Certificates(FolderPairs(settings.tls_folder), told=said.served)
        certificates.poll()
        poll = certificates.poll
    else:
        certificates, poll = _kept(settings.self_managed, access, said, stack), nothing
    caches = stack.enter_context(Caches(stack.enter_context(Connection(access)), tally=gauges))
    server = Server(
        Reviewer(lambda: policy.policy, caches, gauges),
        lambda: certificates.current,
        settings.listen,
        paths=PATHS,
        count=lambda outcome: _count(gauges, outcome),
    )

    def wrong() -> Sequence[str]:
        told = [] if server.is_accepting else ["server does not accept"]
        told += [] if certificates.current else [f"no certificate yet{said.problem}"]
        # Once it was: what is only not known now refuses best, and nobody else.
        return [*told, *(() if caches.is_settled else caches.problems())]

    if settings.health is not None:
        stack.enter_context(HealthServer(settings.health, metrics=metrics.exposition, ready=wrong))
    stack.enter_context(server)
    files = Files(policy, certificates, gauges, poll=poll)
    stack.enter_context(Background("files", files.look))
    _LOG.info("serving", extra={"port": server.port})
    server.run(stop)
    _LOG.info("stopped as asked")


def _count(gauges: Gauges, outcome: Outcome) -> None:
    gauges.connections.labels(outcome).inc()


def _policy(settings: Settings, access: Access, stack: contextlib.ExitStack) -> PolicyFile:
    """Return the policy file, of which people are told where the pod is known."""
    pod = settings.pod
    if pod is None or settings.policy is None:
        return PolicyFile(settings.policy)
    connection = stack.enter_context(Connection(access, seconds=EVENT_SECONDS))
    teller = Teller(connection, Speaker(CONTROLLER, pod.name))

    def tell(event: Event) -> None:
        teller.tell(pod, event)

    try:
        policy = PolicyFile(settings.policy)
    except SevkitError as error:
        # Whoever wrote it looks at the pod first, which only says that it is started in vain.
        with contextlib.suppress(SevkitError):
            tell(policy_event(error.message, serves=False))
        raise
    news = PolicyNews(tell, lambda: policy.problem, clock=time.monotonic, random=SystemRandom())
    stack.enter_context(Background("news", news.step, interrupt=connection.interrupt))
    return policy


def _kept(
    asked: SelfManaged, access: Access, said: CertificateNews, stack: contextlib.ExitStack
) -> Certificates:
    """Return certificates of our own making, which are kept from now on."""
    connection = stack.enter_context(Connection(access))
    custodian = Custodian(
        ClusterSecret(connection, asked.namespace, asked.secret),
        ClusterBundles(
            connection, [(MUTATING, asked.configuration), (VALIDATING, asked.configuration)]
        ),
        asked.names,
        terms=asked.terms,
    )
    certificates = Certificates(custodian, told=said.served)
    keeper = Keeper(
        custodian, certificates.offer, asked.terms, told=said.kept, random=SystemRandom()
    )
    stack.enter_context(Background("custody", keeper.step, interrupt=connection.interrupt))
    return certificates


@final
class CertificateNews:
    """What is said of the certificate: in the log, by the metric, and where none is served."""

    def __init__(self, gauges: Gauges) -> None:
        self._gauges: Final = gauges
        self._wrong: Final[dict[str, str]] = {}

    @property
    def problem(self) -> str:
        """What is wrong, after a colon; "" for nothing."""
        return "".join(f": {why}" for why in tuple(self._wrong.values()))

    def served(self, error: SevkitError | None) -> None:
        """Learn that another pair is served, or why it is not."""
        if error is None:
            _LOG.info("certificate is served")
        else:
            _LOG.error("certificate is refused; what was served goes on", exc_info=error)
        self._note("served", error)

    def kept(self, error: SevkitError | None) -> None:
        """Learn that certificates of our own making cannot be kept, or can be again."""
        if error is None:
            _LOG.info("certificates are kept again")
        else:
            _LOG.error("certificates cannot be kept", exc_info=error)
        self._note("kept", error)

    def _note(self, what: str, error: SevkitError | None) -> None:
        if error is None:
            self._wrong.pop(what, None)
        else:
            self._wrong[what] = error.message
        self._gauges.certificate_problem.set(bool(self._wrong))


@final
class Files:
    """The certificate and the policy, looked at again and again.

    ``poll`` looks for another certificate, where that is in files.
    """

    def __init__(
        self,
        policy: PolicyFile,
        certificates: Certificates,
        gauges: Gauges,
        *,
        poll: Callable[[], None],
    ) -> None:
        self._policy: Final = policy
        self._certificates: Final = certificates
        self._gauges: Final = gauges
        self._poll: Final = poll

    def look(self) -> float:
        """Look at both once, and return the seconds until the next time."""
        self._poll()
        left = self._certificates.seconds_left
        if left is not None:
            self._gauges.certificate.set(time.time() + left)
        if self._policy.refresh():
            self._gauges.policy_problem.set(bool(self._policy.problem))
            if self._policy.problem:
                _LOG.error(
                    "policy is refused; the last good one stays in force",
                    extra={"problem": self._policy.problem},
                )
            else:
                _LOG.info("policy is in force", extra={"policy": self._policy.policy.digest})
        return FILES_SECONDS
