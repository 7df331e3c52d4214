"""What libvirt says a host's guests can have: ``virsh domcapabilities``, as far as it is about SEV.

Three answers are told apart throughout: yes, no, and "could not know". An element that an older
libvirt does not print is None and not "no". And what is printed is weak evidence: ``<sev>`` says
that QEMU reached the secure processor, whatever the kernel allows; ``maxGuests`` and
``maxESGuests`` are CPUID's ranges of ASIDs, whatever is left of them; ``sev-snp`` says that this
QEMU has the object, not that the host has SNP. All of it comes from a cache that libvirt does not
renew when parameters of kvm_amd, ASIDs or firmware change.

Source: libvirt ``docs/formatdomaincaps.rst`` and ``src/conf/domain_capabilities.c``. ``<sev>`` is
there from 4.5 on (its ``reducedPhysBits`` was once documented as ``reduced-phys-bits``), the
numbers of guests from 8.0, ``cpu0Id`` from 8.4, ``<launchSecurity>`` from 10.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.hypervisor.xml_document import parse_xml

if TYPE_CHECKING:
    from sevkit.hypervisor.xml_document import Node

_NAME: Final = "domain capabilities"
_UINT: Final = (1 << 32) - 1
_MAX_BITS: Final = 63
#: GET_ID answers 64 bytes for each of at most two sockets (55766 5.12).
MAX_CHIP_ID: Final = 128


@final
@dataclass(frozen=True, slots=True)
class SevCapabilities:
    """``<sev>``. Without support everything else is None.

    ``cbitpos`` is the number of the C-bit, ``reduced_phys_bits`` how many bits of the physical
    address it costs (QEMU always says 1). ``max_guests`` and ``max_es_guests`` count ASIDs;
    ``cpu0_id`` is the chip ID. They are None where this libvirt does not print them.
    """

    supported: bool
    cbitpos: int | None = None
    reduced_phys_bits: int | None = None
    max_guests: int | None = None
    max_es_guests: int | None = None
    cpu0_id: bytes | None = None


@final
@dataclass(frozen=True, slots=True)
class HostModel:
    """The CPU model that ``mode='host-model'`` gives guests, and how it differs from its name.

    ``features`` are (policy, name): ``require`` or ``disable``.
    """

    model: str
    vendor: str | None
    features: tuple[tuple[str, str], ...]


@final
@dataclass(frozen=True, slots=True)
class DomainCapabilities:
    """What ``virsh domcapabilities`` prints for one emulator, virtualisation, machine and arch.

    ``virt_type`` is ``kvm`` or ``qemu``: without KVM (``qemu``) ``<sev>`` means nothing, although
    libvirt prints it. ``launch_security`` are the names in ``sectype``: empty where libvirt says
    that there is none, None where it does not say. Whatever is not printed is None.
    """

    path: str | None
    virt_type: str | None
    machine: str | None
    arch: str | None
    max_vcpus: int | None
    host_model: HostModel | None
    sev: SevCapabilities | None
    launch_security: tuple[str, ...] | None


def parse_domain_capabilities(document: str | bytes) -> DomainCapabilities:
    """Return what a ``<domainCapabilities>`` document says. Raises ``FormatError``."""
    root = parse_xml(document, _NAME, "domainCapabilities")
    vcpu = root.find("vcpu")
    sev = root.find("features", "sev")
    security = root.find("features", "launchSecurity")
    return DomainCapabilities(
        path=_text(root, "path"),
        virt_type=_text(root, "domain"),
        machine=_text(root, "machine"),
        arch=_text(root, "arch"),
        max_vcpus=None if vcpu is None else vcpu.number_attribute("max", limit=_UINT),
        host_model=_parse_host_model(root),
        sev=None if sev is None else _parse_sev(sev),
        launch_security=None if security is None else _parse_launch_security(security),
    )


def _text(node: Node, name: str) -> str | None:
    found = node.find(name)
    return None if found is None else found.text()


def _parse_sev(node: Node) -> SevCapabilities:
    if not node.require_flag("supported"):
        return SevCapabilities(supported=False)
    reduced = node.find("reducedPhysBits")
    if reduced is None:
        reduced = node.require("reduced-phys-bits")
    return SevCapabilities(
        supported=True,
        cbitpos=node.require("cbitpos").number(limit=_MAX_BITS),
        reduced_phys_bits=reduced.number(limit=_MAX_BITS),
        max_guests=_count(node, "maxGuests"),
        max_es_guests=_count(node, "maxESGuests"),
        cpu0_id=_chip_id(node),
    )


def _chip_id(node: Node) -> bytes | None:
    found = node.find("cpu0Id")
    if found is None:
        return None
    data = found.base64()
    if not 0 < len(data) <= MAX_CHIP_ID:
        found.refuse(f"{len(data)} bytes are not a chip ID")
    return data


def _count(node: Node, name: str) -> int | None:
    found = node.find(name)
    return None if found is None else found.number(limit=_UINT)


def _parse_launch_security(node: Node) -> tuple[str, ...]:
    if not node.require_flag("supported"):
        return ()
    names = [enum for enum in node.all("enum") if enum.require_attribute("name") == "sectype"]
    if len(names) > 1:
        names[1].refuse("sectype is listed twice")
    return tuple(value.text() for enum in names for value in enum.all("value"))


def _parse_host_model(root: Node) -> HostModel | None:
    cpu = root.find("cpu")
    for mode in () if cpu is None else cpu.all("mode"):
        if mode.require_attribute("name") == "host-model" and mode.require_flag("supported"):
            return HostModel(
                model=mode.require("model").text(),
                vendor=_text(mode, "vendor"),
                features=tuple(
                    (feature.require_attribute("policy"), feature.require_attribute("name"))
                    for feature in mode.all("feature")
                ),
            )
    return None
