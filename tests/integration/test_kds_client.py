"""The real client against the simulated key service, over TLS on loopback, fault by fault."""

from __future__ import annotations

import contextlib
import email.utils
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING

import pytest

from sevkit.abi.product import ProductLine
from sevkit.abi.tcb import TcbVersion
from sevkit.errors import KeyServiceError
from sevkit.kds import urls
from sevkit.kds.cache import CertificateCache
from sevkit.kds.client import Clock, KeyService
from sevkit.kds.encoding import encode_pem_certificate
from sevkit.kds.roots import snp_chain
from sevkit.kds.source import CertificateSource
from sevkit.testing import key_service_faults as faults
from sevkit.testing.key_service import SimulatedKeyService

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sevkit.testing.key_service_faults import Fault

TURIN = ProductLine.TURIN
HWID = b"\x01\x02\x03\x04\x05\x06\x07\x08"
TCB = TcbVersion(1, 2, 3, 4, fmc=5)
VCEK = urls.vcek(TURIN, HWID, TCB)
CHAIN = urls.chain(TURIN, vlek=False)
# Any certificate does: the client looks at shapes only.
DER, ARK = snp_chain(TURIN, vlek=False)
CHAIN_PEM = encode_pem_certificate(DER) + encode_pem_certificate(ARK)
NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


class FakeTime:
    """Time that passes only where the client sleeps."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.passed += seconds

    def clock(self) -> Clock:
        return Clock(lambda: self.passed, self.sleep, lambda: NOW + timedelta(seconds=self.passed))


@pytest.fixture
def service() -> Iterator[SimulatedKeyService]:
    with SimulatedKeyService({VCEK: DER, CHAIN: CHAIN_PEM}.get) as running:
        yield running


def client(service: SimulatedKeyService, *, attempt: float = 30) -> KeyService:
    return KeyService(service.base_url, ca=service.ca, attempt=attempt)


def test_what_the_service_has_is_fetched(service: SimulatedKeyService) -> None:
    fetched = client(service).fetch(VCEK)
    assert fetched.data == DER
    assert fetched.url == service.base_url + VCEK.target
    assert client(service).fetch(CHAIN).data == CHAIN_PEM
    assert service.targets == (VCEK.target, CHAIN.target)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (faults.not_found(), "does not know vcek Turin 0102030405060708"),
        (faults.too_many_requests("3600"), "busy .status 429., try again in 3600 s"),
        (faults.status(503, "Retry-After: 3600"), "busy .status 503."),
        (faults.redirect("https://kds.example/"), "redirect .302., which is not followed"),
        (faults.status(301, "Location: /vcek/v1/Turin/cert_chain"), "redirect .301."),
        (faults.status(304), "redirect .304."),
        (faults.status(204), "status 204"),
        (faults.status(206, body=DER), "status 206"),
        (faults.status(400), "status 400"),
        (faults.status(403, body=b"<html>"), "status 403"),
        (faults.status(500), "status 500"),
        (faults.web_page(), "web page"),
        (faults.content(b""), "is empty"),
        (faults.content(b"certificate"), "something else"),
        (faults.content(DER + b"\n"), "something else"),
        (faults.content(DER[:-1]), "something else"),
        (faults.content(CHAIN_PEM), "something else"),
        (faults.status(200, "Content-Encoding: gzip", body=DER), "compresses"),
        (faults.truncated(DER), "broke off"),
        (faults.truncated(b""), "broke off"),
        (faults.raw(b""), "hung up"),
        (faults.raw(b"HTTP/1.1 200 OK\r\nContent-"), "something else|broke off"),
        (faults.raw(b"HTTP/1.1 200 OK\r\n\r\n" + DER[:40]), "something else"),
        (faults.raw(b"220 mail.example ESMTP\r\n"), "does not speak HTTP"),
        (faults.raw(b"HTTP/1.1 9999 OK\r\n\r\n"), "does not speak HTTP"),
        (faults.raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000), "hung up"),
        (faults.raw(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 101 + b"\r\n"), "does not speak HTTP"),
        (faults.raw(b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70000 + b"\r\n\r\n"), "not speak HTTP"),
        (faults.status(200, "Content-Length: 5, 7"), "does not speak HTTP"),
        (faults.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "broke off"),
        (faults.endless(declared=True), "more than 1048576 bytes"),
        (faults.endless(declared=False), "more than 1048576 bytes"),
    ],
)
def test_every_fault_is_undecided_and_leaves_the_cache_alone(
    service: SimulatedKeyService, fault: Fault, words: str, tmp_path: Path
) -> None:
    cache = CertificateCache(tmp_path / "kds")
    cache.store(CHAIN, CHAIN_PEM, url=service.base_url + CHAIN.target, fetched_at=NOW)
    service.fail(fault)
    source = CertificateSource(cache, client(service))
    with pytest.raises(KeyServiceError, match=words) as caught:
        source.vcek(TURIN, HWID, TCB)
    assert caught.value.exit_code == 4
    assert service.count() == 1
    assert [path.name for path in cache.root.iterdir()] == [cache.path(CHAIN).name]
    assert source.chain(TURIN, vlek=False).cached
    service.heal()
    assert source.vcek(TURIN, HWID, TCB).data == DER


@pytest.mark.parametrize(
    "fault",
    [
        faults.silence(),
        faults.drip(DER, pause=0.02),
        faults.drip(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 90, pause=0.02, after=b""),
        faults.drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 90, pause=0.02, after=b""),
    ],
)
def test_a_service_that_sends_nothing_or_a_byte_at_a_time_cannot_hold_us(
    service: SimulatedKeyService, fault: Fault
) -> None:
    service.fail(fault)
    begin = time.monotonic()
    with pytest.raises(KeyServiceError, match="did not answer in time"):
        client(service, attempt=0.3).fetch(VCEK)
    assert 0.25 < time.monotonic() - begin < 3


@pytest.mark.parametrize("speaks_tls", [True, False])
def test_a_port_that_never_finishes_the_handshake_cannot_hold_us(
    service: SimulatedKeyService, speaks_tls: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        peers: list[socket.socket] = []

        def accept() -> None:
            peer, _ = listener.accept()
            peers.append(peer)
            if speaks_tls:
                with contextlib.suppress(OSError):
                    for byte in b"\x16\x03\x03\x40\x00" + bytes(1000):
                        peer.send(bytes([byte]))
                        time.sleep(0.02)

        thread = threading.Thread(target=accept)
        thread.start()
        begin = time.monotonic()
        with pytest.raises(KeyServiceError, match="did not answer in time"):
            KeyService(f"https://127.0.0.1:{port}", ca=service.ca, attempt=0.3).fetch(VCEK)
        assert time.monotonic() - begin < 3
        thread.join()
        for peer in peers:
            peer.close()


def test_a_port_that_speaks_no_tls_is_undecided(service: SimulatedKeyService) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                peer.recv(4096)

        thread = threading.Thread(target=answer)
        thread.start()
        port = listener.getsockname()[1]
        with pytest.raises(KeyServiceError, match="TLS"):
            KeyService(f"https://127.0.0.1:{port}", ca=service.ca).fetch(VCEK)
        thread.join()


def test_too_many_requests_are_waited_out_as_long_as_the_service_asks(
    service: SimulatedKeyService,
) -> None:
    service.fail(faults.too_many_requests("7"), times=2)
    fake = FakeTime()
    told: list[str] = []
    asking = KeyService(service.base_url, ca=service.ca, clock=fake.clock(), notify=told.append)
    assert asking.fetch(VCEK).data == DER
    assert fake.slept == [7, 7]
    assert told == ["key service asks to wait 7 s"] * 2
    assert service.count() == 3


def test_retry_after_may_be_a_date(service: SimulatedKeyService) -> None:
    date = email.utils.format_datetime(NOW + timedelta(seconds=12), usegmt=True)
    service.fail(faults.too_many_requests(date), times=1)
    fake = FakeTime()
    KeyService(service.base_url, ca=service.ca, clock=fake.clock()).fetch(VCEK)
    assert fake.slept == [12]


@pytest.mark.parametrize("word", [None, "soon", "-1"])
def test_without_retry_after_the_waits_double_from_ten_seconds(
    service: SimulatedKeyService, word: str | None
) -> None:
    service.fail(faults.too_many_requests(word), times=3)
    fake = FakeTime()
    asking = KeyService(service.base_url, ca=service.ca, clock=fake.clock(), budget=100)
    assert asking.fetch(VCEK).data == DER
    assert fake.slept == [10, 20, 40]


def test_a_wait_beyond_the_budget_is_not_begun(service: SimulatedKeyService) -> None:
    service.fail(faults.too_many_requests())
    fake = FakeTime()
    asking = KeyService(service.base_url, ca=service.ca, clock=fake.clock(), budget=60)
    with pytest.raises(KeyServiceError, match="busy") as caught:
        asking.fetch(VCEK)
    assert fake.slept == [10, 20]
    assert caught.value.retry_after == 40
    assert "sevkit kds fetch" in caught.value.hint


def test_a_service_that_is_always_busy_is_asked_five_times(service: SimulatedKeyService) -> None:
    service.fail(faults.too_many_requests("0"))
    fake = FakeTime()
    with pytest.raises(KeyServiceError, match="busy"):
        KeyService(service.base_url, ca=service.ca, clock=fake.clock(), budget=1e6).fetch(VCEK)
    assert fake.slept == [1] * 4
    assert service.count() == 5


def test_only_what_matches_a_faults_pattern_meets_it(service: SimulatedKeyService) -> None:
    service.fail(faults.not_found(), pattern="cert_chain$")
    assert client(service).fetch(VCEK).data == DER
    with pytest.raises(KeyServiceError, match="does not know"):
        client(service).fetch(CHAIN)


def test_a_certificate_of_another_authority_is_not_trusted(service: SimulatedKeyService) -> None:
    with SimulatedKeyService(lambda _: None) as other, pytest.raises(KeyServiceError) as caught:
        KeyService(service.base_url, ca=other.ca).fetch(VCEK)
    assert "not trusted" in caught.value.message
    assert "--kds-ca" in caught.value.hint
    assert service.count() == 0


def test_without_a_ca_of_its_own_the_systems_authorities_decide(
    service: SimulatedKeyService,
) -> None:
    with pytest.raises(KeyServiceError, match="not trusted"):
        KeyService(service.base_url).fetch(VCEK)


def test_a_certificate_for_another_name_is_not_trusted(service: SimulatedKeyService) -> None:
    base = service.base_url.replace("127.0.0.1", "localhost")
    with pytest.raises(KeyServiceError, match="not trusted: Hostname mismatch"):
        KeyService(base, ca=service.ca).fetch(VCEK)


def test_nobody_listening_and_no_such_name_are_undecided() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(KeyServiceError, match="refused the connection"):
        KeyService(f"https://127.0.0.1:{port}").fetch(VCEK)
    with pytest.raises(KeyServiceError, match="name cannot be resolved"):
        KeyService("https://" + "a" * 70 + ".invalid").fetch(VCEK)


GOOD_RESPONSES = (
    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(DER) + DER,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(DER), DER),
    b"HTTP/1.1 429 Busy\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n",
)


def test_mangled_responses_are_the_certificate_or_undecided(
    service: SimulatedKeyService,
) -> None:
    random = Random(2026)  # noqa: S311  # mangles bytes, keeps no secret
    asking = KeyService(service.base_url, ca=service.ca, budget=2)
    outcomes = {True: 0, False: 0}
    for _ in range(120):
        response = bytearray(random.choice(GOOD_RESPONSES))
        for _ in range(random.randint(0, 4)):
            response[random.randrange(50)] = random.randrange(256)
        service.heal()
        service.fail(faults.raw(bytes(response)))
        try:
            outcomes[asking.fetch(VCEK).data[4:] == DER[4:]] += 1
        except KeyServiceError:
            outcomes[False] += 1
    assert outcomes[True] > 0
    assert outcomes[False] > 0


def run_proxy(listener: socket.socket, answer: bytes, heads: list[bytes]) -> None:
    """Serve one CONNECT: tunnel if ``answer`` is empty, else answer and hang up."""
    peer, _ = listener.accept()
    with peer:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += peer.recv(1)
        heads.append(head)
        if answer:
            peer.sendall(answer)
            return
        host, _, port = head.split()[1].decode().rpartition(":")
        with socket.create_connection((host, int(port))) as target:
            peer.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=pump, args=(target, peer))
            back.start()
            pump(peer, target)
            back.join()


def pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", ""),
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "proxy did not connect"),
        (b"junk\r\n\r\n", "proxy did not connect|does not speak HTTP"),
    ],
)
def test_a_proxy_carries_tls_end_to_end_or_is_undecided(
    service: SimulatedKeyService, answer: bytes, words: str
) -> None:
    heads: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=run_proxy, args=(listener, answer, heads))
        thread.start()
        proxy = f"http://me:s%40me@127.0.0.1:{listener.getsockname()[1]}"
        asking = KeyService(service.base_url, ca=service.ca, proxy=proxy)
        if words:
            with pytest.raises(KeyServiceError, match=words):
                asking.fetch(VCEK)
        else:
            assert asking.fetch(VCEK).data == DER
        thread.join()
    assert heads[0].startswith(b"CONNECT " + service.base_url.removeprefix("https://").encode())
    assert b"authorization: basic bwu6c0btzq==" in heads[0].lower()


def test_a_proxy_that_drips_cannot_hold_us(service: SimulatedKeyService) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            peer, _ = listener.accept()
            with peer, contextlib.suppress(OSError):
                for byte in b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 90:
                    peer.send(bytes([byte]))
                    time.sleep(0.02)

        thread = threading.Thread(target=drip)
        thread.start()
        proxy = f"http://127.0.0.1:{listener.getsockname()[1]}"
        begin = time.monotonic()
        with pytest.raises(KeyServiceError):
            KeyService(service.base_url, ca=service.ca, proxy=proxy, attempt=0.3).fetch(VCEK)
        assert time.monotonic() - begin < 3
        thread.join()


def test_threads_that_want_the_same_make_one_request(
    service: SimulatedKeyService, tmp_path: Path
) -> None:
    service.fail(faults.drip(DER, pause=0.0001), times=1)
    source = CertificateSource(CertificateCache(tmp_path / "kds"), client(service))
    results: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: results.append(source.vcek(TURIN, HWID, TCB).data))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [DER] * 6
    assert service.count() == 1
