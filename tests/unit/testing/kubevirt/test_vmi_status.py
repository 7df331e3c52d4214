from __future__ import annotations

from typing import Any

import pytest

from sevkit.testing.kubevirt.instances import FINALIZER
from sevkit.testing.kubevirt.json_patch import apply_patch
from sevkit.testing.kubevirt.lifecycle import (
    PAUSED,
    Deleted,
    DomainUp,
    Instance,
    LauncherReady,
    Phase,
    PodCreated,
    step,
)
from sevkit.testing.kubevirt.vmi_status import read_status, status_patch

NOW = "2026-01-01T00:00:00Z"


def document(**status: object) -> dict[str, Any]:
    metadata = {"name": "one", "resourceVersion": "7", "finalizers": ["other", FINALIZER]}
    return {"metadata": metadata, "spec": {}, "status": status}


@pytest.mark.parametrize("status", [None, {}, {"phase": ""}, {"phase": "Unknown"}])
def test_an_absent_or_unknown_phase_is_pending(status: object) -> None:
    assert read_status({"status": status}) == Instance()


def test_what_is_written_is_read_back() -> None:
    found = document(phase="Pending")
    instance = read_status(found)
    for event in (PodCreated(), LauncherReady("node-1"), DomainUp(paused=True)):
        instance = step(instance, event)
        found = apply_patch(found, status_patch(found, instance, now=NOW))
        assert read_status(found) == instance
    assert found["status"]["nodeName"] == "node-1"
    (row,) = found["status"]["conditions"]
    assert (row["type"], row["status"], row["lastTransitionTime"]) == ("Paused", "True", NOW)


def test_nothing_new_is_no_patch() -> None:
    found = document(phase="Scheduled", nodeName="node-1")
    assert status_patch(found, read_status(found), now=NOW) == []


def test_a_patch_holds_for_the_version_that_was_read() -> None:
    found = document(phase="Pending")
    first = status_patch(found, Instance(Phase.SCHEDULING), now=NOW)[0]
    assert first == {"op": "test", "path": "/metadata/resourceVersion", "value": "7"}


def test_what_others_wrote_stays() -> None:
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "before", "extra": 1}
    found = document(phase="Running", interfaces=[{"name": "a"}], conditions=[ready])
    instance = read_status(found).with_condition(PAUSED)
    changed = apply_patch(found, status_patch(found, instance, now=NOW))
    assert changed["status"]["interfaces"] == [{"name": "a"}]
    assert changed["status"]["conditions"][0] == ready


@pytest.mark.parametrize("finalizer", [FINALIZER, "foregroundDeleteVirtualMachine"])
def test_only_a_deleted_vmi_that_ended_loses_its_finalizer(finalizer: str) -> None:
    found = document(phase="Running")
    found["metadata"]["finalizers"] = ["other", finalizer]
    ended = step(read_status(found), Deleted())
    kept = apply_patch(found, status_patch(found, ended, now=NOW))
    assert kept["metadata"]["finalizers"] == ["other", finalizer]
    found["metadata"]["deletionTimestamp"] = NOW
    freed = apply_patch(found, status_patch(found, ended, now=NOW))
    assert freed["metadata"]["finalizers"] == ["other"]
    assert freed["status"]["phase"] == "Succeeded"
