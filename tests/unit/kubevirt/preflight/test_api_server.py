from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.unit.kubevirt.preflight.conftest import Cluster


@pytest.mark.parametrize(
    ("version", "policies", "claim"),
    [
        ("v1.29.9", "fail", "skip"),
        ("v1.30.0", "pass", "pass"),
        ("v1.31.4-eks-7f9249a", "pass", "pass"),
        ("v1.32.1+k3s1", "pass", "pass"),
        ("v2.0.0", "pass", "pass"),
        ("", "skip", "skip"),
        ("new", "skip", "skip"),
    ],
)
def test_what_the_version_of_the_api_server_has(
    cluster: Cluster, version: str, policies: str, claim: str
) -> None:
    cluster.change(version={"gitVersion": version})
    assert cluster.result("kubernetes.version").verdict == policies
    assert cluster.result("kubernetes.node-claim").verdict == claim


def test_who_could_turn_the_claim_off_is_told(cluster: Cluster) -> None:
    cluster.change(version={"gitVersion": "v1.30.1"})
    assert cluster.result("kubernetes.node-claim").detail.startswith("unless Service")
