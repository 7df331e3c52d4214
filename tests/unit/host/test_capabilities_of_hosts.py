"""Every host that is simulated, and every way in which it can be broken, with what it can do.

The answers are worked out from how Linux and the firmware behave, not from what our code said:
each row below is what an administrator would find on such a machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from sevkit.host.capabilities import decide
from sevkit.host.capability import State, Technology
from sevkit.host.probe import probe_host
from sevkit.host.reasons import Reason
from sevkit.host.sources import open_host
from sevkit.testing.host.booting import boot
from sevkit.testing.host.defects import DEFECTS, with_defects
from sevkit.testing.host.presets import PRESETS
from sevkit.testing.host.tree import File, Link, render_tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sevkit.host.facts import HostFacts
    from sevkit.testing.host.spec import HostSpec

OK: Final = "usable"
NO_ES: Final = "absent no-silicon"
ES_ZERO: Final = "unusable no-encrypted-state-asids"
CVE: Final = "unusable es-open-to-cve-2025-48514"
REFUSED: Final = "unusable es-refused-beside-snp"
NO_SEV_ASIDS: Final = "unusable no-sev-asids"


class Answer(NamedTuple):
    """State and reason of SEV, SEV-ES and SEV-SNP; "usable" alone is both."""

    sev: str
    es: str
    snp: str


def off(reason: str) -> Answer:
    """Return that one reason disables all three."""
    return Answer(*[f"disabled {reason}"] * 3)


#: What each healthy machine can do.
HEALTHY: Final = {
    "naples": Answer(OK, NO_ES, NO_ES),
    "rome": Answer(OK, ES_ZERO, NO_ES),
    "rome-es": Answer(OK, OK, NO_ES),
    **dict.fromkeys(
        ("milan", "genoa", "bergamo", "siena", "turin", "turin-dense"), Answer(OK, CVE, OK)
    ),
    "virtual-machine": Answer(*["absent virtual-machine"] * 3),
    "intel": Answer(*["absent not-amd"] * 3),
    "arm64": Answer(*["absent not-x86"] * 3),
}
SILENT: Final = Answer(*["unusable firmware-silent"] * 3)
#: What each defect makes of a machine that has SEV-SNP.
ON_SNP: Final = {
    "bios-off": off("smee-off"),
    "smee-off": off("smee-off"),
    "smmlock-off": off("smm-unlocked"),
    "svm-off": off("svm-off"),
    "zero-es-asids": Answer(OK, ES_ZERO, ES_ZERO),
    "all-asids-es": Answer(NO_SEV_ASIDS, CVE, OK),
    # Without SNP there is nothing beside SEV-ES that could open it to anything.
    "rmp-not-reserved": Answer(OK, OK, "disabled rmp-not-reserved"),
    "rmp-too-small": Answer(OK, OK, "disabled rmp-too-small"),
    "iommu-off": Answer(OK, OK, "disabled iommu-off"),
    "iommu-snp-off": Answer(OK, OK, "disabled iommu-snp-off"),
    "iommu-passthrough": Answer(OK, OK, "disabled iommu-passthrough"),
    "iommu-v2-pagetables": Answer(OK, OK, "disabled iommu-v2-page-tables"),
    "kvm-amd-not-loaded": off("kvm-amd-not-loaded"),
    "kvm-sev-off": off("kvm-sev-off"),
    "kvm-es-off": Answer(OK, "disabled kvm-es-off", "disabled kvm-es-off"),
    # The firmware has SNP initialised all the same.
    "kvm-snp-off": Answer(OK, CVE, "disabled kvm-snp-off"),
    "npt-off": off("npt-off"),
    "lbrv-off": Answer(OK, "disabled lbrv-off", "disabled lbrv-off"),
    "mmio-caching-off": Answer(OK, "disabled mmio-caching-off", "disabled mmio-caching-off"),
    "psp-init-deferred": Answer(OK, CVE, OK),
    "old-kernel": Answer(OK, OK, "disabled kernel-too-old"),
    "int-parameters-kernel": Answer(OK, OK, "disabled kernel-too-old"),
    "no-psp": off("no-secure-processor"),
    "psp-silent": SILENT,
    "psp-dead": SILENT,
    "sev-init-failed": off("firmware-init-failed"),
    "snp-init-failed": Answer(
        "disabled held-back-by-snp", "disabled held-back-by-snp", "disabled snp-init-failed"
    ),
    "snp-firmware-too-old": Answer(
        "disabled held-back-by-snp", "disabled held-back-by-snp", "disabled firmware-too-old"
    ),
    "es-open-to-cve": Answer(OK, CVE, OK),
    "es-blocked-by-firmware": Answer(OK, REFUSED, OK),
    "es-revoked-by-kernel": Answer(OK, REFUSED, OK),
    "firmware-update-pending": Answer(OK, CVE, OK),
    "no-alias-check": Answer(OK, CVE, OK),
    "ciphertext-hiding": Answer(OK, CVE, OK),
    "ciphertext-hiding-all": Answer(OK, "unusable asids-hidden", OK),
    "no-misc-controller": Answer(OK, CVE, OK),
    "cgroup-v1": Answer(OK, CVE, OK),
    "sev-unreadable": Answer(OK, "unusable es-beside-snp", OK),
    "guests-running": Answer(OK, CVE, OK),
    "asids-exhausted": Answer(OK, CVE, OK),
}
#: What each defect makes of SEV on the older machines; None leaves it usable.
ON_OLD: Final = {
    "bios-off": "disabled smee-off",
    "smee-off": "disabled smee-off",
    "smmlock-off": "disabled smm-unlocked",
    "svm-off": "disabled svm-off",
    "kvm-amd-not-loaded": "disabled kvm-amd-not-loaded",
    "kvm-sev-off": "disabled kvm-sev-off",
    "npt-off": "disabled npt-off",
    "no-psp": "disabled no-secure-processor",
    "psp-silent": "unusable firmware-silent",
    "psp-dead": "unusable firmware-silent",
    "sev-init-failed": "disabled firmware-init-failed",
    "all-asids-es": NO_SEV_ASIDS,
}
#: SEV-ES of Rome where it is not as SEV: (without ASIDs for it, set up for it).
ROME_ES: Final = {
    "all-asids-es": (OK, OK),
    "zero-es-asids": (ES_ZERO, ES_ZERO),
    "kvm-es-off": (ES_ZERO, "disabled kvm-es-off"),
    "mmio-caching-off": (ES_ZERO, "disabled mmio-caching-off"),
    # Nothing is known of the firmware's that the missing ASIDs would not say first.
    **dict.fromkeys(("no-psp", "psp-silent", "psp-dead", "sev-init-failed"), (ES_ZERO, "")),
}


def expected(preset: str, defect: str) -> Answer:
    if preset not in {"naples", "rome", "rome-es"}:
        return ON_SNP.get(defect, HEALTHY[preset]) if PRESETS[preset].firmware else HEALTHY[preset]
    healthy, sev = HEALTHY[preset], ON_OLD.get(defect, OK)
    if preset == "naples":
        return healthy._replace(sev=sev)
    chosen = ROME_ES.get(defect, ("", ""))[preset == "rome-es"]
    inherited = sev if defect in ON_OLD and defect != "all-asids-es" else healthy.es
    return healthy._replace(sev=sev, es=chosen or inherited)


CASES: Final = [
    *((preset, ()) for preset in PRESETS),
    *((preset, (name,)) for name, one in DEFECTS.items() for preset in sorted(one.applies_to)),
]


def write(spec: HostSpec, root: Path) -> None:
    """Write a host without its pods' cgroups, of which a full one has a thousand."""
    for path, entry in render_tree(spec, boot(spec)).items():
        place = root / path
        if "kubepods-burstable-pod" in path:
            continue
        if isinstance(entry, File):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(entry.data)
        elif isinstance(entry, Link):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(entry.target)
        else:
            place.mkdir(parents=True, exist_ok=True)


@pytest.mark.parametrize(
    ("preset", "defects"), CASES, ids=["-".join([preset, *names]) for preset, names in CASES]
)
def test_every_host_is_told_right(preset: str, defects: tuple[str, ...], tmp_path: Path) -> None:
    write(with_defects(preset, defects), tmp_path / "host")
    with open_host(str(tmp_path / "host")) as source:
        found = decide(probe_host(source))
    answer = expected(preset, *defects) if defects else HEALTHY[preset]
    for technology, words in zip(Technology, answer, strict=True):
        capability = found.of(technology)
        state, _, reason = words.partition(" ")
        assert (capability.state, capability.reason) == (state, reason or OK), technology
        assert capability.explanation
        assert bool(capability.hint) is (state != OK)
        assert bool(capability.guests) is (state == OK)
    assert found.simulated


def test_every_defect_is_in_the_table() -> None:
    assert set(ON_SNP) == {
        name for name, one in DEFECTS.items() if one.applies_to & {"genoa", "turin"}
    }
    assert {state for answer in [*HEALTHY.values(), *ON_SNP.values()] for state in answer}


#: What a defect leaves of guests: (SEV, SEV-ES, SEV-SNP), by what the BIOS' limits say.
GUESTS: Final = {
    ("naples",): (15, 0, 0),
    ("rome",): (509, 0, 0),
    ("rome-es",): (410, 99, 0),
    ("milan",): (382, 0, 127),
    ("genoa",): (754, 0, 252),
    ("siena",): (907, 0, 99),
    ("turin-dense",): (497, 0, 509),
    ("milan", "iommu-off"): (382, 127, 0),
    ("milan", "zero-es-asids"): (509, 0, 0),
    ("milan", "all-asids-es"): (0, 0, 509),
    ("turin", "ciphertext-hiding"): (907, 0, 33),
    ("turin", "ciphertext-hiding-all"): (907, 0, 99),
    ("turin", "no-misc-controller"): (907, 0, 99),
}


@pytest.mark.parametrize(("host", "guests"), GUESTS.items())
def test_guests_are_as_many_as_there_are_asids(
    host: tuple[str, ...], guests: tuple[int, ...], facts_of: Callable[..., HostFacts]
) -> None:
    found = decide(facts_of(*host))
    assert tuple(found.of(one).guests for one in Technology) == guests


def test_what_was_read_is_carried_along(facts_of: Callable[..., HostFacts]) -> None:
    found = decide(facts_of("turin", "firmware-update-pending", "guests-running"))
    assert found.product == "turin"
    assert str(found.firmware_version) == "1.55.61"
    assert found.current_tcb is not None
    assert found.reported_tcb is not None
    assert (found.current_tcb.snp, found.reported_tcb.snp) == (3, 2)
    assert (found.c_bit, found.reduced_phys_bits) == (51, 6)
    assert (found.sev_asids.total, found.sev_asids.in_use, found.sev_asids.free) == (907, 2, 905)
    assert (found.encrypted_state.total, found.encrypted_state.in_use) == (99, 3)
    assert (found.sev_snp_asids.in_use, found.sev_es_asids.in_use) == (3, 0)


@pytest.mark.parametrize(
    ("preset", "product"),
    [
        ("bergamo", "bergamo"),
        ("siena", "siena"),
        ("genoa", "genoa"),
        ("turin-dense", "turin-dense"),
    ],
)
def test_products_are_told_apart_by_socket(
    preset: str, product: str, facts_of: Callable[..., HostFacts]
) -> None:
    assert decide(facts_of(preset)).product == product


def test_an_operator_may_give_sev_es_some_asids_beside_snp(
    facts_of: Callable[..., HostFacts],
) -> None:
    facts = facts_of("milan")
    found = decide(facts, allow_sev_es_beside_snp=27)
    assert (found.sev_es.state, found.sev_es.guests) == (State.USABLE, 27)
    assert (found.sev_snp.state, found.sev_snp.guests) == (State.USABLE, 100)
    every = decide(facts, allow_sev_es_beside_snp=1000)
    assert every.sev_es.guests == 127
    assert every.sev_snp.reason is Reason.ASIDS_GIVEN_TO_ES


def test_firmware_that_refuses_sev_es_is_not_talked_over(
    facts_of: Callable[..., HostFacts],
) -> None:
    found = decide(facts_of("milan", "es-blocked-by-firmware"), allow_sev_es_beside_snp=27)
    assert found.sev_es.reason is Reason.ES_REFUSED_BESIDE_SNP
    assert found.sev_snp.guests == 127


def test_firmware_that_was_not_read_may_refuse_sev_es(facts_of: Callable[..., HostFacts]) -> None:
    found = decide(facts_of("milan", "sev-unreadable"), allow_sev_es_beside_snp=27)
    assert (found.sev_es.state, found.sev_es.reason) == (State.UNKNOWN, Reason.ES_FIRMWARE_UNREAD)
    assert found.sev_snp.guests == 127


def test_ciphertext_hiding_splits_before_the_operator_does(
    facts_of: Callable[..., HostFacts],
) -> None:
    found = decide(facts_of("turin", "ciphertext-hiding"), allow_sev_es_beside_snp=10)
    assert (found.sev_es.guests, found.sev_snp.guests) == (10, 33)
    assert (found.sev_es_asids.total, found.sev_snp_asids.total) == (66, 33)


def test_an_intel_node_is_absent_with_its_maker_named(facts_of: Callable[..., HostFacts]) -> None:
    assert "GenuineIntel" in decide(facts_of("intel")).sev.explanation
