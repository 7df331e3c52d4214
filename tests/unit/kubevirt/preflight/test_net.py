from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

import pytest

from hack.preflight_documents import binding, expression, policies

if TYPE_CHECKING:
    from tests.unit.kubevirt.preflight.conftest import Cluster

VMI: Final = "sevkit-confidential-vmi"
UPDATE: Final = "sevkit-confidential-vmi-update"
NAMESPACE: Final = "sevkit-confidential-namespace"
ALL: Final = {
    "apiGroups": ["*"],
    "apiVersions": ["*"],
    "operations": ["*"],
    "resources": ["*"],
}
NEW_PODS: Final = {
    "apiGroups": [""],
    "apiVersions": ["v1"],
    "operations": ["CREATE"],
    "resources": ["pods"],
}
NEW_VMIS: Final = {
    "apiGroups": ["kubevirt.io"],
    "apiVersions": ["v1"],
    "operations": ["CREATE"],
    "resources": ["virtualmachineinstances"],
}
NOT_EQUIVALENT: Final = "as its matchPolicy is not Equivalent"
WARNING: Final = {"typeChecking": {"expressionWarnings": [{"fieldRef": "a", "warning": "b"}]}}


def constraints(name: str, **members: Any) -> dict[str, Any]:  # noqa: ANN401  # JSON
    found = next(one for one in policies() if one["metadata"]["name"] == name)
    whole: dict[str, Any] = found["spec"]["matchConstraints"]
    return whole | members


def change_policy(cluster: Cluster, name: str, **members: Any) -> None:  # noqa: ANN401  # JSON
    changed: Any = copy.deepcopy(dict(cluster.survey.policies))
    changed[name]["spec"] |= members
    cluster.change(policies=changed)


@pytest.mark.parametrize(("name", "check"), [(VMI, "vmi"), (NAMESPACE, "namespace")])
def test_a_policy_that_is_not_there_is_a_no_and_its_binding_no_question(
    cluster: Cluster, name: str, check: str
) -> None:
    cluster.change(policies={**cluster.survey.policies, name: None})
    assert cluster.odd() == {f"policy.{check}": "fail", f"policy.{check}-binding": "skip"}


def test_without_the_one_against_changes_kubevirts_own_refusal_is_left(cluster: Cluster) -> None:
    cluster.change(policies={**cluster.survey.policies, UPDATE: None})
    both = {"policy.vmi-update": "warn", "policy.vmi-update-binding": "warn"}
    assert cluster.odd() == both
    assert cluster.code == 0
    assert "KubeVirt alone" in cluster.result("policy.vmi-update").fix


@pytest.mark.parametrize(
    ("members", "detail"),
    [
        ({"failurePolicy": "Ignore"}, "its failurePolicy is not Fail"),
        (
            {"matchConstraints": constraints(VMI)},
            "it leaves out UPDATE of virtualmachineinstances",
        ),
        (
            {"matchConstraints": constraints(UPDATE, objectSelector=expression("Exists"))},
            "it leaves out a namespace's label sev",
        ),
        ({}, ""),
    ],
)
def test_one_against_changes_with_a_hole_is_warned_of(
    cluster: Cluster, members: dict[str, Any], detail: str
) -> None:
    change_policy(cluster, UPDATE, **members)
    assert cluster.odd() == ({"policy.vmi-update": "warn"} if detail else {})
    assert cluster.result("policy.vmi-update").detail == detail


def test_one_against_changes_that_nothing_binds_is_warned_of(cluster: Cluster) -> None:
    cluster.change(bindings=(bound(VMI), bound(NAMESPACE)))
    assert cluster.odd() == {"policy.vmi-update-binding": "warn"}
    cluster.change(bindings=(bound(VMI), bound(NAMESPACE), bound(UPDATE, validationActions=[])))
    assert cluster.odd() == {"policy.vmi-update-binding": "warn"}


@pytest.mark.parametrize(
    "members",
    [
        {"failurePolicy": "Ignore"},
        {"validations": []},
        {"matchConstraints": constraints(VMI, namespaceSelector=expression("In", "snp"))},
        {"matchConstraints": constraints(VMI, objectSelector=expression("Exists"))},
        {"matchConstraints": constraints(VMI, excludeResourceRules=[{"resources": ["*"]}])},
        {"matchConstraints": constraints(NAMESPACE)},
        {"matchConstraints": None},
        {"matchConstraints": constraints(VMI, resourceRules=[ALL | {"resourceNames": ["a"]}])},
        {"matchConstraints": constraints(VMI, resourceRules=[NEW_VMIS], matchPolicy="Exact")},
    ],
)
def test_a_policy_that_lets_something_by_is_a_no(cluster: Cluster, members: dict[str, Any]) -> None:
    change_policy(cluster, VMI, **members)
    assert cluster.result("policy.vmi").verdict == "fail"


@pytest.mark.parametrize(
    ("versions", "match", "detail"),
    [
        (["v1"], "Equivalent", ""),
        (["v1"], None, ""),
        (["v1", "v1alpha3"], "Exact", ""),
        (["*"], "Exact", ""),
        (
            ["v1"],
            "Exact",
            f"it leaves out CREATE of virtualmachineinstances of v1alpha3, {NOT_EQUIVALENT}",
        ),
    ],
)
def test_vmis_of_every_version_are_judged_by_the_policy_and_where_it_is_bound(
    cluster: Cluster, versions: list[str], match: str | None, detail: str
) -> None:
    rules = [NEW_VMIS | {"apiVersions": versions}]
    whole = constraints(VMI, resourceRules=rules, matchPolicy=match)
    change_policy(cluster, VMI, matchConstraints=whole)
    assert cluster.result("policy.vmi").detail == detail
    change_policy(cluster, VMI, matchConstraints=constraints(VMI))
    matched = {"resourceRules": rules, "matchPolicy": match}
    cluster.change(bindings=(bound(VMI, matchResources=matched),))
    assert cluster.result("policy.vmi-binding").detail == detail


def test_one_of_namespaces_has_no_other_version_to_be_about(cluster: Cluster) -> None:
    whole = constraints(NAMESPACE, matchPolicy="Exact")
    change_policy(cluster, NAMESPACE, matchConstraints=whole)
    assert cluster.odd() == {}


def test_one_of_namespaces_may_be_about_those_with_the_label_alone(cluster: Cluster) -> None:
    change_policy(
        cluster,
        NAMESPACE,
        matchConstraints=constraints(NAMESPACE, objectSelector=expression("Exists")),
    )
    assert cluster.odd() == {}
    change_policy(
        cluster,
        NAMESPACE,
        matchConstraints=constraints(NAMESPACE, objectSelector=expression("In", "sev")),
    )
    result = cluster.result("policy.namespace")
    assert result.detail == "it leaves out a namespace's label sev-es"


@pytest.mark.parametrize(
    ("operations", "scope", "detail"),
    [
        (["CREATE"], "*", "it leaves out UPDATE of namespaces"),
        (["CREATE", "UPDATE"], "Namespaced", "it leaves out CREATE of namespaces"),
        (["*"], "Cluster", ""),
    ],
)
def test_one_of_namespaces_is_about_their_changes_too(
    cluster: Cluster, operations: list[str], scope: str, detail: str
) -> None:
    whole = constraints(NAMESPACE)
    whole["resourceRules"][0] |= {"operations": operations, "scope": scope}
    change_policy(cluster, NAMESPACE, matchConstraints=whole)
    assert cluster.result("policy.namespace").detail == detail


def test_what_the_api_server_warns_of_is_passed_on(cluster: Cluster) -> None:
    changed: Any = copy.deepcopy(dict(cluster.survey.policies))
    changed[VMI]["status"] = WARNING
    cluster.change(policies=changed)
    assert cluster.odd() == {"policy.vmi": "warn"}


def test_conditions_that_are_not_judged_are_warned_of(cluster: Cluster) -> None:
    change_policy(cluster, VMI, matchConditions=[{"name": "a", "expression": "true"}])
    assert cluster.odd() == {"policy.vmi": "warn"}


def bound(name: str, **members: Any) -> dict[str, Any]:  # noqa: ANN401  # JSON
    document = binding(name)
    document["spec"] |= members
    return document


@pytest.mark.parametrize(
    ("bindings", "verdict"),
    [
        ((), "fail"),
        ((bound(NAMESPACE),), "fail"),
        ((bound(VMI, validationActions=["Audit", "Warn"]),), "fail"),
        ((bound(VMI, validationActions=["Deny", "Audit"]),), "pass"),
        ((bound(VMI, validationActions=["Warn"]), bound(VMI)), "pass"),
        ((bound(VMI, matchResources={"namespaceSelector": expression("Exists")}),), "fail"),
        ((bound(VMI, matchResources={"matchPolicy": "Equivalent"}),), "pass"),
        ((bound(VMI, matchResources={"excludeResourceRules": [ALL]}),), "fail"),
        ((bound(VMI, matchResources={"excludeResourceRules": []}),), "pass"),
        ((bound(VMI, matchResources={"resourceRules": [NEW_PODS]}),), "fail"),
        ((bound(VMI, matchResources={"resourceRules": [NEW_PODS, NEW_VMIS]}),), "pass"),
        ((bound(VMI, matchResources={"resourceRules": []}),), "pass"),
        ((bound(VMI, matchResources={"resourceRules": 7}),), "fail"),
        ((bound(VMI, matchResources={"resourceRules": [ALL | {"resourceNames": ["a"]}]}),), "fail"),
        # Rules that are none follow their policy, whatever their matchPolicy is.
        ((bound(VMI, matchResources={"matchPolicy": "Exact"}),), "pass"),
        ((bound(VMI, matchResources=7),), "skip"),
    ],
)
def test_a_policy_is_enforced_where_something_binds_it_wholly(
    cluster: Cluster, bindings: tuple[Any, ...], verdict: str
) -> None:
    cluster.change(bindings=bindings)
    assert cluster.result("policy.vmi-binding").verdict == verdict
