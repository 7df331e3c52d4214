"""A pod on a node of its own in the control plane, as whose service account a test speaks."""

from __future__ import annotations

import contextlib
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from sevkit.cluster.access import Access, in_cluster
from sevkit.cluster.connection import Connection
from sevkit.cluster.errors import Forbidden
from sevkit.cluster.nodes import NodeClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hack.control_plane import ControlPlane

#: What the design allows the node agent, and nothing more.
RULES: Final = [
    {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]},
    {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
    {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
]
RBAC: Final = "/apis/rbac.authorization.k8s.io/v1"


@final
@dataclass(frozen=True, slots=True)
class NodePod:
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
        message = "the audit log does not have the mark"
        raise TimeoutError(message)


@contextlib.contextmanager
def node_with_pod(plane: ControlPlane, namespace: str, folder: Path) -> Iterator[NodePod]:
    """Make a node and a pod on it, with its token in ``folder``; the node is removed at the end."""
    admin, node = plane.admin, f"node-{namespace}"
    # With a label, as a kubelet makes it: only then does the API server track who owns what.
    metadata = {"name": node, "labels": {"kubernetes.io/hostname": node}}
    admin.create("/api/v1/nodes?fieldManager=kubelet", {"metadata": metadata})
    containers = [{"name": "c", "image": "i"}]
    admin.create(
        f"/api/v1/namespaces/{namespace}/pods",
        {"metadata": {"name": "agent"}, "spec": {"containers": containers, "nodeName": node}},
    )
    (folder / "ca.crt").write_bytes(plane.ca)
    made = NodePod(plane, namespace, node, folder)
    made.renew_token()
    try:
        yield made
    finally:
        with contextlib.suppress(Exception):
            admin.delete(f"/api/v1/nodes/{node}")


def allow(pod: NodePod) -> None:
    """Give the pod's service account the rights that the design gives the node agent."""
    admin, name = pod.plane.admin, pod.namespace
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
    with Connection(pod.access) as connection:
        while time.monotonic() < deadline:
            with contextlib.suppress(Forbidden):
                NodeClient(connection, pod.node).get()
                return
            time.sleep(0.05)
    message = "the rights never came"
    raise TimeoutError(message)
