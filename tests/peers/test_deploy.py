"""The node agent's manifests, judged by kustomize, kubeconform, kubectl and the real API server.

kubeconform is given the schemas that the API server itself publishes, closed, so that a misspelt
field is none it does not know. kubectl applies what kustomize builds, as people do. What a pod's
security is worth the API server's own pod-security admission says.
"""

from __future__ import annotations

import copy
import json
import os
import re
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

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hack.control_plane import ControlPlane
    from hack.control_plane_client import ApiClient
    from hack.deploy_judges import Ask

FOLDER: Final = deploy_manifests.FOLDER / "node-agent"
NAME: Final = "sevkit-node-agent"
NAMESPACE: Final = "sevkit-system"
VARIANTS: Final = {
    "base": (),
    "kvm": ("kvm",),
    "firmware-reader": ("firmware-reader",),
    "nfd": ("nfd",),
    "all": ("kvm", "firmware-reader", "nfd"),
}
#: Where the API server publishes the schemas of a group, and what their names begin with.
GROUPS: Final = {
    "v1": ("api/v1", "io.k8s.api.core.v1"),
    "apps/v1": ("apis/apps/v1", "io.k8s.api.apps.v1"),
    "rbac.authorization.k8s.io/v1": (
        "apis/rbac.authorization.k8s.io/v1",
        "io.k8s.api.rbac.v1",
    ),
    "admissionregistration.k8s.io/v1": (
        "apis/admissionregistration.k8s.io/v1",
        "io.k8s.api.admissionregistration.v1",
    ),
    "nfd.k8s-sigs.io/v1alpha1": (
        "apis/nfd.k8s-sigs.io/v1alpha1",
        "io.k8s-sigs.nfd.v1alpha1",
    ),
}
TEXT: Final = {"type": "string"}
TEXTS: Final = {"type": "object", "additionalProperties": TEXT}
EXPRESSION: Final = {
    "type": "object",
    "required": ["op"],
    "properties": {
        "op": {"type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]},
        "value": {"type": "array", "items": TEXT},
    },
}
MATCHER: Final = {
    "type": "object",
    "required": ["feature"],
    "properties": {
        "feature": TEXT,
        "matchExpressions": {"type": "object", "additionalProperties": EXPRESSION},
    },
}
RULE: Final = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": TEXT,
        "labels": TEXTS,
        "extendedResources": TEXTS,
        "matchFeatures": {"type": "array", "items": MATCHER},
    },
}
#: node-feature-discovery's rules, as far as its reference names what is used here.
DEFINITION: Final = definition(
    "nfd.k8s-sigs.io",
    "v1alpha1",
    "NodeFeatureRule",
    "nodefeaturerules",
    {
        "type": "object",
        "required": ["rules"],
        "properties": {"rules": {"type": "array", "items": RULE}},
    },
    scope="Cluster",
)
SPACES: Final = "/api/v1/namespaces"
ACCOUNT: Final = f"system:serviceaccount:{NAMESPACE}:{NAME}"
#: What kubectl says of what the service account can.
ALLOWED: Final = {
    "get nodes": "yes",
    "patch nodes --subresource=status": "yes",
    "create events.events.k8s.io --namespace=default": "yes",
    "patch events.events.k8s.io --namespace=default": "yes",
    "list nodes": "no",
    "watch nodes": "no",
    "patch nodes": "no",
    "delete nodes": "no",
    "update nodes --subresource=status": "no",
    "get nodes --subresource=proxy": "no",
    "create events --namespace=default": "no",
    "get events.events.k8s.io --namespace=default": "no",
    f"create events.events.k8s.io --namespace={NAMESPACE}": "no",
    f"get secrets --namespace={NAMESPACE}": "no",
    f"get pods --namespace={NAMESPACE}": "no",
}


def pod_of(documents: list[Any]) -> dict[str, Any]:
    (daemon_set,) = (row for row in documents if row["kind"] == "DaemonSet")
    template = copy.deepcopy(daemon_set["spec"]["template"])
    template["metadata"]["name"] = "agent"
    return {"apiVersion": "v1", "kind": "Pod", **template}


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
            components = [FOLDER / "components" / name for name in VARIANTS[variant]]
            write_overlay(folder, [FOLDER / "base"], components)
            done = ask(program, "build", folder)
            assert done.returncode == 0, done.stderr
            assert done.stderr == b""
            made[variant] = done.stdout
        return made[variant]

    return run


def account(admin: ApiClient, namespace: str) -> None:
    document = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME}}
    put(admin, f"{SPACES}/{namespace}/serviceaccounts/{NAME}", document)


@pytest.fixture(scope="module")
def cluster(control_plane: ControlPlane) -> ControlPlane:
    """The control plane, with node-feature-discovery's rules, the namespace and some others."""
    admin = control_plane.admin
    define(admin, DEFINITION)
    (namespace,) = read((FOLDER / "base" / "namespace.yaml").read_bytes())
    put(admin, f"{SPACES}/{NAMESPACE}", namespace)
    account(admin, NAMESPACE)
    for mode, level in (("warn", "baseline"), ("warn", "restricted"), ("enforce", "baseline")):
        name = f"{mode}-{level}"
        labels = {f"pod-security.kubernetes.io/{mode}": level}
        metadata = {"name": name, "labels": labels}
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
        put(admin, f"{SPACES}/{name}", space)
        account(admin, name)
    return control_plane


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
def schemas(cluster: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a schema for each kind of the API server's own."""
    folder = tmp_path_factory.mktemp("schemas")
    write_schemas(cluster.admin, GROUPS, folder)
    return folder


@pytest.fixture(scope="module")
def judge(ask: Ask, find_program: Callable[[str, str], Path], schemas: Path) -> Kubeconform:
    return Kubeconform(ask, find_program("kubeconform", "kubeconform"), schemas)


@pytest.mark.parametrize("variant", VARIANTS)
def test_kubeconform_finds_every_document_valid(
    build: Callable[[str], bytes], judge: Kubeconform, variant: str
) -> None:
    data = build(variant)
    found = judge(data)
    assert set(found.values()) == {""}, found
    assert len(found) == len(read(data))


@pytest.mark.parametrize(
    ("right", "wrong", "kind"),
    [
        (b"readOnlyRootFilesystem", b"readonlyRootFilesystem", "DaemonSet"),
        (b"failurePolicy", b"failPolicy", "ValidatingAdmissionPolicy"),
        (b"validationActions", b"validationAction", "ValidatingAdmissionPolicyBinding"),
        (b"verbs:", b"verb:", "ClusterRole"),
        (b"extendedResources:", b"extendedResource:", "NodeFeatureRule"),
    ],
)
def test_kubeconform_finds_a_misspelt_field(
    build: Callable[[str], bytes],
    judge: Kubeconform,
    right: bytes,
    wrong: bytes,
    kind: str,
) -> None:
    data = build("nfd" if kind == "NodeFeatureRule" else "base")
    assert right in data
    found = judge(data.replace(right, wrong))
    assert any(name.startswith(f"{kind} ") and said for name, said in found.items()), found


@pytest.mark.parametrize("variant", VARIANTS)
def test_kubectl_applies_every_variant_without_a_warning(
    build: Callable[[str], bytes], kubectl: Kubectl, variant: str
) -> None:
    data = build(variant)
    said = kubectl.apply(data, "--dry-run=server")
    assert said.count("serverside-applied (server dry run)") == len(read(data))


def test_what_is_applied_for_real_is_there_and_applying_again_changes_nothing(
    build: Callable[[str], bytes], kubectl: Kubectl, cluster: ControlPlane
) -> None:
    data = build("base")
    kubectl.apply(data)
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/{NAME}"
    first = cluster.admin.get(path)
    kubectl.apply(data)
    assert (
        cluster.admin.get(path)["metadata"]["resourceVersion"]
        == (first["metadata"]["resourceVersion"])
    )
    assert kubectl.can(ACCOUNT, ALLOWED) == ALLOWED
    kinds = [row for row in read(data) if row["kind"] not in {"Namespace", "ServiceAccount"}]
    done = kubectl("delete", "-f", "-", "--wait=false", data=listed(kinds))
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def warned(kubectl: Kubectl) -> Callable[[str, dict[str, Any]], set[str]]:
    """Returns what a level of pod-security has against a pod, each thing in a few words."""

    def run(level: str, pod: dict[str, Any]) -> set[str]:
        words = ("create", f"--namespace=warn-{level}", "--dry-run=server", "-f", "-")
        done = kubectl(*words, data=json.dumps(pod).encode())
        assert done.returncode == 0, done.stderr
        found = re.search(r'would violate PodSecurity "[^"]+": (.*)', done.stderr.decode())
        return {part.partition(" (")[0] for part in re.split(r"\), ", found[1])} if found else set()

    return run


@pytest.mark.parametrize(
    ("level", "against"),
    [("baseline", "hostPath volumes"), ("restricted", "restricted volume types")],
)
@pytest.mark.parametrize("variant", ["base", "kvm"])
def test_all_that_pod_security_has_against_the_pod_are_its_host_paths(
    build: Callable[[str], bytes],
    warned: Callable[[str, dict[str, Any]], set[str]],
    variant: str,
    level: str,
    against: str,
) -> None:
    pod = pod_of(read(build(variant)))
    assert warned(level, pod) == {against}
    pod["spec"]["volumes"] = [row for row in pod["spec"]["volumes"] if "hostPath" not in row]
    names = {row["name"] for row in pod["spec"]["volumes"]}
    for one in pod["spec"]["containers"]:
        one["volumeMounts"] = [row for row in one["volumeMounts"] if row["name"] in names]
    assert warned(level, pod) == set()


@pytest.mark.parametrize("variant", ["firmware-reader", "nfd", "all"])
def test_a_container_that_is_root_is_all_that_components_add(
    build: Callable[[str], bytes],
    warned: Callable[[str, dict[str, Any]], set[str]],
    variant: str,
) -> None:
    pod = pod_of(read(build(variant)))
    assert warned("baseline", pod) == {"hostPath volumes"}
    assert warned("restricted", pod) == {
        "restricted volume types",
        "runAsNonRoot != true",
        "runAsUser=0",
    }


def test_the_namespace_lets_the_pod_in_and_one_without_its_label_would_not(
    build: Callable[[str], bytes], cluster: ControlPlane
) -> None:
    pod = pod_of(read(build("all")))
    made = cluster.admin.create(f"{SPACES}/{NAMESPACE}/pods?dryRun=All", pod)
    assert made["metadata"]["name"] == "agent"
    with pytest.raises(ApiError, match="hostPath volumes"):
        cluster.admin.create(f"{SPACES}/enforce-baseline/pods?dryRun=All", pod)


def test_the_api_server_puts_no_token_into_any_container(
    build: Callable[[str], bytes], cluster: ControlPlane
) -> None:
    pod = pod_of(read(build("firmware-reader")))
    made = cluster.admin.create(f"{SPACES}/{NAMESPACE}/pods?dryRun=All", pod)
    names = {row["name"] for row in made["spec"]["volumes"]}
    assert names == {row["name"] for row in pod["spec"]["volumes"]}
    mounts = {one["name"]: one["volumeMounts"] for one in made["spec"]["containers"]}
    assert [row["name"] for row in mounts["firmware-reader"]] == ["firmware"]


def test_another_namespace_moves_the_events_role_and_leaves_the_fence(
    ask: Ask, find_program: Callable[[str, str], Path], tmp_path: Path
) -> None:
    """Which is why the manifests say not to: the agent then cannot make events. It stays fenced."""
    where = os.path.relpath(FOLDER, tmp_path)
    whole = {"namespace": "elsewhere", "resources": [f"{where}/base"]}
    (tmp_path / "kustomization.yaml").write_text(json.dumps(whole))
    done = ask(find_program("kustomize", "kustomize"), "build", tmp_path)
    documents = read(done.stdout)
    (role,) = (row for row in documents if row["kind"] == "Role")
    assert role["metadata"]["namespace"] == "elsewhere"
    for row in documents:
        if row["kind"] == "ValidatingAdmissionPolicy":
            (condition,) = row["spec"]["matchConditions"]
            assert NAMESPACE not in condition["expression"]
