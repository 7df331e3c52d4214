"""The secure processor of a simulated host: firmware that answers what the host's files say.

It is brought to where Linux brought the host's: versions, TCB versions, SNP and SEV initialised
or refusing to. Guests are left to whoever launches them. ``firmware.json`` of a host without
guests is what this processor's status commands say.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sevkit.abi.report import FirmwareVersion
from sevkit.errors import UsageError
from sevkit.testing.consistency import check_host
from sevkit.testing.host.booting import boot
from sevkit.testing.host.spec import Guests, PspHealth
from sevkit.testing.host.state import PlatformState
from sevkit.testing.secure_processor.core import AsidRange, Firmware
from sevkit.testing.secure_processor.processor import SecureProcessor

if TYPE_CHECKING:
    from sevkit.abi.tcb import TcbVersion
    from sevkit.testing.host import spec as host
    from sevkit.testing.host.state import FirmwareView
    from sevkit.testing.secure_processor.identity import ChipIdentity


def make_processor(spec: host.HostSpec, identity: ChipIdentity) -> SecureProcessor:
    """Return the secure processor of ``spec`` as the chip ``identity``.

    Raises ``UsageError`` if the host has none, or is of another product than the chip.
    """
    check_host(spec)
    if spec.firmware is None or spec.firmware.psp is PspHealth.ABSENT:
        raise UsageError(f"{spec.name} has no secure processor")
    if identity.product is not spec.cpu.product:
        raise UsageError(f"a chip of {identity.product} in a host of {spec.cpu.product}")
    processor = _with_versions(spec, spec.firmware, identity)
    for command, status in (
        ("INIT", spec.firmware.init_error),
        ("SNP_INIT", spec.firmware.snp_init_error),
    ):
        if status:
            processor.faults.fail(command, status)
    alive = replace(spec.firmware, psp=PspHealth.PRESENT)
    view = boot(replace(spec, firmware=alive, guests=Guests())).firmware
    if view is not None:
        _bring_up(processor, view)
    if spec.firmware.psp is not PspHealth.PRESENT:
        processor.faults.kill()
    return processor


def _with_versions(
    spec: host.HostSpec, given: host.Firmware, identity: ChipIdentity
) -> SecureProcessor:
    """Return a processor that runs the current version, with the committed one behind it."""
    current = FirmwareVersion(*given.api, given.build)
    before = current if given.updated_from is None else FirmwareVersion(*given.updated_from)
    hidden = spec.kernel.parameters.get("ciphertext_hiding_asids", 0) > 0

    def version(number: FirmwareVersion, tcb: TcbVersion | None) -> Firmware:
        return Firmware(
            number,
            tcb,
            ciphertext_hiding_capable=given.ciphertext_hiding,
            ciphertext_hiding=given.ciphertext_hiding and hidden,
            alias_check=given.alias_check,
        )

    committed = version(before, given.committed)
    asids = AsidRange(spec.bios.max_asid, spec.bios.min_sev_asid)
    processor = SecureProcessor(identity, committed, asids=asids)
    running = version(current, given.current)
    if running != committed:
        processor.snp.update_firmware(running)
    if given.reported is not None and given.reported != given.committed:
        processor.snp.config(processor.snp.raw(given.reported))
    return processor


def _bring_up(processor: SecureProcessor, view: FirmwareView) -> None:
    if view.snp is not None and view.snp.initialized:
        processor.snp.init()
    if view.state is not PlatformState.UNINIT:
        processor.sev.init(es=view.es_configured)
