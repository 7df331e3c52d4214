"""``/metrics``, ``/healthz`` and ``/readyz`` over plain HTTP, in one thread, bounded.

    with HealthServer(("10.0.0.7", 8080), metrics=metrics.exposition, ready=check) as server:
        ...

Theory of operation. One thread selects over the listening socket and at most ``CONNECTIONS``
others, none of which ever blocks it. A connection is read until its request's head is whole,
answered, half-closed, and drained until the other side hangs up; after some seconds it is closed
wherever it is. Where a new connection finds the table full, the oldest makes room: whoever holds
many connections open holds only his own, and the kubelet's probe still gets its answer.

A check returns what is wrong, one line each; none means well. Checks and metrics are asked in
the server's thread and have to be quick.
"""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self, final

from sevkit.observe.listening import listen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    Check = Callable[[], Sequence[str]]

CONNECTIONS: Final = 32
SECONDS: Final = 5.0
HEAD_LIMIT: Final = 8192
_BACKLOG: Final = 128
_STOP_SECONDS: Final = 1.0
_CHUNK: Final = 1 << 14
_END: Final = re.compile(rb"\r?\n\r?\n")
_PLAIN: Final = "text/plain; charset=utf-8"
_METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


def always_well() -> Sequence[str]:
    """Return nothing wrong: the check of what has none."""
    return ()


@final
@dataclass(slots=True, eq=False)
class _Peer:
    """One connection: what it has sent of its head, and what is still to be sent to it."""

    connection: socket.socket
    deadline: float
    head: bytearray = field(default_factory=bytearray)
    rest: memoryview = field(default_factory=lambda: memoryview(b""))
    answered: bool = False


@final
class HealthServer:
    """Listens on ``address`` (host or IP, and port; 0 for any) while it is entered.

    ``live`` and ``ready`` are what ``/healthz`` and ``/readyz`` ask; ``seconds`` bound each
    connection. Raises ``UsageError`` where it cannot listen.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        metrics: Callable[[], bytes],
        live: Check = always_well,
        ready: Check = always_well,
        seconds: float = SECONDS,
    ) -> None:
        self._address: Final = address
        self._metrics: Final = metrics
        self._seconds: Final = seconds
        self._checks: Final = {"/healthz": live, "/readyz": ready}
        self._stopping: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._serve, name="health", daemon=True)
        self._peers: Final[dict[socket.socket, _Peer]] = {}
        self._stack: Final = contextlib.ExitStack()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        port: int = self._listener.getsockname()[1]
        return port

    def __enter__(self) -> Self:
        self._listener = self._stack.enter_context(listen(self._address, backlog=_BACKLOG))
        ours, theirs = socket.socketpair()
        self._alarm = self._stack.enter_context(ours)
        self._bell = self._stack.enter_context(theirs)
        self._selector = self._stack.enter_context(selectors.DefaultSelector())
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._alarm.send(b"!")
        self._thread.join(_STOP_SECONDS)
        if not self._thread.is_alive():  # else a check hangs, and its thread dies with the process
            self._stack.close()

    def _serve(self) -> None:
        while not self._stopping.is_set():
            ends = [peer.deadline for peer in self._peers.values()]
            wait = None if not ends else max(min(ends) - time.monotonic(), 0)
            for key, _ in self._selector.select(wait):
                if key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.data, _Peer) and key.data.connection in self._peers:
                    self._go_on(key.data)
            now = time.monotonic()
            for peer in [peer for peer in self._peers.values() if peer.deadline <= now]:
                self._drop(peer)
        for peer in list(self._peers.values()):
            self._drop(peer)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            # Gone again, or no descriptors left; what is waiting for a close gets one.
            if self._peers:
                self._drop(next(iter(self._peers.values())))
            else:
                self._stopping.wait(0.1)
            return
        connection.setblocking(False)  # noqa: FBT003  # socket's own signature
        if len(self._peers) >= CONNECTIONS:
            self._drop(next(iter(self._peers.values())))
        peer = _Peer(connection, time.monotonic() + self._seconds)
        self._peers[connection] = peer
        self._selector.register(connection, selectors.EVENT_READ, peer)

    def _drop(self, peer: _Peer) -> None:
        del self._peers[peer.connection]
        self._selector.unregister(peer.connection)
        peer.connection.close()

    def _go_on(self, peer: _Peer) -> None:
        try:
            if peer.rest:
                self._write(peer)
                return
            data = peer.connection.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._drop(peer)
            return
        if not data:
            self._drop(peer)
        elif not peer.answered:
            peer.head += data
            # With or without carriage returns; a body after the head is not looked at.
            ended = _END.search(peer.head)
            if ended or len(peer.head) > HEAD_LIMIT:
                peer.rest = memoryview(self._answer(peer.head[: ended.end() if ended else None]))
                peer.answered = True
                self._selector.modify(peer.connection, selectors.EVENT_WRITE, peer)

    def _write(self, peer: _Peer) -> None:
        peer.rest = peer.rest[peer.connection.send(peer.rest) :]
        if not peer.rest:
            # What is unread when a socket is closed would take back what was written: drain it.
            peer.connection.shutdown(socket.SHUT_WR)
            self._selector.modify(peer.connection, selectors.EVENT_READ, peer)

    def _answer(self, head: bytearray) -> bytes:
        if len(head) > HEAD_LIMIT:
            return _response(431)
        words = head.split(b"\n", 1)[0].decode("latin-1").split()
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _response(400)
        method, target, _ = words
        if method not in {"GET", "HEAD"}:
            return _response(405)
        try:
            whole = self._content(target.partition("?")[0])
        except Exception:  # noqa: BLE001  # a check that fails is an answer, not the server's end
            whole = _response(500, "the check itself failed")
        return whole if method == "GET" else whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"

    def _content(self, path: str) -> bytes:
        if path == "/metrics":
            return _response(200, self._metrics(), kind=_METRICS)
        check = self._checks.get(path)
        if check is None:
            return _response(404)
        wrong = check()
        return _response(503, "\n".join(wrong)) if wrong else _response(200, "ok")


def _response(status: int, content: str | bytes = "", *, kind: str = _PLAIN) -> bytes:
    text = content or _REASONS[status].lower()
    body = text if isinstance(text, bytes) else f"{text}\n".encode("utf-8", "replace")
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\nX-Content-Type-Options: nosniff\r\n"
        f"{'Allow: GET, HEAD' if status == 405 else 'Cache-Control: no-store'}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
