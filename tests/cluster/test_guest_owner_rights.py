"""What the account of ``deploy/guest-owner`` may do, by a real API server's word."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

import pytest

from hack.deploy_manifests import FOLDER, documents_of, read

if TYPE_CHECKING:
    from hack.control_plane import ControlPlane

OWNER: Final = FOLDER / "guest-owner"
NAME: Final = "sevkit-guest-owner"
RBAC: Final = "/apis/rbac.authorization.k8s.io/v1/namespaces"
REVIEWS: Final = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
VMIS: Final = ("kubevirt.io", "virtualmachineinstances", "")
SUB: Final = "subresources.kubevirt.io"
#: By group, resource and subresource: the verbs of the account, and those that stopping adds.
ALLOWED: Final = {
    VMIS: {"get", "list", "watch"},
    (SUB, "virtualmachineinstances", "sev"): {"get", "update"},
    (SUB, "virtualmachineinstances", "sev/fetchcertchain"): {"get"},
    (SUB, "virtualmachineinstances", "sev/querylaunchmeasurement"): {"get"},
    (SUB, "virtualmachineinstances", "sev/setupsession"): {"update"},
    (SUB, "virtualmachineinstances", "sev/injectlaunchsecret"): {"update"},
    (SUB, "virtualmachineinstances", "unpause"): {"update"},
}
STOPPING: Final = {VMIS: {"delete"}, (SUB, "virtualmachines", "stop"): {"update"}}
OTHERS: Final = (
    (SUB, "virtualmachineinstances", "pause"),
    (SUB, "virtualmachineinstances", "console"),
    (SUB, "virtualmachineinstances", "vnc"),
    (SUB, "virtualmachines", "start"),
    ("kubevirt.io", "virtualmachines", ""),
    ("", "pods", ""),
    ("", "secrets", ""),
    ("", "namespaces", ""),
)
VERBS: Final = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")


def applied(plane: ControlPlane, namespace: str, documents: list[Any]) -> None:
    plurals = {"Role": "roles", "RoleBinding": "rolebindings"}
    for document in documents:
        found = {**document, "metadata": {**document["metadata"], "namespace": namespace}}
        if found["kind"] == "ServiceAccount":
            plane.admin.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", found)
            continue
        for subject in found.get("subjects", []):
            subject["namespace"] = namespace
        plane.admin.create(f"{RBAC}/{namespace}/{plurals[found['kind']]}", found)


def allowed(
    plane: ControlPlane, namespace: str, asked: str
) -> dict[tuple[str, str, str], set[str]]:
    """Return which verbs the account has in ``asked``, by what is asked about."""
    found: dict[tuple[str, str, str], set[str]] = {}
    user = f"system:serviceaccount:{namespace}:{NAME}"
    for what, verb in itertools.product((*ALLOWED, *STOPPING, *OTHERS), VERBS):
        group, resource, subresource = what
        attributes = {"namespace": asked, "group": group, "resource": resource, "verb": verb}
        spec = {"user": user, "resourceAttributes": attributes | {"subresource": subresource}}
        if plane.admin.create(REVIEWS, {"spec": spec})["status"]["allowed"]:
            found.setdefault(what, set()).add(verb)
    return found


@pytest.mark.parametrize("stops", [False, True])
def test_it_may_lead_launches_in_its_namespace_and_nothing_else(
    control_plane: ControlPlane, namespace: str, stops: bool
) -> None:
    documents = documents_of(OWNER)
    expected = {what: set(verbs) for what, verbs in ALLOWED.items()}
    if stops:
        documents += read((OWNER / "components/stop/rights.yaml").read_bytes())
        for what, verbs in STOPPING.items():
            expected.setdefault(what, set()).update(verbs)
    applied(control_plane, namespace, documents)
    assert allowed(control_plane, namespace, namespace) == expected
    assert allowed(control_plane, namespace, "default") == {}
