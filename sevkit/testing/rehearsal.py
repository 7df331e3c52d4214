"""A whole guest in one call, for rehearsals that need evidence and nothing of how it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sevkit.measure.vcpu import Registers, signature_of
from sevkit.testing.firmware import FirmwareImage, encode_firmware
from sevkit.testing.snp_guest import GuestChannel
from sevkit.testing.snp_report import CPUID_FMS
from sevkit.testing.virtual_machine import Machine, SimulatedKvm

if TYPE_CHECKING:
    from sevkit.testing.secure_processor.processor import SecureProcessor

_SNP_ACTIVE: Final = 1


def launch_guest(
    processor: SecureProcessor, report_data: bytes, *, firmware: bytes = b"", vcpus: int = 2
) -> tuple[bytes, bytes]:
    """Launch an SNP guest, ask it for a report over ``report_data`` (64 bytes), and end it.

    Return the report (1184 bytes) and the guest's launch digest (48 bytes). Without ``firmware``
    it is a small image that boots nothing. The vCPUs are the processor's own model.
    """
    registers = Registers(signature_of(*CPUID_FMS[processor.identity.product]), _SNP_ACTIVE)
    machine = Machine(firmware or encode_firmware(FirmwareImage()), vcpus, registers)
    kvm = SimulatedKvm(processor)
    with kvm.launch_snp(machine) as guest:
        report = GuestChannel(kvm, guest).get_report(report_data)
        return report, processor.snp_guests[guest.context].digest
