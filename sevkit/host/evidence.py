"""Facts as the rules weigh them: each yes, no, or not known, free of where it was read.

A value here is None exactly where the facts do not say, so that a rule which asks for ``is False``
or ``is True`` can never take silence for an answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.abi.platform_status import PlatformState
from sevkit.host.capability import Technology
from sevkit.host.cpuid import Features
from sevkit.host.facts import AMD
from sevkit.host.kernel import asked, parameter_missing
from sevkit.host.kernel_log import LogLine
from sevkit.host.kvm import SEV_TYPES, VmTypes
from sevkit.host.reading import Cause, Unreadable, value_of

if TYPE_CHECKING:
    from sevkit.host.cpuid import CpuidFacts
    from sevkit.host.cpuinfo import CpuinfoFacts
    from sevkit.host.facts import HostFacts
    from sevkit.host.firmware import FirmwareFacts, SnpFacts
    from sevkit.host.platform import IommuFacts
    from sevkit.host.product import HostProduct

#: KVM_CAP_VM_TYPES names kinds of SEV since this kernel.
VM_TYPES_SINCE: Final = (6, 10)
#: KVM runs SNP guests, and has the parameter for it, since this one.
SNP_SINCE: Final = (6, 11)
#: Since this one, KVM's parameters are N after the firmware could not be initialised.
PARAMETERS_CHECKED_SINCE: Final = (6, 16)


@final
@dataclass(frozen=True, slots=True)
class Witnesses:
    """What is said of one technology: by CPUID, by /proc/cpuinfo, and by KVM in two ways.

    ``missing`` is that the list of KVM's parameters was read and this one is not in it.
    """

    silicon: bool | None
    flag: bool | None
    parameter: bool | None
    missing: bool
    vm_type: bool | None


@final
@dataclass(frozen=True)
class Evidence:
    """All that the rules may ask."""

    facts: HostFacts
    witnesses: dict[Technology, Witnesses]
    version: tuple[int, int] | None
    product: HostProduct | None
    cpuid: CpuidFacts | None
    cpuinfo: CpuinfoFacts | None
    firmware: FirmwareFacts | None
    iommu: IommuFacts | None
    log: frozenset[LogLine]
    command_line: tuple[str, ...]

    @property
    def sev(self) -> Witnesses:
        """The witnesses of SEV."""
        return self.witnesses[Technology.SEV]

    @property
    def sev_es(self) -> Witnesses:
        """The witnesses of SEV-ES."""
        return self.witnesses[Technology.SEV_ES]

    @property
    def sev_snp(self) -> Witnesses:
        """The witnesses of SEV-SNP."""
        return self.witnesses[Technology.SEV_SNP]

    @property
    def x86(self) -> bool | None:
        """Whether this is an x86 processor: no other has CPUID."""
        if self.cpuinfo is not None:
            return self.cpuinfo.x86
        return True if self.cpuid is not None and self.cpuid.vendor is not None else None

    @property
    def amd(self) -> bool | None:
        """Whether AMD made it."""
        vendor = self.facts.vendor
        return None if vendor is None else vendor == AMD

    @property
    def guest(self) -> bool | None:
        """Whether a hypervisor is below us: whichever source says so is believed."""
        said = [None if self.cpuid is None else self.cpuid.hypervisor, self.flag("hypervisor")]
        return True if True in said else (False if False in said else None)

    @property
    def kvm_amd(self) -> bool | None:
        """Whether the module is there."""
        return value_of(self.facts.modules.kvm_amd)

    @property
    def encryption_on(self) -> bool | None:
        """Whether the BIOS switched memory encryption on, by what it costs of physical addresses.

        Linux takes the reduction from the address size as soon as SYSCFG has it on, whatever else
        is missing, and shows the flag ``sme`` only then.
        """
        if self.flag("sme"):
            return True
        cpuid, cpuinfo = self.cpuid, self.cpuinfo
        if cpuid is None or cpuinfo is None or not cpuid.encryption.reduction:
            return None
        full, left = cpuid.physical_bits, cpuinfo.physical_bits
        if full is None or left is None:
            return None
        return {full: False, full - cpuid.encryption.reduction: True}.get(left)

    @property
    def secure_processor(self) -> bool | None:
        """Whether there is one, on PCI."""
        found = value_of(self.facts.secure_processors)
        return None if found is None else bool(found)

    @property
    def silent(self) -> bool:
        """Whether the driver has given the secure processor up, which lasts until a reboot."""
        reading = self.facts.firmware
        gone = isinstance(reading, Unreadable) and reading.cause is Cause.SILENT
        return gone or self.said(LogLine.SILENT)

    @property
    def initialised(self) -> bool | None:
        """Whether the SEV platform is initialised, by the firmware's word."""
        if self.firmware is None:
            return None
        return self.firmware.state is not PlatformState.UNINIT

    @property
    def snp(self) -> SnpFacts | None:
        """The SNP platform, where its status could be asked."""
        return None if self.firmware is None else self.firmware.snp

    @property
    def snp_initialised(self) -> bool | None:
        """Whether SNP is, by the firmware's word, else by KVM's, else because nothing could."""
        if self.snp is not None:
            return self.snp.initialized
        if self.sev_snp.parameter is not None:
            return self.sev_snp.parameter
        too_old = self.before(SNP_SINCE) and self.sev_snp.missing
        return False if self.sev_snp.silicon is False or too_old else None

    @property
    def waits(self) -> bool | None:
        """Whether the firmware is left uninitialised until the first guest needs it."""
        on_probe = value_of(self.facts.modules.psp_init_on_probe)
        return None if on_probe is None else not on_probe

    def flag(self, name: str) -> bool | None:
        """Whether /proc/cpuinfo shows a flag."""
        flags = None if self.cpuinfo is None else self.cpuinfo.flags
        return None if flags is None else name in flags

    def said(self, *lines: LogLine) -> bool:
        """Whether the kernel's log has any of these lines."""
        return not self.log.isdisjoint(lines)

    def asked(self, name: str) -> str | None:
        """Return what the kernel's command line asks of a parameter."""
        return asked(self.command_line, name)

    def before(self, version: tuple[int, int]) -> bool:
        """Whether the kernel is known to be older."""
        return self.version is not None and self.version < version

    def since(self, version: tuple[int, int]) -> bool:
        """Whether the kernel is known to be this old or newer."""
        return self.version is not None and self.version >= version


def weigh(facts: HostFacts) -> Evidence:
    """Return the facts as evidence."""
    release = value_of(facts.release)
    version = None if release is None else release.version
    return Evidence(
        facts=facts,
        witnesses={one: _witnesses(facts, one, version) for one in Technology},
        version=version,
        product=facts.product,
        cpuid=value_of(facts.cpuid),
        cpuinfo=value_of(facts.cpuinfo),
        firmware=value_of(facts.firmware),
        iommu=value_of(facts.iommu),
        log=value_of(facts.log) or frozenset(),
        command_line=value_of(facts.command_line) or (),
    )


_NAMES: Final = {
    Technology.SEV: (Features.SEV, "sev", VmTypes.SEV),
    Technology.SEV_ES: (Features.SEV_ES, "sev_es", VmTypes.SEV_ES),
    Technology.SEV_SNP: (Features.SEV_SNP, "sev_snp", VmTypes.SEV_SNP),
}


def _witnesses(
    facts: HostFacts, technology: Technology, version: tuple[int, int] | None
) -> Witnesses:
    feature, name, kind = _NAMES[technology]
    cpuid, cpuinfo = value_of(facts.cpuid), value_of(facts.cpuinfo)
    flags = None if cpuinfo is None else cpuinfo.flags
    parameters = {
        "sev": facts.modules.sev,
        "sev_es": facts.modules.sev_es,
        "sev_snp": facts.modules.sev_snp,
    }
    return Witnesses(
        silicon=_silicon(facts, technology)
        if cpuid is None
        else feature in cpuid.encryption.features and _silicon(facts, technology) is not False,
        flag=None if flags is None else name in flags,
        parameter=value_of(parameters[name]),
        missing=parameter_missing(facts.modules, name),
        vm_type=_vm_type(facts, kind, version),
    )


def _silicon(facts: HostFacts, technology: Technology) -> bool | None:
    """Return what the product has, which CPUID may exaggerate; None where it is not known."""
    product = facts.product
    if product is None:
        return None
    has = {Technology.SEV_ES: product.sev_es, Technology.SEV_SNP: product.sev_snp}
    return has.get(technology, True)


def vm_types_unclear(evidence: Evidence) -> bool:
    """Whether KVM names no kind of SEV, and its kernel may be too old to name any."""
    types = value_of(evidence.facts.kvm.vm_types)
    silent = types is not None and not types & SEV_TYPES
    return silent and evidence.version is None and evidence.sev_snp.parameter is None


def _vm_type(facts: HostFacts, kind: VmTypes, version: tuple[int, int] | None) -> bool | None:
    types = value_of(facts.kvm.vm_types)
    if types is None:
        return None
    knows = value_of(facts.modules.sev_snp) is not None or (
        version is not None and version >= VM_TYPES_SINCE
    )
    return bool(types & kind) if types & SEV_TYPES or knows else None
