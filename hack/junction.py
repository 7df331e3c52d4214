"""What a Service is to an API server: one address, behind which are several pods."""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import threading
from typing import TYPE_CHECKING, Self, final

if TYPE_CHECKING:
    from collections.abc import Sequence

_SECONDS = 10.0


@final
class Junction:
    """Listens on a port of loopback and passes connections on to ``ports``, one after the other.

    A port that refuses is passed over, as a pod is that is not ready. When one side of a connection
    ends, so does the other.
    """

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = itertools.cycle(ports)
        self._count = len(ports)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: dict[threading.Thread, socket.socket] = {}
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._lock = threading.Lock()
        #: How many connections there have been.
        self.connections = 0
        #: How many of them a pod ended that had been sent something, and had not answered yet.
        self.cut = 0

    def __enter__(self) -> Self:
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        _shut(self._listener)
        self._accepting.join(_SECONDS)
        self._listener.close()
        self.hang_up()

    def hang_up(self) -> None:
        """End all connections, and return when they are: whoever comes again makes a new one."""
        for thread, near in list(self._open.items()):
            _shut(near)
            thread.join(_SECONDS)
            self._open.pop(thread, None)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self.connections += 1
                thread = threading.Thread(target=self._serve, args=(near,), daemon=True)
                self._open[thread] = near
                thread.start()

    def _serve(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError), self._connect() as far:
            is_asked = False
            while True:
                for source in select.select([near, far], [], [])[0]:
                    data = _read(source)
                    if source is near and not data:
                        return
                    # What cannot be passed on was sent all the same, and the pod is gone.
                    is_gone = not data if source is far else not _send(far, data)
                    if is_gone:
                        with self._lock:
                            self.cut += is_asked or source is near or _has_more(near)
                        return
                    is_asked = source is near
                    if source is far:
                        near.sendall(data)

    def _connect(self) -> socket.socket:
        """Return a connection to the next port that takes one. Raises ``OSError`` for none."""
        for port in itertools.islice(self._ports, self._count - 1):
            with contextlib.suppress(OSError):
                return socket.create_connection(("127.0.0.1", port))
        return socket.create_connection(("127.0.0.1", next(self._ports)))


def _read(source: socket.socket) -> bytes:
    """Return what came, b"" where the other side is gone, in whatever way."""
    try:
        return source.recv(1 << 16)
    except OSError:
        return b""


def _has_more(source: socket.socket) -> bool:
    """Return whether something else has come already."""
    return bool(select.select([source], [], [], 0)[0]) and bool(_read(source))


def _send(target: socket.socket, data: bytes) -> bool:
    try:
        target.sendall(data)
    except OSError:
        return False
    return True


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
