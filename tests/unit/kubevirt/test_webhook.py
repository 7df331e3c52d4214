"""Reviews in, answers out: what each path admits, refuses, warns of, and calls no review."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sevkit.errors import FormatError
from sevkit.kubevirt.admission import REVIEW_LIMIT
from sevkit.kubevirt.installation import UNKNOWN
from sevkit.kubevirt.launch_security import Around
from sevkit.kubevirt.policy import DEFAULT
from sevkit.kubevirt.tiers import LABEL, Tier
from sevkit.kubevirt.webhook import Answer, answer
from sevkit.kubevirt.webhook_paths import PATHS
from sevkit.testing.kubevirt.json_patch import apply_patch

if TYPE_CHECKING:
    from sevkit.documents import Json

Document: TypeAlias = dict[str, Any]
AROUND: Final = Around(UNKNOWN, frozenset(Tier))
VMI: Final[Document] = {
    "apiVersion": "kubevirt.io/v1",
    "kind": "VirtualMachineInstance",
    "metadata": {"name": "t", "namespace": "n"},
    "spec": {"domain": {"devices": {}}},
}


def review(document: Json = None, **more: Json) -> Document:
    request: Document = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": "kubevirt.io", "version": "v1", "kind": "VirtualMachineInstance"},
        "namespace": "n",
        "operation": "CREATE",
        "object": VMI if document is None else document,
    }
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": request | more,
    }


def ask(path: str, document: Json, around: Around = AROUND) -> tuple[Answer, Document]:
    found = answer(path, json.dumps(document).encode(), DEFAULT, around)
    whole = json.loads(found.body)
    assert (whole["apiVersion"], whole["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response: Document = whole["response"]
    assert response["uid"] == "705ab4f5-6393-11e8-b7cc-42010a800002"
    return found, response


def patched(response: Document) -> Document:
    assert response["patchType"] == "JSONPatch"
    return apply_patch(VMI, json.loads(base64.b64decode(response["patch"])))


@pytest.mark.parametrize("tier", Tier)
def test_each_tiers_path_injects_it(tier: Tier) -> None:
    found, response = ask(f"/mutate/{tier}", review())
    assert response["allowed"] is True
    assert patched(response)["spec"]["domain"]["launchSecurity"]
    assert (found.decision, found.tier, found.reason) == ("injected", tier.value, "")
    assert response["auditAnnotations"] == {"decision": "injected", "tier": tier.value}


def test_best_takes_what_can_run_and_is_undecided_without_knowing() -> None:
    found, _ = ask("/mutate/best", review())
    assert found.tier == "snp"
    found, response = ask("/mutate/best", review(), Around(UNKNOWN, None))
    assert (found.decision, found.reason) == ("undecided", "undecided")
    assert response["allowed"] is False
    assert response["status"]["code"] == 503
    assert response["status"]["details"]["retryAfterSeconds"] > 0


def test_a_namespace_with_another_value_admits_nothing() -> None:
    for document in (review(), review(VMI | {"spec": {"domain": {"launchSecurity": {"snp": {}}}}})):
        found, response = ask("/mutate/unknown", document)
        assert response["allowed"] is False
        assert "sev, sev-es, snp, best" in response["status"]["message"]
        assert found.reason == "unknown-value"


def test_an_object_that_asks_itself_gets_it() -> None:
    own = VMI | {"metadata": {"name": "t", "labels": {LABEL: "sev"}}}
    found, _ = ask("/mutate/own", review(own))
    assert found.tier == "sev"
    found, response = ask("/mutate/own", review())
    assert (found.decision, "patch" in response) == ("admitted", False)


def test_a_refusal_names_every_field_and_its_fix() -> None:
    document = VMI | {
        "spec": {"architecture": "arm64", "domain": {"devices": {"gpus": [{"name": "g"}]}}}
    }
    found, response = ask("/mutate/snp", review(document))
    status = response["status"]
    assert (status["code"], status["reason"]) == (422, "Invalid")
    assert {one["field"] for one in status["details"]["causes"]} == {
        "spec.architecture",
        "spec.domain.devices.gpus",
    }
    assert "spec.architecture: arm64 has no SEV-SNP; write architecture: amd64" in status["message"]
    assert (found.decision, found.reason) == ("refused", "architecture")
    assert "patch" not in response


@pytest.mark.parametrize("operation", ["UPDATE", "DELETE", "CONNECT"])
@pytest.mark.parametrize("path", sorted(PATHS))
def test_only_what_is_new_is_touched(path: str, operation: str) -> None:
    _, response = ask(path, review(operation=operation))
    assert response == {"uid": response["uid"], "allowed": True}


@pytest.mark.parametrize(
    "more",
    [
        {"kind": {"group": "", "version": "v1", "kind": "Pod"}},
        {"kind": {"group": "kubevirt.io", "version": "v1", "kind": "VirtualMachine"}},
        {"object": None},
        {"object": "text"},
        {"object": []},
        {"object": {}},
    ],
)
def test_what_is_no_vmi_is_not_admitted(more: Document) -> None:
    for path in ("/mutate/snp", "/mutate/best", "/mutate/unknown", "/mutate/own"):
        found, response = ask(path, review(**more))
        assert response["allowed"] is False
        assert response["status"]["code"] == 400
        assert found.decision == "error"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"{}",
        b"\xff\xfe",
        b'{"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview", "request": {}}',
        b'{"apiVersion": "admission.k8s.io/v1", "kind": "Pod"}',
        b'{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": []}',
        json.dumps(review(uid="")).encode(),
        json.dumps(review(uid="a\nb")).encode(),
        json.dumps(review(uid="u" * 200)).encode(),
        json.dumps(review(uid=7)).encode(),
        json.dumps(review(operation=None)).encode(),
        json.dumps(review(kind="VirtualMachineInstance")).encode(),
        json.dumps(review()).encode()[:-1],
        json.dumps(review()).encode().replace(b'"uid"', b'"uid": "x", "uid"'),
        json.dumps(review({"a": float("nan")})).encode(),
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        b" " * (REVIEW_LIMIT + 1),
    ],
    ids=range(20),
)
def test_what_is_no_review_is_refused(body: bytes) -> None:
    for path in PATHS:
        with pytest.raises(FormatError):
            answer(path, body, DEFAULT, AROUND)


def machine(template: Json) -> Document:
    kind: Json = {"group": "kubevirt.io", "version": "v1", "kind": "VirtualMachine"}
    return review({"spec": {"template": template}}, kind=kind)


def test_who_makes_a_vm_is_told_what_becomes_of_its_vmi() -> None:
    _, response = ask("/warn/snp", machine({"spec": VMI["spec"]}))
    assert response["allowed"] is True
    assert "patch" not in response
    assert response["warnings"] == ["the VMI will be launched as SEV-SNP"]
    _, response = ask("/warn/snp", machine({"spec": {"architecture": "arm64"}}))
    assert response["allowed"] is True
    assert response["warnings"] == [
        "the VMI will be refused: spec.architecture: arm64 has no SEV-SNP",
        "to mend it: write architecture: amd64",
    ]
    _, response = ask("/warn/own", machine({"spec": VMI["spec"]}))
    assert "warnings" not in response


def test_a_vm_whose_vmi_cannot_be_decided_now_is_not_said_to_be_refused() -> None:
    _, response = ask("/warn/best", machine({"spec": VMI["spec"]}), Around(UNKNOWN, None))
    assert response["allowed"] is True
    first, second = response["warnings"]
    assert first.startswith("the VMI cannot be decided now: ")
    assert "try again" in second


@pytest.mark.parametrize("path", ["/warn/snp", "/mutate/snp"])
def test_what_a_tenant_named_is_told_short_and_moves_no_cursor(path: str) -> None:
    name = "\x1b[2Jbad\nname" + "n" * 300
    gpus: Json = [{"name": name}]
    spec: Json = {"domain": {"devices": {"gpus": gpus}}}
    document = machine({"spec": spec}) if path == "/warn/snp" else review({"spec": spec})
    _, response = ask(path, document)
    said: list[str] = response.get("warnings", [])
    if path == "/warn/snp":
        assert len(said) == 2
    else:
        status = response["status"]
        said = [status["message"], *(one["message"] for one in status["details"]["causes"])]
    assert all(one.isprintable() for one in said)
    assert any("?[2Jbad?name" in one for one in said)


@pytest.mark.parametrize("tier", Tier)
def test_every_warning_is_short_enough_to_be_passed_on_whole(tier: Tier) -> None:
    names: Json = [{"name": "n" * 300, "bootOrder": 1, "sriov": {}, "passt": {}}]
    devices: Document = dict.fromkeys(("interfaces", "gpus", "hostDevices", "filesystems"), names)
    devices["useVirtioTransitional"] = True
    domain: Json = {
        "machine": {"type": "m" * 300},
        "features": {"smm": {}},
        "firmware": {"bootloader": {"bios": {}, "efi": {"persistent": True}}},
        "devices": devices,
    }
    spec: Json = {"architecture": "a" * 300, "domain": domain, "livenessProbe": {}}
    _, response = ask(f"/warn/{tier}", machine({"spec": spec}))
    assert len(response["warnings"]) > 10
    assert all(len(one) < 120 for one in response["warnings"])


@pytest.mark.parametrize("operation", ["", "create", "PATCH"])
def test_an_operation_that_nobody_knows_admits_nothing(operation: str) -> None:
    found, response = ask("/mutate/snp", review(operation=operation))
    assert (found.decision, response["allowed"]) == ("error", False)


@pytest.mark.parametrize("template", [None, "x", [], {}, {"metadata": 7, "spec": 7}])
def test_a_vm_is_never_refused(template: Json) -> None:
    for path in PATHS:
        if path.startswith("/warn/"):
            _, response = ask(path, machine(template))
            assert response["allowed"] is True


@given(
    st.sampled_from(sorted(PATHS)),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from(["spec", "domain", "metadata", "labels", "template", LABEL]), inner
            )
        ),
        max_leaves=10,
    ),
)
def test_nothing_is_admitted_because_of_garbage(path: str, document: Any) -> None:  # noqa: ANN401  # JSON
    found, response = ask(path, review(document if document is not None else {}))
    if response["allowed"] and path.startswith("/mutate/") and path != "/mutate/own":
        stored = apply_patch(document, json.loads(base64.b64decode(response["patch"])))
        assert stored["spec"]["domain"]["launchSecurity"]
    if not response["allowed"]:
        assert found.decision in {"refused", "error", "undecided"}
