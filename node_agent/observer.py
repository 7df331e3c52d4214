"""What the agent shows of itself: metrics, health, and log lines. No chip ID is in any of them."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final, final

from sevkit import __version__
from sevkit.cluster.errors import Forbidden, StatusError, Unauthorized
from sevkit.errors import ClusterError, SevkitError
from sevkit.host.capability import Technology

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sevkit.cluster.api import ApiServer, Call
    from sevkit.cluster.errors import Contested
    from sevkit.cluster.events import Event
    from sevkit.documents import Json
    from sevkit.host.capability import Capabilities
    from sevkit.kubevirt.labels import NodeWord
    from sevkit.observe.metrics import Metrics

_LOG: Final = logging.getLogger("sevkit.node_agent")
#: A loop that has not come round for so long does not live; a hanging secure processor, which is
#: the slowest thing that it may wait for, is given up by its driver after 100 seconds.
ALIVE_SECONDS: Final = 300.0
_PREFIX: Final = "sevkit_node"
#: Failures that nobody but a person can mend.
_LOUD: Final = (Forbidden, Unauthorized)


@final
class Gauges:
    """The metrics' names and meanings."""

    def __init__(self, metrics: Metrics) -> None:
        gauge, counter = metrics.gauge, metrics.counter
        self.build = gauge(f"{_PREFIX}_agent_build_info", "The agent's version.", ["version"])
        self.build.labels(__version__).set(1)
        self.capability = gauge(
            f"{_PREFIX}_capability", "1 for what is the case.", ["technology", "state", "reason"]
        )
        self.guests = gauge(f"{_PREFIX}_guests", "Guests this node can run.", ["technology"])
        self.asids = gauge(
            f"{_PREFIX}_asids", "ASIDs there are; encrypted-state is both.", ["technology"]
        )
        self.in_use = gauge(f"{_PREFIX}_asids_in_use", "ASIDs in use.", ["technology"])
        self.firmware = gauge(f"{_PREFIX}_firmware_info", "Firmware's version.", ["version"])
        self.tcb = gauge(f"{_PREFIX}_tcb_svn", "Components of TCBs.", ["tcb", "component"])
        self.simulated = gauge(f"{_PREFIX}_simulated", "1 on simulated or captured hardware.")
        self.probe_seconds = metrics.histogram(f"{_PREFIX}_probe_seconds", "How long probes take.")
        self.probe_failures = counter(f"{_PREFIX}_probe_failures", "Probes that raised.")
        self.contested = gauge(f"{_PREFIX}_contested_keys", "Keys that were left to others.")
        self.published = gauge(f"{_PREFIX}_published_timestamp_seconds", "When last published.")
        self.publish_failures = counter(
            f"{_PREFIX}_publish_failures", "Publications that failed.", ["cause"]
        )
        self.requests = counter(
            f"{_PREFIX}_api_requests", "Requests to the API server.", ["method", "outcome"]
        )
        self.request_seconds = metrics.histogram(
            f"{_PREFIX}_api_request_seconds", "How long requests take.", ["method"]
        )

    def show(self, found: Capabilities) -> None:
        """Show what a probe found; what is not known has no series."""
        of_before = (self.capability, self.guests, self.asids, self.in_use, self.firmware, self.tcb)
        for gauge in of_before:
            gauge.clear()
        for technology in Technology:
            one, asids = found.of(technology), found.asids_of(technology)
            self.capability.labels(technology, one.state, one.reason).set(1)
            self.guests.labels(technology).set(one.guests)
            if asids.total is not None:
                self.asids.labels(technology).set(asids.total)
            if asids.in_use is not None:
                self.in_use.labels(technology).set(asids.in_use)
        if found.encrypted_state.in_use is not None:
            self.in_use.labels("encrypted-state").set(found.encrypted_state.in_use)
        if found.encrypted_state.total is not None:
            self.asids.labels("encrypted-state").set(found.encrypted_state.total)
        for name, tcb in (("current", found.current_tcb), ("reported", found.reported_tcb)):
            for component, svn in (tcb.components if tcb else {}).items():
                self.tcb.labels(name, component).set(svn)
        if found.firmware_version is not None:
            self.firmware.labels(str(found.firmware_version)).set(1)
        self.simulated.set(found.simulated)


@final
class Watcher:
    """The agent's ``Observer``: keeps the gauges, the log, and what health checks ask.

    ``gauges`` stays None where nobody listens; ``word`` is what the log calls publishing.
    """

    def __init__(
        self, word: str = "published", *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.gauges: Gauges | None = None
        self._word: Final = word
        self._clock: Final = clock
        self._beat = clock()
        self._problem = "nothing is published yet"
        self._said = ""

    def beat(self) -> None:
        """Note that the loop came round."""
        self._beat = self._clock()

    def live(self) -> Sequence[str]:
        """Return what is wrong with the loop."""
        silent = self._clock() - self._beat
        return () if silent < ALIVE_SECONDS else (f"loop has not come round for {silent:.0f} s",)

    def ready(self) -> Sequence[str]:
        """Return why the Node does not say what was found, where the agent is to say it.

        Keys that others own are their owners' decision, and no roll-out has to wait for it.
        """
        return (self._problem,) if self._problem else ()

    def probed(self, found: Capabilities) -> None:
        """Show it."""
        if self.gauges is not None:
            self.gauges.show(found)
        self._said = ""

    def probe_failed(self, error: Exception) -> None:
        """Log it, once for each way to fail."""
        if self.gauges is not None:
            self.gauges.probe_failures.inc()
        said = f"{type(error).__name__}: {error}"
        if said != self._said:
            self._said = said
            _LOG.error("probe failed; what was known stays published", exc_info=error)

    def published(self, word: NodeWord, contested: Sequence[Contested]) -> None:
        """Log it, with what was left to others."""
        self._problem = ""
        if self.gauges is not None:
            self.gauges.published.set(time.time())
            self.gauges.contested.set(len(contested))
        _LOG.info(self._word, extra={"labels": dict(word.labels), "capacity": dict(word.capacity)})
        for one in contested:
            _LOG.warning(
                "left to another field manager", extra={"field": one.field, "manager": one.manager}
            )

    def happened(self, event: Event) -> None:
        """Log it."""
        level = logging.WARNING if event.kind == "Warning" else logging.INFO
        _LOG.log(level, event.note, extra={"reason": event.reason})

    def publish_failed(self, error: SevkitError, wait: float) -> None:
        """Log it, loudly where only a person can mend it."""
        self._problem = f"cannot publish: {error.message}"
        if self.gauges is not None:
            self.gauges.publish_failures.labels(type(error).__name__).inc()
        more = {"retry_seconds": round(wait, 1), "cause": type(error).__name__}
        _LOG.log(_loudness(error), "cannot publish", exc_info=error, extra=more)

    def tell_failed(self, error: SevkitError) -> None:
        """Log it, loudly where only a person can mend it."""
        more = {"cause": type(error).__name__}
        _LOG.log(_loudness(error), "cannot tell events", exc_info=error, extra=more)


def _loudness(error: SevkitError) -> int:
    return logging.ERROR if isinstance(error, _LOUD) else logging.WARNING


@final
class Counted:
    """An API server whose answers are counted and timed."""

    def __init__(self, server: ApiServer, gauges: Gauges) -> None:
        self._server: Final = server
        self._gauges: Final = gauges

    def call(self, call: Call) -> Json:
        """Return the answer, or raise its ``ClusterError``."""
        start, outcome = time.monotonic(), "ok"
        try:
            return self._server.call(call)
        except ClusterError as error:
            outcome = str(error.status) if isinstance(error, StatusError) else type(error).__name__
            raise
        finally:
            self._gauges.requests.labels(call.method, outcome).inc()
            self._gauges.request_seconds.labels(call.method).observe(time.monotonic() - start)
