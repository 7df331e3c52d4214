"""What becomes of manifests: the webhook's decision, where each kind holds its template."""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pytest

from sevkit.kubevirt.injection import Judgement, Settings, inject
from sevkit.kubevirt.installation import UNKNOWN
from sevkit.kubevirt.launch_case import ATTESTATION
from sevkit.kubevirt.launch_security import INJECTED, Around, Requirement, decide
from sevkit.kubevirt.policy import DEFAULT
from sevkit.kubevirt.tiers import BEST, LABEL, Tier
from sevkit.testing.kubevirt.json_patch import apply_patch

if TYPE_CHECKING:
    from collections.abc import Callable

Document: TypeAlias = dict[str, Any]

NOTHING_KNOWN: Final = Around(UNKNOWN, None)
POOL: Final = "pool.kubevirt.io/v1beta1"


def settings(
    namespace: Requirement | None = Tier.SNP,
    *,
    around: Around = NOTHING_KNOWN,
    attestation: bool = False,
) -> Settings:
    return Settings(namespace, DEFAULT, around, attestation)


def template(**domain: Any) -> Document:  # noqa: ANN401  # JSON
    return {"spec": {"domain": {"devices": {}, "memory": {"guest": "1Gi"}, **domain}}}


def vmi(inner: Document) -> Document:
    head = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance"}
    return {**head, "metadata": {"name": "t"}, **copy.deepcopy(inner)}


def vm(inner: Document, **spec: Any) -> Document:  # noqa: ANN401  # JSON
    head = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": "t"}}
    return {**head, "spec": {"runStrategy": "Always", "template": copy.deepcopy(inner), **spec}}


def replica_set(inner: Document) -> Document:
    return vm(inner) | {"kind": "VirtualMachineInstanceReplicaSet"}


def pool(inner: Document) -> Document:
    machine = {"spec": vm(inner)["spec"]}
    head = {"apiVersion": POOL, "kind": "VirtualMachinePool", "metadata": {"name": "t"}}
    return {**head, "spec": {"virtualMachineTemplate": machine}}


def listed(inner: Document) -> Document:
    other = {"apiVersion": "v1", "kind": "ConfigMap"}
    return {"apiVersion": "v1", "kind": "List", "items": [other, vm(inner), vm(inner)]}


#: How a kind holds a template, and where; the last one of a list's.
SHAPES: Final[dict[str, tuple[Callable[[Document], Document], tuple[str, ...]]]] = {
    "VMI": (vmi, ()),
    "VM": (vm, ("spec", "template")),
    "replica set": (replica_set, ("spec", "template")),
    "pool": (pool, ("spec", "virtualMachineTemplate", "spec", "template")),
    "list": (listed, ("items", "2", "spec", "template")),
}


def at(document: Any, path: tuple[str, ...]) -> Any:  # noqa: ANN401  # JSON
    for part in path:
        document = document[int(part) if isinstance(document, list) else part]
    return document


def only(document: Document, asked: Settings) -> Judgement:
    (judgement,) = inject(document, asked).judgements
    return judgement


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tier", Tier)
def test_each_kind_gets_what_its_vmi_would_get(shape: str, tier: Tier) -> None:
    wrap, path = SHAPES[shape]
    inner = template(cpu={"cores": 2})
    document = wrap(inner)
    before = copy.deepcopy(document)
    outcome = inject(document, settings(tier))
    assert document == before
    for judgement in outcome.judgements:
        assert judgement.decision.tier is tier
        assert not judgement.decision.refusals
    alone = decide(vmi(inner), tier, DEFAULT, NOTHING_KNOWN).operations
    expected = apply_patch(vmi(inner), [one.to_json() for one in alone])
    # Pools and replica sets are judged before anything says their architecture.
    said = {"architecture": "amd64"} if shape in {"pool", "replica set"} else {}
    assert at(outcome.value, path)["spec"] == expected["spec"] | said
    noted = at(outcome.value, path)["metadata"]["annotations"]
    assert noted == expected["metadata"]["annotations"]


@pytest.mark.parametrize("shape", SHAPES)
def test_operations_are_those_of_the_document(shape: str) -> None:
    document = SHAPES[shape][0](template())
    outcome = inject(document, settings())
    operations = [one.to_json() for each in outcome.judgements for one in each.decision.operations]
    assert apply_patch(document, operations) == outcome.value != document


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("attestation", [False, True])
@pytest.mark.parametrize("tier", Tier)
def test_a_second_time_changes_nothing(shape: str, tier: Tier, attestation: bool) -> None:
    asked = settings(tier, attestation=attestation)
    inner = template(cpu={"sockets": 2, "maxSockets": 8}, launchSecurity=None)
    once = inject(SHAPES[shape][0](inner), asked)
    twice = inject(once.value, asked)
    assert twice.value == once.value
    assert all(not one.decision.operations for one in twice.judgements)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_refusal_names_the_field_in_its_document(shape: str) -> None:
    wrap, path = SHAPES[shape]
    outcome = inject(wrap(template(firmware={"bootloader": {"bios": {}}})), settings())
    (refusal,) = outcome.judgements[-1].decision.refusals
    prefix = ".".join(path).replace("items.2", "items[2]")
    assert refusal.field.removeprefix(prefix).strip(".") == "spec.domain.firmware.bootloader.bios"
    assert refusal.field.startswith(prefix)
    assert outcome.value == wrap(template(firmware={"bootloader": {"bios": {}}}))


def test_without_a_namespace_the_template_s_own_label_counts() -> None:
    bare = vm(template())
    outcome = inject(bare, settings(None))
    assert outcome.value is bare
    assert outcome.judgements[0].decision.tier is None
    labelled = vm({"metadata": {"labels": {LABEL: "sev"}}, **template()})
    assert only(labelled, settings(None)).decision.tier is Tier.SEV
    assert only(labelled, settings(Tier.SNP)).decision.refusals[0].code == "weaker"


@pytest.mark.parametrize("value", [None, "text", [], 1])
def test_an_object_without_a_template_is_malformed_where_one_is_asked_for(value: Any) -> None:  # noqa: ANN401  # JSON
    document = vm(template()) | {"spec": {"template": value}}
    (refusal,) = only(document, settings()).decision.refusals
    assert (refusal.code, refusal.field) == ("malformed", "spec.template")
    assert only(document, settings(None)).decision.refusals == ()
    assert only(document | {"spec": value}, settings()).decision.refusals


def test_what_is_no_kind_of_ours_is_nobody_s_concern() -> None:
    other: Document = {"apiVersion": "v1", "kind": "ConfigMap", "spec": {"domain": {}}}
    outcome = inject(other, settings())
    assert (outcome.value, outcome.judgements) == (other, ())


def test_what_has_a_version_that_is_not_known_is_not_passed_over_in_silence() -> None:
    document: Document = listed(template())
    document["items"][2]["apiVersion"] = "kubevirt.io/v2"
    first, second = inject(document, settings()).judgements
    assert first.decision.operations
    (refusal,) = second.decision.refusals
    assert (refusal.code, refusal.field) == ("version", "items[2].apiVersion")
    assert refusal.fix == "write one of kubevirt.io/v1, kubevirt.io/v1alpha3"
    outcome = inject(document, settings(None))
    assert outcome.value is document
    said = ("version kubevirt.io/v2 is not known here: it stays as it is",)
    assert outcome.judgements[1].decision.warnings == said


@pytest.mark.parametrize(
    ("document", "place"),
    [
        (vm(template()), "metadata.labels"),
        (pool(template()), "metadata.labels"),
        (pool(template()), "spec.virtualMachineTemplate.metadata.labels"),
    ],
)
def test_a_label_beside_the_template_is_told_of(document: Document, place: str) -> None:
    *above, _, _ = place.split(".")
    at(document, tuple(above))["metadata"] = {"labels": {LABEL: "snp"}}
    (said,) = only(document, settings(None)).decision.warnings
    assert f" asks for nothing in {place}: it belongs in " in said
    assert said.endswith("template.metadata.labels")


def test_a_label_on_both_is_right() -> None:
    document = vm({"metadata": {"labels": {LABEL: "sev"}}, **template()})
    document["metadata"]["labels"] = {LABEL: "sev"}
    assert only(document, settings(None)).decision.warnings == ()


INSTANCETYPE: Final = {"name": "small", "kind": "VirtualMachineInstancetype"}


def test_beside_an_instancetype_nothing_is_written_that_it_can_set() -> None:
    domain = {"devices": {}, "cpu": {"maxSockets": 4}, "memory": {"maxGuest": "4Gi"}}
    outcome = inject(vm({"spec": {"domain": domain}}, instancetype=INSTANCETYPE), settings())
    spec = at(outcome.value, ("spec", "template", "spec"))
    assert {key: spec["domain"].get(key) for key in ("cpu", "memory", "launchSecurity")} == {
        "cpu": {"maxSockets": 4},
        "memory": {"maxGuest": "4Gi"},
        "launchSecurity": None,
    }
    assert spec["domain"]["firmware"] == {"bootloader": {"efi": {"secureBoot": False}}}
    assert spec["evictionStrategy"] == "LiveMigrateIfPossible"
    assert "metadata" not in at(outcome.value, ("spec", "template"))
    said = outcome.judgements[0].decision.warnings
    assert [text.split(" is left to ")[0] for text in said] == ["launchSecurity", "cpu", "memory"]
    assert said[0].startswith("launchSecurity is left to instancetype small; unless that or")
    again = inject(outcome.value, settings())
    assert again.value == outcome.value
    assert again.judgements[0].decision.warnings == said


def test_the_vms_of_a_pool_have_an_instancetype_too() -> None:
    document = pool(template())
    document["spec"]["virtualMachineTemplate"]["spec"]["instancetype"] = INSTANCETYPE
    outcome = inject(document, settings())
    path = ("spec", "virtualMachineTemplate", "spec", "template", "spec", "domain")
    assert "launchSecurity" not in at(outcome.value, path)
    assert "left to instancetype small" in outcome.judgements[0].decision.warnings[0]


def test_an_architecture_that_is_there_stays() -> None:
    (refusal,) = only(pool({"spec": {"architecture": "arm64"}}), settings()).decision.refusals
    assert refusal.code == "architecture"
    written = pool({"spec": {"architecture": "amd64", "domain": {"devices": {}}}})
    operations = only(written, settings()).decision.operations
    assert not [one for one in operations if one.path.endswith("/architecture")]


def test_launch_security_that_stands_beside_an_instancetype_stays() -> None:
    inner = template(launchSecurity={"snp": {}}, cpu={"maxSockets": 4})
    outcome = inject(vm(inner, instancetype=INSTANCETYPE), settings())
    inside = at(outcome.value, ("spec", "template"))
    assert inside["metadata"]["annotations"][INJECTED].startswith("snp; ")
    assert outcome.judgements[0].decision.warnings == ("cpu is left to instancetype small",)
    assert inject(outcome.value, settings()).value == outcome.value


def test_what_is_only_left_to_an_instancetype_is_no_change() -> None:
    whole = inject(vm(template()), settings()).value
    assert isinstance(whole, dict)
    document = copy.deepcopy(whole)
    at(document, ("spec",))["instancetype"] = INSTANCETYPE
    at(document, ("spec", "template", "spec", "domain"))["memory"]["maxGuest"] = "2Gi"
    del at(document, ("spec", "template", "metadata", "annotations"))[INJECTED]
    assert inject(document, settings()).value is document


def test_attestation_that_is_asked_for_is_written_down() -> None:
    outcome = inject(vm(template()), settings(Tier.SEV_ES, attestation=True))
    inside = at(outcome.value, ("spec", "template"))
    assert inside["metadata"]["annotations"][ATTESTATION] == "required"
    assert inside["spec"]["startStrategy"] == "Paused"
    assert "attestation" in inside["spec"]["domain"]["launchSecurity"]["sev"]


def test_attestation_of_snp_is_the_guest_s_and_not_written() -> None:
    outcome = inject(vm(template()), settings(Tier.SNP, attestation=True))
    inside = at(outcome.value, ("spec", "template"))
    assert list(inside["metadata"]["annotations"]) == [INJECTED]
    assert "no launch to hold" in outcome.judgements[0].decision.warnings[0]


@pytest.mark.parametrize("wrap", [pool, replica_set])
def test_nobody_attests_each_of_many(wrap: Callable[[Document], Document]) -> None:
    document = wrap(template())
    (refusal,) = only(document, settings(Tier.SEV, attestation=True)).decision.refusals
    assert refusal.code == "attestation-owner"
    assert refusal.field.endswith(f"template.metadata.annotations.{ATTESTATION}")


def test_what_asks_for_nothing_is_not_attested() -> None:
    document = vm(template())
    assert inject(document, settings(None, attestation=True)).value is document


def test_snp_waits_for_a_kubevirt_that_has_it() -> None:
    # Of its feature gate, which is off by default there, nothing is known.
    old = Around(dataclasses.replace(UNKNOWN, version=(1, 6, 3)), frozenset(Tier))
    (refusal,) = only(vm(template()), settings(Tier.SNP, around=old)).decision.refusals
    assert (refusal.code, refusal.field) == (
        "version",
        "spec.template.spec.domain.launchSecurity",
    )
    assert only(vm(template()), settings(BEST, around=old)).decision.tier is Tier.SEV_ES
    new = Around(dataclasses.replace(UNKNOWN, version=(1, 7, 0)), frozenset(Tier))
    assert only(vm(template()), settings(BEST, around=new)).decision.tier is Tier.SNP


def test_best_without_knowing_the_tiers_is_undecided() -> None:
    decision = only(vm(template()), settings(BEST)).decision
    assert decision.is_undecided
    assert decision.refusals


@pytest.mark.parametrize(
    ("cpu", "tier", "said"),
    [
        ({"sockets": 4}, Tier.SEV_ES, "the digest covers 1 of 4 vCPUs"),
        ({"cores": 4}, Tier.SEV_ES, ""),
        ({"sockets": 4}, Tier.SNP, ""),
        ({"sockets": 4}, Tier.SEV, ""),
        ({"sockets": 600}, Tier.SEV_ES, "its launch digest cannot be told: the manifest asks for"),
    ],
)
def test_vcpus_that_the_digest_would_not_cover_are_told_of(
    cpu: Document, tier: Tier, said: str
) -> None:
    warnings = only(vm(template(cpu=cpu)), settings(tier)).decision.warnings
    assert (said in "".join(warnings)) if said else not warnings


@pytest.mark.parametrize(
    ("wrap", "cpu", "model", "is_told"),
    [
        (vm, {}, "EPYC-Milan", True),
        (vm, None, "EPYC-Milan", True),
        (vm, {"maxSockets": 4}, "", True),
        (pool, {}, "EPYC-Milan", True),
        (vm, {"cores": 2}, "EPYC-Milan", False),
        (vm, {"sockets": 1, "maxSockets": 4}, "", False),
        (vm, {}, "", False),
        (vmi, {}, "EPYC-Milan", False),
        (replica_set, {}, "EPYC-Milan", False),
    ],
)
def test_a_vm_that_would_ask_for_a_restart_at_once_is_told_of(
    wrap: Callable[[Document], Document], cpu: Document | None, model: str, is_told: bool
) -> None:
    asked = Settings(Tier.SNP, dataclasses.replace(DEFAULT, cpu_model=model), NOTHING_KNOWN)
    warnings = only(wrap(template(cpu=cpu)), asked).decision.warnings
    assert any("write cores" in one for one in warnings) == is_told


def test_null_is_as_good_as_missing() -> None:
    document = vm({"metadata": None, "spec": {"domain": {"devices": {}, "firmware": None}}})
    outcome = inject(document, settings())
    inside = at(outcome.value, ("spec", "template"))
    assert inside["spec"]["domain"]["firmware"] == {"bootloader": {"efi": {"secureBoot": False}}}
    assert INJECTED in inside["metadata"]["annotations"]
