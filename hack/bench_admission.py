"""What the webhook's decision costs, beside parsing and serialising the same JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from sevkit.kubevirt.installation import UNKNOWN
from sevkit.kubevirt.launch_security import Around, decide
from sevkit.kubevirt.policy import DEFAULT
from sevkit.kubevirt.tiers import Tier

if TYPE_CHECKING:
    from collections.abc import Callable

BOUND: Final = 2.0
#: Bytes of a VMI with some disks, networks and annotations, as KubeVirt has defaulted it.
SIZE: Final = 6 << 10
_TIMES: Final = 100


def instance() -> dict[str, Any]:
    """Return a VMI of ``SIZE`` bytes."""
    disks = [{"name": f"disk{number}", "disk": {"bus": "virtio"}} for number in range(8)]
    volumes = [
        {"name": f"disk{number}", "persistentVolumeClaim": {"claimName": f"claim{number}"}}
        for number in range(8)
    ]
    interfaces = [{"name": f"net{number}", "masquerade": {}} for number in range(4)]
    networks = [{"name": f"net{number}", "pod": {}} for number in range(4)]
    whole: dict[str, Any] = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "bench", "namespace": "bench", "labels": {"a": "b"}},
        "spec": {
            "architecture": "amd64",
            "domain": {
                "cpu": {"sockets": 2, "cores": 1, "threads": 1, "maxSockets": 8},
                "devices": {"disks": disks, "interfaces": interfaces},
                "firmware": {"uuid": "5d307ca9-b3ef-428c-8861-06e72d69f223"},
                "machine": {"type": "q35"},
                "memory": {"guest": "2Gi"},
                "resources": {"requests": {"memory": "2Gi"}},
            },
            "networks": networks,
            "volumes": volumes,
        },
    }
    padding = SIZE - len(json.dumps(whole))
    whole["metadata"]["annotations"] = {
        f"team.example/{number}": "x" * 60 for number in range(padding // 90)
    }
    return whole


def decision_tasks() -> tuple[Callable[[], object], Callable[[], object]]:
    """Return the decision, and parsing and serialising the same object, each many times."""
    vmi = instance()
    data = json.dumps(vmi).encode()
    around = Around(UNKNOWN, frozenset(Tier))

    def decisions() -> None:
        for _ in range(_TIMES):
            decide(vmi, Tier.SNP, DEFAULT, around)

    def floor() -> None:
        for _ in range(_TIMES):
            json.dumps(json.loads(data))

    return decisions, floor
