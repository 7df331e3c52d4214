"""``python -m webhooks`` as a process, in front of KubeVirt, called by a real API server."""

from __future__ import annotations

import base64
import contextlib
import re
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import pytest

from hack.control_plane_client import ApiError
from hack.kubevirt_cases import SEV_GATE, vmi
from hack.reviewer import Reviewer
from hack.webhook_process import WebhookProcess
from hack.webhook_registration import NAME, registration
from sevkit.kubevirt.tiers import BEST, LABEL, Tier, tier_of
from sevkit.pki import create_authority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hack.kubevirt_cluster import KubeVirtCluster
    from sevkit.pki import CertificateAuthority

ROOT: Final = Path(__file__).resolve().parents[2]
REGISTRATIONS: Final = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
HOUR: Final = timedelta(hours=1)


@final
@dataclass(frozen=True)
class Running:
    """A webhook that serves, with the files that it looks at."""

    webhook: WebhookProcess
    cluster: KubeVirtCluster
    folder: Path
    authority: CertificateAuthority

    def renew(self, *, key_of_another: bool = False) -> None:
        """Put a new pair in place, as the kubelet does: by one link."""
        leaf, other = (
            self.authority.issue(["127.0.0.1"], lifetime=HOUR, now=datetime.now(UTC))
            for _ in range(2)
        )
        _write_pair(self.folder, leaf.certificate, (other if key_of_another else leaf).key.reveal())


def _write_pair(folder: Path, certificate: bytes, key: bytes) -> None:
    version = folder / f"..{uuid.uuid4().hex}"
    version.mkdir(mode=0o700)
    (version / "tls.crt").write_bytes(certificate)
    (version / "tls.key").touch(mode=0o600)
    (version / "tls.key").write_bytes(key)
    (folder / "..next").symlink_to(version.name)
    (folder / "..next").rename(folder / "..data")


@pytest.fixture(scope="module")
def running(
    kubevirt: KubeVirtCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    kubevirt.configure(SEV_GATE)
    folder = tmp_path_factory.mktemp("tls")
    authority = create_authority("webhook", lifetime=HOUR)
    leaf = authority.issue(["127.0.0.1"], lifetime=HOUR, now=datetime.now(UTC))
    _write_pair(folder, leaf.certificate, leaf.key.reveal())
    (folder / "policy.yaml").write_text("rebootPolicy: never\n")
    words = ["--kubeconfig", str(kubevirt.plane.kubeconfig())]
    words += ["--tls-dir", str(folder), "--policy", str(folder / "policy.yaml")]
    with WebhookProcess(words, folder / "log") as webhook:
        found = Running(webhook, kubevirt, folder, authority)
        try:
            _until(lambda: webhook.is_ready)
            server = Reviewer(webhook.port, base64.b64encode(authority.certificate).decode())
            kubevirt.admin.create(REGISTRATIONS, registration(server.client))
            probe = _namespace(kubevirt, "snp")
            _until(lambda: _is_injected(kubevirt, probe))
            yield found
        finally:
            with contextlib.suppress(ApiError):
                kubevirt.admin.delete(f"{REGISTRATIONS}/{NAME}")
            code = webhook.end()
            time.sleep(0.5)  # the API server's own copy is behind by a moment
        assert code == 0, "who is asked to stop has not failed"


def _is_injected(cluster: KubeVirtCluster, namespace: str) -> bool:
    with contextlib.suppress(ApiError):
        return _launched(cluster, namespace) is Tier.SNP
    return False


def _until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("it never came")
        time.sleep(0.1)


def _namespace(cluster: KubeVirtCluster, value: str) -> str:
    name = f"w-{uuid.uuid4().hex[:12]}"
    cluster.admin.create(
        "/api/v1/namespaces", {"metadata": {"name": name, "labels": {LABEL: value}}}
    )
    return name


def _launched(
    cluster: KubeVirtCluster, namespace: str, document: dict[str, Any] | None = None
) -> Tier | None:
    found = vmi({}) if document is None else document
    found["metadata"] = {"name": f"v-{uuid.uuid4().hex[:12]}"}
    stored = cluster.create(found, namespace)
    return tier_of(stored["spec"]["domain"].get("launchSecurity"))


@pytest.mark.parametrize("tier", Tier)
def test_vmis_are_stored_confidential(running: Running, tier: Tier) -> None:
    assert _launched(running.cluster, _namespace(running.cluster, tier.value)) is tier


def test_best_follows_the_nodes(running: Running) -> None:
    cluster, namespace = running.cluster, _namespace(running.cluster, BEST)
    with pytest.raises(ApiError, match="no node can run"):
        _launched(cluster, namespace)
    name = f"node-{uuid.uuid4().hex[:8]}"
    labels = {
        "kubevirt.io/schedulable": "true",
        **dict.fromkeys(("sevkit.io/sev", "kubevirt.io/sev"), "true"),
        **dict.fromkeys(("sevkit.io/sev-snp", "kubevirt.io/sev-snp"), "true"),
    }
    cluster.admin.create("/api/v1/nodes", {"metadata": {"name": name, "labels": labels}})
    try:
        _until(lambda: _is_injected(cluster, namespace))
        cluster.admin.patch(
            f"/api/v1/nodes/{name}", {"metadata": {"labels": {"sevkit.io/sev-snp": "false"}}}
        )
        _until(lambda: _launched(cluster, namespace) is Tier.SEV)
    finally:
        cluster.admin.delete(f"/api/v1/nodes/{name}")


def test_a_gate_that_is_turned_off_is_the_reason(running: Running) -> None:
    cluster, namespace = running.cluster, _namespace(running.cluster, "snp")
    cluster.configure()

    def is_refused() -> bool:
        try:
            _launched(cluster, namespace)
        except ApiError as error:
            return "feature gate WorkloadEncryptionSEV is off" in error.message
        return False

    try:
        _until(is_refused)
    finally:
        cluster.configure(SEV_GATE)
    _until(lambda: _is_injected(cluster, namespace))


def test_a_policy_that_changes_is_in_force_and_one_that_is_broken_is_not(running: Running) -> None:
    cluster, namespace = running.cluster, _namespace(running.cluster, "snp")
    policy = running.folder / "policy.yaml"

    def model() -> str:
        document = vmi({})
        document["metadata"] = {"name": f"v-{uuid.uuid4().hex[:12]}"}
        stored = cluster.create(document, namespace)
        return str(stored["spec"]["domain"]["cpu"]["model"])

    policy.write_text("cpuModel: EPYC-Milan\n")
    _until(lambda: model() == "EPYC-Milan")
    policy.write_text("cpuModel: [\n")
    _until(lambda: running.webhook.metric("sevkit_admission_policy_problem") == 1)
    assert model() == "EPYC-Milan"
    policy.write_text("cpuModel: EPYC-v4\n")
    _until(lambda: model() == "EPYC-v4")
    assert running.webhook.metric("sevkit_admission_policy_problem") == 0


def test_a_certificate_is_renewed_and_a_pair_that_does_not_match_is_not_served(
    running: Running,
) -> None:
    cluster, namespace = running.cluster, _namespace(running.cluster, "sev")
    running.renew(key_of_another=True)
    _until(lambda: running.webhook.metric("sevkit_webhook_cert_problem") == 1)
    assert _launched(cluster, namespace) is Tier.SEV
    running.renew()
    _until(lambda: running.webhook.metric("sevkit_webhook_cert_problem") == 0)
    assert _launched(cluster, namespace) is Tier.SEV
    left = running.webhook.metric("sevkit_webhook_cert_expiry_timestamp_seconds") - time.time()
    assert 0 < left <= 3700


def test_what_was_decided_is_counted_and_no_name_is_in_it(running: Running) -> None:
    status, text = running.webhook.get("/metrics")
    assert status == 200
    assert 'sevkit_admission_reviews_total{decision="injected"' in text
    assert not re.search(r"v-[0-9a-f]{12}", text)


def test_it_logs_json_and_nothing_critical(running: Running) -> None:
    levels = {line["level"] for line in running.webhook.log()}
    assert levels
    assert "critical" not in levels
