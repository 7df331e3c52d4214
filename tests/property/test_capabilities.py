"""Whatever a host's sources say, deny or keep to themselves, no answer goes beyond them.

Every source of a machine that works is put, on its own, into one of four conditions: it agrees, it
contradicts, it cannot be read, it is not there. Over their combinations: "usable" is never said
against anything that was read; a no is never said for want of a source; and a source that becomes
readable never takes a no away.
"""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from sevkit.abi.platform_status import PlatformState
from sevkit.host.capabilities import decide
from sevkit.host.capability import State, Technology
from sevkit.host.cgroup import AsidCounts
from sevkit.host.cpuid import Features
from sevkit.host.kernel import Release
from sevkit.host.kernel_log import LogLine
from sevkit.host.kvm import VmTypes
from sevkit.host.probe import probe_host
from sevkit.host.reading import Cause, Known, Reading, Unreadable
from sevkit.host.sources import open_host
from sevkit.testing.host.presets import PRESETS
from sevkit.testing.host.write import write_host

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sevkit.host.facts import HostFacts

SEV, ES, SNP = Technology
NOES: Final = {State.ABSENT, State.DISABLED, State.UNUSABLE}
CONDITIONS: Final = ("agrees", "contradicts", "unreadable", "absent")
#: Rome is set up for SEV-ES; the kernels of Milan and Genoa differ in what parameters prove.
MACHINES: Final = ("rome-es", "milan", "genoa")
EVERY_TYPE: Final = VmTypes.DEFAULT | VmTypes.SEV | VmTypes.SEV_ES | VmTypes.SEV_SNP


@cache
def machine(name: str) -> HostFacts:
    """Return a machine on which everything that there is works, and can be read."""
    with tempfile.TemporaryDirectory() as folder:
        write_host(PRESETS[name], f"{folder}/host")
        with open_host(f"{folder}/host") as source:
            facts = probe_host(source)
    types = EVERY_TYPE if PRESETS[name].kernel.version >= (6, 11) else VmTypes.DEFAULT
    return replace(facts, kvm=replace(facts.kvm, vm_types=Known(types)))


def no_silicon(facts: HostFacts) -> Any:  # noqa: ANN401  # a fact of any type
    assert isinstance(facts.cpuid, Known)
    encryption = replace(facts.cpuid.value.encryption, features=Features.SME)
    return replace(facts.cpuid.value, encryption=encryption)


def no_flags(facts: HostFacts) -> Any:  # noqa: ANN401  # a fact of any type
    assert isinstance(facts.cpuinfo, Known)
    found = facts.cpuinfo.value
    return replace(found, flags=(found.flags or frozenset()) - {"sev", "sev_es", "sev_snp"})


def not_initialised(facts: HostFacts) -> Any:  # noqa: ANN401  # a fact of any type
    assert isinstance(facts.firmware, Known)
    found = facts.firmware.value
    snp = None if found.snp is None else replace(found.snp, initialized=False)
    return replace(found, state=PlatformState.UNINIT, snp=snp)


#: What each source says when it contradicts. A dot leads into a group of facts.
CONTRADICTIONS: Final[Mapping[str, Callable[[HostFacts], Any]]] = {
    "cpuid": no_silicon,
    "cpuinfo": no_flags,
    "release": lambda _: Release("4.4.0", (4, 4)),
    "command_line": lambda _: ("kvm_amd.sev=0", "kvm_amd.sev_snp=0", "iommu=pt"),
    "modules.kvm_amd": lambda _: False,
    "modules.names": lambda _: ("npt", "nrips"),
    "modules.sev": lambda _: False,
    "modules.sev_es": lambda _: False,
    "modules.sev_snp": lambda _: False,
    "modules.npt": lambda _: False,
    "modules.mmio_caching": lambda _: False,
    "modules.ciphertext_hiding_asids": lambda _: 10_000,
    "modules.psp_init_on_probe": lambda _: False,
    "misc.capacity": lambda _: AsidCounts(),
    "misc.current": lambda _: AsidCounts(9999, 9999),
    "secure_processors": lambda _: (),
    "iommu": lambda facts: replace(facts.iommu.value, units=0),  # type: ignore[union-attr]
    "sev_device": lambda _: False,
    "kvm.vm_types": lambda _: VmTypes.DEFAULT | VmTypes.SW_PROTECTED,
    "firmware": not_initialised,
    "log": lambda _: frozenset({LogLine.SILENT}),
}
#: Sources whose no is a no for all, and those of one technology alone.
AGAINST_ALL: Final = (
    *("cpuid", "cpuinfo", "modules.kvm_amd", "modules.names", "modules.sev"),
    *("secure_processors", "sev_device", "log"),
)
AGAINST: Final = {
    SEV: (*AGAINST_ALL, "misc.capacity"),
    ES: (*AGAINST_ALL, "misc.capacity", "modules.sev_es"),
    SNP: (*AGAINST_ALL, "misc.capacity", "modules.sev_es", "modules.sev_snp", "iommu", "firmware"),
}
#: What has to be read before anything is usable.
NEEDED: Final = {
    SEV: ("cpuid", "cpuinfo", "modules.sev"),
    ES: ("cpuid", "cpuinfo", "modules.sev", "modules.sev_es"),
    SNP: ("cpuid", "cpuinfo", "modules.sev", "modules.sev_snp"),
}


def put(facts: HostFacts, source: str, reading: Reading[Any]) -> HostFacts:
    group, _, name = source.partition(".")
    if not name:
        return replace(facts, **{group: reading})  # type: ignore[arg-type]  # named at run time
    return replace(facts, **{group: replace(getattr(facts, group), **{name: reading})})


def in_condition(facts: HostFacts, source: str, condition: str) -> HostFacts:
    if condition == "agrees":
        return facts
    if condition == "contradicts":
        return put(facts, source, Known(CONTRADICTIONS[source](facts)))
    cause = Cause.ABSENT if condition == "absent" else Cause.DENIED
    return put(facts, source, Unreadable(cause, f"{source}: {condition}"))


def host(name: str, conditions: Mapping[str, str]) -> HostFacts:
    facts = found = machine(name)
    for source, condition in conditions.items():
        changed = in_condition(facts, source, condition)
        group, _, part = source.partition(".")
        reading = getattr(getattr(changed, group), part) if part else getattr(changed, group)
        found = put(found, source, reading)
    return found


def combinations() -> st.SearchStrategy[dict[str, str]]:
    """Return conditions of every source: few that differ from agreement, or any."""
    few = st.dictionaries(st.sampled_from(sorted(CONTRADICTIONS)), st.sampled_from(CONDITIONS))
    every = st.fixed_dictionaries(
        {source: st.sampled_from(CONDITIONS) for source in CONTRADICTIONS}
    )
    missing = st.fixed_dictionaries(
        {source: st.sampled_from(("agrees", "unreadable", "absent")) for source in CONTRADICTIONS}
    )
    return few | every | missing


def judge(name: str, conditions: Mapping[str, str], beside: int) -> None:
    """Hold that nothing is usable against what was read, or without what must be."""
    found = decide(host(name, conditions), allow_sev_es_beside_snp=beside)
    for technology in Technology:
        if found.of(technology).state is not State.USABLE:
            continue
        for source in AGAINST[technology]:
            assert conditions.get(source) != "contradicts", (technology, source)
        for source in NEEDED[technology]:
            assert conditions.get(source, "agrees") == "agrees", (technology, source)
        if name != "rome-es":
            assert conditions.get("kvm.vm_types") != "contradicts", technology
        if name == "milan":
            # This kernel's parameters say nothing about the firmware, which says that it is not
            # initialised: unless it only waits for the first guest.
            waits = conditions.get("modules.psp_init_on_probe") == "contradicts"
            assert waits or conditions.get("firmware") != "contradicts"
        assert found.of(technology).guests > 0
    if found.sev_es.state is State.USABLE and not beside and name != "rome-es":
        # SEV-ES alone: neither the firmware nor KVM may say that SNP is initialised.
        deniers = ("firmware", "modules.sev_snp")
        assert "contradicts" in {conditions.get(source) for source in deniers}


@given(st.sampled_from(MACHINES), combinations(), st.sampled_from((0, 5)))
@settings(max_examples=400)
def test_usable_is_never_said_against_what_was_read(
    name: str, conditions: dict[str, str], beside: int
) -> None:
    judge(name, conditions, beside)


@pytest.mark.parametrize("name", MACHINES)
def test_no_pair_of_sources_is_talked_over(name: str) -> None:
    for one, other in itertools.combinations(CONTRADICTIONS, 2):
        for pair in itertools.product(CONDITIONS, repeat=2):
            judge(name, dict(zip((one, other), pair, strict=True)), 0)


@given(
    st.sampled_from(MACHINES),
    st.fixed_dictionaries(
        {source: st.sampled_from(("agrees", "unreadable", "absent")) for source in CONTRADICTIONS}
    ),
)
@settings(max_examples=250)
def test_a_source_that_is_missing_never_makes_a_no(name: str, conditions: dict[str, str]) -> None:
    found, whole = decide(host(name, conditions)), decide(machine(name))
    for technology in Technology:
        if whole.of(technology).state is State.USABLE:
            assert found.of(technology).state not in NOES, technology
    # What is a no on the whole machine is one here, or it is not known; never a yes.
    for technology in Technology:
        if whole.of(technology).state in NOES:
            assert found.of(technology).state is not State.USABLE, technology


@given(
    st.sampled_from(MACHINES),
    combinations(),
    st.sampled_from(sorted(CONTRADICTIONS)),
    st.sampled_from(("agrees", "contradicts")),
    st.sampled_from((0, 5)),
)
@settings(max_examples=500)
def test_what_becomes_readable_never_takes_a_no_away(
    name: str, conditions: dict[str, str], source: str, says: str, beside: int
) -> None:
    before = decide(
        host(name, {**conditions, source: "unreadable"}), allow_sev_es_beside_snp=beside
    )
    after = decide(host(name, {**conditions, source: says}), allow_sev_es_beside_snp=beside)
    for technology in Technology:
        if before.of(technology).state in NOES:
            event(f"{technology} is {before.of(technology).state}")
            assert after.of(technology).state is not State.USABLE, (
                technology,
                before.of(technology).reason,
                after.of(technology).reason,
            )


@given(st.sampled_from(MACHINES), combinations(), st.integers(0, 200))
@settings(max_examples=150)
def test_every_answer_is_whole(name: str, conditions: dict[str, str], beside: int) -> None:
    found = decide(host(name, conditions), allow_sev_es_beside_snp=beside)
    for technology in Technology:
        one = found.of(technology)
        assert one.explanation
        assert "{" not in one.explanation + one.hint
        assert one.guests >= 0
        assert (one.guests > 0) is (one.state is State.USABLE)
        assert one.hint or one.state is State.USABLE
    both = found.sev_es.guests + found.sev_snp.guests
    shared = found.encrypted_state.total
    assert shared is None or both <= shared
