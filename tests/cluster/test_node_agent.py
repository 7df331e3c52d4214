"""The node agent against the real API server: what it writes, and what it leaves alone."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from node_agent.agent import Agent
from node_agent.kubernetes_sink import KubernetesSink
from node_agent.observer import Watcher
from sevkit.cluster.nodes import AGENT_MANAGER, NodeClient, NodeKeys
from sevkit.kubevirt.labels import CAPABILITIES, LABELS

if TYPE_CHECKING:
    from hack.agent_scene import Scene

ROOT: Final = Path(__file__).resolve().parents[2]


def test_everything_of_a_node_appears_in_one_patch(scene: Scene) -> None:
    before = len(scene.writes())
    scene.agent().run(130)
    assert scene.writes()[before:] == [("get", "nodes", 200), ("patch", "nodes/status", 200)]
    found = scene.ours()
    assert found["labels"]["sevkit.io/sev-snp"] == "true"
    assert found["labels"]["sevkit.io/sev-es"] == "false"
    assert found["labels"]["sevkit.io/simulated"] == "true"
    assert found["capacity"] == {
        "sevkit.io/sev": "754",
        "sevkit.io/sev-es": "0",
        "sevkit.io/sev-snp": "252",
    }
    assert json.loads(found["annotations"][CAPABILITIES])["sev-snp"]["state"] == "usable"


def test_a_second_run_and_a_restart_write_nothing(scene: Scene) -> None:
    scene.agent().run(130)
    version = scene.pod.raw()["metadata"]["resourceVersion"]
    before = len(scene.writes())
    scene.agent().run(3600)
    scene.agent().agent.publish_once()
    assert scene.writes()[before:] == [("get", "nodes", 200)] * 2
    assert scene.pod.raw()["metadata"]["resourceVersion"] == version


def test_a_host_that_stays_as_it_is_costs_a_patch_in_six_hours_that_changes_nothing(
    scene: Scene,
) -> None:
    agent = scene.agent()
    agent.run(130)
    version = scene.pod.raw()["metadata"]["resourceVersion"]
    before = len(scene.writes())
    time.sleep(1.1)  # managed fields carry a time in whole seconds
    agent.run(6 * 3600 * 1.2 + 1)
    assert scene.writes()[before:] == [("patch", "nodes/status", 200)]
    assert scene.pod.raw()["metadata"]["resourceVersion"] == version


def test_a_host_that_changes_changes_only_that(scene: Scene) -> None:
    agent = scene.agent()
    agent.run(130)
    node = scene.pod.raw()
    scene.host.become("genoa", "kvm-snp-off")
    agent.run(80)
    after = scene.pod.raw()
    changed = {
        key
        for key in LABELS
        if node["metadata"]["labels"].get(key) != after["metadata"]["labels"].get(key)
    }
    assert "sevkit.io/sev-snp" in changed
    assert not changed & {"sevkit.io/sev", "sevkit.io/product", "sevkit.io/simulated"}
    assert after["status"]["capacity"]["sevkit.io/sev-snp"] == "0"
    assert (
        after["status"]["capacity"]["sevkit.io/sev"] == node["status"]["capacity"]["sevkit.io/sev"]
    )
    assert after["spec"] == node["spec"]
    others = {key: value for key, value in node["metadata"]["labels"].items() if key not in LABELS}
    assert others.items() <= after["metadata"]["labels"].items()


def test_a_change_is_an_event_with_the_reason_and_the_fix(scene: Scene) -> None:
    agent = scene.agent()
    agent.run(130)
    scene.host.become("genoa", "kvm-snp-off")
    agent.run(80)
    (lost,) = [event for event in scene.events() if event["reason"] == "CapabilityLost"]
    assert lost["type"] == "Warning"
    assert "SEV-SNP is disabled" in lost["message"]
    assert "fix: " in lost["message"]
    assert lost["involvedObject"]["kind"] == "Node"
    before = len(scene.events())
    agent.run(3600)
    scene.agent().run(130)
    assert len(scene.events()) == before


def test_another_managers_labels_survive_everything(scene: Scene) -> None:
    scene.patch({"metadata": {"labels": {"sevkit.io/pool": "a", "team": "b"}}}, manager="kubectl")
    agent = scene.agent()
    agent.run(130)
    scene.host.become("milan")
    agent.run(80)
    labels = scene.pod.raw()["metadata"]["labels"]
    assert (labels["sevkit.io/pool"], labels["team"]) == ("a", "b")


def test_a_conflict_is_reported_and_not_fought_and_the_rest_is_applied(scene: Scene) -> None:
    scene.patch({"metadata": {"labels": {"sevkit.io/sev-snp": "false"}}}, manager="kubectl-label")
    agent = scene.agent()
    agent.run(130)
    found = scene.ours()
    assert found["labels"]["sevkit.io/sev-snp"] == "false"
    assert found["labels"]["sevkit.io/sev"] == "true"
    assert found["capacity"]["sevkit.io/sev-snp"] == "252"
    (event,) = [event for event in scene.events() if event["reason"] == "KeysContested"]
    assert "sevkit.io/sev-snp (kubectl-label)" in event["message"]
    assert scene.writes()[-2:] == [("patch", "nodes/status", 409), ("patch", "nodes/status", 200)]
    # A change meanwhile is applied without another refusal.
    before = len(scene.writes())
    scene.host.become("genoa", "kvm-snp-off")
    agent.run(80)
    assert {code for _, _, code in scene.writes()[before:]} == {200}


def test_a_key_that_its_other_owner_lets_go_is_set_at_the_next_whole_word(scene: Scene) -> None:
    label = "sevkit.io/sev-snp"
    scene.patch({"metadata": {"labels": {label: "false"}}}, manager="kubectl-label")
    agent = scene.agent()
    agent.run(130)
    scene.patch({"metadata": {"labels": {label: None}}}, manager="kubectl-label")
    agent.run(3600)
    assert label not in scene.ours()["labels"]
    agent.run(6 * 3600 * 1.2)
    assert scene.ours()["labels"][label] == "true"


def test_a_kubelet_that_zeroes_our_resources_is_no_other_owner(scene: Scene) -> None:
    fresh: list[bool] = []
    agent = scene.agent(is_kubelet_new=lambda: bool(fresh and fresh.pop()))
    agent.run(130)
    zeroes = {"status": {"capacity": {"sevkit.io/sev": "0", "sevkit.io/sev-snp": "0"}}}
    scene.patch(zeroes, manager="kubelet", status=True)
    assert scene.ours()["capacity"]["sevkit.io/sev-snp"] == "0"
    fresh.append(True)
    agent.run(100)
    assert scene.ours()["capacity"] == {
        "sevkit.io/sev": "754",
        "sevkit.io/sev-es": "0",
        "sevkit.io/sev-snp": "252",
    }
    assert not [event for event in scene.events() if event["reason"] == "KeysContested"]
    # It may zero them after the sign as well.
    scene.patch(zeroes, manager="kubelet", status=True)
    agent.run(200)
    assert scene.ours()["capacity"]["sevkit.io/sev-snp"] == "252"


def test_taking_over_from_the_kubelet_takes_nothing_else(scene: Scene) -> None:
    scene.patch({"status": {"capacity": {"sevkit.io/sev": "0"}}}, manager="kubelet", status=True)
    scene.patch({"metadata": {"labels": {"sevkit.io/sev": "maybe"}}}, manager="kubectl-label")
    scene.patch({"status": {"capacity": {"sevkit.io/sev-es": "9"}}}, manager="someone", status=True)
    scene.agent().run(130)
    found = scene.ours()
    assert found["labels"]["sevkit.io/sev"] == "maybe"
    assert found["capacity"] == {
        "sevkit.io/sev": "754",
        "sevkit.io/sev-es": "9",
        "sevkit.io/sev-snp": "252",
    }


def test_a_node_whose_owners_nobody_tracked_is_ours_again(scene: Scene) -> None:
    scene.agent().run(130)
    scene.patch({"metadata": {"managedFields": [{}]}}, manager="kubectl")
    scene.host.become("genoa", "kvm-snp-off")
    scene.agent().run(130)
    assert scene.ours()["labels"]["sevkit.io/sev-snp"] == "false"


def test_a_restart_with_half_the_sources_unreadable_loses_no_key(scene: Scene) -> None:
    scene.agent().run(130)
    before = scene.ours()
    scene.host.lose("cpuid.json", "firmware.json", "sys/fs/cgroup/misc.capacity", "proc/cpuinfo")
    agent = scene.agent()
    agent.run(600)
    after = scene.ours()
    assert after["labels"] == before["labels"]
    assert after["capacity"] == before["capacity"]
    # The annotation tells the truth of now.
    assert json.loads(after["annotations"][CAPABILITIES])["sev-snp"]["state"] == "unknown"
    view = NodeClient(scene.connection, scene.pod.node).get()
    assert view.owned_by(AGENT_MANAGER) == NodeKeys(
        frozenset(before["labels"]), frozenset({CAPABILITIES}), frozenset(before["capacity"])
    )


def test_quantities_that_come_back_spelled_otherwise_are_the_same(scene: Scene) -> None:
    """1000 comes back as 1k, which is no reason to write it again."""
    found = scene.host.probe()
    sev = dataclasses.replace(found.sev, guests=1000)
    many = dataclasses.replace(found, sev=sev)

    def agent() -> Agent:
        sink = KubernetesSink(scene.connection, scene.pod.node)
        return Agent(lambda: many, sink, Watcher(), random=random.Random(1))  # noqa: S311  # as above

    agent().publish_once()
    assert scene.ours()["capacity"]["sevkit.io/sev"] == "1k"
    before = len(scene.writes())
    agent().publish_once()
    assert [verb for verb, _, _ in scene.writes()[before:]] == ["get"]


def test_kubevirts_whole_map_replacement_and_ours_do_not_undo_each_other(scene: Scene) -> None:
    agent = scene.agent()
    agent.run(130)
    labels = scene.pod.raw()["metadata"]["labels"]
    theirs = {**labels, "kubevirt.io/sev": "true", "kubevirt.io/sev-snp": "true"}
    scene.pod.plane.admin.patch(
        f"{scene.path}?fieldManager=virt-handler",
        [
            {"op": "test", "path": "/metadata/labels", "value": labels},
            {"op": "replace", "path": "/metadata/labels", "value": theirs},
        ],
        "json-patch+json",
    )
    scene.host.become("genoa", "kvm-snp-off")
    agent.run(80)
    after = scene.pod.raw()["metadata"]["labels"]
    assert after["kubevirt.io/sev-snp"] == "true"
    assert after["sevkit.io/sev-snp"] == "false"
    assert {code for _, _, code in scene.writes()} == {200}


def test_a_node_made_anew_gets_its_word_with_the_next_agent_and_the_next_whole_word(
    scene: Scene,
) -> None:
    agent = scene.agent()
    agent.run(130)
    admin = scene.pod.plane.admin
    before = scene.ours()
    for successor in (agent, None):
        admin.delete(scene.path)
        agent.run(60)
        metadata = {"name": scene.pod.node, "labels": {"kubernetes.io/os": "linux"}}
        admin.create("/api/v1/nodes?fieldManager=kubelet", {"metadata": metadata})
        assert scene.ours()["labels"] == {}
        if successor is None:
            scene.agent().run(130)
        else:
            successor.run(6 * 3600 * 1.2 + 1)
        assert scene.ours() == before


def test_a_node_that_is_gone_is_waited_for(scene: Scene) -> None:
    admin = scene.pod.plane.admin
    admin.delete(scene.path)
    agent = scene.agent()
    agent.run(3600)
    gone = [code for _, _, code in scene.writes()]
    assert set(gone[1:]) == {404}
    assert len(gone) < 40, "backed off"
    admin.create("/api/v1/nodes?fieldManager=kubelet", {"metadata": {"name": scene.pod.node}})
    agent.run(301)
    assert scene.ours()["labels"]["sevkit.io/sev-snp"] == "true"


def _process(scene: Scene, *more: str) -> subprocess.CompletedProcess[str]:
    kubeconfig = scene.pod.plane.kubeconfig((scene.pod.folder / "token").read_text())
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "node_agent",
            *("--kubeconfig", str(kubeconfig), "--host-root", str(scene.host.root)),
            *more,
        ],
        cwd=ROOT,
        env={**os.environ, "NODE_NAME": scene.pod.node, "POD_NAME": "agent-x"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_dry_run_as_a_process_reads_and_writes_nothing(scene: Scene) -> None:
    before = len(scene.pod.requests())
    done = _process(scene, "--once", "--dry-run")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document.keys() == {"labels", "annotations", "capacity"}
    assert [event["verb"] for event in scene.pod.requests()[before:]] == ["get"]
    assert scene.ours()["labels"] == {}


def test_once_as_a_process_publishes_and_then_finds_nothing_to_do(scene: Scene) -> None:
    assert _process(scene, "--once").returncode == 0
    assert scene.ours()["labels"]["sevkit.io/sev-snp"] == "true"
    before = len(scene.writes())
    done = _process(scene, "--once")
    assert done.returncode == 0, done.stderr
    assert scene.writes()[before:] == [("get", "nodes", 200)]
