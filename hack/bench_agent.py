"""What the node agent costs a node: memory, a probe's time, and processor time in an hour.

Memory is of the real process with its Kubernetes sink and its metrics, after publications to an
API server of ours, beside a bare urllib3 process that asks the same server once, and beside the
limit that node-feature-discovery's worker is given. Times are of the real code in this process.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import http.server
import json
import os
import random
import signal
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, final

from hack.ports import free_port
from hack.started import Started
from node_agent.agent import Agent
from node_agent.observer import Gauges, Watcher
from sevkit.host.capabilities import decide
from sevkit.host.probe import probe_host
from sevkit.host.sources import open_host
from sevkit.kubevirt.labels import NodeWord
from sevkit.observe.metrics import Metrics
from sevkit.pki import create_authority
from sevkit.testing.host import with_defects, write_host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sevkit.cluster.errors import Contested
    from sevkit.cluster.events import Event

ROOT: Final = Path(__file__).resolve().parent.parent
MIB: Final = 1 << 20
#: Bounds: MiB of the whole process, seconds of a probe, seconds of an hour.
MEMORY: Final = 55.0
PROBE: Final = 0.005
HOUR: Final = 1.0
#: MiB that node-feature-discovery's chart asks for its worker, and grants it.
NFD_WORKER: Final = 64.0
PUBLICATIONS: Final = 5
STEPS: Final = 400
_PATIENCE: Final = 30.0
_NODE: Final = "bench"
#: What a node is like beside its labels: names of images are most of it.
_IMAGES: Final = [
    {"names": [f"registry.example/some/image@sha256:{number:064x}"], "sizeBytes": 123_456_789}
    for number in range(50)
]


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value, in ``unit``; ``bound`` is None where it is only told beside others."""

    name: str
    value: float
    unit: str
    bound: float | None = None

    @property
    def kept(self) -> bool:
        """Whether the bound holds."""
        return self.bound is None or self.value <= self.bound

    def line(self) -> str:
        """Return it for people."""
        bound = "" if self.bound is None else f"  of {self.bound:g}"
        return (
            f"{self.name:<52} {self.value:9.3f} {self.unit}{bound}{'' if self.kept else '  BROKEN'}"
        )


@final
class ApiServer(Started):
    """HTTPS on loopback that answers for one node as an API server does, and counts its writes."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder: Final = folder
        self.patches = 0
        self._node: Final[dict[str, Any]] = {
            "metadata": {"name": _NODE, "uid": "u", "resourceVersion": "1", "labels": {}},
            "status": {"capacity": {"cpu": "64"}, "images": _IMAGES},
        }

    def _start(self) -> None:
        authority = create_authority("bench", lifetime=timedelta(days=1), now=datetime.now(UTC))
        leaf = authority.issue(["127.0.0.1"], lifetime=timedelta(days=1), now=datetime.now(UTC))
        pair = self._folder / "pair.pem"
        pair.write_bytes(leaf.key.reveal() + leaf.certificate)
        self.ca = authority.certificate
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        server.socket = context.wrap_socket(server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        self._stack.callback(thread.join)
        self._stack.callback(server.shutdown)
        self._stack.callback(server.server_close)

    def kubeconfig(self) -> Path:
        """Write the file that leads here, and return its path."""
        cluster = {
            "server": self.url,
            "certificate-authority-data": base64.b64encode(self.ca).decode(),
        }
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "bench",
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
            "clusters": [{"name": "bench", "cluster": cluster}],
            "users": [{"name": "bench", "user": {"token": "bench"}}],
        }
        path = self._folder / "kubeconfig"
        path.write_text(json.dumps(document))
        return path

    def answer(self, method: str, path: str, body: bytes) -> bytes:
        """Return the node, after what is applied to it; events are taken and forgotten."""
        if "/events" in path:
            return b"{}"
        if method == "PATCH":
            sent = json.loads(body)
            for place in ("labels", "annotations"):
                self._node["metadata"].setdefault(place, {}).update(sent["metadata"][place])
            self._node["status"]["capacity"].update(sent["status"]["capacity"])
            self.patches += 1
        return json.dumps(self._node).encode()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                content = server.answer(self.command, self.path, data)
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PATCH = do_POST = _answer  # noqa: N815  # http.server's names

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # as there
                pass

        return Handler


#: Asks the server once over the same TLS as the agent, and stays.
_BARE: Final = """
import sys, time, urllib3
pool = urllib3.PoolManager(ca_certs=sys.argv[2])
pool.request("GET", sys.argv[1] + "/api/v1/nodes/bench").json()
print("ready", flush=True)
time.sleep(60)
"""


def resident(pid: int) -> float:
    """Return a process' resident memory in MiB."""
    text = Path(f"/proc/{pid}/status").read_text()
    line = next(one for one in text.splitlines() if one.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


@final
class _Child:
    """A process that ends with its context."""

    def __init__(self, *words: str, stdout: int = subprocess.DEVNULL) -> None:
        self.process: Final = subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, stdout=stdout, stderr=subprocess.DEVNULL
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not is_so():
        if time.monotonic() > deadline:
            message = "the agent does not do what it is measured at"
            raise TimeoutError(message)
        time.sleep(0.02)


def agent_memory(server: ApiServer, root: Path) -> float:
    """Return the MiB of an agent that has published several times, with its metrics read."""
    port = free_port()
    parameter = root / "sys/module/kvm_amd/parameters/sev_snp"
    words = (
        *("-m", "node_agent", "--kubeconfig", str(server.kubeconfig()), "--node-name", _NODE),
        *("--host-root", str(root), "--listen", f"127.0.0.1:{port}"),
        *("--start-spread", "0", "--interval", "3600"),
    )
    with _Child(*words) as child:
        _until(lambda: server.patches >= 1)
        for number in range(2, PUBLICATIONS + 1):
            parameter.unlink()
            parameter.write_text("YN"[number % 2 == 0] + "\n")
            os.kill(child.process.pid, signal.SIGHUP)
            _until(lambda: server.patches >= number)  # noqa: B023  # within this turn
        for path in ("/metrics", "/healthz", "/readyz") * 3:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
            with contextlib.closing(connection):
                connection.request("GET", path)
                connection.getresponse().read()
        time.sleep(0.5)
        return resident(child.process.pid)


def bare_memory(server: ApiServer, folder: Path) -> float:
    """Return the MiB of a process with urllib3 alone that asked once."""
    (folder / "ca.pem").write_bytes(server.ca)
    words = ("-c", _BARE, server.url, str(folder / "ca.pem"))
    with _Child(*words, stdout=subprocess.PIPE) as child:
        if child.process.stdout is None or child.process.stdout.readline() != b"ready\n":
            message = "the bare process did not get its answer"
            raise RuntimeError(message)
        return resident(child.process.pid)


def memory_figures(folder: Path) -> Iterator[Figure]:
    """Yield the agent's memory, and what there is to hold it against."""
    root = folder / "host"
    write_host(with_defects("genoa", ["guests-running"]), root)
    with ApiServer(folder) as server:
        agent, bare = agent_memory(server, root), bare_memory(server, folder)
    yield Figure("agent, Kubernetes sink and metrics, resident", agent, "MiB", MEMORY)
    yield Figure("bare urllib3 process, resident", bare, "MiB")
    yield Figure("agent beside bare urllib3", agent / bare, "times")
    yield Figure("agent beside the limit of NFD's worker", agent / NFD_WORKER, "times", 1.0)


class _Still:
    """A sink that is always content, so that only what goes before it is measured."""

    def recall(self) -> NodeWord:
        return NodeWord()

    def holds(self, word: NodeWord) -> bool:
        return bool(word)

    def publish(self, word: NodeWord, *, whole: bool) -> tuple[Contested, ...]:
        del word, whole
        return ()

    def tell(self, event: Event) -> None:
        del event


def probe_figures(folder: Path) -> Iterator[Figure]:
    """Yield the time of a probe, beside reading the same files and nothing else."""
    root = folder / "host"
    write_host(with_defects("genoa", ["guests-running"]), root)
    files = [str(path) for path in root.rglob("*") if path.is_file()]

    def probe() -> None:
        with open_host(str(root)) as source:
            decide(probe_host(source))

    def raw() -> None:
        for name in files:
            with open(name, "rb", buffering=0) as file:  # noqa: PTH123  # as little as can be
                file.read()

    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(STEPS):
        for task, seconds in zip((probe, raw), times, strict=True):
            start = time.perf_counter()
            task()
            seconds.append(time.perf_counter() - start)
    one, floor = map(statistics.median, times)
    yield Figure("one probe", one * 1e3, "ms", PROBE * 1e3)
    yield Figure(f"one probe beside reading the tree's {len(files)} files", one / floor, "times")


def hour_figures(folder: Path) -> Iterator[Figure]:
    """Yield the processor time of an hour's steps, with metrics, where nothing changes."""
    root = folder / "host"
    write_host(with_defects("genoa", ["guests-running"]), root)
    watcher = Watcher()
    watcher.gauges = Gauges(Metrics())

    def probe() -> Any:  # noqa: ANN401  # capabilities
        with open_host(str(root)) as source:
            return decide(probe_host(source))

    agent = Agent(probe, _Still(), watcher, random=random.Random(1))  # noqa: S311  # a schedule
    now = agent.step(0.0)
    start, begun = time.process_time(), now
    for _ in range(STEPS):
        now = agent.step(now)
    spent = time.process_time() - start
    yield Figure("processor time in an hour", spent / (now - begun) * 3600, "s", HOUR)


#: Every set of figures.
FIGURES: Final[tuple[Callable[[Path], Iterator[Figure]], ...]] = (
    memory_figures,
    probe_figures,
    hour_figures,
)


def measure() -> Iterator[Figure]:
    """Yield every figure; each set has a folder of its own."""
    for figures in FIGURES:
        with tempfile.TemporaryDirectory() as folder:
            yield from figures(Path(folder))


def main() -> int:
    """Print the figures; a broken bound makes the exit code 1."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "").parse_args()
    kept = True
    for figure in measure():
        print(figure.line(), flush=True)
        kept = kept and figure.kept
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
