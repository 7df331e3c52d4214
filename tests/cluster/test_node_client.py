"""The node client against the real API server, directly and over a wire that misbehaves."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Self, final

import pytest

from hack.control_plane import ADMIN_TOKEN
from sevkit.cluster.access import Access, FixedToken, in_cluster
from sevkit.cluster.api import Call, apply
from sevkit.cluster.connection import Connection
from sevkit.cluster.errors import (
    Conflict,
    Forbidden,
    Gone,
    NotFound,
    Rejected,
    ServerFault,
    Timeout,
    Unauthorized,
    Unreachable,
)
from sevkit.cluster.events import NodeEvent, create_event, repeat_event
from sevkit.cluster.kubeconfig import read_kubeconfig
from sevkit.cluster.nodes import (
    AGENT_MANAGER,
    NODES,
    NodeClient,
    NodeKeys,
    contested_keys,
    list_nodes,
)
from sevkit.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hack.control_plane import ControlPlane

LABELS: Final = {"sevkit.io/sev": "true", "sevkit.io/sev-snp": "false"}
ANNOTATIONS: Final = {"sevkit.io/capabilities": '{"sev": {"state": "usable"}}'}
CAPACITY: Final = {"sevkit.io/sev": "1000", "sevkit.io/sev-snp": "0"}
#: What the design allows the node agent, and nothing more.
RULES: Final = [
    {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]},
    {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
    {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
]
RBAC: Final = "/apis/rbac.authorization.k8s.io/v1"


@final
@dataclass(frozen=True, slots=True)
class Agent:
    """A pod on a node of its own, as whose service account one speaks."""

    plane: ControlPlane
    namespace: str
    node: str
    folder: Path

    @property
    def access(self) -> Access:
        """What a pod finds in its environment and its token's folder."""
        host, port = self.plane.url.removeprefix("https://").split(":")
        environ = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
        return in_cluster(environ, self.folder)

    def renew_token(self) -> None:
        """Do as the kubelet: get a token that is bound to the pod, and put it in its place."""
        admin, pods = self.plane.admin, f"/api/v1/namespaces/{self.namespace}/pods"
        uid = admin.get(f"{pods}/agent")["metadata"]["uid"]
        reference = {"kind": "Pod", "apiVersion": "v1", "name": "agent", "uid": uid}
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/default/token"
        spec = {"boundObjectRef": reference, "expirationSeconds": 600}
        token = admin.create(path, {"spec": spec})["status"]["token"]
        (self.folder / "next").write_text(token)
        (self.folder / "next").rename(self.folder / "token")

    def raw(self) -> dict[str, Any]:
        """Return the node as another client sees it."""
        found: dict[str, Any] = self.plane.admin.get(f"/api/v1/nodes/{self.node}")
        return found

    def requests(self) -> list[dict[str, Any]]:
        """Return what the audit log has of this service account so far."""
        # A request of the administrator's marks the end: the log is in order of completion.
        mark = f"mark-{uuid.uuid4().hex}"
        with contextlib.suppress(Exception):
            self.plane.admin.get(f"/api/v1/nodes/{mark}")
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            events = self.plane.audit()
            if any(mark in event["requestURI"] for event in events):
                user = f"system:serviceaccount:{self.namespace}:default"
                # Whoever could not be authenticated has no name.
                return [event for event in events if event["user"].get("username") == user]
            time.sleep(0.05)
        pytest.fail("the audit log does not have the mark")


@pytest.fixture
def agent(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[Agent]:
    admin, node = control_plane.admin, f"node-{namespace}"
    # With a label, as a kubelet makes it: only then does the API server track who owns what.
    metadata = {"name": node, "labels": {"kubernetes.io/hostname": node}}
    admin.create("/api/v1/nodes?fieldManager=kubelet", {"metadata": metadata})
    containers = [{"name": "c", "image": "i"}]
    admin.create(
        f"/api/v1/namespaces/{namespace}/pods",
        {"metadata": {"name": "agent"}, "spec": {"containers": containers, "nodeName": node}},
    )
    (tmp_path / "ca.crt").write_bytes(control_plane.ca)
    made = Agent(control_plane, namespace, node, tmp_path)
    made.renew_token()
    yield made
    with contextlib.suppress(Exception):
        admin.delete(f"/api/v1/nodes/{node}")


@pytest.fixture
def allowed(agent: Agent) -> Agent:
    """The same, with the rights that the design gives it."""
    admin, name = agent.plane.admin, agent.namespace
    admin.create(f"{RBAC}/clusterroles", {"metadata": {"name": name}, "rules": RULES})
    admin.create(
        f"{RBAC}/clusterrolebindings",
        {
            "metadata": {"name": name},
            "roleRef": {"apiGroup": RBAC.split("/")[2], "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": name}],
        },
    )
    deadline = time.monotonic() + 10
    with Connection(agent.access) as connection:
        while time.monotonic() < deadline:
            with contextlib.suppress(Forbidden):
                NodeClient(connection, agent.node).get()
                return agent
            time.sleep(0.05)
    pytest.fail("the rights never came")


@pytest.fixture
def connection(allowed: Agent) -> Iterator[Connection]:
    with Connection(allowed.access, seconds=10) as opened:
        yield opened


@pytest.fixture
def client(allowed: Agent, connection: Connection) -> NodeClient:
    return NodeClient(connection, allowed.node)


def test_labels_annotation_and_capacity_appear_in_one_patch(
    allowed: Agent, client: NodeClient
) -> None:
    before = len(allowed.requests())
    view = client.apply_status(LABELS, ANNOTATIONS, CAPACITY)
    node = allowed.raw()
    assert node["metadata"]["labels"].items() >= LABELS.items()
    assert node["metadata"]["annotations"].items() >= ANNOTATIONS.items()
    assert node["status"]["capacity"]["sevkit.io/sev"] == "1k"
    assert node["status"]["capacity"]["sevkit.io/sev-snp"] == "0"
    assert view.has(LABELS, ANNOTATIONS, CAPACITY)
    assert view.owned_by(AGENT_MANAGER) == NodeKeys(
        frozenset(LABELS), frozenset(ANNOTATIONS), frozenset(CAPACITY)
    )
    made = allowed.requests()[before:]
    assert [(event["verb"], event["objectRef"].get("subresource")) for event in made] == [
        ("patch", "status")
    ]
    assert made[0]["responseStatus"]["code"] == 200
    assert made[0]["userAgent"].startswith("sevkit/")


def test_nothing_is_asked_but_what_was_asked_for(allowed: Agent, client: NodeClient) -> None:
    client.get()
    for count in range(3):
        client.apply_status(LABELS, ANNOTATIONS, {"sevkit.io/sev": str(count)})
    paths = {event["requestURI"].partition("?")[0] for event in allowed.requests()}
    assert paths == {f"/api/v1/nodes/{allowed.node}", f"/api/v1/nodes/{allowed.node}/status"}
    assert {event["verb"] for event in allowed.requests()} == {"get", "patch"}


def test_the_status_endpoint_cannot_touch_the_spec(
    allowed: Agent, client: NodeClient, connection: Connection
) -> None:
    taint = {"key": "k", "effect": "NoExecute"}
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": allowed.node, "labels": LABELS},
        "spec": {"unschedulable": True, "taints": [taint], "podCIDR": "10.0.0.0/24"},
    }
    path = NODES.path(allowed.node, subresource="status")
    connection.call(apply(path, body, manager=AGENT_MANAGER))
    node = allowed.raw()
    assert node["metadata"]["labels"].items() >= LABELS.items()
    assert not {"unschedulable", "podCIDR"} & node["spec"].keys()
    assert taint["key"] not in {entry["key"] for entry in node["spec"].get("taints", [])}
    with pytest.raises(Forbidden, match="cannot patch resource"):
        connection.call(apply(NODES.path(allowed.node), body, manager=AGENT_MANAGER))
    assert client.get().labels.items() >= LABELS.items()


def test_a_second_equal_apply_changes_nothing(client: NodeClient) -> None:
    first = client.apply_status(LABELS, ANNOTATIONS, CAPACITY)
    time.sleep(1.1)  # managed fields carry a time in whole seconds
    again = client.apply_status(LABELS, ANNOTATIONS, {**CAPACITY, "sevkit.io/sev": "1k"})
    assert again.resource_version == first.resource_version


def test_only_what_changed_changes(client: NodeClient) -> None:
    first = client.apply_status(LABELS, ANNOTATIONS, CAPACITY)
    second = client.apply_status(
        {**LABELS, "sevkit.io/sev-snp": "true"}, ANNOTATIONS, {**CAPACITY, "sevkit.io/sev-snp": "9"}
    )
    assert second.resource_version != first.resource_version
    assert second.labels == {**first.labels, "sevkit.io/sev-snp": "true"}
    assert second.capacity == {**first.capacity, "sevkit.io/sev-snp": "9"}
    assert second.annotations == first.annotations


def test_another_managers_keys_survive(allowed: Agent, client: NodeClient) -> None:
    admin, path = allowed.plane.admin, f"/api/v1/nodes/{allowed.node}"
    admin.patch(path, {"metadata": {"labels": {"kubernetes.io/os": "linux"}}})
    admin.patch(f"{path}/status", {"status": {"capacity": {"cpu": "8"}}})
    client.apply_status(LABELS, ANNOTATIONS, CAPACITY)
    view = client.apply_status({}, {}, {})
    assert view.labels["kubernetes.io/os"] == "linux"
    assert view.capacity["cpu"] == "8"


def test_a_key_that_is_dropped_is_removed_and_no_other(client: NodeClient) -> None:
    client.apply_status(LABELS, ANNOTATIONS, CAPACITY)
    view = client.apply_status({"sevkit.io/sev": "true"}, {}, {"sevkit.io/sev": "1000"})
    assert "sevkit.io/sev-snp" not in view.labels
    assert "sevkit.io/capabilities" not in view.annotations
    assert "sevkit.io/sev-snp" not in view.capacity
    assert view.labels["sevkit.io/sev"] == "true"
    assert view.owned_by(AGENT_MANAGER) == NodeKeys(
        frozenset({"sevkit.io/sev"}), frozenset(), frozenset({"sevkit.io/sev"})
    )


def test_kubevirt_replacing_all_labels_does_not_undo_ours(
    allowed: Agent, client: NodeClient
) -> None:
    """As its node-labeller does: a JSON patch that tests and replaces the whole map."""
    view = client.apply_status(LABELS, ANNOTATIONS, CAPACITY)
    theirs = {**view.labels, "kubevirt.io/sev": ""}
    allowed.plane.admin.patch(
        f"/api/v1/nodes/{allowed.node}",
        [
            {"op": "test", "path": "/metadata/labels", "value": dict(view.labels)},
            {"op": "replace", "path": "/metadata/labels", "value": theirs},
        ],
        "json-patch+json",
    )
    after = client.apply_status({**LABELS, "sevkit.io/product": "genoa"}, ANNOTATIONS, CAPACITY)
    assert after.labels == {**theirs, "sevkit.io/product": "genoa"}
    assert after.owned_by(AGENT_MANAGER).labels == frozenset({*LABELS, "sevkit.io/product"})


def test_a_conflict_names_the_contested_keys_and_changes_nothing(
    allowed: Agent, client: NodeClient
) -> None:
    admin, path = allowed.plane.admin, f"/api/v1/nodes/{allowed.node}"
    admin.patch(
        f"{path}?fieldManager=kubectl-label",
        {"metadata": {"labels": {"sevkit.io/sev": "maybe"}, "annotations": {"sevkit.io/x": "y"}}},
    )
    admin.patch(
        f"{path}/status?fieldManager=kubelet", {"status": {"capacity": {"sevkit.io/sev": "7"}}}
    )
    before = client.get()
    annotations = {**ANNOTATIONS, "sevkit.io/x": "z"}
    with pytest.raises(Conflict) as caught:
        client.apply_status(LABELS, annotations, CAPACITY)
    assert {(one.field, one.manager) for one in caught.value.contested} == {
        (".metadata.labels.sevkit.io/sev", "kubectl-label"),
        (".metadata.annotations.sevkit.io/x", "kubectl-label"),
        (".status.capacity.sevkit.io/sev", "kubelet"),
    }
    assert contested_keys(caught.value) == NodeKeys(
        frozenset({"sevkit.io/sev"}), frozenset({"sevkit.io/x"}), frozenset({"sevkit.io/sev"})
    )
    assert client.get().resource_version == before.resource_version


def test_of_a_node_whose_owners_nobody_tracked_everything_is_contested(
    allowed: Agent, client: NodeClient
) -> None:
    admin, path = allowed.plane.admin, f"/api/v1/nodes/{allowed.node}"
    labels = {"sevkit.io/sev": "maybe", "sevkit.io/sev-snp": "false"}
    admin.patch(path, {"metadata": {"labels": labels, "managedFields": [{}]}})
    assert client.get().managers == ()
    with pytest.raises(Conflict) as caught:
        client.apply_status(LABELS, {}, {})
    found = {(one.field, one.manager) for one in caught.value.contested}
    assert found == {(".metadata.labels.sevkit.io/sev", "before-first-apply")}


def test_without_the_contested_keys_the_rest_is_applied(allowed: Agent, client: NodeClient) -> None:
    admin, path = allowed.plane.admin, f"/api/v1/nodes/{allowed.node}"
    admin.patch(path, {"metadata": {"labels": {"sevkit.io/sev": "maybe"}}})
    with pytest.raises(Conflict) as caught:
        client.apply_status(LABELS, ANNOTATIONS, CAPACITY)
    left_out = contested_keys(caught.value).labels
    rest = {name: value for name, value in LABELS.items() if name not in left_out}
    view = client.apply_status(rest, ANNOTATIONS, CAPACITY)
    assert view.labels["sevkit.io/sev"] == "maybe"
    assert view.labels["sevkit.io/sev-snp"] == "false"
    assert client.apply_status(LABELS, ANNOTATIONS, CAPACITY, force=True).has(
        LABELS, ANNOTATIONS, CAPACITY
    )


def test_a_key_with_the_same_value_is_no_conflict_and_stays_when_we_let_go(
    allowed: Agent, client: NodeClient
) -> None:
    path = f"/api/v1/nodes/{allowed.node}"
    allowed.plane.admin.patch(path, {"metadata": {"labels": {"sevkit.io/sev": "true"}}})
    client.apply_status(LABELS, {}, {})
    assert client.apply_status({}, {}, {}).labels["sevkit.io/sev"] == "true"


def test_what_the_api_server_finds_invalid_is_rejected(client: NodeClient) -> None:
    with pytest.raises(Rejected, match="a valid label must be") as caught:
        client.apply_status({"sevkit.io/sev": "no no"}, {}, {})
    assert caught.value.status == 422
    # Refused where it is parsed, which the API server calls a fault of its own.
    with pytest.raises(ServerFault, match="quantities must match"):
        client.apply_status({}, {}, {"sevkit.io/sev": "many"})


def test_a_node_that_is_gone_is_not_made(allowed: Agent, connection: Connection) -> None:
    client = NodeClient(connection, f"other-{allowed.node}")
    with pytest.raises(NotFound):
        client.get()
    with pytest.raises(NotFound):
        client.apply_status(LABELS, ANNOTATIONS, CAPACITY)
    with pytest.raises(NotFound):
        client.get()


def test_a_node_made_anew_is_told_by_its_uid_and_owns_nothing_of_ours(
    allowed: Agent, client: NodeClient
) -> None:
    first = client.apply_status(LABELS, ANNOTATIONS, CAPACITY)
    admin, path = allowed.plane.admin, f"/api/v1/nodes/{allowed.node}"
    admin.delete(path)
    admin.create("/api/v1/nodes", {"metadata": {"name": allowed.node}})
    # The pod's token stays good: it is bound to the pod.
    second = client.get()
    assert second.uid != first.uid
    assert not second.owned_by(AGENT_MANAGER)
    assert client.apply_status(LABELS, ANNOTATIONS, CAPACITY).has(LABELS, ANNOTATIONS, CAPACITY)


def test_a_bound_token_without_rights_is_forbidden_and_told_which(agent: Agent) -> None:
    with Connection(agent.access) as connection:
        client = NodeClient(connection, agent.node)
        with pytest.raises(Forbidden, match='cannot get resource "nodes"'):
            client.get()
        with pytest.raises(Forbidden, match='cannot patch resource "nodes/status"') as caught:
            client.apply_status(LABELS, {}, {})
    assert caught.value.reason == "Forbidden"


def test_a_renewed_token_is_used_at_once(allowed: Agent, client: NodeClient) -> None:
    client.get()
    (allowed.folder / "token").write_text("expired")
    with pytest.raises(Unauthorized):
        client.get()
    allowed.renew_token()
    assert client.apply_status(LABELS, {}, {}).labels["sevkit.io/sev"] == "true"


def test_an_event_is_of_the_node_and_is_counted(
    allowed: Agent, client: NodeClient, connection: Connection
) -> None:
    event = NodeEvent("CapabilityLost", "Publish", "sev-snp: off in the BIOS", "Warning")
    now = datetime.now(UTC)
    name = create_event(connection, client.get(), event, instance="agent-x", now=now)
    repeat_event(connection, name, count=2, now=now)
    # The older API shows the same event; this is what kubectl describe looks for.
    selector = f"involvedObject.name={allowed.node},involvedObject.uid={client.get().uid}"
    admin = allowed.plane.admin
    found = admin.get(f"/api/v1/namespaces/default/events?fieldSelector={selector}")["items"]
    assert [one["metadata"]["name"] for one in found] == [name]
    assert found[0]["message"] == "sev-snp: off in the BIOS"
    assert found[0]["series"]["count"] == 2
    with pytest.raises(NotFound):
        repeat_event(connection, "gone", count=2, now=now)


def test_a_fleet_comes_in_pages_and_a_list_that_is_forgotten_is_gone(
    control_plane: ControlPlane, namespace: str
) -> None:
    names = {f"fleet-{number}-{namespace}" for number in range(5)}
    for name in names:
        metadata = {"name": name, "labels": {"fleet": namespace}}
        control_plane.admin.create("/api/v1/nodes", {"metadata": metadata})
    token = FixedToken(Secret(ADMIN_TOKEN.encode()))
    with Connection(Access(control_plane.url, control_plane.ca, token)) as connection:
        found = list(list_nodes(connection, selector=f"fleet={namespace}", page=2))
        query = (("limit", "1"), ("continue", "bm90IGEgdG9rZW4="))
        with pytest.raises((Gone, Rejected)):
            connection.call(Call("GET", NODES.path(), query))
    assert {view.name for view in found} == names
    assert len(found) == 5
    for name in names:
        control_plane.admin.delete(f"/api/v1/nodes/{name}")


def test_a_kubeconfig_leads_there(control_plane: ControlPlane, agent: Agent) -> None:
    access = read_kubeconfig([control_plane.kubeconfig()])
    with Connection(access) as connection:
        assert NodeClient(connection, agent.node).get().name == agent.node


@final
class Wire:
    """A TCP proxy to the API server, on a port of its own, that can be made to misbehave."""

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
            assert not thread.is_alive()
        for end in self._ends:
            end.close()

    def close(self) -> None:
        """Stop listening: whoever connects is refused."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _start(self, target: Any, *arguments: object) -> None:  # noqa: ANN401  # a thread's target
        thread = threading.Thread(target=target, args=arguments, daemon=True)
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
            self._start(self._pump, near, far, False)
            self._start(self._pump, far, near, True)

    @staticmethod
    def _shut(end: socket.socket) -> None:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)

    def _pump(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
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


@pytest.fixture
def wire(control_plane: ControlPlane) -> Iterator[Wire]:
    with Wire(control_plane.url) as opened:
        yield opened


@pytest.fixture
def wired(allowed: Agent, wire: Wire) -> Iterator[NodeClient]:
    """A client of the node whose requests go over the wire, and have four seconds."""
    access = replace(allowed.access, server=f"https://127.0.0.1:{wire.port}")
    with Connection(access, seconds=4) as connection:
        yield NodeClient(connection, allowed.node)


def test_an_api_server_that_is_down_and_comes_back(allowed: Agent) -> None:
    with Wire(allowed.plane.url) as first:
        access = replace(allowed.access, server=f"https://127.0.0.1:{first.port}")
        with Connection(access, seconds=10) as connection:
            client = NodeClient(connection, allowed.node)
            client.get()
    with Connection(access, seconds=10) as connection:
        client = NodeClient(connection, allowed.node)
        for _ in range(3):
            with pytest.raises(Unreachable, match="refused"):
                client.apply_status(LABELS, ANNOTATIONS, CAPACITY)
    assert "sevkit.io/sev" not in allowed.raw()["metadata"].get("labels", {})


def test_a_connection_that_was_kept_and_is_closed_is_made_anew(
    wire: Wire, wired: NodeClient
) -> None:
    wired.get()
    wire.close()
    # Still open, and good for as long as it is.
    assert wired.apply_status(LABELS, {}, {}).labels["sevkit.io/sev"] == "true"


def test_a_reset_half_way_leaves_the_truth_to_the_next_request(
    wire: Wire, wired: NodeClient, allowed: Agent
) -> None:
    wired.get()
    wire.cut_after = 0
    with pytest.raises(Unreachable):
        wired.apply_status(LABELS, ANNOTATIONS, CAPACITY)
    wire.cut_after = None
    # The write happened; only its answer was lost. The same again changes nothing.
    version = allowed.raw()["metadata"]["resourceVersion"]
    assert wired.apply_status(LABELS, ANNOTATIONS, CAPACITY).resource_version == version


@pytest.mark.parametrize("size", [1, 100, 1500])
def test_a_reset_in_the_handshake_is_told_apart(wire: Wire, wired: NodeClient, size: int) -> None:
    wire.cut_after = size
    with pytest.raises(Unreachable):
        wired.get()
    wire.cut_after = None
    wired.get()


def test_an_api_server_that_hangs_is_waited_for_as_long_as_was_said(
    wire: Wire, wired: NodeClient
) -> None:
    wired.get()
    wire.held.set()
    begun = time.monotonic()
    with pytest.raises(Timeout):
        wired.apply_status(LABELS, ANNOTATIONS, CAPACITY)
    assert 3.9 < time.monotonic() - begun < 20
    wire.held.clear()
    assert wired.apply_status(LABELS, ANNOTATIONS, CAPACITY).has(LABELS, ANNOTATIONS, CAPACITY)


MEMORY: Final = """
import logging, sys, urllib.request
from pathlib import Path
from sevkit.cluster.access import in_cluster
from sevkit.cluster.connection import Connection
from sevkit.cluster.nodes import NodeClient
from sevkit.observe.log import log_as_json
from sevkit.observe.metrics import Metrics
from sevkit.observe.server import HealthServer

folder, host, port, node = sys.argv[1:]
log_as_json(sys.stderr)
metrics = Metrics()
patches = metrics.counter("patches", "Patches")
environ = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
with (
    HealthServer(("127.0.0.1", 0), metrics=metrics.exposition) as server,
    Connection(in_cluster(environ, Path(folder))) as connection,
):
    client = NodeClient(connection, node)
    client.get()
    for count in range(5):
        client.apply_status({"sevkit.io/sev": "true"}, {}, {"sevkit.io/sev": str(count)})
        patches.inc()
        logging.getLogger("agent").info("published", extra={"count": count})
    urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics").read()
    status = Path("/proc/self/status").read_text()
print(*(line.split()[1] for line in status.splitlines() if line.startswith(("VmHWM", "VmRSS"))))
"""


def test_five_patches_with_metrics_and_logs_fit_in_55_mib(
    allowed: Agent, record_property: Callable[[str, object], None]
) -> None:
    host, port = allowed.plane.url.removeprefix("https://").split(":")
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(allowed.folder), host, port, allowed.node],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    peak, now = (int(word) / 1024 for word in done.stdout.split())
    record_property("said", f"node client: {now:.1f} MiB after five patches, {peak:.1f} at most")
    assert now < 55
    assert len(done.stderr.splitlines()) == 5
