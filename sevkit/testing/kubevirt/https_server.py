"""An HTTPS server on loopback around ``Routes``: threads, TLS, faults, no leftovers.

Each connection has a thread of its own and may carry many requests. Leaving ends them all, also
those that a fault or a watch holds.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import tempfile
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from typing import TYPE_CHECKING, Any, Final, final

from sevkit.testing.key_service_faults import play
from sevkit.testing.kubevirt import answers
from sevkit.testing.kubevirt.routes import Request

if TYPE_CHECKING:
    from sevkit.pki import ServerCertificate
    from sevkit.testing.kubevirt.answers import Answer
    from sevkit.testing.kubevirt.http_faults import HttpFaults
    from sevkit.testing.kubevirt.routes import Routes

#: Largest body that is read, in bytes: an API server takes no object of more than 1.5 MiB either.
BODY_LIMIT: Final = 2 << 20
_IDLE: Final = 60.0
_RST: Final = struct.pack("ii", 1, 0)


@final
class HttpsServer(ThreadingTCPServer):
    """Serves ``routes`` at ``address``; without a certificate it is plain HTTP."""

    allow_reuse_address = True
    daemon_threads = False  # daemons would not be waited for
    block_on_close = True
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        routes: Routes,
        faults: HttpFaults,
        certificate: ServerCertificate | None,
        stopping: threading.Event,
    ) -> None:
        self.routes: Final = routes
        self.faults: Final = faults
        self.context: Final = None if certificate is None else _context(certificate)
        self.stopping: Final = stopping
        self._lock: Final = threading.Lock()
        self._open: Final[set[socket.socket]] = set()
        super().__init__(address, _Handler)
        self._thread: Final = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    def start(self) -> None:
        """Serve in a thread of the server's own."""
        self._thread.start()

    def stop(self) -> None:
        """End every connection and wait for its thread. ``stopping`` must be set."""
        self.shutdown()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    # Not SSLSocket's own: that would change state under its handler's feet.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
        self.server_close()
        self._thread.join()

    def keep(self, connection: socket.socket) -> None:
        """Remember a connection until ``forget``; one that comes too late is refused."""
        with self._lock:
            if self.stopping.is_set():
                connection.close()
                raise ConnectionAbortedError
            self._open.add(connection)

    def forget(self, connection: socket.socket) -> None:
        """Close a connection that its handler is done with."""
        with self._lock:
            self._open.discard(connection)
        connection.close()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  # socketserver's own signature
        """Say nothing: clients that hang up or do not trust us are what this is for."""


def _context(certificate: ServerCertificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory(prefix="sevkit-kubevirt-") as folder:
        # ssl reads keys from files only; the folder is 0700 and gone when the key is loaded.
        pair = Path(folder, "pair.pem")
        pair.write_bytes(certificate.key.reveal() + certificate.certificate)
        context.load_cert_chain(pair)
    return context


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE
    disable_nagle_algorithm = True
    server: HttpsServer

    def setup(self) -> None:
        # The handshake happens here, in the connection's own thread, so that a client that is
        # silent holds only itself.
        self.request.settimeout(self.timeout)
        if self.server.context is not None:
            self.request = self.server.context.wrap_socket(
                self.request, server_side=True, do_handshake_on_connect=False
            )
        self.server.keep(self.request)
        try:
            if isinstance(self.request, ssl.SSLSocket):
                self.request.do_handshake()
        except OSError:
            self.server.forget(self.request)
            raise
        super().setup()

    def finish(self) -> None:
        super().finish()
        self.server.forget(self.request)

    def do_GET(self) -> None:
        """Answer one request, truly or as a fault wants it."""
        body = self._body()
        if len(body) > BODY_LIMIT:
            self.close_connection = True
            self._send(answers.text(413, "413: Request Entity Too Large"), b"")
            return
        fault = self.server.faults.take(f"{self.command} {self.path}")
        if fault.delay and self.server.stopping.wait(fault.delay):
            self.close_connection = True
            return
        instead = fault.reset or fault.fault is not None
        if not instead or fault.late:
            answer = self.server.routes.answer(
                Request(
                    self.command,
                    self.path,
                    body,
                    self.headers.get("Accept", ""),
                    self.headers.get("Content-Type", ""),
                )
            )
            if not instead:
                self._send(answer, fault.mutate(answer.body))
                return
        self.close_connection = True
        if fault.reset:
            option = (socket.SOL_SOCKET, socket.SO_LINGER, _RST)
            self.connection.setsockopt(*option)
            self.server.forget(self.connection)
        elif fault.fault is not None:
            play(fault.fault, self.wfile.write, self.server.stopping)

    do_PUT = do_POST = do_DELETE = do_PATCH = do_GET  # noqa: N815  # http.server's own names

    def _send(self, answer: Answer, body: bytes) -> None:
        self.send_response(answer.status)
        if answer.content_type:
            self.send_header("Content-Type", answer.content_type)
        if answer.stream is not None:
            self.close_connection = True
            self.send_header("Connection", "close")
            # As an API server does: else a stream that ended looks like one that broke off.
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for line in answer.stream:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
            self.wfile.write(b"0\r\n\r\n")
            return
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> bytes:
        """Return the body, or as much of it as shows that it is too large."""
        if "chunked" in self.headers.get("Transfer-Encoding", "").casefold():
            return self._chunks()
        length = self.headers.get("Content-Length", "0")
        wanted = int(length) if length.isdecimal() else 0
        return self.rfile.read(min(wanted, BODY_LIMIT + 1))

    def _chunks(self) -> bytes:
        body = b""
        while len(body) <= BODY_LIMIT:
            size = int(self.rfile.readline(64).partition(b";")[0], 16)
            body += self.rfile.read(size)
            self.rfile.readline(64)
            if not size:
                break
        return body

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's own name
        """Keep stderr clean."""
