"""One certificate cache, many threads, and a key service that fails: no answer is ever wrong."""

from __future__ import annotations

import random
import threading
from collections import Counter
from typing import TYPE_CHECKING, Final

from sevkit.abi.product import Product, ProductLine
from sevkit.errors import KeyServiceError
from sevkit.kds import urls
from sevkit.kds.cache import CertificateCache
from sevkit.kds.client import Clock, KeyService
from sevkit.kds.source import CertificateSource
from sevkit.testing import key_service_faults as faults
from sevkit.testing.key_service import SimulatedKeyService, chip_provider
from sevkit.testing.snp_chain import SimulatedRoots
from sevkit.testing.snp_report import SimulatedChip

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hack.load import Load
    from sevkit.kds.urls import Resource

FULL: Final = 20_000
CHIPS: Final = 24
THREADS: Final = 16
SEED: Final = 57230
#: One lookup in so many finds that the cache was damaged, and one that an entry is to be replaced.
DAMAGED_EACH: Final = 40
REPLACED_EACH: Final = 60


def test_no_lookup_is_answered_wrongly_whatever_fails(
    tmp_path: Path, soak: Callable[[int], int], load: Load
) -> None:
    size, milan = soak(FULL), SimulatedRoots(ProductLine.MILAN)
    chips = [
        SimulatedChip(milan, Product.MILAN, hwid=bytes([number + 1]) * 64)
        for number in range(CHIPS)
    ]
    good: dict[Resource, bytes] = {
        urls.vcek(chip.line, chip.hardware_id, chip.tcb): chip.vek() for chip in chips
    }
    provider = chip_provider(*chips)
    chain = urls.chain(ProductLine.MILAN, vlek=False)
    good[chain] = provider(chain) or b""
    asked = list(good)
    cache = CertificateCache(tmp_path / "cache")
    told: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    counting = threading.Lock()

    def notify(message: str) -> None:
        with counting:
            told[message.partition(":")[0]] += 1

    with SimulatedKeyService(provider) as service:
        # No test waits ten seconds for a service that is busy.
        patient = Clock(sleep=lambda _: None)
        client = KeyService(service.base_url, ca=service.ca, budget=30, attempt=10, clock=patient)
        source = CertificateSource(cache, client, notify=notify)
        spoil(service, good[asked[0]], max(20, size // 50))

        def look_up(number: int) -> None:
            mine = random.Random(number)  # noqa: S311  # the same ones each time
            resource = mine.choice(asked)
            if number % DAMAGED_EACH == 0:
                damage(cache.path(resource), mine)
            try:
                found = source.get(resource)
                if number % REPLACED_EACH == 0:
                    found = source.replace(found)
            except KeyServiceError:
                kind = "not had"
            else:
                assert found.data == good[resource]
                kind = "cached" if found.cached else "fetched"
            with counting:
                outcomes[kind] += 1

        load.run("lookups", THREADS, look_up, range(size))
        requests = service.count()
    assert sum(outcomes.values()) == size
    assert outcomes["cached"] > size // 2
    assert outcomes["fetched"]
    assert outcomes["not had"]
    assert requests < size
    assert not list(cache.root.glob(".*.new"))
    service_is_gone = CertificateSource(cache, None)
    for path in cache.root.glob("*.entry"):
        assert path.stat().st_size > 0
    for resource, data in good.items():
        if cache.load(resource).entry is not None:
            assert service_is_gone.get(resource).data == data


def spoil(service: SimulatedKeyService, good: bytes, times: int) -> None:
    """Let the next requests fail, each in a way of its own."""
    chance = random.Random(SEED)  # noqa: S311  # the same ones each time
    ways = (
        faults.too_many_requests("1"),
        faults.too_many_requests(),
        faults.not_found(),
        faults.status(500),
        faults.status(503),
        faults.web_page(),
        faults.redirect("https://elsewhere.example/"),
        faults.truncated(good[:100]),
        faults.content(b""),
        faults.content(good[:-1]),
        faults.raw(b""),
        faults.raw(b"no HTTP at all\r\n\r\n"),
        faults.endless(declared=True),
    )
    for _ in range(times):
        service.fail(chance.choice(ways), times=1)


def damage(path: Path, chance: random.Random) -> None:
    """Cut or change a file of the cache, as a full disk or a careless hand would."""
    try:
        data = bytearray(path.read_bytes())
    except FileNotFoundError:
        return
    if chance.random() < 0.5 or not data:
        data = data[: len(data) // 2]
    else:
        data[chance.randrange(len(data))] ^= 0xFF
    path.write_bytes(data)
