"""The parts that are put together, without a server: what files lead to, and what is said of it."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, final

import pytest

from sevkit.cluster.errors import Forbidden
from sevkit.observe.metrics import Metrics
from sevkit.pki import create_authority
from webhooks.app import FILES_SECONDS, CertificateNews, Files
from webhooks.background import Background
from webhooks.gauges import Gauges
from webhooks.policy_file import PolicyFile
from webhooks.tls import Certificates, Pair

if TYPE_CHECKING:
    from pathlib import Path

DAY: Final = timedelta(days=1)


@final
class Shelf:
    """A pair, or why there is none."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        issued = create_authority("x", lifetime=DAY).issue(
            ["a.svc"], lifetime=DAY, now=datetime.now(UTC)
        )
        self.pair = Pair(issued.certificate, issued.key)

    def read(self) -> Pair:
        if self.error:
            raise self.error
        return self.pair


@final
class Scene:
    def __init__(self, folder: Path) -> None:
        self.metrics = Metrics()
        gauges = Gauges(self.metrics)
        self.said = CertificateNews(gauges)
        self.shelf = Shelf()
        certificates = Certificates(self.shelf, told=self.said.served)
        self.path = folder / "policy.yaml"
        self.path.write_text("rebootPolicy: never\n")
        self.policy = PolicyFile(self.path)
        self.files = Files(self.policy, certificates, gauges, poll=certificates.poll)

    def metric(self, name: str) -> float:
        lines = self.metrics.exposition().decode().splitlines()
        (line,) = (line for line in lines if line.startswith(f"{name} "))
        return float(line.split()[1])


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_files_are_looked_at_and_the_metrics_say_what_was_found(scene: Scene) -> None:
    assert scene.files.look() == FILES_SECONDS
    left = scene.metric("sevkit_webhook_cert_expiry_timestamp_seconds") - time.time()
    assert 86000 < left <= 86400
    scene.path.write_text("rebootPolicy: [\n")
    scene.files.look()
    assert scene.metric("sevkit_admission_policy_problem") == 1
    scene.path.write_text("rebootPolicy: always\n")
    scene.files.look()
    assert scene.metric("sevkit_admission_policy_problem") == 0


def test_a_bug_in_looking_at_files_ends_nothing(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.shelf.error = RuntimeError("a bug")
    with caplog.at_level(logging.CRITICAL), Background("files", scene.files.look, rest=0.001):
        deadline = time.monotonic() + 10
        while len(caplog.records) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        scene.shelf.error = None
        while not scene.metric("sevkit_webhook_cert_expiry_timestamp_seconds"):
            assert time.monotonic() < deadline
            time.sleep(0.001)
    assert "internal error, a bug" in caplog.text


def test_trouble_with_keeping_certificates_is_logged_and_stays_in_the_metric(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.said.kept(Forbidden(403))
    assert "forbids" in scene.said.problem
    scene.said.served(None)
    assert scene.metric("sevkit_webhook_cert_problem") == 1, "a pair that is served is not kept"
    scene.said.kept(None)
    assert scene.metric("sevkit_webhook_cert_problem") == 0
    assert scene.said.problem == ""
    assert [record.levelname for record in caplog.records] == ["ERROR"]
