"""The simulated key service's connections: HTTPS on loopback, a thread for each.

Theory of operation. The TLS handshake happens in the connection's own thread, so that a client that
is silent holds only itself. One request is read, and answered as the service says: with what it
has, or with a fault, which may also come before the handshake. ``hang_up`` ends every connection,
also those that a fault holds.
"""

from __future__ import annotations

import contextlib
import socket
import urllib.parse
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Protocol

from sevkit.testing.key_service_faults import play

if TYPE_CHECKING:
    import ssl
    from threading import Event

    from sevkit.testing.key_service_faults import Fault


class Answerer(Protocol):
    """What decides how each connection goes on."""

    @property
    def stopping(self) -> Event:
        """Set when the service is being left."""

    def take_early_fault(self) -> Fault | None:
        """Return what a new connection is to meet instead of TLS, if anything."""

    def take_fault(self, target: str) -> Fault | None:
        """Return what a request for ``target`` is to meet instead of an answer, if anything."""

    def answer(self, target: str) -> bytes | None:
        """Return what is at ``target``, or None for 404."""


class KeyServer(ThreadingTCPServer):
    """Listens on ``address`` and answers as ``service`` says."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = True
    request_queue_size = 64

    def __init__(
        self, address: tuple[str, int], context: ssl.SSLContext, service: Answerer
    ) -> None:
        self.context: Final = context
        self.service: Final = service
        self._lock: Final = Lock()
        self._open: Final[set[socket.socket]] = set()
        super().__init__(address, _Handler)

    def keep(self, connection: socket.socket) -> None:
        """Remember a connection until ``forget``."""
        with self._lock:
            self._open.add(connection)

    def forget(self, connection: socket.socket) -> None:
        """Close a connection that its handler is done with."""
        with self._lock:
            self._open.discard(connection)
        connection.close()

    def hang_up(self) -> None:
        """End every open connection, so that no handler is left in a read or write."""
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    # Not SSLSocket's own: that would change state under its handler's feet.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  # socketserver's own signature
        """Say nothing: clients that hang up or do not trust us are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    server: KeyServer

    def setup(self) -> None:
        self.request.settimeout(self.timeout)
        fault = self.server.service.take_early_fault()
        if fault is not None:
            self._refuse_tls(fault)
        self.request = self.server.context.wrap_socket(
            self.request, server_side=True, do_handshake_on_connect=False
        )
        self.server.keep(self.request)
        try:
            self.request.do_handshake()
        except OSError:
            self.server.forget(self.request)
            raise
        super().setup()

    def _refuse_tls(self, fault: Fault) -> None:
        """Play ``fault`` on the bare connection and raise."""
        self.server.keep(self.request)
        try:
            # What is unread when a socket is closed would take back what was written.
            self.request.recv(1 << 14)
            play(fault, self.request.sendall, self.server.service.stopping)
        finally:
            self.server.forget(self.request)
        raise ConnectionAbortedError

    def finish(self) -> None:
        super().finish()
        self.server.forget(self.request)

    def do_GET(self) -> None:
        """Answer one request, as provided or as a fault wants it; one request per connection."""
        self.close_connection = True
        service = self.server.service
        fault = service.take_fault(self.path)
        if fault is not None:
            play(fault, self.wfile.write, service.stopping)
            return
        data = service.answer(urllib.parse.unquote(self.path))
        status, body = (404, b"not found\n") if data is None else (200, data)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's own name
        """Keep stderr clean."""
