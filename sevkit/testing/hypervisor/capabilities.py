"""What libvirt finds out about a simulated host, and what it prints of it, right and wrong.

libvirt starts QEMU once, asks it ``query-sev-capabilities``, and keeps the answer. Its known wrongs
are kept as well: ``sev-snp`` is offered where QEMU has the object, whether or not the host can run
such a guest; the numbers of guests are CPUID's ranges of ASIDs, not what is free; QEMU always says
that one bit of the physical address is lost.

Source: libvirt 11.3 ``src/qemu/qemu_capabilities.c`` (virQEMUCapsProbeQMPSEVCapabilities,
virQEMUCapsGetSEVMaxGuests, virQEMUCapsFillDomainLaunchSecurity) and
``src/conf/domain_capabilities.c``.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, final

from sevkit.abi.product import ProductLine
from sevkit.errors import FirmwareError
from sevkit.hypervisor.protocol import NodeSevInfo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sevkit.testing.virtual_machine import SimulatedKvm

#: CPUID Fn8000_001F EBX, bits 5:0.
_CBIT: Final[Mapping[ProductLine, int]] = {
    ProductLine.NAPLES: 47,
    ProductLine.ROME: 47,
    ProductLine.MILAN: 51,
    ProductLine.GENOA: 51,
    ProductLine.TURIN: 51,
}
#: The nearest model that libvirt 11.3 knows; it has none for Turin.
HOST_MODELS: Final[Mapping[ProductLine, str]] = {
    ProductLine.NAPLES: "EPYC-IBPB",
    ProductLine.ROME: "EPYC-Rome",
    ProductLine.MILAN: "EPYC-Milan",
    ProductLine.GENOA: "EPYC-Genoa",
    ProductLine.TURIN: "EPYC-Genoa",
}
_MODELS: Final = ("EPYC", "EPYC-IBPB", "EPYC-Rome", "EPYC-Milan", "EPYC-Genoa")
_UINT: Final = 0xFFFF_FFFF

_COUNTS_SINCE: Final = (8, 0)
_CHIP_ID_SINCE: Final = (8, 4)
_LAUNCH_SECURITY_SINCE: Final = (10, 5)


@final
@dataclass(frozen=True, slots=True)
class Software:
    """What runs on the host: libvirt's version, and whether QEMU has ``sev-snp-guest`` (9.1)."""

    libvirt: tuple[int, int] = (11, 3)
    qemu_snp: bool = True


def probe_node(kvm: SimulatedKvm | None, software: Software) -> NodeSevInfo | None:
    """Return what ``query-sev-capabilities`` gives; None where it fails: no SEV, says libvirt."""
    if kvm is None:
        return None
    processor = kvm.processor
    try:
        with processor.lock:
            pdh, chain = processor.sev.pdh_cert_export()
            chip = processor.sev.get_id()
    except FirmwareError:
        return None
    asids = processor.core.asids
    found = NodeSevInfo(
        pdh=pdh,
        cert_chain=chain,
        cbitpos=_CBIT[processor.core.line],
        reduced_phys_bits=1,
        cpu0_id=chip,
        max_guests=(asids.maximum - asids.min_sev_asid + 1) & _UINT,
        max_es_guests=asids.min_sev_asid - 1,
    )
    if software.libvirt < _COUNTS_SINCE:
        found = replace(found, max_guests=None, max_es_guests=None)
    if software.libvirt < _CHIP_ID_SINCE:
        found = replace(found, cpu0_id=None)
    return found


def launch_security_types(node: NodeSevInfo | None, software: Software) -> tuple[str, ...]:
    """Return the types of launch security that libvirt lets a domain be defined with."""
    if node is None:
        return ()
    return ("sev", "sev-snp") if software.qemu_snp else ("sev",)


def render_domain_capabilities(
    node: NodeSevInfo | None, line: ProductLine | None, software: Software
) -> str:
    """Return the XML of ``virsh domcapabilities --machine q35 --virttype kvm``.

    ``line`` is None for a host that is not an EPYC: it has no host model then.
    """
    types = launch_security_types(node, software)
    security = ""
    if software.libvirt >= _LAUNCH_SECURITY_SINCE:
        security = _enum("launchSecurity", "sectype", types)
    return f"""<domainCapabilities>
  <path>/usr/bin/qemu-system-x86_64</path>
  <domain>kvm</domain>
  <machine>pc-q35-10.0</machine>
  <arch>x86_64</arch>
  <vcpu max='4096'/>
  <iothreads supported='yes'/>
  <os supported='yes'>
    <enum name='firmware'>
      <value>efi</value>
    </enum>
    <loader supported='yes'>
      <enum name='type'>
        <value>rom</value>
        <value>pflash</value>
      </enum>
      <enum name='readonly'>
        <value>yes</value>
        <value>no</value>
      </enum>
      <enum name='secure'>
        <value>no</value>
      </enum>
    </loader>
  </os>
  <cpu>
    <mode name='host-passthrough' supported='yes'>
      <enum name='hostPassthroughMigratable'>
        <value>on</value>
        <value>off</value>
      </enum>
    </mode>
    <mode name='maximum' supported='yes'>
      <enum name='maximumMigratable'>
        <value>on</value>
        <value>off</value>
      </enum>
    </mode>
{_cpu_modes(line)}  </cpu>
  <features>
    <gic supported='no'/>
    <vmcoreinfo supported='yes'/>
    <genid supported='yes'/>
    <backingStoreInput supported='yes'/>
    <backup supported='yes'/>
{_sev(node)}    <sgx supported='no'/>
{security}  </features>
</domainCapabilities>
"""


def _cpu_modes(line: ProductLine | None) -> str:
    if line is None:
        modes = ("host-model", "custom")
        return "".join(f"    <mode name='{mode}' supported='no'/>\n" for mode in modes)
    model = HOST_MODELS[line]
    newest = _MODELS.index(model)
    custom = "".join(
        f"      <model usable='{'yes' if place <= newest else 'no'}' vendor='AMD'>{name}</model>\n"
        for place, name in enumerate(_MODELS)
    )
    return f"""    <mode name='host-model' supported='yes'>
      <model fallback='forbid'>{model}</model>
      <vendor>AMD</vendor>
      <feature policy='require' name='x2apic'/>
      <feature policy='require' name='hypervisor'/>
    </mode>
    <mode name='custom' supported='yes'>
{custom}    </mode>
"""


def _sev(node: NodeSevInfo | None) -> str:
    if node is None:
        return "    <sev supported='no'/>\n"
    chip = None if node.cpu0_id is None else base64.b64encode(node.cpu0_id).decode("ascii")
    rows = (
        ("cbitpos", node.cbitpos),
        ("reducedPhysBits", node.reduced_phys_bits),
        ("maxGuests", node.max_guests),
        ("maxESGuests", node.max_es_guests),
        ("cpu0Id", chip),
    )
    body = "".join(f"      <{name}>{value}</{name}>\n" for name, value in rows if value is not None)
    return f"    <sev supported='yes'>\n{body}    </sev>\n"


def _enum(element: str, name: str, values: tuple[str, ...]) -> str:
    if not values:
        return f"    <{element} supported='no'/>\n"
    body = "".join(f"        <value>{value}</value>\n" for value in values)
    return (
        f"    <{element} supported='yes'>\n      <enum name='{name}'>\n{body}      </enum>\n"
        f"    </{element}>\n"
    )
