"""VMIs made from the schema of KubeVirt's own definition, as strange as it lets them be.

The schema knows shapes and not meanings: texts that have to be one of some words, and names that
have to meet, are in tables here. KubeVirt refuses many of what comes out for reasons of its own;
whoever uses this asks it, and keeps those that it takes.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

if TYPE_CHECKING:
    from collections.abc import Callable

Schema: TypeAlias = dict[str, Any]

#: Left out: other controllers' affairs, of no meaning to a launch, and deep.
_SKIPPED: Final = frozenset(
    {
        "accessCredentials",
        "affinity",
        "dnsConfig",
        "dnsPolicy",
        "hostname",
        "subdomain",
        "priorityClassName",
        "readinessProbe",
        "resourceClaims",
        "schedulerName",
        "serviceAccountName",
        "tolerations",
        "topologySpreadConstraints",
        "utilityVolumes",
        "volumes",
        "networks",
        "disks",
        "filesystems",
        "hyperv",
        "hypervPassthrough",
        "ioThreads",
        "ioThreadsPolicy",
        "launchSecurity",
        "nodeSelector",
        "panicDevices",
        "realtime",
        "numa",
        "acpi",
        "claimName",
        "claimRequest",
        "isolateEmulatorThread",
        "limits",
        "livenessProbe",
        "machine",
        "pciAddress",
        "reservedOverhead",
        "video",
        "watchdog",
        "downwardMetrics",
        "sound",
        "clock",
        "chassis",
    }
)
#: What a text or a number of this name may be.
_WORDS: Final[dict[str, tuple[object, ...]]] = {
    "architecture": ("amd64", "amd64", "", "arm64", "s390x"),
    "startStrategy": ("Paused",),
    "evictionStrategy": ("None", "LiveMigrate", "LiveMigrateIfPossible", "External"),
    "rebootPolicy": ("Reboot", "Terminate"),
    "model": ("host-model", "host-passthrough", "EPYC-Milan", "EPYC-v4", "Conroe"),
    "deviceName": ("vendor.com/device",),
    "policy": ("require", "optional", "disable"),
    "bus": ("virtio", "usb"),
    "sockets": (1, 2, 4),
    "cores": (1, 2),
    "threads": (1, 2),
    "maxSockets": (4, 8),
    "pageSize": ("2Mi", "1Gi"),
    "guest": ("1Gi", "2Gi", "512Mi"),
    "maxGuest": ("4Gi",),
    "uuid": ("5d307ca9-b3ef-428c-8861-06e72d69f223",),
    "serial": ("e4686d2c-6e8d-4335-b8fd-81bee22f4815",),
    "terminationGracePeriodSeconds": (0, 30),
    "bootOrder": (1, 2),
    "initialDelaySeconds": (1,),
}
_CHANCE: Final = 0.35
_DEPTH: Final = 7


@final
class Generator:
    """Makes VMIs out of ``definition``, a CustomResourceDefinition; the same for the same seed."""

    def __init__(self, definition: dict[str, Any], seed: int) -> None:
        version = next(row for row in definition["spec"]["versions"] if row["storage"])
        self._schema: Final[Schema] = version["schema"]["openAPIV3Schema"]
        self._random: Final = random.Random(seed)  # noqa: S311  # the same ones each time
        self._count = 0

    def make(self) -> dict[str, Any]:
        """Return the next VMI."""
        self._count += 1
        spec = self._object(self._schema["properties"]["spec"], "spec", _DEPTH)
        domain = spec.setdefault("domain", {})
        domain.setdefault("devices", {})
        memory = domain.setdefault("memory", {})
        if not memory.get("guest"):
            memory["guest"] = "1Gi"
        self._fixed(spec)
        self._disks(spec)
        self._networks(spec)
        resources = domain.get("resources") or {}
        domain["resources"] = {
            key: value for key, value in resources.items() if key == "overcommitGuestOverhead"
        } | self._some_resources()
        metadata: dict[str, Any] = {"name": f"made-{self._count}"}
        if self._random.random() < 0.3:
            metadata["annotations"] = {"team/owner": "x~y"}
        if self._random.random() < 0.3:
            metadata["labels"] = {"app": "guest"}
        return {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "metadata": metadata,
            "spec": spec,
        }

    def _fixed(self, spec: dict[str, Any]) -> None:
        """Give members that are useless at random a meaning, or none."""
        domain = spec["domain"]
        for key in ("inputs", "gpus", "hostDevices"):
            for item in domain["devices"].get(key, ()):
                item["name"] = key
                item.pop("tag", None)
                item.pop("requestName", None)
                if key != "inputs":
                    item["deviceName"] = "vendor.com/device"
        for item in domain["devices"].get("inputs", ()):
            item["type"] = "tablet"
        if self._random.random() < 0.2:
            domain["machine"] = {"type": self._random.choice(("q35", "pc-q35-rhel9.6.0"))}
        if self._random.random() < 0.1 and "startStrategy" not in spec:
            spec["livenessProbe"] = {"tcpSocket": {"port": 22}, "initialDelaySeconds": 1}
        if self._random.random() < 0.1:
            domain.setdefault("firmware", {})["kernelBoot"] = {
                "container": {"image": "kernel:1", "kernelPath": "/vmlinuz"}
            }
        else:
            domain.get("firmware", {}).pop("kernelBoot", None)
        if domain["memory"].get("hugepages") == {}:
            del domain["memory"]["hugepages"]
        boot = domain.get("firmware", {}).get("bootloader", {})
        if "bios" in boot and "efi" in boot:
            del boot[self._random.choice(("bios", "efi"))]

    def _some_resources(self) -> dict[str, Any]:
        chosen: tuple[dict[str, Any], ...] = (
            {},
            {"requests": {"memory": "2Gi"}},
            {"requests": {"memory": "2Gi", "cpu": "1"}, "limits": {"memory": "2Gi", "cpu": "2"}},
            {"limits": {"memory": "2Gi"}},
        )
        return {key: dict(value) for key, value in self._random.choice(chosen).items()}

    def _disks(self, spec: dict[str, Any]) -> None:
        """Give it disks, file systems and the volumes that they are made of."""
        devices = spec["domain"]["devices"]
        volumes: list[dict[str, Any]] = []
        disks = []
        for number in range(self._random.randrange(3)):
            name = f"disk{number}"
            disk: dict[str, Any] = {"name": name}
            bus = self._random.choice((None, "virtio", "sata", "scsi"))
            kind = self._random.choice(("disk", "cdrom"))
            disk[kind] = (
                {"bus": bus}
                if bus and not (kind == "cdrom" and bus == "virtio")
                else {"bus": "sata"}
            )
            if self._random.random() < 0.3:
                disk["bootOrder"] = number + 1
            disks.append(disk)
            source: dict[str, Any] = self._random.choice(
                (
                    {"containerDisk": {"image": "guest:1"}},
                    {"persistentVolumeClaim": {"claimName": "guest"}},
                    {"dataVolume": {"name": "guest"}},
                    {"emptyDisk": {"capacity": "1Gi"}},
                    {"cloudInitNoCloud": {"userData": "#cloud-config"}},
                )
            )
            if not any("cloudInitNoCloud" in volume for volume in volumes):
                volumes.append({"name": name, **source})
            else:
                volumes.append({"name": name, "containerDisk": {"image": "guest:1"}})
        if self._random.random() < 0.15:
            devices["filesystems"] = [{"name": "shared", "virtiofs": {}}]
            volumes.append({"name": "shared", "persistentVolumeClaim": {"claimName": "shared"}})
        if disks:
            devices["disks"] = disks
        if volumes:
            spec["volumes"] = volumes

    def _networks(self, spec: dict[str, Any]) -> None:
        devices = spec["domain"]["devices"]
        devices.pop("interfaces", None)
        if self._random.random() < 0.4:
            return
        bindings: tuple[dict[str, Any], ...] = (
            {"masquerade": {}},
            {"bridge": {}},
            {"passtBinding": {}},
            {"binding": {"name": "passt"}},
        )
        interface: dict[str, Any] = {"name": "default", **self._random.choice(bindings)}
        if self._random.random() < 0.15:
            interface["bootOrder"] = 9
        interfaces, networks = [interface], [{"name": "default", "pod": {}}]
        if self._random.random() < 0.15:
            interfaces.append({"name": "fast", "sriov": {}})
            networks.append({"name": "fast", "multus": {"networkName": "fast"}})
        devices["interfaces"], spec["networks"] = interfaces, networks

    def _object(self, schema: Schema, name: str, depth: int) -> dict[str, Any]:
        found = {}
        required = schema.get("required", ())
        for key, part in schema.get("properties", {}).items():
            wanted = key in required or (
                depth > 0 and key not in _SKIPPED and self._random.random() < _CHANCE
            )
            if wanted or (name == "spec" and key == "domain"):
                found[key] = self._value(part, key, depth - 1)
        return found

    def _value(self, schema: Schema, name: str, depth: int) -> Any:  # noqa: ANN401  # JSON
        if name in _WORDS:
            return self._random.choice(_WORDS[name])
        if schema.get("x-kubernetes-int-or-string"):
            return "1Gi"
        makers: dict[str, Callable[[], Any]] = {
            "object": lambda: self._object(schema, name, depth),
            "array": lambda: [
                self._value(schema["items"], name, depth) for _ in range(self._random.randrange(2))
            ],
            "boolean": lambda: self._random.random() < 0.5,
            "integer": lambda: self._random.randrange(1, 4),
        }
        return makers.get(str(schema.get("type")), lambda: "text")()
