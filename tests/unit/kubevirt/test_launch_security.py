"""The decision: what each rule refuses, warns of and completes, and which tier is chosen."""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sevkit.kubevirt.installation import UNKNOWN
from sevkit.kubevirt.launch_case import ATTESTATION, POOL_LABEL
from sevkit.kubevirt.launch_completion import COMPLETIONS
from sevkit.kubevirt.launch_rules import REFUSALS, WARNING_LIMIT, WARNINGS, WarningRow
from sevkit.kubevirt.launch_security import (
    INJECTED,
    Around,
    Decision,
    Requirement,
    decide,
)
from sevkit.kubevirt.policy import DEFAULT, HOST_MODELS, Passthrough, Policy, Reboot
from sevkit.kubevirt.tiers import BEST, LABEL, Tier
from sevkit.testing.kubevirt.json_patch import apply_patch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sevkit.documents import Json

Document: TypeAlias = dict[str, Any]
EVERYTHING: Final = Around(
    dataclasses.replace(UNKNOWN, encryption=True, reboot_policy=True), frozenset(Tier)
)
NOTHING_KNOWN: Final = Around(UNKNOWN, None)
SNP, ES, SEV = Tier.SNP, Tier.SEV_ES, Tier.SEV


def vmi(**domain: Any) -> Document:  # noqa: ANN401  # JSON
    """Return a VMI; members of its spec are given as ``spec_NAME``."""
    spec = {
        key.removeprefix("spec_"): domain.pop(key) for key in list(domain) if key[:5] == "spec_"
    }
    whole = {"devices": {}, "memory": {"guest": "1Gi"}} | domain
    return {"metadata": {"name": "t"}, "spec": {"domain": whole} | spec}


def labelled(value: Any, document: Document | None = None) -> Document:  # noqa: ANN401  # JSON
    found = copy.deepcopy(document or vmi())
    found["metadata"]["labels"] = {LABEL: value}
    return found


def attested(document: Document | None = None) -> Document:
    found = copy.deepcopy(document or vmi())
    found["metadata"]["annotations"] = {ATTESTATION: "required"}
    return found


def owned(kind: str, document: Document, **labels: str) -> Document:
    found = copy.deepcopy(document)
    found["metadata"]["ownerReferences"] = [{"kind": kind, "name": "o", "controller": True}]
    found["metadata"]["labels"] = labels
    return found


def codes(decision: Decision) -> list[str]:
    return [refusal.code for refusal in decision.refusals]


def stored(document: Document, decision: Decision) -> Document:
    return apply_patch(document, [one.to_json() for one in decision.operations])


SMM: Final[Document] = {"smm": {}}


def firmware(**efi: Any) -> Document:  # noqa: ANN401  # JSON
    return {"firmware": {"bootloader": {"efi": efi}}}


def interface(**more: Any) -> Document:  # noqa: ANN401  # JSON
    return {"devices": {"interfaces": [{"name": "n", **more}]}}


#: A VMI, the tiers that refuse it and those that take it, and the code.
REFUSED: Final[tuple[tuple[str, Document, set[Tier], str], ...]] = (
    ("arm64", vmi(spec_architecture="arm64"), set(Tier), "spec.architecture"),
    ("s390x", vmi(spec_architecture="s390x"), set(Tier), "spec.architecture"),
    ("x86_64", vmi(spec_architecture="x86_64"), set(Tier), "spec.architecture"),
    ("pc", vmi(machine={"type": "pc"}), set(Tier), "spec.domain.machine.type"),
    (
        "bios",
        vmi(firmware={"bootloader": {"bios": {}}}),
        set(Tier),
        "spec.domain.firmware.bootloader.bios",
    ),
    (
        "secure boot",
        vmi(**firmware(secureBoot=True)),
        set(Tier),
        "spec.domain.firmware.bootloader.efi.secureBoot",
    ),
    (
        "implied secure boot",
        vmi(features=SMM, **firmware()),
        set(Tier),
        "spec.domain.firmware.bootloader.efi.secureBoot",
    ),
    ("smm", vmi(features=SMM), {ES, SNP}, "spec.domain.features.smm"),
    ("smm on", vmi(features={"smm": {"enabled": True}}), {ES, SNP}, "spec.domain.features.smm"),
    (
        "persistent",
        vmi(**firmware(secureBoot=False, persistent=True)),
        {SNP},
        "spec.domain.firmware.bootloader.efi.persistent",
    ),
    (
        "nic",
        vmi(**interface(masquerade={}, bootOrder=1)),
        set(Tier),
        "spec.domain.devices.interfaces",
    ),
    (
        "transitional",
        vmi(devices={"useVirtioTransitional": True}),
        set(Tier),
        "spec.domain.devices.useVirtioTransitional",
    ),
    (
        "virtiofs",
        vmi(devices={"filesystems": [{"name": "f", "virtiofs": {}}]}),
        {SNP},
        "spec.domain.devices.filesystems",
    ),
    ("passt", vmi(**interface(passt={})), {SNP}, "spec.domain.devices.interfaces"),
    ("passt binding", vmi(**interface(passtBinding={})), {SNP}, "spec.domain.devices.interfaces"),
    (
        "passt plugin",
        vmi(**interface(binding={"name": "passt"})),
        {SNP},
        "spec.domain.devices.interfaces",
    ),
    ("sriov", vmi(**interface(sriov={})), set(Tier), "spec.domain.devices.interfaces"),
    ("gpu", vmi(devices={"gpus": [{"name": "g"}]}), set(Tier), "spec.domain.devices.gpus"),
    (
        "device",
        vmi(devices={"hostDevices": [{"name": "d"}]}),
        set(Tier),
        "spec.domain.devices.hostDevices",
    ),
    (
        "resources that differ",
        vmi(
            resources={
                "requests": {one.resource: "1" for one in Tier},
                "limits": {one.resource: "2" for one in Tier},
            }
        ),
        set(Tier),
        "spec.domain.resources",
    ),
)


@pytest.mark.parametrize("tier", Tier)
@pytest.mark.parametrize(
    ("document", "tiers", "field"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_what_cannot_be_launched_is_refused_with_its_field_and_a_fix(
    document: Document, tiers: set[Tier], field: str, tier: Tier
) -> None:
    found = decide(document, tier, DEFAULT, EVERYTHING)
    assert (field in {refusal.field for refusal in found.refusals}) is (tier in tiers)
    assert bool(found.refusals) is (tier in tiers)
    if found.refusals:
        assert found.operations == ()
        assert not found.is_undecided
        assert all(refusal.message and refusal.fix for refusal in found.refusals)


#: What may look like one of those, and is none.
TAKEN: Final = {
    "amd64": vmi(spec_architecture="amd64"),
    "no architecture": vmi(spec_architecture=""),
    "q35": vmi(machine={"type": "pc-q35-rhel9.6.0"}),
    "bootloader of nothing": vmi(firmware={"bootloader": {}}),
    "bios that is null": vmi(firmware={"bootloader": {"bios": None}}),
    "efi without smm": vmi(**firmware()),
    "secure boot off": vmi(**firmware(secureBoot=False)),
    "smm off": vmi(features={"smm": {"enabled": False}}),
    "not persistent": vmi(**firmware(persistent=False)),
    "network": vmi(**interface(masquerade={})),
    "another plugin": vmi(**interface(binding={"name": "bridge"})),
    "boot order that is null": vmi(**interface(bootOrder=None)),
    "modern virtio": vmi(devices={"useVirtioTransitional": False}),
    "no devices": vmi(devices=None),
    "liveness without attestation": vmi(spec_livenessProbe={}),
    "resources": vmi(resources={"requests": {"memory": "1Gi"}}),
}


@pytest.mark.parametrize("tier", Tier)
@pytest.mark.parametrize("name", TAKEN)
def test_what_is_well_is_taken(name: str, tier: Tier) -> None:
    found = decide(TAKEN[name], tier, DEFAULT, EVERYTHING)
    assert found.refusals == ()
    assert found.tier is tier


def test_every_rule_has_a_case() -> None:
    said = {
        refusal.code
        for _, document, tiers, _ in REFUSED
        for tier in tiers
        for refusal in decide(document, tier, DEFAULT, EVERYTHING).refusals
    }
    elsewhere = {"gate", "liveness", "attestation-owner"}
    assert said | elsewhere == {row.code for row in REFUSALS}


def test_passthrough_is_the_operators_to_allow() -> None:
    document = vmi(devices={"gpus": [{"name": "g"}], "interfaces": [{"name": "n", "sriov": {}}]})
    assert codes(decide(document, SNP, DEFAULT, EVERYTHING)) == ["passthrough"] * 2
    policy = Policy(passthrough=Passthrough.ALLOW)
    assert decide(document, SNP, policy, EVERYTHING).refusals == ()


def test_a_gate_that_is_off_refuses_and_one_that_is_not_known_does_not() -> None:
    off = Around(dataclasses.replace(UNKNOWN, encryption=False), None)
    assert codes(decide(vmi(), SNP, DEFAULT, off)) == ["gate"]
    assert decide(vmi(), SNP, DEFAULT, NOTHING_KNOWN).refusals == ()


def test_the_clusters_architecture_counts_where_the_object_names_none() -> None:
    arm = Around(dataclasses.replace(UNKNOWN, architecture="arm64"), None)
    assert codes(decide(vmi(), SNP, DEFAULT, arm)) == ["architecture"]
    assert decide(vmi(spec_architecture="amd64"), SNP, DEFAULT, arm).refusals == ()


# Tiers: what is asked for, what is there, and what is chosen.


def test_without_any_label_it_is_no_concern_of_ours() -> None:
    assert decide(vmi(), None, DEFAULT, EVERYTHING) == Decision()


@pytest.mark.parametrize("namespace", [*Tier, BEST])
@pytest.mark.parametrize("own", [*(tier.value for tier in Tier), BEST])
def test_an_object_may_ask_for_more_and_never_for_less(namespace: Requirement, own: str) -> None:
    found = decide(labelled(own), namespace, DEFAULT, EVERYTHING)
    strength = {"best": 0, "sev": 1, "sev-es": 2, "snp": 3}
    if own != BEST and strength[own] < strength[namespace]:
        assert codes(found) == ["weaker"]
        assert found.refusals[0].field == f"metadata.labels.{LABEL}"
    else:
        floor = max(strength[own], strength[namespace])
        assert found.tier is not None
        assert found.tier.strength == (floor or 3)


@pytest.mark.parametrize("value", ["SNP", "", "none", "tdx", 1, ["snp"], {"a": "b"}])
@pytest.mark.parametrize("namespace", [None, SEV, BEST])
def test_a_value_that_asks_for_nothing_is_refused_wherever_it_stands(
    value: Json, namespace: Requirement | None
) -> None:
    found = decide(labelled(value), namespace, DEFAULT, EVERYTHING)
    assert codes(found) == ["unknown-value"]
    assert "sev, sev-es, snp, best" in found.refusals[0].fix


@pytest.mark.parametrize("required", Tier)
@pytest.mark.parametrize(
    ("launch_security", "tier"),
    [
        ({"sev": {}}, SEV),
        ({"sev": {"policy": {"encryptedState": True}}}, ES),
        ({"snp": {}}, SNP),
    ],
)
def test_what_is_there_stays_if_it_is_enough_and_is_refused_if_not(
    launch_security: Document, tier: Tier, required: Tier
) -> None:
    found = decide(vmi(launchSecurity=launch_security), required, DEFAULT, EVERYTHING)
    if tier.strength < required.strength:
        assert codes(found) == ["weaker"]
    else:
        assert found.tier is tier
        assert not any("launchSecurity" in one.path for one in found.operations)


@pytest.mark.parametrize(
    ("launch_security", "code"),
    [
        ({"tdx": {}}, "tdx"),
        ({"sev": {}, "snp": {}}, "several-types"),
        ({"snp": {}, "tdx": {}}, "several-types"),
        ({"sev": "yes"}, "malformed"),
        ("snp", "malformed"),
    ],
)
def test_what_satisfies_nothing_is_refused(launch_security: Json, code: str) -> None:
    found = decide(vmi(launchSecurity=launch_security), BEST, DEFAULT, EVERYTHING)
    assert codes(found) == [code]


@pytest.mark.parametrize("launch_security", [{}, None, {"snp": None}, {"sev": None, "tdx": None}])
def test_an_empty_launch_security_is_filled(launch_security: Json) -> None:
    document = vmi(launchSecurity=launch_security)
    found = decide(document, SNP, DEFAULT, EVERYTHING)
    assert stored(document, found)["spec"]["domain"]["launchSecurity"]["snp"] == {}


@pytest.mark.parametrize(
    ("runnable", "wants_attestation", "tier"),
    [
        ({SEV, ES, SNP}, False, SNP),
        ({SEV, ES, SNP}, True, ES),
        ({SEV, SNP}, True, SEV),
        ({SEV}, False, SEV),
        ({ES}, False, ES),
    ],
)
def test_best_is_the_strongest_that_some_node_can_run(
    runnable: set[Tier], wants_attestation: bool, tier: Tier
) -> None:
    around = Around(EVERYTHING.installation, frozenset(runnable))
    document = attested() if wants_attestation else vmi()
    assert decide(document, BEST, DEFAULT, around).tier is tier


def test_no_node_not_known_and_what_the_policy_says_are_three_answers() -> None:
    none = Around(UNKNOWN, frozenset())
    found = decide(vmi(), BEST, DEFAULT, none)
    assert (codes(found), found.is_undecided) == (["no-node"], False)
    found = decide(vmi(), BEST, DEFAULT, NOTHING_KNOWN)
    assert (codes(found), found.is_undecided) == (["undecided"], True)
    assert decide(vmi(), BEST, Policy(no_node=SNP), none).tier is SNP
    assert codes(decide(attested(), BEST, Policy(no_node=SNP), none)) == ["no-node"]
    # Not known is never taken for no node, whatever the policy says of that.
    assert codes(decide(vmi(), BEST, Policy(no_node=SNP), NOTHING_KNOWN)) == ["undecided"]


def test_a_tier_by_name_never_depends_on_nodes_but_is_warned_of() -> None:
    none = Around(UNKNOWN, frozenset())
    found = decide(vmi(), SNP, DEFAULT, none)
    assert found.tier is SNP
    assert found.warnings == ("no node can run SEV-SNP now; the VMI will wait for one",)
    assert decide(vmi(), SNP, DEFAULT, NOTHING_KNOWN).warnings == ()


# Attestation.


@pytest.mark.parametrize("tier", [SEV, ES])
def test_attestation_starts_paused_and_ends_on_reboot(tier: Tier) -> None:
    document = attested()
    found = decide(document, tier, DEFAULT, EVERYTHING)
    spec = stored(document, found)["spec"]
    assert spec["startStrategy"] == "Paused"
    assert spec["domain"]["launchSecurity"]["sev"]["attestation"] == {}
    assert spec["domain"]["rebootPolicy"] == "Terminate"
    assert any("240 s" in warning for warning in found.warnings)
    assert any("reboot" in warning for warning in found.warnings)


def test_attestation_that_stands_in_the_object_is_completed_too() -> None:
    document = vmi(launchSecurity={"sev": {"attestation": {}}})
    assert stored(document, decide(document, SEV, DEFAULT, EVERYTHING))["spec"][
        "startStrategy"
    ] == ("Paused")


def test_attestation_with_snp_is_admitted_and_told_to_have_no_launch_to_hold() -> None:
    found = decide(attested(), SNP, DEFAULT, EVERYTHING)
    assert found.refusals == ()
    assert any("no launch to hold" in warning for warning in found.warnings)
    assert not any("startStrategy" in one.path for one in found.operations)


@pytest.mark.parametrize(
    ("kind", "labels", "code"),
    [
        ("VirtualMachineInstanceReplicaSet", {}, ["attestation-owner"]),
        ("VirtualMachine", {"kubevirt.io/vm-pool-revision-name": "p-1"}, ["attestation-owner"]),
        ("VirtualMachinePool", {}, ["attestation-owner"]),
        ("VirtualMachine", {}, []),
        ("Something", {}, []),
    ],
)
def test_owners_whose_guests_nobody_attests_are_refused(
    kind: str, labels: dict[str, str], code: list[str]
) -> None:
    document = owned(kind, attested(), **labels)
    assert codes(decide(document, SEV, DEFAULT, EVERYTHING)) == code
    assert codes(decide(document, SNP, DEFAULT, EVERYTHING)) == []
    assert codes(decide(owned(kind, vmi(), **labels), SEV, DEFAULT, EVERYTHING)) == []


def test_a_liveness_probe_of_a_paused_guest_is_refused() -> None:
    document = attested(vmi(spec_livenessProbe={"tcpSocket": {"port": 22}}))
    assert codes(decide(document, SEV, DEFAULT, EVERYTHING)) == ["liveness"]


@pytest.mark.parametrize("value", ["yes", "", None, 1, [], {}, ["required"]])
def test_another_value_of_the_annotation_is_refused(value: Json) -> None:
    document = vmi()
    document["metadata"]["annotations"] = {ATTESTATION: value}
    expected = [] if value is None else ["unknown-value"]
    assert codes(decide(document, SEV, DEFAULT, EVERYTHING)) == expected


# Completions.


def test_a_bare_vmi_gets_what_it_needs_and_nothing_else() -> None:
    document = vmi()
    found = decide(document, SNP, DEFAULT, EVERYTHING)
    assert stored(document, found)["spec"] == {
        "domain": {
            "devices": {},
            "memory": {"guest": "1Gi"},
            "launchSecurity": {"snp": {}},
            "firmware": {"bootloader": {"efi": {"secureBoot": False}}},
            "resources": {
                "requests": {"sevkit.io/sev-snp": "1"},
                "limits": {"sevkit.io/sev-snp": "1"},
            },
        },
        "evictionStrategy": "LiveMigrateIfPossible",
    }


def test_a_firmware_keeps_its_uuid() -> None:
    document = vmi(firmware={"uuid": "u", "serial": "s"})
    found = decide(document, SNP, DEFAULT, EVERYTHING)
    assert ("add", "/spec/domain/firmware/bootloader") in {
        (one.op, one.path) for one in found.operations
    }
    assert stored(document, found)["spec"]["domain"]["firmware"] == {
        "uuid": "u",
        "serial": "s",
        "bootloader": {"efi": {"secureBoot": False}},
    }


def test_hot_plug_is_taken_away_and_sockets_and_guest_memory_left() -> None:
    document = vmi(cpu={"sockets": 2, "maxSockets": 8}, memory={"guest": "1Gi", "maxGuest": "4Gi"})
    domain = stored(document, decide(document, SEV, DEFAULT, EVERYTHING))["spec"]["domain"]
    assert domain["cpu"] == {"sockets": 2}
    assert domain["memory"] == {"guest": "1Gi"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "LiveMigrateIfPossible"),
        ("LiveMigrate", "LiveMigrateIfPossible"),
        ("None", "None"),
        ("LiveMigrateIfPossible", "LiveMigrateIfPossible"),
        ("External", "External"),
    ],
)
def test_an_eviction_strategy_that_blocks_drains_is_replaced(
    before: str | None, after: str
) -> None:
    document = vmi() if before is None else vmi(spec_evictionStrategy=before)
    found = decide(document, SNP, DEFAULT, EVERYTHING)
    assert stored(document, found)["spec"]["evictionStrategy"] == after
    assert any("External" in one for one in found.warnings) is (before == "External")


@pytest.mark.parametrize("reboot", Reboot)
@pytest.mark.parametrize("known", [True, False, None])
def test_a_reboot_policy_is_written_only_where_kubevirt_takes_it(
    reboot: Reboot, known: bool | None
) -> None:
    around = Around(dataclasses.replace(UNKNOWN, reboot_policy=known), None)
    for document, is_attested in ((vmi(), False), (attested(), True)):
        found = decide(document, SEV, Policy(reboot=reboot), around)
        wanted = reboot is Reboot.ALWAYS or (reboot is Reboot.ATTESTATION and is_attested)
        written = stored(document, found)["spec"]["domain"].get("rebootPolicy")
        assert written == ("Terminate" if wanted and known else None)
    kept = vmi(rebootPolicy="Reboot")
    found = decide(kept, SEV, Policy(reboot=Reboot.ALWAYS), EVERYTHING)
    assert stored(kept, found)["spec"]["domain"]["rebootPolicy"] == "Reboot"


def test_a_vm_is_told_that_only_always_starts_it_again() -> None:
    policy = Policy(reboot=Reboot.ALWAYS)
    found = decide(owned("VirtualMachine", vmi()), SNP, policy, EVERYTHING)
    assert any("runStrategy Always" in one for one in found.warnings)


@pytest.mark.parametrize("tier", Tier)
def test_a_cpu_model_is_pinned_where_the_digest_covers_it(tier: Tier) -> None:
    policy = Policy(cpu_model="EPYC-Milan")
    for document, model in ((vmi(), "EPYC-Milan"), (vmi(cpu={"model": "EPYC-v4"}), "EPYC-v4")):
        domain = stored(document, decide(document, tier, policy, EVERYTHING))["spec"]["domain"]
        expected = model if tier is not SEV or model == "EPYC-v4" else None
        assert domain.get("cpu", {}).get("model") == expected


def test_a_resource_in_one_place_is_completed_in_the_other() -> None:
    document = vmi(resources={"limits": {"sevkit.io/sev-snp": 1, "memory": "2Gi"}})
    found = decide(document, SNP, DEFAULT, EVERYTHING)
    resources = stored(document, found)["spec"]["domain"]["resources"]
    assert resources["requests"] == {"sevkit.io/sev-snp": 1}
    assert resources["limits"] == {"sevkit.io/sev-snp": 1, "memory": "2Gi"}
    without = decide(vmi(), SNP, Policy(capacity_resource=False), EVERYTHING)
    assert not any("resources" in one.path for one in without.operations)


def test_a_vmi_that_has_everything_is_not_touched() -> None:
    document = stored(vmi(), decide(vmi(), SNP, DEFAULT, EVERYTHING))
    assert decide(document, SNP, DEFAULT, EVERYTHING).operations == ()
    del document["metadata"]["annotations"]
    assert decide(document, SNP, DEFAULT, EVERYTHING).operations == ()


def test_nothing_is_decided_from_the_annotation_of_an_earlier_round() -> None:
    document = vmi()
    document["metadata"]["annotations"] = {INJECTED: "snp; policy x; sevkit y"}
    found = decide(document, SNP, DEFAULT, EVERYTHING)
    assert found.operations[0].path == "/spec/domain/launchSecurity"
    assert stored(document, found)["metadata"]["annotations"][INJECTED].startswith("snp; policy ")


# Warnings and garbage.

PINNED: Final = Policy(cpu_model="EPYC-Milan")
WARNED: Final = {
    "kernel-boot": vmi(firmware={"kernelBoot": {}}),
    "vsock": vmi(devices={"autoattachVSOCK": True}),
    "shared-memory": vmi(devices={"filesystems": [{"name": "f"}]}),
    "hugepages": vmi(memory={"guest": "1Gi", "hugepages": {"pageSize": "2Mi"}}),
    "host-model": vmi(cpu={"model": "host-model"}),
    "memory-dump": vmi(spec_volumes=[{"name": "v", "memoryDump": {}}]),
    "overcommit": vmi(resources={"overcommitGuestOverhead": True}),
    "external-eviction": vmi(spec_evictionStrategy="External"),
    "attestation-snp": attested(),
    "attestation-deadline": attested(),
}


@pytest.mark.parametrize("row", WARNINGS, ids=lambda row: row.code)
def test_each_warning_is_given_where_it_is_true_and_is_short(row: WarningRow) -> None:
    assert len(row.says) <= WARNING_LIMIT
    for tier in Tier:
        found = decide(WARNED[row.code], tier, PINNED, EVERYTHING)
        may = tier in row.tiers and not (row.code == "attestation-deadline" and tier is SNP)
        assert (row.says in found.warnings) is may
        assert row.says not in decide(vmi(), tier, PINNED, EVERYTHING).warnings


@pytest.mark.parametrize("tier", [ES, SNP])
@pytest.mark.parametrize("model", sorted(HOST_MODELS))
def test_a_model_of_the_hosts_is_left_and_told_only_where_one_is_to_be_pinned(
    tier: Tier, model: str
) -> None:
    document = vmi(cpu={"model": model})
    found = decide(document, tier, PINNED, EVERYTHING)
    assert stored(document, found)["spec"]["domain"]["cpu"]["model"] == model
    assert any("nothing is pinned" in one for one in found.warnings)
    assert not any("pinned" in one for one in decide(document, tier, DEFAULT, EVERYTHING).warnings)


def test_rows_have_codes_of_their_own_and_a_source() -> None:
    for table in (REFUSALS, WARNINGS, COMPLETIONS):
        names = [row.code for row in table]
        assert len(set(names)) == len(names)
        assert all(row.source for row in table)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
#: A VMI in which everything stands that a rule or a completion looks at.
RICH: Final = attested(
    labelled(
        "sev",
        owned(
            "VirtualMachine",
            vmi(
                cpu={"model": "EPYC", "sockets": 1, "maxSockets": 4},
                memory={"guest": "1Gi", "maxGuest": "4Gi", "hugepages": {"pageSize": "2Mi"}},
                firmware={
                    "uuid": "5d307ca9-b3ef-428c-8861-06e72d69f223",
                    "kernelBoot": {"container": {"image": "i"}},
                    "bootloader": {"efi": {"secureBoot": False, "persistent": False}},
                },
                features={"smm": {"enabled": False}},
                machine={"type": "q35"},
                resources={
                    "requests": {"sevkit.io/sev-es": "1"},
                    "limits": {"sevkit.io/sev-es": "1"},
                    "overcommitGuestOverhead": False,
                },
                devices={
                    "interfaces": [{"name": "n", "masquerade": {}, "binding": {"name": "b"}}],
                    "filesystems": [],
                    "hostDevices": [],
                    "gpus": [],
                    "autoattachVSOCK": False,
                    "useVirtioTransitional": False,
                },
                launchSecurity={"sev": {"policy": {"encryptedState": True}, "attestation": {}}},
                rebootPolicy="Reboot",
                spec_architecture="amd64",
                spec_evictionStrategy="External",
                spec_startStrategy="Paused",
                spec_volumes=[{"name": "v", "memoryDump": {"claimName": "c"}}],
            ),
        ),
    )
)


def places(document: Json, *path: str | int) -> Iterator[tuple[str | int, ...]]:
    """Yield where everything in a document stands."""
    if path:
        yield path
    if isinstance(document, dict | list):
        inner = document.items() if isinstance(document, dict) else enumerate(document)
        for key, value in inner:
            yield from places(value, *path, key)


PLACES: Final = (*places(RICH), ("spec", "livenessProbe"), ("metadata", "labels", POOL_LABEL))


def test_what_garbage_is_put_into_is_admitted_without_it() -> None:
    assert decide(RICH, SEV, DEFAULT, EVERYTHING).refusals == ()


@given(st.sampled_from(PLACES), JSON, st.sampled_from([*Tier, BEST]))
@settings(max_examples=400)
def test_garbage_anywhere_is_refused_or_taken_and_never_an_exception(
    place: tuple[str | int, ...], value: Json, tier: Requirement
) -> None:
    document: Any = copy.deepcopy(RICH)
    target = document
    for part in place[:-1]:
        target = target[part]
    target[place[-1]] = value
    found = decide(document, tier, DEFAULT, EVERYTHING)
    if not found.refusals:
        assert found.tier is not None
        again = decide(stored(document, found), tier, DEFAULT, EVERYTHING)
        assert (again.refusals, again.operations) == ((), ())
