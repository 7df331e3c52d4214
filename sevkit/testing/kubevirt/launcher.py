"""virt-launcher: one VMI's domain on a simulated host, and what libvirt tells of its launch.

A launcher waits for ``start``, which really launches the guest on the host's secure processor, and
holds its ASID until ``close``. Methods raise ``LauncherError`` in the words of the real one.

Source: KubeVirt 1.9 ``pkg/virt-launcher/virtwrap`` (manager, live-launch-security).
"""

from __future__ import annotations

import base64
import hashlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.abi.firmware_status import CommandError
from sevkit.errors import FormatError, SevkitError, UsageError
from sevkit.measure.ovmf import parse_ovmf
from sevkit.measure.terms import Mode
from sevkit.testing.kubevirt import qemu_words
from sevkit.testing.kubevirt.launch_wish import FIRMWARE_FILES, decode_leniently
from sevkit.testing.kubevirt.lies import TRUTH
from sevkit.testing.kubevirt.lifecycle import DomainOff
from sevkit.testing.secure_processor.sev_guests import GuestState
from sevkit.testing.virtual_machine import Machine, SevMachine, SnpMachine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sevkit.secret import Secret
    from sevkit.testing.kubevirt.host import SimulatedHost
    from sevkit.testing.kubevirt.instances import Key
    from sevkit.testing.kubevirt.launch_wish import LaunchWish
    from sevkit.testing.kubevirt.lies import Lies


@final
@dataclass(slots=True)
class _Domain:
    """A domain that is up. ``machine`` is None for a guest that is not confidential."""

    machine: SevMachine | SnpMachine | None
    firmware: bytes
    paused: bool


@final
class Launcher:
    """The launcher of the VMI ``key`` on ``host``; it gives up at ``deadline`` of the clock.

    ``lies`` is asked at each command, so that a host may turn hostile at any moment.
    """

    def __init__(
        self,
        key: Key,
        host: SimulatedHost,
        firmware: Mapping[str, bytes],
        *,
        deadline: float,
        lies: Callable[[], Lies] = lambda: TRUTH,
    ) -> None:
        self.key: Final = key
        self.host: Final = host
        self.deadline: Final = deadline
        self._firmware: Final = firmware
        self._lies: Final = lies
        self._lock: Final = threading.RLock()
        self._domain: _Domain | None = None
        self._ended: DomainOff | None = None
        self._closed = False

    @property
    def domain(self) -> bool:
        """Whether there is a domain."""
        return self._domain is not None

    @property
    def paused(self) -> bool:
        """Whether there is a domain, and it is paused."""
        domain = self._domain
        return domain is not None and domain.paused

    @property
    def ended(self) -> DomainOff | None:
        """How the guest came to an end by itself, if it did."""
        return self._ended

    @property
    def machine(self) -> SevMachine | SnpMachine | None:
        """The confidential guest itself, for whoever looks into the simulation."""
        domain = self._domain
        return None if domain is None else domain.machine

    @property
    def injected(self) -> tuple[Secret, ...]:
        """What the secure processor decrypted into the guest: no real host could know."""
        machine = self.machine
        if not isinstance(machine, SevMachine):
            return ()
        guest = self.host.processor.sev_guests[machine.handle]
        return tuple(table for _, table in guest.injected)

    def start(self, wish: LaunchWish) -> None:
        """SyncVMI: launch the guest as the VMI asks, paused if it says so."""
        lies = self._lies()
        with self._lock:
            if self._domain is not None or self._closed:
                return
            if lies.refuse:
                raise qemu_words.start_refused(*self.key, lies.refuse)
            if wish.mode is None:
                self._domain = _Domain(None, b"", wish.paused)
                return
            firmware = self._declared(wish.mode) if lies.firmware is None else lies.firmware
            try:
                machine = self._launch(wish, wish.mode, firmware, lies)
            except (OSError, SevkitError) as error:
                if isinstance(error, qemu_words.LauncherError):
                    raise
                said = qemu_words.launch_words(error)
                raise qemu_words.start_refused(*self.key, said) from error
            self._domain = _Domain(machine, firmware, wish.paused)
            if isinstance(machine, SevMachine) and not wish.paused:
                machine.run()

    def _launch(
        self, wish: LaunchWish, mode: Mode, firmware: bytes, lies: Lies
    ) -> SevMachine | SnpMachine:
        try:
            registers = wish.registers(self.host.product)
        except UsageError as error:
            raise qemu_words.server_error("SyncVMI", error.message) from error
        policy = wish.policy if lies.policy is None else lies.policy
        vcpus = wish.vcpus if lies.vcpus is None else lies.vcpus
        machine = Machine(firmware, vcpus, registers)
        if mode is Mode.SNP:
            return self.host.kvm.launch_snp(machine, policy)
        session, godh = (decode_leniently(text) for text in (wish.session, wish.dh_cert))
        if wish.has_session and not (session and godh):
            raise qemu_words.start_refused(*self.key, qemu_words.session_words())
        return self.host.kvm.launch_sev(machine, policy, session=session, godh=godh)

    def _declared(self, mode: Mode) -> bytes:
        name = FIRMWARE_FILES[mode]
        if name not in self._firmware:
            kind = "SEV-SNP" if mode is Mode.SNP else "SEV/SEV-ES"
            roms = "EFI OVMF roms missing for booting in EFI mode with SecureBoot=false"
            raise qemu_words.server_error("SyncVMI", f"{roms}, {kind}=true: no {name}")
        return self._firmware[name]

    def platform_info(self) -> dict[str, str]:
        """GetSEVInfo: PDH and chain in base64. It needs no domain."""
        command = "GetSEVInfo"
        try:
            with self.host.processor.lock:
                pdh, chain = self.host.processor.sev.pdh_cert_export()
        except SevkitError as error:
            text = f"internal error: SEV: Failed to get PDH certificate: {error.message}"
            raise qemu_words.libvirt_error(command, text) from error
        pdh, chain = self._lies().chain(pdh, chain)
        return {"pdh": _encode(pdh), "certChain": _encode(chain)}

    def measurement_info(self) -> dict[str, str | int]:
        """GetLaunchMeasurement: what libvirt says of the launch, zeros and all."""
        command = "GetLaunchMeasurement"
        with self._lock:
            machine = self._sev(command)
            lies = self._lies()
            status = self.host.processor.sev.status()
            told = lies.api or (status.api_major, status.api_minor, status.build)
            declared = self._declared(Mode.SEV)
            policy = lies.reported_policy
            return {
                "measurement": _encode(lies.measurement(machine.measurement)),
                "apiMajor": told[0],
                "apiMinor": told[1],
                "buildID": told[2],
                "policy": machine.policy if policy is None else policy,
                "loaderSHA": lies.loader_sha or hashlib.sha256(declared).hexdigest(),
            }

    def inject(self, header: str, secret: str) -> None:
        """InjectLaunchSecret: hand a packet, both parts in base64, to the firmware."""
        command = "InjectLaunchSecret"
        for name, value in (("Header", header), ("Secret", secret)):
            if not value:
                raise qemu_words.server_error(command, f"{name} is required")
        with self._lock:
            machine = self._sev(command)
            state = self.host.processor.sev_guests[machine.handle].state
            if state is not GuestState.LSECRET:
                # QEMU counts its own states; running is 3 in both.
                raise _qmp(command, f"SEV: Not in correct state: (LSECRET) {state.value:x}")
            packet = [decode_leniently(text) for text in (header, secret)]
            for part, what in zip(packet, ("sequence header", "secret"), strict=True):
                if not part:
                    raise _qmp(command, f"SEV: Failed to decode {what}")
            area = self._area()
            if area is None:
                text = "SEV: no secret area found in OVMF, gpa must be specified."
                raise _qmp(command, text)
            try:
                machine.inject(packet[0], packet[1], guest_address=area)
            except CommandError as error:
                raise _qmp(command, qemu_words.secret_words(error.status)) from error

    def _area(self) -> int | None:
        domain = self._domain
        if domain is None:
            return None
        try:
            area = parse_ovmf(domain.firmware).secret_area
        except FormatError:
            return None
        return None if area is None else area.gpa

    def pause(self) -> None:
        """Pause the domain; one that does not run is left as it is, as libvirt does."""
        with self._lock:
            self._any("Pause").paused = True

    def unpause(self) -> None:
        """Let the domain run; its first run ends the launch."""
        with self._lock:
            domain = self._any("Unpause")
            domain.paused = False
            machine = domain.machine
            if isinstance(machine, SevMachine):
                guest = self.host.processor.sev_guests[machine.handle]
                if guest.state is GuestState.LSECRET:
                    machine.run()

    def power_off(self, *, crashed: bool = False) -> None:
        """Let the guest come to its end, by itself or by a crash."""
        with self._lock:
            self._any("ShutdownVirtualMachine")
            self._ended = DomainOff(crashed)

    def close(self) -> None:
        """End the guest and the launcher. Closing twice is no mistake."""
        with self._lock:
            self._closed = True
            domain, self._domain = self._domain, None
            if domain is not None and domain.machine is not None:
                domain.machine.close()

    def _any(self, command: str) -> _Domain:
        if self._domain is None:
            raise qemu_words.no_domain(command, *self.key)
        return self._domain

    def _sev(self, command: str) -> SevMachine:
        machine = self._any(command).machine
        if not isinstance(machine, SevMachine):
            text = "Requested operation is not valid: launch security is not SEV"
            raise qemu_words.libvirt_error(command, text)
        return machine


def _qmp(command: str, text: str) -> qemu_words.LauncherError:
    quoted = "unable to execute QEMU command 'sev-inject-launch-secret'"
    return qemu_words.libvirt_error(command, f"internal error: {quoted}: {text}")


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
