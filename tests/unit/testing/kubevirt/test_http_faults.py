from __future__ import annotations

from sevkit.testing import key_service_faults
from sevkit.testing.kubevirt import http_faults
from sevkit.testing.kubevirt.http_faults import HttpFault, HttpFaults


def test_the_oldest_fault_that_fits_is_taken_and_used_up() -> None:
    faults = HttpFaults()
    first, second = http_faults.slow(1.0), http_faults.reset()
    faults.add(first, pattern="^GET .*fetch", times=1)
    faults.add(second, pattern="fetch")
    assert faults.take("PUT /setup") == HttpFault(mutate=faults.take("x").mutate)
    assert faults.take("GET /fetch") is first
    assert faults.take("GET /fetch") is second
    faults.clear()
    assert not faults.take("GET /fetch").reset
    assert faults.requests[-1] == "GET /fetch"


def test_every_fault_says_what_it_does() -> None:
    unavailable = key_service_faults.status(503)
    assert http_faults.broken(unavailable, late=True) == HttpFault(
        fault=unavailable, late=True, mutate=http_faults.broken(unavailable).mutate
    )
    assert http_faults.mutated(bytes.upper).mutate(b"a") == b"A"
    assert http_faults.slow(2.0).mutate(b"a") == b"a"
