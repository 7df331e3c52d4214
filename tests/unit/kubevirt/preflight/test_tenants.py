from __future__ import annotations

from typing import TYPE_CHECKING

from hack.preflight_documents import claims
from sevkit.kubevirt.preflight.guests import Guests, WeakGuest

if TYPE_CHECKING:
    from tests.unit.kubevirt.preflight.conftest import Cluster


def test_namespaces_are_counted_by_what_they_ask_for(cluster: Cluster) -> None:
    cluster.change(namespaces={"a": "snp", "b": "best", "c": "snp"})
    assert cluster.result("tenants.labels").value == "snp 2, best 1"
    cluster.change(namespaces={})
    assert (cluster.odd(), cluster.result("tenants.labels").value) == ({}, "none")


def test_a_value_that_asks_for_nothing_is_a_no(cluster: Cluster) -> None:
    cluster.change(namespaces={"b": "SNP", "a": "", "c": "snp"})
    result = cluster.result("tenants.labels")
    assert (result.verdict, result.objects) == ("fail", ("a ()", "b (SNP)"))
    assert "sev, sev-es, snp, best" in result.fix


def test_namespaces_of_the_system_are_warned_of(cluster: Cluster) -> None:
    cluster.change(namespaces={"kube-system": "snp", "sevkit-system": "best", "team": "snp"})
    assert cluster.odd() == {"tenants.system": "warn"}
    assert cluster.result("tenants.system").objects == ("kube-system", "sevkit-system")


def test_what_no_node_can_run_is_warned_of(cluster: Cluster) -> None:
    cluster.change(nodes=(claims("a"),), namespaces={"x": "sev-es", "y": "best", "z": "odd"})
    assert cluster.result("tenants.placeable").objects == ("x (sev-es)",)
    assert cluster.result("tenants.placeable").verdict == "warn"
    cluster.change(nodes=())
    assert cluster.result("tenants.placeable").objects == ("x (sev-es)", "y (best)")


def test_guests_that_run_with_less_are_named_and_a_no(cluster: Cluster) -> None:
    weak = (WeakGuest("b", "v", "snp", "sev"), WeakGuest("a", "v", "snp", "nothing"))
    cluster.change(guests=Guests(5, weak))
    assert cluster.odd() == {"tenants.guests": "fail"}
    result = cluster.result("tenants.guests")
    assert (result.value, result.objects) == (
        "3 of 5",
        ("a/v (nothing, not snp)", "b/v (sev, not snp)"),
    )
    assert cluster.code == 3
