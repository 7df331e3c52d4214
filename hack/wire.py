"""A TCP proxy to a server of a test, on a port of its own, that can be made to misbehave."""

from __future__ import annotations

import contextlib
import functools
import socket
import struct
import threading
from typing import TYPE_CHECKING, Self, final

if TYPE_CHECKING:
    from collections.abc import Callable


@final
class Wire:
    """What a network does between a client and ``url``, an ``https://HOST:PORT``."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("https://").split(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        #: Bytes from the API server after which the connection is reset.
        self.cut_after: int | None = None
        #: Whether what comes from the API server is held back.
        self.held = threading.Event()
        self._threads: list[threading.Thread] = []
        self._ends: list[socket.socket] = []
        self._stopping = threading.Event()

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self.close()
        for end in self._ends:
            self._shut(end)
        for thread in self._threads:
            thread.join(5)
            if thread.is_alive():
                message = "a wire's thread does not end"
                raise TimeoutError(message)
        for end in self._ends:
            end.close()

    def close(self) -> None:
        """Stop listening: whoever connects is refused."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _start(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
            except OSError:
                return
            self._ends += (near, far)
            self._start(functools.partial(self._pump, near, far, answers=False))
            self._start(functools.partial(self._pump, far, near, answers=True))

    @staticmethod
    def _shut(end: socket.socket) -> None:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)

    def _pump(self, source: socket.socket, target: socket.socket, *, answers: bool) -> None:
        count = 0
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 14):
                while answers and self.held.is_set() and not self._stopping.wait(0.02):
                    pass
                count += len(data)
                if answers and self.cut_after is not None and count > self.cut_after:
                    linger = struct.pack("ii", 1, 0)
                    target.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    self._shut(source)
                    with contextlib.suppress(OSError):
                        target.shutdown(socket.SHUT_RD)  # the other thread lets go of it
                    target.close()
                    return
                target.sendall(data)
        self._shut(target)
