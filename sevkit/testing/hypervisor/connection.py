"""A simulated libvirt: domains on a simulated host, behind ``sevkit.hypervisor.protocol``.

    hypervisor = SimulatedHypervisor(kvm, {"/usr/share/OVMF/OVMF.amdsev.fd": firmware})
    hypervisor.define(xml).start()
    hypervisor.domain("ledger").launch_security_info()

Like libvirt it asks the host about SEV once and keeps the answer: what the owner of the platform
changes later (another PDH, SEV-ES off) is not seen before ``renew_cache``.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, Self, final

from sevkit.hypervisor.domain_xml import parse_domain_xml
from sevkit.hypervisor.libvirt_errors import LibvirtCode
from sevkit.testing.hypervisor.capabilities import (
    Software,
    launch_security_types,
    probe_node,
    render_domain_capabilities,
)
from sevkit.testing.hypervisor.domain import SimulatedDomain
from sevkit.testing.hypervisor.launch import SEV, SNP, fail

if TYPE_CHECKING:
    from types import TracebackType

    from sevkit.hypervisor.domain_xml import DomainDefinition
    from sevkit.hypervisor.protocol import NodeSevInfo
    from sevkit.testing.hypervisor.launch import Files
    from sevkit.testing.virtual_machine import SimulatedKvm

_SECURITY: Final = {SEV: "SEV", SNP: "SEV SNP"}


@final
class SimulatedHypervisor:
    """One host's libvirt. Close it, or use it as a context manager. Implements ``Hypervisor``.

    ``kvm`` is None for a host without SEV. ``files`` is where firmware, kernels and initrds are:
    contents by path, or a folder that stands for the host's root.
    """

    def __init__(
        self,
        kvm: SimulatedKvm | None,
        files: Files | None = None,
        *,
        software: Software | None = None,
        hostname: str = "simulated",
    ) -> None:
        self._kvm: Final = kvm
        self._files: Final[Files] = {} if files is None else files
        self._software: Final = software or Software()
        self._lock: Final = threading.RLock()
        self._domains: Final[dict[str, SimulatedDomain]] = {}
        self._hostname: Final = hostname
        self._node: NodeSevInfo | None = None
        self.renew_cache()

    def renew_cache(self) -> None:
        """Ask the host about SEV anew: what emptying libvirt's cache and a restart of it do."""
        self._node = probe_node(self._kvm, self._software)

    def hostname(self) -> str:
        """Return the name that the host was given."""
        return self._hostname

    def domain_capabilities(self) -> str:
        """Return the XML of ``virsh domcapabilities``."""
        line = None if self._kvm is None else self._kvm.processor.core.line
        return render_domain_capabilities(self._node, line, self._software)

    def node_sev_info(self) -> NodeSevInfo:
        """Return what ``virsh nodesevinfo`` shows. Raises ``NotSupported`` without SEV."""
        if self._node is None:
            raise fail(
                "SEV information of the host",
                LibvirtCode.OPERATION_UNSUPPORTED,
                "QEMU does not support SEV guest",
            )
        return self._node

    def define(self, xml: str, *, persistent: bool = True) -> SimulatedDomain:
        """Define a domain, shut off; one that is not ``persistent`` is gone when it ends.

        Raises ``FormatError`` for XML that is none, ``HypervisorError`` where libvirt refuses.
        """
        definition = parse_domain_xml(xml)
        doing = f"define domain {definition.name!r}"
        self._check(definition, doing)
        name = definition.name

        def forget() -> bool:
            if not persistent:
                with self._lock:
                    del self._domains[name]
            return not persistent

        with self._lock:
            if name in self._domains:
                message = f"domain '{name}' already exists"
                raise fail(doing, LibvirtCode.OPERATION_FAILED, message)
            found = SimulatedDomain(
                definition, xml, kvm=self._kvm, files=self._files, forget=forget
            )
            self._domains[name] = found
        return found

    def _check(self, definition: DomainDefinition, doing: str) -> None:
        security = definition.launch_security
        if security is not None:
            offered = launch_security_types(self._node, self._software)
            kind = _SECURITY.get(security.kind, security.kind)
            if security.kind not in offered:
                message = f"{kind} launch security is not supported with this QEMU binary"
                raise fail(doing, LibvirtCode.CONFIG_UNSUPPORTED, message)
        if definition.vcpus.at_launch < 1:
            message = "vcpu0 must be enabled and non-hotpluggable"
            raise fail(doing, LibvirtCode.CONFIG_UNSUPPORTED, message)

    def domain(self, name: str) -> SimulatedDomain:
        """Return a domain by its name. Raises ``NoSuchDomain``."""
        with self._lock:
            found = self._domains.get(name)
        if found is None:
            message = f"no domain with matching name '{name}'"
            raise fail(f"domain {name!r}", LibvirtCode.NO_DOMAIN, message)
        return found

    def close(self) -> None:
        """End all domains, as a host does that goes down."""
        with self._lock:
            domains = tuple(self._domains.values())
        for found in domains:
            found.switch_off()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
