"""When the agent probes and publishes while nothing fails."""

from __future__ import annotations

import dataclasses
import statistics
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import pytest

from node_agent.agent import ONCE_MORE, SOON, Rhythm
from sevkit.kubevirt.labels import encode_node_word

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.host.capability import Capabilities
    from tests.unit.node_agent.conftest import Life

DAY: Final = 24 * 3600.0
#: No re-assertion within any test that uses it.
NEVER_WHOLE: Final = Rhythm(whole=1e9)


def test_the_first_step_waits_and_then_everything_is_published_once(
    live: Callable[..., Life], found_on: Callable[..., Capabilities]
) -> None:
    life = live()
    first = life.agent.step(0)
    assert 0 < first <= 120
    assert life.place.recalls == 0, "before its moment nothing is asked"
    life.run(130)
    ((when, word, whole),) = life.place.publications
    assert 0 <= when <= 120
    assert whole
    assert word == encode_node_word(found_on("genoa"))
    assert life.place.recalls == 1


def test_nothing_is_written_in_a_day_without_a_change(live: Callable[..., Life]) -> None:
    life = live(rhythm=NEVER_WHOLE)
    life.run(DAY)
    assert len(life.place.publications) == 1
    assert len(life.witness.words) == 1
    assert life.witness.probed_count == len(life.host.probes)


def test_probes_are_a_minute_apart_more_or_less(live: Callable[..., Life]) -> None:
    life = live()
    life.run(DAY)
    gaps = [b - a for a, b in pairwise(life.host.probes)]
    assert min(gaps) >= 48
    assert max(gaps) <= 72
    assert 58 < statistics.mean(gaps) < 62
    assert len({round(gap, 3) for gap in gaps}) > len(gaps) / 2, "by chance, not in step"


def test_everything_is_said_again_within_six_hours_more_or_less(live: Callable[..., Life]) -> None:
    life = live()
    life.run(30 * DAY)
    times = [when for when, _, _ in life.place.publications]
    gaps = [b - a for a, b in pairwise(times)]
    assert min(gaps) >= 6 * 3600 * 0.8
    assert max(gaps) <= 6 * 3600 * 1.2
    assert len(set(gaps)) == len(gaps)
    assert all(whole for _, _, whole in life.place.publications)
    assert all(word == life.place.word for _, word, _ in life.place.publications)
    assert life.news == []


def test_a_thousand_agents_begin_evenly_over_two_minutes(live: Callable[..., Life]) -> None:
    found = live().host.found
    begun = []
    for seed in range(1000):
        life = live(found, seed=seed)
        life.run(120)
        begun += [when for when, _, _ in life.place.publications]
    assert len(begun) == 1000
    shares = [sum(part <= when < part + 20 for when in begun) for part in range(0, 120, 20)]
    # 166.7 each; four standard deviations of a fair spread are 47.
    assert all(abs(share - 1000 / 6) < 47 for share in shares), shares


def test_without_a_spread_it_begins_at_once(live: Callable[..., Life]) -> None:
    life = live(rhythm=Rhythm(spread=0))
    life.agent.step(5)
    assert len(life.place.publications) == 1


def test_a_change_is_published_by_the_probe_that_finds_it(
    live: Callable[..., Life], found_on: Callable[..., Capabilities]
) -> None:
    life = live()
    life.run(DAY / 8)
    life.host.found = found_on("genoa", "kvm-snp-off")
    changed = life.now
    life.run(72)
    when, word, whole = life.place.publications[-1]
    assert changed <= when <= changed + 72
    assert word.labels["sevkit.io/sev-snp"] == "false"
    assert not whole
    assert len(life.place.publications) == 2


def test_a_change_does_not_put_off_the_next_whole_word(
    live: Callable[..., Life], found_on: Callable[..., Capabilities]
) -> None:
    life = live()
    hosts = [found_on("genoa"), found_on("genoa", "kvm-snp-off")]
    for hour in range(24):
        life.host.found = hosts[hour % 2]
        life.run(3600)
    wholes = [when for when, _, whole in life.place.publications if whole]
    assert len(wholes) >= 4
    assert max(b - a for a, b in pairwise(wholes)) <= 6 * 3600 * 1.2


def test_a_new_kubelet_is_told_soon_and_once_more(live: Callable[..., Life]) -> None:
    life = live(rhythm=NEVER_WHOLE)
    life.run(DAY / 24)
    life.is_kubelet_new = True
    life.run(300)
    seen = next(when for when in life.host.probes if when >= DAY / 24)
    _, (first, _, is_first_whole), (second, _, is_second_whole) = life.place.publications
    assert is_first_whole
    assert is_second_whole
    assert SOON[0] <= first - seen <= SOON[1]
    assert ONCE_MORE[0] <= second - first <= ONCE_MORE[1]
    life.run(DAY)
    assert len(life.place.publications) == 3


def test_a_kubelet_that_starts_again_and_again_is_told_each_time(
    live: Callable[..., Life],
) -> None:
    life = live(rhythm=NEVER_WHOLE)
    life.run(3600)
    for _ in range(10):
        life.is_kubelet_new = True
        life.run(600)
    assert len(life.place.publications) == 1 + 2 * 10


def test_hurrying_probes_now(live: Callable[..., Life]) -> None:
    life = live()
    life.run(1000.5)
    before = len(life.host.probes)
    life.agent.hurry()
    life.agent.step(life.now)
    assert len(life.host.probes) == before + 1


def test_stepping_too_often_does_nothing_more(live: Callable[..., Life]) -> None:
    life = live()
    life.run(200)
    before = (len(life.host.probes), len(life.place.publications))
    due = life.agent.step(life.now)
    for _ in range(100):
        assert life.agent.step(life.now) == due
    assert (len(life.host.probes), len(life.place.publications)) == before


def test_a_clock_that_jumps_ahead_costs_one_of_each(live: Callable[..., Life]) -> None:
    """A machine that slept for days probes once and says it once."""
    life = live()
    life.run(200)
    before = (len(life.host.probes), len(life.place.publications))
    life.now += 10 * DAY
    life.run(1)
    assert (len(life.host.probes), len(life.place.publications)) == (before[0] + 1, before[1] + 1)


def test_numbers_that_are_not_published_are_no_news(live: Callable[..., Life]) -> None:
    life = live(rhythm=NEVER_WHOLE)
    life.run(200)
    found = life.host.found
    assert not isinstance(found, Exception)
    for guests in range(50):
        used = dataclasses.replace(found.sev_asids, in_use=guests)
        life.host.found = dataclasses.replace(found, sev_asids=used)
        life.run(60)
    assert len(life.place.publications) == 1


def test_what_a_probe_raises_keeps_everything(live: Callable[..., Life]) -> None:
    life = live()
    life.run(200)
    word = life.place.word
    life.host.found = ZeroDivisionError("a bug")
    life.run(DAY)
    assert life.place.word == word
    assert all(published == word for _, published, _ in life.place.publications)
    assert len(life.witness.probe_failures) > 1000
    assert any(when > 4 * 3600 for when, _, _ in life.place.publications), "still said again"


def test_a_host_that_was_never_probed_well_publishes_nothing(live: Callable[..., Life]) -> None:
    life = live(OSError("nothing works"))
    life.run(DAY)
    assert life.place.publications == []
    assert life.place.recalls == 0
    assert len(life.host.probes) > 1000


@pytest.mark.parametrize("seed", range(5))
def test_a_host_that_recovers_from_raising_is_published_at_its_next_probe(
    live: Callable[..., Life], found_on: Callable[..., Capabilities], seed: int
) -> None:
    life = live(OSError("not yet"), seed=seed)
    life.run(3600)
    life.host.found = found_on("milan")
    life.run(72)
    assert life.place.word.labels["sevkit.io/product"] == "milan"
