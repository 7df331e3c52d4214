"""The webhook's metrics: what was decided and how quickly, what is known, what is wrong."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, final

from sevkit import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.errors import SevkitError
    from sevkit.kubevirt.webhook import Answer
    from sevkit.observe.metrics import Metrics

_PREFIX: Final = "sevkit_admission"
_CACHE: Final = "sevkit_webhook_cache"
#: Seconds; a decision takes a fraction of the first.
_BUCKETS: Final = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 1.0)


@final
class Gauges:
    """The metrics' names and meanings; a ``Tally`` of reviews and of caches.

    ``clock`` is the time that people see, in seconds since 1970.
    """

    def __init__(self, metrics: Metrics, *, clock: Callable[[], float] = time.time) -> None:
        self._clock: Final = clock
        self.build = metrics.gauge(f"{_PREFIX}_build_info", "The webhook's version.", ["version"])
        self.build.labels(__version__).set(1)
        self.reviews = metrics.counter(
            f"{_PREFIX}_reviews", "Reviews answered.", ["decision", "tier", "reason"]
        )
        self.rejections = metrics.counter(
            f"{_PREFIX}_rejections", "Requests whose body was no review."
        )
        self.seconds = metrics.histogram(
            f"{_PREFIX}_duration_seconds", "How long decisions take.", buckets=_BUCKETS
        )
        self.connections = metrics.counter(
            f"{_PREFIX}_connections", "What became of connections and requests.", ["outcome"]
        )
        self.certificate = metrics.gauge(
            "sevkit_webhook_cert_expiry_timestamp_seconds", "When the certificate expires."
        )
        self.certificate_problem = metrics.gauge(
            "sevkit_webhook_cert_problem",
            "1 while a new certificate cannot be used, made or trusted everywhere.",
        )
        self.policy_problem = metrics.gauge(
            f"{_PREFIX}_policy_problem",
            "1 while the policy file is none: the last good one serves.",
        )
        self.heard_of = metrics.gauge(
            f"{_CACHE}_heard_timestamp_seconds",
            "When the API server was last heard of, by what is watched.",
            ["kind"],
        )
        self.objects = metrics.gauge(
            f"{_CACHE}_objects", "Objects of interest that are known.", ["kind"]
        )
        self.lists = metrics.counter(f"{_CACHE}_lists", "Whole lists that came.", ["kind"])
        self.failures = metrics.counter(
            f"{_CACHE}_failures", "Lists and watches that ended in an error.", ["kind", "error"]
        )

    def listed(self, kind: str, objects: int) -> None:
        """Count a list that came whole; ``heard`` has how many objects there are."""
        del objects
        self.lists.labels(kind).inc()

    def heard(self, kind: str, objects: int) -> None:
        """Note that the API server was heard of just now, and how many objects are known."""
        self.heard_of.labels(kind).set(self._clock())
        self.objects.labels(kind).set(objects)

    def failed(self, kind: str, error: SevkitError) -> None:
        """Count a list or a watch that ended; by the error's class, of which there are a few."""
        self.failures.labels(kind, type(error).__name__).inc()

    def answered(self, found: Answer, seconds: float) -> None:
        """Count an answer."""
        self.reviews.labels(found.decision, found.tier, found.reason).inc()
        self.seconds.observe(seconds)

    def rejected(self) -> None:
        """Count a request that was no review."""
        self.rejections.inc()
