"""Patience is with sources: each keeps its last value for two probes, and a value is believed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest

from node_agent.steadiness import PATIENCE, Steadiness
from sevkit.host.capabilities import decide
from sevkit.host.probe import probe_host
from sevkit.host.reading import Cause, Known, Unreadable
from sevkit.host.sources import open_host
from sevkit.testing.host import PRESETS, with_defects, write_host

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sevkit.host.facts import HostFacts

LOST: Final = Unreadable(Cause.FAILED, "/it: Input/output error")


@pytest.fixture
def facts_of(tmp_path: Path) -> Callable[..., HostFacts]:
    def probe(preset: str, *defects: str) -> HostFacts:
        root = tmp_path / "-".join((preset, *defects))
        write_host(with_defects(preset, list(defects)) if defects else PRESETS[preset], root)
        with open_host(str(root)) as source:
            return probe_host(source)

    return probe


@pytest.fixture
def good(facts_of: Callable[..., HostFacts]) -> HostFacts:
    return facts_of("genoa")


@pytest.fixture
def lost(good: HostFacts) -> HostFacts:
    """CPUID, the firmware and one of KVM's parameters cannot be read."""
    modules = replace(good.modules, sev_snp=LOST)
    return replace(good, cpuid=LOST, firmware=LOST, modules=modules)


def test_what_is_read_is_believed_at_once(
    good: HostFacts, facts_of: Callable[..., HostFacts]
) -> None:
    steadiness = Steadiness()
    for found in (good, facts_of("genoa", "kvm-snp-off"), good, facts_of("milan"), good):
        assert decide(steadiness.settle(found)) == decide(found)


def test_what_cannot_be_read_is_held_until_the_third_probe(
    good: HostFacts, lost: HostFacts
) -> None:
    assert PATIENCE == 3
    steadiness = Steadiness()
    steadiness.settle(good)
    assert [decide(steadiness.settle(lost)) == decide(good) for _ in range(5)] == [
        *(True, True),
        *(False, False, False),
    ]
    assert steadiness.settle(lost) == lost


def test_a_value_in_between_begins_the_counting_anew(good: HostFacts, lost: HostFacts) -> None:
    steadiness = Steadiness()
    steadiness.settle(good)
    for _ in range(4):
        for found in (lost, lost, good):
            assert decide(steadiness.settle(found)) == decide(good)


def test_a_reason_that_is_only_coarser_does_not_come_and_go(good: HostFacts) -> None:
    """Without the firmware the reason of SEV-ES is another one, though it is known as well."""
    glitch = replace(good, firmware=LOST)
    assert decide(glitch).sev_es.reason != decide(good).sev_es.reason
    steadiness = Steadiness()
    for found in (good, glitch, good, glitch, glitch, good):
        assert decide(steadiness.settle(found)) == decide(good)


def test_what_was_never_read_is_not_made_up(lost: HostFacts) -> None:
    assert Steadiness().settle(lost) == lost


def test_each_source_has_its_own_patience(good: HostFacts) -> None:
    steadiness = Steadiness()
    steadiness.settle(good)
    steadiness.settle(replace(good, cpuid=LOST))
    steadiness.settle(replace(good, cpuid=LOST, firmware=LOST))
    found = steadiness.settle(replace(good, cpuid=LOST, firmware=LOST))
    assert found.cpuid == LOST
    assert found.firmware == good.firmware


def test_a_source_that_is_held_does_not_hold_up_another(
    good: HostFacts, facts_of: Callable[..., HostFacts]
) -> None:
    steadiness = Steadiness()
    steadiness.settle(good)
    changed = replace(facts_of("genoa", "kvm-snp-off"), cpuid=LOST)
    found = steadiness.settle(changed)
    assert found.modules.sev_snp == Known(value=False)
    assert found.cpuid == good.cpuid
    assert decide(found).sev_snp.state.label is False


def test_a_secure_processor_that_was_given_up_is_a_fact_and_is_believed_at_once(
    good: HostFacts,
) -> None:
    silent = replace(good, firmware=Unreadable(Cause.SILENT, "/dev/sev: Connection timed out"))
    steadiness = Steadiness()
    steadiness.settle(good)
    assert steadiness.settle(silent) == silent
    # Nor does what it said before come back, when it cannot even be asked.
    lost = replace(good, firmware=LOST)
    assert [steadiness.settle(lost) for _ in range(PATIENCE)] == [silent, silent, lost]
    assert steadiness.settle(good) == good
