"""Answers line by line over real TLS: bounded in size and silence, ended by other threads."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Self, TypeAlias, final

import pytest

from sevkit.cluster.access import Access
from sevkit.cluster.api import METADATA, Call
from sevkit.cluster.connection import Connection
from sevkit.cluster.errors import BadAnswer, Gone, Timeout, Unreachable
from sevkit.pki import create_authority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sevkit.documents import Json
    from sevkit.errors import ClusterError
    from sevkit.pki import CertificateAuthority

WATCH: Final = Call("GET", "/api/v1/nodes", (("watch", "true"),), limit=1000, accept=METADATA)
HEAD: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
END: Final = b"0\r\n\r\n"
HOLD: Final = 60.0
DAY: Final = timedelta(days=1)

#: Bytes to send, and seconds to wait between them.
Part: TypeAlias = "bytes | float"


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


@final
class Speaker:
    """HTTPS on loopback that answers each request with ``parts``, whatever was asked."""

    def __init__(self, authority: CertificateAuthority, folder: Path) -> None:
        self.parts: list[Part] = []
        self.requests: list[bytes] = []
        self.connections = 0
        self.silent = False  # in the place of a handshake
        self._stopping = threading.Event()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        leaf = authority.issue(["127.0.0.1"], lifetime=DAY, now=datetime.now(UTC))
        (folder / "pair.pem").write_bytes(leaf.key.reveal() + leaf.certificate)
        self._context.load_cert_chain(folder / "pair.pem")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()

    def _accept(self) -> None:
        while True:
            try:
                bare, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._threads.append(threading.Thread(target=self._serve, args=(bare,), daemon=True))
            self._threads[-1].start()

    def _serve(self, bare: socket.socket) -> None:
        bare.settimeout(0.1)
        with contextlib.suppress(OSError), bare:
            if self.silent:
                self._stopping.wait(HOLD)
                return
            bare.settimeout(None)
            with self._context.wrap_socket(bare, server_side=True) as connection:
                connection.settimeout(0.1)
                while not self._stopping.is_set():
                    with contextlib.suppress(TimeoutError):
                        request = connection.recv(1 << 16)
                        if not request:
                            return
                        self.requests.append(request)
                        self._answer(connection)

    def _answer(self, connection: ssl.SSLSocket) -> None:
        for part in self.parts:
            if isinstance(part, bytes):
                connection.sendall(part)
            elif self._stopping.wait(part):
                return
        if END not in self.parts:
            connection.close()


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return create_authority("test", lifetime=DAY, now=datetime.now(UTC))


@pytest.fixture
def speaker(authority: CertificateAuthority, tmp_path: Path) -> Iterator[Speaker]:
    with Speaker(authority, tmp_path) as made:
        yield made


@pytest.fixture
def connection(authority: CertificateAuthority, speaker: Speaker) -> Iterator[Connection]:
    with Connection(Access(speaker.url, authority.certificate), seconds=10) as opened:
        yield opened


def read(connection: Connection, *, idle: float = 10) -> list[Json]:
    with connection.stream(WATCH, idle=idle) as lines:
        return list(lines)


def broken(connection: Connection, *, idle: float = 10) -> tuple[list[Json], ClusterError]:
    """Return the lines that came, and the error that ended them."""
    found: list[Json] = []
    with pytest.raises((BadAnswer, Timeout, Unreachable)) as caught:  # noqa: PT012,SIM117  # as read
        with connection.stream(WATCH, idle=idle) as lines:
            for line in lines:
                found.append(line)  # noqa: PERF402  # what came before the error stays
    return found, caught.value


def test_lines_come_whole_however_they_are_cut(speaker: Speaker, connection: Connection) -> None:
    speaker.parts = [
        HEAD,
        chunk(b'{"a": 1}\n{"b"'),
        0.05,
        chunk(b": 2}"),
        0.05,
        chunk(b'\n{"c": "\xc3'),
        0.05,
        chunk(b'\xa4"}\n'),
        END,
    ]
    assert read(connection) == [{"a": 1}, {"b": 2}, {"c": "ä"}]
    assert b"as=PartialObjectMetadata;g=meta.k8s.io;v=v1\r\n" in speaker.requests[0]


def test_each_line_comes_before_the_next_is_there(speaker: Speaker, connection: Connection) -> None:
    speaker.parts = [HEAD, chunk(b"1\n"), chunk(b"2\n"), HOLD]
    begun = time.monotonic()
    with connection.stream(WATCH, idle=30) as lines:
        assert list(itertools.islice(lines, 2)) == [1, 2]
    assert time.monotonic() - begun < 5


def test_a_connection_whose_stream_ended_is_kept_and_one_left_early_is_not(
    speaker: Speaker, connection: Connection
) -> None:
    speaker.parts = [HEAD, chunk(b"1\n"), END]
    assert [read(connection) for _ in range(3)] == [[1]] * 3
    assert speaker.connections == 1
    with connection.stream(WATCH, idle=30) as lines:
        assert next(lines) == 1
    assert read(connection) == [1]
    assert speaker.connections == 2


def test_a_stream_lasts_longer_than_a_request_may(
    authority: CertificateAuthority, speaker: Speaker
) -> None:
    slow: list[Part] = [0.3, chunk(b"1\n")]
    speaker.parts = [HEAD, *slow * 5, END]
    with Connection(Access(speaker.url, authority.certificate), seconds=1) as connection:
        assert read(connection, idle=1) == [1] * 5


def test_silence_ends_in_time(speaker: Speaker, connection: Connection) -> None:
    speaker.parts = [HEAD, chunk(b"1\n"), HOLD]
    begun = time.monotonic()
    found, error = broken(connection, idle=0.4)
    assert (found, type(error)) == ([1], Timeout)
    assert 0.3 < time.monotonic() - begun < 5


def test_a_line_that_drips_ends_in_time_too(speaker: Speaker, connection: Connection) -> None:
    drop: list[Part] = [chunk(b" "), 0.1]
    speaker.parts = [HEAD, *drop * 100]
    begun = time.monotonic()
    found, error = broken(connection, idle=0.5)
    assert (found, type(error)) == ([], Timeout)
    assert time.monotonic() - begun < 5


def test_a_head_that_never_comes_ends_as_a_request_does(
    authority: CertificateAuthority, speaker: Speaker
) -> None:
    speaker.parts = [HOLD]
    with Connection(Access(speaker.url, authority.certificate), seconds=0.5) as connection:
        assert broken(connection, idle=60)[1].message == "API server did not answer in time"


@pytest.mark.parametrize("parts", [[b"1" * 1001 + b"\n"], [b"1" * 900, b"1" * 200], [b"1" * 70000]])
def test_a_line_that_is_too_long_is_not_taken(
    speaker: Speaker, connection: Connection, parts: list[bytes]
) -> None:
    speaker.parts = [HEAD, chunk(b"1\n"), *map(chunk, parts), HOLD]
    found, error = broken(connection)
    assert (found, type(error)) == ([1], BadAnswer)
    assert "line of more than 1000 bytes" in error.message


def test_a_line_as_long_as_allowed_is_taken_and_so_are_many_in_one_chunk(
    speaker: Speaker, connection: Connection
) -> None:
    line = b'"' + b"x" * 998 + b'"\n'
    speaker.parts = [HEAD, chunk(line * 50), END]
    assert read(connection) == ["x" * 998] * 50


@pytest.mark.parametrize(
    ("parts", "kind", "message"),
    [
        ([HEAD, chunk(b"1\n"), chunk(b'{"a"')], Unreachable, "broke off"),
        ([HEAD, chunk(b"1\n"), b"ff\r\n{"], Unreachable, "broke off"),
        ([HEAD, chunk(b"1\n"), chunk(b"2"), END], Unreachable, "broke off"),
        ([HEAD, chunk(b"1\n"), b"xyz\r\n"], Unreachable, "broke off"),
        ([HEAD, chunk(b"1\n{]\n"), END], BadAnswer, "something else"),
        ([HEAD, chunk(b"1\n\xff\n"), END], BadAnswer, "not UTF-8"),
        ([HEAD, chunk(b"1\n\n"), END], BadAnswer, "something else"),
    ],
    ids=["line", "chunk", "last line", "no chunk", "no JSON", "no text", "empty line"],
)
def test_what_breaks_off_or_is_no_line_is_told_after_what_was_good(
    speaker: Speaker,
    connection: Connection,
    parts: list[Part],
    kind: type[ClusterError],
    message: str,
) -> None:
    speaker.parts = parts
    found, error = broken(connection)
    assert (found, type(error)) == ([1], kind)
    assert message in error.message


def test_a_head_that_breaks_off_is_no_empty_stream(
    speaker: Speaker, connection: Connection
) -> None:
    speaker.parts = [b"HTTP/1.1 200 OK\r\n\r\n"]
    assert isinstance(broken(connection)[1], Unreachable)


def test_a_compressed_stream_is_refused(speaker: Speaker, connection: Connection) -> None:
    speaker.parts = [HEAD[:-2] + b"Content-Encoding: gzip\r\n\r\n", chunk(b"1\n"), END]
    found, error = broken(connection)
    assert (found, type(error)) == ([], BadAnswer)


def test_a_refusal_is_raised_before_the_first_line(
    speaker: Speaker, connection: Connection
) -> None:
    speaker.parts = [b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n", END]
    with pytest.raises(Gone), connection.stream(WATCH, idle=5):
        pytest.fail("there is no stream")


def interrupted(connection: Connection, act: Callable[[], object]) -> tuple[float, BaseException]:
    """Interrupt what ``act`` waits for in another thread; return how long it then took."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001  # it is looked at below
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    time.sleep(0.3)
    assert thread.is_alive()
    begun = time.monotonic()
    connection.interrupt()
    thread.join(5)
    return time.monotonic() - begun, errors[0]


@pytest.mark.parametrize(
    "parts",
    [[HOLD], [HEAD, HOLD], [HEAD, chunk(b"1\n"), HOLD], [HEAD, b"ff\r\n{", HOLD]],
    ids=["head", "first line", "next line", "half a line"],
)
def test_a_read_that_hangs_is_ended_by_another_thread(
    speaker: Speaker, connection: Connection, parts: list[Part]
) -> None:
    speaker.parts = parts
    took, error = interrupted(connection, lambda: read(connection, idle=60))
    assert took < 0.5
    assert type(error) is Unreachable


def test_a_handshake_that_hangs_is_ended_too(speaker: Speaker, connection: Connection) -> None:
    speaker.silent = True
    took, error = interrupted(connection, lambda: connection.call(WATCH))
    assert took < 0.5
    assert type(error) is Unreachable


def test_after_an_interruption_nothing_is_asked_any_more(
    speaker: Speaker, connection: Connection
) -> None:
    speaker.parts = [HEAD, chunk(b"1\n"), END]
    read(connection)
    connection.interrupt()
    for _ in range(2):
        with pytest.raises(Unreachable):
            connection.call(WATCH)
        with pytest.raises(Unreachable):
            read(connection)
    assert len(speaker.requests) == 1
