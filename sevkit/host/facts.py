"""Everything that was found out about a host, each fact with its value or the reason for none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.host.product import host_product
from sevkit.host.reading import not_asked, value_of

if TYPE_CHECKING:
    from sevkit.host.cgroup import MiscFacts
    from sevkit.host.cpuid import CpuidFacts, Signature
    from sevkit.host.cpuinfo import CpuinfoFacts
    from sevkit.host.firmware import FirmwareFacts
    from sevkit.host.kernel import Modules, Release
    from sevkit.host.kernel_log import LogLine
    from sevkit.host.kvm import KvmFacts
    from sevkit.host.libvirt import NodeSev
    from sevkit.host.platform import IommuFacts, SecureProcessor
    from sevkit.host.product import HostProduct
    from sevkit.host.reading import Reading
    from sevkit.host.source import Rights
    from sevkit.hypervisor.domain_capabilities import DomainCapabilities

#: The maker's name in CPUID leaf 0 and in /proc/cpuinfo.
AMD: Final = "AuthenticAMD"


LIBVIRT_NOT_ASKED: Final = not_asked("libvirt", "neither a document nor a connection was given")


@final
@dataclass(frozen=True, slots=True)
class HostFacts:
    """One host at one moment. ``simulated``: a simulated or captured tree, not this machine.

    ``sev_device`` is whether the driver made /dev/sev, ``sev_rights`` and ``kvm_rights`` what this
    process may do with the devices. ``domain_capabilities`` and ``node_sev`` are what libvirt says,
    which proves nothing and is kept for comparison.
    """

    simulated: bool
    cpuid: Reading[CpuidFacts]
    cpuinfo: Reading[CpuinfoFacts]
    release: Reading[Release]
    command_line: Reading[tuple[str, ...]]
    modules: Modules
    misc: MiscFacts
    secure_processors: Reading[tuple[SecureProcessor, ...]]
    iommu: Reading[IommuFacts]
    sev_device: Reading[bool]
    sev_rights: Reading[Rights]
    kvm_rights: Reading[Rights]
    kvm: KvmFacts
    firmware: Reading[FirmwareFacts]
    log: Reading[frozenset[LogLine]]
    domain_capabilities: Reading[DomainCapabilities]
    node_sev: Reading[NodeSev] = LIBVIRT_NOT_ASKED

    @property
    def signature(self) -> Signature | None:
        """Family, model and stepping, by CPUID if it was asked, else by the kernel's word."""
        cpuid, cpuinfo = value_of(self.cpuid), value_of(self.cpuinfo)
        if cpuid is not None and cpuid.signature is not None:
            return cpuid.signature
        return None if cpuinfo is None else cpuinfo.signature

    @property
    def vendor(self) -> str | None:
        """The maker of the processor. One that is not AMD's wins over a source that differs."""
        cpuid, cpuinfo = value_of(self.cpuid), value_of(self.cpuinfo)
        named = [found.vendor for found in (cpuid, cpuinfo) if found is not None and found.vendor]
        return next((name for name in named if name != AMD), named[0] if named else None)

    @property
    def product(self) -> HostProduct | None:
        """Which EPYC this is; None for anything else, and where the model was not read."""
        signature, cpuid = self.signature, value_of(self.cpuid)
        if signature is None or self.vendor != AMD:
            return None
        return host_product(signature, None if cpuid is None else cpuid.package)
