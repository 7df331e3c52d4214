"""What libvirt says of a host: its domain capabilities, and its node SEV info. Never raises.

Neither proves anything: libvirt tells what QEMU has and what CPUID claims. They are facts to hold
against the others, because KubeVirt believes them. The chip's ID, which libvirt tells too, is left
out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar, final

from sevkit.errors import FormatError, HypervisorError
from sevkit.host.reading import Cause, Known, Reading, Unreadable, absent
from sevkit.hypervisor.protocol import NotSupported

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.hypervisor.domain_capabilities import DomainCapabilities
    from sevkit.hypervisor.protocol import Hypervisor

_T = TypeVar("_T")
CAPABILITIES: Final = "libvirt: domain capabilities"
NODE_SEV: Final = "libvirt: node SEV info"


@final
@dataclass(frozen=True, slots=True)
class NodeSev:
    """``virsh nodesevinfo`` in numbers: CPUID's, by libvirt's word; None where it does not say."""

    c_bit: int
    reduced_phys_bits: int
    max_guests: int | None
    max_es_guests: int | None


def parse_capabilities(document: str | bytes) -> Reading[DomainCapabilities]:
    """Return what a document of ``virsh domcapabilities`` says, but for the chip's ID."""
    # Needs lxml, which is an extra.
    from sevkit.hypervisor.domain_capabilities import (  # noqa: PLC0415  # an extra, rarely used
        parse_domain_capabilities,
    )

    try:
        found = parse_domain_capabilities(document)
    except FormatError as error:
        return Unreadable(Cause.MALFORMED, error.message)
    # Facts are shown and logged, and a chip's ID names one machine for good.
    sev = None if found.sev is None else replace(found.sev, cpu0_id=None)
    return Known(replace(found, sev=sev))


def ask_capabilities(hypervisor: Hypervisor) -> Reading[DomainCapabilities]:
    """Ask libvirt for its domain capabilities."""
    document = _ask(CAPABILITIES, hypervisor.domain_capabilities)
    return parse_capabilities(document.value) if isinstance(document, Known) else document


def ask_node_sev(hypervisor: Hypervisor) -> Reading[NodeSev]:
    """Ask libvirt for its node SEV info, which a host without SEV has not."""
    found = _ask(NODE_SEV, hypervisor.node_sev_info)
    if isinstance(found, Unreadable):
        return found
    info = found.value
    return Known(NodeSev(info.cbitpos, info.reduced_phys_bits, info.max_guests, info.max_es_guests))


def _ask(what: str, call: Callable[[], _T]) -> Reading[_T]:
    try:
        return Known(call())
    except NotSupported:
        return absent(what)
    except (HypervisorError, FormatError) as error:
        return Unreadable(Cause.FAILED, f"{what}: {error.message}")
