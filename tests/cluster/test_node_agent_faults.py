"""A node agent while the API server, the network, its rights or its host fail it.

Whatever fails: what is published stays, retries come ever more rarely, and the newest state is
published when it is over. The faults are real ones: the API server itself answers 403, 409, 429
and 500, is stopped and started, and sits behind a wire that is held, cut and closed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from hack import control_plane_build
from hack.agent_scene import Scene, open_scene
from hack.cluster_pod import RBAC, allow, node_with_pod
from hack.control_plane import ControlPlane
from hack.control_plane_client import ApiError
from hack.reviewer import serve_reviews
from node_agent.agent import Rhythm
from node_agent.backoff import Backoff
from sevkit.cluster.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from hack.cluster_pod import NodePod
    from hack.wire import Wire

ROOT: Final = Path(__file__).resolve().parents[2]
ADMISSION: Final = "/apis/admissionregistration.k8s.io/v1"
SNP: Final = "sevkit.io/sev-snp"
#: What is true of the host that a fault finds, and of the one that it leaves.
BEFORE: Final = "true"
AFTER: Final = "false"


@contextlib.contextmanager
def without_rights(pod: NodePod) -> Iterator[int]:
    """403: the binding of the ClusterRole is gone."""
    path = f"{RBAC}/clusterrolebindings/{pod.namespace}"
    binding = pod.plane.admin.get(path)
    pod.plane.admin.delete(path)
    _until(pod, 403)
    yield 403
    binding["metadata"] = {"name": pod.namespace}
    pod.plane.admin.create(f"{RBAC}/clusterrolebindings", binding)
    _until(pod, 200)


@contextlib.contextmanager
def with_a_webhook(pod: NodePod, client: dict[str, Any], status: int) -> Iterator[int]:
    """Let an admission webhook judge what the pod does to nodes' status."""
    user = f"system:serviceaccount:{pod.namespace}:default"
    condition = f"request.userInfo.username == '{user}'"
    rule = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "resources": ["nodes/status"],
        "operations": ["UPDATE"],
    }
    hook = {
        "name": "nobody.sevkit.io",
        "clientConfig": client,
        "rules": [rule],
        "matchConditions": [{"name": "ours", "expression": condition}],
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 2,
    }
    path = f"{ADMISSION}/validatingwebhookconfigurations"
    pod.plane.admin.create(path, {"metadata": {"name": pod.namespace}, "webhooks": [hook]})
    try:
        _until(pod, status)
        yield status
    finally:
        pod.plane.admin.delete(f"{path}/{pod.namespace}")
    _until(pod, 200)


def with_a_webhook_that_nobody_serves(pod: NodePod) -> AbstractContextManager[int]:
    """500: as the API server says it."""
    return with_a_webhook(pod, {"url": "https://127.0.0.1:1/"}, 500)


@contextlib.contextmanager
def with_the_answer(code: int, reason: str, pod: NodePod, *, retry_after: int = 0) -> Iterator[int]:
    """Any other status: an admission webhook tells the API server to give it."""
    details = {"retryAfterSeconds": retry_after} if retry_after else {}
    status = {"code": code, "reason": reason, "message": "as a test says", "details": details}

    def refuse(_: str, body: bytes) -> bytes:
        asked = json.loads(body)
        response = {"uid": asked["request"]["uid"], "allowed": False, "status": status}
        return json.dumps({**asked, "request": None, "response": response}).encode()

    with serve_reviews(refuse, pod.folder) as server, with_a_webhook(pod, server.client(), code):
        yield code


FAULTS: Final = {
    "403": without_rights,
    "409": functools.partial(with_the_answer, 409, "Conflict"),
    "429": functools.partial(with_the_answer, 429, "TooManyRequests"),
    "500": with_a_webhook_that_nobody_serves,
    "503": functools.partial(with_the_answer, 503, "ServiceUnavailable"),
}


def _until(pod: NodePod, status: int) -> None:
    """Wait until the API server answers the pod with ``status``: caches are behind by a moment."""
    client = pod.plane.client((pod.folder / "token").read_text())
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        answered = 200
        try:
            # A dry run goes through authorisation and admission, and writes nothing.
            path = f"/api/v1/nodes/{pod.node}/status?dryRun=All"
            client.patch(path, {"metadata": {"annotations": {"probe": str(time.monotonic())}}})
        except ApiError as error:
            answered = error.status
        if answered == status:
            return
        time.sleep(0.05)
    pytest.fail(f"the API server never answered {status}")


def _snp(scene: Scene) -> str | None:
    return scene.ours()["labels"].get(SNP)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_what_the_api_server_refuses_for_an_hour_is_published_when_it_no_longer_does(
    scene: Scene, fault: Callable[[NodePod], AbstractContextManager[int]]
) -> None:
    agent = scene.agent()
    agent.run(130)
    before = scene.ours()
    with fault(scene.pod) as status:
        scene.host.become("genoa", "kvm-snp-off")
        start = len(scene.writes())
        agent.run(3600)
        refused = scene.writes()[start:]
        assert {code for _, _, code in refused} == {status}
        # Doubling from 2 s to 5 min: 8 in the first ten minutes, and then one in 2.5 to 5 min.
        assert 12 <= len(refused) <= 40
        assert scene.ours() == before
        # The newest state is what is published, not what was to be published first.
        scene.host.become("genoa", "kvm-sev-off")
        agent.run(120)
    agent.run(301)
    found = scene.ours()
    assert found["labels"]["sevkit.io/sev"] == AFTER
    assert found["labels"][SNP] == AFTER
    assert found["labels"].keys() >= before["labels"].keys() - {"sevkit.io/tcb-snp"}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_restart_during_a_fault_loses_nothing(
    scene: Scene, fault: Callable[[NodePod], AbstractContextManager[int]]
) -> None:
    scene.agent().run(130)
    before = scene.ours()
    with fault(scene.pod):
        scene.host.lose("cpuid.json", "firmware.json", "proc/cpuinfo")
        agent = scene.agent()
        agent.run(600)
        assert scene.ours() == before
    agent.run(301)
    after = scene.ours()
    assert (after["labels"], after["capacity"]) == (before["labels"], before["capacity"])


def test_an_event_that_is_refused_keeps_no_label_back(scene: Scene) -> None:
    """The rights to make events are a Role of their own, and may be missing."""
    role = f"{RBAC}/clusterroles/{scene.pod.namespace}"
    found = scene.pod.plane.admin.get(role)
    found["rules"] = [rule for rule in found["rules"] if "events" not in rule["resources"]]
    scene.pod.plane.admin.replace(role, found)
    time.sleep(0.5)
    agent = scene.agent()
    agent.run(130)
    scene.host.become("genoa", "kvm-snp-off")
    agent.run(80)
    assert _snp(scene) == AFTER
    of_events = [one for one in scene.pod.requests() if one["objectRef"]["resource"] == "events"]
    assert {one["responseStatus"]["code"] for one in of_events} == {403}


def test_a_token_that_is_rotated_is_used_and_one_that_expired_is_waited_out(scene: Scene) -> None:
    agent = scene.agent()
    agent.run(130)
    token = (scene.pod.folder / "token").read_text()
    (scene.pod.folder / "token").write_text("expired")
    scene.host.become("genoa", "kvm-snp-off")
    agent.run(600)
    assert _snp(scene) == BEFORE
    (scene.pod.folder / "token").unlink()
    agent.run(600)
    assert _snp(scene) == BEFORE
    scene.pod.renew_token()
    assert (scene.pod.folder / "token").read_text() != token
    agent.run(301)
    assert _snp(scene) == AFTER


@pytest.fixture
def wired(scene: Scene, wire: Wire) -> Iterator[Scene]:
    """The scene over the wire; each request has half a second."""
    access = dataclasses.replace(scene.pod.access, server=f"https://127.0.0.1:{wire.port}")
    with Connection(access, seconds=0.5) as connection:
        yield dataclasses.replace(scene, connection=connection)


def test_an_api_server_that_hangs_is_asked_again_and_again_and_then_told(
    wired: Scene, wire: Wire
) -> None:
    agent = wired.agent()
    agent.run(130)
    wire.held.set()
    wired.host.become("genoa", "kvm-snp-off")
    begun = time.monotonic()
    agent.run(120)
    assert time.monotonic() - begun < 20, "each request ends in time"
    wire.held.clear()
    agent.run(301)
    assert _snp(wired) == AFTER


@pytest.mark.parametrize("size", [0, 1, 100, 1000])
def test_a_connection_that_is_cut_half_way_is_made_again_and_the_word_said_again(
    wired: Scene, wire: Wire, size: int
) -> None:
    agent = wired.agent()
    agent.run(130)
    wire.cut_after = size
    wired.host.become("genoa", "kvm-snp-off")
    agent.run(300)
    wire.cut_after = None
    agent.run(301)
    assert _snp(wired) == AFTER
    assert wired.ours()["capacity"][SNP] == "0"


def test_an_answer_that_is_lost_after_the_write_does_no_harm(wired: Scene, wire: Wire) -> None:
    agent = wired.agent()
    agent.run(130)
    wired.host.become("genoa", "kvm-snp-off")
    wire.cut_after = 0
    agent.run(75)
    wire.cut_after = None
    # Perhaps written, perhaps not: either way the next one settles it, and is not fought.
    agent.run(301)
    assert _snp(wired) == AFTER
    assert 409 not in {code for _, _, code in wired.writes()}


@pytest.fixture
def own_scene(tmp_path: Path) -> Iterator[Scene]:
    """A scene on a control plane of its own, which may be stopped."""
    if not control_plane_build.is_there():
        pytest.skip(control_plane_build.why_not())
    with ControlPlane() as plane:
        plane.admin.create("/api/v1/namespaces", {"metadata": {"name": "own"}})
        accounts = "/api/v1/namespaces/own/serviceaccounts"
        plane.admin.create(accounts, {"metadata": {"name": "default"}})
        with node_with_pod(plane, "own", tmp_path) as pod:
            allow(pod)
            with open_scene(pod, tmp_path) as scene:
                yield scene


def test_an_api_server_that_is_down_for_hours_and_started_again(own_scene: Scene) -> None:
    scene = own_scene
    agent = scene.agent()
    agent.run(130)
    before = scene.ours()
    scene.pod.plane.stop_api()
    scene.host.become("genoa", "kvm-snp-off")
    agent.run(3 * 3600)
    # An agent that starts meanwhile knows nothing of what is published, and waits.
    scene.host.lose("cpuid.json")
    other = scene.agent()
    other.run(3600)
    scene.pod.plane.start_api()
    assert scene.ours() == before
    other.run(301)
    agent.run(301)
    after = scene.ours()
    assert after["labels"].keys() == before["labels"].keys()
    assert after["labels"][SNP] == AFTER


def test_the_process_lives_through_a_restart_of_the_api_server_and_ends_when_asked(
    own_scene: Scene,
) -> None:
    scene = own_scene
    kubeconfig = scene.pod.plane.kubeconfig((scene.pod.folder / "token").read_text())
    root = scene.pod.folder / "root"
    root.symlink_to(scene.host.root)
    command = [
        *(sys.executable, "-m", "node_agent", "--kubeconfig", str(kubeconfig)),
        *("--node-name", scene.pod.node, "--host-root", str(root)),
        *("--interval", "1", "--start-spread", "0"),
    ]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            _wait(lambda: _snp(scene) == BEFORE)
            scene.pod.plane.stop_api()
            scene.host.become("genoa", "kvm-snp-off")
            (scene.pod.folder / "next").symlink_to(scene.host.root)
            (scene.pod.folder / "next").rename(root)
            time.sleep(3)
            assert process.poll() is None
            scene.pod.plane.start_api()
            _wait(lambda: _snp(scene) == AFTER, seconds=40)
        finally:
            process.send_signal(signal.SIGTERM)
            begun = time.monotonic()
            _, said = process.communicate(timeout=10)
        assert time.monotonic() - begun < 2
        assert process.returncode == 0
    lines = [json.loads(line) for line in said.splitlines()]
    assert {line["level"] for line in lines} <= {"info", "warning"}
    assert any(line["message"] == "cannot publish" for line in lines)
    assert _snp(scene) == AFTER


def test_sigterm_while_a_request_hangs_ends_the_process_in_time_and_removes_nothing(
    scene: Scene, wire: Wire
) -> None:
    scene.agent().run(130)
    before = scene.ours()
    text = scene.pod.plane.kubeconfig((scene.pod.folder / "token").read_text()).read_text()
    config: dict[str, Any] = json.loads(text)
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{wire.port}"
    kubeconfig = scene.pod.folder / "wired"
    kubeconfig.write_text(json.dumps(config))
    command = [
        *(sys.executable, "-m", "node_agent", "--kubeconfig", str(kubeconfig)),
        *("--node-name", scene.pod.node, "--host-root", str(scene.host.root)),
        *("--interval", "1", "--start-spread", "0"),
    ]
    wire.held.set()
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        time.sleep(2.5)
        process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        assert process.wait(10) == 0
        assert time.monotonic() - begun < 2
    wire.held.clear()
    assert scene.ours() == before


def _wait(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("it never came")
        time.sleep(0.1)


def test_retry_after_is_kept(scene: Scene) -> None:
    agent = scene.agent(Rhythm(backoff=Backoff(first=0.001, cap=0.001)))
    agent.run(130)
    with with_the_answer(429, "TooManyRequests", scene.pod, retry_after=10):
        scene.host.become("genoa", "kvm-snp-off")
        agent.run(72)  # by now it has begun
        start = len(scene.writes())
        agent.run(600)
        # At least 10 s each, and up to a fifth more by chance.
        assert 49 <= len(scene.writes()) - start <= 60
