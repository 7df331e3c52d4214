from __future__ import annotations

import copy
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from hack.preflight_documents import authority, choices, endpoints
from sevkit.kubevirt.preflight.survey import Names

if TYPE_CHECKING:
    from tests.unit.kubevirt.preflight.conftest import Cluster


def change_entries(cluster: Cluster, *numbers: int, **members: Any) -> None:  # noqa: ANN401  # JSON
    document: Any = copy.deepcopy(cluster.survey.mutating)
    for number in numbers:
        document["webhooks"][number] |= members
    cluster.change(mutating=document)


def test_without_a_configuration_what_depends_on_it_is_not_judged(cluster: Cluster) -> None:
    cluster.change(mutating=None)
    odd = cluster.odd()
    assert odd.pop("webhook.configuration") == "fail"
    assert set(odd.values()) == {"skip"}
    assert "webhook.choices" not in odd
    assert cluster.code == 3


def test_one_that_is_about_something_else_is_none(cluster: Cluster) -> None:
    change_entries(cluster, *range(6), rules=[])
    assert cluster.result("webhook.configuration").detail == "it is called for no VMI"


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("sevkit-webhook", "pass"),
        ("a", "pass"),
        ("virt-api-mutatop", "pass"),
        ("virt-api-mutator-", "fail"),
        ("z-sevkit", "fail"),
    ],
)
def test_the_name_says_whether_it_is_called_before_kubevirts(
    cluster: Cluster, name: str, verdict: str
) -> None:
    cluster.change(names=Names(name))
    assert cluster.result("webhook.order").verdict == verdict


def test_kubevirts_own_that_is_missing_is_told(cluster: Cluster) -> None:
    cluster.change(kubevirt_mutating=None)
    result = cluster.result("webhook.order")
    assert (result.verdict, result.fix) == ("warn", "see kubevirt.available")


@pytest.mark.parametrize(
    ("members", "check"),
    [
        ({"failurePolicy": "Ignore"}, "webhook.failure-policy"),
        ({"reinvocationPolicy": "Never"}, "webhook.reinvocation"),
        ({"reinvocationPolicy": None}, "webhook.reinvocation"),
        ({"matchPolicy": "Exact"}, "webhook.match-policy"),
    ],
)
def test_one_entry_that_differs_is_named(
    cluster: Cluster, members: dict[str, Any], check: str
) -> None:
    change_entries(cluster, 2, **members)
    assert cluster.odd() == {check: "fail"}
    assert cluster.result(check).objects == ("snp.confidential.sevkit.io",)
    assert cluster.result(check).fix.startswith("set ")


def test_entries_that_do_not_cover_a_case_are_a_no_and_all_cases_are_told(cluster: Cluster) -> None:
    change_entries(cluster, 4, namespaceSelector={"matchLabels": {"x": "y"}})
    assert cluster.odd() == {"webhook.entries": "fail"}
    result = cluster.result("webhook.entries")
    assert len(result.objects) == 6
    assert result.detail.endswith("comes to nothing, not /mutate/unknown, and 5 more")


def test_what_entries_do_beside_their_duty_is_warned_of(cluster: Cluster) -> None:
    change_entries(cluster, 0, matchConditions=[{"name": "a", "expression": "false"}])
    assert cluster.odd() == {"webhook.entries": "warn"}
    assert cluster.result("webhook.entries").objects == ("sev.confidential.sevkit.io",)
    change_entries(cluster, 0, matchConditions=[])
    change_entries(cluster, 5, objectSelector={})
    assert cluster.result("webhook.entries").objects == ("own.confidential.sevkit.io",)


@pytest.mark.parametrize(("days", "verdict"), [(2, "warn"), (0, "fail"), (8, "pass")])
def test_the_worst_authority_is_told(cluster: Cluster, days: int, verdict: str) -> None:
    now = cluster.survey.now
    bundle = authority(timedelta(days=10), now=now - timedelta(days=10 - days))
    client = {
        "service": {"namespace": "sevkit-system", "name": "sevkit-webhook", "path": "/mutate/best"}
    }
    change_entries(cluster, 3, clientConfig=client | {"caBundle": bundle})
    result = cluster.result("webhook.authority")
    assert result.verdict == verdict
    assert result.objects == (() if verdict == "pass" else ("best.confidential.sevkit.io",))


def test_entries_of_another_service_are_not_taken_for_ours(cluster: Cluster) -> None:
    cluster.change(names=Names("sevkit-webhook", "elsewhere"))
    assert cluster.odd() == {"webhook.service": "fail", "webhook.endpoints": "skip"}
    assert "--namespace" in cluster.result("webhook.service").fix


def test_a_service_that_is_not_there_is_a_no(cluster: Cluster) -> None:
    cluster.change(service=None)
    assert cluster.odd() == {"webhook.service": "fail", "webhook.endpoints": "skip"}


def test_by_url_no_service_is_asked(cluster: Cluster) -> None:
    document: Any = copy.deepcopy(cluster.survey.mutating)
    for entry in document["webhooks"]:
        path = entry["clientConfig"].pop("service")["path"]
        entry["clientConfig"]["url"] = f"https://10.0.0.1{path}"
    cluster.change(mutating=document, service=None, slices=())
    assert cluster.odd() == {}


def of_pods(*addresses: str, uid: str = "a", name: str = "webhook-a") -> dict[str, Any]:
    """Return a slice with an endpoint of one pod."""
    target = {"kind": "Pod", "namespace": "sevkit-system", "name": name, "uid": uid}
    return {"endpoints": [{"addresses": list(addresses), "targetRef": target}]}


@pytest.mark.parametrize(
    ("slices", "verdict", "value"),
    [
        ((), "fail", "none"),
        ((endpoints("10.0.0.1", ready=False),), "fail", "none"),
        ((endpoints("10.0.0.1"),), "warn", "1"),
        ((endpoints("10.0.0.1"), endpoints("10.0.0.1")), "warn", "1"),
        ((endpoints("10.0.0.1"), endpoints("10.0.0.2")), "pass", "2"),
        (({"endpoints": [{"addresses": ["a"]}, {"addresses": ["b"]}]},), "pass", "2"),
        (({"endpoints": [{"addresses": ["a", "b"]}]},), "warn", "1"),
        (({"endpoints": [{"addresses": []}, {"addresses": 7}, {}]},), "fail", "none"),
        (({"endpoints": None},), "fail", "none"),
        ((of_pods("10.0.0.1", "fd00::1"),), "warn", "1"),
        ((of_pods("10.0.0.1"), of_pods("fd00::1")), "warn", "1"),
        ((of_pods("10.0.0.1", uid=""), of_pods("fd00::1", uid="")), "warn", "1"),
        ((of_pods("10.0.0.1"), of_pods("fd00::1", uid="b")), "pass", "2"),
        ((of_pods("10.0.0.1", uid="", name=""), of_pods("10.0.0.2")), "pass", "2"),
    ],
)
def test_endpoints_that_are_ready_are_counted(
    cluster: Cluster, slices: tuple[Any, ...], verdict: str, value: str
) -> None:
    cluster.change(slices=slices)
    result = cluster.result("webhook.endpoints")
    assert (result.verdict, result.value) == (verdict, value)


def test_pods_are_looked_for_where_the_webhook_is(cluster: Cluster) -> None:
    document: Any = copy.deepcopy(cluster.survey.mutating)
    for entry in document["webhooks"]:
        entry["clientConfig"]["service"]["namespace"] = "elsewhere"
    names = Names("sevkit-webhook", "elsewhere")
    cluster.change(mutating=document, names=names, slices=(of_pods("10.0.0.1"),))
    assert "--namespace elsewhere get pods" in cluster.result("webhook.endpoints").fix
    cluster.change(slices=())
    assert "--namespace elsewhere get pods" in cluster.result("webhook.endpoints").fix


@pytest.mark.parametrize(
    ("document", "verdict"),
    [
        (choices("noNode: snp\n"), "pass"),
        (choices(""), "pass"),
        (choices("nonode: snp\n"), "fail"),
        (choices("noNode: [\n"), "fail"),
        ({"data": {}}, "warn"),
        (None, "warn"),
    ],
)
def test_the_policy_file_is_read_as_the_webhook_reads_it(
    cluster: Cluster,
    document: Any,  # noqa: ANN401  # JSON
    verdict: str,
) -> None:
    cluster.change(choices=document)
    assert cluster.odd() == ({} if verdict == "pass" else {"webhook.choices": verdict})


def test_without_warnings_or_with_strict_ones_that_is_told(cluster: Cluster) -> None:
    document: Any = copy.deepcopy(cluster.survey.validating)
    document["webhooks"][0]["failurePolicy"] = "Fail"
    cluster.change(validating=document)
    assert "Ignore" in cluster.result("webhook.warnings").fix
    cluster.change(validating=None)
    assert cluster.odd() == {"webhook.warnings": "warn"}
    assert cluster.code == 0


@pytest.mark.parametrize("webhooks", [None, [], ["/mutate/best"], ["/warning", "/"]])
def test_one_that_warns_of_nothing_is_told(cluster: Cluster, webhooks: list[str] | None) -> None:
    document: Any = copy.deepcopy(cluster.survey.validating)
    entry = document["webhooks"][0]
    document["webhooks"] = webhooks and []
    for path in webhooks or []:
        service = entry["clientConfig"]["service"] | {"path": path}
        document["webhooks"].append(entry | {"clientConfig": {"service": service}})
    cluster.change(validating=document)
    assert cluster.odd() == {"webhook.warnings": "warn"}
    assert "users are not told" in cluster.result("webhook.warnings").detail
