"""The kernel modules of a simulated host, with the parameters that a probe reads.

What KVM decides about ``kvm_amd`` is in ``kvm_setup``; here is which modules are there at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sevkit.testing.host import linux
from sevkit.testing.host.firmware_start import kvm_runs
from sevkit.testing.host.spec import PspHealth, Vendor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sevkit.testing.host.spec import HostSpec

#: Size in memory and users of each module, for /proc/modules.
MODULES: Final = (
    ("kvm_amd", 217088, ()),
    ("kvm_intel", 413696, ()),
    ("ccp", 163840, ("kvm_amd",)),
    ("kvm", 1409024, ("kvm_amd", "kvm_intel")),
    ("irqbypass", 12288, ("kvm",)),
)


def loaded_modules(spec: HostSpec) -> Mapping[str, Mapping[str, str]]:
    """Return each loaded module's parameters; ``kvm_amd``'s are left to KVM."""
    loaded: dict[str, Mapping[str, str]] = {}
    if kvm_runs(spec):
        loaded["kvm_amd"] = {}
    if spec.cpu.vendor is Vendor.INTEL:
        loaded["kvm_intel"] = {"ept": "Y", "nested": "Y", "unrestricted_guest": "Y"}
    if "kvm_amd" in loaded or _has_psp(spec):
        # KVM uses the driver's symbols, so it is loaded even where there is no device.
        loaded["ccp"] = _ccp(spec)
    if {"kvm_amd", "kvm_intel"} & loaded.keys():
        loaded["kvm"] = _kvm(spec)
        loaded["irqbypass"] = {}
    return loaded


def render_modules(loaded: Mapping[str, Mapping[str, str]]) -> str:
    """Return /proc/modules, with the addresses that an unprivileged reader gets: zeros."""
    lines = []
    for name, size, users in MODULES:
        if name in loaded:
            using = [user for user in users if user in loaded]
            names = "".join(f"{user}," for user in using) or "-"
            lines.append(f"{name} {size} {len(using)} {names} Live 0x{0:016x}\n")
    return "".join(lines)


def _has_psp(spec: HostSpec) -> bool:
    firmware = spec.firmware
    return spec.cpu.psp is not None and firmware is not None and firmware.psp is not _ABSENT


_ABSENT: Final = PspHealth.ABSENT


def _ccp(spec: HostSpec) -> Mapping[str, str]:
    return {
        "psp_init_on_probe": "NY"[spec.kernel.psp_init_on_probe],
        "init_ex_path": "(null)",
        "psp_cmd_timeout": "100",
        "psp_probe_timeout": "5",
    }


def _kvm(spec: HostSpec) -> Mapping[str, str]:
    found = {"ignore_msrs": "N", "tdp_mmu": "Y"}
    if spec.kernel.version >= linux.ES_NEEDS_MMIO_CACHING:
        found["mmio_caching"] = "NY"[spec.kernel.mmio_caching]
    return found
