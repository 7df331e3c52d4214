"""``sevkit cluster nodes`` as a process against the real API server."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from hack.cluster_pod import RBAC
from hack.control_plane import ADMIN_TOKEN
from hack.fleet_documents import NOTHING, SEV, SEV_ES, SEV_SNP, SNP_OFF, Kind, node, pod
from sevkit.cluster.access import Access, FixedToken
from sevkit.cluster.connection import Connection
from sevkit.cluster.fleet_nodes import fold_nodes
from sevkit.cluster.pods import fold_requests
from sevkit.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hack.control_plane import ControlPlane

#: Kind of node, and how many there are; the names are worker-NNN.
KINDS: Final[tuple[tuple[Kind | None, int], ...]] = (
    (Kind(), 12),
    (Kind(SNP_OFF, (410, 99, 0), "milan"), 10),
    (Kind(NOTHING, (0, 0, 0), "milan"), 4),
    (Kind(labels={"sevkit.io/simulated": "true"}), 2),
    (Kind(ready="Unknown"), 2),
    (Kind(annotation='{"sev": "\x1b[2J<script>"'), 1),
    (Kind(labels={"sevkit.io/sev-snp": "false"}), 1),
    (None, 3),
)


@pytest.fixture(scope="module")
def fleet(control_plane: ControlPlane) -> Iterator[str]:
    """Make a few dozen nodes with some pods; lend the name that labels the nodes."""
    admin, mark = control_plane.admin, f"fleet-{time.monotonic_ns()}"
    kinds = [kind for kind, count in KINDS for _ in range(count)]
    names = [f"{mark}-worker-{number:03}" for number in range(len(kinds))]
    for name, kind in zip(names, kinds, strict=True):
        document = node(name, kind)
        labels = {**document["metadata"]["labels"], "fleet": mark}
        metadata = {
            "name": name,
            "labels": labels,
            "annotations": document["metadata"].get("annotations", {}),
        }
        admin.create("/api/v1/nodes", {"metadata": metadata})
        admin.patch(f"/api/v1/nodes/{name}/status", {"status": document["status"]})
    admin.create("/api/v1/namespaces", {"metadata": {"name": mark}})
    admin.create(f"/api/v1/namespaces/{mark}/serviceaccounts", {"metadata": {"name": "default"}})
    pods = f"/api/v1/namespaces/{mark}/pods"
    running = [
        pod(names[0], {SEV_SNP: 1}),
        pod(names[0], {SEV_SNP: 1}),
        pod(names[1], {SEV_SNP: 1, SEV: 2}),
        pod(names[12], {SEV_ES: 4}),
        pod(names[13], {SEV: 7}, launcher=False),
        pod(names[2], {SEV_SNP: 50}),  # has ended
    ]
    for number, one in enumerate(running):
        one["metadata"]["name"] = f"p{number}"
        admin.create(pods, one)
    last = f"{pods}/p{len(running) - 1}"
    admin.patch(f"{last}/status", {"status": {"phase": "Succeeded"}})
    yield mark
    for name in names:
        with contextlib.suppress(Exception):
            admin.delete(f"/api/v1/nodes/{name}")


def sevkit(
    plane: ControlPlane, *words: str, token: str = ADMIN_TOKEN, columns: int = 100
) -> subprocess.CompletedProcess[str]:
    kubeconfig = str(plane.kubeconfig(token))
    return subprocess.run(
        [sys.executable, "-m", "sevkit", "cluster", "nodes", "--kubeconfig", kubeconfig, *words],
        env=os.environ | {"COLUMNS": str(columns)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def document(plane: ControlPlane, *words: str, token: str = ADMIN_TOKEN) -> dict[str, Any]:
    done = sevkit(plane, *words, "--output", "json", token=token)
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["exit_code"] == done.returncode
    return found


def test_a_fleet_is_shown_in_groups_with_what_is_free(
    control_plane: ControlPlane, fleet: str
) -> None:
    found = document(control_plane, "--selector", f"fleet={fleet}")
    assert len(found["nodes"]) == sum(count for _, count in KINDS)
    counts = sorted(group["count"] for group in found["groups"])
    assert counts == sorted(count for _, count in KINDS)
    genoa = found["groups"][0]
    assert (genoa["count"], genoa["product"]) == (12, "genoa")
    assert genoa["ranges"] == [f"{fleet}-worker-[000-011]"]
    assert genoa["tiers"]["sev-snp"] == {
        "state": "usable",
        "reason": "usable",
        "free": 12 * 99 - 3,
        "total": 12 * 99,
    }
    milan = found["groups"][1]
    assert milan["tiers"]["sev-es"]["free"] == 10 * 99 - 4
    assert milan["tiers"]["sev"]["free"] == 10 * 410
    assert milan["tiers"]["sev-snp"]["reason"] == "iommu-passthrough"
    states = {one["tiers"]["sev-snp"]["state"] for one in found["nodes"]}
    assert states == {"usable", "disabled", "unreadable", "contradictory", "no-agent"}


def test_all_pods_are_counted_where_that_is_asked_for(
    control_plane: ControlPlane, fleet: str
) -> None:
    found = document(control_plane, "--selector", f"fleet={fleet}", "--all-pods")
    assert found["groups"][1]["tiers"]["sev"]["free"] == 10 * 410 - 7


def test_the_table_fits_and_each_reason_is_told_once(
    control_plane: ControlPlane, fleet: str, tmp_path: Path
) -> None:
    page = tmp_path / "fleet.html"
    done = sevkit(control_plane, "--selector", f"fleet={fleet}", "--html", str(page), columns=90)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 90
    assert done.stdout.count("iommu=pt") == 1
    assert "1185/1188" in done.stdout
    assert "\x1b" not in done.stdout
    written = page.read_text()
    assert "1185/1188" in written
    assert "<script" not in written
    assert sevkit(control_plane, "--html", str(page)).returncode == 2


@pytest.mark.parametrize(
    ("which", "tier", "code"),
    [
        ("", "sev-snp", 0),
        ("sevkit.io/product=milan", "sev-snp", 3),
        ("sevkit.io/product=milan", "sev-es", 0),
        ("!sevkit.io/product", "sev", 4),
        ("none=such", "sev", 3),
    ],
)
def test_what_is_required_decides_the_exit_code(
    control_plane: ControlPlane, fleet: str, which: str, tier: str, code: int
) -> None:
    selector = f"fleet={fleet},{which}".removesuffix(",")
    done = sevkit(control_plane, "--selector", selector, "--require", tier)
    assert done.returncode == code, done.stderr
    assert ("3 nodes might have what is required and do not say" in done.stderr) is (code == 4)


def test_a_selector_that_is_none_is_usage(control_plane: ControlPlane) -> None:
    done = sevkit(control_plane, "--selector", "a=b=c")
    assert (done.returncode, done.stdout) == (2, "")
    assert "label selector is refused" in done.stderr


def test_without_the_right_to_list_pods_free_is_not_known(
    control_plane: ControlPlane, fleet: str
) -> None:
    token = reader(control_plane, fleet)
    done = sevkit(control_plane, "--selector", f"fleet={fleet}", token=token)
    assert done.returncode == 0
    assert done.stderr.startswith("sevkit: warning: pods may not be listed")
    assert "?/1188" in done.stdout
    found = document(control_plane, "--selector", f"fleet={fleet}", token=token)
    assert "pods" in found["pods_refused"]
    tiers = [group["tiers"]["sev-snp"] for group in found["groups"]]
    assert {(tier["free"], tier["total"]) for tier in tiers} >= {(None, 1188), (0, 0), (None, None)}


def reader(plane: ControlPlane, namespace: str) -> str:
    """Return the token of a service account that may list nodes and nothing else."""
    admin = plane.admin
    rules = [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]}]
    admin.create(f"{RBAC}/clusterroles", {"metadata": {"name": namespace}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": "default", "namespace": namespace}
    role = {"apiGroup": RBAC.split("/")[2], "kind": "ClusterRole", "name": namespace}
    admin.create(
        f"{RBAC}/clusterrolebindings",
        {"metadata": {"name": namespace}, "roleRef": role, "subjects": [subject]},
    )
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token"
    token: str = admin.create(path, {"spec": {"expirationSeconds": 600}})["status"]["token"]
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(Exception):
            plane.client(token).get("/api/v1/nodes?limit=1")
            return token
        time.sleep(0.05)
    message = "the rights never came"
    raise TimeoutError(message)


def test_who_may_not_list_nodes_gets_no_answer(control_plane: ControlPlane, fleet: str) -> None:
    done = sevkit(control_plane, token="nobody")
    assert done.returncode == 4
    assert "does not accept our credentials" in done.stderr
    assert not done.stdout


def test_pages_add_up(control_plane: ControlPlane, fleet: str) -> None:
    counts: list[int] = []
    token = FixedToken(Secret(ADMIN_TOKEN.encode()))
    with Connection(Access(control_plane.url, control_plane.ca, token)) as connection:
        names = fold_nodes(
            connection,
            lambda one: one.view.name,
            selector=f"fleet={fleet}",
            page=4,
            told=counts.append,
        )
        requests = fold_requests(connection, (SEV, SEV_ES, SEV_SNP), page=1)
    assert len(set(names)) == len(names) == counts[-1] == sum(count for _, count in KINDS)
    assert len(counts) == 9
    assert requests[f"{fleet}-worker-000"] == {SEV_SNP: 2}
    assert requests[f"{fleet}-worker-001"] == {SEV_SNP: 1, SEV: 2}
    assert f"{fleet}-worker-002" not in requests
    assert f"{fleet}-worker-013" not in requests


def test_on_a_terminal_there_are_progress_and_colour(
    control_plane: ControlPlane, fleet: str
) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "sevkit", "cluster", "nodes", "--selector", f"fleet={fleet}"]
    with subprocess.Popen(
        [*command, "--kubeconfig", str(control_plane.kubeconfig())],
        env=os.environ | {"COLUMNS": "100", "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while chunk := os.read(ours, 65536):
                said += chunk
        assert process.wait(60) == 0
    os.close(ours)
    assert b"\rsevkit: 35 nodes" in said
    assert b"\rsevkit: " in said.partition(b"35 nodes")[2]
    assert b"pods\r\x1b[K" in said
    assert b"\x1b[32m" in said
