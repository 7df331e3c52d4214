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
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from hack import debian, kubevirt_admission
from hack.control_plane import sweep
from hack.kubevirt_admission_server import AdmissionServer, AdmissionServerError, crds
from hack.kubevirt_cases import (
    CASES,
    GATE_OFF,
    HOTPLUG,
    INVALID,
    MANIFESTS,
    MAXIMUM,
    PATHS,
    SEV_GATE,
    VERSION,
    Case,
    encrypted,
    in_template,
    kubevirt_resource,
    launch,
    virtual_machine,
    vmi,
)
from hack.kubevirt_round import kubevirt_mutates, review_request
from sevkit.documents import parse_documents

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hack.kubevirt_cases import Document


@pytest.fixture(scope="module")
def server() -> Iterator[AdmissionServer]:
    if not kubevirt_admission.is_there():
        pytest.skip(kubevirt_admission.why_not())
    with AdmissionServer(kubevirt_resource()) as running:
        yield running


def mutate(server: AdmissionServer, document: Document) -> Document:
    """Return the document as KubeVirt's mutator leaves it, which may not refuse it."""
    mutated = kubevirt_mutates(server, document)
    assert not isinstance(mutated, tuple), mutated
    return mutated


def causes(server: AdmissionServer, document: Document) -> list[tuple[str, str, str]]:
    """Return why KubeVirt refuses a new object: type, field and message; nothing if it does not."""
    mutated = mutate(server, document)
    answer = server.review(PATHS[document["kind"]][2], review_request(mutated))
    if answer["allowed"]:
        return []
    assert answer["status"]["code"] == 422
    found = answer["status"]["details"]["causes"]
    return [(row["reason"], row["field"], row["message"]) for row in found]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_vmi_that_breaks_a_rule_is_refused_in_these_words(
    server: AdmissionServer, case: Case
) -> None:
    server.configure(kubevirt_resource(*case.gates))
    assert tuple(causes(server, case.vmi)) == case.refusals


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_vm_is_refused_in_the_same_words_with_its_own_field_names(
    server: AdmissionServer, case: Case
) -> None:
    server.configure(kubevirt_resource(*case.gates))
    refusals = in_template(case.refusals)
    assert tuple(causes(server, virtual_machine(case.vmi))) == refusals


@pytest.mark.parametrize(
    ("strategy", "refusals"), [("LiveUpdate", [HOTPLUG]), (None, [HOTPLUG]), ("Stage", [])]
)
def test_only_a_vm_with_live_update_may_not_have_hotpluggable_encrypted_memory(
    server: AdmissionServer, strategy: str | None, refusals: list[tuple[str, str, str]]
) -> None:
    configuration = {"vmRolloutStrategy": strategy} if strategy else {}
    server.configure(kubevirt_resource(SEV_GATE, **configuration))
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
        server.configure(kubevirt_resource(*gates))
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
    server.configure(kubevirt_resource())
    instance = vmi({"launchSecurity": {"sev": {}, "snp": {}}}, architecture="s390x")
    assert not [row for row in causes(server, instance) if "ecurity" in row[2]]


def test_a_reboot_policy_is_refused_without_its_gate(server: AdmissionServer) -> None:
    if VERSION < (1, 8):
        pytest.skip("this KubeVirt has no reboot policy")
    instance = vmi(encrypted("snp", rebootPolicy="Terminate"))
    server.configure(kubevirt_resource(SEV_GATE))
    message = "RebootPolicy is specified but the RebootPolicy feature gate is not enabled"
    assert causes(server, instance) == [(INVALID, "spec.domain.rebootPolicy", message)]
    server.configure(kubevirt_resource(SEV_GATE, "RebootPolicy"))
    assert causes(server, instance) == []


def test_the_mutator_adds_hotpluggable_sockets_and_no_memory(server: AdmissionServer) -> None:
    server.configure(kubevirt_resource(SEV_GATE, evictionStrategy="LiveMigrate"))
    sockets = {"cpu": {"sockets": 2}}
    plain = mutate(server, vmi(sockets))["spec"]
    hidden = mutate(server, vmi(encrypted("snp") | sockets))["spec"]
    assert hidden["domain"]["cpu"]["maxSockets"] == 8
    assert "maxGuest" not in hidden["domain"]["memory"]
    assert plain["domain"]["memory"]["maxGuest"] == "4Gi"
    assert hidden["evictionStrategy"] == "LiveMigrate"


def test_the_admitter_takes_a_vmi_whose_spare_sockets_were_removed(server: AdmissionServer) -> None:
    server.configure(kubevirt_resource(SEV_GATE))
    mutated = mutate(server, vmi(encrypted("snp", cpu={"sockets": 2})))
    del mutated["spec"]["domain"]["cpu"]["maxSockets"]
    path = PATHS["VirtualMachineInstance"][2]
    assert server.review(path, review_request(mutated))["allowed"]


def test_the_network_validator_of_virt_api_is_registered(server: AdmissionServer) -> None:
    server.configure(kubevirt_resource())
    lost = vmi({}, networks=[{"name": "lost", "pod": {}}])
    message = "spec.networks[0].name 'lost' not found."
    said = [row[2] for row in causes(server, lost)]
    # Once from the spec's validator, and once from the one that virt-api registers.
    assert said == [message, message]


def test_a_user_may_not_change_the_spec_of_a_vmi(server: AdmissionServer) -> None:
    server.configure(kubevirt_resource(SEV_GATE))
    old = mutate(server, vmi(encrypted("snp")))
    new = copy.deepcopy(old)
    del new["spec"]["domain"]["launchSecurity"]
    request = review_request(new, "UPDATE") | {"oldObject": old}
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
    server.configure(kubevirt_resource(SEV_GATE))
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
from hack.kubevirt_cases import (
    CASES,
    Case,
    GATE_OFF,
    HOTPLUG,
    INVALID,
    MANIFESTS,
    MAXIMUM,
    PATHS,
    SEV_GATE,
    VERSION,
    encrypted,
    kubevirt_resource,
    launch,
    virtual_machine,
    vmi,
)
from hack.kubevirt_admission_server import AdmissionServer
with AdmissionServer({}) as server:
    print(server.process.pid, server.ca_file.parent, flush=True)
    time.sleep(600)
"""


def test_the_program_ends_with_its_parent_and_its_folder_is_swept(server: AdmissionServer) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=debian.ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        number, folder = parent.stdout.readline().split()
        child = int(number)
        assert Path(folder) not in sweep()
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and _runs(child):
        time.sleep(0.05)
    assert not _runs(child)
    sweep()
    assert not Path(folder).exists()


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
