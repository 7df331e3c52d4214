"""The webhook as ``deploy/webhook`` installs it: two replicas that make their own certificates.

The API server is the real one, with KubeVirt's own webhooks; the replicas have the rights of their
service account and no others. The Service is an address of loopback, which is the one thing that
is another than in the manifests. Terms are short: every 22 seconds there is another CA.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import time
import uuid
from typing import TYPE_CHECKING, Any, Final, final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from hack import deploy_manifests
from hack.control_plane_client import ApiError
from hack.deploy_judges import put
from hack.deploy_manifests import NAMESPACE, documents_of, read
from hack.junction import Junction
from hack.kubevirt_cases import vmi
from hack.started import Started
from hack.webhook_process import WebhookProcess
from sevkit.kubevirt.tiers import LABEL, Tier, tier_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hack.kubevirt_cluster import KubeVirtCluster

FOLDER: Final = deploy_manifests.FOLDER / "webhook"
NAME: Final = "sevkit-webhook"
RBAC: Final = "/apis/rbac.authorization.k8s.io/v1"
ADMISSION: Final = "/apis/admissionregistration.k8s.io/v1"
CORE: Final = f"/api/v1/namespaces/{NAMESPACE}"
#: By kind: where objects are. The others are for nodes, which are not here, or the net's.
PLACES: Final = {
    "ServiceAccount": f"{CORE}/serviceaccounts",
    "Secret": f"{CORE}/secrets",
    "Role": f"{RBAC}/namespaces/{NAMESPACE}/roles",
    "RoleBinding": f"{RBAC}/namespaces/{NAMESPACE}/rolebindings",
    "ClusterRole": f"{RBAC}/clusterroles",
    "ClusterRoleBinding": f"{RBAC}/clusterrolebindings",
    "Service": f"{CORE}/services",
    "MutatingWebhookConfiguration": f"{ADMISSION}/mutatingwebhookconfigurations",
    "ValidatingWebhookConfiguration": f"{ADMISSION}/validatingwebhookconfigurations",
}
CONFIGURATIONS: Final = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
SECRET: Final = f"{PLACES['Secret']}/{NAME}-tls"
TERMS: Final = ["--ca-lifetime", "62", "--leaf-lifetime", "20", "--ca-spread", "1"]
ACCOUNT: Final = f"system:serviceaccount:{NAMESPACE}:{NAME}"
PROBLEM: Final = "sevkit_webhook_cert_problem"
PATIENCE: Final = 60.0


def until(holds: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait until something is so; raises ``TimeoutError``."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            message = "it never came"
            raise TimeoutError(message)
        time.sleep(0.1)


@final
class Installed(Started):
    """Everything that is applied, and two replicas that were started at the same moment."""

    def __init__(self, cluster: KubeVirtCluster, folder: Path) -> None:
        super().__init__()
        self.cluster, self.admin = cluster, cluster.admin
        self.policy = folder / "policy.yaml"
        self._folder = folder
        self.replicas: list[WebhookProcess] = []

    def _start(self) -> None:
        self.policy.write_text("rebootPolicy: never\n")
        (namespace,) = read((FOLDER / "components/namespace/namespace.yaml").read_bytes())
        put(self.admin, CORE, namespace)
        documents = [row for row in self._documents() if row["kind"] in PLACES]
        for document in (row for row in documents if row["kind"] == "ServiceAccount"):
            self._apply(document)
        self._kubeconfig = self.cluster.plane.kubeconfig(self._token())
        self.replicas = [self.replica(number, self.policy) for number in range(2)]
        ports = [replica.port for replica in self.replicas]
        self.service = self._stack.enter_context(Junction(ports))
        for document in documents:
            self._apply(self._at_loopback(document))
        for replica in self.replicas:
            self._stack.enter_context(replica)
        self._stack.callback(self._ask_to_end)
        until(lambda: all(replica.is_ready for replica in self.replicas))
        where = self.namespace("snp")
        until(lambda: self._is_injected(where))

    def replica(self, number: int, policy: Path) -> WebhookProcess:
        """Return one more replica, which is not started yet."""
        words = ["--kubeconfig", str(self._kubeconfig), "--policy", str(policy)]
        pod = {"POD_NAME": f"{NAME}-{number}", "POD_NAMESPACE": NAMESPACE, "POD_UID": str(number)}
        log = self._folder / f"log-{number}"
        words += ["--log-level", "debug", "--self-managed", *TERMS]
        return WebhookProcess(words, log, pod)

    def _ask_to_end(self) -> None:
        for replica in self.replicas:
            replica.ask_to_end()

    @staticmethod
    def _documents() -> list[dict[str, Any]]:
        component = FOLDER / "components" / "self-managed"
        found = documents_of(FOLDER / "base")
        for name in ("secret.yaml", "rights.yaml"):
            found += read((component / name).read_bytes())
        return found

    def _at_loopback(self, document: dict[str, Any]) -> dict[str, Any]:
        found = copy.deepcopy(document)
        if found["kind"] == "Service":
            found["spec"] = {"type": "ExternalName", "externalName": "localhost"}
        for entry in found.get("webhooks", []):
            entry["clientConfig"]["service"]["port"] = self.service.port
        return found

    def _apply(self, document: dict[str, Any]) -> None:
        path = f"{PLACES[document['kind']]}/{document['metadata']['name']}"
        put(self.admin, path, document)
        self._stack.callback(self._delete, path)

    def _delete(self, path: str) -> None:
        with contextlib.suppress(ApiError):
            self.admin.delete(path)

    def _token(self) -> str:
        path = f"{PLACES['ServiceAccount']}/{NAME}/token"
        made = self.admin.create(path, {"spec": {"expirationSeconds": 3600}})
        token: str = made["status"]["token"]
        return token

    def _is_injected(self, namespace: str) -> bool:
        with contextlib.suppress(ApiError):
            return self.launched(namespace) is Tier.SNP
        return False

    def namespace(self, value: str) -> str:
        """Make a namespace with the label, and return its name."""
        name = f"w-{uuid.uuid4().hex[:12]}"
        body = {"metadata": {"name": name, "labels": {LABEL: value}}}
        self.admin.create("/api/v1/namespaces", body)
        return name

    def launched(self, namespace: str) -> Tier | None:
        """Create a plain VMI, and return the tier that it has then. Raises ``ApiError``."""
        document = vmi({})
        document["metadata"] = {"name": f"v-{uuid.uuid4().hex[:12]}"}
        made = self.admin.create(self.cluster.path(document, namespace), document)
        return tier_of(made["spec"]["domain"].get("launchSecurity"))

    def secret(self) -> dict[str, bytes]:
        """Return what is in the Secret now."""
        data = self.admin.get(SECRET).get("data", {})
        return {key: base64.b64decode(value) for key, value in data.items()}

    def authorities(self) -> tuple[bytes, ...]:
        """Return the CAs in the Secret, the newest first, each in PEM."""
        found = x509.load_pem_x509_certificates(self.secret()["ca.crt"])
        return tuple(one.public_bytes(Encoding.PEM) for one in found)

    def bundles(self) -> set[bytes]:
        """Return the different bundles of all entries."""
        return {
            base64.b64decode(entry["clientConfig"].get("caBundle", ""))
            for kind in CONFIGURATIONS
            for entry in self.admin.get(f"{PLACES[kind]}/{NAME}")["webhooks"]
        }

    def told(self, reason: str) -> dict[str, str]:
        """Return the notes of Events with this reason, by pod."""
        found = self.admin.get(f"/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events")
        return {
            event["regarding"]["name"]: event["note"]
            for event in found["items"]
            if event["reason"] == reason and event["regarding"]["kind"] == "Pod"
        }

    def requests(self) -> list[dict[str, Any]]:
        """Return what the replicas asked of configurations and Secrets."""
        return [
            event
            for event in self.cluster.plane.audit()
            if event["user"].get("username") == ACCOUNT
            and event["objectRef"]["resource"] not in {"nodes", "kubevirts", "events"}
        ]
