"""Two replicas that make their certificates themselves, installed as deploy/webhook has it.

The API server is the real one, with KubeVirt's own webhooks; the replicas have the rights of their
service account and no others. The Service is an address of loopback, which is the one thing that
is another than in the manifests. Terms are short: every 22 seconds there is another CA.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import json
import time
import uuid
from typing import TYPE_CHECKING, Any, Final, final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from hack import deploy_manifests
from hack.control_plane_client import ApiError
from hack.deploy_judges import put
from hack.deploy_manifests import NAMESPACE, documents_of, read
from hack.junction import Junction
from hack.kubevirt_cases import SEV_GATE, vmi
from hack.reviewer import serve_reviews
from hack.started import Started
from hack.webhook_process import WebhookProcess
from sevkit.kubevirt.tiers import LABEL, Tier, tier_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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
#: How often another writer of the Secret is faster: more often than a pass begins again.
OVERTAKEN: Final = 4
PROBLEM: Final = "sevkit_webhook_cert_problem"
PATIENCE: Final = 60.0


def until(holds: Callable[[], bool], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came"
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
        words = ["--kubeconfig", str(self._kubeconfig), "--policy", str(policy)]
        pod = {"POD_NAME": f"{NAME}-{number}", "POD_NAMESPACE": NAMESPACE, "POD_UID": str(number)}
        log = self._folder / f"log-{number}"
        words += ["--log-level", "debug", "--self-managed", *TERMS]
        return WebhookProcess(words, log, pod)

    def _ask_to_end(self) -> None:
        for replica in self.replicas:
            replica.process.terminate()

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
        name = f"w-{uuid.uuid4().hex[:12]}"
        body = {"metadata": {"name": name, "labels": {LABEL: value}}}
        self.admin.create("/api/v1/namespaces", body)
        return name

    def launched(self, namespace: str) -> Tier | None:
        document = vmi({})
        document["metadata"] = {"name": f"v-{uuid.uuid4().hex[:12]}"}
        made = self.admin.create(self.cluster.path(document, namespace), document)
        return tier_of(made["spec"]["domain"].get("launchSecurity"))

    def secret(self) -> dict[str, bytes]:
        data = self.admin.get(SECRET).get("data", {})
        return {key: base64.b64decode(value) for key, value in data.items()}

    def authorities(self) -> tuple[bytes, ...]:
        found = x509.load_pem_x509_certificates(self.secret()["ca.crt"])
        return tuple(one.public_bytes(Encoding.PEM) for one in found)

    def bundles(self) -> set[bytes]:
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
            if event["user"]["username"] == ACCOUNT
            and event["objectRef"]["resource"] not in {"nodes", "kubevirts", "events"}
        ]


@pytest.fixture(scope="module")
def installed(
    kubevirt: KubeVirtCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installed]:
    kubevirt.configure(SEV_GATE)
    with Installed(kubevirt, tmp_path_factory.mktemp("webhook")) as found:
        yield found
    assert [replica.process.returncode for replica in found.replicas] == [0, 0]
    time.sleep(0.5)  # the API server's own copy is behind by a moment


def test_all_entries_trust_what_both_replicas_serve(installed: Installed) -> None:
    until(lambda: installed.bundles() == {installed.secret()["ca.crt"]})
    assert set(installed.secret()) == {"tls.crt", "tls.key", "ca.crt", "ca.key"}


@contextlib.contextmanager
def overtaken(installed: Installed, folder: Path, times: int) -> Iterator[None]:
    """Have another writer win at the last moment, when a replica writes the Secret."""
    left = [times]

    def answer(_path: str, data: bytes) -> bytes:
        review = json.loads(data)
        if left[0] > 0:
            left[0] -= 1
            installed.admin.patch(SECRET, {"metadata": {"annotations": {"left": str(left[0])}}})
        response = {"uid": review["request"]["uid"], "allowed": True}
        return json.dumps({**review, "response": response}).encode()

    with serve_reviews(answer, folder) as reviewer:
        rule = {
            "apiGroups": [""],
            "apiVersions": ["v1"],
            "operations": ["UPDATE"],
            "resources": ["secrets"],
        }
        entry = {
            "name": "overtakes.sevkit.io",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "clientConfig": reviewer.client(),
            "rules": [rule],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}},
            "matchConditions": [
                {"name": "a", "expression": f'request.userInfo.username == "{ACCOUNT}"'}
            ],
        }
        place = PLACES["ValidatingWebhookConfiguration"]
        installed.admin.create(place, {"metadata": {"name": "overtakes"}, "webhooks": [entry]})
        try:
            yield
        finally:
            installed.admin.delete(f"{place}/overtakes")


@pytest.fixture
def rotated(installed: Installed, tmp_path: Path) -> Iterator[Installed]:
    with overtaken(installed, tmp_path, OVERTAKEN):
        yield installed


def test_certificates_rotate_while_vmis_are_created_and_none_fails(rotated: Installed) -> None:
    """Each VMI comes by connections of its own, so that every certificate has to be trusted.

    And whoever writes the Secret first loses a race for it, several times.
    """
    installed = rotated
    namespace = installed.namespace("snp")
    seen: list[tuple[bytes, ...]] = []
    leaves: set[bytes] = set()
    made, begun, audited = 0, time.monotonic(), len(installed.requests())
    while time.monotonic() - begun < 90:
        installed.service.hang_up()
        time.sleep(0.02)
        assert installed.launched(namespace) is Tier.SNP
        made += 1
        authorities = installed.authorities()
        if not seen or seen[-1] != authorities:
            seen.append(authorities)
        leaves.add(installed.secret()["tls.crt"])
        if _rotations(seen) == 2:
            break
    assert _rotations(seen) == 2, [len(one) for one in seen]
    assert len(leaves) >= 3
    assert made > 50
    assert installed.service.connections >= made
    for replica in installed.replicas:
        assert replica.metric(PROBLEM) == 0
        assert replica.log("warning", "error", "critical") == []
        assert replica.metric('sevkit_admission_reviews_total{decision="injected"') > made / 4
    # Three requests a pass, about once a second with these terms; and writes are for steps only.
    asked = installed.requests()[audited:]
    codes = [one["responseStatus"]["code"] for one in asked if one["verb"] == "update"]
    assert codes.count(409) >= OVERTAKEN
    assert len(asked) < 2 * 3 * 2 * (time.monotonic() - begun)
    assert codes.count(200) <= len(seen) + len(leaves)


def _rotations(seen: list[tuple[bytes, ...]]) -> int:
    """Return how often one CA alone was followed by another alone, with both in between."""
    found = 0
    for before, both, after in zip(seen, seen[1:], seen[2:], strict=False):
        is_whole = (len(before), len(both), len(after)) == (1, 2, 1)
        found += is_whole and both == (*after, *before)
    return found


def test_without_a_right_it_serves_on_and_says_so_once(installed: Installed) -> None:
    namespace = installed.namespace("sev")
    path = f"{PLACES['ClusterRoleBinding']}/{NAME}-certificates"
    binding = installed.admin.get(path)
    before = [len(replica.log("error")) for replica in installed.replicas]
    installed.admin.delete(path)
    try:
        until(lambda: all(replica.metric(PROBLEM) == 1 for replica in installed.replicas))
        assert installed.launched(namespace) is Tier.SEV
        assert all(replica.is_ready for replica in installed.replicas)
    finally:
        del binding["metadata"]["resourceVersion"], binding["metadata"]["uid"]
        installed.admin.create(PLACES["ClusterRoleBinding"], binding)
    until(lambda: all(replica.metric(PROBLEM) == 0 for replica in installed.replicas))
    for replica, count in zip(installed.replicas, before, strict=True):
        (line,) = replica.log("error")[count:]
        assert line["message"] == "certificates cannot be kept"
        assert "forbids" in line["error"]
    assert installed.launched(namespace) is Tier.SEV


def test_a_broken_policy_file_is_told_at_the_pods(installed: Installed) -> None:
    names = {f"{NAME}-0", f"{NAME}-1"}
    installed.policy.write_text("cpuModell: x\n")
    until(lambda: names <= installed.told("PolicyRefused").keys())
    assert all("cpuModell" in installed.told("PolicyRefused")[name] for name in names)
    assert installed.launched(installed.namespace("snp")) is Tier.SNP
    installed.policy.write_text("rebootPolicy: never\n")
    until(lambda: names <= installed.told("PolicyAccepted").keys())


def test_one_that_cannot_start_for_its_policy_file_says_so_too(
    installed: Installed, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("cpuModell: x\n")
    with installed.replica(2, policy) as replica:
        assert replica.process.wait(PATIENCE) == 2
    note = installed.told("PolicyRefused")[f"{NAME}-2"]
    assert "cpuModell" in note
    assert "does not start" in note


def test_what_is_known_of_the_cluster_is_in_the_metrics(installed: Installed) -> None:
    for replica in installed.replicas:
        assert replica.metric('sevkit_webhook_cache_objects{kind="kubevirts"}') == 1
        heard = replica.metric('sevkit_webhook_cache_heard_timestamp_seconds{kind="nodes"}')
        assert time.time() - heard < 300


def test_no_key_is_in_a_log_however_much_that_says(installed: Installed) -> None:
    words = [b"PRIVATE KEY", *(b"-----BEGIN PRIVATE KEY"[start:] for start in range(3))]
    for replica in installed.replicas:
        assert replica.log("debug")
        text = json.dumps(replica.log())
        assert "PRIVATE KEY" not in text
        for word in words:  # as a Secret has it, wherever it begins
            whole = len(word) // 3 * 3
            assert base64.b64encode(word[:whole]).decode() not in text
