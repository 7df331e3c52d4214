"""How Linux starts the secure processor's firmware, and what can go wrong on the way.

Until 6.14 the ccp driver initialised SNP and then SEV when it found the device; since 6.15 KVM
asks for it when its module is loaded with ``sev`` on. Once SNP is on in the CPU, INIT fails with
INVALID_PLATFORM_STATE unless SNP_INIT came first; since 6.15 Linux does not even try.
Source: Linux, drivers/crypto/ccp/sev-dev.c and psp-dev.c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.abi.firmware_status import FirmwareStatus
from sevkit.testing.host import linux
from sevkit.testing.host.spec import PspHealth, Vendor

if TYPE_CHECKING:
    from sevkit.testing.host.spec import Firmware, HostSpec

#: SNP_INIT_EX takes the list of ranges from this API version on.
_SNP_INIT_EX: Final = (1, 52)
_EIO: Final = -5


@final
@dataclass(frozen=True, slots=True)
class Started:
    """``sev`` and ``snp``: initialised. ``failed``: somebody asked for it, and it did not work.

    ``device`` is whether /dev/sev is there, ``answers`` whether the firmware still does.
    """

    device: bool = False
    answers: bool = False
    sev: bool = False
    snp: bool = False
    failed: bool = False
    log: tuple[str, ...] = ()


def kvm_runs(spec: HostSpec) -> bool:
    """Whether the module ``kvm_amd`` gets loaded: it was not kept out, and SVM is there."""
    svm = spec.cpuid(0x80000001).ecx >> 2 & 1
    return bool(spec.cpu.vendor is Vendor.AMD and spec.kernel.kvm_amd and svm and spec.bios.svm)


def sev_asked(spec: HostSpec) -> bool:
    """Whether ``kvm_amd`` was loaded with SEV on."""
    default = int(spec.kernel.version >= linux.SEV_BY_DEFAULT)
    return kvm_runs(spec) and bool(spec.kernel.asked("sev", default))


def start_firmware(spec: HostSpec, *, snp_host: bool, sev_flag: bool) -> Started:
    """Return how far the firmware got. ``snp_host``: SNP is on in the CPU."""
    firmware, where = spec.firmware, spec.cpu.psp
    if firmware is None or where is None or firmware.psp is PspHealth.ABSENT:
        return Started(failed=True)
    ccp = f"ccp {where[0]}: "
    if not sev_flag:
        off = f"{ccp}SEV: memory encryption not enabled by BIOS"
        return Started(failed=True, log=(off, f"{ccp}psp enabled"))
    found: tuple[str, ...] = (f"{ccp}sev enabled", f"{ccp}psp enabled")
    if firmware.psp is PspHealth.SILENT:
        silence = f"{ccp}sev command 0x4 timed out, disabling PSP"
        return Started(
            failed=True, log=(*found, silence, f"{ccp}SEV: failed to get status. Error: 0x0")
        )
    version = f"{firmware.api[0]}.{firmware.api[1]}.{firmware.build}"
    if firmware.updated_from is not None:
        before = ".".join(map(str, firmware.updated_from))
        found = (*found, f"{ccp}SEV firmware updated from {before} to {version}")
    answers = firmware.psp is not PspHealth.DIED
    if spec.kernel.version >= linux.KVM_INITIALISES_PSP and not sev_asked(spec):
        return Started(device=True, answers=answers, log=found)
    sev, snp, said = _initialise(spec, firmware, snp_host=snp_host)
    if not answers:
        said = (*said, "sev command 0x4 timed out, disabling PSP")
    return Started(
        device=True,
        answers=answers,
        sev=sev and spec.kernel.psp_init_on_probe,
        snp=snp,
        failed=not sev,
        log=(*found, *(ccp + line for line in said)),
    )


def _initialise(
    spec: HostSpec, firmware: Firmware, *, snp_host: bool
) -> tuple[bool, bool, tuple[str, ...]]:
    """Return whether SEV and SNP are initialised, and the lines about it."""
    early = spec.kernel.version < linux.KVM_INITIALISES_PSP
    api = f"API:{firmware.api[0]}.{firmware.api[1]} build:{firmware.build}"
    lines: list[str] = []
    snp = False
    if snp_host and firmware.api >= linux.SNP_MIN_API:
        snp = firmware.snp_init_error is FirmwareStatus.SUCCESS
        if not snp:
            lines.append(_snp_failure(firmware, early=early))
        elif not early:
            lines.append(f"SEV-SNP {api}")
    if snp_host and not snp and not early:
        return False, False, tuple(lines)
    out_of_order = snp_host and not snp
    error = FirmwareStatus.INVALID_PLATFORM_STATE if out_of_order else firmware.init_error
    if not spec.kernel.psp_init_on_probe:
        pass
    elif error:
        lines.append(
            f"SEV: failed to INIT error {error:#x}, rc {_EIO}"
            if early
            else f"SEV: INIT failed {error:#x}, rc {_EIO}"
        )
    else:
        lines.append(f"SEV {api}")
    if snp and early:
        lines.append(f"SEV-SNP {api}")
    return not error or not spec.kernel.psp_init_on_probe, snp, tuple(lines)


def _snp_failure(firmware: Firmware, *, early: bool) -> str:
    error = f"rc {_EIO}, error {firmware.snp_init_error:#x}"
    command = "SNP_INIT_EX" if firmware.api >= _SNP_INIT_EX else "SNP_INIT"
    return f"SEV-SNP: failed to INIT {error}" if early else f"SEV-SNP: {command} failed {error}"
