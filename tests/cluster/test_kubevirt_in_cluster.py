"""KubeVirt's own admission code behind a real API server, with KubeVirt's own definitions."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from hack import control_plane_build, kubevirt_admission
from hack.control_plane import ControlPlane
from hack.control_plane_client import ApiError
from hack.kubevirt_admission_server import AdmissionServer, crds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hack.control_plane_client import ApiClient

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
REGISTRATIONS = "/apis/admissionregistration.k8s.io/v1"
VMIS = "/apis/kubevirt.io/v1/namespaces/default/virtualmachineinstances"
VMS = "/apis/kubevirt.io/v1/namespaces/default/virtualmachines"
KUBEVIRTS = "/apis/kubevirt.io/v1/namespaces/kubevirt/kubevirts"
INSTANCETYPES = (
    "/apis/instancetype.kubevirt.io/v1beta1/namespaces/default/virtualmachineinstancetypes"
)
GATE_OFF = "WorkloadEncryptionSEV feature gate is not enabled in kubevirt-config"


def kubevirt(*, gate: bool) -> dict[str, Any]:
    member = "featureGates" if gate else "disabledFeatureGates"
    developer = {"featureGates": None, "disabledFeatureGates": None}
    developer |= {member: ["WorkloadEncryptionSEV"]}  # type: ignore[dict-item]
    return {"spec": {"configuration": {"developerConfiguration": developer}}}


def eventually(holds: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.05)


def served(admin: ApiClient, path: str) -> bool:
    try:
        admin.get(path)
    except ApiError:
        return False
    return True


@pytest.fixture(scope="module")
def admin() -> Iterator[ApiClient]:
    """An API server of this module's own: its webhooks would be in other tests' way."""
    if not control_plane_build.is_there():
        pytest.skip("no kube-apiserver: python -m hack.control_plane_build builds it")
    if not kubevirt_admission.is_there():
        pytest.skip("no kubevirt-admission: python -m hack.kubevirt_admission builds it")
    with ControlPlane() as plane:
        client = plane.admin
        for definition in crds():
            client.create(DEFINITIONS, definition)
        for path in (VMIS, VMS, KUBEVIRTS, INSTANCETYPES):
            eventually(lambda path=path: served(client, path))  # type: ignore[misc]
        client.create("/api/v1/namespaces", {"metadata": {"name": "kubevirt"}})
        with AdmissionServer(kubeconfig=plane.kubeconfig()) as server:
            for configuration in server.webhooks():
                plural = configuration["kind"].lower() + "s"
                client.create(f"{REGISTRATIONS}/{plural}", configuration)
            meta = {"apiVersion": "kubevirt.io/v1", "kind": "KubeVirt"}
            named = meta | {"metadata": {"name": "kubevirt"}} | kubevirt(gate=True)
            client.create(KUBEVIRTS, named)
            eventually(lambda: mutated(client))
            yield client


def vmi(**domain: object) -> dict[str, Any]:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"generateName": "t-"},
        "spec": {"domain": {"devices": {}, "memory": {"guest": "1Gi"}} | domain},
    }


SNP = {
    "launchSecurity": {"snp": {}},
    "firmware": {"bootloader": {"efi": {"secureBoot": False}}},
}


def mutated(admin: ApiClient) -> bool:
    """Return whether the webhooks are called by now, which the API server does not say."""
    made = admin.create(f"{VMIS}?dryRun=All", vmi())
    return "machine" in made["spec"]["domain"]


def refusal(admin: ApiClient, path: str, document: dict[str, Any]) -> str:
    """Return why KubeVirt refuses a new object; nothing if it does not."""
    try:
        admin.create(f"{path}?dryRun=All", document)
    except ApiError as error:
        return str(error)
    return ""


def test_a_new_vmi_is_stored_as_kubevirt_mutates_it(admin: ApiClient) -> None:
    made = admin.create(VMIS, vmi(cpu={"sockets": 2}, **SNP))
    domain = made["spec"]["domain"]
    assert domain["cpu"]["maxSockets"] == 8
    assert domain["launchSecurity"] == {"snp": {}}
    assert made["spec"]["architecture"] == "amd64"
    assert made["metadata"]["finalizers"] == ["kubevirt.io/foregroundDeleteVirtualMachine"]


def test_what_kubevirt_refuses_is_refused_in_its_words(admin: ApiClient) -> None:
    said = refusal(admin, VMIS, vmi(launchSecurity={"snp": {}}))
    assert "virtualmachineinstances-create-validator.kubevirt.io" in said
    assert "SNP requires OVMF (UEFI)" in said


def test_the_kubevirt_resource_of_the_cluster_is_in_force(admin: ApiClient) -> None:
    path = f"{KUBEVIRTS}/kubevirt"
    assert not refusal(admin, VMIS, vmi(**SNP))
    admin.patch(path, kubevirt(gate=False))
    try:
        eventually(lambda: GATE_OFF in refusal(admin, VMIS, vmi(**SNP)))
    finally:
        admin.patch(path, kubevirt(gate=True))
    eventually(lambda: not refusal(admin, VMIS, vmi(**SNP)))


def test_instance_types_of_the_cluster_are_applied_to_a_vm(admin: ApiClient) -> None:
    admin.create(
        INSTANCETYPES,
        {
            "apiVersion": "instancetype.kubevirt.io/v1beta1",
            "kind": "VirtualMachineInstancetype",
            "metadata": {"name": "sealed"},
            "spec": {
                "cpu": {"guest": 2},
                "memory": {"guest": "1Gi"},
                "launchSecurity": {"snp": {}},
            },
        },
    )
    machine = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"generateName": "t-"},
        "spec": {
            "runStrategy": "Halted",
            "instancetype": {"kind": "VirtualMachineInstancetype", "name": "sealed"},
            "template": {"spec": {"domain": {"devices": {}}}},
        },
    }
    assert "SNP requires OVMF (UEFI)" in refusal(admin, VMS, machine)
    template: Any = machine["spec"]
    template["template"]["spec"]["domain"]["firmware"] = SNP["firmware"]
    assert not refusal(admin, VMS, machine)
