"""The controller against a store in memory: what it does when things change under its hands."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from sevkit.abi.product import Product
from sevkit.errors import ClusterError
from sevkit.measure.terms import Mode
from sevkit.testing.kubevirt.controller import Controller
from sevkit.testing.kubevirt.host import SimulatedHost
from sevkit.testing.kubevirt.instances import InstanceConflict, MemoryInstances
from sevkit.testing.kubevirt.launch_wish import FIRMWARE_FILES
from sevkit.testing.kubevirt.owner_side import make_vmi
from sevkit.testing.kubevirt.vmi_status import read_status
from sevkit.testing.secure_processor.identity import ChipIdentity
from sevkit.testing.secure_processor.processor import SecureProcessor

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from sevkit.testing.kubevirt.instances import Instances
    from sevkit.testing.kubevirt.lifecycle import Instance
    from sevkit.testing.sev_chain import SimulatedRoots


class Troubled:
    """A store that fails as API servers do, each way once, before it does what it is asked."""

    def __init__(self, memory: MemoryInstances) -> None:
        self.memory = memory
        self.of_lists: list[Exception] = [ClusterError("timeout")]
        self.of_patches: list[Exception] = [InstanceConflict("changed"), ClusterError("timeout")]

    def get(self, namespace: str, name: str) -> dict[str, Any] | None:
        return self.memory.get(namespace, name)

    def read_all(self) -> tuple[list[dict[str, Any]], str]:
        if self.of_lists:
            raise self.of_lists.pop()
        return self.memory.read_all()

    def watch(self, version: str, stop: threading.Event) -> Iterator[tuple[str, dict[str, Any]]]:
        for number, event in enumerate(self.memory.watch(version, stop)):
            yield event
            if number == 1:
                return  # as a server ends a watch

    def patch(self, namespace: str, name: str, operations: list[dict[str, Any]]) -> dict[str, Any]:
        if self.of_patches:
            raise self.of_patches.pop()
        return self.memory.patch(namespace, name, operations)


@pytest.fixture
def lead(host: SimulatedHost, firmware: bytes) -> Callable[..., Any]:
    @contextmanager
    def run(instances: Instances) -> Iterator[Controller]:
        files = dict.fromkeys(FIRMWARE_FILES.values(), firmware)
        controller = Controller(
            instances, [host], files, clock=time.monotonic, patience=lambda: 240.0, retry=0.02
        )
        controller.start()
        try:
            yield controller
        finally:
            controller.stop()
        assert controller.failures == []

    return run


def until(memory: MemoryInstances, name: str, phase: str) -> Instance:
    deadline = time.monotonic() + 10
    while True:
        found = memory.get("default", name)
        if found is not None and read_status(found).phase == phase:
            return read_status(found)
        assert time.monotonic() < deadline, found
        time.sleep(0.005)


def create(memory: MemoryInstances, mode: Mode = Mode.SNP) -> str:
    made = memory.create(make_vmi(mode, attestation=False))
    name: str = made["metadata"]["name"]
    return name


def test_conflicts_timeouts_and_watches_that_end_only_delay(lead: Callable[..., Any]) -> None:
    memory = MemoryInstances()
    before = create(memory)
    troubled = Troubled(memory)
    with lead(troubled):
        until(memory, before, "Running")
        names = [create(memory) for _ in range(5)]
        for name in names:
            until(memory, name, "Running")
    assert troubled.of_lists == troubled.of_patches == []


def test_a_vmi_that_another_left_running_is_lost(lead: Callable[..., Any]) -> None:
    memory = MemoryInstances()
    name = create(memory)
    running = {"phase": "Running", "nodeName": "node-1"}
    memory.patch("default", name, [{"op": "add", "path": "/status", "value": running}])
    with lead(memory):
        until(memory, name, "Failed")


def test_a_vmi_of_the_same_name_is_another_vmi(
    lead: Callable[..., Any], host: SimulatedHost
) -> None:
    memory = MemoryInstances()
    vmi = make_vmi(Mode.SNP, attestation=False)
    name = vmi["metadata"]["name"]
    with lead(memory) as controller:
        for _ in range(3):
            memory.create(vmi)
            until(memory, name, "Running")
            memory.delete("default", name)
            deadline = time.monotonic() + 10
            while memory.get("default", name) is not None:
                assert time.monotonic() < deadline
                time.sleep(0.005)
        assert controller.launcher(("default", name)) is None
    assert not any(host.kvm.asids.current.values())


def test_a_vmi_that_says_nonsense_is_marked_and_can_be_deleted(lead: Callable[..., Any]) -> None:
    memory = MemoryInstances()
    vmi = make_vmi(Mode.SNP, attestation=False)
    vmi["spec"]["domain"]["launchSecurity"] = {"sev": {}, "snp": {}}
    name = memory.create(vmi)["metadata"]["name"]
    with lead(memory):
        deadline = time.monotonic() + 10
        while until(memory, name, "Pending").condition("Synchronized") is None:
            assert time.monotonic() < deadline
        memory.delete("default", name)
        while memory.get("default", name) is not None:
            assert time.monotonic() < deadline


def test_a_mode_that_no_node_has_waits_for_one(sev_roots: SimulatedRoots) -> None:
    rome = SimulatedHost("rome", SecureProcessor(ChipIdentity(Product.ROME, sev_roots)))
    memory = MemoryInstances()
    name = create(memory)
    controller = Controller(
        memory, [rome], {}, clock=time.monotonic, patience=lambda: 240.0, retry=0.02
    )
    controller.start()
    found = until(memory, name, "Scheduling")
    deadline = time.monotonic() + 10
    while found.condition("PodScheduled") is None:
        assert time.monotonic() < deadline
        found = until(memory, name, "Scheduling")
    controller.stop()
    condition = found.condition("PodScheduled")
    assert condition is not None
    assert condition.message.startswith("0/1 nodes are available")
    assert controller.failures == []
