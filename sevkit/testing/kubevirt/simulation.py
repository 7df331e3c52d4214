"""Simulated KubeVirt: controllers and API, over simulated SEV hardware that really launches.

    with SimulatedKubeVirt([SimulatedHost("node-1", processor)], firmware) as kubevirt:
        kubevirt.create(vmi)
        kubevirt.wait_for("default", "one", "Scheduled")
        ...  # requests to kubevirt.base_url, trusting kubevirt.ca

By itself it has the VMIs too, at ``/apis/kubevirt.io/v1``. With ``instances`` of an API server it
leads the VMIs there, and stands behind an APIService ``v1.subresources.kubevirt.io``; ``names``
then are the DNS names under which that API server calls it. Who calls is never asked: the API
server in front does that.

What the secure processor does is real; what the host says of it may be made a lie (``lie``), and
the way to the client may be broken (``faults``).
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Self, final

from sevkit.errors import ClusterError, HostReadError, InternalError
from sevkit.pki import create_authority
from sevkit.testing.kubevirt.collection import Collection
from sevkit.testing.kubevirt.controller import Controller
from sevkit.testing.kubevirt.http_faults import HttpFaults
from sevkit.testing.kubevirt.https_server import HttpsServer
from sevkit.testing.kubevirt.instances import MemoryInstances
from sevkit.testing.kubevirt.lies import TRUTH
from sevkit.testing.kubevirt.lifecycle import LAUNCHER_JITTER, LAUNCHER_TIMEOUT, PAUSED
from sevkit.testing.kubevirt.routes import Routes
from sevkit.testing.kubevirt.subresources import Subresources
from sevkit.testing.kubevirt.vmi_status import read_status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from sevkit.secret import Secret
    from sevkit.testing.kubevirt.host import SimulatedHost
    from sevkit.testing.kubevirt.instances import Instances, Key
    from sevkit.testing.kubevirt.launch_wish import Document
    from sevkit.testing.kubevirt.launcher import Launcher
    from sevkit.testing.kubevirt.lies import Lies
    from sevkit.testing.kubevirt.lifecycle import Instance

_LIFETIME: Final = timedelta(days=30)
_POLL: Final = 0.01


@final
class SimulatedKubeVirt:
    """KubeVirt on ``hosts``; ``firmware`` maps the names of OVMF's files to their bytes.

    ``timeout`` and ``jitter`` are the seconds that a launcher waits for its domain and the range of
    what is added at random; ``clock`` counts them. ``gate`` is the feature gate
    WorkloadEncryptionSEV. ``listen`` is address and port, 0 for one of the system's choice.
    Use it as a context manager: leaving ends every guest, thread and connection. Raises
    ``HostReadError`` where it cannot listen.
    """

    def __init__(
        self,
        hosts: Sequence[SimulatedHost],
        firmware: Mapping[str, bytes],
        *,
        instances: Instances | None = None,
        timeout: float = LAUNCHER_TIMEOUT,
        jitter: int = LAUNCHER_JITTER,
        retry: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        gate: bool = True,
        get_status: bool = False,
        listen: tuple[str, int] = ("127.0.0.1", 0),
        names: Sequence[str] = (),
        tls: bool = True,
    ) -> None:
        self.hosts: Final = tuple(hosts)
        self.faults: Final = HttpFaults()
        self._memory: Final = MemoryInstances() if instances is None else None
        self._instances: Final[Instances] = self._memory or instances or MemoryInstances()
        self._lock: Final = threading.Lock()
        self._lies: Final[list[tuple[re.Pattern[str], Lies]]] = []
        self._stopping: Final = threading.Event()
        self._controller: Final = Controller(
            self._instances,
            hosts,
            firmware,
            clock=clock,
            patience=lambda: timeout + (secrets.randbelow(jitter) if jitter else 0),
            retry=retry,
            lies=self._lies_for,
        )
        subresources = Subresources(
            self._instances, self._controller, gate=gate, get_status=get_status
        )
        collection = None if self._memory is None else Collection(self._memory, self._stopping)
        now = datetime.now(UTC)
        authority = create_authority("sevkit simulated kubevirt", lifetime=_LIFETIME, now=now)
        #: PEM of the authority behind the TLS certificate.
        self.ca: Final = authority.certificate
        leaf = authority.issue([listen[0], *names], lifetime=_LIFETIME, now=now) if tls else None
        routes = Routes(subresources, collection)
        try:
            self._server: Final = HttpsServer(listen, routes, self.faults, leaf, self._stopping)
        except (OSError, OverflowError) as error:
            raise HostReadError(f"cannot listen on {listen[0]}:{listen[1]}: {error}") from error
        self._scheme: Final = "https" if tls else "http"

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    @property
    def base_url(self) -> str:
        """Where an API server would be."""
        return f"{self._scheme}://{self._server.server_address[0]!s}:{self.port}"

    def __enter__(self) -> Self:
        self._controller.start()
        self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._server.stop()
        self._controller.stop()
        if self._controller.failures and error is None:
            raise InternalError("the simulation failed") from self._controller.failures[0]

    def lie(self, lies: Lies, *, pattern: str = "") -> None:
        """Lie about the VMIs whose ``namespace/name`` matches, from now on; the last lie counts."""
        with self._lock:
            self._lies.append((re.compile(pattern), lies))

    def be_honest(self) -> None:
        """Forget all lies."""
        with self._lock:
            self._lies.clear()

    def _lies_for(self, key: Key) -> Lies:
        with self._lock:
            rows = list(self._lies)
        return next((lies for where, lies in reversed(rows) if where.search("/".join(key))), TRUTH)

    def create(self, vmi: Document) -> Document:
        """Create a VMI, where it has its own; raises ``ClusterError`` where an API server does."""
        if self._memory is None:
            raise ClusterError("the VMIs are an API server's: create them there")
        return self._memory.create(vmi)

    def delete(self, namespace: str, name: str) -> None:
        """Delete a VMI, likewise."""
        if self._memory is None:
            raise ClusterError("the VMIs are an API server's: delete them there")
        self._memory.delete(namespace, name)

    def get(self, namespace: str, name: str) -> Document | None:
        """Return a VMI as it is stored, or None."""
        return self._instances.get(namespace, name)

    def status(self, namespace: str, name: str) -> Instance | None:
        """Return what is said of a VMI, or None for no such."""
        found = self.get(namespace, name)
        return None if found is None else read_status(found)

    def launcher(self, namespace: str, name: str) -> Launcher | None:
        """Return a VMI's launcher, through which the guest itself can be looked at."""
        return self._controller.launcher((namespace, name))

    def injected(self, namespace: str, name: str) -> tuple[Secret, ...]:
        """Return the secret tables that the secure processor decrypted into a VMI's guest."""
        found = self.launcher(namespace, name)
        return () if found is None else found.injected

    def end_guest(self, namespace: str, name: str, *, crashed: bool = False) -> None:
        """Let a guest shut down, or crash."""
        found = self.launcher(namespace, name)
        if found is not None:
            found.power_off(crashed=crashed)
        self._controller.look_at((namespace, name))

    def wait_for(
        self,
        namespace: str,
        name: str,
        phase: str,
        *,
        paused: bool | None = None,
        seconds: float = 20,
    ) -> Instance:
        """Wait until a VMI is in ``phase``, paused or not if that is asked, and return its status.

        Raises ``ClusterError`` after ``seconds``, with the status that it has instead.
        """
        end = time.monotonic() + seconds
        while True:
            found = self.status(namespace, name)
            if found is not None and found.phase == phase:
                is_paused = found.condition(PAUSED.kind) is not None
                if paused in {None, is_paused}:
                    return found
            if time.monotonic() > end:
                raise ClusterError(f"{namespace}/{name} is not {phase}: {found}")
            time.sleep(_POLL)
