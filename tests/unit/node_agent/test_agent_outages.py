"""What the agent does while it cannot publish, or may not publish all of it."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import pytest

from node_agent.agent import Rhythm
from node_agent.backoff import Backoff
from sevkit.cluster.errors import Contested, Forbidden, ServerFault, TooMany, Unreachable
from sevkit.errors import ClusterError
from sevkit.host.capability import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.errors import SevkitError
    from sevkit.host.capability import Capabilities
    from tests.unit.node_agent.conftest import Life

DAY: Final = 24 * 3600.0
CAP: Final = Backoff().cap
DOWN: Final = Unreachable("API server cannot be reached")
LABEL: Final = Contested(".metadata.labels.sevkit.io/sev", "kubectl-label")


def test_retries_come_ever_more_rarely_up_to_the_cap(live: Callable[..., Life]) -> None:
    life = live(rhythm=Rhythm(spread=0))
    life.place.failure = DOWN
    life.run(DAY)
    gaps = [b - a for a, b in pairwise(life.place.attempts)]
    assert 1 <= gaps[0] <= 2
    for number, gap in enumerate(gaps[:8]):
        assert min(CAP, 2.0 * 2**number) / 2 <= gap <= min(CAP, 2.0 * 2**number)
    assert all(CAP / 2 <= gap <= CAP for gap in gaps[8:])
    assert len({round(gap, 3) for gap in gaps[8:]}) > len(gaps[8:]) / 2, "jittered"
    assert len(life.place.attempts) < DAY / (CAP / 2) + 10


def test_probes_go_on_during_an_outage(live: Callable[..., Life]) -> None:
    life = live()
    life.place.failure = DOWN
    life.run(DAY)
    assert life.witness.probed_count > DAY / 72 - 1


def test_after_an_outage_the_newest_state_is_published_and_no_older_one(
    live: Callable[..., Life], found_on: Callable[..., Capabilities]
) -> None:
    life = live()
    life.run(200)
    life.place.failure = DOWN
    for defects in (("kvm-snp-off",), ("smee-off",), (), ("iommu-off",)):
        life.host.found = found_on("genoa", *defects)
        life.run(3600)
    assert len(life.place.publications) == 1
    life.place.failure = None
    life.run(CAP)
    assert len(life.place.publications) == 2
    assert '"iommu-off"' in life.place.word.annotations["sevkit.io/capabilities"]


def test_an_outage_that_ends_as_it_began_repeats_what_is_published_and_is_no_news(
    live: Callable[..., Life], found_on: Callable[..., Capabilities]
) -> None:
    """Whether what failed meanwhile was done all the same is not known."""
    life = live(rhythm=Rhythm(whole=1e9))
    life.run(200)
    life.place.failure = DOWN
    life.host.found = found_on("genoa", "smee-off")
    life.run(600)
    life.host.found = found_on("genoa")
    life.run(100)
    life.place.failure = None
    life.run(3600)
    first, second = life.place.publications
    assert first[1] == second[1]
    assert life.news == []


def test_what_was_published_without_our_knowing_does_not_stay(
    live: Callable[..., Life], found_on: Callable[..., Capabilities]
) -> None:
    """The answer was lost, and the host is as it was before."""
    life = live(rhythm=Rhythm(whole=1e9))
    life.run(200)
    life.place.failure, life.place.is_done_all_the_same = DOWN, True
    life.host.found = found_on("genoa", "kvm-snp-off")
    life.run(72)
    assert life.place.word.labels["sevkit.io/sev-snp"] == "false"
    life.host.found = found_on("genoa")
    life.place.failure, life.place.is_done_all_the_same = None, False
    life.run(CAP)
    assert life.place.word.labels["sevkit.io/sev-snp"] == "true"


def test_what_was_found_out_during_an_outage_is_not_forgotten(
    live: Callable[..., Life], found_on: Callable[..., Capabilities]
) -> None:
    """A no that could not be published, after which nothing can be read, is still a no."""
    for restarts in (False, True):
        life = live()
        life.run(200)
        life.place.failure = DOWN
        if restarts:
            life.restart()
        no = found_on("genoa", "kvm-snp-off")
        life.host.found = no
        life.run(200)
        unread = dataclasses.replace(no.sev_snp, state=State.UNKNOWN)
        life.host.found = dataclasses.replace(no, sev_snp=unread)
        life.run(3600)
        life.place.failure = None
        life.run(CAP)
        assert life.place.word.labels["sevkit.io/sev-snp"] == "false"
        assert life.place.word.capacity["sevkit.io/sev-snp"] == "0"
        assert '"unknown"' in life.place.word.annotations["sevkit.io/capabilities"]


def test_success_ends_the_backing_off(live: Callable[..., Life]) -> None:
    life = live()
    life.place.failure = DOWN
    life.run(7200)
    life.place.failure = None
    life.run(CAP)
    life.place.failure = DOWN
    life.place.attempts.clear()
    life.is_kubelet_new = True
    life.run(100)
    assert life.place.attempts[1] - life.place.attempts[0] <= 2


@pytest.mark.parametrize("seconds", [1, 30, 900, 86400])
def test_retry_after_is_kept_and_stretched_a_little(
    live: Callable[..., Life], seconds: int
) -> None:
    life = live(rhythm=Rhythm(spread=0))
    life.place.failure = TooMany(429, retry_after=float(seconds))
    life.run(3 * DAY)
    gaps = [b - a for a, b in pairwise(life.place.attempts)]
    assert min(gaps) >= seconds
    assert max(gaps) <= max(1.2 * seconds, CAP)


@pytest.mark.parametrize(
    "failure", [Forbidden(403), ServerFault(500), TooMany(429), ClusterError("any other")]
)
def test_no_kind_of_failure_loses_what_is_published(
    live: Callable[..., Life], found_on: Callable[..., Capabilities], failure: SevkitError
) -> None:
    life = live()
    life.run(200)
    word = life.place.word
    life.place.failure = failure
    life.host.found = found_on("genoa", "smee-off")
    life.run(7200)
    assert life.place.word == word
    life.place.failure = None
    life.run(CAP)
    assert life.place.word.labels["sevkit.io/sev"] == "false"


def test_a_whole_word_that_fails_is_said_whole_when_it_can_be(live: Callable[..., Life]) -> None:
    life = live()
    life.run(200)
    life.place.failure = DOWN
    life.run(8 * 3600)
    assert len(life.place.publications) == 1
    life.place.failure = None
    life.run(CAP)
    assert [whole for _, _, whole in life.place.publications] == [True, True]


def test_a_recall_that_fails_is_tried_again_and_nothing_is_published_before_it(
    live: Callable[..., Life], found_on: Callable[..., Capabilities]
) -> None:
    life = live()
    life.run(200)
    life.restart()
    life.place.recalls = 0
    unknown = found_on("genoa", "sev-unreadable")
    life.host.found = unknown
    life.place.failure = DOWN
    life.run(3600)
    assert life.place.recalls > 1
    life.place.failure = None
    life.run(CAP)
    assert "sevkit.io/firmware-version" in life.place.word.labels, "recalled, and not lost"
    recalls = life.place.recalls
    life.run(DAY)
    assert life.place.recalls == recalls


def test_a_kubelets_sign_during_an_outage_is_not_forgotten(live: Callable[..., Life]) -> None:
    life = live(rhythm=Rhythm(whole=1e9))
    life.run(200)
    life.place.failure = DOWN
    life.is_kubelet_new = True
    life.run(3600)
    life.place.failure = None
    life.run(CAP + 150)
    assert len(life.place.publications) == 3


def test_contested_keys_are_told_once_and_not_fought(
    live: Callable[..., Life], found_on: Callable[..., Capabilities]
) -> None:
    life = live(rhythm=Rhythm(whole=1e9))
    life.place.contested = (LABEL,)
    life.run(DAY)
    assert len(life.place.publications) == 1
    assert life.news == ["KeysContested"]
    life.host.found = found_on("genoa", "kvm-snp-off")
    life.run(DAY)
    assert life.news == ["KeysContested", "CapabilityLost"]
    assert life.witness.words[-1][1] == (LABEL,)


def test_other_contested_keys_are_told_too(
    live: Callable[..., Life], found_on: Callable[..., Capabilities]
) -> None:
    life = live(rhythm=Rhythm(whole=1e9))
    life.place.contested = (LABEL,)
    life.run(DAY)
    life.place.contested = (LABEL, Contested(".status.capacity.sevkit.io/sev", "someone"))
    life.host.found = found_on("genoa", "kvm-snp-off")
    life.run(DAY)
    assert life.news.count("KeysContested") == 2
    assert "(someone)" in life.place.told[-1].note


def test_contested_keys_are_tried_and_told_again_with_the_whole_word(
    live: Callable[..., Life],
) -> None:
    life = live()
    life.place.contested = (LABEL,)
    life.run(DAY)
    wholes = [whole for _, _, whole in life.place.publications]
    assert all(wholes)
    assert life.news == ["KeysContested"] * len(wholes)
    life.place.contested = ()
    life.run(6 * 3600 * 1.2 + 1)
    before = len(life.place.told)
    life.run(DAY)
    assert len(life.place.told) == before
    assert life.witness.words[-1][1] == ()


def test_events_that_cannot_be_told_are_told_with_the_next_publication(
    live: Callable[..., Life], found_on: Callable[..., Capabilities]
) -> None:
    life = live()
    life.run(200)
    life.place.tell_failure = DOWN
    life.host.found = found_on("genoa", "kvm-snp-off")
    life.run(80)
    assert life.witness.untold == [DOWN]
    assert life.place.word.labels["sevkit.io/sev-snp"] == "false", "published all the same"
    life.place.tell_failure = None
    life.host.found = found_on("genoa")
    life.run(80)
    assert life.news == ["CapabilityLost", "CapabilityGained"]


def test_events_that_were_told_are_not_told_again_with_those_that_were_not(
    live: Callable[..., Life], found_on: Callable[..., Capabilities]
) -> None:
    life = live(found_on("milan", "smee-off"))
    life.place.tell_failure, life.place.tells = DOWN, 1
    life.run(200)
    assert len(life.place.told) == 1
    life.place.tell_failure = None
    life.host.found = found_on("milan")
    life.run(80)
    notes = [event.note for event in life.place.told]
    assert len(notes) == len(set(notes))
    assert [event.reason for event in life.place.told[:3]] == ["CapabilityMissing"] * 3


def test_events_that_can_never_be_told_do_not_pile_up(
    live: Callable[..., Life], found_on: Callable[..., Capabilities]
) -> None:
    life = live()
    life.place.tell_failure = Forbidden(403)
    for number in range(60):
        life.host.found = found_on("genoa", *(["kvm-snp-off"] if number % 2 else []))
        life.run(80)
    life.place.tell_failure = None
    life.run(8 * 3600)
    assert 1 <= len(life.place.told) <= 16
    assert life.place.told[-1].reason == "CapabilityLost", "the newest are kept"
