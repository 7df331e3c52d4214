"""KubeVirt's own admission code: what it answers, and that the program around it is faithful.

Every expectation here was observed. Where one fails, KubeVirt has changed and sevkit has to follow.
"""

from __future__ import annotations

import base64
import copy
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pytest

from hack import debian, kubevirt_admission
from hack.kubevirt_admission_server import AdmissionServer, AdmissionServerError, crds
from sevkit.documents import parse_documents

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Document: TypeAlias = dict[str, Any]

VERSION: Final = tuple(int(part) for part in kubevirt_admission.wanted_version().split(".")[:2])
SEV_GATE: Final = "WorkloadEncryptionSEV"
TDX_GATE: Final = "WorkloadEncryptionTDX"
GATE_OFF: Final = f"{SEV_GATE} feature gate is not enabled in kubevirt-config"

#: By kind: the resource, and the paths of its mutator and of its admitter of new objects.
PATHS: Final = {
    "VirtualMachineInstance": (
        "virtualmachineinstances",
        "/virtualmachineinstances-mutate",
        "/virtualmachineinstances-validate-create",
    ),
    "VirtualMachine": ("virtualmachines", "/virtualmachines-mutate", "/virtualmachines-validate"),
    "VirtualMachineInstanceReplicaSet": (
        "virtualmachineinstancereplicasets",
        None,
        "/virtualmachinereplicaset-validate",
    ),
    "VirtualMachinePool": ("virtualmachinepools", None, "/virtualmachinepool-validate"),
    "VirtualMachineInstancetype": (
        "virtualmachineinstancetypes",
        None,
        "/virtualmachineinstancetypes-validate",
    ),
}


def kubevirt(*gates: str, **configuration: object) -> Document:
    """A KubeVirt resource in which exactly these gates are on, of those that matter here."""
    developer: Document = {"featureGates": list(gates)}
    if VERSION >= (1, 9):  # where they are on unless they are switched off
        off = {SEV_GATE, TDX_GATE, "RebootPolicy"} - set(gates)
        developer["disabledFeatureGates"] = sorted(off)
    return {"spec": {"configuration": {"developerConfiguration": developer} | configuration}}


@pytest.fixture(scope="module")
def server() -> Iterator[AdmissionServer]:
    if not kubevirt_admission.is_there():
        pytest.skip("no kubevirt-admission: python -m hack.kubevirt_admission builds it")
    with AdmissionServer(kubevirt()) as running:
        yield running


def request_for(document: Document, operation: str = "CREATE") -> Document:
    group, version = document["apiVersion"].split("/")
    document["metadata"].setdefault("namespace", "default")
    return {
        "uid": str(uuid.uuid4()),
        "operation": operation,
        "namespace": document["metadata"]["namespace"],
        "name": document["metadata"]["name"],
        "kind": {"group": group, "version": version, "kind": document["kind"]},
        "resource": {
            "group": group,
            "version": version,
            "resource": PATHS[document["kind"]][0],
        },
        "object": document,
        "userInfo": {"username": "somebody"},
    }


def mutate(server: AdmissionServer, document: Document) -> Document:
    """Return the document as KubeVirt's mutator leaves it."""
    path = PATHS[document["kind"]][1]
    changed = copy.deepcopy(document)
    if path is None:
        return changed
    answer = server.review(path, request_for(changed))
    assert answer["allowed"], answer
    for step in json.loads(base64.b64decode(answer["patch"])):
        name = step["path"].removeprefix("/")
        assert step["op"] == "replace", step
        assert name in {"spec", "metadata", "status"}, step
        changed[name] = step["value"]
    return changed


def causes(server: AdmissionServer, document: Document) -> list[tuple[str, str, str]]:
    """Return why KubeVirt refuses a new object: type, field and message; nothing if it does not."""
    mutated = mutate(server, document)
    answer = server.review(PATHS[document["kind"]][2], request_for(mutated))
    if answer["allowed"]:
        return []
    assert answer["status"]["code"] == 422
    found = answer["status"]["details"]["causes"]
    return [(row["reason"], row["field"], row["message"]) for row in found]


def vmi(domain: Document, **spec: object) -> Document:
    """A VMI with as little as KubeVirt takes, and these members of its domain and spec."""
    whole = {"devices": {}, "memory": {"guest": "1Gi"}} | domain
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "t"},
        "spec": {"architecture": "amd64", "domain": whole} | spec,
    }


def virtual_machine(instance: Document) -> Document:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": "t"},
        "spec": {
            "runStrategy": "Always",
            "template": {"metadata": {}, "spec": copy.deepcopy(instance["spec"])},
        },
    }


def efi(**members: object) -> Document:
    return {"bootloader": {"efi": {"secureBoot": False} | members}}


def encrypted(tier: str, **domain: object) -> Document:
    return {"launchSecurity": {tier: {}}, "firmware": efi()} | domain


SMM: Final[Document] = {"features": {"smm": {}}}
BOOTING: Final[Document] = {"name": "default", "masquerade": {}, "bootOrder": 1}
BOOTABLE: Final[Document] = {"devices": {"interfaces": [BOOTING]}}
NETWORK: Final[Document] = {"networks": [{"name": "default", "pod": {}}]}
PROBE: Final[Document] = {"httpGet": {"port": 80}}
INVALID: Final = "FieldValueInvalid"
LAUNCH: Final = "spec.launchSecurity"
ONE: Final = ("FieldValueForbidden", LAUNCH, "One and only one launchSecurity type can be set")
LIVENESS: Final = (
    "either spec.startStrategy or spec.livenessProbe should be provided."
    "Pausing VMI with LivenessProbe is not supported"
)
EXCLUSIVE: Final = (
    "spec.domain.firmware.bootloader has both EFI and BIOS configured, "
    "but they are mutually exclusive."
)
SMM_NEEDED: Final = (
    "spec.domain has EFI SecureBoot enabled. SecureBoot requires SMM, which is currently disabled."
)


@dataclass(frozen=True)
class Case:
    """A VMI that breaks a rule, and everything that KubeVirt has to say about it."""

    rule: str
    vmi: Document
    refusals: tuple[tuple[str, str, str], ...]
    gates: tuple[str, ...] = (SEV_GATE, TDX_GATE)

    def __str__(self) -> str:
        return f"{self.rule}-{'-'.join(self.vmi['spec']['domain'].get('launchSecurity', {}))}"


def launch(message: str) -> tuple[tuple[str, str, str], ...]:
    return ((INVALID, LAUNCH, message),)


CASES: Final = (
    Case(
        "LS-ARCH",
        vmi(encrypted("snp"), architecture="arm64"),
        ((INVALID, "spec.architecture", "No launchSecurity support for architecture: arm64"),),
        (SEV_GATE, "MultiArchitecture"),  # a gate that KubeVirt 1.7 still asked for
    ),
    Case("LS-ONE", vmi({"launchSecurity": {}, "firmware": efi()}), (ONE,)),
    Case("LS-ONE", vmi({"launchSecurity": {"sev": {}, "snp": {}}, "firmware": efi()}), (ONE,)),
    Case("LS-GATE-SEV", vmi(encrypted("sev")), launch(GATE_OFF), (TDX_GATE,)),
    Case("LS-GATE-SEV", vmi(encrypted("snp")), launch(GATE_OFF), (TDX_GATE,)),
    Case(
        "LS-GATE-TDX",
        vmi(encrypted("tdx")),
        launch(f"{TDX_GATE} feature gate is not enabled in kubevirt-config"),
        (SEV_GATE,),
    ),
    Case("LS-TDX-SMM", vmi(encrypted("tdx") | SMM), launch("TDX does not work along with SMM")),
    Case("LS-EFI", vmi({"launchSecurity": {"sev": {}}}), launch("SEV requires OVMF (UEFI)")),
    Case("LS-EFI", vmi({"launchSecurity": {"snp": {}}}), launch("SNP requires OVMF (UEFI)")),
    Case(
        "LS-EFI",
        vmi(encrypted("snp", firmware={"bootloader": {}})),
        launch("SNP requires OVMF (UEFI)"),
    ),
    Case(
        "LS-SECBOOT",
        vmi(encrypted("sev", firmware=efi(secureBoot=True)) | SMM),
        launch("SEV does not work along with SecureBoot"),
    ),
    Case(
        "LS-SECBOOT",
        vmi(encrypted("snp", firmware={"bootloader": {"efi": {}}}) | SMM),
        launch("SNP does not work along with SecureBoot"),
    ),
    Case(
        "LS-PERSIST",
        vmi(encrypted("snp", firmware=efi(persistent=True))),
        launch("SNP does not work along with Persistent EFI variables"),
    ),
    Case(
        "LS-PERSIST",
        vmi(encrypted("tdx", firmware=efi(persistent=True))),
        launch("TDX does not work along with Persistent EFI variables"),
    ),
    Case(
        "LS-ATTEST-PAUSED",
        vmi({"launchSecurity": {"sev": {"attestation": {}}}, "firmware": efi()}),
        launch("SEV attestation requires VMI StartStrategy 'Paused'"),
    ),
    Case(
        "LS-NIC-BOOT",
        vmi(encrypted("sev") | BOOTABLE, **NETWORK),
        launch("SEV does not work with bootable NICs: default"),
    ),
    Case(
        "LS-NIC-BOOT",
        vmi(encrypted("snp") | BOOTABLE, **NETWORK),
        launch("SNP does not work with bootable NICs: default"),
    ),
    Case(
        "PAUSED-LIVENESS",
        vmi({}, startStrategy="Paused", livenessProbe=PROBE),
        (
            (
                INVALID,
                "spec.startStrategy",
                LIVENESS,
            ),
        ),
    ),
    Case(
        "EFI-BIOS-EXCL",
        vmi({"firmware": {"bootloader": {"efi": {"secureBoot": False}, "bios": {}}}}),
        (
            (
                INVALID,
                "spec.domain.firmware.bootloader",
                EXCLUSIVE,
            ),
        ),
    ),
    Case(
        "SECBOOT-SMM",
        vmi({"firmware": {"bootloader": {"efi": {}}}}),
        (
            (
                INVALID,
                "spec.domain",
                SMM_NEEDED,
            ),
        ),
    ),
)
HOTPLUG: Final = (
    INVALID,
    "spec.template.spec.domain.memory.guest",
    "Memory hotplug is not compatible with encrypted VMs",
)
MAXIMUM: Final[Document] = {"memory": {"guest": "1Gi", "maxGuest": "4Gi"}}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_vmi_that_breaks_a_rule_is_refused_in_these_words(
    server: AdmissionServer, case: Case
) -> None:
    server.configure(kubevirt(*case.gates))
    assert tuple(causes(server, case.vmi)) == case.refusals


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_vm_is_refused_in_the_same_words_with_its_own_field_names(
    server: AdmissionServer, case: Case
) -> None:
    server.configure(kubevirt(*case.gates))
    refusals = [
        (
            kind,
            field.replace("spec", "spec.template.spec", 1),
            message.replace("spec.", "spec.template.spec."),
        )
        for kind, field, message in case.refusals
    ]
    assert causes(server, virtual_machine(case.vmi)) == refusals


@pytest.mark.parametrize(
    ("strategy", "refusals"), [("LiveUpdate", [HOTPLUG]), (None, [HOTPLUG]), ("Stage", [])]
)
def test_only_a_vm_with_live_update_may_not_have_hotpluggable_encrypted_memory(
    server: AdmissionServer, strategy: str | None, refusals: list[tuple[str, str, str]]
) -> None:
    configuration = {"vmRolloutStrategy": strategy} if strategy else {}
    server.configure(kubevirt(SEV_GATE, **configuration))
    instance = vmi(encrypted("snp") | MAXIMUM)
    assert causes(server, virtual_machine(instance)) == refusals
    assert causes(server, instance) == []


def test_the_rules_of_the_corpus_are_the_ones_that_are_tried(corpus: Path) -> None:
    known = json.loads((corpus / "kubevirt/launchsecurity-rules.json").read_text())
    tried: defaultdict[str, set[tuple[str, str, str]]] = defaultdict(set)
    for case in CASES:
        tried[case.rule].update(case.refusals)
    tried["VM-MAXGUEST"] = {HOTPLUG}
    assert {row["id"] for row in known["rules"]} == tried.keys()
    for row in known["rules"]:
        parts = re.split(r"<[^>]*>", row["message"])
        message = ".+".join(re.escape(part) for part in parts)
        for kind, field, said in tried[row["id"]]:
            assert kind.endswith(row["type"])
            assert field == row["field"]
            assert re.fullmatch(message, said)


#: By file of the corpus: the kind, and why it is refused with the SEV gate off and on.
MANIFESTS: Final[dict[str, tuple[str | None, str | None]]] = {
    "fixtures/vmi-sev-attest.yaml": (GATE_OFF, None),
    "fixtures/vmi-sev-es-attest.yaml": (GATE_OFF, None),
    "fixtures/vmi-sev-es.yaml": (GATE_OFF, None),
    "fixtures/vmi-sev.yaml": (GATE_OFF, None),
    "fixtures/vmi-snp.yaml": (GATE_OFF, None),
    "manifests/csmall.yaml": (None, None),
    "manifests/vm-alpine-datavolume.yaml": (None, None),
    "manifests/vm-cirros-csmall.yaml": (None, None),
    "manifests/vm-cirros.yaml": (None, None),
    "manifests/vm-pool-cirros.yaml": (None, None),
    "manifests/vmi-alpine-efi.yaml": (None, None),
    "manifests/vmi-arm.yaml": (None, None),
    "manifests/vmi-ephemeral.yaml": (None, None),
    "manifests/vmi-fedora-isolated.yaml": (None, None),
    "manifests/vmi-fedora.yaml": (None, None),
    "manifests/vmi-gpu.yaml": (None, None),
    "manifests/vmi-host-disk.yaml": (
        "HostDisk feature gate is not enabled",
        "HostDisk feature gate is not enabled",
    ),
    "manifests/vmi-kernel-boot.yaml": (None, None),
    "manifests/vmi-masquerade.yaml": (None, None),
    "manifests/vmi-migratable.yaml": (None, None),
    "manifests/vmi-multus-multiple-net.yaml": (None, None),
    "manifests/vmi-nocloud.yaml": (None, None),
    "manifests/vmi-pvc.yaml": (None, None),
    "manifests/vmi-replicaset-cirros.yaml": (None, None),
    "manifests/vmi-sata.yaml": (None, None),
    "manifests/vmi-secureboot.yaml": (None, None),
    "manifests/vmi-sriov.yaml": (None, None),
    "manifests/vmi-windows.yaml": (None, None),
}


def test_every_manifest_of_the_corpus_has_an_expectation(corpus: Path) -> None:
    folder = corpus / "kubevirt"
    found = {
        path.relative_to(folder).as_posix()
        for name in ("fixtures", "manifests")
        for path in (folder / name).glob("*.yaml")
    }
    assert found == MANIFESTS.keys()


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_of_the_corpus_is_answered_as_it_was(
    server: AdmissionServer, corpus: Path, name: str
) -> None:
    documents = parse_documents((corpus / "kubevirt" / name).read_bytes(), name)
    for gates, expected in zip(((), (SEV_GATE,)), MANIFESTS[name], strict=True):
        server.configure(kubevirt(*gates))
        said = []
        for document in documents:
            assert isinstance(document, dict)
            said += [message for _, _, message in causes(server, document)]
        assert said == ([expected] if expected else []), gates


def test_the_gate_is_on_by_default_since_1_9(server: AdmissionServer) -> None:
    server.configure({})
    refused = [] if VERSION >= (1, 9) else [*launch(GATE_OFF)]
    assert causes(server, vmi(encrypted("snp"))) == refused


def test_a_gate_in_both_lists_is_on(server: AdmissionServer) -> None:
    if VERSION < (1, 8):
        pytest.skip("this KubeVirt has one list")
    both = {"featureGates": [SEV_GATE], "disabledFeatureGates": [SEV_GATE]}
    server.configure({"spec": {"configuration": {"developerConfiguration": both}}})
    assert causes(server, vmi(encrypted("snp"))) == []


def test_launch_security_is_not_looked_at_on_s390x(server: AdmissionServer) -> None:
    server.configure(kubevirt())
    instance = vmi({"launchSecurity": {"sev": {}, "snp": {}}}, architecture="s390x")
    assert not [row for row in causes(server, instance) if "ecurity" in row[2]]


def test_a_reboot_policy_is_refused_without_its_gate(server: AdmissionServer) -> None:
    if VERSION < (1, 8):
        pytest.skip("this KubeVirt has no reboot policy")
    instance = vmi(encrypted("snp", rebootPolicy="Terminate"))
    server.configure(kubevirt(SEV_GATE))
    message = "RebootPolicy is specified but the RebootPolicy feature gate is not enabled"
    assert causes(server, instance) == [(INVALID, "spec.domain.rebootPolicy", message)]
    server.configure(kubevirt(SEV_GATE, "RebootPolicy"))
    assert causes(server, instance) == []


def test_the_mutator_adds_hotpluggable_sockets_and_no_memory(server: AdmissionServer) -> None:
    server.configure(kubevirt(SEV_GATE, evictionStrategy="LiveMigrate"))
    sockets = {"cpu": {"sockets": 2}}
    plain = mutate(server, vmi(sockets))["spec"]
    hidden = mutate(server, vmi(encrypted("snp") | sockets))["spec"]
    assert hidden["domain"]["cpu"]["maxSockets"] == 8
    assert "maxGuest" not in hidden["domain"]["memory"]
    assert plain["domain"]["memory"]["maxGuest"] == "4Gi"
    assert hidden["evictionStrategy"] == "LiveMigrate"


def test_the_admitter_takes_a_vmi_whose_spare_sockets_were_removed(server: AdmissionServer) -> None:
    server.configure(kubevirt(SEV_GATE))
    mutated = mutate(server, vmi(encrypted("snp", cpu={"sockets": 2})))
    del mutated["spec"]["domain"]["cpu"]["maxSockets"]
    path = PATHS["VirtualMachineInstance"][2]
    assert server.review(path, request_for(mutated))["allowed"]


def test_the_network_validator_of_virt_api_is_registered(server: AdmissionServer) -> None:
    server.configure(kubevirt())
    lost = vmi({}, networks=[{"name": "lost", "pod": {}}])
    message = "spec.networks[0].name 'lost' not found."
    said = [row[2] for row in causes(server, lost)]
    # Once from the spec's validator, and once from the one that virt-api registers.
    assert said == [message, message]


def test_a_user_may_not_change_the_spec_of_a_vmi(server: AdmissionServer) -> None:
    server.configure(kubevirt(SEV_GATE))
    old = mutate(server, vmi(encrypted("snp")))
    new = copy.deepcopy(old)
    del new["spec"]["domain"]["launchSecurity"]
    request = request_for(new, "UPDATE") | {"oldObject": old}
    path = "/virtualmachineinstances-validate-update"
    answer = server.review(path, request)
    assert not answer["allowed"]
    assert answer["status"]["message"] == "update of VMI object is restricted"


@pytest.mark.parametrize(
    "wrong",
    [
        {"spec": {"configuration": {"developerConfigurations": {}}}},
        {"spec": {"configuration": {"imagePullPolicy": "Sometimes"}}},
        {"kind": "Pod"},
    ],
    ids=["misspelt", "invalid", "another-kind"],
)
def test_a_wrong_configuration_is_refused_and_the_last_one_stays(
    server: AdmissionServer, wrong: Document
) -> None:
    server.configure(kubevirt(SEV_GATE))
    before = server.configuration()
    with pytest.raises(AdmissionServerError, match="422"):
        server.configure(wrong)
    assert server.configuration() == before


def test_the_webhooks_are_kubevirts_own_and_point_here(server: AdmissionServer) -> None:
    documents = server.webhooks()
    names = [document["metadata"]["name"] for document in documents]
    assert names == ["virt-api-mutator", "virt-api-validator"]
    hooks = {hook["name"]: hook for document in documents for hook in document["webhooks"]}
    hook = hooks["virtualmachineinstances-mutator.kubevirt.io"]
    assert hook["clientConfig"] == {
        "url": f"{server.url}/virtualmachineinstances-mutate",
        "caBundle": base64.b64encode(server.ca_file.read_bytes()).decode(),
    }
    assert hook["rules"][0]["operations"] == ["CREATE", "UPDATE"]
    assert (hook["failurePolicy"], hook["sideEffects"]) == ("Fail", "None")
    assert "reinvocationPolicy" not in hook
    for _, mutator, admitter in PATHS.values():
        urls = {hook["clientConfig"]["url"] for hook in hooks.values()}
        assert {server.url + path for path in (mutator, admitter) if path} <= urls


def test_the_definitions_have_schemas_that_know_launch_security(server: AdmissionServer) -> None:
    (definition,) = crds("virtualmachineinstances")
    assert definition["metadata"]["name"] == "virtualmachineinstances.kubevirt.io"
    assert '"launchSecurity"' in json.dumps(definition["spec"])


PARENT: Final = """
import time
from hack.kubevirt_admission_server import AdmissionServer
with AdmissionServer({}) as server:
    print(server.process.pid, flush=True)
    time.sleep(600)
"""


def test_the_program_ends_with_its_parent(server: AdmissionServer) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=debian.ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and _runs(child):
        time.sleep(0.05)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
