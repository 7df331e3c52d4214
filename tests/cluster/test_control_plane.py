"""The control plane itself: it is real, it is ours alone, and it ends with its owner."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hack import control_plane_build
from hack.control_plane import ControlPlane, base_folder, sweep
from hack.control_plane_client import ApiError

if TYPE_CHECKING:
    from hack.control_plane_client import ApiClient

ROOT = Path(__file__).resolve().parents[2]


def pod(name: str, node: str | None = None) -> dict[str, Any]:
    spec: dict[str, Any] = {"containers": [{"name": "c", "image": "i"}]}
    if node:
        spec["nodeName"] = node
    return {"metadata": {"name": name}, "spec": spec}


def make_node(admin: ApiClient, name: str) -> None:
    admin.create("/api/v1/nodes", {"metadata": {"name": name}})


def claims(token: str) -> dict[str, Any]:
    body = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return found


def bound_token(admin: ApiClient, namespace: str, name: str) -> str:
    """Return a token of the default service account that is bound to a pod."""
    uid = admin.get(f"/api/v1/namespaces/{namespace}/pods/{name}")["metadata"]["uid"]
    reference = {"kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid}
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token"
    spec = {"boundObjectRef": reference, "expirationSeconds": 600}
    token: str = admin.create(path, {"spec": spec})["status"]["token"]
    return token


def test_the_version_is_the_one_that_was_built(control_plane: ControlPlane) -> None:
    said = control_plane.admin.get("/version")
    if not os.environ.get("KUBEBUILDER_ASSETS"):
        assert said["gitVersion"] == f"v{control_plane_build.wanted_version()}"
    assert said["major"] == "1"


def test_objects_are_defaulted_and_pruned_by_the_real_thing(
    control_plane: ControlPlane, namespace: str
) -> None:
    path = f"/api/v1/namespaces/{namespace}/pods"
    made = control_plane.admin.create(path, pod("p"))
    assert made["spec"]["dnsPolicy"] == "ClusterFirst"
    assert made["metadata"]["uid"]


def test_a_stranger_and_an_account_without_a_role_are_refused(
    control_plane: ControlPlane, namespace: str
) -> None:
    with pytest.raises(ApiError) as caught:
        control_plane.client("nobody").get("/api/v1/nodes")
    assert caught.value.status == 401
    control_plane.admin.create(f"/api/v1/namespaces/{namespace}/pods", pod("p"))
    token = bound_token(control_plane.admin, namespace, "p")
    with pytest.raises(ApiError) as caught:
        control_plane.client(token).get("/api/v1/nodes")
    assert caught.value.status == 403


def test_a_bound_token_names_the_pods_node(control_plane: ControlPlane, namespace: str) -> None:
    admin, node = control_plane.admin, f"node-{namespace}"
    make_node(admin, node)
    admin.create(f"/api/v1/namespaces/{namespace}/pods", pod("p", node))
    said = claims(bound_token(admin, namespace, "p"))["kubernetes.io"]
    assert said["node"]["name"] == node
    assert said["pod"]["name"] == "p"


def test_a_validating_admission_policy_is_evaluated(
    control_plane: ControlPlane, namespace: str
) -> None:
    group = "/apis/admissionregistration.k8s.io/v1"
    policy = {
        "metadata": {"name": namespace},
        "spec": {
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "resourceRules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "operations": ["CREATE"],
                        "resources": ["configmaps"],
                    }
                ],
            },
            "validations": [
                {"expression": "object.metadata.name != 'no'", "message": "that name is taken"}
            ],
        },
    }
    admin = control_plane.admin
    admin.create(f"{group}/validatingadmissionpolicies", policy)
    binding = {
        "metadata": {"name": namespace},
        "spec": {"policyName": namespace, "validationActions": ["Deny"]},
    }
    admin.create(f"{group}/validatingadmissionpolicybindings", binding)
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    deadline, said = time.monotonic() + 20, ""
    while time.monotonic() < deadline:
        try:
            admin.create(path, {"metadata": {"name": "no"}})
        except ApiError as error:
            said = error.message
            break
        admin.delete(f"{path}/no")
        time.sleep(0.2)
    else:
        pytest.fail("the policy was never enforced")
    assert "that name is taken" in said
    admin.create(path, {"metadata": {"name": "yes"}})


def test_the_audit_log_says_who_did_what(control_plane: ControlPlane, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    control_plane.admin.create(path, {"metadata": {"name": "seen"}})
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for event in control_plane.audit():
            reference = event.get("objectRef", {})
            if reference.get("namespace") == namespace and reference.get("name") == "seen":
                assert event["verb"] == "create"
                assert event["user"]["username"] == "admin"
                return
        time.sleep(0.1)
    pytest.fail("the audit log does not have it")


def test_its_folder_is_ours_alone(control_plane: ControlPlane) -> None:
    assert base_folder().stat().st_mode & 0o777 == 0o700
    for name in ("server.key", "service-account.key", "tokens.csv"):
        assert (control_plane.folder / name).stat().st_mode & 0o077 == 0


_OWNER = """
import sys, time
from hack.control_plane import ControlPlane
with ControlPlane() as plane:
    print(plane.folder, plane.url, flush=True)
    time.sleep(600)
"""


def servers_of(folder: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if folder.encode() in command and state != "Z":
                found.append(int(entry.name))
    return found


@pytest.mark.skipif(not control_plane_build.is_there(), reason=control_plane_build.why_not())
def test_killing_its_owner_leaves_no_server_and_the_next_start_sweeps() -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    folder, _ = owner.stdout.readline().split()
    assert len(servers_of(folder)) == 2
    assert Path(folder) not in sweep()
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    deadline = time.monotonic() + 10
    while servers_of(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert servers_of(folder) == []
    sweep()  # or another worker has by now
    assert not Path(folder).exists()
