"""The webhook's manifests, judged by kustomize, kubeconform, kubectl and the real API server.

They are applied as people apply them, and then the webhook's own code works with the rights that
they give, and with no others: what it knows of the cluster, and the certificates that it makes.
"""

from __future__ import annotations

import copy
import json
import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from hack import deploy_manifests
from hack.control_plane_client import ApiError
from hack.deploy_judges import (
    Kubeconform,
    Kubectl,
    define,
    definition,
    listed,
    put,
    write_schemas,
)
from hack.deploy_manifests import read, write_overlay
from sevkit.cluster.access import Access, FixedToken
from sevkit.cluster.connection import Connection
from sevkit.cluster.errors import Forbidden
from sevkit.cluster.events import Speaker, Subject, Teller
from sevkit.cluster.kinds import MUTATING, VALIDATING
from sevkit.secret import Secret
from webhooks.caches import Caches
from webhooks.custody import ClusterBundles, ClusterSecret, Custodian
from webhooks.news import CONTROLLER, policy_event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hack.control_plane import ControlPlane
    from hack.deploy_judges import Ask
    from hack.kubevirt_cluster import KubeVirtCluster

FOLDER: Final = deploy_manifests.FOLDER / "webhook"
AGENT: Final = deploy_manifests.FOLDER / "node-agent" / "base"
NAME: Final = "sevkit-webhook"
NAMESPACE: Final = "sevkit-system"
TLS: Final = "sevkit-webhook-tls"
VARIANTS: Final = {
    "base": (),
    "cert-manager": ("namespace", "cert-manager"),
    "self-managed": ("namespace", "self-managed"),
    "beside the node agent": ("self-managed",),
}
#: Where the API server publishes the schemas of a group, and what their names begin with.
GROUPS: Final = {
    "v1": ("api/v1", "io.k8s.api.core.v1"),
    "apps/v1": ("apis/apps/v1", "io.k8s.api.apps.v1"),
    "policy/v1": ("apis/policy/v1", "io.k8s.api.policy.v1"),
    "networking.k8s.io/v1": ("apis/networking.k8s.io/v1", "io.k8s.api.networking.v1"),
    "rbac.authorization.k8s.io/v1": (
        "apis/rbac.authorization.k8s.io/v1",
        "io.k8s.api.rbac.v1",
    ),
    "admissionregistration.k8s.io/v1": (
        "apis/admissionregistration.k8s.io/v1",
        "io.k8s.api.admissionregistration.v1",
    ),
    "cert-manager.io/v1": ("apis/cert-manager.io/v1", "io.cert-manager.v1"),
}
TEXT: Final = {"type": "string"}
TEXTS: Final = {"type": "array", "items": TEXT}
#: cert-manager's kinds, as far as its reference names what is used here.
ISSUER: Final = definition(
    "cert-manager.io",
    "v1",
    "Issuer",
    "issuers",
    {
        "type": "object",
        "properties": {
            "selfSigned": {"type": "object"},
            "ca": {
                "type": "object",
                "required": ["secretName"],
                "properties": {"secretName": TEXT},
            },
        },
    },
    scope="Namespaced",
)
CERTIFICATE: Final = definition(
    "cert-manager.io",
    "v1",
    "Certificate",
    "certificates",
    {
        "type": "object",
        "required": ["issuerRef", "secretName"],
        "properties": {
            "secretName": TEXT,
            "commonName": TEXT,
            "dnsNames": TEXTS,
            "usages": {
                "type": "array",
                "items": {"type": "string", "enum": ["digital signature", "server auth"]},
            },
            "isCA": {"type": "boolean"},
            "duration": TEXT,
            "renewBefore": TEXT,
            "privateKey": {
                "type": "object",
                "properties": {
                    "algorithm": {"type": "string", "enum": ["RSA", "ECDSA", "Ed25519"]},
                    "size": {"type": "integer"},
                    "rotationPolicy": {"type": "string", "enum": ["Never", "Always"]},
                },
            },
            "issuerRef": {
                "type": "object",
                "required": ["name"],
                "properties": {"group": TEXT, "kind": TEXT, "name": TEXT},
            },
        },
    },
    scope="Namespaced",
)
SPACES: Final = "/api/v1/namespaces"
ADMISSION: Final = "/apis/admissionregistration.k8s.io/v1"
CONFIGURATIONS: Final = (
    f"{ADMISSION}/mutatingwebhookconfigurations/{NAME}",
    f"{ADMISSION}/validatingwebhookconfigurations/{NAME}",
)
SECRET: Final = f"{SPACES}/{NAMESPACE}/secrets/{TLS}"
ACCOUNT: Final = f"system:serviceaccount:{NAMESPACE}:{NAME}"
#: What kubectl says of what the service account can, with cert-manager.
READS: Final = {
    "list nodes": "yes",
    "watch nodes": "yes",
    "list kubevirts.kubevirt.io": "yes",
    "watch kubevirts.kubevirt.io": "yes",
    f"create events.events.k8s.io --namespace={NAMESPACE}": "yes",
    f"patch events.events.k8s.io --namespace={NAMESPACE}": "yes",
    f"list events.events.k8s.io --namespace={NAMESPACE}": "no",
    "create events.events.k8s.io --namespace=default": "no",
    f"get pods --namespace={NAMESPACE}": "no",
    "get nodes": "no",
    "patch nodes": "no",
    "update nodes --subresource=status": "no",
    "get namespaces": "no",
    "list virtualmachineinstances.kubevirt.io": "no",
    "patch kubevirts.kubevirt.io": "no",
    f"get configmaps --namespace={NAMESPACE}": "no",
    f"list secrets --namespace={NAMESPACE}": "no",
    f"create secrets --namespace={NAMESPACE}": "no",
    f"delete secrets/{TLS} --namespace={NAMESPACE}": "no",
    f"get secrets/sevkit-webhook-ca --namespace={NAMESPACE}": "no",
    f"get mutatingwebhookconfigurations/{NAME}": "no",
    f"update mutatingwebhookconfigurations/{NAME}": "no",
    f"delete mutatingwebhookconfigurations/{NAME}": "no",
    "patch mutatingwebhookconfigurations/virt-api-mutator": "no",
    "patch validatingadmissionpolicies/sevkit-confidential-vmi": "no",
    "delete validatingadmissionpolicybindings/sevkit-confidential-vmi": "no",
}
#: What is another answer where the webhook makes its certificates itself.
WRITES: Final = {
    f"get secrets/{TLS} --namespace={NAMESPACE}": "yes",
    f"update secrets/{TLS} --namespace={NAMESPACE}": "yes",
    f"patch mutatingwebhookconfigurations/{NAME}": "yes",
    f"patch validatingwebhookconfigurations/{NAME}": "yes",
}


@pytest.fixture(scope="module")
def build(
    ask: Ask, find_program: Callable[[str, str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], bytes]:
    """Returns what kustomize builds of a variant."""
    program = find_program("kustomize", "kustomize")
    made: dict[str, bytes] = {}

    def run(variant: str) -> bytes:
        if variant not in made:
            folder = tmp_path_factory.mktemp("overlay")
            bases = [FOLDER / "base", *([AGENT] if "agent" in variant else [])]
            components = [FOLDER / "components" / name for name in VARIANTS[variant]]
            write_overlay(folder, bases, components)
            done = ask(program, "build", folder)
            assert done.returncode == 0, done.stderr
            assert done.stderr == b""
            made[variant] = done.stdout
        return made[variant]

    return run


@pytest.fixture(scope="module")
def cluster(control_plane: ControlPlane) -> ControlPlane:
    """The control plane, with cert-manager's kinds, and the namespace as the component has it."""
    define(control_plane.admin, ISSUER, CERTIFICATE)
    put_namespace(control_plane, FOLDER / "components" / "namespace")
    return control_plane


def put_namespace(plane: ControlPlane, folder: Path) -> None:
    (namespace,) = read((folder / "namespace.yaml").read_bytes())
    put(plane.admin, f"{SPACES}/{NAMESPACE}", namespace)


@pytest.fixture(scope="module")
def kubectl(
    ask: Ask,
    find_program: Callable[[str, str], Path],
    cluster: ControlPlane,
    tmp_path_factory: pytest.TempPathFactory,
) -> Kubectl:
    cache = tmp_path_factory.mktemp("kubectl")
    words = (f"--kubeconfig={cluster.kubeconfig()}", f"--cache-dir={cache}")
    return Kubectl(ask, find_program("kubectl", "kubectl"), words)


@pytest.fixture(scope="module")
def judge(
    ask: Ask,
    find_program: Callable[[str, str], Path],
    cluster: ControlPlane,
    tmp_path_factory: pytest.TempPathFactory,
) -> Kubeconform:
    folder = tmp_path_factory.mktemp("schemas")
    write_schemas(cluster.admin, GROUPS, folder)
    return Kubeconform(ask, find_program("kubeconform", "kubeconform"), folder)


@pytest.fixture
def applied(
    build: Callable[[str], bytes], kubectl: Kubectl
) -> Iterator[Callable[[str], list[Any]]]:
    """Returns the documents of a variant, once it is applied; all of it goes in the end."""
    made: list[Any] = []

    def run(variant: str) -> list[Any]:
        kubectl.apply(build(variant))
        made.extend(row for row in read(build(variant)) if row["kind"] != "Namespace")
        return made

    yield run
    done = kubectl("delete", "-f", "-", "--wait=false", "--ignore-not-found", data=listed(made))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("variant", VARIANTS)
def test_kubeconform_finds_every_document_valid(
    build: Callable[[str], bytes], judge: Kubeconform, variant: str
) -> None:
    data = build(variant)
    found = judge(data)
    assert set(found.values()) == {""}, found
    assert len(found) == len({(row["kind"], row["metadata"]["name"]) for row in read(data)})


@pytest.mark.parametrize(
    ("right", "wrong", "kind"),
    [
        (b"topologySpreadConstraints", b"topologySpreadConstraint", "Deployment"),
        (b"reinvocationPolicy", b"reinvokePolicy", "MutatingWebhookConfiguration"),
        (b"sideEffects", b"sideEffect", "ValidatingWebhookConfiguration"),
        (b"unhealthyPodEvictionPolicy", b"unhealthyEvictionPolicy", "PodDisruptionBudget"),
        (b"policyTypes", b"policyType", "NetworkPolicy"),
        (b"targetPort", b"targetport", "Service"),
        (b"messageExpression", b"messageExpr", "ValidatingAdmissionPolicy"),
        (b"resourceNames", b"names", "Role"),
        (b"rotationPolicy", b"rotation", "Certificate"),
        (b"selfSigned", b"selfsigned", "Issuer"),
    ],
)
def test_kubeconform_finds_a_misspelt_field(
    build: Callable[[str], bytes], judge: Kubeconform, right: bytes, wrong: bytes, kind: str
) -> None:
    data = build("cert-manager" if kind in {"Certificate", "Issuer"} else "self-managed")
    assert right in data
    found = judge(data.replace(right, wrong))
    assert any(name.startswith(f"{kind} ") and said for name, said in found.items()), found


@pytest.mark.parametrize("variant", VARIANTS)
def test_kubectl_applies_every_variant_without_a_warning(
    build: Callable[[str], bytes], kubectl: Kubectl, cluster: ControlPlane, variant: str
) -> None:
    data = build(variant)
    try:
        if "agent" in variant:
            put_namespace(cluster, AGENT)
        said = kubectl.apply(data, "--dry-run=server")
    finally:
        put_namespace(cluster, FOLDER / "components" / "namespace")
    assert said.count("serverside-applied (server dry run)") == len(read(data))


def test_the_namespace_comes_first_and_what_closes_others_last(
    build: Callable[[str], bytes],
) -> None:
    kinds = [row["kind"] for row in read(build("self-managed"))]
    assert kinds[0] == "Namespace"
    assert kinds[-2:] == ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"]


@pytest.mark.parametrize("variant", ["cert-manager", "self-managed"])
def test_the_service_account_may_do_what_is_said_and_nothing_else(
    kubevirt: KubeVirtCluster,
    applied: Callable[[str], list[Any]],
    kubectl: Kubectl,
    variant: str,
) -> None:
    applied(variant)
    expected = READS | (WRITES if variant == "self-managed" else dict.fromkeys(WRITES, "no"))
    assert kubectl.can(ACCOUNT, expected) == expected


def pod_of(documents: list[Any]) -> dict[str, Any]:
    (deployment,) = (row for row in documents if row["kind"] == "Deployment")
    template = copy.deepcopy(deployment["spec"]["template"])
    template["metadata"]["name"] = "webhook"
    return {"apiVersion": "v1", "kind": "Pod", **template}


@pytest.mark.parametrize("variant", ["cert-manager", "self-managed"])
def test_pod_security_has_nothing_against_the_pod(
    build: Callable[[str], bytes], cluster: ControlPlane, variant: str
) -> None:
    """The namespace enforces "restricted", and the node agent's "privileged" is not needed."""
    pod, admin = pod_of(read(build(variant))), cluster.admin
    put(admin, f"{SPACES}/{NAMESPACE}/serviceaccounts/{NAME}", account())
    made = admin.create(f"{SPACES}/{NAMESPACE}/pods?dryRun=All", pod)
    assert made["spec"]["priority"] == 2000000000
    # Nor did the API server put a token in that we did not ask for.
    assert len(made["spec"]["volumes"]) == len(pod["spec"]["volumes"])
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(ApiError, match="violates PodSecurity"):
        admin.create(f"{SPACES}/{NAMESPACE}/pods?dryRun=All", pod)


def account() -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME}}


@pytest.fixture
def connect(cluster: ControlPlane) -> Callable[[], Connection]:
    """Returns a connection with the service account's token."""

    def run() -> Connection:
        path = f"{SPACES}/{NAMESPACE}/serviceaccounts/{NAME}/token"
        made = cluster.admin.create(path, {"spec": {"expirationSeconds": 600}})
        token = FixedToken(Secret(made["status"]["token"].encode()))
        return Connection(Access(cluster.url, cluster.ca, token), seconds=10)

    return run


def test_its_rights_are_enough_to_know_the_cluster(
    kubevirt: KubeVirtCluster,
    applied: Callable[[str], list[Any]],
    connect: Callable[[], Connection],
) -> None:
    applied("base")
    with connect() as connection, Caches(connection) as caches:
        deadline = time.monotonic() + 20
        while caches.problems():
            assert time.monotonic() < deadline, caches.problems()
            time.sleep(0.1)
        assert caches.installation.encryption is True
        assert caches.runnable(simulated=True) is not None


def test_its_rights_are_enough_for_events_of_its_own_namespace_and_of_no_other(
    applied: Callable[[str], list[Any]],
    cluster: ControlPlane,
    connect: Callable[[], Connection],
) -> None:
    applied("base")
    event = policy_event("policy: bad")
    with connect() as connection:
        teller = Teller(connection, Speaker(CONTROLLER, "w-1"))
        for _ in range(2):
            teller.tell(Subject("Pod", "w-1", "u-1", NAMESPACE), event)
        with pytest.raises(Forbidden):
            teller.tell(Subject("Pod", "w-1", "u-1", "default"), event)
    # What kubectl describe asks for.
    asked = f"{SPACES}/{NAMESPACE}/events?fieldSelector=involvedObject.uid=u-1"
    (told,) = cluster.admin.get(asked)["items"]
    assert (told["reason"], told["type"], told["series"]["count"]) == (event.reason, "Warning", 2)


def custodian(connection: Connection) -> Custodian:
    return Custodian(
        ClusterSecret(connection, NAMESPACE, TLS),
        ClusterBundles(connection, [(MUTATING, NAME), (VALIDATING, NAME)]),
        [f"{NAME}.{NAMESPACE}.svc"],
    )


def bundles(cluster: ControlPlane) -> list[str]:
    return [
        entry["clientConfig"].get("caBundle", "")
        for path in CONFIGURATIONS
        for entry in cluster.admin.get(path)["webhooks"]
    ]


def test_its_rights_are_enough_to_make_certificates_which_applying_again_does_not_undo(
    applied: Callable[[str], list[Any]],
    build: Callable[[str], bytes],
    kubectl: Kubectl,
    cluster: ControlPlane,
    connect: Callable[[], Connection],
) -> None:
    applied("self-managed")
    assert set(bundles(cluster)) == {""}
    with connect() as connection:
        pair = custodian(connection).read()
        kept = cluster.admin.get(SECRET)
        assert kept["data"].keys() == {"ca.crt", "ca.key", "tls.crt", "tls.key"}
        assert set(bundles(cluster)) == {kept["data"]["ca.crt"]}
        versions = [cluster.admin.get(path)["metadata"] for path in (SECRET, *CONFIGURATIONS)]
        # Neither server-side nor as most people do it.
        kubectl.apply(build("self-managed"))
        done = kubectl("apply", "-f", "-", data=build("self-managed"))
        assert done.returncode == 0, done.stderr
        assert cluster.admin.get(SECRET)["data"] == kept["data"]
        assert set(bundles(cluster)) == {kept["data"]["ca.crt"]}
        assert custodian(connection).read().certificate == pair.certificate
        for path, before in zip((SECRET, *CONFIGURATIONS), versions, strict=True):
            assert cluster.admin.get(path)["metadata"]["uid"] == before["uid"]


def test_a_secret_that_was_deleted_is_not_made_anew_in_anybodys_place(
    applied: Callable[[str], list[Any]],
    cluster: ControlPlane,
    connect: Callable[[], Connection],
    build: Callable[[str], bytes],
    kubectl: Kubectl,
) -> None:
    """That would take the right to create any Secret; applying the manifests again is enough."""
    applied("self-managed")
    cluster.admin.delete(SECRET)
    with connect() as connection:
        with pytest.raises(Forbidden):
            custodian(connection).read()
        kubectl.apply(build("self-managed"))
        custodian(connection).read()


def test_with_cert_manager_it_cannot_make_any(
    applied: Callable[[str], list[Any]], connect: Callable[[], Connection]
) -> None:
    applied("cert-manager")
    with connect() as connection, pytest.raises(Forbidden):
        custodian(connection).read()


def test_choices_of_an_overlay_are_the_operators(
    ask: Ask, find_program: Callable[[str, str], Path], tmp_path: Path
) -> None:
    """As the guide shows it."""
    write_overlay(tmp_path, [FOLDER / "base"], [FOLDER / "components" / "cert-manager"])
    whole = json.loads((tmp_path / "kustomization.yaml").read_text())
    patch = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "sevkit-webhook-policy", "namespace": NAMESPACE},
        "data": {"policy.yaml": "cpuModel: EPYC-Milan\n"},
    }
    whole |= {
        "patches": [{"patch": json.dumps(patch)}],
        "images": [{"name": NAME, "newName": "registry.example.org/w", "newTag": "1"}],
    }
    (tmp_path / "kustomization.yaml").write_text(json.dumps(whole))
    done = ask(find_program("kustomize", "kustomize"), "build", tmp_path)
    assert done.returncode == 0, done.stderr
    documents = read(done.stdout)
    (choices,) = (row for row in documents if row["kind"] == "ConfigMap")
    assert choices["data"]["policy.yaml"] == "cpuModel: EPYC-Milan\n"
    assert pod_of(documents)["spec"]["containers"][0]["image"] == "registry.example.org/w:1"
