"""The health endpoint over real sockets: right answers, and nobody can hold it up."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest

from sevkit.errors import UsageError
from sevkit.observe.metrics import Metrics
from sevkit.observe.server import CONNECTIONS, HEAD_LIMIT, HealthServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sevkit.observe.server import Check

#: A loaded machine may need this long for what takes milliseconds; who is held up waits for 60.
PATIENCE = 15.0


def get(server: HealthServer, path: str, method: str = "GET") -> tuple[int, str, str]:
    """Return status, content type and body, as Python's own client reads them."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    with closing(connection):
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read().decode()


def raw(server: HealthServer, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(data)
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    found = b""
    while chunk := connection.recv(1 << 16):
        found += chunk
    return found


@pytest.fixture
def wrong() -> list[str]:
    return []


@pytest.fixture
def server(wrong: list[str]) -> Iterator[HealthServer]:
    metrics = Metrics()
    metrics.gauge("sevkit_guests", "Guests").set(7)
    with HealthServer(("127.0.0.1", 0), metrics=metrics.exposition, ready=lambda: wrong) as running:
        yield running


def test_metrics_and_checks_are_answered(server: HealthServer) -> None:
    status, kind, body = get(server, "/metrics?name[]=x")
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert "sevkit_guests 7.0" in body
    assert get(server, "/healthz")[::2] == (200, "ok\n")
    assert get(server, "/readyz")[::2] == (200, "ok\n")


def test_readiness_says_what_is_missing_and_liveness_is_another_question(
    server: HealthServer, wrong: list[str]
) -> None:
    wrong += ["node was never published", "API server forbids it"]
    assert get(server, "/readyz")[::2] == (503, "node was never published\nAPI server forbids it\n")
    assert get(server, "/healthz")[0] == 200
    wrong.clear()
    assert get(server, "/readyz")[0] == 200


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/", "GET", 404),
        ("/metrics/", "GET", 404),
        ("/../etc/passwd", "GET", 404),
        ("/metrics", "POST", 405),
        ("/metrics", "DELETE", 405),
    ],
)
def test_anything_else_is_refused(
    server: HealthServer, path: str, method: str, status: int
) -> None:
    assert get(server, path, method)[0] == status


def test_head_has_the_length_and_no_body(server: HealthServer) -> None:
    answer = raw(server, b"HEAD /healthz HTTP/1.1\r\n\r\n")
    assert b"Content-Length: 3\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\r\n\r\n", b"400"),
        (b"GET /metrics\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
        (b"GET /healthz SPDY/3\r\n\r\n", b"400"),
        (b"GET /" + b"a" * HEAD_LIMIT, b"431"),
        (b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 2000 + b"\r\n", b"431"),
        (b"POST /healthz HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + b"z" * 100000, b"405"),
    ],
    ids=["empty", "HTTP 0.9", "TLS", "not HTTP", "long path", "many headers", "body"],
)
def test_what_is_no_request_gets_an_answer_and_not_a_crash(
    server: HealthServer, data: bytes, status: bytes
) -> None:
    assert raw(server, data).split(b" ")[1] == status
    assert get(server, "/healthz")[0] == 200


def test_a_request_in_pieces_is_put_together(server: HealthServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in (b"GET /he", b"althz HTTP/1.1\r", b"\nHost: x\r\n\r", b"\n"):
            connection.sendall(piece)
            time.sleep(0.02)
        assert b"200 OK" in read_all(connection)


def test_who_holds_every_connection_open_holds_nobody_else_up(server: HealthServer) -> None:
    with ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
            for _ in range(3 * CONNECTIONS)
        ]
        for connection in silent[-CONNECTIONS:]:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
        begun = time.monotonic()
        for _ in range(5):
            assert get(server, "/healthz")[0] == 200
        assert time.monotonic() - begun < PATIENCE
        assert read_all(silent[0]) == b""  # made room


def test_a_slow_connection_ends_in_time() -> None:
    with (
        HealthServer(("127.0.0.1", 0), metrics=lambda: b"", seconds=0.5) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection,
    ):
        begun = time.monotonic()
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert connection.recv(1) == b""
        assert 0.4 < time.monotonic() - begun < PATIENCE


def test_who_does_not_read_his_answer_holds_nobody_up() -> None:
    content = b"x" * (32 << 20)
    with HealthServer(("127.0.0.1", 0), metrics=lambda: content, seconds=60) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as lazy:
            lazy.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            begun = time.monotonic()
            assert get(server, "/healthz")[0] == 200
            assert time.monotonic() - begun < PATIENCE
        assert len(get(server, "/metrics")[2]) == len(content)


def test_a_check_that_fails_is_an_answer_and_not_the_end() -> None:
    def fail() -> list[str]:
        raise ZeroDivisionError

    with HealthServer(("127.0.0.1", 0), metrics=lambda: b"", live=fail) as server:
        assert get(server, "/healthz")[::2] == (500, "the check itself failed\n")
        assert get(server, "/readyz")[0] == 200


def test_it_is_one_thread_whatever_the_number_of_connections(server: HealthServer) -> None:
    with ExitStack() as stack:
        before = threading.active_count()
        for _ in range(10):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        get(server, "/healthz")
        assert threading.active_count() == before


def ends_within_a_second(live: Check, path: str) -> None:
    with ExitStack() as stack:
        server = HealthServer(("127.0.0.1", 0), metrics=lambda: b"", live=live)
        with server:
            connection = stack.enter_context(
                socket.create_connection(("127.0.0.1", server.port), timeout=30)
            )
            connection.sendall(f"GET {path} HTTP/1.1\r\n".encode())
            time.sleep(0.1)
            begun = time.monotonic()
        assert time.monotonic() - begun < 1.1


def test_it_ends_at_once_with_connections_open() -> None:
    ends_within_a_second(lambda: (), "/healthz")


def test_it_gives_its_port_back() -> None:
    with HealthServer(("127.0.0.1", 0), metrics=lambda: b"") as server:
        get(server, "/healthz")
        port = server.port
    with HealthServer(("127.0.0.1", port), metrics=lambda: b"") as server:
        assert get(server, "/healthz")[0] == 200


def test_a_check_that_hangs_does_not_keep_the_process() -> None:
    release = threading.Event()

    def hang() -> list[str]:
        release.wait(20)
        return []

    server = HealthServer(("127.0.0.1", 0), metrics=lambda: b"", live=hang)
    with server:
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        connection.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        time.sleep(0.1)
        begun = time.monotonic()
    assert time.monotonic() - begun < 1.5
    connection.close()
    release.set()
    server._thread.join()
    server._stack.close()


@pytest.mark.parametrize("address", [("192.0.2.1", 0), ("not a name", 80), ("127.0.0.1", 99999)])
def test_where_it_cannot_listen_it_says_so(address: tuple[str, int]) -> None:
    with (
        pytest.raises(UsageError, match="cannot listen on"),
        HealthServer(address, metrics=lambda: b""),
    ):
        pass


def test_a_port_in_use_is_named(server: HealthServer) -> None:
    with (
        pytest.raises(UsageError, match="address already in use"),
        HealthServer(("127.0.0.1", server.port), metrics=lambda: b""),
    ):
        pass


def test_ipv6_is_an_address_too() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        with pytest.raises(UsageError), HealthServer(("::1", 0), metrics=lambda: b""):
            pass
        return
    with HealthServer(("::1", 0), metrics=lambda: b"") as server:
        connection = http.client.HTTPConnection("::1", server.port, timeout=30)
        with closing(connection):
            connection.request("GET", "/healthz")
            assert connection.getresponse().status == 200
