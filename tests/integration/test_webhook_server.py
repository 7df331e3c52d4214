"""The webhook's server over real sockets, and clients that want to stop it."""

from __future__ import annotations

import contextlib
import http.client
import json
import resource
import socket
import struct
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest

from hack.webhook_scene import (
    HOST,
    PATH,
    PATIENCE,
    REVIEW,
    Process,
    Running,
    echo,
    head,
    post,
    read_all,
)
from webhooks.exchange import Outcome, Request, Response
from webhooks.limits import Guest, Guests, Limits
from webhooks.protocol import Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: Shorter than in production, so that tests end soon.
BRISK: Final = Limits(
    greeting=0.6, head=0.5, body=0.6, answering=0.6, idle=30, closing=0.5, drain=0, grace=3
)
MIB: Final = 1 << 20


@pytest.fixture
def running() -> Iterator[Running]:
    with Running() as opened:
        yield opened


@pytest.fixture
def brisk() -> Iterator[Running]:
    with Running(limits=BRISK) as opened:
        yield opened


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def seconds_until_closed(connection: socket.socket) -> float:
    begun = time.monotonic()
    read_all(connection)
    return time.monotonic() - begun


def raw(running: Running, data: bytes) -> bytes:
    """Return the whole answer to bytes on a new TLS connection."""
    with running.connect() as connection:
        with contextlib.suppress(OSError):  # closed before all is sent
            connection.sendall(data)
        return read_all(connection)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ")[1])


def test_a_review_is_decided_and_the_connection_is_kept(running: Running) -> None:
    with running.client() as client:
        for _ in range(3):
            status, body = post(client)
            assert (status, json.loads(body)["response"]["allowed"]) == (200, True)
            assert client.sock is not None
    until(lambda: running.counts == {Outcome.DECIDED: 3})


def test_the_decision_is_told_what_was_asked() -> None:
    seen: list[Request] = []

    def note(request: Request) -> Response:
        seen.append(request)
        return Response(200, b"{}")

    with Running(note) as running, running.client() as client:
        kind = {"Content-Type": "Application/JSON; charset=utf-8"}
        assert post(client, b"body", target=f"{PATH}?timeout=5s&x=%20y", headers=kind)[0] == 200
    (request,) = seen
    assert request == Request(PATH, b"body")


@pytest.mark.parametrize(
    ("method", "target", "kind", "status"),
    [
        ("GET", PATH, "application/json", 405),
        ("PUT", PATH, "application/json", 405),
        ("BREW", PATH, "application/json", 405),
        ("HEAD", PATH, "application/json", 405),
        ("POST", "/", "application/json", 404),
        ("POST", "/mutate/snp/", "application/json", 404),
        ("POST", "/mutate//snp", "application/json", 404),
        ("POST", "/mutate/../mutate/snp", "application/json", 404),
        ("POST", "/mutate/snp%00", "application/json", 404),
        ("POST", PATH, "", 415),
        ("POST", PATH, "text/json", 415),
        ("POST", PATH, "application/json2", 415),
        ("POST", PATH, "multipart/form-data; boundary=application/json", 415),
    ],
)
def test_what_cannot_be_a_review_is_refused_by_its_head(
    running: Running, method: str, target: str, kind: str, status: int
) -> None:
    with running.client() as client:
        assert (
            post(client, method=method, target=target, headers={"Content-Type": kind})[0] == status
        )
        assert post(client)[0] == 200  # on a new connection
    assert running.counts[Outcome.DECIDED] == 1


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"POST /mutate/snp\r\n\r\n",
        b"POST /mutate/snp SPDY/3\r\n\r\n",
        b"POST /mutate/snp HTTP/1.1\r\n\r\n",
        b"POST /mutate/snp HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /mutate/snp HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /mutate/snp HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"POST /mutate/snp HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"\x00" * 100 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
def test_what_is_no_request_gets_400_and_nothing_else_happens(
    running: Running, data: bytes
) -> None:
    assert status_of(raw(running, data)) == 400
    assert running.counts == {Outcome.MALFORMED: 1}
    with running.client() as client:
        assert post(client)[0] == 200


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize(
    "data",
    [
        head(2)[:-2] + b"X" + b"y" * 70000 + b": z\r\n\r\n{}",
        head(2)[:-2] + b"x: y\r\n" * 20000 + b"\r\n{}",
        head(2, target=f"{PATH}?{'a' * 70000}") + b"{}",
    ],
    ids=["long name", "many", "long query"],
)
def test_a_head_that_is_too_large_is_refused_however_it_comes(
    running: Running, data: bytes, pieces: int
) -> None:
    with running.connect() as connection, contextlib.suppress(OSError):
        for start in range(0, len(data), len(data) // pieces + 1):
            connection.sendall(data[start : start + len(data) // pieces + 1])
            time.sleep(0.05)
        assert status_of(connection.recv(4096)) in {400, 431}
    assert running.counts.keys() <= {Outcome.MALFORMED, Outcome.HEAD_LARGE}
    assert running.counts.total() == 1


def test_a_body_that_breaks_off_its_chunks_is_no_request(running: Running) -> None:
    start = b"POST /mutate/snp HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    answer = raw(running, start + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n")
    assert status_of(answer) == 400
    until(lambda: running.counts == {Outcome.MALFORMED: 1, Outcome.GONE: 1})


def test_a_chunked_body_and_one_in_single_bytes_are_put_together(running: Running) -> None:
    start = b"POST /mutate/snp HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in (REVIEW[:9], REVIEW[9:]))
    data = (
        start + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    )
    assert status_of(raw(running, data)) == 200
    small = json.dumps({"request": {"uid": "u"}}).encode()
    with running.connect() as connection:
        for byte in head(len(small)) + small:
            connection.sendall(bytes([byte]))
        assert status_of(connection.recv(4096)) == 200


def test_a_client_that_waits_for_leave_to_send_its_body_gets_it(running: Running) -> None:
    with running.connect() as connection:
        connection.sendall(head(len(REVIEW))[:-2] + b"Expect: 100-continue\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 100")
        connection.sendall(REVIEW)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")


def test_pipelined_requests_are_answered_in_order() -> None:
    with Running(lambda request: Response(200, request.body)) as running:
        bodies = [b"%04d" % number for number in range(200)]
        data = b"".join(head(4) + body for body in bodies[:-1])
        last = head(4).replace(b"Host: x", b"Host: x\r\nConnection: close") + bodies[-1]
        answers = raw(running, data + last).split(b"HTTP/1.1 200")[1:]
        assert [answer[-4:] for answer in answers] == bodies


def test_a_large_body_is_read_and_a_too_large_one_is_not(running: Running) -> None:
    filler = b" " * (3 * MIB - len(REVIEW))
    with running.client() as client:
        assert post(client, REVIEW + filler)[0] == 200
    with running.connect() as connection:
        connection.sendall(head(3 * MIB + 1))  # and not one byte of the body
        assert status_of(connection.recv(4096)) == 413
    assert running.counts[Outcome.TOO_LARGE] == 1


def test_who_goes_on_sending_what_is_refused_is_cut_off(running: Running) -> None:
    with running.connect() as connection:
        begun = time.monotonic()
        with pytest.raises(OSError):  # noqa: PT011  # a reset, in whichever words
            connection.sendall(head(60 * MIB) + b"x" * (60 * MIB))
        assert time.monotonic() - begun < 3
    with running.client() as client:
        assert post(client)[0] == 200


def test_a_chunked_body_is_too_large_once_it_is(running: Running) -> None:
    start = b"POST /mutate/snp HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    chunk = b"%x\r\n%b\r\n" % (MIB, b"x" * MIB)
    with running.connect() as connection:
        connection.sendall(start + b"Transfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(OSError):
            for _ in range(30):
                connection.sendall(chunk)
        assert read_all(connection)[9:12] in {b"413", b""}  # a reset may overtake it
    until(lambda: running.counts == {Outcome.TOO_LARGE: 1})


@pytest.mark.parametrize(
    ("start", "outcome", "limit"),
    [
        (b"", Outcome.HEAD_SLOW, BRISK.head),
        (b"P", Outcome.HEAD_SLOW, BRISK.head),
        (head(9)[:-2], Outcome.HEAD_SLOW, BRISK.head),
        (head(9), Outcome.BODY_SLOW, BRISK.body),
        (head(9) + b"12345678", Outcome.BODY_SLOW, BRISK.body),
    ],
    ids=["silence", "one byte", "half a head", "no body", "body but a byte"],
)
def test_who_does_not_go_on_is_closed(
    brisk: Running, start: bytes, outcome: Outcome, limit: float
) -> None:
    with brisk.connect() as connection:
        connection.sendall(start)
        assert limit - 0.2 < seconds_until_closed(connection) < limit + 1
    until(lambda: brisk.counts[outcome] == 1)


@pytest.mark.parametrize("start", [b"", head(100000)], ids=["head", "body"])
def test_a_byte_now_and_then_buys_no_time(brisk: Running, start: bytes) -> None:
    with brisk.connect() as connection:
        connection.sendall(start)
        begun = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - begun < PATIENCE:
                connection.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() - begun < 2


def test_silence_and_garbage_before_tls_end_soon(brisk: Running) -> None:
    with socket.create_connection(brisk.address, timeout=PATIENCE) as silent:
        assert BRISK.greeting - 0.2 < seconds_until_closed(silent) < BRISK.greeting + 1
    for garbage in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00" + b"\xff" * 600,
        b"\x80" * 9,
    ):
        with socket.create_connection(brisk.address, timeout=PATIENCE) as connection:
            connection.sendall(garbage)
            assert seconds_until_closed(connection) < 2
    with socket.create_connection(brisk.address, timeout=PATIENCE) as connection:
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b""
    until(lambda: brisk.counts == {Outcome.HANDSHAKE: 5})
    until(lambda: brisk.server.connections == 0)


def test_who_reads_no_answers_is_closed_and_holds_nobody_up() -> None:
    large = b"x" * (4 * MIB)
    with Running(lambda _: Response(200, large), limits=BRISK) as running:
        lazy = socket.socket()
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.settimeout(PATIENCE)
        lazy.connect(running.address)
        with running.identity.client.wrap_socket(lazy, server_hostname=HOST) as connection:
            connection.sendall((head(2) + b"{}") * 20)
            with running.client() as client:
                assert post(client)[0] == 200
            until(lambda: running.counts[Outcome.ANSWER_SLOW] == 1)
            until(lambda: running.server.connections <= 1)


def test_a_client_that_hangs_up_leaves_nothing(running: Running) -> None:
    reset = struct.pack("ii", 1, 0)
    for data in (b"", head(9), head(9) + b"123", head(len(REVIEW)) + REVIEW, head(3 * MIB)):
        for abrupt in (True, False):
            with running.connect() as connection:
                connection.sendall(data)
                if abrupt:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                else:
                    socket.socket.shutdown(connection, socket.SHUT_WR)  # and no word of TLS
                    read_all(connection)
    until(lambda: running.server.connections == 0)
    with running.client() as client:
        assert post(client)[0] == 200


def open_hostile(running: Running, number: int) -> socket.socket:
    """Return one of four kinds of connections that will never come to an end by themselves."""
    connection: socket.socket
    if number % 4 >= 2:
        connection = running.connect()
        sent = head(1000)[: 1000 if number % 4 == 3 else 20]
    else:
        connection = socket.create_connection(running.address, timeout=PATIENCE)
        sent = b"\x16\x03\x01" * (number % 4)
    with contextlib.suppress(OSError):  # has made room for others already
        connection.sendall(sent)
    return connection


def test_a_thousand_half_open_connections_keep_nobody_out(running: Running) -> None:
    waits = []
    with ExitStack() as stack:
        for number in range(1000):
            stack.enter_context(contextlib.closing(open_hostile(running, number)))
            if number % 5 == 0:
                with running.client() as client:
                    begun = time.monotonic()
                    assert post(client)[0] == 200
                    waits.append(time.monotonic() - begun)
    assert running.counts[Outcome.DECIDED] == 200
    assert sorted(waits)[-3] < 1
    assert running.server.connections <= Limits().connections


def test_who_is_known_keeps_his_connection_while_a_thousand_come(running: Running) -> None:
    with running.client() as client, ExitStack() as stack:
        assert post(client)[0] == 200
        known = client.sock
        for number in range(1000):
            stack.enter_context(contextlib.closing(open_hostile(running, number)))
            if number % 50 == 0:
                assert post(client)[0] == 200
        assert client.sock is known
    assert running.counts[Outcome.EVICTED] > 500


def test_bodies_that_are_never_whole_make_room_for_one_that_is() -> None:
    limits = Limits(held=4 * MIB, drain=0)
    with Running(limits=limits) as running, ExitStack() as stack:
        for _ in range(20):
            slow = stack.enter_context(running.connect())
            with contextlib.suppress(OSError):
                slow.sendall(head(2 * MIB) + b"x" * MIB)
        filler = b" " * MIB
        with running.client() as client:
            assert post(client, REVIEW + filler)[0] == 200
        assert running.counts[Outcome.EVICTED] >= 15


def test_too_many_at_once_are_asked_to_come_again() -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(request: Request) -> Response:
        entered.set()
        leave.wait(PATIENCE)
        return echo(request)

    with Running(slow, limits=Limits(waiting=3, drain=0)) as running, ExitStack() as stack:
        connections = [stack.enter_context(running.connect()) for _ in range(8)]
        connections[0].sendall(head(len(REVIEW)) + REVIEW)
        assert entered.wait(PATIENCE)
        for connection in connections[1:]:
            connection.sendall(head(len(REVIEW)) + REVIEW)
        time.sleep(0.2)
        leave.set()
        answers = [connection.recv(1 << 16) for connection in connections]
        statuses = sorted(status_of(answer) for answer in answers)
        busy = [answer for answer in answers if b" 429 " in answer]
        assert statuses[:3] == [200, 200, 200]
        assert statuses[-1] == 429
        assert all(b"retry-after: 1\r\n" in one and b"connection: close" in one for one in busy)
        assert running.counts[Outcome.BUSY] == len(busy) > 0


def test_a_decision_that_would_come_too_late_is_not_made() -> None:
    entered = threading.Event()

    def slow(request: Request) -> Response:
        entered.set()
        time.sleep(1.2)
        return echo(request)

    target = f"{PATH}?timeout=1s"
    with Running(slow) as running, running.connect() as first, running.connect() as second:
        first.sendall(head(len(REVIEW)) + REVIEW)
        second.sendall(head(len(REVIEW), target=target) + REVIEW[:-1])
        assert entered.wait(PATIENCE)
        second.sendall(REVIEW[-1:])
        assert status_of(first.recv(4096)) == 200
        assert status_of(second.recv(4096)) == 503
        assert running.counts == {Outcome.DECIDED: 1, Outcome.LATE: 1}


def test_a_decision_that_fails_is_500_and_told_once_without_what_was_asked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(request: Request) -> Response:
        raise ValueError(request.body)

    with Running(fail) as running, running.client() as client:
        for _ in range(3):
            assert post(client, b'"a secret of the tenant"')[0] == 500
    assert running.counts == {Outcome.FAILED: 3}
    (record,) = caplog.records
    assert record.getMessage() == "internal error, a bug"
    assert "ValueError at" in vars(record)["where"]
    assert "tenant" not in str(vars(record))


def test_a_bug_outside_of_decisions_is_told_once_and_ends_only_its_connection(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Protocol.data_received

    def fail(self: Protocol, data: bytes) -> None:
        if b"break" in data:
            raise ValueError(data)
        real(self, data)

    monkeypatch.setattr(Protocol, "data_received", fail)
    with Running() as running:
        for _ in range(3):
            raw(running, b"break, a secret of the tenant")
        with running.client() as client:
            assert post(client)[0] == 200
    (record,) = caplog.records
    assert record.getMessage() == "internal error, a bug"
    assert "ValueError at" in vars(record)["where"]
    assert "tenant" not in str(vars(record))


def test_a_bug_in_the_application_is_counted_and_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_self: Guests, _guest: Guest) -> None:
        raise KeyError

    monkeypatch.setattr(Guests, "release", fail)
    with Running() as running, running.client() as client:
        assert post(client)[0] == 500
        assert running.counts == {Outcome.FAILED: 1}
        monkeypatch.undo()
    (record,) = caplog.records
    assert "KeyError at" in vars(record)["where"]


def test_nothing_that_a_client_does_is_logged(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    raw(running, b"nonsense\r\n\r\n")
    upgrade = b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert status_of(raw(running, head(len(REVIEW))[:-2] + upgrade + REVIEW + b"!\r\n\r\n")) == 200
    with socket.create_connection(running.address) as connection:
        connection.sendall(b"nonsense" * 100)
        read_all(connection)
    until(lambda: running.counts.total() >= 2)
    running.end()
    assert caplog.records == []


def test_without_a_descriptor_for_a_newcomer_somebody_makes_room(running: Running) -> None:
    with ExitStack() as stack:
        for number in range(20):
            stack.enter_context(contextlib.closing(open_hostile(running, number)))
        until(lambda: running.server.connections == 20)
        newcomer = stack.enter_context(socket.socket())  # before there are no more
        newcomer.settimeout(PATIENCE)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (newcomer.fileno() + 1, hard))
        try:
            newcomer.connect(running.address)
            until(lambda: running.counts[Outcome.EVICTED] > 0)
            assert running.server.is_accepting
            assert running.server.connections <= 20
            with running.identity.client.wrap_socket(newcomer, server_hostname=HOST) as connection:
                connection.sendall(head(len(REVIEW)) + REVIEW)
                assert status_of(connection.recv(4096)) == 200
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_a_certificate_a_connection_is_closed_at_once() -> None:
    with Running(context=lambda: None) as running:
        with socket.create_connection(running.address, timeout=PATIENCE) as connection:
            assert seconds_until_closed(connection) < 2
        assert running.server.connections == 0


def load(running: Running, stop: threading.Event, failures: list[str], done: list[int]) -> None:
    """Ask until told to stop, as an API server does: no new connection once nothing leads here."""
    count = 0
    client: http.client.HTTPSConnection | None = None
    while not stop.is_set() and (client or running.server.is_accepting):
        client = client or http.client.HTTPSConnection(
            *running.address, context=running.identity.client, timeout=PATIENCE
        )
        try:
            client.request("POST", PATH, body=REVIEW, headers={"Content-Type": "application/json"})
            response = client.getresponse()
            response.read()
        except (OSError, http.client.HTTPException) as error:
            failures.append(repr(error))
            break
        count += response.status == 200
        if response.will_close:
            client.close()
            client = None
    done.append(count)
    if client:
        client.close()


def test_a_stop_under_load_loses_nothing() -> None:
    failures: list[str] = []
    done: list[int] = []
    never = threading.Event()
    with Running(limits=Limits(drain=1, grace=5)) as running:
        until(lambda: running.server.is_accepting)
        threads = [
            threading.Thread(target=load, args=(running, never, failures, done)) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        until(lambda: running.counts[Outcome.DECIDED] > 50)
        begun = time.monotonic()
        running.end()
        assert time.monotonic() - begun < 5
        for thread in threads:
            thread.join(PATIENCE)
        assert failures == []
        assert sum(done) == running.counts[Outcome.DECIDED] > 50
        with pytest.raises(OSError):  # noqa: PT011  # refused
            socket.create_connection(running.address)


def test_while_it_drains_it_accepts_and_closes_after_each_answer() -> None:
    with Running(limits=Limits(drain=2)) as running, running.client() as kept:
        assert post(kept)[0] == 200
        running.stop.set()
        until(lambda: not running.server.is_accepting)
        for _ in range(3):
            kept.request("POST", PATH, body=REVIEW, headers={"Content-Type": "application/json"})
            response = kept.getresponse()
            assert (response.status, response.headers["Connection"]) == (200, "close")
            response.read()  # and the next is on a new connection


def test_a_request_that_has_begun_is_answered_before_the_end() -> None:
    with Running(limits=Limits(drain=0, grace=PATIENCE)) as running, running.connect() as slow:
        slow.sendall(head(len(REVIEW)) + REVIEW[:100])
        time.sleep(0.1)
        with running.connect() as half:
            half.sendall(head(len(REVIEW))[:30])
            time.sleep(0.1)
            running.stop.set()
            time.sleep(0.4)
            half.sendall(head(len(REVIEW))[30:] + REVIEW)
            slow.sendall(REVIEW[100:])
            assert status_of(read_all(slow)) == 200
            assert status_of(read_all(half)) == 200
        running.end()


def test_the_end_does_not_wait_for_the_hostile() -> None:
    limits = Limits(drain=0, grace=0.5)
    with Running(limits=limits) as running, ExitStack() as stack:
        for number in range(40):
            stack.enter_context(contextlib.closing(open_hostile(running, number)))
        begun = time.monotonic()
        running.end()
        assert time.monotonic() - begun < 2.5
        assert running.server.connections == 0


def hostile_round(process: Process, number: int) -> None:
    """Be hostile in one of seven ways."""
    way = number % 7
    if way == 0:
        with socket.create_connection((HOST, process.port), timeout=PATIENCE) as connection:
            connection.sendall(b"\x16\x03\x01" + b"\xff" * 600)
        return
    words = {
        1: b"nonsense\r\n\r\n",
        2: head(4 * MIB) + b"x" * 5000,
        3: head(100) + b"{" * 100,
        4: head(100, target=f"/{number}"),
        5: head(MIB) + b"x" * 200_000,
        6: head(len(REVIEW)) + REVIEW,  # and then reset: the answer is not read to its end
    }
    with process.connect() as tls, contextlib.suppress(OSError):
        tls.sendall(words[way])
        if way != 5:
            tls.recv(100)


def test_memory_does_not_grow_with_hostile_requests(
    tmp_path: Path, soak: Callable[[int], int]
) -> None:
    total = max(soak(10_000), 700)
    with Process(tmp_path) as process:
        for number in range(700):  # what is allocated once is allocated then
            hostile_round(process, number)
        before = process.rss()
        for number in range(total):
            hostile_round(process, number)
        assert process.rss() - before < 10
        client = http.client.HTTPSConnection(
            HOST, process.port, context=process.identity.client, timeout=PATIENCE
        )
        with contextlib.closing(client):
            assert post(client)[0] == 200
        assert process.counts()["malformed"] > 0
        assert process.complaints() == ""
