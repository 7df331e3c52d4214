"""Pytest fixtures of a control plane, for every lane that wants one: one for each worker."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from hack import control_plane_build, kubevirt_admission
from hack.agent_scene import Scene, open_scene
from hack.cluster_pod import NodePod, allow, node_with_pod
from hack.control_plane import ControlPlane
from hack.kubevirt_cluster import DEFAULT_GATES, KubeVirtCluster
from hack.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """Run one etcd and kube-apiserver for the tests of a worker."""
    if not control_plane_build.is_there():
        pytest.skip(control_plane_build.why_not())
    with ControlPlane() as plane:
        yield plane


@pytest.fixture
def namespace(control_plane: ControlPlane) -> str:
    """Make a namespace of the test's own, with the service account that pods need."""
    name = f"t-{uuid.uuid4().hex[:12]}"
    admin = control_plane.admin
    admin.create("/api/v1/namespaces", {"metadata": {"name": name}})
    accounts = f"/api/v1/namespaces/{name}/serviceaccounts"
    admin.create(accounts, {"metadata": {"name": "default"}})
    return name


@pytest.fixture
def node_pod(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[NodePod]:
    """Lend a pod on a node of its own, whose service account has no rights."""
    with node_with_pod(control_plane, namespace, tmp_path) as pod:
        yield pod


@pytest.fixture
def allowed_pod(node_pod: NodePod) -> NodePod:
    """Lend the same, with the rights that the design gives the node agent."""
    allow(node_pod)
    return node_pod


@pytest.fixture
def scene(allowed_pod: NodePod, tmp_path: Path) -> Iterator[Scene]:
    """Lend a simulated host for a node agent on that node."""
    with open_scene(allowed_pod, tmp_path) as opened:
        yield opened


@pytest.fixture
def wire(control_plane: ControlPlane) -> Iterator[Wire]:
    """Lend a wire to the API server that can be made to misbehave."""
    with Wire(control_plane.url) as opened:
        yield opened


@pytest.fixture(scope="session")
def kubevirt(control_plane: ControlPlane) -> Iterator[KubeVirtCluster]:
    """Install KubeVirt in that control plane, with the gate on."""
    if not kubevirt_admission.is_there():
        pytest.skip(kubevirt_admission.why_not())
    with KubeVirtCluster(control_plane) as cluster:
        yield cluster


@pytest.fixture
def kubevirt_configurable(kubevirt: KubeVirtCluster) -> Iterator[KubeVirtCluster]:
    """Lend it to a test that changes KubeVirt's configuration, which is put back after it."""
    yield kubevirt
    kubevirt.configure(*DEFAULT_GATES)
