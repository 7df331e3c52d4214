"""What the doctor says of hosts, check by check."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.host.capabilities import decide
from sevkit.host.capability import State, Technology
from sevkit.host.doctor.catalogue import CATALOGUE
from sevkit.host.doctor.check import Verdict, examine
from sevkit.host.libvirt import NodeSev
from sevkit.host.reading import Cause, Known, Unreadable
from sevkit.hypervisor.domain_capabilities import DomainCapabilities, SevCapabilities
from sevkit.testing.host.defects import DEFECTS
from sevkit.testing.host.presets import PRESETS

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.host.doctor.check import Result
    from sevkit.host.facts import HostFacts

#: Every check of ``snphost ok``, by the name that it prints.
SNPHOST: Final = {
    *("AMD CPU", "Microcode support", "Secure Memory Encryption (SME)", "SME"),
    *("Secure Encrypted Virtualization (SEV)", "SEV firmware version"),
    *("Encrypted State (SEV-ES)", "SEV-ES initialized", "SEV initialized"),
    *("Secure Nested Paging (SEV-SNP)", "VM Permission Levels", "Number of VMPLs", "SNP"),
    *("SNP initialized", "RMP table addresses", "RMP table initialized", "Alias check"),
    *("Physical address bit reduction", "C-bit location"),
    "Number of encrypted guests supported simultaneously",
    "Minimum ASID value for SEV-enabled, SEV-ES disabled guest",
    *("/dev/sev readable", "/dev/sev writable", "Page flush MSR", "KVM supported"),
    *("SEV enabled in KVM", "SEV-ES enabled in KVM", "SEV-SNP enabled in KVM"),
    *("Memlock resource limit", "Comparing TCB values"),
}


def results(facts: HostFacts) -> dict[str, Result]:
    return {one.check.name: one for one in examine(facts, decide(facts), CATALOGUE)}


def failed(facts: HostFacts) -> set[str]:
    return {name for name, one in results(facts).items() if one.verdict is Verdict.FAIL}


def test_names_are_unique_and_parents_come_first() -> None:
    names = [check.name for check in CATALOGUE]
    assert len(set(names)) == len(names)
    for index, check in enumerate(CATALOGUE):
        assert re.fullmatch(r"[a-z-]+\.[a-z-]+", check.name)
        assert not check.parent or check.parent in names[:index]
        assert not check.needs or check.fix
        assert check.source


def test_every_check_of_snphost_is_made() -> None:
    assert {check.snphost for check in CATALOGUE if check.snphost} == SNPHOST


def test_a_healthy_host_fails_nothing_but_sev_es_beside_snp(
    facts_of: Callable[..., HostFacts],
) -> None:
    for preset in ("milan", "genoa", "bergamo", "siena", "turin", "turin-dense"):
        assert failed(facts_of(preset)) == {"sev-es.beside-snp"}
    assert failed(facts_of("rome-es")) == {"cpu.sev-snp"}


@pytest.mark.parametrize(
    ("of_capabilities", "of_node", "verdict"),
    [
        (None, None, Verdict.SKIP),
        (51, None, Verdict.PASS),
        (None, 51, Verdict.PASS),
        (51, 51, Verdict.PASS),
        (47, None, Verdict.WARN),
        (None, 47, Verdict.WARN),
        (51, 47, Verdict.WARN),
        (None, 0, Verdict.WARN),
    ],
)
def test_a_c_bit_of_libvirts_that_is_another_is_told(
    of_capabilities: int | None,
    of_node: int | None,
    verdict: Verdict,
    facts_of: Callable[..., HostFacts],
) -> None:
    facts = facts_of("genoa")
    if of_capabilities is not None:
        sev = SevCapabilities(supported=True, cbitpos=of_capabilities)
        said = DomainCapabilities("/q", "kvm", "q35", "x86_64", None, None, sev, ())
        facts = replace(facts, domain_capabilities=Known(said))
    if of_node is not None:
        facts = replace(facts, node_sev=Known(NodeSev(of_node, 1, None, None)))
    found = results(facts)["libvirt.c-bit"]
    assert found.verdict is verdict
    assert bool(found.fix) is (verdict is Verdict.WARN)
    if verdict is Verdict.WARN:
        assert found.detail == "CPUID has 51"
    unread = replace(facts, cpuid=Unreadable(Cause.FAILED, "cpuid"))
    assert results(unread)["libvirt.c-bit"].verdict is Verdict.SKIP


#: The checks that fail of each defect on Genoa, beside SEV-ES' own where SNP is initialised.
FAILS: Final = {
    "smee-off": {"bios.smee", "bios.rmp", "kvm.sev", "kvm.sev-es", "kvm.sev-snp", "asids.sev"},
    "smmlock-off": {"bios.smm-lock"},
    "svm-off": {"bios.svm", "kvm.module"},
    "zero-es-asids": {"asids.encrypted-state", "kvm.sev-es", "kvm.sev-snp", "sev-es.beside-snp"},
    "all-asids-es": {"asids.sev"},
    "rmp-not-reserved": {"bios.rmp", "firmware.sev-snp", "kvm.sev-snp"},
    "iommu-off": {"kernel.iommu", "kvm.sev-snp", "firmware.sev-snp"},
    "iommu-snp-off": {"bios.iommu-snp", "kvm.sev-snp", "firmware.sev-snp"},
    "iommu-passthrough": {"kernel.iommu", "kvm.sev-snp", "firmware.sev-snp"},
    "kvm-amd-not-loaded": {"kvm.module"},
    "kvm-sev-off": {"kvm.sev", "kvm.sev-es", "kvm.sev-snp"},
    "kvm-es-off": {"kvm.sev-es", "kvm.sev-snp"},
    "kvm-snp-off": {"kvm.sev-snp"},
    "old-kernel": {"kernel.release"},
    "no-psp": {"firmware.device"},
    "psp-dead": {"firmware.answers"},
    "sev-init-failed": {"firmware.sev", "kvm.sev"},
    "snp-init-failed": {"firmware.sev", "firmware.sev-snp", "kvm.sev-snp"},
    "snp-firmware-too-old": {"firmware.version", "firmware.sev-snp", "kvm.sev-snp"},
    "es-blocked-by-firmware": {"sev-es.beside-snp"},
}


@pytest.mark.parametrize(("defect", "names"), FAILS.items())
def test_a_defect_fails_the_check_that_is_about_it(
    defect: str, names: set[str], facts_of: Callable[..., HostFacts]
) -> None:
    found = results(facts_of("genoa", defect))
    for name in names:
        assert found[name].verdict is Verdict.FAIL, (name, found[name])
        assert found[name].fix or not found[name].check.needs


@pytest.mark.parametrize(
    ("preset", "defect", "name", "verdict"),
    [
        ("genoa", "no-alias-check", "firmware.alias-check", Verdict.WARN),
        ("genoa", "firmware-update-pending", "firmware.tcb", Verdict.WARN),
        ("naples", "asids-exhausted", "asids.free", Verdict.WARN),
        ("genoa", "sev-unreadable", "firmware.sev", Verdict.SKIP),
        ("genoa", "sev-unreadable", "firmware.version", Verdict.SKIP),
        ("genoa", "psp-init-deferred", "firmware.sev", Verdict.PASS),
        ("genoa", "psp-init-deferred", "firmware.sev-es", Verdict.SKIP),
        ("genoa", "no-misc-controller", "asids.sev", Verdict.PASS),
        ("genoa", "no-misc-controller", "asids.free", Verdict.SKIP),
    ],
)
def test_what_is_no_failure_is_not_called_one(
    preset: str, defect: str, name: str, verdict: Verdict, facts_of: Callable[..., HostFacts]
) -> None:
    assert results(facts_of(preset, defect))[name].verdict is verdict


def test_a_check_that_passes_never_hides_a_no(facts_of: Callable[..., HostFacts]) -> None:
    for name, defect in DEFECTS.items():
        # A thousand guests change nothing here, and are slow to write.
        full = name == "asids-exhausted"
        for preset in sorted(defect.applies_to & ({"naples"} if full else {"rome-es", "genoa"})):
            facts = facts_of(preset, name)
            found, checks = decide(facts), results(facts)
            for technology in Technology:
                needed = [one for one in checks.values() if technology in one.check.needs]
                bad = [one for one in needed if one.verdict is Verdict.FAIL]
                if found.of(technology).state is State.USABLE:
                    assert not bad, (preset, name, technology, bad)
                else:
                    assert bad, (preset, name, technology)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_host_can_be_examined(preset: str, facts_of: Callable[..., HostFacts]) -> None:
    found = results(facts_of(preset))
    assert len(found) == len(CATALOGUE)
    for one in found.values():
        assert one.value or one.detail
        assert "{" not in one.detail + one.fix
