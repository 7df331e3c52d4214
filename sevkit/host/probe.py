"""Find out everything about a host that is about SEV. Reads only, and never raises.

Nothing is concluded here: that is ``sevkit.host.capabilities``' part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sevkit.errors import FormatError
from sevkit.host.cgroup import probe_misc
from sevkit.host.cpuid import probe_cpuid
from sevkit.host.cpuinfo import probe_cpuinfo
from sevkit.host.facts import HostFacts
from sevkit.host.kernel import probe_command_line, probe_modules, probe_release
from sevkit.host.kernel_log import probe_log
from sevkit.host.kvm import probe_kvm
from sevkit.host.platform import probe_iommu, probe_secure_processors, probe_sev_device
from sevkit.host.reading import Cause, Known, Reading, Unreadable, not_asked

if TYPE_CHECKING:
    from sevkit.host.source import HostSource
    from sevkit.hypervisor.domain_capabilities import DomainCapabilities


def probe_host(source: HostSource, domain_capabilities: str | bytes | None = None) -> HostFacts:
    """Return what ``source`` says. ``domain_capabilities`` is libvirt's document, if there is one.

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
        domain_capabilities=_libvirt(domain_capabilities),
    )


def _libvirt(document: str | bytes | None) -> Reading[DomainCapabilities]:
    if document is None:
        return not_asked("libvirt", "no domain capabilities were given")
    # Needs lxml, which is an extra.
    from sevkit.hypervisor.domain_capabilities import (  # noqa: PLC0415  # an extra, rarely used
        parse_domain_capabilities,
    )

    try:
        return Known(parse_domain_capabilities(document))
    except FormatError as error:
        return Unreadable(Cause.MALFORMED, error.message)
