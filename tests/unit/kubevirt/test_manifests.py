from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sevkit.errors import FormatError, UsageError
from sevkit.kubevirt.manifests import parse_manifest
from sevkit.measure.terms import Mode

if TYPE_CHECKING:
    from sevkit.documents import Json

SEV: dict[str, Json] = {"sev": {}}
SEV_ES: dict[str, Json] = {"sev": {"policy": {"encryptedState": True}}}
SNP: dict[str, Json] = {"snp": {}}


def vmi(security: Json = SNP, **domain: Json) -> dict[str, Json]:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "guest"},
        "spec": {"domain": {"launchSecurity": security, **domain}},
    }


def vm_spec() -> dict[str, Json]:
    return {"template": {"spec": vmi(cpu={"model": "EPYC-Milan"})["spec"]}}


def vm() -> dict[str, Json]:
    return {
        "apiVersion": "kubevirt.io/v1alpha3",
        "kind": "VirtualMachine",
        "spec": vm_spec(),
    }


@pytest.mark.parametrize(
    ("security", "mode", "policy"),
    [
        (SEV, Mode.SEV, 1),
        ({"sev": {"policy": {"encryptedState": False}}}, Mode.SEV, 1),
        ({"sev": {}, "snp": None}, Mode.SEV, 1),
        ({"sev": {"policy": None}}, Mode.SEV, 1),
        (SEV_ES, Mode.SEV_ES, 5),
        (SNP, Mode.SNP, 0x30000),
    ],
)
def test_launch_security_decides_mode_and_policy(security: Json, mode: Mode, policy: int) -> None:
    found = parse_manifest((vmi(security),))
    assert (found.mode, found.guest_policy, found.name) == (mode, policy, "guest")


@pytest.mark.parametrize("security", [None, {}, {"sev": None}, {"tdx": {}}, {"sev": {}, "snp": {}}])
def test_a_guest_that_is_not_sev_or_snp_alone_is_refused(security: Json) -> None:
    with pytest.raises(UsageError):
        parse_manifest((vmi(security),))


@pytest.mark.parametrize(
    ("cpu", "resources", "vcpus"),
    [
        (None, None, 1),
        ({"cores": 4}, None, 4),
        ({"sockets": 2, "cores": 3, "threads": 2}, None, 12),
        ({"sockets": 2, "maxSockets": 8}, None, 2),
        ({"cores": 2}, {"limits": {"cpu": 7}}, 2),
        (None, {"limits": {"cpu": "2500m"}, "requests": {"cpu": 7}}, 3),
        (None, {"requests": {"cpu": "100m"}}, 1),
        ({"model": "EPYC"}, {"requests": {"cpu": 1.5}}, 2),
        (None, {"requests": {"cpu": "2.000000001"}}, 3),
        (None, {"requests": {"memory": "1Gi"}}, 1),
        (None, {"requests": {"cpu": "2000000001n"}}, 3),
        (None, {"requests": {"cpu": "2000001u"}}, 3),
        (None, {"requests": {"cpu": "2001m"}}, 3),
        (None, {"requests": {"cpu": "2000m"}}, 2),
        (None, {"limits": {"cpu": "0.3k"}}, 300),
        (None, {"limits": {"cpu": "0.25Ki"}}, 256),
        ({"cores": 512}, None, 512),
    ],
)
def test_vcpus_are_sockets_cores_and_threads_or_come_from_the_resources(
    cpu: Json, resources: Json, vcpus: int
) -> None:
    assert parse_manifest((vmi(SNP, cpu=cpu, resources=resources),)).vcpus == vcpus


@pytest.mark.parametrize(
    "domain",
    [
        {"cpu": {"cores": "4"}},
        {"cpu": {"cores": -1}},
        {"cpu": {"cores": True}},
        {"cpu": {"cores": 1 << 32}},
        {"cpu": []},
        {"cpu": {"model": 5}},
        {"resources": {"limits": {"cpu": "many"}}},
        {"resources": {"limits": {"cpu": True}}},
        {"resources": {"limits": {"cpu": "-1"}}},
        {"resources": {"limits": {"cpu": "9" * 40}}},
    ],
)
def test_a_field_that_is_not_what_the_schema_says_is_refused(domain: dict[str, Json]) -> None:
    with pytest.raises(FormatError, match="manifest"):
        parse_manifest((vmi(SNP, **domain),))


def test_encrypted_state_that_is_not_a_boolean_is_refused() -> None:
    with pytest.raises(FormatError, match="encryptedState"):
        parse_manifest((vmi({"sev": {"policy": {"encryptedState": "y"}}}),))


def test_more_vcpus_than_can_be_measured_are_refused() -> None:
    with pytest.raises(UsageError, match="513 vCPUs"):
        parse_manifest((vmi(SNP, cpu={"cores": 513}),))


def test_hot_pluggable_vcpus_are_not_measured_in_sev_es() -> None:
    cpu: Json = {"sockets": 2, "cores": 2, "maxSockets": 8}
    es = parse_manifest((vmi(SEV_ES, cpu=cpu),))
    assert es.vcpus == 2
    assert "covers 2 of 4 vCPUs" in es.notes[0]
    snp = parse_manifest((vmi(SNP, cpu=cpu),))
    assert snp.vcpus == 4
    assert snp.notes == ()


@pytest.mark.parametrize(
    ("security", "cpu", "most"),
    [
        (SNP, {"sockets": 2, "cores": 2, "maxSockets": 8}, 16),
        (SNP, {"sockets": 2, "cores": 2}, 4),
        (SNP, {"sockets": 4, "maxSockets": 2}, 4),
        (SNP, {"maxSockets": 4, "threads": 2}, 8),
        (SNP, {"maxSockets": 4_000_000}, 512),
        (SNP, None, 1),
        (SEV_ES, {"sockets": 2, "cores": 2, "maxSockets": 8}, 2),
        (SEV, {"sockets": 2, "cores": 2, "maxSockets": 8}, 4),
    ],
)
def test_more_sockets_are_more_measured_vcpus_for_snp_alone(
    security: Json, cpu: Json, most: int
) -> None:
    assert parse_manifest((vmi(security, cpu=cpu),)).most_vcpus == most


def test_sockets_that_may_become_hot_pluggable_are_noted() -> None:
    found = parse_manifest((vmi(SEV_ES, cpu={"sockets": 2}),))
    assert found.vcpus == 2
    assert "--vcpus 1" in found.notes[0]


@pytest.mark.parametrize("model", [None, "", "host-model", "host-passthrough"])
def test_a_cpu_model_that_depends_on_the_host_is_not_guessed(model: Json) -> None:
    found = parse_manifest((vmi(SNP, cpu={"model": model}),))
    assert found.cpu_model is None
    assert "host" in found.why_no_cpu


def test_a_named_cpu_model_is_taken() -> None:
    assert parse_manifest((vm(),)).cpu_model == "EPYC-Milan"


@pytest.mark.parametrize("key", ["instancetype", "preference"])
def test_what_an_instancetype_decides_is_not_guessed(key: str) -> None:
    found = parse_manifest(({**vm(), "spec": {**vm_spec(), key: {"name": "u1.medium"}}},))
    assert (found.vcpus, found.cpu_model) == (None, None)
    assert key in found.why_no_vcpus
    assert key in found.why_no_cpu


def test_a_kernel_boot_is_noted_as_not_measured() -> None:
    found = parse_manifest((vmi(SNP, firmware={"kernelBoot": {}}),))
    assert found.notes == ("kernelBoot is not measured: KubeVirt sets no kernel hashes",)


def test_other_kinds_are_passed_over_and_several_guests_refused() -> None:
    other: dict[str, Json] = {"apiVersion": "v1", "kind": "Secret"}
    assert parse_manifest((other, vmi(), None, "text")).mode is Mode.SNP
    with pytest.raises(UsageError, match="holds 0 VMs"):
        parse_manifest((other,))
    with pytest.raises(UsageError, match="holds 2 VMs"):
        parse_manifest((vmi(), vm()))
    with pytest.raises(UsageError, match="holds 0 VMs"):
        parse_manifest(({**vmi(), "apiVersion": "kubevirt.io/v2"},))


@pytest.mark.parametrize("kind", ["List", "VirtualMachineInstanceList"])
def test_a_list_stands_for_its_items(kind: str) -> None:
    other: dict[str, Json] = {"apiVersion": "v1", "kind": "Secret"}
    listed: dict[str, Json] = {"apiVersion": "v1", "kind": kind, "items": [other, vmi(SEV_ES)]}
    assert parse_manifest((listed,)).mode is Mode.SEV_ES
    with pytest.raises(UsageError, match="holds 2 VMs"):
        parse_manifest((listed, vmi()))
    with pytest.raises(UsageError, match="holds 0 VMs"):
        parse_manifest(({**listed, "items": None}, {"kind": ["List"]}))


@pytest.mark.parametrize("named", [{}, {"kind": None}, {"kind": "", "apiVersion": ""}])
def test_an_item_that_does_not_say_what_it_is_is_what_its_list_says(named: dict[str, Json]) -> None:
    bare: dict[str, Json] = {"spec": vmi()["spec"], **named}
    kind = "VirtualMachineInstanceList"
    listed: dict[str, Json] = {"apiVersion": "kubevirt.io/v1", "kind": kind, "items": [bare]}
    assert parse_manifest((listed,)).kind == "VirtualMachineInstance"
    others: tuple[dict[str, Json], ...] = (
        {**listed, "kind": "List"},
        {**listed, "kind": "PodList"},
        {**listed, "apiVersion": "v1"},
        {**listed, "items": [{**bare, "kind": "Pod"}]},
        {**listed, "items": [{**bare, "apiVersion": "kubevirt.io/v1"}]},
    )
    for other in others:
        with pytest.raises(UsageError, match="holds 0 VMs"):
            parse_manifest((other,))


@pytest.mark.parametrize("items", [[vmi(SEV)], [], None])
@pytest.mark.parametrize("kind", ["VirtualMachineInstance", "Secret", "", None, ["List"]])
def test_what_has_items_and_is_no_list_is_refused(kind: Json, items: Json) -> None:
    with pytest.raises(FormatError, match="has items and is not a list"):
        parse_manifest(({**vmi(), "kind": kind, "items": items}, vmi()))


@pytest.mark.parametrize(
    ("items", "match"),
    [
        ({"a": 1}, "items is not a list"),
        ("text", "items is not a list"),
        ([vmi(), "text"], "an item of a list is not a mapping"),
        ([None], "an item of a list is not a mapping"),
        ([{"apiVersion": "v1", "kind": "List", "items": [vmi()]}], "an item of a list is a list"),
        ([{**vmi(), "items": None}], "an item of a list is a list"),
    ],
)
def test_a_list_that_kubectl_does_not_take_is_refused(items: Json, match: str) -> None:
    listed: dict[str, Json] = {"apiVersion": "v1", "kind": "List", "items": items}
    with pytest.raises(FormatError, match=match):
        parse_manifest((listed, vmi()))


@pytest.mark.parametrize("value", [True, 0, "", "{}", []])
@pytest.mark.parametrize("key", ["sev", "snp", "tdx"])
def test_launch_security_that_is_not_a_mapping_is_refused(key: str, value: Json) -> None:
    for security in ({key: value}, {"sev": {}, "snp": {}, key: value}):
        with pytest.raises(FormatError, match=f"{key} is not a mapping"):
            parse_manifest((vmi(security),))


@pytest.mark.parametrize("architecture", ["arm64", "s390x", 7, [], ["amd64"], {}])
def test_a_guest_of_another_architecture_is_refused(architecture: Json) -> None:
    document = vmi()
    spec = document["spec"]
    assert isinstance(spec, dict)
    with pytest.raises(UsageError, match="amd64"):
        parse_manifest(({**document, "spec": {**spec, "architecture": architecture}},))
    found = parse_manifest(({**document, "spec": {**spec, "architecture": "amd64"}},))
    assert found.mode is Mode.SNP


def test_an_instancetype_that_may_ask_for_sev_is_named() -> None:
    spec: dict[str, Json] = {"instancetype": {"name": "x"}, "template": {"spec": {"domain": {}}}}
    with pytest.raises(UsageError, match="asks for no SEV guest") as caught:
        parse_manifest(({**vm(), "spec": spec},))
    assert "its instancetype may" in caught.value.hint
