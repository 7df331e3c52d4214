from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from sevkit.cluster.errors import Forbidden, Unreachable
from sevkit.observe.metrics import Metrics
from webhooks.gauges import Gauges

GUIDE: Final = Path(__file__).resolve().parents[3] / "docs" / "webhook-deploy.md"


def test_every_metric_is_in_the_guide_and_no_other() -> None:
    metrics = Metrics()
    Gauges(metrics)
    found = re.findall(r"(?m)^# TYPE (sevkit_\w+) ", metrics.exposition().decode())
    made = {name for name in found if not name.endswith("_created")}
    assert made == set(re.findall(r"(?m)^\| `(sevkit_\w+)` \|", GUIDE.read_text()))


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
