"""The webhook's metrics: what was decided and how quickly, and how long the certificate lasts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from sevkit import __version__

if TYPE_CHECKING:
    from sevkit.kubevirt.webhook import Answer
    from sevkit.observe.metrics import Metrics

_PREFIX: Final = "sevkit_admission"
#: Seconds; a decision takes a fraction of the first.
_BUCKETS: Final = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 1.0)


@final
class Gauges:
    """The metrics' names and meanings; a ``Tally``."""

    def __init__(self, metrics: Metrics) -> None:
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
            "sevkit_webhook_cert_problem", "1 while a new certificate cannot be used."
        )
        self.policy_problem = metrics.gauge(
            f"{_PREFIX}_policy_problem",
            "1 while the policy file is none: the last good one serves.",
        )

    def answered(self, found: Answer, seconds: float) -> None:
        """Count an answer."""
        self.reviews.labels(found.decision, found.tier, found.reason).inc()
        self.seconds.observe(seconds)

    def rejected(self) -> None:
        """Count a request that was no review."""
        self.rejections.inc()
