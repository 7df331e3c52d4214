"""An HTTPS server on loopback that answers admission reviews as a test wants them answered."""

from __future__ import annotations

import base64
import contextlib
import http.server
import ssl
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, final

from sevkit.pki import create_authority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@final
@dataclass(frozen=True, slots=True)
class Reviewer:
    """Where it is, and the authority behind its certificate, as a webhook's client config."""

    port: int
    bundle: str

    def client(self, path: str = "/") -> dict[str, Any]:
        """Return ``clientConfig`` of a webhook at ``path``."""
        return {"url": f"https://127.0.0.1:{self.port}{path}", "caBundle": self.bundle}


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answer: ClassVar[Callable[[str, bytes], bytes]]

    def do_POST(self) -> None:
        """Answer one review."""
        data = self.rfile.read(int(self.headers["Content-Length"]))
        body = type(self).answer(self.path.partition("?")[0], data)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's own name
        """Say nothing."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True


@contextlib.contextmanager
def serve_reviews(answer: Callable[[str, bytes], bytes], folder: Path) -> Iterator[Reviewer]:
    """Serve ``answer``, which takes a path and a review and returns a review, for a while."""
    now, hour = datetime.now(UTC), timedelta(hours=1)
    authority = create_authority("reviewer", lifetime=hour)
    leaf = authority.issue(["127.0.0.1"], lifetime=hour, now=now)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pair = folder / "reviewer.pem"
    pair.touch(mode=0o600)
    pair.write_bytes(leaf.key.reveal() + leaf.certificate)
    context.load_cert_chain(pair)
    handler = type("Handler", (_Handler,), {"answer": staticmethod(answer)})
    with _Server(("127.0.0.1", 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            bundle = base64.b64encode(authority.certificate).decode()
            yield Reviewer(server.server_port, bundle)
        finally:
            server.shutdown()
            thread.join(5)
