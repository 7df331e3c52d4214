"""The fence around the node agent: what the real API server lets through it, and what it does not.

The manifests are those of ``deploy/node-agent/base``. ``agent`` speaks with the rights that they
give, ``mighty`` as an agent of another namespace that may do everything to nodes and events: the
policies must hold whatever roles the service account is given.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from hack.control_plane_client import ApiError
from node_agent.kubernetes_sink import KubernetesSink
from node_agent.news import CONTROLLER
from sevkit.cluster.access import Access, FixedToken
from sevkit.cluster.connection import Connection
from sevkit.cluster.errors import Forbidden
from sevkit.cluster.events import Event, Speaker, Subject, create_event, repeat_event
from sevkit.cluster.nodes import AGENT_MANAGER, NodeClient, NodeKeys
from sevkit.documents import parse_documents
from sevkit.kubevirt.labels import NodeWord
from sevkit.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hack.control_plane import ControlPlane
    from hack.control_plane_client import ApiClient

BASE: Final = Path(__file__).resolve().parents[2] / "deploy" / "node-agent" / "base"
NAME: Final = "sevkit-node-agent"
NAMESPACE: Final = "sevkit-system"
MANAGER: Final = f"fieldManager={NAME}"
RBAC: Final = "/apis/rbac.authorization.k8s.io/v1"
ADMISSION: Final = "/apis/admissionregistration.k8s.io/v1"
EVENTS: Final = "/apis/events.k8s.io/v1/namespaces/default/events"
#: By kind: where objects are; {} is the namespace.
PLACES: Final = {
    "Namespace": "/api/v1/namespaces",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "ClusterRole": f"{RBAC}/clusterroles",
    "ClusterRoleBinding": f"{RBAC}/clusterrolebindings",
    "Role": f"{RBAC}/namespaces/{{}}/roles",
    "RoleBinding": f"{RBAC}/namespaces/{{}}/rolebindings",
    "ValidatingAdmissionPolicy": f"{ADMISSION}/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": f"{ADMISSION}/validatingadmissionpolicybindings",
    "DaemonSet": "/apis/apps/v1/namespaces/{}/daemonsets",
}
WORD: Final = NodeWord(
    {"sevkit.io/sev": "true", "sevkit.io/sev-es": "false", "sevkit.io/product": "genoa"},
    {"sevkit.io/capabilities": '{"sev": {"state": "usable"}}'},
    {"sevkit.io/sev": "1000", "sevkit.io/sev-es": "0"},
)
MIGHT: Final = ["nodes", "nodes/status", "nodes/proxy", "nodes/metrics"]
#: What others put there: kubelet, KubeVirt's node-labeller, people.
LABELS: Final = {"kubernetes.io/arch": "amd64", "kubevirt.io/sev": "true", "zone": "a"}
ANNOTATIONS: Final = {"node.alpha.kubernetes.io/ttl": "0", "note": "x"}
CAPACITY: Final = {"cpu": "8", "memory": "64Gi", "devices.kubevirt.io/sev": "1k"}
STATUS: Final[dict[str, Any]] = {
    "capacity": CAPACITY,
    "allocatable": {**CAPACITY, "cpu": "7"},
    "addresses": [{"type": "InternalIP", "address": "10.0.0.7"}],
    "conditions": [{"type": "Ready", "status": "True"}],
    "images": [{"names": ["image"], "sizeBytes": 1}],
    "volumesAttached": [{"name": "v", "devicePath": "/dev/v"}],
    "nodeInfo": {"kernelVersion": "6.11"},
}
LOOKALIKES: Final = (
    "xsevkit.io/sev",
    "sevkit.io.evil/x",
    "sevkit.iox/x",
    "a.sevkit.io/x",
    "sevkit.evil/io",
    "sevkit-io/sev",
    "kubevirt.io/sev-snp",
    "feature.node.kubernetes.io/sevkit.io",
)


def read(path: Path) -> list[Any]:
    return list(parse_documents(path.read_bytes(), path.name))


def documents() -> list[dict[str, Any]]:
    """Return the objects of the base, without labels that kustomize would add."""
    (kustomization,) = read(BASE / "kustomization.yaml")
    return [found for name in kustomization["resources"] for found in read(BASE / name)]


def place(document: dict[str, Any]) -> str:
    metadata = document["metadata"]
    folder = PLACES[document["kind"]].format(metadata.get("namespace", ""))
    return f"{folder}/{metadata['name']}"


@dataclass(frozen=True)
class Agent:
    """A service account's token on a node of its own."""

    plane: ControlPlane
    node: str
    namespace: str
    token: str

    @property
    def client(self) -> ApiClient:
        return self.plane.client(self.token)

    @property
    def path(self) -> str:
        return f"/api/v1/nodes/{self.node}"

    @property
    def status(self) -> str:
        return f"{self.path}/status?{MANAGER}"

    def raw(self) -> dict[str, Any]:
        found: dict[str, Any] = self.plane.admin.get(self.path)
        return found

    def patch(self, patch: Any, kind: str = "merge-patch+json") -> dict[str, Any]:  # noqa: ANN401  # JSON
        """Patch the status endpoint."""
        found: dict[str, Any] = self.client.patch(self.status, patch, kind)
        return found

    def refused(self, patch: Any, why: str, kind: str = "merge-patch+json") -> None:  # noqa: ANN401  # JSON
        """Assert that the fence refuses a patch of the status endpoint."""
        before = self.raw()
        with refused(why):
            self.patch(patch, kind)
        assert self.raw() == before

    @contextlib.contextmanager
    def connection(self) -> Iterator[Connection]:
        token = FixedToken(Secret(self.token.encode()))
        with Connection(Access(self.plane.url, self.plane.ca, token), seconds=10) as connection:
            yield connection

    def publish(self, word: NodeWord = WORD) -> None:
        """Publish as the node agent does."""
        with self.connection() as connection:
            assert not KubernetesSink(connection, self.node).publish(word, whole=True)


@contextlib.contextmanager
def refused(why: str, policy: str = NAME) -> Iterator[None]:
    with pytest.raises(ApiError) as caught:
        yield
    assert caught.value.status == 403
    assert f"ValidatingAdmissionPolicy '{policy}'" in caught.value.message
    assert why in caught.value.message


def poll(act: Callable[[], object], until: Callable[[ApiError], bool]) -> None:
    """Wait until the API server has taken up what was applied."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            act()
        except ApiError as error:
            if until(error):
                return
        time.sleep(0.05)
    message = "the policy never came to be effective"
    raise TimeoutError(message)


@dataclass(frozen=True)
class Fence:
    """The base, applied; and agents behind it."""

    plane: ControlPlane

    def node(self, **metadata: Any) -> str:  # noqa: ANN401  # JSON
        """Make a node as a kubelet would."""
        name = f"node-{uuid.uuid4().hex[:12]}"
        whole = {"name": name, "labels": LABELS, "annotations": ANNOTATIONS} | metadata
        body = {"metadata": whole, "spec": {"podCIDR": "10.1.0.0/24"}, "status": STATUS}
        self.plane.admin.create("/api/v1/nodes?fieldManager=kubelet", body)
        return name

    def pod(self, node: str, namespace: str = NAMESPACE) -> dict[str, Any]:
        """Make a pod of the agent's service account, on a node or, without one, on none."""
        metadata = {"name": f"agent-{uuid.uuid4().hex[:12]}"}
        spec: dict[str, Any] = {
            "containers": [{"name": "agent", "image": "i"}],
            "serviceAccountName": NAME,
        }
        spec |= {"nodeName": node} if node else {}
        path = f"/api/v1/namespaces/{namespace}/pods"
        made: dict[str, Any] = self.plane.admin.create(path, {"metadata": metadata, "spec": spec})
        return made

    def token(self, bound: dict[str, Any] | None, namespace: str = NAMESPACE) -> str:
        """Return a token that is bound to an object, or to none."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{NAME}/token"
        reference = bound and {
            "kind": bound["kind"],
            "apiVersion": "v1",
            "name": bound["metadata"]["name"],
            "uid": bound["metadata"]["uid"],
        }
        spec = {"expirationSeconds": 600, "boundObjectRef": reference}
        token: str = self.plane.admin.create(path, {"spec": spec})["status"]["token"]
        return token

    def agent(self, namespace: str = NAMESPACE, **metadata: Any) -> Agent:  # noqa: ANN401  # JSON
        node = self.node(**metadata)
        return Agent(self.plane, node, namespace, self.token(self.pod(node, namespace), namespace))


@pytest.fixture(scope="module")
def fence(control_plane: ControlPlane) -> Iterator[Fence]:
    admin, applied = control_plane.admin, documents()
    for document in applied:
        admin.patch(f"{place(document)}?fieldManager=test&force=true", document, "apply-patch+yaml")
    made = Fence(control_plane)
    one, other = made.agent(), made.node()

    def is_fenced(error: ApiError) -> bool:
        return "ValidatingAdmissionPolicy" in error.message

    label = {"metadata": {"labels": {"sevkit.io/sev": "true"}}}
    trial = f"/api/v1/nodes/{other}/status?{MANAGER}&dryRun=All"
    poll(lambda: one.client.patch(trial, label), is_fenced)
    poll(lambda: one.client.create(f"{EVENTS}?dryRun=All", event(other)), is_fenced)
    yield made
    for document in reversed(applied):
        if document["kind"] != "Namespace":  # nothing here would end its termination
            admin.delete(place(document))


@pytest.fixture
def agent(fence: Fence) -> Agent:
    return fence.agent()


@pytest.fixture(scope="module")
def mighty_namespace(fence: Fence) -> Iterator[str]:
    """A namespace whose agent may do everything to nodes and events."""
    name, admin = f"t-{uuid.uuid4().hex[:12]}", fence.plane.admin
    admin.create("/api/v1/namespaces", {"metadata": {"name": name}})
    accounts = f"/api/v1/namespaces/{name}/serviceaccounts"
    for account in (NAME, "default"):
        admin.create(accounts, {"metadata": {"name": account}})
    rules = [
        {"apiGroups": [""], "resources": MIGHT, "verbs": ["*"]},
        {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["*"]},
    ]
    admin.create(f"{RBAC}/clusterroles", {"metadata": {"name": name}, "rules": rules})
    reference = {"apiGroup": RBAC.split("/")[2], "kind": "ClusterRole", "name": name}
    subjects = [
        {"kind": "ServiceAccount", "name": account, "namespace": name}
        for account in (NAME, "default")
    ]
    binding = {"metadata": {"name": name}, "roleRef": reference, "subjects": subjects}
    admin.create(f"{RBAC}/clusterrolebindings", binding)
    first = fence.agent(name)
    nothing = f"/api/v1/nodes/none-{name}"
    poll(lambda: first.client.get(nothing), lambda error: error.status == 404)
    yield name
    for kind in ("ClusterRoleBinding", "ClusterRole"):
        admin.delete(f"{PLACES[kind]}/{name}")


@pytest.fixture
def mighty(fence: Fence, mighty_namespace: str) -> Agent:
    return fence.agent(mighty_namespace)


def event(node: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401  # JSON
    return {
        "metadata": {"name": f"e-{uuid.uuid4().hex[:12]}", "namespace": "default"},
        "eventTime": datetime.now(UTC).isoformat(timespec="microseconds"),
        "reportingController": "sevkit.io/node-agent",
        "reportingInstance": "agent",
        "action": "Publish",
        "reason": "CapabilityLost",
        "note": "n",
        "type": "Normal",
        "regarding": {"apiVersion": "v1", "kind": "Node", "name": node},
    } | more


# What the agent does, it may do.


def test_the_agents_own_apply_is_accepted(agent: Agent) -> None:
    agent.publish()
    with agent.connection() as connection:
        view = NodeClient(connection, agent.node).get()
    assert view.has(WORD.labels, WORD.annotations, WORD.capacity)
    assert view.owned_by(AGENT_MANAGER) == NodeKeys(
        frozenset(WORD.labels), frozenset(WORD.annotations), frozenset(WORD.capacity)
    )


def test_its_keys_can_be_changed_and_removed(agent: Agent) -> None:
    agent.publish()
    agent.publish(NodeWord({"sevkit.io/sev": "false"}, {}, {"sevkit.io/sev": "0"}))
    node = agent.raw()
    assert {key for key in node["metadata"]["labels"] if "sevkit" in key} == {"sevkit.io/sev"}
    assert node["status"]["capacity"] == {**CAPACITY, "sevkit.io/sev": "0"}
    agent.publish(NodeWord())
    assert "sevkit.io/" not in json.dumps(agent.raw())


def test_what_others_say_of_the_node_stays_as_it_was(agent: Agent) -> None:
    before = agent.raw()
    agent.publish()
    after = agent.raw()
    for key in ("labels", "annotations"):
        ours = after["metadata"].pop(key)
        after["metadata"][key] = {k: v for k, v in ours.items() if not k.startswith("sevkit.io/")}
    ours = after["status"].pop("capacity")
    after["status"]["capacity"] = {k: v for k, v in ours.items() if not k.startswith("sevkit.io/")}
    assert after["metadata"].pop("resourceVersion") != before["metadata"].pop("resourceVersion")
    managers = after["metadata"].pop("managedFields")
    assert [row for row in managers if row["manager"] != NAME] == before["metadata"].pop(
        "managedFields"
    )
    assert after == before


def test_resources_that_the_kubelet_set_to_zero_are_taken_over(fence: Fence, agent: Agent) -> None:
    agent.publish()
    zeroed = {"status": {"capacity": dict.fromkeys(WORD.capacity, "0")}}
    path = f"{agent.path}/status?fieldManager=kubelet"
    fence.plane.admin.patch(path, zeroed, "strategic-merge-patch+json")
    agent.publish()
    assert agent.raw()["status"]["capacity"]["sevkit.io/sev"] == "1k"


def test_a_node_whose_owners_nobody_tracked_is_published_to(fence: Fence, agent: Agent) -> None:
    untracked = {"labels": {**LABELS, "sevkit.io/sev": "maybe"}, "managedFields": [{}]}
    fence.plane.admin.patch(agent.path, {"metadata": untracked})
    agent.publish()
    assert agent.raw()["metadata"]["labels"]["sevkit.io/sev"] == "true"


def test_a_node_that_says_nothing_of_its_resources_is_published_to(fence: Fence) -> None:
    name = f"bare-{uuid.uuid4().hex[:12]}"
    fence.plane.admin.create("/api/v1/nodes", {"metadata": {"name": name}})
    Agent(fence.plane, name, NAMESPACE, fence.token(fence.pod(name))).publish()
    found = fence.plane.admin.get(f"/api/v1/nodes/{name}")["status"]
    assert (
        found["capacity"]
        == found["allocatable"]
        == {"sevkit.io/sev": "1k", "sevkit.io/sev-es": "0"}
    )


def test_a_large_node_is_within_the_limits_of_a_policy(fence: Fence, agent: Agent) -> None:
    many = {f"example.org/key-{number}": "v" * 60 for number in range(250)}
    fence.plane.admin.patch(agent.path, {"metadata": {"labels": many, "annotations": many}})
    images = [{"names": [f"{'i' * 90}:{n}", "x" * 150], "sizeBytes": n} for n in range(200)]
    capacity = {f"example.org/resource-{number}": "1" for number in range(100)}
    status = {"status": {"images": images, "capacity": capacity}}
    fence.plane.admin.patch(f"{agent.path}/status", status)
    agent.publish()
    with refused("labels under sevkit.io/"):
        agent.patch({"metadata": {"labels": {"example.org/key-249": None}}})


# Other keys.


@pytest.mark.parametrize("key", LOOKALIKES)
def test_a_label_that_only_looks_like_the_agents_is_refused(agent: Agent, key: str) -> None:
    agent.refused({"metadata": {"labels": {key: "true"}}}, "labels under sevkit.io/")


@pytest.mark.parametrize("key", LOOKALIKES)
def test_an_annotation_that_only_looks_like_the_agents_is_refused(agent: Agent, key: str) -> None:
    agent.refused({"metadata": {"annotations": {key: "true"}}}, "annotations under sevkit.io/")


@pytest.mark.parametrize("key", LOOKALIKES)
def test_a_resource_that_only_looks_like_the_agents_is_refused(agent: Agent, key: str) -> None:
    agent.refused({"status": {"capacity": {key: "1"}}}, "capacity under sevkit.io/")


@pytest.mark.parametrize("value", ["false", None], ids=["changed", "removed"])
def test_kubevirts_label_cannot_be(agent: Agent, value: str | None) -> None:
    agent.refused({"metadata": {"labels": {"kubevirt.io/sev": value}}}, "labels under sevkit.io/")


@pytest.mark.parametrize("value", ["y", None], ids=["changed", "removed"])
def test_anothers_annotation_cannot_be(agent: Agent, value: str | None) -> None:
    agent.refused({"metadata": {"annotations": {"note": value}}}, "annotations under sevkit.io/")


@pytest.mark.parametrize("value", ["9", None], ids=["changed", "removed"])
@pytest.mark.parametrize("key", sorted(CAPACITY))
def test_anothers_resource_cannot_be(agent: Agent, key: str, value: str | None) -> None:
    agent.refused({"status": {"capacity": {key: value}}}, "capacity under sevkit.io/")


@pytest.mark.parametrize("key", ["labels", "annotations"])
def test_all_keys_at_once_cannot_be_removed(agent: Agent, key: str) -> None:
    agent.refused({"metadata": {key: None}}, f"{key} under sevkit.io/")


def test_all_of_capacity_at_once_cannot_be_removed(agent: Agent) -> None:
    agent.refused({"status": {"capacity": None}}, "capacity under sevkit.io/")


def test_a_foreign_key_beside_the_agents_own_refuses_all_of_it(agent: Agent) -> None:
    labels = {**WORD.labels, "node-role.kubernetes.io/control-plane": ""}
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": agent.node, "labels": labels}}
    agent.refused(body, "labels under sevkit.io/", "apply-patch+yaml")


# Other parts of the node.


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("conditions", [{"type": "Ready", "status": "False"}]),
        ("conditions", None),
        ("addresses", [{"type": "InternalIP", "address": "10.0.0.8"}]),
        ("allocatable", {"cpu": "9"}),
        ("allocatable", {"sevkit.io/sev": "9"}),
        ("allocatable", {"cpu": None}),
        ("allocatable", None),
        ("images", []),
        ("volumesAttached", None),
        ("volumesInUse", ["v"]),
        ("nodeInfo", {"kernelVersion": "6.12"}),
        ("daemonEndpoints", {"kubeletEndpoint": {"Port": 1}}),
        ("phase", "Terminated"),
        ("runtimeHandlers", [{"name": "x"}]),
        ("features", {"supplementalGroupsPolicy": True}),
    ],
)
def test_of_the_status_nothing_but_capacity_can_be_changed(
    agent: Agent,
    key: str,
    value: Any,  # noqa: ANN401  # JSON
) -> None:
    agent.refused({"status": {key: value}}, "the capacity of a node's status")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("finalizers", ["example.org/stay"]),
        ("ownerReferences", [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}]),
    ],
)
def test_of_the_metadata_nothing_but_labels_and_annotations_can_be_added(
    agent: Agent,
    key: str,
    value: Any,  # noqa: ANN401  # JSON
) -> None:
    agent.refused({"metadata": {key: value}}, "labels and annotations of a node's metadata")


def test_a_finalizer_cannot_be_removed(fence: Fence) -> None:
    agent = fence.agent(finalizers=["example.org/stay"])
    agent.refused({"metadata": {"finalizers": None}}, "a node's metadata")
    fence.plane.admin.patch(agent.path, {"metadata": {"finalizers": None}})


def test_the_spec_cannot_be_changed_through_the_status(agent: Agent) -> None:
    before = agent.raw()["spec"]
    taint = {"key": "k", "effect": "NoExecute"}
    agent.patch({"spec": {"unschedulable": True, "taints": [taint], "providerID": "x"}})
    assert agent.raw()["spec"] == before


@pytest.mark.parametrize("entries", [[{}], [], None], ids=["reset", "emptied", "removed"])
def test_who_owns_what_cannot_be_forgotten(agent: Agent, entries: list[Any] | None) -> None:
    agent.publish()
    before = agent.raw()
    agent.patch({"metadata": {"managedFields": entries}})
    assert agent.raw() == before


def test_a_single_owner_cannot_be_forgotten(agent: Agent) -> None:
    agent.publish()
    before = agent.raw()
    managers = [row["manager"] for row in before["metadata"]["managedFields"]]
    path = f"/metadata/managedFields/{managers.index('kubelet')}"
    agent.patch([{"op": "remove", "path": path}], "json-patch+json")
    assert agent.raw() == before


def test_it_cannot_write_under_another_managers_name(agent: Agent) -> None:
    labels = {"metadata": {"labels": {"sevkit.io/sev": "true"}}}
    for query in ("", "?fieldManager=kubelet", f"?fieldManager={NAME}2"):
        with refused("field manager is sevkit-node-agent"):
            agent.client.patch(f"{agent.path}/status{query}", labels)


# Other nodes, and other ways to nodes.


def test_another_node_is_refused(fence: Fence, agent: Agent) -> None:
    other = fence.node()
    labels = {"metadata": {"labels": {"sevkit.io/sev": "true"}}}
    with refused("the node that its pod runs on"):
        agent.client.patch(f"/api/v1/nodes/{other}/status?{MANAGER}", labels)


def test_the_agent_itself_learns_that_it_is_forbidden(fence: Fence, agent: Agent) -> None:
    with (
        agent.connection() as connection,
        pytest.raises(Forbidden, match="the node that its pod runs on"),
    ):
        KubernetesSink(connection, fence.node()).publish(WORD, whole=True)


def test_with_the_rights_of_the_manifests_nothing_else_is_reached(agent: Agent) -> None:
    """RBAC refuses these before any policy is asked."""
    client, label = agent.client, {"metadata": {"labels": {"sevkit.io/sev": "true"}}}
    tries: dict[str, Callable[[], object]] = {
        "patch": lambda: client.patch(f"{agent.path}?{MANAGER}", label),
        "update": lambda: client.replace(f"{agent.path}/status?{MANAGER}", agent.raw()),
        "delete": lambda: client.delete(agent.path),
        "create": lambda: client.create("/api/v1/nodes", {"metadata": {"name": "n"}}),
        "list": lambda: client.get("/api/v1/nodes"),
        "proxy": lambda: client.get(f"{agent.path}/proxy/pods"),
        "pods": lambda: client.get("/api/v1/pods"),
        "secrets": lambda: client.get(f"/api/v1/namespaces/{NAMESPACE}/secrets"),
        "events": lambda: client.get(EVENTS),
    }
    for name, act in tries.items():
        with pytest.raises(ApiError, match="cannot") as caught:
            act()
        assert caught.value.status == 403, name
        assert "ValidatingAdmissionPolicy" not in caught.value.message, name


def test_the_nodes_main_resource_is_refused_whatever_the_roles(mighty: Agent) -> None:
    for patch in (
        {"metadata": {"labels": {"sevkit.io/sev": "true"}}},
        {"spec": {"unschedulable": True}},
        {"spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}},
    ):
        with refused("the status of nodes and nothing else"):
            mighty.client.patch(f"{mighty.path}?{MANAGER}", patch)
    with refused("the status of nodes and nothing else"):
        mighty.client.replace(f"{mighty.path}?{MANAGER}", mighty.raw())


def test_deletion_is_refused_whatever_the_roles(mighty: Agent) -> None:
    with refused("the status of nodes and nothing else"):
        mighty.client.delete(mighty.path)
    with refused("the status of nodes and nothing else"):
        mighty.client.delete(f"/api/v1/nodes?fieldSelector=metadata.name={mighty.node}")
    assert "deletionTimestamp" not in mighty.raw()["metadata"]


def test_creation_is_refused_whatever_the_roles(mighty: Agent) -> None:
    with refused("the status of nodes and nothing else"):
        mighty.client.create("/api/v1/nodes", {"metadata": {"name": f"{mighty.node}-2"}})


def test_the_kubelets_proxy_is_refused_whatever_the_roles(mighty: Agent) -> None:
    with refused("the status of nodes and nothing else"):
        mighty.client.get(f"{mighty.path}/proxy/pods")


def test_a_whole_status_is_fenced_as_a_patch_is(mighty: Agent) -> None:
    node = mighty.raw()
    node["metadata"]["labels"]["sevkit.io/sev"] = "true"
    changed = mighty.client.replace(mighty.status, node)
    assert changed["metadata"]["labels"]["sevkit.io/sev"] == "true"
    changed["status"]["conditions"] = []
    with refused("the capacity of a node's status"):
        mighty.client.replace(mighty.status, changed)


# Other tokens.


def test_a_token_that_is_bound_to_nothing_is_refused(fence: Fence, agent: Agent) -> None:
    unbound = Agent(fence.plane, agent.node, NAMESPACE, fence.token(None))
    labels = {"metadata": {"labels": {"sevkit.io/sev": "true"}}}
    unbound.refused(labels, "not bound to a pod on a node")


def test_a_token_that_is_bound_to_the_node_and_no_pod_is_refused(
    fence: Fence, agent: Agent
) -> None:
    node = {"kind": "Node", "metadata": agent.raw()["metadata"]}
    bound = Agent(fence.plane, agent.node, NAMESPACE, fence.token(node))
    bound.refused(
        {"metadata": {"labels": {"sevkit.io/sev": "true"}}}, "not bound to a pod on a node"
    )


def test_a_token_of_a_pod_that_is_on_no_node_is_refused(fence: Fence, agent: Agent) -> None:
    waiting = Agent(fence.plane, agent.node, NAMESPACE, fence.token(fence.pod("")))
    waiting.refused(
        {"metadata": {"labels": {"sevkit.io/sev": "true"}}}, "not bound to a pod on a node"
    )


def test_a_token_of_a_pod_on_another_node_is_refused(fence: Fence, agent: Agent) -> None:
    other = Agent(fence.plane, agent.node, NAMESPACE, fence.token(fence.pod(fence.node())))
    other.refused(
        {"metadata": {"labels": {"sevkit.io/sev": "true"}}}, "the node that its pod runs on"
    )


def test_another_service_account_is_not_hindered(
    fence: Fence, agent: Agent, mighty_namespace: str
) -> None:
    path = f"/api/v1/namespaces/{mighty_namespace}/serviceaccounts/default/token"
    token = fence.plane.admin.create(path, {"spec": {}})["status"]["token"]
    client = fence.plane.client(token)
    taint = {"key": "k", "effect": "NoSchedule"}
    client.patch(agent.path, {"metadata": {"labels": {"zone": "b"}}, "spec": {"taints": [taint]}})
    client.patch(f"{agent.path}/status", {"status": {"capacity": {"cpu": "4"}}})
    assert client.create(EVENTS, event("other", reportingController="example.org/c"))
    client.delete(agent.path)


# Events.


def test_the_agents_own_events_are_made_and_counted(agent: Agent) -> None:
    now = datetime.now(UTC)
    with agent.connection() as connection:
        node = NodeClient(connection, agent.node).get()
        said = Event("CapabilityLost", "Publish", "sev-snp: off in the BIOS", "Warning")
        about, speaker = Subject("Node", node.name, node.uid), Speaker(CONTROLLER, "agent-x")
        name = create_event(connection, about, said, speaker=speaker, now=now)
        repeat_event(connection, name, count=2, now=now)
    found = agent.plane.admin.get(f"{EVENTS}/{name}")
    assert found["series"]["count"] == 2
    assert found["regarding"]["name"] == agent.node


@pytest.mark.parametrize(
    "more",
    [
        {"regarding": {"apiVersion": "v1", "kind": "Node", "name": "other"}},
        {"regarding": {"apiVersion": "v1", "kind": "Node"}},
        {"regarding": {"apiVersion": "example.org/v1", "kind": "Node", "name": "{}"}},
        {"related": {"apiVersion": "v1", "kind": "Node", "name": "other"}},
    ],
    ids=["of another node", "of no node", "of another kind of node", "related to another node"],
)
def test_an_event_is_refused(agent: Agent, more: dict[str, Any]) -> None:
    text = json.dumps(more).replace("{}", agent.node)
    with refused("events of the node that its pod runs on", f"{NAME}-events"):
        agent.client.create(EVENTS, event(agent.node, **json.loads(text)))


def test_an_event_by_a_token_that_is_bound_to_no_pod_is_refused(fence: Fence, agent: Agent) -> None:
    node = {"kind": "Node", "metadata": agent.raw()["metadata"]}
    for bound in (None, node):
        client = fence.plane.client(fence.token(bound))
        with refused("not bound to a pod on a node", f"{NAME}-events"):
            client.create(EVENTS, event(agent.node))


def test_an_event_of_a_pod_is_refused(mighty: Agent) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "name": mighty.node, "namespace": mighty.namespace}
    path = f"/apis/events.k8s.io/v1/namespaces/{mighty.namespace}/events"
    body = event(mighty.node, regarding=pod)
    body["metadata"]["namespace"] = mighty.namespace
    with refused("events of the node that its pod runs on", f"{NAME}-events"):
        mighty.client.create(path, body)


def test_an_event_in_anothers_name_is_refused(agent: Agent) -> None:
    with refused("reported by sevkit.io/node-agent", f"{NAME}-events"):
        agent.client.create(EVENTS, event(agent.node, reportingController="kubelet"))


def test_an_event_of_the_core_api_is_fenced_too(mighty: Agent) -> None:
    body = {
        "metadata": {"name": f"e-{uuid.uuid4().hex[:12]}", "namespace": "default"},
        "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": "other"},
        "reportingComponent": "sevkit.io/node-agent",
    }
    with refused("events of the node that its pod runs on", f"{NAME}-events"):
        mighty.client.create("/api/v1/namespaces/default/events", body)


@pytest.mark.parametrize(
    ("theirs", "patch"),
    [
        ({"reportingController": "kubelet"}, {"reportingComponent": "sevkit.io/node-agent"}),
        ({"regarding": {"kind": "Node", "name": "other"}}, {"involvedObject": {"name": "{}"}}),
        ({"regarding": {"kind": "Pod", "name": "{}"}}, {"involvedObject": {"kind": "Node"}}),
    ],
    ids=["the kubelet's", "another node's", "a pod's"],
)
def test_an_event_cannot_be_made_ones_own(
    mighty: Agent, theirs: dict[str, Any], patch: dict[str, Any]
) -> None:
    """The core API takes such a change; events.k8s.io refuses it anyway."""
    theirs, patch = json.loads(json.dumps([theirs, patch]).replace("{}", mighty.node))
    theirs.setdefault("regarding", {"kind": "Node", "name": mighty.node})["apiVersion"] = "v1"
    made = mighty.plane.admin.create(EVENTS, event(mighty.node, **theirs))
    path = f"/api/v1/namespaces/default/events/{made['metadata']['name']}"
    with refused("may not change the events of others", f"{NAME}-events"):
        mighty.client.patch(path, patch)
    assert mighty.plane.admin.get(f"{EVENTS}/{made['metadata']['name']}") == made


def test_an_event_cannot_be_deleted_whatever_the_roles(mighty: Agent) -> None:
    made = mighty.client.create(EVENTS, event(mighty.node))
    with refused("makes events and counts them up", f"{NAME}-events"):
        mighty.client.delete(f"{EVENTS}/{made['metadata']['name']}")
