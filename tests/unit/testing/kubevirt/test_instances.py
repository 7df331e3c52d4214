from __future__ import annotations

import threading

import pytest

from sevkit.measure.terms import Mode
from sevkit.testing.kubevirt.instances import (
    FINALIZER,
    InstanceConflict,
    InstanceMissing,
    MemoryInstances,
    WatchExpired,
)
from sevkit.testing.kubevirt.owner_side import make_vmi


def named(name: str) -> dict[str, object]:
    return make_vmi(Mode.SEV) | {"metadata": {"name": name}}


def test_a_new_vmi_is_pending_and_has_what_an_api_server_gives() -> None:
    made = MemoryInstances().create(named("one"))
    metadata = made["metadata"]
    assert metadata["namespace"] == "default"
    assert metadata["finalizers"] == [FINALIZER]
    assert len(metadata["uid"]) == 36
    assert made["status"] == {"phase": "Pending"}


def test_one_name_is_for_one_vmi() -> None:
    instances = MemoryInstances()
    instances.create(named("one"))
    with pytest.raises(InstanceConflict):
        instances.create(named("one"))


def test_what_is_read_is_a_copy() -> None:
    instances = MemoryInstances()
    instances.create(named("one"))
    found = instances.get("default", "one")
    assert found is not None
    found["spec"].clear()
    again = instances.get("default", "one")
    assert again is not None
    assert again["spec"]


def test_a_patch_under_an_old_version_changes_nothing() -> None:
    instances = MemoryInstances()
    version = instances.create(named("one"))["metadata"]["resourceVersion"]
    test = {"op": "test", "path": "/metadata/resourceVersion", "value": version}
    add = {"op": "add", "path": "/status", "value": {"phase": "Scheduling"}}
    changed = instances.patch("default", "one", [test, add])
    assert changed["status"]["phase"] == "Scheduling"
    with pytest.raises(InstanceConflict):
        instances.patch("default", "one", [test, add])
    with pytest.raises(InstanceMissing):
        instances.patch("default", "two", [add])


def test_a_deleted_vmi_stays_until_its_finalizers_are_gone() -> None:
    instances = MemoryInstances()
    instances.create(named("one"))
    marked = instances.delete("default", "one")
    assert "deletionTimestamp" in marked["metadata"]
    assert instances.get("default", "one") is not None
    instances.patch(
        "default", "one", [{"op": "replace", "path": "/metadata/finalizers", "value": []}]
    )
    assert instances.get("default", "one") is None
    with pytest.raises(InstanceMissing):
        instances.delete("default", "one")


def test_a_watch_goes_on_from_the_version_it_is_given() -> None:
    instances = MemoryInstances()
    instances.create(named("one"))
    _, version = instances.read_all()
    instances.create(named("two"))
    instances.delete("default", "one")
    stop = threading.Event()
    seen = []
    for kind, document in instances.watch(version, stop):
        seen.append((kind, document["metadata"]["name"]))
        if len(seen) == 2:
            stop.set()
    assert seen == [("ADDED", "two"), ("MODIFIED", "one")]


def test_the_version_of_an_empty_store_can_be_watched_from() -> None:
    assert MemoryInstances().read_all() == ([], "1")


def test_a_watch_from_too_long_ago_is_refused() -> None:
    instances = MemoryInstances()
    instances.create(named("one"))
    for number in range(1100):
        add = {"op": "add", "path": "/status", "value": {"n": number}}
        instances.patch("default", "one", [add])
    with pytest.raises(WatchExpired):
        next(iter(instances.watch("1", threading.Event())))
