"""Rules that no simulated host brings up by itself: what a machine would say that has it so."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from sevkit.host.capabilities import decide
from sevkit.host.capability import State, Technology
from sevkit.host.cgroup import AsidCounts
from sevkit.host.cpuid import Signature
from sevkit.host.kernel import Release
from sevkit.host.kernel_log import LogLine
from sevkit.host.kvm import VmTypes
from sevkit.host.reading import Cause, Known, Reading, Unreadable
from sevkit.host.reasons import Reason
from sevkit.host.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.host.facts import HostFacts

SEV, ES, SNP = Technology
UNREAD = Unreadable(Cause.DENIED, "not for us")
GONE = Unreadable(Cause.ABSENT, "not there")


def say(facts: HostFacts, **readings: Reading[Any]) -> HostFacts:
    """Return facts with some replaced; ``modules__sev`` is the parameter ``sev`` of modules."""
    for name, reading in readings.items():
        group, _, part = name.partition("__")
        changed = replace(getattr(facts, group), **{part: reading}) if part else reading
        facts = replace(facts, **{group: changed})  # type: ignore[arg-type]  # named at run time
    return facts


def reasons(facts: HostFacts, beside: int = 0) -> tuple[Reason, ...]:
    found = decide(facts, allow_sev_es_beside_snp=beside)
    return tuple(found.of(one).reason for one in Technology)


def flags(facts: HostFacts, *, without: set[str], **changes: Any) -> Reading[Any]:  # noqa: ANN401  # fields of any type
    assert isinstance(facts.cpuinfo, Known)
    found = facts.cpuinfo.value
    return Known(replace(found, flags=(found.flags or frozenset()) - without, **changes))


@pytest.fixture
def milan(facts_of: Callable[..., HostFacts]) -> HostFacts:
    """A healthy Milan with Linux 6.12."""
    return facts_of("milan")


@pytest.fixture
def genoa(facts_of: Callable[..., HostFacts]) -> HostFacts:
    """A healthy Genoa with Linux 6.18."""
    return facts_of("genoa")


@pytest.fixture
def rome(facts_of: Callable[..., HostFacts]) -> HostFacts:
    """A Rome set up for SEV-ES."""
    return facts_of("rome-es")


def test_why_the_flags_are_gone_is_open_where_address_sizes_are_not_known(milan: HostFacts) -> None:
    facts = say(
        milan, cpuinfo=flags(milan, without={"sev", "sev_es", "sev_snp"}, physical_bits=None)
    )
    assert reasons(facts) == (Reason.MEMORY_ENCRYPTION_OFF,) * 3


def test_missing_flags_of_an_unknown_processor_are_told_without_a_cause(milan: HostFacts) -> None:
    cpuinfo = flags(milan, without={"sev", "sev_es"}, signature=Signature(0x19, 0x61, 2))
    facts = say(milan, cpuid=UNREAD, cpuinfo=cpuinfo)
    assert reasons(facts) == (Reason.FLAG_MISSING,) * 3
    assert decide(facts).sev.state is State.DISABLED


def test_the_flag_of_sev_es_alone_can_be_missing(rome: HostFacts) -> None:
    facts = say(rome, cpuinfo=flags(rome, without={"sev_es"}))
    assert reasons(facts)[:2] == (Reason.USABLE, Reason.FLAG_MISSING)
    assert "sev_es" in decide(facts).sev_es.explanation


def test_sev_that_is_off_for_no_reason_that_we_see(rome: HostFacts) -> None:
    facts = say(rome, modules__sev=Known(value=False), misc__capacity=UNREAD)
    assert reasons(facts)[:2] == (Reason.KVM_SEV_OFF, Reason.KVM_SEV_OFF)


def test_capacity_that_is_left_tells_that_the_firmware_failed(rome: HostFacts) -> None:
    facts = say(rome, modules__sev=Known(value=False))
    assert reasons(facts)[0] is Reason.FIRMWARE_INIT_FAILED


def test_next_rip_saving_is_needed(rome: HostFacts) -> None:
    off = Known(value=False)
    assert reasons(say(rome, modules__sev=off, modules__nrips=off))[:2] == (Reason.NRIPS_OFF,) * 2
    assert reasons(say(rome, modules__nrips=off))[0] is Reason.USABLE


def test_sev_es_came_with_linux_5_11(rome: HostFacts) -> None:
    facts = say(
        rome,
        release=Known(Release("5.10.0", (5, 10))),
        modules__sev_es=GONE,
        modules__names=Known(("npt", "nrips", "sev")),
    )
    assert reasons(facts)[1] is Reason.KERNEL_TOO_OLD
    assert "5.10.0" in decide(facts).sev_es.explanation
    # The same parameters on a kernel that nobody names prove nothing.
    assert reasons(say(facts, release=UNREAD))[1] is Reason.KVM_UNREAD


def test_a_kernel_without_sev_has_none_of_its_parameters(rome: HostFacts) -> None:
    without = {"modules__sev": GONE, "modules__sev_es": GONE, "modules__sev_snp": GONE}
    names = Known(("avic", "nested", "npt"))
    assert reasons(say(rome, **without, modules__names=names))[0] is Reason.KERNEL_WITHOUT_SEV
    assert reasons(say(rome, **without, modules__names=UNREAD))[0] is Reason.KVM_UNREAD
    assert reasons(say(rome, **without, modules__names=Known(())))[0] is Reason.KVM_UNREAD


def test_sev_es_can_be_off_for_no_reason_that_we_see(rome: HostFacts, milan: HostFacts) -> None:
    assert reasons(say(rome, modules__sev_es=Known(value=False)))[1] is Reason.KVM_ES_OFF
    facts = say(milan, modules__sev_es=Known(value=False), modules__sev_snp=UNREAD)
    assert reasons(facts)[1:] == (Reason.KVM_ES_OFF, Reason.KVM_ES_OFF)


def test_firmware_can_be_initialised_without_sev_es(rome: HostFacts) -> None:
    assert isinstance(rome.firmware, Known)
    firmware = Known(replace(rome.firmware.value, es_configured=False))
    assert reasons(say(rome, firmware=firmware))[:2] == (Reason.USABLE, Reason.ES_NOT_CONFIGURED)


def test_a_line_that_is_missing_is_zero_and_a_file_that_is_missing_is_not(rome: HostFacts) -> None:
    facts = say(rome, misc__capacity=Known(AsidCounts(410, 0)))
    assert reasons(facts)[:2] == (Reason.USABLE, Reason.NO_ENCRYPTED_STATE_ASIDS)
    assert decide(say(rome, misc__capacity=GONE)).sev_es.guests == 99


def test_kvm_can_offer_less_than_its_parameters_say(rome: HostFacts, genoa: HostFacts) -> None:
    facts = say(
        rome,
        release=Known(Release("7.2.0", (7, 2))),
        kvm__vm_types=Known(VmTypes.DEFAULT | VmTypes.SEV),
    )
    assert reasons(facts)[:2] == (Reason.USABLE, Reason.VM_TYPE_NOT_OFFERED)
    facts = say(genoa, kvm__vm_types=Known(VmTypes.DEFAULT | VmTypes.SEV | VmTypes.SEV_ES))
    assert reasons(facts)[2] is Reason.VM_TYPE_NOT_OFFERED


def test_a_kernel_before_6_10_names_no_kind_of_sev(rome: HostFacts) -> None:
    plain = say(rome, kvm__vm_types=Known(VmTypes.DEFAULT))
    assert reasons(plain)[:2] == (Reason.USABLE, Reason.USABLE)
    assert reasons(say(plain, release=UNREAD))[:2] == (Reason.KERNEL_UNREAD, Reason.KERNEL_UNREAD)
    newer = say(plain, release=Known(Release("6.10.0", (6, 10))))
    assert reasons(newer)[0] is Reason.VM_TYPE_NOT_OFFERED


def test_a_model_that_is_not_known_needs_its_firmwares_word(genoa: HostFacts) -> None:
    assert isinstance(genoa.cpuid, Known)
    cpuid = Known(replace(genoa.cpuid.value, signature=Signature(0x1A, 0x50, 0)))
    facts = say(genoa, cpuid=cpuid, firmware=GONE, sev_device=GONE)
    assert reasons(facts) == (Reason.MODEL_NOT_KNOWN, Reason.ES_BESIDE_SNP, Reason.MODEL_NOT_KNOWN)
    assert reasons(say(facts, sev_device=Known(value=True)))[0] is Reason.USABLE


def test_old_kernels_parameters_do_not_speak_for_the_firmware(milan: HostFacts) -> None:
    log = Known(frozenset({LogLine.INIT_FAILED}))
    facts = say(milan, firmware=GONE, log=log)
    assert reasons(facts) == (Reason.FIRMWARE_UNREAD, Reason.ES_BESIDE_SNP, Reason.FIRMWARE_UNREAD)
    newer = say(facts, release=Known(Release("6.16.0", (6, 16))))
    assert reasons(newer)[0] is Reason.USABLE


def test_firmware_that_waits_is_no_failure(facts_of: Callable[..., HostFacts]) -> None:
    facts = facts_of("milan", "psp-init-deferred")
    assert reasons(facts)[0] is Reason.USABLE
    assert reasons(say(facts, modules__psp_init_on_probe=UNREAD))[0] is Reason.FIRMWARE_UNREAD
    assert reasons(say(facts, release=UNREAD))[0] is Reason.USABLE
    on_probe = say(facts, modules__psp_init_on_probe=Known(value=True))
    assert reasons(on_probe)[0] is Reason.FIRMWARE_INIT_FAILED
    assert reasons(say(on_probe, release=UNREAD))[0] is Reason.FIRMWARE_UNREAD


def test_a_hidden_split_that_nobody_tells_is_not_known(
    facts_of: Callable[..., HostFacts],
) -> None:
    facts = say(facts_of("turin", "ciphertext-hiding"), modules__ciphertext_hiding_asids=UNREAD)
    assert reasons(facts)[2] is Reason.ASID_SPLIT_UNREAD
    assert decide(facts).sev_snp_asids.total is None
    apart = say(facts_of("turin"), modules__ciphertext_hiding_asids=UNREAD, firmware=GONE)
    assert reasons(apart)[2] is Reason.ASID_SPLIT_UNREAD
    rome = say(facts_of("rome-es"), modules__ciphertext_hiding_asids=UNREAD, release=UNREAD)
    assert reasons(rome)[1] is Reason.USABLE  # its list of parameters has no such one


def test_an_rmp_table_can_be_uninitialised(genoa: HostFacts) -> None:
    assert isinstance(genoa.firmware, Known)
    firmware = genoa.firmware.value
    assert firmware.snp is not None
    snp = replace(firmware.snp, rmp_initialized=False)
    facts = say(genoa, firmware=Known(replace(firmware, snp=snp)))
    assert reasons(facts)[2] is Reason.RMP_NOT_INITIALISED


def test_snp_that_is_off_is_told_with_its_cause_as_far_as_it_is_known(
    genoa: HostFacts, facts_of: Callable[..., HostFacts]
) -> None:
    off = say(genoa, modules__sev_snp=Known(value=False))
    # Initialised in firmware, and off in KVM: only its parameter can be the cause.
    assert reasons(off)[2] is Reason.KVM_SNP_OFF
    assert reasons(say(off, firmware=GONE))[2] is Reason.SNP_NOT_INITIALISED
    small = say(facts_of("genoa", "rmp-too-small"), log=UNREAD)
    assert reasons(small)[2] is Reason.SNP_NOT_INITIALISED
    asked = say(off, firmware=GONE, command_line=Known(("kvm-amd.sev_snp=0",)))
    assert reasons(asked)[2] is Reason.KVM_SNP_OFF


def test_a_failed_snp_init_is_told_without_the_log(facts_of: Callable[..., HostFacts]) -> None:
    facts = say(facts_of("genoa", "snp-init-failed"), log=UNREAD)
    held = Reason.HELD_BACK_BY_SNP
    assert reasons(facts) == (held, held, Reason.SNP_INIT_FAILED)
    # And where the firmware cannot be asked either, it is the firmware's at least.
    apart = say(facts, firmware=GONE)
    assert reasons(apart) == (Reason.FIRMWARE_INIT_FAILED,) * 3


def test_without_cpuid_nothing_is_usable_and_nothing_is_a_no(milan: HostFacts) -> None:
    facts = say(milan, cpuid=GONE)
    assert reasons(facts) == (Reason.CPUID_UNREAD, Reason.ES_OPEN_TO_CVE, Reason.CPUID_UNREAD)
    assert decide(facts).sev.state.label is None


def test_a_product_speaks_where_cpuid_does_not(facts_of: Callable[..., HostFacts]) -> None:
    facts = say(facts_of("rome-es"), cpuid=GONE)
    assert reasons(facts) == (Reason.CPUID_UNREAD, Reason.CPUID_UNREAD, Reason.NO_SILICON)


def test_a_silent_secure_processor_is_told_by_its_driver(milan: HostFacts) -> None:
    silent = Unreadable(Cause.SILENT, "/dev/sev: Device or resource busy")
    assert reasons(say(milan, firmware=silent)) == (Reason.FIRMWARE_SILENT,) * 3


def test_sources_that_disagree_about_snp_leave_sev_es_open(genoa: HostFacts) -> None:
    assert isinstance(genoa.firmware, Known)
    firmware = genoa.firmware.value
    assert firmware.snp is not None
    snp = replace(firmware.snp, initialized=False)
    facts = say(genoa, firmware=Known(replace(firmware, snp=snp)))
    assert reasons(facts)[1:] == (Reason.SNP_STATE_UNREAD, Reason.SNP_NOT_INITIALISED)
    unread = say(genoa, firmware=GONE, modules__sev_snp=UNREAD)
    assert reasons(unread)[1:] == (Reason.SNP_STATE_UNREAD, Reason.KVM_UNREAD)


def test_what_was_asked_for_goes_before_what_the_log_says(
    genoa: HostFacts, rome: HostFacts
) -> None:
    off, log = Known(value=False), Known(frozenset({LogLine.INIT_FAILED}))
    asked = Known(("kvm_amd.sev=0",))
    facts = say(genoa, modules__sev=off, log=log, command_line=asked)
    assert reasons(facts) == (Reason.KVM_SEV_OFF,) * 3
    asked = Known(("kvm_amd.sev_es=0",))
    facts = say(rome, modules__sev_es=off, modules__mmio_caching=off, command_line=asked)
    assert reasons(facts)[1] is Reason.KVM_ES_OFF


def test_sev_that_is_off_takes_the_others_along(genoa: HostFacts) -> None:
    off = Known(value=False)
    assert reasons(say(genoa, modules__sev=off, misc__capacity=UNREAD)) == (Reason.KVM_SEV_OFF,) * 3
    both = say(genoa, modules__sev=off, modules__nrips=off)
    assert reasons(both) == (Reason.NRIPS_OFF,) * 3


def test_what_sev_needs_to_be_known_sev_es_needs_too(
    rome: HostFacts, facts_of: Callable[..., HostFacts]
) -> None:
    log = Known(frozenset({LogLine.INIT_FAILED}))
    assert reasons(say(rome, firmware=GONE, log=log))[1] is Reason.FIRMWARE_UNREAD
    assert isinstance(rome.cpuid, Known)
    strange = Known(replace(rome.cpuid.value, signature=Signature(0x17, 0x71, 0)))
    facts = say(rome, cpuid=strange, firmware=GONE, sev_device=GONE)
    assert reasons(facts)[:2] == (Reason.MODEL_NOT_KNOWN,) * 2
    alone = facts_of("turin", "iommu-off")
    split = say(alone, modules__ciphertext_hiding_asids=UNREAD, firmware=GONE)
    assert reasons(split)[1] is Reason.ASID_SPLIT_UNREAD


@pytest.mark.parametrize("technology", Technology)
def test_rules_of_a_no_stand_before_those_of_not_knowing(technology: Technology) -> None:
    states = [rule.state for rule in RULES[technology]]
    first = states.index(State.UNKNOWN)
    assert State.UNKNOWN not in states[:first]
    assert set(states[first:-1]) == {State.UNKNOWN}
    assert states[-1] is State.USABLE
    assert states.count(State.USABLE) == 1


def test_every_reason_can_be_given() -> None:
    given = {rule.reason for rules in RULES.values() for rule in rules}
    assert given == set(Reason)
