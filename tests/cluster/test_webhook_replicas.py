"""Two replicas under load: certificates rotate and replicas are killed, and nobody notices."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, final

import pytest

from hack.control_plane import ADMIN_TOKEN
from hack.kubevirt_cases import SEV_GATE, vmi
from hack.webhook_installed import PROBLEM, Installed, until
from sevkit.kubevirt.tiers import tier_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hack.kubevirt_cluster import KubeVirtCluster

RATE: Final = 200.0
THREADS: Final = 16
#: What Go says of a connection that the other side has ended.
ENDED: Final = ("EOF", "connection reset", "broken pipe", "idle connection", "closed connection")
#: When a replica is killed, as a share of the time, and which; a second later it is started again.
KILLS: Final = ((0.3, 0), (0.7, 1))


@pytest.fixture(scope="module")
def installed(
    kubevirt: KubeVirtCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installed]:
    kubevirt.configure(SEV_GATE)
    with Installed(kubevirt, tmp_path_factory.mktemp("webhook")) as found:
        yield found
    time.sleep(0.5)  # the API server's own copy is behind by a moment


@final
class Creator:
    """Creates VMIs at a rate, on connections that are kept, and notes what becomes of each."""

    def __init__(self, installed: Installed, namespace: str, seconds: float) -> None:
        plane = installed.cluster.plane
        self._host: Final = plane.url.removeprefix("https://")
        self._context: Final = ssl.create_default_context(cafile=str(plane.folder / "ca.pem"))
        self._path: Final = installed.cluster.path(vmi({}), namespace)
        self._total: Final = int(RATE * seconds)
        self.begun = 0.0
        self.late: list[float] = []
        self.failures: list[tuple[float, str]] = []
        self.unprotected: list[str] = []
        self._connected: Final = threading.Barrier(THREADS, self._begin, timeout=30)

    def _begin(self) -> None:
        self.begun = time.monotonic()

    def run(self) -> None:
        """Create them all."""
        with ThreadPoolExecutor(THREADS) as pool:
            for done in [pool.submit(self._work, number) for number in range(THREADS)]:
                done.result()

    def _work(self, number: int) -> None:
        connection = http.client.HTTPSConnection(self._host, context=self._context, timeout=30)
        connection.connect()
        self._connected.wait()
        for index in range(number, self._total, THREADS):
            due = self.begun + index / RATE
            time.sleep(max(0.0, due - time.monotonic()))
            self._create(connection)
            self.late.append(time.monotonic() - due)
        connection.close()

    def _create(self, connection: http.client.HTTPSConnection) -> None:
        document = vmi({})
        document["metadata"] = {"name": f"v-{uuid.uuid4().hex}"}
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": "application/json"}
        connection.request("POST", self._path, json.dumps(document), headers)
        answer = connection.getresponse()
        found: dict[str, Any] = json.loads(answer.read())
        if answer.status != 201:
            self.failures.append((time.monotonic() - self.begun, found["message"]))
        elif tier_of(found["spec"]["domain"].get("launchSecurity")) is None:
            self.unprotected.append(document["metadata"]["name"])


def kill(installed: Installed, creator: Creator, seconds: float) -> None:
    """Kill each replica at its time, and have it started again."""
    until(lambda: creator.begun > 0)
    for share, number in KILLS:
        time.sleep(max(0.0, creator.begun + share * seconds - time.monotonic()))
        installed.replicas[number].kill()
        time.sleep(1)
        installed.replicas[number].restart()


def test_no_create_fails_while_certificates_rotate_and_replicas_are_killed(
    installed: Installed,
    soak: Callable[[int], int],
    record_property: Callable[[str, object], None],
) -> None:
    seconds = float(max(soak(60), 10))
    until(lambda: all(replica.is_ready for replica in installed.replicas))
    creator = Creator(installed, installed.namespace("snp"), seconds)
    leaf = installed.secret()["tls.crt"]
    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill, installed, creator, seconds)
        creator.run()
        killing.result()
    took = time.monotonic() - creator.begun
    late = sorted(creator.late)
    record_property(
        "said",
        f"{len(late)} creates, {len(late) / took:.0f}/s, p50 {late[len(late) // 2] * 1e3:.0f} ms, "
        f"p99 {late[int(len(late) * 0.99)] * 1e3:.0f} ms, {len(creator.failures)} failed",
    )
    assert creator.unprotected == []
    # An API server asks a webhook by POST, and so asks once (k8s.io/client-go, rest/request.go):
    # what a killed replica had in its hands when it ended fails, and nothing else does.
    for share, _ in KILLS:
        moment = share * seconds
        lost = [why for at, why in creator.failures if 0 <= at - moment < 1]
        assert len(lost) <= THREADS
        assert [why for why in lost if not any(word in why for word in ENDED)] == []
        creator.failures = [one for one in creator.failures if one[1] not in lost]
    assert creator.failures == []
    assert len(late) == int(RATE * seconds)
    until(lambda: all(replica.is_ready for replica in installed.replicas))
    until(lambda: all(replica.metric(PROBLEM) == 0 for replica in installed.replicas))
    until(lambda: installed.secret()["tls.crt"] != leaf)
