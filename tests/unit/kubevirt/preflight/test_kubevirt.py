from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hack.preflight_documents import GATE, SCHEMA, definition, kubevirt
from sevkit.kubevirt.tiers import Tier

if TYPE_CHECKING:
    from sevkit.kubevirt.preflight.check import Result
    from tests.unit.kubevirt.preflight.conftest import Cluster


def gate(cluster: Cluster, version: str, metadata: dict[str, Any], **lists: list[str]) -> Result:
    document = kubevirt(version)
    document["metadata"] |= metadata
    document["spec"]["configuration"]["developerConfiguration"] = lists
    cluster.change(kubevirts=(document,))
    return cluster.result("kubevirt.encryption-gate")


def test_there_is_exactly_one(cluster: Cluster) -> None:
    cluster.change(kubevirts=())
    assert cluster.result("kubevirt.installed").verdict == "fail"
    cluster.change(kubevirts=(kubevirt(), kubevirt()))
    result = cluster.result("kubevirt.installed")
    assert (result.verdict, result.fix) == ("fail", "delete all but one")
    assert result.objects == ("kubevirt/kubevirt",) * 2


@pytest.mark.parametrize(
    ("available", "other", "verdict"),
    [
        ("True", {}, "pass"),
        ("True", {"Progressing": "True"}, "warn"),
        ("True", {"Degraded": "True"}, "warn"),
        ("False", {"Progressing": "True"}, "fail"),
        ("Unknown", {}, "fail"),
    ],
)
def test_it_says_that_it_is_available(
    cluster: Cluster, available: str, other: dict[str, str], verdict: str
) -> None:
    document = kubevirt()
    document["status"]["conditions"] = [
        {"type": kind, "status": status}
        for kind, status in {"Available": available, **other}.items()
    ]
    cluster.change(kubevirts=(document,))
    assert cluster.result("kubevirt.available").verdict == verdict


def test_it_that_has_no_status_is_not_available_and_its_version_is_not_known(
    cluster: Cluster,
) -> None:
    document = kubevirt()
    del document["status"]
    cluster.change(kubevirts=(document,))
    assert cluster.result("kubevirt.available").verdict == "fail"
    assert cluster.result("kubevirt.version").verdict == "skip"


@pytest.mark.parametrize(
    ("version", "required", "verdict"),
    [
        ("v1.9.0", {Tier.SNP}, "pass"),
        ("v1.7.0", {Tier.SNP}, "pass"),
        ("v1.6.3", {Tier.SNP}, "fail"),
        ("v1.6.3", {Tier.SEV_ES}, "warn"),
        ("v1.6.3", set(), "warn"),
        ("v0.48.1", set(), "fail"),
        ("v1.7.0-rc.1", {Tier.SNP}, "skip"),
        ("v1.7.0-rc.1", set(), "skip"),
        ("v1.7.1-rc.1", {Tier.SNP}, "pass"),
        ("v0.49.0-rc.0", set(), "skip"),
    ],
)
def test_its_version_has_the_tiers_that_are_required(
    cluster: Cluster, version: str, required: set[Tier], verdict: str
) -> None:
    cluster.change(kubevirts=(kubevirt(version),), required=frozenset(required))
    assert cluster.result("kubevirt.version").verdict == verdict


@pytest.mark.parametrize(
    ("members", "required", "verdict", "value"),
    [
        (SCHEMA, set(), "pass", "SEV, SEV-ES, SEV-SNP"),
        ({"sev": SCHEMA["sev"]}, set(), "warn", "SEV, SEV-ES"),
        ({"sev": SCHEMA["sev"]}, {Tier.SNP}, "fail", "SEV, SEV-ES"),
        ({"snp": {}}, {Tier.SNP}, "warn", "SEV-SNP"),
        ({}, set(), "fail", "none"),
    ],
)
def test_the_definition_has_the_tiers_that_are_required(
    cluster: Cluster, members: dict[str, Any], required: set[Tier], verdict: str, value: str
) -> None:
    cluster.change(definition=definition(members), required=frozenset(required))
    result = cluster.result("kubevirt.definition")
    assert (result.verdict, result.value) == (verdict, value)


def test_the_definition_is_there_and_served(cluster: Cluster) -> None:
    cluster.change(definition=None)
    assert cluster.result("kubevirt.definition").verdict == "fail"
    document = definition()
    document["spec"]["versions"][0]["served"] = False
    cluster.change(definition=document)
    result = cluster.result("kubevirt.definition")
    assert (result.verdict, result.detail) == ("fail", "kubevirt.io/v1 is not served")


def test_a_gate_is_judged_by_lists_and_version_and_what_decides_is_told(cluster: Cluster) -> None:
    result = gate(cluster, "v1.8.0", {})
    assert (result.verdict, result.value) == ("fail", "off")
    assert "off by default in this version" in result.detail
    assert f"add {GATE} to featureGates" in result.fix
    result = gate(cluster, "v1.9.0", {}, disabledFeatureGates=[GATE])
    assert result.detail.startswith("it is in disabledFeatureGates; ")
    result = gate(cluster, "v1.9.0", {}, disabledFeatureGates=[GATE], featureGates=[GATE])
    assert (result.verdict, result.detail) == ("pass", "it is in featureGates")
    assert gate(cluster, "v1.9.0", {}).verdict == "pass"
    assert gate(cluster, "nightly", {}).verdict == "skip"


@pytest.mark.parametrize(
    "metadata",
    [
        {"labels": {"app.kubernetes.io/managed-by": "hco-operator"}},
        {"ownerReferences": [{"kind": "HyperConverged", "name": "kubevirt-hyperconverged"}]},
    ],
)
def test_where_hco_turned_the_gate_off_the_fix_is_hcos(
    cluster: Cluster, metadata: dict[str, Any]
) -> None:
    result = gate(cluster, "v1.9.0", metadata, disabledFeatureGates=["RebootPolicy", GATE])
    assert result.verdict == "fail"
    assert "kubevirt.kubevirt.io/jsonpatch" in result.fix
    reboot = cluster.result("kubevirt.reboot-gate")
    assert (reboot.verdict, reboot.value) == ("warn", "off")
    assert "RebootPolicy" in reboot.fix


@pytest.mark.parametrize(("percent", "verdict"), [(100, "pass"), (150, "warn"), (True, "pass")])
def test_overcommitted_memory_is_warned_of(cluster: Cluster, percent: int, verdict: str) -> None:
    document = kubevirt()
    developer = document["spec"]["configuration"]["developerConfiguration"]
    developer["memoryOvercommit"] = percent
    cluster.change(kubevirts=(document,))
    assert cluster.result("kubevirt.overcommit").verdict == verdict
