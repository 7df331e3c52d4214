"""The decision tables: for each technology, rules of which the first that fits decides.

Theory of operation
-------------------
Every rule but the last is a condition on positive evidence, or on something that had to be read
and was not. They stand in this order:

1. what is proof of a no, from the silicon outward: processor, BIOS, kernel, firmware, ASIDs;
2. what would have to be known for a yes, and is not: these give ``unknown``;
3. nothing speaks against it, and everything that must speak for it does: ``usable``.

So a source that becomes readable can add a no, or turn "unknown" into an answer, but it cannot
take a no away; and a source that is missing can never add one. Where several rules of a no fit,
the one whose fix comes first stands first: memory encryption in the BIOS before KVM's parameters,
because they follow from it. What a reason says stands in ``sevkit.host.reasons``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sevkit.host.capability import State, Technology
from sevkit.host.conditions import (
    IOMMU_FAULTS,
    Case,
    init_failed,
    init_unread,
    snp_off,
    snp_trouble,
    too_old_for_snp,
)
from sevkit.host.evidence import SNP_SINCE, Evidence, vm_types_unclear
from sevkit.host.kernel_log import LogLine
from sevkit.host.reading import value_of
from sevkit.host.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_ES_SINCE: Final = (5, 11)
#: KVM wants LBR virtualisation for SEV-ES since this kernel.
_LBRV_SINCE: Final = (6, 10)


class Rule(NamedTuple):
    """One row: if ``when`` holds, the technology is in ``state`` for ``reason``."""

    state: State
    reason: Reason
    when: Callable[[Case], bool]


ABSENT, DISABLED, UNUSABLE = State.ABSENT, State.DISABLED, State.UNUSABLE
UNKNOWN = State.UNKNOWN


_SILICON: Final = (
    Rule(ABSENT, Reason.NOT_X86, lambda c: c.e.x86 is False),
    Rule(ABSENT, Reason.NOT_AMD, lambda c: c.e.amd is False),
    Rule(ABSENT, Reason.VIRTUAL_MACHINE, lambda c: c.e.guest is True),
    Rule(ABSENT, Reason.NO_SILICON, lambda c: False in {c.e.sev.silicon, c.own.silicon}),
)
_BIOS: Final = (
    Rule(
        DISABLED,
        Reason.SMEE_OFF,
        lambda c: c.e.sev.flag is False and c.e.sev.silicon is True and c.e.encryption_on is False,
    ),
    Rule(
        DISABLED,
        Reason.SMM_UNLOCKED,
        lambda c: c.e.sev.flag is False and c.e.sev.silicon is True and c.e.encryption_on is True,
    ),
    Rule(
        DISABLED,
        Reason.MEMORY_ENCRYPTION_OFF,
        lambda c: c.e.sev.flag is False and c.e.sev.silicon is True,
    ),
    Rule(DISABLED, Reason.FLAG_MISSING, lambda c: c.e.sev.flag is False),
    Rule(DISABLED, Reason.SVM_OFF, lambda c: c.e.flag("svm") is False),
)
_KVM: Final = (
    Rule(DISABLED, Reason.KVM_AMD_NOT_LOADED, lambda c: c.e.kvm_amd is False),
    Rule(
        DISABLED,
        Reason.KERNEL_WITHOUT_SEV,
        lambda c: c.e.sev.missing and c.e.sev_es.missing and c.e.sev_snp.missing,
    ),
    Rule(
        DISABLED,
        Reason.KVM_SEV_OFF,
        lambda c: c.e.sev.parameter is False and c.e.asked("kvm_amd.sev") == "0",
    ),
    Rule(
        DISABLED,
        Reason.NPT_OFF,
        lambda c: c.e.sev.parameter is False and value_of(c.e.facts.modules.npt) is False,
    ),
    Rule(
        DISABLED,
        Reason.NRIPS_OFF,
        lambda c: c.e.sev.parameter is False and value_of(c.e.facts.modules.nrips) is False,
    ),
)
_DEVICE: Final = (
    Rule(DISABLED, Reason.NO_SECURE_PROCESSOR, lambda c: c.e.secure_processor is False),
    Rule(UNUSABLE, Reason.FIRMWARE_SILENT, lambda c: c.e.silent),
    Rule(DISABLED, Reason.NO_SEV_DEVICE, lambda c: value_of(c.e.facts.sev_device) is False),
)
_HELD_BACK: Final = Rule(
    DISABLED, Reason.HELD_BACK_BY_SNP, lambda c: init_failed(c.e) and snp_trouble(c.e)
)
_FIRMWARE: Final = (
    Rule(DISABLED, Reason.FIRMWARE_INIT_FAILED, lambda c: init_failed(c.e)),
    Rule(DISABLED, Reason.KVM_SEV_OFF, lambda c: c.e.sev.parameter is False),
)
_UNREAD: Final = (
    Rule(UNKNOWN, Reason.CPUINFO_UNREAD, lambda c: None in {c.e.sev.flag, c.own.flag}),
    Rule(UNKNOWN, Reason.CPUID_UNREAD, lambda c: c.e.cpuid is None),
    Rule(UNKNOWN, Reason.KVM_UNREAD, lambda c: None in {c.e.sev.parameter, c.own.parameter}),
    Rule(UNKNOWN, Reason.KERNEL_UNREAD, lambda c: vm_types_unclear(c.e)),
    Rule(UNKNOWN, Reason.FIRMWARE_UNREAD, lambda c: init_unread(c.e)),
    Rule(
        UNKNOWN,
        Reason.MODEL_NOT_KNOWN,
        lambda c: (
            c.e.product is None
            and c.e.firmware is None
            and value_of(c.e.facts.sev_device) is not True
        ),
    ),
)
_USABLE: Final = Rule(State.USABLE, Reason.USABLE, lambda _: True)
_NOT_OFFERED: Final = Rule(UNUSABLE, Reason.VM_TYPE_NOT_OFFERED, lambda c: c.own.vm_type is False)

#: Why KVM has SEV-ES off, which takes SEV-SNP along.
_ES_IN_KVM: Final = (
    Rule(UNUSABLE, Reason.NO_ENCRYPTED_STATE_ASIDS, lambda c: c.asids.cpuid_shared == 0),
    Rule(
        DISABLED,
        Reason.KVM_ES_OFF,
        lambda c: c.e.sev_es.parameter is False and c.e.asked("kvm_amd.sev_es") == "0",
    ),
    Rule(
        DISABLED,
        Reason.MMIO_CACHING_OFF,
        lambda c: (
            c.e.sev_es.parameter is False and value_of(c.e.facts.modules.mmio_caching) is False
        ),
    ),
    Rule(
        DISABLED,
        Reason.LBRV_OFF,
        lambda c: (
            c.e.sev_es.parameter is False
            and value_of(c.e.facts.modules.lbrv) is False
            and not c.e.before(_LBRV_SINCE)
        ),
    ),
)
_ES_KERNEL: Final = Rule(
    DISABLED,
    Reason.KERNEL_TOO_OLD,
    # Such a kernel has no name for the flag either.
    lambda c: c.e.sev_es.missing and c.e.before(_ES_SINCE),
)
_ES_FLAG: Final = Rule(DISABLED, Reason.FLAG_MISSING, lambda c: c.e.sev_es.flag is False)
_ES_OFF: Final = Rule(DISABLED, Reason.KVM_ES_OFF, lambda c: c.e.sev_es.parameter is False)
_ES_NOT_CONFIGURED: Final = Rule(
    DISABLED,
    Reason.ES_NOT_CONFIGURED,
    lambda c: bool(c.e.initialised and c.e.firmware and not c.e.firmware.es_configured),
)
_NO_SHARED_ASIDS: Final = Rule(
    UNUSABLE, Reason.NO_ENCRYPTED_STATE_ASIDS, lambda c: c.asids.shared == 0
)
_SPLIT_UNREAD: Final = Rule(UNKNOWN, Reason.ASID_SPLIT_UNREAD, lambda c: c.asids.hidden is None)

#: SEV-ES where SEV-SNP is initialised.
_ES_BESIDE_SNP: Final = (
    Rule(UNUSABLE, Reason.ASIDS_HIDDEN, lambda c: c.asids.es == 0),
    Rule(
        UNUSABLE,
        Reason.ES_REFUSED_BESIDE_SNP,
        lambda c: c.e.snp_initialised is True and c.es_refused is True,
    ),
    Rule(
        UNUSABLE,
        Reason.ES_OPEN_TO_CVE,
        lambda c: c.e.snp_initialised is True and c.es_refused is False and not c.given_to_es,
    ),
    Rule(
        UNUSABLE,
        Reason.ES_BESIDE_SNP,
        lambda c: c.e.snp_initialised is True and c.es_refused is None and not c.given_to_es,
    ),
)
_ES_UNREAD: Final = (
    Rule(
        UNKNOWN,
        Reason.ES_FIRMWARE_UNREAD,
        lambda c: c.e.snp_initialised is True and c.es_refused is None,
    ),
    # The firmware says that it is not initialised, and KVM that it is: one of them is wrong.
    Rule(
        UNKNOWN,
        Reason.SNP_STATE_UNREAD,
        lambda c: (
            c.e.snp_initialised is None
            or (c.e.snp_initialised is False and c.e.sev_snp.parameter is True)
        ),
    ),
)

_SNP_KERNEL: Final = (
    Rule(DISABLED, Reason.KERNEL_TOO_OLD, lambda c: c.own.missing and c.e.before(SNP_SINCE)),
    Rule(
        DISABLED,
        Reason.RMP_NOT_RESERVED,
        lambda c: c.own.flag is False and (c.own.parameter is not None or c.e.since(SNP_SINCE)),
    ),
)


def _iommu_rule(reason: Reason, fault: Callable[[Evidence], bool]) -> Rule:
    return Rule(DISABLED, reason, lambda c: fault(c.e))


_IOMMU: Final = tuple(_iommu_rule(*row) for row in IOMMU_FAULTS)
_SNP_FIRMWARE: Final = (
    Rule(DISABLED, Reason.FIRMWARE_TOO_OLD, lambda c: too_old_for_snp(c.e)),
    Rule(
        DISABLED,
        Reason.SNP_INIT_FAILED,
        lambda c: (
            snp_trouble(c.e)
            if init_failed(c.e)
            else c.e.said(LogLine.SNP_INIT_FAILED) and snp_off(c.e)
        ),
    ),
)
_SNP_OFF: Final = (
    Rule(
        DISABLED,
        Reason.KVM_SNP_OFF,
        lambda c: c.own.parameter is False and c.e.asked("kvm_amd.sev_snp") == "0",
    ),
    Rule(
        DISABLED,
        Reason.RMP_TOO_SMALL,
        lambda c: snp_off(c.e) and c.e.said(LogLine.RMP_TOO_SMALL),
    ),
    Rule(
        DISABLED,
        Reason.KVM_SNP_OFF,
        lambda c: c.own.parameter is False and c.e.snp is not None and c.e.snp.initialized,
    ),
    Rule(DISABLED, Reason.SNP_NOT_INITIALISED, lambda c: snp_off(c.e)),
    Rule(
        UNUSABLE,
        Reason.RMP_NOT_INITIALISED,
        lambda c: c.e.snp is not None and not c.e.snp.rmp_initialized,
    ),
)
_GIVEN_AWAY: Final = Rule(
    UNUSABLE,
    Reason.ASIDS_GIVEN_TO_ES,
    lambda c: (
        c.asids.hidden == 0 and c.asids.shared is not None and c.given_to_es >= c.asids.shared > 0
    ),
)

SEV_RULES: Final = (
    *_SILICON,
    *_BIOS,
    *_KVM,
    *_DEVICE,
    _HELD_BACK,
    *_FIRMWARE,
    Rule(UNUSABLE, Reason.NO_SEV_ASIDS, lambda c: 0 in {c.asids.cpuid_sev, c.asids.sev}),
    _NOT_OFFERED,
    *_UNREAD,
    _USABLE,
)
SEV_ES_RULES: Final = (
    *_SILICON,
    *_BIOS,
    _ES_KERNEL,
    _ES_FLAG,
    *_KVM,
    *_ES_IN_KVM,
    *_DEVICE,
    _HELD_BACK,
    *_FIRMWARE,
    _ES_OFF,
    _ES_NOT_CONFIGURED,
    _NO_SHARED_ASIDS,
    *_ES_BESIDE_SNP,
    _NOT_OFFERED,
    *_UNREAD,
    _SPLIT_UNREAD,
    *_ES_UNREAD,
    _USABLE,
)
SEV_SNP_RULES: Final = (
    *_SILICON,
    *_BIOS,
    *_SNP_KERNEL,
    *_KVM,
    *_ES_IN_KVM,
    *_DEVICE,
    *_IOMMU,
    *_SNP_FIRMWARE,
    *_FIRMWARE,
    _ES_OFF,
    *_SNP_OFF,
    _NO_SHARED_ASIDS,
    _GIVEN_AWAY,
    _NOT_OFFERED,
    *_UNREAD,
    _SPLIT_UNREAD,
    _USABLE,
)
RULES: Final[Mapping[Technology, tuple[Rule, ...]]] = {
    Technology.SEV: SEV_RULES,
    Technology.SEV_ES: SEV_ES_RULES,
    Technology.SEV_SNP: SEV_SNP_RULES,
}
