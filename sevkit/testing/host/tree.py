"""A host's files as values: what is in them, their modes, and where links point.

Paths are relative to the root. Everything that a node probe may read is here; /dev holds empty
files in place of the devices, with the devices' modes.
"""

from __future__ import annotations

import json
import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.testing.host.cgroup import render_cgroup
from sevkit.testing.host.cpuinfo import render_cpuinfo
from sevkit.testing.host.firmware_view import firmware_facts
from sevkit.testing.host.modules import render_modules
from sevkit.testing.host.pci import (
    device_folder,
    iommu_folder,
    iommu_runs,
    render_iommu,
    render_secure_processor,
)
from sevkit.testing.host.spec import Iommu, Vendor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sevkit.testing.host.spec import HostSpec
    from sevkit.testing.host.state import HostState


@final
@dataclass(frozen=True, slots=True)
class File:
    """One file. ``mode`` is as Linux gives it: 0444 for what cannot be written anyway."""

    data: bytes
    mode: int = 0o444


@final
@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link, relative as sysfs' links are."""

    target: str


@final
@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that is there even with nothing in it."""


Entry = File | Link | Folder

#: sysfs and cgroupfs' own; other files that an administrator could write.
_WRITABLE: Final = ("/misc.max", "/cgroup.procs", "/cgroup.subtree_control", "/type")
_COMPILER: Final = "gcc (GCC) 14.2.0, GNU ld (GNU Binutils) 2.44"
_MISC: Final = "sys/devices/virtual/misc"
_MODULE_MODES: Final = {"ignore_msrs": 0o644, "psp_cmd_timeout": 0o644, "psp_probe_timeout": 0o644}


def render_tree(spec: HostSpec, state: HostState) -> Mapping[str, Entry]:
    """Return every entry of the host's root by its path."""
    entries: dict[str, Entry] = {
        "sys/class/iommu": Folder(),
        "sys/kernel/iommu_groups": Folder(),
        "sys/bus/pci/drivers/pcieport": Folder(),
        "dev": Folder(),
    }
    for path, text in _texts(spec, state):
        mode = 0o644 if path.endswith(_WRITABLE) else 0o444
        entries[path] = File(text.encode(), mode)
    for module, parameters in state.modules.items():
        entries[f"sys/module/{module}"] = Folder()
        for name, value in parameters.items():
            path = f"sys/module/{module}/parameters/{name}"
            entries[path] = File(f"{value}\n".encode(), _MODULE_MODES.get(name, 0o444))
    for name, number in _misc_devices(state):
        entries[f"{_MISC}/{name}/dev"] = File(f"10:{number}\n".encode())
        entries.update([_link(f"sys/class/misc/{name}", f"{_MISC}/{name}")])
    if "ccp" in state.modules:
        entries.update([_link("sys/bus/pci/drivers/ccp/module", "sys/module/ccp")])
    entries.update(_links(spec, entries))
    if state.dev_sev:
        entries["dev/sev"] = File(b"", 0o600)
    if state.dev_kvm:
        entries["dev/kvm"] = File(b"", 0o660)
    return entries


def command_line(spec: HostSpec) -> str:
    """Return what the boot loader gave this kernel, without the newline of /proc/cmdline."""
    kernel = spec.kernel
    asked = [f"kvm_amd.{name}={value}" for name, value in kernel.parameters.items()]
    rows = (
        (True, f"BOOT_IMAGE=/boot/vmlinuz-{kernel.release} root=/dev/mapper/vg0-root ro quiet"),
        (kernel.mem_encrypt, "mem_encrypt=on"),
        (kernel.iommu is Iommu.PASSTHROUGH, "iommu=pt"),
        (kernel.iommu is Iommu.OFF, "amd_iommu=off"),
        (kernel.iommu is Iommu.V2_PAGE_TABLES, "amd_iommu=pgtbl_v2"),
        (not kernel.mmio_caching, "kvm.mmio_caching=0"),
        (not kernel.psp_init_on_probe, "ccp.psp_init_on_probe=0"),
        (not kernel.kvm_amd, "modprobe.blacklist=kvm_amd"),
        (kernel.cgroup == 1, "systemd.unified_cgroup_hierarchy=0"),
        *((True, word) for word in asked),
    )
    return " ".join(word for wanted, word in rows if wanted)


def _texts(spec: HostSpec, state: HostState) -> Iterator[tuple[str, str]]:
    release = spec.kernel.release
    yield "proc/cpuinfo", render_cpuinfo(spec, state.cleared)
    yield "proc/cmdline", f"{command_line(spec)}\n"
    yield "proc/modules", render_modules(state.modules)
    yield "proc/sys/kernel/osrelease", f"{release}\n"
    yield "proc/sys/kernel/ostype", "Linux\n"
    yield "proc/version", f"Linux version {release} (builder@localhost) ({_COMPILER}) #1 SMP\n"
    yield "var/log/dmesg", "".join(_stamped(state.log))
    yield from render_cgroup(spec, state)
    yield from render_secure_processor(spec)
    yield from render_iommu(spec)
    if spec.cpu.vendor is not Vendor.ARM:
        yield "cpuid.json", _json(_cpuid(spec))
    facts = firmware_facts(state)
    if facts is not None and spec.firmware_reader:
        yield "firmware.json", _json(facts)


def _misc_devices(state: HostState) -> Iterator[tuple[str, int]]:
    """Yield what drivers registered as miscellaneous devices, with their minor numbers."""
    yield "cpu_dma_latency", 126  # every Linux has it
    if state.dev_kvm:
        yield "kvm", 232
    if state.dev_sev:
        yield "sev", 124


def _links(spec: HostSpec, entries: Mapping[str, Entry]) -> Iterator[tuple[str, Link]]:
    """Yield sysfs' links by bus, class and group to the devices that are there."""
    psp = spec.cpu.psp
    device = None if psp is None else device_folder(psp[0])
    if psp is not None and device is not None and f"{device}/device" in entries:
        yield _link(f"sys/bus/pci/drivers/ccp/{psp[0]}", device)
        yield _link(f"sys/bus/pci/devices/{psp[0]}", device)
        if iommu_runs(spec):
            yield _link(f"sys/kernel/iommu_groups/0/devices/{psp[0]}", device)
            yield _link(f"{device}/iommu_group", "sys/kernel/iommu_groups/0")
    if iommu_runs(spec):
        folder = iommu_folder(spec)
        yield _link(f"sys/class/iommu/{posixpath.basename(folder)}", folder)


def _link(path: str, target: str) -> tuple[str, Link]:
    return path, Link(posixpath.relpath(target, posixpath.dirname(path)))


def _cpuid(spec: HostSpec) -> dict[str, list[str]]:
    """Return CPUID as a captured tree holds it: by leaf, the registers in order, subleaf 0."""
    leaves = sorted(leaf for leaf, subleaf in spec.cpu.leaves if subleaf == 0)
    return {f"{leaf:#010x}": [f"{value:#010x}" for value in spec.cpuid(leaf)] for leaf in leaves}


def _json(document: object) -> str:
    return f"{json.dumps(document, indent=2)}\n"


def _stamped(log: tuple[str, ...]) -> Iterator[str]:
    """Yield the lines of the log with the seconds since the boot, as dmesg prints them."""
    for number, line in enumerate(log):
        yield f"[{number * 0.731_25:12.6f}] {line}\n"
