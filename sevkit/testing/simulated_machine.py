"""A whole simulated machine: files of a host, devices over a secure processor, programs on it.

    with open_machine(PRESETS["genoa"], amd.make_chip(Product.GENOA)) as machine:
        done = machine.run(["snphost", "ok"])

What the program sees of /sys, /proc, /dev and CPUID is the simulated host's; what it tells the
firmware arrives at ``machine.processor``. Devices need root and /dev/fuse: elsewhere
``UndecidedError`` says why not.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from sevkit.errors import UsageError
from sevkit.testing.device.kvm import sev_kvm
from sevkit.testing.device.mount import FuseDevices
from sevkit.testing.device.registers import CpuidFile, MsrFile, Syscfg, encryption_registers
from sevkit.testing.device.run import run_with_devices
from sevkit.testing.driver import SevDevice
from sevkit.testing.host.processor import make_processor
from sevkit.testing.host.spec import RmpCoverage
from sevkit.testing.host.usage import follow_asids
from sevkit.testing.host.write import write_host
from sevkit.testing.virtual_machine import SimulatedKvm

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from subprocess import CompletedProcess

    from sevkit.testing.device.ioctl import IoctlFile, ReadableFile
    from sevkit.testing.host.spec import HostSpec
    from sevkit.testing.host.state import HostState
    from sevkit.testing.secure_processor.identity import ChipIdentity
    from sevkit.testing.secure_processor.processor import SecureProcessor

#: Where the RMP table of a host that has one is said to be: any place will do for who asks.
_RMP: Final = range(0x1_0000_0000, 0x1_8000_0000)


@final
@dataclass(frozen=True)
class SimulatedMachine:
    """One machine that runs. ``processor`` is None where the host's processor has no SEV."""

    spec: HostSpec
    state: HostState
    root: Path
    processor: SecureProcessor | None
    devices: FuseDevices

    def start_kvm(self) -> SimulatedKvm:
        """Return this machine's KVM, to launch guests on: the misc cgroup's files follow them.

        Raises ``UsageError`` where KVM offers no SEV on this host.
        """
        if self.processor is None or not self.state.kvm.sev:
            raise UsageError(f"KVM offers no SEV on {self.spec.name}")
        hidden = int(self.state.modules["kvm_amd"].get("ciphertext_hiding_asids", "0"))
        snp = self.state.kvm.sev_snp
        kvm = SimulatedKvm(self.processor, snp=snp, ciphertext_hiding=hidden)
        follow_asids(self.root, kvm.asids)
        return kvm

    def run(
        self,
        words: Sequence[str | Path],
        *,
        data: bytes = b"",
        cwd: Path | None = None,
        timeout: float = 60.0,
    ) -> CompletedProcess[bytes]:
        """Run a program on the machine; shapes and errors as ``run_with_devices``."""
        return run_with_devices(
            words,
            self.devices,
            host_root=self.root,
            cpuid=self.spec.cpuid,
            data=data,
            cwd=cwd,
            timeout=timeout,
        )


@contextlib.contextmanager
def open_machine(
    spec: HostSpec, identity: ChipIdentity | None = None
) -> Iterator[SimulatedMachine]:
    """Boot ``spec`` with the chip ``identity`` (None for a CPU without SEV) and yield the machine.

    Raises ``UsageError`` for a machine that cannot be, ``UndecidedError`` without device files.
    """
    processor = None if identity is None else make_processor(spec, identity)
    with tempfile.TemporaryDirectory(prefix="sevkit-machine-") as folder:
        root = Path(folder, "root")
        state = write_host(spec, root)
        with FuseDevices(_devices(spec, state, processor)) as devices:
            yield SimulatedMachine(spec, state, root, processor, devices)


def _devices(
    spec: HostSpec, state: HostState, processor: SecureProcessor | None
) -> Mapping[str, IoctlFile | ReadableFile]:
    found: dict[str, IoctlFile | ReadableFile] = {
        "cpu/0/cpuid": CpuidFile(spec.cpuid),
        "cpu/0/msr": MsrFile(_registers(spec, state)),
    }
    if state.dev_kvm:
        found["kvm"] = sev_kvm(state.vm_types)
    if state.dev_sev and processor is not None:
        found["sev"] = SevDevice(processor, kernel=spec.kernel.version[:2])
    return found


def _registers(spec: HostSpec, state: HostState) -> Mapping[int, int]:
    syscfg = Syscfg.MEM_ENCRYPTION if spec.bios.smee else Syscfg(0)
    snp = state.firmware.snp if state.firmware else None
    # Firmware that died after it was initialised leaves the CPU and KVM as they were.
    if (snp is not None and snp.initialized) or state.kvm.sev_snp:
        syscfg |= Syscfg.SNP | Syscfg.SNP_VMPL
    rmp = None if spec.bios.rmp is RmpCoverage.NONE else _RMP
    return encryption_registers(syscfg, rmp, smm_lock=spec.bios.smm_lock)
