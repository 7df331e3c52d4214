"""Metrics in Prometheus' text format, in a registry of their own.

Nothing is registered process-wide, so that two agents in one process, or two tests, do not meet.
``prometheus_client`` is imported when the first ``Metrics`` is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, Self, final

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Seconds; the last are what a call to an API server may take at most.
SECONDS_BUCKETS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0)


class Counter(Protocol):
    """Something that only grows."""

    def labels(self, *values: str) -> Self:
        """Return the series with these label values, in the order of the label names."""

    def inc(self, amount: float = 1) -> None:
        """Add ``amount``, which is not negative."""


class Gauge(Protocol):
    """Something that goes up and down."""

    def labels(self, *values: str) -> Self:
        """Return the series with these label values, in the order of the label names."""

    def set(self, value: float) -> None:
        """Make it ``value``."""

    def clear(self) -> None:
        """Forget every series."""


class Histogram(Protocol):
    """How often something took how long."""

    def labels(self, *values: str) -> Self:
        """Return the series with these label values, in the order of the label names."""

    def observe(self, amount: float) -> None:
        """Count one observation."""


@final
class Metrics:
    """A registry, with the process' own memory, CPU time and descriptors already in it."""

    def __init__(self) -> None:
        import prometheus_client as client  # noqa: PLC0415  # 70 ms that most commands do not pay

        self._client: Final = client
        self._registry: Final = client.CollectorRegistry()
        client.ProcessCollector(registry=self._registry)

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        """Return a new counter; ``_total`` is appended to ``name`` where it is shown."""
        return self._client.Counter(name, text, labels, registry=self._registry)

    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        """Return a new gauge."""
        return self._client.Gauge(name, text, labels, registry=self._registry)

    def histogram(
        self,
        name: str,
        text: str,
        labels: Sequence[str] = (),
        *,
        buckets: Sequence[float] = SECONDS_BUCKETS,
    ) -> Histogram:
        """Return a new histogram; ``buckets`` are upper bounds, by default of seconds."""
        return self._client.Histogram(
            name, text, labels, registry=self._registry, buckets=tuple(buckets)
        )

    def exposition(self) -> bytes:
        """Return everything in the text format 0.0.4, which every scraper takes."""
        return self._client.generate_latest(self._registry)
