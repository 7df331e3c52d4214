"""``sevkit cluster preflight`` as a process, against the real API server and KubeVirt's objects."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from hack import control_plane_build, kubevirt_admission
from hack.cluster_pod import RBAC
from hack.control_plane import ADMIN_TOKEN, ControlPlane
from hack.kubevirt_cases import encrypted, vmi
from hack.kubevirt_cluster import KubeVirtCluster
from hack.preflight_documents import (
    LABEL,
    NAMESPACE,
    authority,
    binding,
    choices,
    endpoints,
    kubevirt_status,
    mutating,
    node,
    policies,
    service,
    validating,
)
from hack.webhook_registration import NAME
from sevkit.documents import parse_documents

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hack.control_plane_client import ApiClient

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "preflight.md"
ADMISSION: Final = "/apis/admissionregistration.k8s.io/v1"
MUTATING: Final = f"{ADMISSION}/mutatingwebhookconfigurations"
VALIDATING: Final = f"{ADMISSION}/validatingwebhookconfigurations"
POLICIES: Final = f"{ADMISSION}/validatingadmissionpolicies"
BINDINGS: Final = f"{ADMISSION}/validatingadmissionpolicybindings"
OURS: Final = f"/api/v1/namespaces/{NAMESPACE}"
SLICES: Final = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
KUBEVIRT: Final = "/apis/kubevirt.io/v1/namespaces/kubevirt/kubevirts/kubevirt"
ES: Final = {"sevkit.io__sev-es": "true", "kubevirt.io__sev-es": "true"}
SECONDS: Final = 10.0


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """Run a control plane of this module's own: what it breaks, other tests need whole."""
    for part in (control_plane_build, kubevirt_admission):
        if not part.is_there():
            pytest.skip(part.why_not())
    with ControlPlane() as started:
        yield started


@pytest.fixture(scope="module")
def bare(plane: ControlPlane) -> dict[str, Any]:
    """What a preflight says before there is anything."""
    return checks(plane)


@pytest.fixture(scope="module")
def kubevirt(plane: ControlPlane, bare: dict[str, Any]) -> Iterator[KubeVirtCluster]:
    """KubeVirt in it, after the bare cluster was asked."""
    assert bare
    with KubeVirtCluster(plane) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def ready(kubevirt: KubeVirtCluster) -> ApiClient:
    """Make it ready: two nodes, a labelled namespace with a good VMI, webhook and policies."""
    admin, bundle = kubevirt.admin, authority()
    kubevirt.configure("WorkloadEncryptionSEV", "RebootPolicy")
    set_status(admin, kubevirt_status())
    for document in (node("a"), node("b", **ES)):
        admin.create(
            "/api/v1/nodes", {"metadata": {k: document["metadata"][k] for k in ("name", "labels")}}
        )
        admin.patch(
            f"/api/v1/nodes/{document['metadata']['name']}/status", {"status": document["status"]}
        )
    admin.create("/api/v1/namespaces", {"metadata": {"name": "team"}})
    kubevirt.create(vmi(encrypted("snp")), "team")
    label(admin, "team", "snp")
    admin.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    admin.create(f"{OURS}/services", service())
    admin.create(f"{OURS}/configmaps", choices())
    admin.create(SLICES, endpoints("10.0.0.1", "10.0.0.2"))
    admin.create(MUTATING, mutating(bundle))
    admin.create(VALIDATING, validating(bundle))
    for document in policies():
        admin.create(POLICIES, document)
        admin.create(BINDINGS, binding(document["metadata"]["name"]))
    return admin


def set_status(admin: ApiClient, status: dict[str, Any]) -> None:
    admin.patch(f"{KUBEVIRT}/status", {"status": status})


def label(admin: ApiClient, namespace: str, value: str | None) -> None:
    admin.patch(f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": {LABEL: value}}})


def preflight(
    plane: ControlPlane, *words: str, token: str = ADMIN_TOKEN
) -> subprocess.CompletedProcess[str]:
    kubeconfig = str(plane.kubeconfig(token))
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "sevkit",
            "cluster",
            "preflight",
            "--kubeconfig",
            kubeconfig,
            *words,
        ],
        env=os.environ | {"COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def document(plane: ControlPlane, *words: str, token: str = ADMIN_TOKEN) -> dict[str, Any]:
    done = preflight(plane, *words, "--output", "json", token=token)
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["schema"] == "sevkit.io/cluster-preflight/v1"
    assert found["exit_code"] == done.returncode
    assert found["ready"] is {0: True, 3: False, 4: None}[done.returncode]
    return found


def checks(plane: ControlPlane, *words: str, token: str = ADMIN_TOKEN) -> dict[str, Any]:
    return {one["check"]: one for one in document(plane, *words, token=token)["checks"]}


def odd(found: dict[str, Any]) -> dict[str, str]:
    return {name: one["verdict"] for name, one in found.items() if one["verdict"] != "pass"}


@contextlib.contextmanager
def replaced(admin: ApiClient, path: str, **changes: Any) -> Iterator[None]:  # noqa: ANN401  # JSON
    """Change an object, and put it back."""
    before = admin.get(path)
    admin.patch(path, changes)
    try:
        yield
    finally:
        version = admin.get(path)["metadata"]["resourceVersion"]
        before["metadata"]["resourceVersion"] = version
        admin.replace(path, before)


@contextlib.contextmanager
def deleted(admin: ApiClient, collection: str, name: str) -> Iterator[None]:
    """Delete an object, and make it again."""
    before = admin.get(f"{collection}/{name}")
    admin.delete(f"{collection}/{name}")
    for key in ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"):
        before["metadata"].pop(key, None)
    try:
        yield
    finally:
        admin.create(collection, before)


def test_a_bare_cluster_is_not_ready_and_says_what_is_missing(bare: dict[str, Any]) -> None:
    assert bare["kubernetes.version"]["verdict"] == "pass"
    assert bare["kubernetes.version"]["value"].startswith("v1.")
    failed = {name for name, verdict in odd(bare).items() if verdict == "fail"}
    assert failed == {
        *("kubevirt.installed", "kubevirt.definition", "webhook.configuration"),
        *("policy.vmi", "policy.namespace", "nodes.agent", "nodes.kubevirt"),
    }
    assert all(bare[name]["fix"] for name in failed)


def test_what_was_made_ready_is_ready(plane: ControlPlane, ready: ApiClient) -> None:
    found = document(plane, "--require", "sev-snp", "--require", "sev-es")
    assert odd({one["check"]: one for one in found["checks"]}) == {}
    assert (found["ready"], found["required"]) == (True, ["sev-es", "sev-snp"])
    assert {one["check"]: one["value"] for one in found["checks"]}["tenants.guests"] == "1 of 1"
    done = preflight(plane)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\nready (exit code 0)\n")


def test_the_rights_of_the_page_are_enough(plane: ControlPlane, ready: ApiClient) -> None:
    page = PAGE.read_text(encoding="utf-8")
    text = page.partition("```yaml\n")[2].partition("```")[0]
    cluster_role, role = parse_documents(text.encode(), "page")
    assert isinstance(cluster_role, dict)
    assert isinstance(role, dict)
    token = account(ready, "reader")
    grant(ready, "reader", f"{RBAC}/clusterroles", f"{RBAC}/clusterrolebindings", cluster_role)
    local = f"{RBAC}/namespaces/{NAMESPACE}"
    grant(ready, "reader", f"{local}/roles", f"{local}/rolebindings", role)
    found = settled(plane, token, lambda one: not odd(one))
    assert odd(found) == {}


def test_without_rights_every_question_names_the_one_that_is_missing(
    plane: ControlPlane, ready: ApiClient
) -> None:
    token = account(ready, "nobody")
    found = document(plane, token=token)
    assert found["exit_code"] == 4
    rows = {one["check"]: one for one in found["checks"]}
    rights = {one["missing_right"] for one in rows.values()} - {""}
    assert rights == {
        "list kubevirts.kubevirt.io",
        "get customresourcedefinitions.apiextensions.k8s.io",
        "get mutatingwebhookconfigurations.admissionregistration.k8s.io",
        "get validatingwebhookconfigurations.admissionregistration.k8s.io",
        f"get configmaps in {NAMESPACE}",
        "get validatingadmissionpolicies.admissionregistration.k8s.io",
        "list nodes",
        "list namespaces",
    }
    assert {name for name, one in rows.items() if one["verdict"] == "pass"} == {
        "kubernetes.version",
        "kubernetes.node-claim",
    }
    said = preflight(plane, "--only", "nodes", token=token).stdout
    assert "skip  nodes.agent         forbidden; needs the right to list nodes" in said
    assert "could not find out whether it is ready (exit code 4)" in said
    assert preflight(plane, "--only", "kubernetes", token=token).returncode == 0


def test_who_is_not_known_gets_no_answer(plane: ControlPlane) -> None:
    done = preflight(plane, token="nobody")
    assert (done.returncode, done.stdout) == (4, "")
    assert "does not accept our credentials" in done.stderr


@pytest.mark.parametrize(
    ("lists", "version", "verdict", "words"),
    [
        ({"featureGates": None}, "v1.8.0", "fail", "off by default in this version"),
        ({"featureGates": None}, "v1.9.0", "pass", "on by default in this version"),
        (
            {"featureGates": None, "disabledFeatureGates": ["WorkloadEncryptionSEV"]},
            *("v1.9.0", "fail", "it is in disabledFeatureGates"),
        ),
        ({"disabledFeatureGates": ["WorkloadEncryptionSEV"]}, "v1.9.0", "pass", "in featureGates"),
    ],
)
def test_a_gate_is_judged_as_kubevirt_does(
    plane: ControlPlane,
    ready: ApiClient,
    lists: dict[str, Any],
    version: str,
    verdict: str,
    words: str,
) -> None:
    developer = {"disabledFeatureGates": None} | lists
    changes = {"spec": {"configuration": {"developerConfiguration": developer}}}
    set_status(ready, kubevirt_status(version))
    try:
        with replaced(ready, KUBEVIRT, **changes):
            row = checks(plane, "--only", "kubevirt")["kubevirt.encryption-gate"]
    finally:
        set_status(ready, kubevirt_status())
    assert row["verdict"] == verdict
    assert words in row["detail"]


def test_a_kubevirt_that_does_not_say_so_is_not_available(
    plane: ControlPlane, ready: ApiClient
) -> None:
    set_status(ready, {"conditions": []})
    try:
        assert odd(checks(plane, "--only", "kubevirt")) == {"kubevirt.available": "fail"}
    finally:
        set_status(ready, kubevirt_status())


@pytest.mark.parametrize(
    ("number", "members", "check"),
    [
        (0, {"failurePolicy": "Ignore"}, "webhook.failure-policy"),
        (1, {"reinvocationPolicy": "Never"}, "webhook.reinvocation"),
        (2, {"matchPolicy": "Exact"}, "webhook.match-policy"),
        (4, {"namespaceSelector": {"matchLabels": {LABEL: "other"}}}, "webhook.entries"),
    ],
)
def test_a_webhook_that_is_not_as_it_should_be_is_found(
    plane: ControlPlane, ready: ApiClient, number: int, members: dict[str, Any], check: str
) -> None:
    whole = ready.get(f"{MUTATING}/{NAME}")["webhooks"]
    whole[number] |= members
    with replaced(ready, f"{MUTATING}/{NAME}", webhooks=whole):
        assert odd(checks(plane, "--only", "webhook")) == {check: "fail"}


def test_an_authority_that_has_ended_and_a_bundle_that_is_missing_are_found(
    plane: ControlPlane, ready: ApiClient
) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=30)
    ended = authority(timedelta(days=29), now=long_ago)
    whole = ready.get(f"{MUTATING}/{NAME}")["webhooks"]
    whole[3]["clientConfig"]["caBundle"] = ended
    with replaced(ready, f"{MUTATING}/{NAME}", webhooks=whole):
        row = checks(plane, "--only", "webhook")["webhook.authority"]
    assert row["verdict"] == "fail"
    assert row["detail"].startswith("caBundle expired on ")
    assert row["objects"] == ["best.confidential.sevkit.io"]
    whole[3]["clientConfig"].pop("caBundle")
    with replaced(ready, f"{MUTATING}/{NAME}", webhooks=whole):
        row = checks(plane, "--only", "webhook")["webhook.authority"]
    assert row["detail"].startswith("caBundle is empty")


def test_a_name_that_sorts_after_kubevirts_is_found(plane: ControlPlane, ready: ApiClient) -> None:
    late = mutating(authority()) | {"metadata": {"name": "zz-sevkit"}}
    ready.create(MUTATING, late)
    try:
        found = checks(plane, "--only", "webhook", "--webhook", "zz-sevkit")
    finally:
        ready.delete(f"{MUTATING}/zz-sevkit")
    assert found["webhook.order"]["verdict"] == "fail"
    assert found["webhook.service"]["verdict"] == "fail"


def test_pods_that_are_not_ready_are_found(plane: ControlPlane, ready: ApiClient) -> None:
    unready = endpoints("10.0.0.1", ready=False)["endpoints"]
    with replaced(ready, f"{SLICES}/{NAME}-a", endpoints=unready):
        assert odd(checks(plane, "--only", "webhook")) == {"webhook.endpoints": "fail"}


def test_a_net_with_a_hole_is_found(plane: ControlPlane, ready: ApiClient) -> None:
    vmis, changes, namespaces = (one["metadata"]["name"] for one in policies())
    with deleted(ready, BINDINGS, vmis):
        assert odd(checks(plane, "--only", "policy")) == {"policy.vmi-binding": "fail"}
    with deleted(ready, POLICIES, namespaces):
        found = odd(checks(plane, "--only", "policy"))
    assert found == {"policy.namespace": "fail", "policy.namespace-binding": "skip"}
    with deleted(ready, POLICIES, changes):
        found = odd(checks(plane, "--only", "policy"))
    assert found == {"policy.vmi-update": "warn", "policy.vmi-update-binding": "warn"}
    actions = {"validationActions": ["Warn"]}
    with replaced(ready, f"{BINDINGS}/{vmis}", spec=actions):
        assert odd(checks(plane, "--only", "policy")) == {"policy.vmi-binding": "fail"}
    everything = {key: ["*"] for key in ("apiGroups", "apiVersions", "operations", "resources")}
    matched = {"matchResources": {"excludeResourceRules": [everything]}}
    with replaced(ready, f"{BINDINGS}/{vmis}", spec=matched):
        assert odd(checks(plane, "--only", "policy")) == {"policy.vmi-binding": "fail"}


def test_nodes_that_claim_what_they_have_not_are_named(
    plane: ControlPlane, ready: ApiClient
) -> None:
    labels = {"sevkit.io/sev-snp": "false", "sevkit.io/simulated": "true"}
    with replaced(ready, "/api/v1/nodes/b", metadata={"labels": labels}):
        found = checks(plane, "--only", "nodes")
        strict = checks(plane, "--only", "nodes", "--require", "sev-es")
    assert odd(found) == {
        "nodes.sev-es": "warn",
        "nodes.false-claims": "warn",
        "nodes.simulated": "warn",
    }
    assert found["nodes.false-claims"]["objects"] == ["b (SEV-SNP)"]
    assert found["nodes.simulated"]["objects"] == ["b"]
    assert strict["nodes.sev-es"]["verdict"] == "fail"


def test_a_node_without_capacity_is_named(plane: ControlPlane, ready: ApiClient) -> None:
    none = {"sevkit.io/sev-snp": "0"}
    with replaced(ready, "/api/v1/nodes/a/status", status={"capacity": none, "allocatable": none}):
        found = checks(plane, "--only", "nodes")
    assert odd(found) == {"nodes.capacity": "warn"}
    assert found["nodes.capacity"]["objects"] == ["a (sevkit.io/sev-snp)"]


def test_what_runs_unprotected_in_a_labelled_namespace_is_named(
    plane: ControlPlane, ready: ApiClient, kubevirt: KubeVirtCluster
) -> None:
    ready.create("/api/v1/namespaces", {"metadata": {"name": "late"}})
    weak = vmi(encrypted("sev")) | {"metadata": {"name": "weak"}}
    for name, one in {
        "plain": vmi({}),
        "strong": vmi(encrypted("snp")),
        "weak": weak,
        **{f"p{number:03}": vmi({}) for number in range(3)},
    }.items():
        kubevirt.create(one | {"metadata": {"name": name}}, "late")
    label(ready, "late", "sev-es")
    try:
        row = checks(plane, "--only", "tenants")["tenants.guests"]
        said = preflight(plane, "--only", "tenants").stdout
    finally:
        label(ready, "late", None)
    assert (row["verdict"], row["value"]) == ("fail", "2 of 7")
    assert row["objects"] == [
        *(f"late/p{number:03} (nothing, not sev-es)" for number in range(3)),
        "late/plain (nothing, not sev-es)",
        "late/weak (sev, not sev-es)",
    ]
    assert "late/weak (sev, not sev-es)" in said
    assert "virtctl restart" in said
    assert "NOT READY (exit code 3)" in said


def test_a_label_that_asks_for_nothing_is_found(plane: ControlPlane, ready: ApiClient) -> None:
    ready.create("/api/v1/namespaces", {"metadata": {"name": "odd", "labels": {LABEL: "SNP"}}})
    try:
        found = checks(plane, "--only", "tenants")
    finally:
        label(ready, "odd", None)
    assert odd(found) == {"tenants.labels": "fail"}
    assert found["tenants.labels"]["objects"] == ["odd (SNP)"]


def account(admin: ApiClient, name: str) -> str:
    """Make a service account without rights, and return a token of it."""
    accounts = f"{OURS}/serviceaccounts"
    admin.create(accounts, {"metadata": {"name": name}})
    made = admin.create(f"{accounts}/{name}/token", {"spec": {"expirationSeconds": 600}})
    token: str = made["status"]["token"]
    return token


def grant(admin: ApiClient, name: str, roles: str, bindings: str, role: dict[str, Any]) -> None:
    """Make a role, and give it to a service account."""
    admin.create(roles, role)
    reference = {
        "apiGroup": RBAC.split("/")[2],
        "kind": role["kind"],
        "name": role["metadata"]["name"],
    }
    subject = {"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}
    admin.create(
        bindings, {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]}
    )


def settled(plane: ControlPlane, token: str, holds: Any) -> dict[str, Any]:  # noqa: ANN401  # a test of checks
    """Return what is said once the API server has learned of new rights."""
    deadline = time.monotonic() + SECONDS
    while True:
        found = checks(plane, token=token)
        if holds(found) or time.monotonic() > deadline:
            return found
        time.sleep(0.1)
