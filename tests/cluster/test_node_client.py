"""The node client against the real API server, directly and over a wire that misbehaves."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import pytest

from hack.control_plane import ADMIN_TOKEN
from hack.wire import Wire
from node_agent.news import CONTROLLER
from sevkit.cluster.access import Access, FixedToken
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
from sevkit.cluster.events import Event, Speaker, Subject, create_event, repeat_event
from sevkit.cluster.fleet_nodes import fold_nodes
from sevkit.cluster.kinds import NODES
from sevkit.cluster.kubeconfig import read_kubeconfig
from sevkit.cluster.nodes import (
    AGENT_MANAGER,
    NodeClient,
    NodeKeys,
    contested_keys,
)
from sevkit.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hack.cluster_pod import NodePod
    from hack.control_plane import ControlPlane

LABELS: Final = {"sevkit.io/sev": "true", "sevkit.io/sev-snp": "false"}
ANNOTATIONS: Final = {"sevkit.io/capabilities": '{"sev": {"state": "usable"}}'}
CAPACITY: Final = {"sevkit.io/sev": "1000", "sevkit.io/sev-snp": "0"}


@pytest.fixture
def connection(allowed_pod: NodePod) -> Iterator[Connection]:
    with Connection(allowed_pod.access, seconds=10) as opened:
        yield opened


@pytest.fixture
def client(allowed_pod: NodePod, connection: Connection) -> NodeClient:
    return NodeClient(connection, allowed_pod.node)


def test_labels_annotation_and_capacity_appear_in_one_patch(
    allowed_pod: NodePod, client: NodeClient
) -> None:
    before = len(allowed_pod.requests())
    view = client.apply_status(LABELS, ANNOTATIONS, CAPACITY)
    node = allowed_pod.raw()
    assert node["metadata"]["labels"].items() >= LABELS.items()
    assert node["metadata"]["annotations"].items() >= ANNOTATIONS.items()
    assert node["status"]["capacity"]["sevkit.io/sev"] == "1k"
    assert node["status"]["capacity"]["sevkit.io/sev-snp"] == "0"
    assert view.has(LABELS, ANNOTATIONS, CAPACITY)
    assert view.owned_by(AGENT_MANAGER) == NodeKeys(
        frozenset(LABELS), frozenset(ANNOTATIONS), frozenset(CAPACITY)
    )
    made = allowed_pod.requests()[before:]
    assert [(event["verb"], event["objectRef"].get("subresource")) for event in made] == [
        ("patch", "status")
    ]
    assert made[0]["responseStatus"]["code"] == 200
    assert made[0]["userAgent"].startswith("sevkit/")


def test_nothing_is_asked_but_what_was_asked_for(allowed_pod: NodePod, client: NodeClient) -> None:
    client.get()
    for count in range(3):
        client.apply_status(LABELS, ANNOTATIONS, {"sevkit.io/sev": str(count)})
    paths = {event["requestURI"].partition("?")[0] for event in allowed_pod.requests()}
    assert paths == {
        f"/api/v1/nodes/{allowed_pod.node}",
        f"/api/v1/nodes/{allowed_pod.node}/status",
    }
    assert {event["verb"] for event in allowed_pod.requests()} == {"get", "patch"}


def test_the_status_endpoint_cannot_touch_the_spec(
    allowed_pod: NodePod, client: NodeClient, connection: Connection
) -> None:
    taint = {"key": "k", "effect": "NoExecute"}
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": allowed_pod.node, "labels": LABELS},
        "spec": {"unschedulable": True, "taints": [taint], "podCIDR": "10.0.0.0/24"},
    }
    path = NODES.path(allowed_pod.node, subresource="status")
    connection.call(apply(path, body, manager=AGENT_MANAGER))
    node = allowed_pod.raw()
    assert node["metadata"]["labels"].items() >= LABELS.items()
    assert not {"unschedulable", "podCIDR"} & node["spec"].keys()
    assert taint["key"] not in {entry["key"] for entry in node["spec"].get("taints", [])}
    with pytest.raises(Forbidden, match="cannot patch resource"):
        connection.call(apply(NODES.path(allowed_pod.node), body, manager=AGENT_MANAGER))
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


def test_another_managers_keys_survive(allowed_pod: NodePod, client: NodeClient) -> None:
    admin, path = allowed_pod.plane.admin, f"/api/v1/nodes/{allowed_pod.node}"
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
    allowed_pod: NodePod, client: NodeClient
) -> None:
    """As its node-labeller does: a JSON patch that tests and replaces the whole map."""
    view = client.apply_status(LABELS, ANNOTATIONS, CAPACITY)
    theirs = {**view.labels, "kubevirt.io/sev": ""}
    allowed_pod.plane.admin.patch(
        f"/api/v1/nodes/{allowed_pod.node}",
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
    allowed_pod: NodePod, client: NodeClient
) -> None:
    admin, path = allowed_pod.plane.admin, f"/api/v1/nodes/{allowed_pod.node}"
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
    allowed_pod: NodePod, client: NodeClient
) -> None:
    admin, path = allowed_pod.plane.admin, f"/api/v1/nodes/{allowed_pod.node}"
    labels = {"sevkit.io/sev": "maybe", "sevkit.io/sev-snp": "false"}
    admin.patch(path, {"metadata": {"labels": labels, "managedFields": [{}]}})
    assert client.get().managers == ()
    with pytest.raises(Conflict) as caught:
        client.apply_status(LABELS, {}, {})
    found = {(one.field, one.manager) for one in caught.value.contested}
    assert found == {(".metadata.labels.sevkit.io/sev", "before-first-apply")}


def test_without_the_contested_keys_the_rest_is_applied(
    allowed_pod: NodePod, client: NodeClient
) -> None:
    admin, path = allowed_pod.plane.admin, f"/api/v1/nodes/{allowed_pod.node}"
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
    allowed_pod: NodePod, client: NodeClient
) -> None:
    path = f"/api/v1/nodes/{allowed_pod.node}"
    allowed_pod.plane.admin.patch(path, {"metadata": {"labels": {"sevkit.io/sev": "true"}}})
    client.apply_status(LABELS, {}, {})
    assert client.apply_status({}, {}, {}).labels["sevkit.io/sev"] == "true"


def test_what_the_api_server_finds_invalid_is_rejected(client: NodeClient) -> None:
    with pytest.raises(Rejected, match="a valid label must be") as caught:
        client.apply_status({"sevkit.io/sev": "no no"}, {}, {})
    assert caught.value.status == 422
    # Refused where it is parsed, which the API server calls a fault of its own.
    with pytest.raises(ServerFault, match="quantities must match"):
        client.apply_status({}, {}, {"sevkit.io/sev": "many"})


def test_a_node_that_is_gone_is_not_made(allowed_pod: NodePod, connection: Connection) -> None:
    client = NodeClient(connection, f"other-{allowed_pod.node}")
    with pytest.raises(NotFound):
        client.get()
    with pytest.raises(NotFound):
        client.apply_status(LABELS, ANNOTATIONS, CAPACITY)
    with pytest.raises(NotFound):
        client.get()


def test_a_node_made_anew_is_told_by_its_uid_and_owns_nothing_of_ours(
    allowed_pod: NodePod, client: NodeClient
) -> None:
    first = client.apply_status(LABELS, ANNOTATIONS, CAPACITY)
    admin, path = allowed_pod.plane.admin, f"/api/v1/nodes/{allowed_pod.node}"
    admin.delete(path)
    admin.create("/api/v1/nodes", {"metadata": {"name": allowed_pod.node}})
    # The pod's token stays good: it is bound to the pod.
    second = client.get()
    assert second.uid != first.uid
    assert not second.owned_by(AGENT_MANAGER)
    assert client.apply_status(LABELS, ANNOTATIONS, CAPACITY).has(LABELS, ANNOTATIONS, CAPACITY)


def test_a_bound_token_without_rights_is_forbidden_and_told_which(node_pod: NodePod) -> None:
    with Connection(node_pod.access) as connection:
        client = NodeClient(connection, node_pod.node)
        with pytest.raises(Forbidden, match='cannot get resource "nodes"'):
            client.get()
        with pytest.raises(Forbidden, match='cannot patch resource "nodes/status"') as caught:
            client.apply_status(LABELS, {}, {})
    assert caught.value.reason == "Forbidden"


def test_a_renewed_token_is_used_at_once(allowed_pod: NodePod, client: NodeClient) -> None:
    client.get()
    (allowed_pod.folder / "token").write_text("expired")
    with pytest.raises(Unauthorized):
        client.get()
    allowed_pod.renew_token()
    assert client.apply_status(LABELS, {}, {}).labels["sevkit.io/sev"] == "true"


def test_an_event_is_of_the_node_and_is_counted(
    allowed_pod: NodePod, client: NodeClient, connection: Connection
) -> None:
    event = Event("CapabilityLost", "Publish", "sev-snp: off in the BIOS", "Warning")
    now = datetime.now(UTC)
    node = Subject("Node", allowed_pod.node, client.get().uid)
    name = create_event(connection, node, event, speaker=Speaker(CONTROLLER, "agent-x"), now=now)
    repeat_event(connection, name, count=2, now=now)
    # The older API shows the same event; this is what kubectl describe looks for.
    selector = f"involvedObject.name={allowed_pod.node},involvedObject.uid={client.get().uid}"
    admin = allowed_pod.plane.admin
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
        selector = f"fleet={namespace}"
        found = fold_nodes(connection, lambda node: node.view.name, selector=selector, page=2)
        query = (("limit", "1"), ("continue", "bm90IGEgdG9rZW4="))
        with pytest.raises((Gone, Rejected)):
            connection.call(Call("GET", NODES.path(), query))
    assert set(found) == names
    assert len(found) == 5
    for name in names:
        control_plane.admin.delete(f"/api/v1/nodes/{name}")


def test_a_kubeconfig_leads_there(control_plane: ControlPlane, node_pod: NodePod) -> None:
    access = read_kubeconfig([control_plane.kubeconfig()])
    with Connection(access) as connection:
        assert NodeClient(connection, node_pod.node).get().name == node_pod.node


@pytest.fixture
def wired(allowed_pod: NodePod, wire: Wire) -> Iterator[NodeClient]:
    """A client of the node whose requests go over the wire, and have four seconds."""
    access = replace(allowed_pod.access, server=f"https://127.0.0.1:{wire.port}")
    with Connection(access, seconds=4) as connection:
        yield NodeClient(connection, allowed_pod.node)


def test_an_api_server_that_is_down_and_comes_back(allowed_pod: NodePod) -> None:
    with Wire(allowed_pod.plane.url) as first:
        access = replace(allowed_pod.access, server=f"https://127.0.0.1:{first.port}")
        with Connection(access, seconds=10) as connection:
            client = NodeClient(connection, allowed_pod.node)
            client.get()
    with Connection(access, seconds=10) as connection:
        client = NodeClient(connection, allowed_pod.node)
        for _ in range(3):
            with pytest.raises(Unreachable, match="refused"):
                client.apply_status(LABELS, ANNOTATIONS, CAPACITY)
    assert "sevkit.io/sev" not in allowed_pod.raw()["metadata"].get("labels", {})


def test_a_connection_that_was_kept_and_is_closed_is_made_anew(
    wire: Wire, wired: NodeClient
) -> None:
    wired.get()
    wire.close()
    # Still open, and good for as long as it is.
    assert wired.apply_status(LABELS, {}, {}).labels["sevkit.io/sev"] == "true"


def test_a_reset_half_way_leaves_the_truth_to_the_next_request(
    wire: Wire, wired: NodeClient, allowed_pod: NodePod
) -> None:
    wired.get()
    wire.cut_after = 0
    with pytest.raises(Unreachable):
        wired.apply_status(LABELS, ANNOTATIONS, CAPACITY)
    wire.cut_after = None
    # The write happened; only its answer was lost. The same again changes nothing.
    version = allowed_pod.raw()["metadata"]["resourceVersion"]
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
    allowed_pod: NodePod, record_property: Callable[[str, object], None]
) -> None:
    host, port = allowed_pod.plane.url.removeprefix("https://").split(":")
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(allowed_pod.folder), host, port, allowed_pod.node],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    peak, now = (int(word) / 1024 for word in done.stdout.split())
    record_property("said", f"node client: {now:.1f} MiB after five patches, {peak:.1f} at most")
    assert now < 55
    assert len(done.stderr.splitlines()) == 5
