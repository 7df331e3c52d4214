"""A real control plane for this lane: one for each worker, a namespace for each test."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from hack import control_plane_build
from hack.control_plane import ControlPlane

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """etcd and kube-apiserver, shared by the tests of one worker."""
    if not control_plane_build.is_there():
        pytest.skip("no kube-apiserver: python -m hack.control_plane_build builds it")
    with ControlPlane() as plane:
        yield plane


@pytest.fixture
def namespace(control_plane: ControlPlane) -> str:
    """A namespace of the test's own, with the service account that pods need."""
    name = f"t-{uuid.uuid4().hex[:12]}"
    admin = control_plane.admin
    admin.create("/api/v1/namespaces", {"metadata": {"name": name}})
    accounts = f"/api/v1/namespaces/{name}/serviceaccounts"
    admin.create(accounts, {"metadata": {"name": "default"}})
    return name
