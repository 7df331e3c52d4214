from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from sevkit.observe.metrics import Metrics


def samples(metrics: Metrics) -> dict[str, float]:
    """Return every sample that another parser finds, by its name and its labels' values."""
    return {
        sample.name
        + "".join(f"|{sample.labels[label]}" for label in sorted(sample.labels)): sample.value
        for family in text_string_to_metric_families(metrics.exposition().decode())
        for sample in family.samples
    }


def test_counters_gauges_and_histograms_are_exposed() -> None:
    metrics = Metrics()
    calls = metrics.counter("sevkit_calls", "Calls", ["verb", "result"])
    calls.labels("patch", "conflict").inc()
    calls.labels("patch", "conflict").inc(2)
    metrics.gauge("sevkit_guests", "Guests").set(7)
    metrics.histogram("sevkit_probe_seconds", "Probe").observe(0.003)
    found = samples(metrics)
    assert found["sevkit_calls_total|conflict|patch"] == 3
    assert found["sevkit_guests"] == 7
    assert found["sevkit_probe_seconds_bucket|0.001"] == 0
    assert found["sevkit_probe_seconds_bucket|0.005"] == 1
    assert found["sevkit_probe_seconds_count"] == 1


def test_the_process_own_memory_is_there() -> None:
    assert samples(Metrics())["process_resident_memory_bytes"] > 1 << 20


def test_two_registries_do_not_meet() -> None:
    one, other = Metrics(), Metrics()
    one.gauge("sevkit_guests", "Guests").set(1)
    other.gauge("sevkit_guests", "Guests").set(2)
    assert samples(one)["sevkit_guests"] == 1
    assert samples(other)["sevkit_guests"] == 2


def test_series_of_what_is_gone_are_forgotten() -> None:
    metrics = Metrics()
    usable = metrics.gauge("sevkit_usable", "Usable", ["tier"])
    usable.labels("sev").set(1)
    usable.clear()
    assert "sevkit_usable|sev" not in samples(metrics)
