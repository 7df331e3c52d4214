"""The webhook's server with a certificate of its own, and clients, for tests and measurements.

Run as a program it serves one of ``HANDLES`` until its standard input ends: an echo that reads the
review and answers without a patch, or the decision itself. It prints its port, and then whatever
is asked for: ``rss`` gives its resident memory in MiB, ``counts`` what became of connections and
requests.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import subprocess
import sys
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, final

from hack.bench_admission import instance
from sevkit.kubevirt.installation import UNKNOWN
from sevkit.kubevirt.policy import DEFAULT
from sevkit.kubevirt.tiers import Tier
from sevkit.observe.metrics import Metrics
from sevkit.pki import create_authority
from sevkit.secret import Secret
from webhooks.gauges import Gauges
from webhooks.reviews import Reviewer
from webhooks.server import Limits, Outcome, Request, Response, Server
from webhooks.tls import Pair, load_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from webhooks.server import Handle

ROOT: Final = Path(__file__).resolve().parent.parent
HOST: Final = "127.0.0.1"
PATH: Final = "/mutate/snp"
PATHS: Final = (PATH, "/mutate/sev")
PATIENCE: Final = 30.0
#: A review of a VMI as KubeVirt has defaulted it: 6 KiB.
REVIEW: Final = json.dumps(
    {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "kubevirt.io", "version": "v1", "kind": "VirtualMachineInstance"},
            "namespace": "bench",
            "operation": "CREATE",
            "object": instance(),
        },
    },
    separators=(",", ":"),
).encode()
_JSON: Final = {"Content-Type": "application/json"}


def echo(request: Request) -> Response:
    """Read the review, and admit without a patch: what any webhook does at least."""
    try:
        review = json.loads(request.body)
    except ValueError:
        return Response(400, b"no JSON\n", "text/plain")
    answer = {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {"uid": review["request"]["uid"], "allowed": True},
    }
    return Response(200, json.dumps(answer).encode())


@final
class Cluster:
    """Of which everything is known at once: nodes for every tier, and no KubeVirt object."""

    installation: Final = UNKNOWN

    def runnable(self, *, simulated: bool) -> frozenset[Tier]:
        """Return every tier."""
        del simulated
        return frozenset(Tier)


HANDLES: Final[Mapping[str, Handle]] = {
    "echo": echo,
    "decide": Reviewer(lambda: DEFAULT, Cluster(), Gauges(Metrics())),
}


@final
class Identity:
    """A CA and what it issues for the server."""

    def __init__(self) -> None:
        self._authority: Final = create_authority(
            "webhook", lifetime=timedelta(days=1), now=datetime.now(UTC)
        )
        self.certificate: Final = self._authority.certificate
        #: Trusts this CA alone, and offers what an API server offers.
        self.client: Final = ssl.create_default_context(cadata=self.certificate.decode())
        self.client.set_alpn_protocols(["http/1.1"])

    def pair(self, *names: str, lifetime: timedelta = timedelta(hours=1)) -> Pair:
        """Return a new pair, by default for loopback."""
        leaf = self._authority.issue(
            names or (HOST, "localhost"), lifetime=lifetime, now=datetime.now(UTC)
        )
        return Pair(leaf.certificate, Secret(leaf.key.reveal()))

    def connect(self, address: tuple[str, int]) -> ssl.SSLSocket:
        """Return a TLS connection that sends at once what it is given, as Go's do."""
        raw = socket.create_connection(address, timeout=PATIENCE)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.client.wrap_socket(raw, server_hostname=HOST)


@final
class Running:
    """A server in a thread of its own, from entry to exit, and clients that trust it."""

    def __init__(
        self,
        handle: Handle = echo,
        *,
        limits: Limits | None = None,
        identity: Identity | None = None,
        context: Callable[[], ssl.SSLContext | None] | None = None,
    ) -> None:
        self.identity: Final = identity or Identity()
        self.counts: Final[Counter[Outcome]] = Counter()
        loaded = load_pair(self.identity.pair(), datetime.now(UTC)).context
        self.server: Final = Server(
            handle,
            context or (lambda: loaded),
            (HOST, 0),
            paths=PATHS,
            limits=limits or Limits(drain=0),
            count=lambda outcome: self.counts.update([outcome]),
        )
        self.stop: Final = threading.Event()
        self._failed: BaseException | None = None
        self._thread: Final = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self.server.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self.server.__exit__(None, None, None)

    def end(self) -> None:
        """Ask the server to stop, and wait until it has."""
        self.stop.set()
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            message = "the server does not end"
            raise TimeoutError(message)
        if self._failed:
            raise self._failed

    def _run(self) -> None:
        try:
            self.server.run(self.stop)
        except BaseException as error:  # noqa: BLE001  # told where the test can see it
            self._failed = error

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return (HOST, self.server.port)

    def connect(self) -> ssl.SSLSocket:
        """Return a TLS connection to it."""
        return self.identity.connect(self.address)

    @contextlib.contextmanager
    def client(self) -> Iterator[http.client.HTTPSConnection]:
        """Lend a connection that keeps alive."""
        connection = http.client.HTTPSConnection(
            *self.address, context=self.identity.client, timeout=PATIENCE
        )
        with contextlib.closing(connection):
            yield connection


def post(
    client: http.client.HTTPConnection,
    body: bytes = REVIEW,
    *,
    target: str = f"{PATH}?timeout=10s",
    method: str = "POST",
    headers: dict[str, str] | None = None,
) -> tuple[int, bytes]:
    """Return status and body of one request."""
    client.request(method, target, body=body, headers=_JSON if headers is None else headers)
    response = client.getresponse()
    return response.status, response.read()


def head(length: int, *, target: str = f"{PATH}?timeout=10s") -> bytes:
    """Return the head of a POST whose body has ``length`` bytes."""
    return (
        f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def read_all(connection: socket.socket) -> bytes:
    """Return what comes until the other side hangs up, in whatever way."""
    data = b""
    with contextlib.suppress(OSError):
        while piece := connection.recv(1 << 16):
            data += piece
    return data


@final
class Process:
    """The same in a process of its own, for what is measured; ``handle`` is one of ``HANDLES``."""

    def __init__(self, folder: Path, handle: str = "echo") -> None:
        self.identity: Final = Identity()
        pair = self.identity.pair()
        (folder / "pair.pem").write_bytes(pair.certificate)
        (folder / "pair.key").write_bytes(pair.key.reveal())
        self._stderr: Final = folder / "stderr"
        with self._stderr.open("wb") as stderr:
            self._process: Final = subprocess.Popen(
                [sys.executable, "-m", "hack.webhook_scene", str(folder), handle],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        self.port: Final = int(self._ask(""))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def connect(self) -> ssl.SSLSocket:
        """Return a TLS connection to it."""
        return self.identity.connect((HOST, self.port))

    def rss(self) -> float:
        """Return its resident memory in MiB."""
        return float(self._ask("rss"))

    def complaints(self) -> str:
        """Return what it has said on standard error."""
        return self._stderr.read_text()

    def counts(self) -> Counter[str]:
        """Return what became of connections and requests."""
        return Counter(json.loads(self._ask("counts")))

    def _ask(self, word: str) -> str:
        if self._process.stdin is None or self._process.stdout is None:
            message = "the process has no pipes"
            raise RuntimeError(message)
        if word:
            self._process.stdin.write(f"{word}\n")
            self._process.stdin.flush()
        return self._process.stdout.readline()


def resident() -> float:
    """Return this process' resident memory in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / (1 << 20)


def main() -> None:
    """Serve until standard input ends."""
    folder = Path(sys.argv[1])
    pair = Pair((folder / "pair.pem").read_bytes(), Secret((folder / "pair.key").read_bytes()))
    context = load_pair(pair, datetime.now(UTC)).context
    counts: Counter[Outcome] = Counter()
    stop = threading.Event()
    server = Server(
        HANDLES[sys.argv[2]],
        lambda: context,
        (HOST, 0),
        paths=PATHS,
        limits=Limits(drain=0, grace=1),
        count=lambda outcome: counts.update([outcome]),
    )
    with server:
        thread = threading.Thread(target=server.run, args=(stop,))
        thread.start()
        print(server.port, flush=True)
        for line in sys.stdin:
            print(resident() if line == "rss\n" else json.dumps(counts), flush=True)
        stop.set()
        thread.join()


if __name__ == "__main__":
    main()
