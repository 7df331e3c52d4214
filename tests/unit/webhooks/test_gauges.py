from __future__ import annotations

from sevkit.cluster.errors import Forbidden, Unreachable
from sevkit.observe.metrics import Metrics
from webhooks.gauges import Gauges


def test_what_is_known_of_the_cluster_is_counted_by_kind() -> None:
    metrics = Metrics()
    gauges = Gauges(metrics, clock=lambda: 1234.0)
    gauges.listed("nodes", 3)
    gauges.heard("nodes", 3)
    gauges.heard("nodes", 4)
    gauges.failed("kubevirts", Forbidden(403))
    gauges.failed("kubevirts", Forbidden(403))
    gauges.failed("nodes", Unreachable("API server hung up"))
    lines = metrics.exposition().decode().splitlines()
    assert {
        'sevkit_webhook_cache_lists_total{kind="nodes"} 1.0',
        'sevkit_webhook_cache_heard_timestamp_seconds{kind="nodes"} 1234.0',
        'sevkit_webhook_cache_objects{kind="nodes"} 4.0',
        'sevkit_webhook_cache_failures_total{error="Forbidden",kind="kubevirts"} 2.0',
        'sevkit_webhook_cache_failures_total{error="Unreachable",kind="nodes"} 1.0',
    } <= set(lines)
