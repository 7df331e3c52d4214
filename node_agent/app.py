"""Put the agent together and run it: settings in, an exit code out."""

from __future__ import annotations

import contextlib
import logging
import random
import sys
import time
from typing import TYPE_CHECKING, Final

from node_agent.agent import Agent
from node_agent.kubelet import KubeletSocket
from node_agent.nfd_sink import NfdSink
from node_agent.observer import Counted, Gauges, Watcher
from node_agent.settings import parse_settings
from node_agent.signals import Stopped
from node_agent.sink import DryRun, StdoutSink
from node_agent.steadiness import Steadiness
from sevkit.errors import InternalError, SevkitError, UndecidedError
from sevkit.host.capabilities import decide
from sevkit.host.probe import probe_host
from sevkit.host.sources import open_host
from sevkit.observe.log import log_as_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from node_agent.settings import Settings
    from node_agent.signals import Signals
    from node_agent.sink import Sink
    from sevkit.host.capability import Capabilities
    from sevkit.host.source import HostSource

_LOG: Final = logging.getLogger("sevkit.node_agent")
#: The shortest sleep: whatever is due, the loop does not spin.
_REST: Final = 0.05


def main(arguments: Sequence[str], environ: Mapping[str, str], signals: Signals) -> int:
    """Run the agent until it is done or asked to stop. Raises ``SystemExit`` for ``--help``."""
    log_as_json(sys.stderr)
    try:
        settings = parse_settings(arguments, environ)
        logging.getLogger().setLevel(settings.log_level.upper())
        with contextlib.ExitStack() as stack:
            _run(settings, environ, signals, stack)
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
    signals: Signals,
    stack: contextlib.ExitStack,
) -> None:
    _check_host(settings)
    watcher = Watcher("would publish" if settings.dry_run else "published")
    gauges = _serve(settings, watcher, stack)
    agent = Agent(
        _timed(_probe(settings), gauges),
        _sink(settings, environ, gauges, stack),
        watcher,
        random=random.SystemRandom(),
        rhythm=settings.rhythm,
        is_kubelet_new=KubeletSocket(settings.device_plugins).is_new,
    )
    if settings.once:
        try:
            agent.publish_once()
        except Stopped as stop:
            raise UndecidedError("stopped before it was done") from stop
        return
    _loop(agent, watcher, signals)


def _serve(settings: Settings, watcher: Watcher, stack: contextlib.ExitStack) -> Gauges | None:
    """Serve metrics and health, where that is asked for."""
    if settings.listen is None:
        return None
    from sevkit.observe.metrics import Metrics  # noqa: PLC0415  # memory that --once does not pay
    from sevkit.observe.server import HealthServer  # noqa: PLC0415  # as above

    metrics = Metrics()
    watcher.gauges = Gauges(metrics)
    server = HealthServer(
        settings.listen, metrics=metrics.exposition, live=watcher.live, ready=watcher.ready
    )
    stack.enter_context(server)
    return watcher.gauges


def _loop(agent: Agent, watcher: Watcher, signals: Signals) -> None:
    while not signals.stopping:
        if signals.take_hup():
            agent.hurry()
        due = agent.step(time.monotonic())
        watcher.beat()
        signals.wait(max(due - time.monotonic(), _REST))
    _LOG.info("stopped as asked; what is published stays")


def _check_host(settings: Settings) -> None:
    """Refuse folders that are none at the start; later their absence is a probe that failed."""
    with _open_host(settings):
        pass


def _open_host(settings: Settings) -> AbstractContextManager[HostSource]:
    return open_host(
        settings.host_root, sys=settings.host_sys, firmware_file=settings.firmware_facts
    )


def _probe(settings: Settings) -> Callable[[], Capabilities]:
    steadiness = Steadiness()

    def probe() -> Capabilities:
        # Opened anew each time: what is mounted there may be another one by then.
        with _open_host(settings) as source:
            facts = steadiness.settle(probe_host(source))
        return decide(facts, allow_sev_es_beside_snp=settings.sev_es_beside_snp)

    return probe


def _timed(probe: Callable[[], Capabilities], gauges: Gauges | None) -> Callable[[], Capabilities]:
    if gauges is None:
        return probe

    def timed() -> Capabilities:
        start = time.monotonic()
        try:
            return probe()
        finally:
            gauges.probe_seconds.observe(time.monotonic() - start)

    return timed


def _sink(
    settings: Settings,
    environ: Mapping[str, str],
    gauges: Gauges | None,
    stack: contextlib.ExitStack,
) -> Sink:
    printer = StdoutSink(sys.stdout, indent=2 if settings.once else None)
    if settings.sink == "stdout":
        return printer
    if settings.sink == "nfd":
        sink: Sink = NfdSink(settings.nfd_file)
    else:
        from node_agent.kubernetes_sink import KubernetesSink  # noqa: PLC0415  # only for a cluster
        from sevkit.cluster.connection import Connection  # noqa: PLC0415  # 40 MiB
        from sevkit.cluster.pod_access import component_access  # noqa: PLC0415  # as above

        access = component_access(settings.kubeconfig, settings.context, environ)
        connection = stack.enter_context(Connection(access))
        server = connection if gauges is None else Counted(connection, gauges)
        sink = KubernetesSink(server, settings.node_name, instance=settings.pod_name)
    return DryRun(sink, printer) if settings.dry_run else sink
