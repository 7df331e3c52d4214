"""What the agent knows of itself after a restart, and what it holds on to within one life."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

import pytest

from node_agent.agent import Rhythm
from sevkit.cluster.errors import Unreachable
from sevkit.host.capabilities import decide
from sevkit.host.capability import State
from sevkit.host.probe import probe_host
from sevkit.host.sources import open_host
from sevkit.kubevirt.labels import CAPABILITIES, encode_node_word
from sevkit.testing.host import PRESETS, write_host

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sevkit.host.capability import Capabilities
    from tests.unit.node_agent.conftest import Life

DAY: Final = 24 * 3600.0


@pytest.fixture
def half(tmp_path: Path) -> Capabilities:
    """A healthy Genoa of which half the sources cannot be read."""
    write_host(PRESETS["genoa"], tmp_path / "host")
    for path in ("cpuid.json", "firmware.json", "sys/fs/cgroup/misc.capacity", "proc/cpuinfo"):
        (tmp_path / "host" / path).write_bytes(b"\0\xff garbage")
    with open_host(str(tmp_path / "host")) as source:
        found = decide(probe_host(source))
    assert {found.sev.state, found.sev_snp.state} == {State.UNKNOWN}
    return found


@pytest.fixture
def glitch(half: Capabilities, found_on: Callable[..., Capabilities]) -> Capabilities:
    """A healthy Genoa that cannot say of SEV, of SEV-SNP and of its firmware how they are."""
    return dataclasses.replace(
        found_on("genoa"),
        sev=half.sev,
        sev_snp=half.sev_snp,
        sev_asids=half.sev_asids,
        firmware_version=None,
        current_tcb=None,
        snp_initialized=None,
    )


def test_a_restart_without_a_change_writes_and_says_nothing(live: Callable[..., Life]) -> None:
    life = live(rhythm=Rhythm(whole=1e9))
    life.run(200)
    for _ in range(3):
        life.restart()
        life.run(3600)
    assert len(life.place.publications) == 1
    assert life.news == []
    assert len(life.witness.words) == 1, "and is ready"
    assert life.witness.events == []


def test_a_restart_on_a_broken_host_does_not_complain_again(
    live: Callable[..., Life], found_on: Callable[..., Capabilities]
) -> None:
    life = live(found_on("milan", "smee-off"))
    life.run(200)
    told = list(life.place.told)
    assert [event.reason for event in told] == ["CapabilityMissing"] * 3
    life.restart()
    life.run(DAY)
    assert life.place.told == told


def test_a_change_that_happened_while_no_agent_ran_is_told(
    live: Callable[..., Life], found_on: Callable[..., Capabilities]
) -> None:
    life = live()
    life.run(200)
    life.host.found = found_on("genoa", "kvm-snp-off")
    life.restart()
    life.run(200)
    assert life.news == ["CapabilityLost"]


def test_a_restart_still_says_the_whole_word_after_hours(live: Callable[..., Life]) -> None:
    life = live()
    life.run(200)
    life.restart()
    life.run(6 * 3600 * 1.2 + 121)
    assert len(life.place.publications) == 2


def test_a_restart_with_half_the_sources_unreadable_loses_no_key(
    live: Callable[..., Life], half: Capabilities
) -> None:
    life = live()
    life.run(200)
    before = life.place.word
    life.host.found = half
    life.restart()
    life.run(DAY)
    after = life.place.word
    assert (after.labels, after.capacity) == (before.labels, before.capacity)
    assert '"unknown"' in after.annotations[CAPABILITIES]
    # Of SEV-ES less is known than before, but still enough for a no.
    assert life.news == ["CapabilityUnknown", "CapabilityChanged", "CapabilityUnknown"]


def test_a_real_host_inherits_nothing_from_a_rehearsal_on_it(
    live: Callable[..., Life], half: Capabilities
) -> None:
    life = live()
    life.run(200)
    assert life.place.word.labels["sevkit.io/sev-snp"] == "true"
    real = dataclasses.replace(half, simulated=False)
    life.host.found = real
    life.restart()
    life.run(200)
    assert life.place.word == encode_node_word(real)
    assert not {"sevkit.io/sev", "sevkit.io/sev-snp"} & life.place.word.labels.keys()


def test_a_first_install_claims_nothing_of_what_cannot_be_read(
    live: Callable[..., Life], half: Capabilities
) -> None:
    life = live(half)
    life.run(200)
    assert not {"sevkit.io/sev", "sevkit.io/sev-snp"} & set(life.place.word.labels)
    assert life.place.word.capacity == {"sevkit.io/sev-es": "0"}
    assert life.news == []


def test_what_can_no_longer_be_read_is_told_and_its_keys_stay(
    live: Callable[..., Life], glitch: Capabilities
) -> None:
    life = live(rhythm=Rhythm(whole=1e9))
    life.run(200)
    before = life.place.word
    life.host.found = glitch
    seen = len(life.host.probes)
    life.run(250)
    (_, _, _), (when, word, _) = life.place.publications
    assert when == life.host.probes[seen], "patience is with the sources, before they are judged"
    assert word.labels == before.labels
    assert life.news == ["CapabilityUnknown"] * 2


def test_once_publishes_without_patience_or_spread(
    live: Callable[..., Life], half: Capabilities, found_on: Callable[..., Capabilities]
) -> None:
    life = live()
    assert life.agent.publish_once() == encode_node_word(found_on("genoa"))
    ((_, _, whole),) = life.place.publications
    assert whole
    life.restart()
    life.host.found = half
    word = life.agent.publish_once()
    assert '"unknown"' in word.annotations[CAPABILITIES]
    assert life.place.word == word
    assert life.place.word.labels["sevkit.io/sev"] == "true"
    # Of SEV-ES less is known than before, but still enough for a no.
    assert life.news == ["CapabilityUnknown", "CapabilityChanged", "CapabilityUnknown"]


def test_once_finds_that_there_is_nothing_to_do(live: Callable[..., Life]) -> None:
    life = live()
    life.agent.publish_once()
    life.restart()
    life.agent.publish_once()
    assert len(life.place.publications) == 1
    assert len(life.witness.words) == 1


def test_once_raises_what_it_cannot_do(live: Callable[..., Life]) -> None:
    life = live()
    life.place.failure = Unreachable("API server cannot be reached")
    with pytest.raises(Unreachable):
        life.agent.publish_once()
    life.place.failure = None
    life.host.found = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        life.agent.publish_once()


def test_once_is_done_when_it_is_published_whether_events_can_be_told_or_not(
    live: Callable[..., Life], found_on: Callable[..., Capabilities]
) -> None:
    life = live()
    life.host.found = found_on("genoa", "kvm-snp-off")
    life.place.tell_failure = Unreachable("API server cannot be reached")
    life.agent.publish_once()
    assert life.place.word
    assert life.witness.untold == [life.place.tell_failure]
