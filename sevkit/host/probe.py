"""Find out everything about a host that is about SEV. Reads only, and never raises.

Nothing is concluded here: that is ``sevkit.host.capabilities``' part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sevkit.host.cgroup import probe_misc
from sevkit.host.cpuid import probe_cpuid
from sevkit.host.cpuinfo import probe_cpuinfo
from sevkit.host.facts import LIBVIRT_NOT_ASKED, HostFacts
from sevkit.host.kernel import probe_command_line, probe_modules, probe_release
from sevkit.host.kernel_log import probe_log
from sevkit.host.kvm import probe_kvm
from sevkit.host.libvirt import ask_capabilities, ask_node_sev, parse_capabilities
from sevkit.host.platform import probe_iommu, probe_secure_processors, probe_sev_device

if TYPE_CHECKING:
    from sevkit.host.reading import Reading
    from sevkit.host.source import HostSource
    from sevkit.hypervisor.domain_capabilities import DomainCapabilities
    from sevkit.hypervisor.protocol import Hypervisor


def probe_host(
    source: HostSource,
    domain_capabilities: str | bytes | None = None,
    hypervisor: Hypervisor | None = None,
) -> HostFacts:
    """Return what ``source`` says, and libvirt: ``hypervisor``, or its document if there is one.

    Where /dev/sev can be asked, a secure processor that hangs holds this for as long as the driver
    waits for it, 100 seconds by default.
    """
    return HostFacts(
        simulated=source.simulated,
        cpuid=probe_cpuid(source),
        cpuinfo=probe_cpuinfo(source),
        release=probe_release(source),
        command_line=probe_command_line(source),
        modules=probe_modules(source),
        misc=probe_misc(source),
        secure_processors=probe_secure_processors(source),
        iommu=probe_iommu(source),
        sev_device=probe_sev_device(source),
        sev_rights=source.rights("dev/sev"),
        kvm_rights=source.rights("dev/kvm"),
        kvm=probe_kvm(source),
        firmware=source.firmware(),
        log=probe_log(source),
        domain_capabilities=_capabilities(domain_capabilities, hypervisor),
        node_sev=LIBVIRT_NOT_ASKED if hypervisor is None else ask_node_sev(hypervisor),
    )


def _capabilities(
    document: str | bytes | None, hypervisor: Hypervisor | None
) -> Reading[DomainCapabilities]:
    if document is not None:
        return parse_capabilities(document)
    return LIBVIRT_NOT_ASKED if hypervisor is None else ask_capabilities(hypervisor)
