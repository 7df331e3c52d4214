"""Two replicas that make their certificates themselves, installed as deploy/webhook has it."""

from __future__ import annotations

import base64
import contextlib
import json
import time
from typing import TYPE_CHECKING, Final

import pytest

from hack.deploy_manifests import NAMESPACE
from hack.kubevirt_cases import SEV_GATE
from hack.reviewer import serve_reviews
from hack.webhook_installed import (
    ACCOUNT,
    NAME,
    PATIENCE,
    PLACES,
    PROBLEM,
    SECRET,
    Installed,
    until,
)
from sevkit.kubevirt.tiers import Tier

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hack.kubevirt_cluster import KubeVirtCluster

#: How often another writer of the Secret is faster: more often than a pass begins again.
OVERTAKEN: Final = 4


@pytest.fixture(scope="module")
def installed(
    kubevirt: KubeVirtCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installed]:
    kubevirt.configure(SEV_GATE)
    with Installed(kubevirt, tmp_path_factory.mktemp("webhook")) as found:
        yield found
    assert [replica.process.returncode for replica in found.replicas] == [0, 0]
    time.sleep(0.5)  # the API server's own copy is behind by a moment


def test_all_entries_trust_what_both_replicas_serve(installed: Installed) -> None:
    until(lambda: installed.bundles() == {installed.secret()["ca.crt"]})
    assert set(installed.secret()) == {"tls.crt", "tls.key", "ca.crt", "ca.key"}


@contextlib.contextmanager
def overtaken(installed: Installed, folder: Path, times: int) -> Iterator[None]:
    """Have another writer win at the last moment, when a replica writes the Secret."""
    left = [times]

    def answer(_path: str, data: bytes) -> bytes:
        review = json.loads(data)
        if left[0] > 0:
            left[0] -= 1
            installed.admin.patch(SECRET, {"metadata": {"annotations": {"left": str(left[0])}}})
        response = {"uid": review["request"]["uid"], "allowed": True}
        return json.dumps({**review, "response": response}).encode()

    with serve_reviews(answer, folder) as reviewer:
        rule = {
            "apiGroups": [""],
            "apiVersions": ["v1"],
            "operations": ["UPDATE"],
            "resources": ["secrets"],
        }
        entry = {
            "name": "overtakes.sevkit.io",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "clientConfig": reviewer.client(),
            "rules": [rule],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}},
            "matchConditions": [
                {"name": "a", "expression": f'request.userInfo.username == "{ACCOUNT}"'}
            ],
        }
        place = PLACES["ValidatingWebhookConfiguration"]
        installed.admin.create(place, {"metadata": {"name": "overtakes"}, "webhooks": [entry]})
        try:
            yield
        finally:
            installed.admin.delete(f"{place}/overtakes")


@pytest.fixture
def rotated(installed: Installed, tmp_path: Path) -> Iterator[Installed]:
    with overtaken(installed, tmp_path, OVERTAKEN):
        yield installed


def test_certificates_rotate_while_vmis_are_created_and_none_fails(rotated: Installed) -> None:
    """Each VMI comes by connections of its own, so that every certificate has to be trusted.

    And whoever writes the Secret first loses a race for it, several times.
    """
    installed = rotated
    namespace = installed.namespace("snp")
    seen: list[tuple[bytes, ...]] = []
    leaves: set[bytes] = set()
    made, begun, audited = 0, time.monotonic(), len(installed.requests())
    while time.monotonic() - begun < 90:
        installed.service.hang_up()
        time.sleep(0.02)
        assert installed.launched(namespace) is Tier.SNP
        made += 1
        authorities = installed.authorities()
        if not seen or seen[-1] != authorities:
            seen.append(authorities)
        leaves.add(installed.secret()["tls.crt"])
        if _rotations(seen) == 2:
            break
    assert _rotations(seen) == 2, [len(one) for one in seen]
    assert len(leaves) >= 3
    assert made > 50
    assert installed.service.connections >= made
    for replica in installed.replicas:
        assert replica.metric(PROBLEM) == 0
        assert replica.log("warning", "error", "critical") == []
        assert replica.metric('sevkit_admission_reviews_total{decision="injected"') > made / 4
    # Three requests a pass, about once a second with these terms; and writes are for steps only.
    asked = installed.requests()[audited:]
    codes = [one["responseStatus"]["code"] for one in asked if one["verb"] == "update"]
    assert codes.count(409) >= OVERTAKEN
    assert len(asked) < 2 * 3 * 2 * (time.monotonic() - begun)
    assert codes.count(200) <= len(seen) + len(leaves)


def _rotations(seen: list[tuple[bytes, ...]]) -> int:
    """Return how often one CA alone was followed by another alone, with both in between."""
    found = 0
    for before, both, after in zip(seen, seen[1:], seen[2:], strict=False):
        is_whole = (len(before), len(both), len(after)) == (1, 2, 1)
        found += is_whole and both == (*after, *before)
    return found


def test_without_a_right_it_serves_on_and_says_so_once(installed: Installed) -> None:
    namespace = installed.namespace("sev")
    path = f"{PLACES['ClusterRoleBinding']}/{NAME}-certificates"
    binding = installed.admin.get(path)
    before = [len(replica.log("error")) for replica in installed.replicas]
    installed.admin.delete(path)
    try:
        until(lambda: all(replica.metric(PROBLEM) == 1 for replica in installed.replicas))
        assert installed.launched(namespace) is Tier.SEV
        assert all(replica.is_ready for replica in installed.replicas)
    finally:
        del binding["metadata"]["resourceVersion"], binding["metadata"]["uid"]
        installed.admin.create(PLACES["ClusterRoleBinding"], binding)
    until(lambda: all(replica.metric(PROBLEM) == 0 for replica in installed.replicas))
    for replica, count in zip(installed.replicas, before, strict=True):
        (line,) = replica.log("error")[count:]
        assert line["message"] == "certificates cannot be kept"
        assert "forbids" in line["error"]
    assert installed.launched(namespace) is Tier.SEV


def test_a_broken_policy_file_is_told_at_the_pods(installed: Installed) -> None:
    names = {f"{NAME}-0", f"{NAME}-1"}
    installed.policy.write_text("cpuModell: x\n")
    until(lambda: names <= installed.told("PolicyRefused").keys())
    assert all("cpuModell" in installed.told("PolicyRefused")[name] for name in names)
    assert installed.launched(installed.namespace("snp")) is Tier.SNP
    installed.policy.write_text("rebootPolicy: never\n")
    until(lambda: names <= installed.told("PolicyAccepted").keys())


def test_one_that_cannot_start_for_its_policy_file_says_so_too(
    installed: Installed, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("cpuModell: x\n")
    with installed.replica(2, policy) as replica:
        assert replica.process.wait(PATIENCE) == 2
    note = installed.told("PolicyRefused")[f"{NAME}-2"]
    assert "cpuModell" in note
    assert "does not start" in note


def test_what_is_known_of_the_cluster_is_in_the_metrics(installed: Installed) -> None:
    for replica in installed.replicas:
        assert replica.metric('sevkit_webhook_cache_objects{kind="kubevirts"}') == 1
        heard = replica.metric('sevkit_webhook_cache_heard_timestamp_seconds{kind="nodes"}')
        assert time.time() - heard < 300


def test_no_key_is_in_a_log_however_much_that_says(installed: Installed) -> None:
    words = [b"PRIVATE KEY", *(b"-----BEGIN PRIVATE KEY"[start:] for start in range(3))]
    for replica in installed.replicas:
        assert replica.log("debug")
        text = json.dumps(replica.log())
        assert "PRIVATE KEY" not in text
        for word in words:  # as a Secret has it, wherever it begins
            whole = len(word) // 3 * 3
            assert base64.b64encode(word[:whole]).decode() not in text
