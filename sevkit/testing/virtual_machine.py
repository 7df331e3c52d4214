"""A confidential guest on a simulated host: what KVM and QEMU do from its ASID to its first run.

``SimulatedKvm`` is one host's KVM: a secure processor and its ASIDs. ``launch_sev`` and
``launch_snp`` put a guest together in QEMU's order and stop where QEMU stops: a SEV guest waits,
measured, for a secret; an SNP guest runs. Both return the guest as the host has it: an object
that holds an ASID until it is closed. What the processor keeps of it is not the host's.

Sources: Linux ``arch/x86/kvm/svm/sev.c`` (commands of a launch), QEMU ``target/i386/sev.c`` (order
of pages, kernel hashes), 55766 chapter 6, 56860 chapter 8.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self, final

from sevkit.abi.platform_status import PlatformState
from sevkit.abi.policy import SNP_POLICY_DEFAULT, SevPolicy, SnpPolicy
from sevkit.errors import FirmwareError, UsageError
from sevkit.measure.kernel_hashes import (
    TABLE_SIZE,
    encode_kernel_hashes,
    encode_kernel_hashes_page,
)
from sevkit.measure.launch_digest import check_vcpus
from sevkit.measure.ovmf import FOUR_GIB, PAGE, SectionType, parse_ovmf
from sevkit.measure.vcpu import BSP_EIP, encode_vcpu
from sevkit.testing.driver_commands import SNP_SINCE
from sevkit.testing.kvm_asids import AsidPool, GuestKind
from sevkit.testing.secure_processor.snp_guests import PageType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from sevkit.measure.kernel_hashes import KernelHashes
    from sevkit.measure.ovmf import Area
    from sevkit.measure.vcpu import Registers
    from sevkit.testing.secure_processor.processor import SecureProcessor

#: Policy bits that KVM passes on to the firmware: the ABI version and these.
_KVM_POLICY: Final = 0xFFFF | int(
    SnpPolicy.SMT | SnpPolicy.RESERVED_MUST_BE_ONE | SnpPolicy.DEBUG | SnpPolicy.SINGLE_SOCKET
)


@final
@dataclass(frozen=True, slots=True)
class Machine:
    """What a guest is put together from: firmware, vCPUs and, where they are measured, a kernel.

    ``registers`` may be None for plain SEV, whose vCPU state is not measured.
    """

    firmware: bytes
    vcpus: int = 1
    registers: Registers | None = None
    hashes: KernelHashes | None = None

    def vmsas(self) -> tuple[bytes, ...]:
        """Return one VMSA page for each vCPU, in order."""
        if self.registers is None:
            raise UsageError("a guest with encrypted state needs the registers of its vCPUs")
        check_vcpus(self.vcpus)
        first = encode_vcpu(self.registers, BSP_EIP)
        if self.vcpus == 1:
            return (first,)
        reset = parse_ovmf(self.firmware).reset_eip
        if not reset:
            raise UsageError("the firmware gives no address at which further vCPUs start")
        other = encode_vcpu(self.registers, reset)
        return (first, *(other for _ in range(self.vcpus - 1)))

    def hash_table(self) -> Area | None:
        """Return where the firmware wants kernel hashes, or None for a guest without a kernel.

        Raises ``UsageError`` for a firmware that checks no kernel: QEMU refuses it too.
        """
        if self.hashes is None:
            return None
        area = parse_ovmf(self.firmware).hash_table
        if area is None or area.size < TABLE_SIZE:
            raise UsageError("the firmware has no place for kernel hashes")
        return area


@final
@dataclass(frozen=True, slots=True)
class IdentityBlocks:
    """The guest owner's ID block (96 bytes) and its authentication (4096 bytes)."""

    block: bytes
    auth: bytes
    author_key: bool = False


@final
class SimulatedKvm:
    """One host's KVM over its secure processor, with SEV-ES on as far as it can be.

    ``snp`` says whether kvm_amd initialises SNP. Raises ``CommandError`` from the firmware.
    """

    def __init__(
        self, processor: SecureProcessor, *, snp: bool = True, ciphertext_hiding: int = 0
    ) -> None:
        self.processor: Final = processor
        self.asids: Final = AsidPool(processor.core.asids, ciphertext_hiding=ciphertext_hiding)
        core = processor.core
        able = core.line.snp and core.firmware.version >= SNP_SINCE
        if snp and able and not core.snp_initialized:
            processor.snp.init()
        if processor.sev.state is PlatformState.UNINIT:
            processor.sev.init(es=bool(self.asids.ranges[GuestKind.SEV_ES]))
        self._flush()

    def _flush(self) -> None:
        self.processor.core.wbinvd()
        self.processor.sev.df_flush()

    def launch_sev(
        self, machine: Machine, policy: int, *, session: bytes = b"", godh: bytes = b""
    ) -> SevMachine:
        """Return a SEV or SEV-ES guest that was launched and measured, and waits.

        Raises ``OSError`` where there is no ASID, ``CommandError`` where the firmware refuses.
        """
        kind = GuestKind.SEV_ES if policy & SevPolicy.ES else GuestKind.SEV
        guests = self.processor.sev_guests
        with self.processor.lock:
            asid = self.asids.take(kind)
            handle = 0
            try:
                handle = guests.launch_start(policy, session=session, godh=godh)
                self._activate_sev(handle, asid)
                guests.launch_update_data(handle, machine.firmware)
                if machine.hashes is not None and machine.hash_table():
                    guests.launch_update_data(handle, encode_kernel_hashes(machine.hashes))
                if kind is GuestKind.SEV_ES:
                    for page in machine.vmsas():
                        guests.launch_update_vmsa(handle, page)
                measurement = guests.launch_measure(handle)
            except BaseException:
                self.end_sev(handle, asid)
                raise
        return SevMachine(self, handle, asid, policy, measurement)

    def _activate_sev(self, handle: int, asid: int) -> None:
        self._flush()  # KVM flushes before it uses an ASID again
        self.processor.sev_guests.activate(handle, asid)

    def end_sev(self, handle: int, asid: int) -> None:
        """Deactivate and decommission a guest, and give its ASID back.

        What the firmware refuses here is not looked at, as KVM does not.
        """
        guests = self.processor.sev_guests
        if handle in guests.handles:
            for command in (guests.deactivate, guests.decommission):
                with suppress(FirmwareError):
                    command(handle)
        self.asids.give_back(asid)

    def launch_snp(
        self,
        machine: Machine,
        policy: int = SNP_POLICY_DEFAULT,
        *,
        identity: IdentityBlocks | None = None,
        host_data: bytes = bytes(32),
        vcek_disabled: bool = False,
    ) -> SnpMachine:
        """Return an SNP guest that was launched and runs; errors as ``launch_sev``.

        ``OSError`` (EINVAL) is also what KVM says to policy bits that it does not let through.
        ``vcek_disabled`` leaves the guest's reports to a VLEK.
        """
        if policy & ~_KVM_POLICY or not policy & SnpPolicy.RESERVED_MUST_BE_ONE:
            raise OSError(errno.EINVAL, f"KVM refuses guest policy {policy:#x}")
        guests = self.processor.snp_guests
        with self.processor.lock:
            asid = self.asids.take(GuestKind.SNP)
            context = 0
            try:
                context = guests.gctx_create()
                guests.launch_start(context, policy)
                self._flush()
                guests.activate(context, asid)
                for kind, gpa, contents in snp_pages(machine):
                    guests.launch_update(context, kind, contents, gpa=gpa)
                for page in machine.vmsas():
                    guests.launch_update(context, PageType.VMSA, page)
                guests.launch_finish(
                    context,
                    id_block=identity.block if identity else b"",
                    id_auth=identity.auth if identity else b"",
                    author_key=bool(identity and identity.author_key),
                    host_data=host_data,
                    vcek_disabled=vcek_disabled,
                )
            except BaseException:
                self.end_snp(context, asid)
                raise
        return SnpMachine(self, context, asid)

    def end_snp(self, context: int, asid: int) -> None:
        """Decommission a guest, and give its ASID back.

        Where the firmware refuses, KVM leaks the ASID: nobody may ever get it again.
        """
        if context in self.processor.snp_guests.contexts:
            with suppress(FirmwareError):
                self.processor.snp_guests.decommission(context)
        if context not in self.processor.snp_guests.contexts:
            self.asids.give_back(asid)


_SECTION_PAGES: Final = {
    SectionType.SNP_SEC_MEM: PageType.ZERO,
    SectionType.SNP_SECRETS: PageType.SECRETS,
    SectionType.CPUID: PageType.CPUID,
    SectionType.SVSM_CAA: PageType.ZERO,
    SectionType.SNP_KERNEL_HASHES: PageType.ZERO,
}


def snp_pages(machine: Machine) -> Iterator[tuple[PageType, int, bytes]]:
    """Yield type, guest address and contents of every page that QEMU launches before the vCPUs.

    Raises ``UsageError`` where QEMU would not start the guest.
    """
    firmware = memoryview(machine.firmware)
    base = FOUR_GIB - len(firmware)
    for offset in range(0, len(firmware), PAGE):
        yield PageType.NORMAL, base + offset, bytes(firmware[offset : offset + PAGE])
    area = machine.hash_table()
    sections = parse_ovmf(machine.firmware).sections
    if sections is None:
        raise UsageError("the firmware has no SEV metadata, without which no SNP guest starts")
    if area and SectionType.SNP_KERNEL_HASHES not in {section.kind for section in sections}:
        raise UsageError("the firmware has no page for kernel hashes")
    for section in sections:
        if section.kind is SectionType.SNP_KERNEL_HASHES and machine.hashes and area:
            page = encode_kernel_hashes_page(machine.hashes, area.gpa % PAGE)
            yield PageType.NORMAL, section.gpa, page
            continue
        for gpa in range(section.gpa, section.gpa + section.size, PAGE):
            yield _SECTION_PAGES[section.kind], gpa, b""


class _Guest:
    """One guest as its host has it. Close it, or use it as a context manager."""

    def __init__(self, processor: SecureProcessor, end: Callable[[], None]) -> None:
        self._processor: Final = processor
        self._end: Callable[[], None] | None = end

    def close(self) -> None:
        """End the guest; its ASID is free again. Closing twice is no mistake."""
        with self._processor.lock:
            end, self._end = self._end, None
            if end is not None:
                end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@final
class SevMachine(_Guest):
    """One SEV or SEV-ES guest."""

    def __init__(
        self, kvm: SimulatedKvm, handle: int, asid: int, policy: int, measurement: bytes
    ) -> None:
        super().__init__(kvm.processor, lambda: kvm.end_sev(handle, asid))
        self.handle: Final = handle
        self.asid: Final = asid
        self.policy: Final = policy
        #: measure ‖ mnonce, 48 bytes, as LAUNCH_MEASURE gave it.
        self.measurement: Final = measurement

    def inject(self, header: bytes, ciphertext: bytes, *, guest_address: int) -> None:
        """Hand the owner's packet to the firmware."""
        with self._processor.lock:
            self._processor.sev_guests.launch_secret(
                self.handle, header, ciphertext, guest_address=guest_address
            )

    def run(self) -> None:
        """Finish the launch: the guest runs, and takes no secret any more."""
        with self._processor.lock:
            self._processor.sev_guests.launch_finish(self.handle)


@final
class SnpMachine(_Guest):
    """One SNP guest; ``request`` carries its messages, unread."""

    def __init__(self, kvm: SimulatedKvm, context: int, asid: int) -> None:
        super().__init__(kvm.processor, lambda: kvm.end_snp(context, asid))
        self.context: Final = context
        self.asid: Final = asid

    def request(self, message: bytes) -> bytes:
        """Carry a sealed message to the secure processor, and its sealed answer back."""
        with self._processor.lock:
            return self._processor.messages.guest_request(self.context, message)
