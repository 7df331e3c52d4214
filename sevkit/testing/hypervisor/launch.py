"""From a domain's XML to the machine that is launched: what QEMU does with its own command line.

Firmware, kernel and initrd are read from the simulated host's files by the paths that the XML
names. vCPUs count as QEMU has them when it launches: what libvirt plugs in later is not measured.
Errors are libvirt's, with QEMU's words in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias, final

from sevkit.abi.firmware_status import CommandError
from sevkit.abi.policy import SevPolicy
from sevkit.abi.product import Product
from sevkit.errors import FirmwareError, FormatError
from sevkit.hypervisor.libvirt_errors import LibvirtCode, translate_error
from sevkit.measure.kernel_hashes import compute_kernel_hashes
from sevkit.measure.ovmf import check_image_size, parse_ovmf
from sevkit.measure.terms import Era
from sevkit.measure.vcpu import CPU_MODELS, Registers, signature_of
from sevkit.testing.hypervisor.capabilities import HOST_MODELS
from sevkit.testing.snp_report import CPUID_FMS
from sevkit.testing.virtual_machine import IdentityBlocks, Machine

if TYPE_CHECKING:
    from sevkit.errors import HypervisorError
    from sevkit.hypervisor.domain_xml import DomainDefinition, LaunchSecurity
    from sevkit.measure.kernel_hashes import KernelHashes
    from sevkit.testing.virtual_machine import SevMachine, SimulatedKvm, SnpMachine

#: Files of the simulated host: contents by path, or a folder that stands for ``/``.
Files: TypeAlias = Mapping[str, bytes] | Path

SEV: Final = "sev"
SNP: Final = "sev-snp"
_SNP_ACTIVE: Final = 1
_EIO: Final = 5
#: Family, model and stepping that ``host-passthrough`` and ``maximum`` show.
_CHIPS: Final[Mapping[Product, tuple[int, int, int]]] = {
    Product.NAPLES: (0x17, 0x01, 0x02),
    Product.ROME: (0x17, 0x31, 0x00),
    **CPUID_FMS,
}
_PREFIXES: Final = {
    LibvirtCode.INTERNAL_ERROR: "internal error: ",
    LibvirtCode.NO_DOMAIN: "Domain not found: ",
    LibvirtCode.OPERATION_FAILED: "operation failed: ",
    LibvirtCode.OPERATION_INVALID: "Requested operation is not valid: ",
    LibvirtCode.OPERATION_UNSUPPORTED: "Operation not supported: ",
    LibvirtCode.CONFIG_UNSUPPORTED: "unsupported configuration: ",
}


def fail(doing: str, code: LibvirtCode, message: str) -> HypervisorError:
    """Return libvirt's error, to be raised; ``message`` is without libvirt's own prefix."""
    return translate_error(doing, code, _PREFIXES.get(code, "") + message)


@final
@dataclass(frozen=True, slots=True)
class DomainLaunch:
    """The launch of one confidential domain; every method raises ``HypervisorError``."""

    kvm: SimulatedKvm
    files: Files
    definition: DomainDefinition
    security: LaunchSecurity

    def build_machine(self) -> Machine:
        """Return the machine that QEMU puts together, before anything is launched."""
        if self.security.kind == SNP and not self.kvm.processor.core.snp_initialized:
            raise self._exited("vm-type SEV-SNP not supported by KVM")  # libvirt did not know
        loader = self.definition.boot.loader
        if loader is None or loader.path is None:
            message = "Unable to find 'efi' firmware that is compatible with the configuration"
            raise self._fail(LibvirtCode.OPERATION_FAILED, message)
        firmware = self._read(loader.path)
        policy = self.security.policy or 0
        encrypted = self.security.kind == SNP or bool(policy & SevPolicy.ES)
        try:
            check_image_size(firmware)
            return Machine(
                firmware,
                vcpus=self.definition.vcpus.at_launch,
                registers=self._registers() if encrypted else None,
                hashes=self._hashes(firmware),
            )
        except FormatError as error:
            raise self._exited(f"could not load the firmware: {error.message}") from error

    def launch_sev(self, machine: Machine) -> SevMachine:
        """Launch a SEV or SEV-ES guest up to its measurement."""
        security = self.security
        session, godh = security.session or b"", security.dh_cert or b""
        try:
            return self.kvm.launch_sev(machine, security.policy or 0, session=session, godh=godh)
        except (FormatError, FirmwareError, OSError) as error:
            raise self._refused("sev_launch_start", error) from error

    def finish_sev(self, guest: SevMachine) -> None:
        """End the launch of a SEV or SEV-ES guest, which runs then."""
        try:
            guest.run()
        except FirmwareError as error:
            raise self._refused("sev_launch_finish", error) from error

    def launch_snp(self, machine: Machine) -> SnpMachine:
        """Launch an SNP guest, which runs then."""
        security = self.security
        identity = None
        if security.id_block is not None:
            identity = IdentityBlocks(
                security.id_block, security.id_auth or b"", author_key=bool(security.author_key)
            )
        host_data = security.host_data or bytes(32)
        try:
            return self.kvm.launch_snp(
                machine, security.policy or 0, identity=identity, host_data=host_data
            )
        except (FormatError, FirmwareError, OSError) as error:
            raise self._refused("sev_snp_launch_finish", error) from error

    def _read(self, path: str) -> bytes:
        if isinstance(self.files, Path):
            found = _read_below(self.files, path)
        else:
            found = self.files.get(path)
        if found is None:
            message = f"Failed to open file '{path}': No such file or directory"
            raise self._fail(LibvirtCode.SYSTEM_ERROR, message)
        return found

    def _hashes(self, firmware: bytes) -> KernelHashes | None:
        boot = self.definition.boot
        if not self.security.kernel_hashes or boot.kernel is None:
            return None
        if parse_ovmf(firmware).hash_table is None:
            raise self._exited("SEV: kernel specified but guest firmware has no hashes table GUID")
        initrd = None if boot.initrd is None else self._read(boot.initrd)
        return compute_kernel_hashes(self._read(boot.kernel), initrd=initrd, cmdline=boot.cmdline)

    def _registers(self) -> Registers:
        cpu = self.definition.cpu
        product = self.kvm.processor.identity.product
        if cpu is None or cpu.mode == "custom":
            model = "qemu64" if cpu is None or cpu.model is None else cpu.model
            if model not in CPU_MODELS:
                message = f"no known CPUID signature for CPU model '{model}'"
                raise self._fail(LibvirtCode.CONFIG_UNSUPPORTED, message)
            signature = CPU_MODELS[model]
        elif cpu.mode == "host-model":
            signature = CPU_MODELS[HOST_MODELS[product.line]]
        else:
            signature = signature_of(*_CHIPS[product])
        if self.security.kind == SNP:
            return Registers(signature, _SNP_ACTIVE, era=Era.INIT2)
        return Registers(signature, 0, era=Era.INIT)

    def _refused(
        self, function: str, error: FormatError | FirmwareError | OSError
    ) -> HypervisorError:
        """Return what libvirt says when QEMU gives up in one of its functions."""
        if isinstance(error, CommandError):
            why = f"{error.command} ret=1 fw_error={error.status:d} '{error.status.name}'"
        elif isinstance(error, OSError):
            why = f"failed to initialize ret=-{error.errno} fw_error=0 '{error.strerror}'"
        else:
            why = f"failed ret=-{_EIO} fw_error=0 '{error}'"
        return self._exited(f"{function}: {why}")

    def _exited(self, said: str) -> HypervisorError:
        message = f"QEMU unexpectedly closed the monitor: {said}"
        return self._fail(LibvirtCode.INTERNAL_ERROR, message)

    def _fail(self, code: LibvirtCode, message: str) -> HypervisorError:
        return fail(f"launch domain {self.definition.name!r}", code, message)


def _read_below(root: Path, path: str) -> bytes | None:
    """Return the contents of ``path`` under ``root``, which nothing leads out of, or None."""
    try:
        top = root.resolve()
        found = (top / path.lstrip("/")).resolve()
        return found.read_bytes() if found.is_relative_to(top) else None
    except (OSError, ValueError):
        return None
