"""KubeVirt's own admission code behind a real API server, with KubeVirt's own definitions."""

from __future__ import annotations

import copy
import uuid
from typing import TYPE_CHECKING, Any, Final

import pytest

from hack.control_plane_client import ApiError
from hack.kubevirt_cases import (
    CASES,
    GATE_OFF,
    HOTPLUG,
    MANIFESTS,
    MAXIMUM,
    SEV_GATE,
    VERSION,
    Case,
    encrypted,
    in_template,
    virtual_machine,
    vmi,
)
from sevkit.documents import parse_documents

if TYPE_CHECKING:
    from pathlib import Path

    from hack.kubevirt_cases import Document
    from hack.kubevirt_cluster import KubeVirtCluster

#: By kind: the webhook that says no. Of the others none does.
ADMITTERS: Final = {
    "VirtualMachineInstance": "virtualmachineinstances-create-validator.kubevirt.io",
    "VirtualMachine": "virtualmachine-validator.kubevirt.io",
}
FINALIZER: Final = "kubevirt.io/foregroundDeleteVirtualMachine"
CONFLICT: Final = (
    "VM field(s) spec.template.spec.domain.memory.guest conflicts with selected instance type"
)


def denied(document: Document, message: str) -> str:
    hook = ADMITTERS[document["kind"]]
    return f'admission webhook "{hook}" denied the request: {message}'


def refusal(cluster: KubeVirtCluster, document: Document, namespace: str) -> ApiError:
    with pytest.raises(ApiError) as caught:
        cluster.create(document, namespace)
    assert caught.value.status == 422
    assert caught.value.body["reason"] == "Invalid"
    return caught.value


def causes(error: ApiError) -> list[tuple[str, str, str]]:
    found = error.body["details"]["causes"]
    return [(row["reason"], row["field"], row["message"]) for row in found]


def new_namespace(cluster: KubeVirtCluster) -> str:
    name = f"t-{uuid.uuid4().hex[:12]}"
    cluster.admin.create("/api/v1/namespaces", {"metadata": {"name": name}})
    return name


def documents_of(corpus: Path, name: str) -> list[Document]:
    found = parse_documents((corpus / "kubevirt" / name).read_bytes(), name)
    return [document for document in found if isinstance(document, dict)]


def keeps(asked: Any, stored: Any) -> bool:  # noqa: ANN401  # JSON
    """Return whether everything that was asked for is in what is stored."""
    if isinstance(asked, dict):
        return all(name in stored and keeps(asked[name], stored[name]) for name in asked)
    if isinstance(asked, list):
        return len(asked) == len(stored) and all(map(keeps, asked, stored))
    return bool(asked == stored)


def check_mutated(stored: Document) -> None:
    """Hold a stored object against what KubeVirt's mutator of its kind leaves behind."""
    spec, metadata = stored["spec"], stored["metadata"]
    if stored["kind"] == "VirtualMachineInstance":
        assert FINALIZER in metadata["finalizers"]
        assert stored["status"]["phase"] == "Pending"
        assert stored["status"]["runtimeUser"] == 107
        if VERSION >= (1, 8):  # it fixes the guest's PCI topology since then
            assert any(name.startswith("kubevirt.io/pci-topo") for name in metadata["annotations"])
        assert spec["architecture"] in {"amd64", "arm64"}
        assert spec["domain"]["machine"]["type"] == {"amd64": "q35", "arm64": "virt"}.get(
            spec["architecture"]
        )
        cpu = spec["domain"]["cpu"]
        # Where only cores are told, KubeVirt leaves the topology alone.
        assert cpu.get("maxSockets") == (4 * cpu["sockets"] if "sockets" in cpu else None)
        assert all("bus" in disk["disk"] for disk in spec["domain"]["devices"].get("disks", []))
        # What would let memory be plugged into an encrypted guest is for others only.
        if "launchSecurity" in spec["domain"]:
            assert "maxGuest" not in spec["domain"]["memory"]
    elif stored["kind"] == "VirtualMachine":
        assert spec["template"]["spec"]["architecture"] == "amd64"
        assert spec["template"]["spec"]["domain"]["machine"]["type"] == "q35"


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_of_the_corpus_is_stored_or_refused_in_these_words(
    kubevirt_configurable: KubeVirtCluster, corpus: Path, name: str
) -> None:
    cluster = kubevirt_configurable
    for gates, expected in zip(((), (SEV_GATE,)), MANIFESTS[name], strict=True):
        cluster.configure(*gates)
        namespace = new_namespace(cluster)
        for document in documents_of(corpus, name):
            if expected is not None:
                error = refusal(cluster, document, namespace)
                assert error.message == denied(document, expected), gates
                assert [row[2] for row in causes(error)] == [expected]
                assert cluster.admin.get(cluster.path(document, namespace))["items"] == []
            else:
                stored = cluster.create(document, namespace)
                assert keeps(document["spec"], stored["spec"])
                check_mutated(stored)


def test_a_machine_that_says_what_its_instance_type_says_is_refused(
    kubevirt: KubeVirtCluster, corpus: Path, namespace: str
) -> None:
    (machine,) = documents_of(corpus, "manifests/vm-cirros-csmall.yaml")
    (kind,) = documents_of(corpus, "manifests/csmall.yaml")
    kubevirt.create(kind, namespace)
    assert refusal(kubevirt, machine, namespace).message == denied(machine, CONFLICT)
    del machine["spec"]["template"]["spec"]["domain"]["memory"]
    check_mutated(kubevirt.create(machine, namespace))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_vmi_and_a_vm_that_break_a_rule_are_refused_in_these_words(
    kubevirt_configurable: KubeVirtCluster, namespace: str, case: Case
) -> None:
    cluster = kubevirt_configurable
    cluster.configure(*case.gates)
    for document, expected in (
        (copy.deepcopy(case.vmi), case.refusals),
        (virtual_machine(case.vmi), in_template(case.refusals)),
    ):
        error = refusal(cluster, document, namespace)
        assert tuple(causes(error)) == expected
        said = ", ".join(message for _, _, message in expected)
        assert error.message == denied(document, said)


def test_a_vm_may_not_have_hotpluggable_encrypted_memory_and_a_vmi_may(
    kubevirt: KubeVirtCluster, namespace: str
) -> None:
    instance = vmi(encrypted("snp") | MAXIMUM)
    error = refusal(kubevirt, virtual_machine(instance), namespace)
    assert causes(error) == [HOTPLUG]
    stored = kubevirt.create(instance, namespace)
    assert stored["spec"]["domain"]["memory"]["maxGuest"] == "4Gi"


def test_an_encrypted_vmi_is_stored_as_kubevirt_mutates_it(
    kubevirt: KubeVirtCluster, namespace: str
) -> None:
    stored = kubevirt.create(vmi(encrypted("snp", cpu={"sockets": 2})), namespace)
    domain = stored["spec"]["domain"]
    assert domain["cpu"]["maxSockets"] == 8
    assert domain["launchSecurity"] == {"snp": {}}
    check_mutated(stored)


def test_what_the_definition_does_not_know_is_pruned(
    kubevirt: KubeVirtCluster, namespace: str
) -> None:
    document = vmi(encrypted("snp", launchSecurity={"snp": {"hostData": "AA=="}}))
    stored = kubevirt.create(document, namespace)
    assert stored["spec"]["domain"]["launchSecurity"] == {"snp": {}}


def test_the_kubevirt_resource_of_the_cluster_is_in_force(
    kubevirt_configurable: KubeVirtCluster, namespace: str
) -> None:
    cluster, document = kubevirt_configurable, vmi(encrypted("snp"))
    path = f"{cluster.path(document, namespace)}?dryRun=All"
    cluster.admin.create(path, document)
    cluster.configure()
    with pytest.raises(ApiError, match=GATE_OFF):
        cluster.admin.create(path, document)
    cluster.configure(SEV_GATE, evictionStrategy="LiveMigrate")
    assert cluster.admin.create(path, document)["spec"]["evictionStrategy"] == "LiveMigrate"


def test_a_user_may_not_change_the_spec_of_a_stored_vmi(
    kubevirt: KubeVirtCluster, namespace: str
) -> None:
    document = vmi(encrypted("snp"))
    kubevirt.create(document, namespace)
    path = f"{kubevirt.path(document, namespace)}/t"
    with pytest.raises(ApiError, match="update of VMI object is restricted"):
        kubevirt.admin.patch(path, {"spec": {"domain": {"launchSecurity": None}}})
    labelled = kubevirt.admin.patch(path, {"metadata": {"labels": {"a": "b"}}})
    assert labelled["spec"]["domain"]["launchSecurity"] == {"snp": {}}


def test_instance_types_of_the_cluster_are_applied_to_a_vm(
    kubevirt: KubeVirtCluster, namespace: str
) -> None:
    kind = {
        "apiVersion": "instancetype.kubevirt.io/v1beta1",
        "kind": "VirtualMachineInstancetype",
        "metadata": {"name": "sealed"},
        "spec": {"cpu": {"guest": 2}, "memory": {"guest": "1Gi"}, "launchSecurity": {"snp": {}}},
    }
    kubevirt.create(kind, namespace)
    machine = virtual_machine(vmi({}))
    machine["spec"]["instancetype"] = {"kind": kind["kind"], "name": "sealed"}
    domain = machine["spec"]["template"]["spec"]["domain"]
    del domain["memory"]
    assert "SNP requires OVMF (UEFI)" in refusal(kubevirt, machine, namespace).message
    domain["firmware"] = encrypted("snp")["firmware"]
    check_mutated(kubevirt.create(machine, namespace))
