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
        #: How many connections there have been.
        self.connections = 0

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
            others = {near: far, far: near}
            while True:
                for source in select.select(list(others), [], [])[0]:
                    data = source.recv(1 << 16)
                    if not data:
                        return
                    others[source].sendall(data)

    def _connect(self) -> socket.socket:
        """Return a connection to the next port that takes one. Raises ``OSError`` for none."""
        for port in itertools.islice(self._ports, self._count - 1):
            with contextlib.suppress(OSError):
                return socket.create_connection(("127.0.0.1", port))
        return socket.create_connection(("127.0.0.1", next(self._ports)))


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
