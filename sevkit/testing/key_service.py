"""A simulated key service: AMD's addresses over HTTPS on loopback, with faults on demand.

    with SimulatedKeyService(provider) as service:
        KeyService(service.base_url, ca=service.ca).fetch(resource)

``provider`` is asked for each ``Resource`` and returns its bytes, or None for 404. Each connection
has a thread of its own; leaving the context ends them all, also those that a fault holds.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import tempfile
import threading
import urllib.parse
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from typing import TYPE_CHECKING, Any, Final, Self, final

from sevkit.abi.product import ProductLine
from sevkit.abi.tcb import TcbVersion
from sevkit.abi.vek import VekKind
from sevkit.errors import SevkitError
from sevkit.kds import urls
from sevkit.kds.content import CRLS
from sevkit.kds.encoding import encode_pem_certificate
from sevkit.kds.urls import Kind
from sevkit.pki import create_authority
from sevkit.testing.key_service_faults import Fault, play

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from sevkit.kds.urls import Resource
    from sevkit.testing.snp_report import SimulatedChip

    Provider = Callable[[Resource], bytes | None]

_LINE_TARGET: Final = re.compile(r"/(vcek|vlek)/v1/(Milan|Genoa|Turin)/(cert_chain|crl)")
_VCEK_TARGET: Final = re.compile(r"/vcek/v1/(Milan|Genoa|Turin)/([0-9a-fA-F]{16,128})")
_CEK_TARGET: Final = re.compile(r"/cek/id/([0-9a-fA-F]{128})")
_LIFETIME: Final = timedelta(days=30)


def parse_target(target: str) -> Resource | None:
    """Return what a request's path and query ask for, or None: what AMD answers with 404.

    Numbers may have one to three digits, parameters any order, as with AMD's service.
    """
    path, _, query = target.partition("?")
    try:
        if found := _LINE_TARGET.fullmatch(path):
            make = urls.chain if found[3] == "cert_chain" else urls.crl
            return None if query else make(ProductLine(found[2]), vlek=found[1] == "vlek")
        if found := _CEK_TARGET.fullmatch(path):
            return None if query else urls.cek(bytes.fromhex(found[1]))
        if found := _VCEK_TARGET.fullmatch(path):
            tcb = _parse_tcb_query(query)
            return tcb and urls.vcek(ProductLine(found[1]), bytes.fromhex(found[2]), tcb)
    except (SevkitError, ValueError):
        return None
    return None


def _parse_tcb_query(query: str) -> TcbVersion | None:
    names = {spl: name for name, spl in urls.SPL_NAMES.items()}
    found: dict[str, int] = {}
    for word in query.split("&"):
        spl, _, number = word.partition("=")
        name = names.get(spl)
        if name is None or name in found or not re.fullmatch(r"[0-9]{1,3}", number):
            return None
        found[name] = int(number)
    if not found.keys() >= {"bootloader", "tee", "snp", "microcode"}:
        return None
    return TcbVersion(**found)


def chip_provider(*chips: SimulatedChip) -> Provider:
    """Return a provider of the VCEKs of simulated chips, and of their lines' chains and lists.

    A line's chain and list are those of the roots of its first chip.
    """
    veks = {
        urls.vcek(chip.line, chip.hardware_id, chip.tcb): chip
        for chip in chips
        if chip.kind is VekKind.VCEK
    }
    roots = {chip.line: chip.roots for chip in reversed(chips)}

    def provide(resource: Resource) -> bytes | None:
        chip = veks.get(resource)
        if chip is not None:
            return chip.vek()
        if resource.line is None or resource.line not in roots:
            return None
        of_line = roots[resource.line]
        if resource.kind is Kind.VCEK_CHAIN:
            return b"".join(map(encode_pem_certificate, (of_line.ask, of_line.ark)))
        if resource.kind is Kind.VLEK_CHAIN:
            return b"".join(map(encode_pem_certificate, (of_line.asvk, of_line.ark)))
        return of_line.make_crl() if resource.kind in CRLS else None

    return provide


@dataclass(slots=True)
class _Rule:
    pattern: re.Pattern[str]
    fault: Fault
    left: int | None


@final
class SimulatedKeyService:
    """A key service on loopback, on a port of its own choice. Use it as a context manager.

    ``ca`` is PEM of the authority behind its TLS certificate. Faults are added while it runs.
    """

    def __init__(self, provider: Provider, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._provider: Final = provider
        self._lock: Final = threading.Lock()
        self._rules: Final[list[_Rule]] = []
        self._targets: Final[list[str]] = []
        self._stopping: Final = threading.Event()
        now = datetime.now(UTC)
        authority = create_authority("sevkit simulated key service", lifetime=_LIFETIME, now=now)
        self.ca: Final = authority.certificate
        leaf = authority.issue([host], lifetime=_LIFETIME, now=now)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory(prefix="sevkit-key-service-") as folder:
            # ssl reads keys from files only; the folder is 0700 and gone when the key is loaded.
            pair = Path(folder, "pair.pem")
            pair.write_bytes(leaf.key.reveal() + leaf.certificate)
            context.load_cert_chain(pair)
        self._server: Final = _Server((host, port), context, self)
        self._thread: Final = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    @property
    def base_url(self) -> str:
        """The address to give as ``--kds-url``."""
        host, port = self._server.server_address[:2]
        return f"https://{host!s}:{port}"

    @property
    def targets(self) -> tuple[str, ...]:
        """The path and query of every request so far, in order."""
        with self._lock:
            return tuple(self._targets)

    def count(self, pattern: str = "") -> int:
        """Return how many requests so far match the regular expression ``pattern``."""
        return sum(bool(re.search(pattern, target)) for target in self.targets)

    def fail(self, fault: Fault, *, pattern: str = "", times: int | None = None) -> None:
        """Answer with ``fault`` where the target matches ``pattern``, ``times`` times or always.

        The oldest fault that fits and is not used up is taken.
        """
        with self._lock:
            self._rules.append(_Rule(re.compile(pattern), fault, times))

    def heal(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._rules.clear()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()
        self._thread.join()

    @property
    def stopping(self) -> threading.Event:
        """Set when the service is being left; a fault that holds a connection waits on it."""
        return self._stopping

    def take_fault(self, target: str) -> Fault | None:
        """Count a request and return the fault that it is to meet, if any."""
        with self._lock:
            self._targets.append(target)
            for rule in self._rules:
                if rule.left != 0 and rule.pattern.search(target):
                    rule.left = None if rule.left is None else rule.left - 1
                    return rule.fault
        return None

    def answer(self, target: str) -> bytes | None:
        """Return what the provider has for ``target``."""
        resource = parse_target(target)
        return None if resource is None else self._provider(resource)


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = True
    request_queue_size = 64

    def __init__(
        self, address: tuple[str, int], context: ssl.SSLContext, service: SimulatedKeyService
    ) -> None:
        self.context: Final = context
        self.service: Final = service
        self._lock: Final = threading.Lock()
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
    server: _Server

    def setup(self) -> None:
        # The handshake happens here, in the connection's own thread, so that a client that is
        # silent holds only itself.
        self.request.settimeout(self.timeout)
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
