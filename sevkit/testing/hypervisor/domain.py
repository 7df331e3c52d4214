"""A simulated domain: libvirt's and QEMU's states of it, and the guest that it is.

Theory of operation. A domain is defined (shut off), started (paused, or running at once), resumed,
paused and destroyed. A SEV or SEV-ES guest is launched and measured when it starts, and its launch
ends when it runs for the first time: between the two a secret can be injected. Once it ran, libvirt
still says "paused" of a paused domain, but QEMU takes no secret any more. An SNP guest is launched
when it runs for the first time, and has no measurement to show before or after.

Conditions are met in libvirt's own order (11.3, ``src/qemu/qemu_driver.c``
qemuDomainSetLaunchSecurityState, qemuDomainGetSEVInfo, qemuDomainResume).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, final

from sevkit.errors import FirmwareError, HypervisorError
from sevkit.hypervisor.libvirt_errors import LibvirtCode
from sevkit.hypervisor.protocol import (
    DomainState,
    LaunchSecurityInfo,
    NotSupported,
    check_launch_secret,
)
from sevkit.measure.ovmf import parse_ovmf
from sevkit.testing.hypervisor.launch import SEV, SNP, DomainLaunch, fail
from sevkit.testing.virtual_machine import SevMachine, SnpMachine

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.hypervisor.domain_xml import DomainDefinition
    from sevkit.testing.hypervisor.launch import Files
    from sevkit.testing.virtual_machine import Machine, SimulatedKvm

_INJECT: Final = "unable to execute QEMU command 'sev-inject-launch-secret': SEV: "
_MEASURE: Final = "unable to execute QEMU command 'query-sev-launch-measure': "
#: QEMU's SEV_STATE_RUNNING.
_QEMU_RUNNING: Final = 3


@final
class SimulatedDomain:
    """One domain; ``SimulatedHypervisor`` makes it. Implements ``Domain``.

    ``forget`` is called when the domain ends; what is left of it is then its definition or nothing.
    """

    def __init__(
        self,
        definition: DomainDefinition,
        xml: str,
        *,
        kvm: SimulatedKvm | None,
        files: Files,
        forget: Callable[[], bool],
    ) -> None:
        self.definition: Final = definition
        self.name: Final = definition.name
        self._xml = xml
        security = definition.launch_security
        self._launch: Final = (
            None
            if kvm is None or security is None or security.kind not in {SEV, SNP}
            else DomainLaunch(kvm, files, definition, security)
        )
        self._forget: Final = forget
        self._lock: Final = threading.RLock()
        self._state: DomainState | None = DomainState.SHUT_OFF  # None: it is gone
        self._ran = False
        self._machine: Machine | None = None
        self._guest: SevMachine | SnpMachine | None = None

    @property
    def guest(self) -> SevMachine | SnpMachine | None:
        """The guest as its host has it, or None while nothing confidential was launched."""
        return self._guest

    def start(self, *, paused: bool = True) -> None:
        """Start the domain; a SEV or SEV-ES guest is launched and measured by that.

        Raises ``HypervisorError`` where libvirt, QEMU, KVM or the firmware refuses.
        """
        with self._lock:
            doing = self._doing("start domain", active=False)
            if self._state is not DomainState.SHUT_OFF:
                raise fail(doing, LibvirtCode.OPERATION_INVALID, "domain is already running")
            if self._launch is not None:
                self._machine = self._launch.build_machine()
                if self._launch.security.kind == SEV:
                    self._guest = self._launch.launch_sev(self._machine)
            self._state = DomainState.PAUSED
            if not paused:
                self.resume()

    def show_xml(self, xml: str) -> None:
        """Show this XML from now on: a host that lies about what it launched."""
        with self._lock:
            self._xml = xml

    def xml(self) -> str:
        """Return the XML that the domain was defined with, or that it was told to show."""
        with self._lock:
            self._doing("XML of domain", active=False)
            return self._xml

    def state(self) -> DomainState:
        """Return what the domain is doing."""
        with self._lock:
            self._doing("state of domain", active=False)
            return self._state or DomainState.NO_STATE

    def launch_security_info(self) -> LaunchSecurityInfo:
        """Return the launch measurement, as the Protocol has it."""
        with self._lock:
            doing = self._doing("launch security of domain", active=False)
            if self._launch is None:
                raise NotSupported(
                    f"domain {self.name!r} is no SEV guest: it has no launch measurement"
                )
            self._doing("launch security of domain")
            if not isinstance(self._guest, SevMachine):
                message = f"{_MEASURE}SEV launch measurement is not available"
                raise fail(doing, LibvirtCode.INTERNAL_ERROR, message)
            version = self._launch.kvm.processor.core.firmware.version
            return LaunchSecurityInfo(
                measurement=self._guest.measurement,
                api_major=version.major,
                api_minor=version.minor,
                build_id=version.build,
                policy=self._guest.policy,
            )

    def inject_launch_secret(
        self, header: bytes, secret: bytes, *, address: int | None = None
    ) -> None:
        """Hand a launch secret packet to the secure processor, as the Protocol has it."""
        check_launch_secret(header, secret)
        with self._lock:
            doing = self._doing("inject a secret into domain", active=False)
            if self._launch is None or self._launch.security.kind != SEV:
                message = "setting a launch secret is only supported in SEV-enabled domains"
                raise fail(doing, LibvirtCode.OPERATION_UNSUPPORTED, message)
            self._doing("inject a secret into domain")
            if self._state is not DomainState.PAUSED:
                message = "domain must be in a paused state"
                raise fail(doing, LibvirtCode.OPERATION_INVALID, message)
            try:
                self._inject(header, secret, address)
            except FirmwareError as error:
                message = f"{_INJECT}failed to inject secret: {error.message}"
                raise fail(doing, LibvirtCode.INTERNAL_ERROR, message) from error

    def _inject(self, header: bytes, secret: bytes, address: int | None) -> None:
        if address is None and self._machine is not None:
            area = parse_ovmf(self._machine.firmware).secret_area
            if area is None:
                raise FirmwareError("no secret area found in OVMF, gpa must be specified.")
            address = area.gpa
        if not isinstance(self._guest, SevMachine) or self._ran:
            raise FirmwareError(f"Not in correct state. (LSECRET) {_QEMU_RUNNING:x}")
        self._guest.inject(header, secret, guest_address=address or 0)

    def resume(self) -> None:
        """Let a paused domain run; a launch that is open ends, an SNP guest is launched."""
        with self._lock:
            doing = self._doing("resume domain")
            if self._state is not DomainState.PAUSED:
                raise fail(doing, LibvirtCode.OPERATION_INVALID, "domain is already running")
            if not self._ran:
                self._finish_launch()
            self._ran = True
            self._state = DomainState.RUNNING

    def _finish_launch(self) -> None:
        try:
            if self._launch is not None and isinstance(self._guest, SevMachine):
                self._launch.finish_sev(self._guest)
            elif self._launch is not None and self._machine is not None:
                self._guest = self._launch.launch_snp(self._machine)
        except HypervisorError:
            self._end()  # QEMU exits
            raise

    def pause(self) -> None:
        """Stop a running domain's vCPUs; one that is paused stays so."""
        with self._lock:
            self._doing("pause domain")
            self._state = DomainState.PAUSED

    def destroy(self) -> None:
        """End the domain at once; its ASID is free again."""
        with self._lock:
            self._doing("destroy domain")
            self._end()

    def switch_off(self) -> None:
        """End the domain if it is there and not shut off."""
        with self._lock:
            if self._state not in {None, DomainState.SHUT_OFF}:
                self._end()

    def _end(self) -> None:
        if self._guest is not None:
            self._guest.close()
        self._guest = self._machine = None
        self._ran = False
        self._state = None if self._forget() else DomainState.SHUT_OFF

    def _doing(self, what: str, *, active: bool = True) -> str:
        """Return what is tried, for errors. Raises for a domain that is gone, or not ``active``."""
        doing = f"{what} {self.name!r}"
        if self._state is None:
            message = f"no domain with matching name '{self.name}'"
            raise fail(doing, LibvirtCode.NO_DOMAIN, message)
        if active and self._state is DomainState.SHUT_OFF:
            raise fail(doing, LibvirtCode.OPERATION_INVALID, "domain is not running")
        return doing
