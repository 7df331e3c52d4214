from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sevkit.errors import FormatError
from sevkit.kubevirt.launch_case import ATTESTATION, POOL_LABEL, Owner
from sevkit.kubevirt.vmi_templates import KINDS, as_made, find_makers, with_makers

if TYPE_CHECKING:
    from sevkit.documents import Json

CORE = "kubevirt.io/v1"


def thing(kind: str, version: str = CORE, **more: Json) -> dict[str, Json]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "t"}, **more}


def found(document: Json) -> list[tuple[str, str]]:
    return [(".".join(maker.path), maker.word) for maker in find_makers(document)]


@pytest.mark.parametrize(
    ("kind", "version", "template"),
    [
        ("VirtualMachineInstance", CORE, ""),
        ("VirtualMachineInstance", "kubevirt.io/v1alpha3", ""),
        ("VirtualMachine", CORE, "spec.template"),
        ("VirtualMachine", "kubevirt.io/v1alpha3", "spec.template"),
        ("VirtualMachineInstanceReplicaSet", CORE, "spec.template"),
        (
            "VirtualMachinePool",
            "pool.kubevirt.io/v1alpha1",
            "spec.virtualMachineTemplate.spec.template",
        ),
        (
            "VirtualMachinePool",
            "pool.kubevirt.io/v1beta1",
            "spec.virtualMachineTemplate.spec.template",
        ),
    ],
)
def test_what_makes_vmis_is_known_by_kind_and_version(
    kind: str, version: str, template: str
) -> None:
    (maker,) = find_makers(thing(kind, version))
    assert (".".join(maker.kind.template), maker.name, maker.path) == (template, "t", ())
    assert maker.is_known


@pytest.mark.parametrize(
    ("kind", "version"),
    [("VirtualMachine", "kubevirt.io/v2"), ("VirtualMachinePool", "pool.kubevirt.io/v1")],
)
def test_a_version_to_come_is_found_and_not_known(kind: str, version: str) -> None:
    (maker,) = find_makers(thing(kind, version))
    assert not maker.is_known


@pytest.mark.parametrize(
    "document",
    [
        thing("ConfigMap", "v1"),
        thing("VirtualMachine", "example.org/v1"),
        thing("VirtualMachine", "kubevirt.io"),
        thing("VirtualMachinePool"),
        thing("VirtualMachineInstanceMigration"),
        {"kind": "VirtualMachine"},
        {"apiVersion": CORE, "kind": ["VirtualMachine"]},
        {},
        [],
        "VirtualMachine",
        None,
    ],
)
def test_anything_else_makes_none(document: Json) -> None:
    assert found(document) == []


def test_a_list_stands_for_its_items() -> None:
    items: list[Json] = [
        thing("VirtualMachine"),
        thing("ConfigMap", "v1"),
        None,
        thing("VirtualMachineInstance"),
        {"metadata": {"name": "bare"}},
    ]
    assert found(thing("List", "v1", items=items)) == [
        ("items.0", "VirtualMachine"),
        ("items.3", "VirtualMachineInstance"),
    ]
    assert found(thing("VirtualMachineList", items=items))[-1] == ("items.4", "VirtualMachine")
    assert found(thing("Odd", "example.org/v1", items=items))[0] == ("items.0", "VirtualMachine")
    assert found(thing("List", "v1", items=None)) == []


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (thing("VirtualMachine", items=[]), "manifest: VirtualMachine has items"),
        (thing("VirtualMachine", items=None), "manifest: VirtualMachine has items"),
        (
            thing("List", "v1", items=[thing("VirtualMachine", items=None)]),
            r"manifest: items\[0\]: VirtualMachine has items",
        ),
        (
            thing("List", "v1", items=[1, thing("List", "v1", items=[thing("VirtualMachine")])]),
            r"manifest: items\[1\] is a list in a list",
        ),
    ],
)
def test_what_kubectl_would_take_for_a_list_is_refused(document: Json, said: str) -> None:
    with pytest.raises(FormatError, match=said):
        found(document)


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        ({"name": "a", "generateName": "b-"}, "a"),
        ({"generateName": "b-"}, "b-…"),
        ({"name": 1}, "without a name"),
        (None, "without a name"),
        ([], "without a name"),
    ],
)
def test_an_object_is_called_by_what_it_has(metadata: Json, name: str) -> None:
    (maker,) = find_makers(thing("VirtualMachine") | {"metadata": metadata})
    assert maker.name == name


def test_objects_are_exchanged_where_they_stand() -> None:
    document = thing("List", "v1", items=[1, 2, 3], more="x")
    changed = with_makers(document, {("items", "1"): {"a": 1}})
    assert changed == document | {"items": [1, {"a": 1}, 3]}
    assert with_makers(document, {}) is document
    assert with_makers(document, {(): {"b": 2}}) == {"b": 2}
    assert document["items"] == [1, 2, 3]


@pytest.mark.parametrize(
    ("kind", "owner"),
    [
        ("VirtualMachine", Owner.MACHINE),
        ("VirtualMachineInstanceReplicaSet", Owner.REPLICA_SET),
        ("VirtualMachinePool", Owner.MACHINE),
    ],
)
def test_a_vmi_has_the_owner_that_makes_it(kind: str, owner: Owner) -> None:
    template: dict[str, Json] = {"metadata": {"labels": {"a": "b"}}, "spec": {}}
    made: Any = as_made(template, KINDS[kind], attestation=True)
    assert made["spec"] == {}
    assert made["metadata"]["ownerReferences"] == [{"kind": owner, "controller": True}]
    assert made["metadata"]["annotations"] == {ATTESTATION: "required"}
    assert (POOL_LABEL in made["metadata"]["labels"]) == (kind == "VirtualMachinePool")
    assert template == {"metadata": {"labels": {"a": "b"}}, "spec": {}}


def test_a_vmi_of_its_own_stays_what_it_is() -> None:
    kind = KINDS["VirtualMachineInstance"]
    owned: dict[str, Json] = {"metadata": {"ownerReferences": [{"kind": "x"}]}}
    assert as_made(owned, kind, attestation=False) == owned
    noted: dict[str, Json] = {"metadata": {"annotations": {ATTESTATION: "no"}}}
    assert as_made(noted, kind, attestation=True) == noted


@pytest.mark.parametrize("metadata", [[], "x", {"labels": 1, "annotations": []}])
def test_what_is_malformed_stays_for_the_decision_to_say_so(metadata: Json) -> None:
    made: Any = as_made({"metadata": metadata}, KINDS["VirtualMachinePool"], attestation=True)
    if isinstance(metadata, dict):
        assert made["metadata"].items() >= metadata.items()
    else:
        assert made == {"metadata": metadata}
