from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from sevkit.abi.product import ProductLine
from sevkit.abi.tcb import TcbVersion
from sevkit.errors import FormatError, KeyServiceError
from sevkit.kds import urls
from sevkit.kds.cache import CertificateCache
from sevkit.kds.client import Fetched
from sevkit.kds.encoding import encode_pem_certificate
from sevkit.kds.source import CertificateSource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sevkit.kds.urls import Resource

MILAN = ProductLine.MILAN
CHIP = bytes(range(64))
TCB = TcbVersion(1, 2, 3, 4)
VCEK = urls.vcek(MILAN, CHIP, TCB)
CRL = urls.crl(MILAN, vlek=False)
NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
AMD = "https://kdsintf.amd.com"


class Service:
    """A key service that gives what it was told to, and counts."""

    def __init__(self, *answers: bytes, base_url: str = AMD) -> None:
        self.base_url = base_url
        self.answers = list(answers)
        self.asked: list[Resource] = []
        self.gate: threading.Event | None = None

    def fetch(self, resource: Resource) -> Fetched:
        self.asked.append(resource)
        if self.gate is not None:
            self.gate.wait(10)
        if not self.answers:
            raise KeyServiceError("key service is busy", hint="wait", retry_after=10)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return Fetched(answer, resource.url(self.base_url))


@pytest.fixture
def cache(tmp_path: Path) -> CertificateCache:
    return CertificateCache(tmp_path / "kds")


@pytest.fixture
def good(make_certificate: Callable[[bytes], bytes]) -> bytes:
    return make_certificate(b"good")


def now() -> datetime:
    return NOW


def test_a_vcek_is_fetched_once_and_then_comes_from_the_cache(
    cache: CertificateCache, good: bytes
) -> None:
    service = Service(good)
    first = CertificateSource(cache, service, now=now).vcek(MILAN, CHIP, TCB)
    second = CertificateSource(cache, service, now=now).vcek(MILAN, CHIP, TCB)
    assert (first.data, first.cached, first.origin) == (good, False, VCEK.url())
    assert (second.data, second.cached) == (good, True)
    assert second.origin == f"cache, from {VCEK.url()} on 2026-11-23"
    assert service.asked == [VCEK]


def test_offline_the_cache_alone_is_asked(cache: CertificateCache, good: bytes) -> None:
    CertificateSource(cache, Service(good)).vcek(MILAN, CHIP, TCB)
    offline = CertificateSource(cache, None)
    assert offline.vcek(MILAN, CHIP, TCB).data == good
    with pytest.raises(KeyServiceError, match=r"not in the cache.*offline") as caught:
        offline.cek(CHIP)
    assert "sevkit kds fetch" in caught.value.hint


def test_without_any_cache_everything_is_fetched(good: bytes) -> None:
    service = Service(good)
    source = CertificateSource(None, service)
    assert not source.vcek(MILAN, CHIP, TCB).cached
    source.drop(VCEK)
    assert source.replace(source.vcek(MILAN, CHIP, TCB)).data == good
    assert len(service.asked) == 3


def test_a_poisoned_entry_is_replaced_from_the_key_service(
    cache: CertificateCache, good: bytes, make_certificate: Callable[[bytes], bytes]
) -> None:
    cache.store(VCEK, make_certificate(b"forged"), url=VCEK.url(), fetched_at=NOW)
    source = CertificateSource(cache, Service(good))
    forged = source.vcek(MILAN, CHIP, TCB)
    assert forged.cached
    replaced = source.replace(forged)
    assert (replaced.data, replaced.cached) == (good, False)
    assert CertificateSource(cache, None).vcek(MILAN, CHIP, TCB).data == good


def test_a_poisoned_entry_is_undecided_offline_and_gone(
    cache: CertificateCache, make_certificate: Callable[[bytes], bytes]
) -> None:
    cache.store(VCEK, make_certificate(b"forged"), url=VCEK.url(), fetched_at=NOW)
    source = CertificateSource(cache, None)
    with pytest.raises(KeyServiceError, match="does not verify and was dropped"):
        source.replace(source.vcek(MILAN, CHIP, TCB))
    assert cache.load(VCEK).entry is None


def test_a_damaged_entry_is_told_of_and_fetched_again(cache: CertificateCache, good: bytes) -> None:
    cache.store(VCEK, good, url=VCEK.url(), fetched_at=NOW)
    cache.path(VCEK).write_bytes(b"")
    told: list[str] = []
    source = CertificateSource(cache, Service(good), notify=told.append)
    assert not source.vcek(MILAN, CHIP, TCB).cached
    assert len(told) == 1
    assert told[0].startswith("dropped from the cache")


def test_a_cache_that_fails_is_told_of_and_fails_nothing(tmp_path: Path, good: bytes) -> None:
    (tmp_path / "file").write_bytes(b"")
    told: list[str] = []
    source = CertificateSource(
        CertificateCache(tmp_path / "file" / "kds"), Service(good), notify=told.append
    )
    assert source.vcek(MILAN, CHIP, TCB).data == good
    assert [message.partition(":")[0] for message in told] == ["not kept in the cache"]


def test_a_failed_fetch_leaves_the_cache_as_it_was(cache: CertificateCache, good: bytes) -> None:
    cache.store(VCEK, good, url=VCEK.url(), fetched_at=NOW)
    source = CertificateSource(cache, Service())
    with pytest.raises(KeyServiceError, match="busy"):
        source.cek(CHIP)
    assert len(list(cache.root.iterdir())) == 1
    assert source.vcek(MILAN, CHIP, TCB).cached


@pytest.mark.parametrize(("late", "asked"), [(timedelta(seconds=-1), 1), (timedelta(0), 2)])
def test_a_list_is_kept_until_its_next_update(
    cache: CertificateCache, make_crl: Callable[..., bytes], late: timedelta, asked: int
) -> None:
    service = Service(make_crl(b"260101000000Z", b"261201000000Z"))
    source = CertificateSource(cache, service, now=now)
    source.crl(MILAN, vlek=False)
    at = datetime(2026, 12, 1, tzinfo=UTC) + late
    assert source.crl(MILAN, vlek=False, at=at).cached == (asked == 1)
    assert len(service.asked) == asked


def test_a_list_past_its_next_update_could_not_be_had_offline(
    cache: CertificateCache, make_crl: Callable[..., bytes]
) -> None:
    crl = make_crl(b"250101000000Z", b"251201000000Z")
    cache.store(CRL, crl, url=CRL.url(), fetched_at=NOW)
    source = CertificateSource(cache, None, now=now)
    with pytest.raises(KeyServiceError, match="past its nextUpdate"):
        source.crl(MILAN, vlek=False)
    then = datetime(2025, 6, 1, tzinfo=UTC)
    assert source.crl(MILAN, vlek=False, at=then).data == crl


def test_a_list_without_next_update_is_never_taken_from_the_cache(
    cache: CertificateCache, make_crl: Callable[..., bytes]
) -> None:
    service = Service(make_crl(b"260101000000Z"))
    source = CertificateSource(cache, service, now=now)
    source.crl(MILAN, vlek=False)
    source.crl(MILAN, vlek=False)
    assert len(service.asked) == 2


def test_lists_and_chains_of_another_key_service_are_not_reused_online(
    cache: CertificateCache, good: bytes, make_crl: Callable[..., bytes]
) -> None:
    crl = make_crl(b"260101000000Z", b"361201000000Z")
    chain = encode_pem_certificate(good) * 2
    rehearsal = CertificateSource(cache, Service(crl, chain, base_url="https://127.0.0.1:1"))
    rehearsal.crl(MILAN, vlek=False)
    rehearsal.chain(MILAN, vlek=False)
    service = Service(crl, chain)
    source = CertificateSource(cache, service)
    assert not source.crl(MILAN, vlek=False).cached
    assert not source.chain(MILAN, vlek=False).cached
    assert source.chain(MILAN, vlek=False).cached


def test_a_vcek_is_reused_whoever_handed_it_out(cache: CertificateCache, good: bytes) -> None:
    CertificateSource(cache, Service(good, base_url="https://mirror.example")).get(VCEK)
    assert CertificateSource(cache, Service()).get(VCEK).cached


def test_what_cannot_exist_is_not_asked_for(cache: CertificateCache) -> None:
    service = Service()
    with pytest.raises(FormatError):
        CertificateSource(cache, service).vcek(MILAN, bytes(64), TCB)
    assert service.asked == []


@pytest.mark.parametrize("succeeds", [True, False])
def test_equal_requests_in_flight_become_one(
    cache: CertificateCache, good: bytes, succeeds: bool
) -> None:
    service = Service(good) if succeeds else Service()
    service.gate = threading.Event()
    source = CertificateSource(cache, service)
    results: list[bytes | float | None] = []

    def ask() -> None:
        try:
            results.append(source.vcek(MILAN, CHIP, TCB).data)
        except KeyServiceError as error:
            results.append(error.retry_after)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    while len(service.asked) == 0:
        threading.Event().wait(0.001)
    threading.Event().wait(0.05)
    service.gate.set()
    for thread in threads:
        thread.join()
    assert service.asked == [VCEK]
    assert results == [good if succeeds else 10] * 8
    assert source._flights == {}
