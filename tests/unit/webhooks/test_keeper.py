from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.cluster.errors import Conflict, Forbidden, TooMany, Unreachable
from sevkit.secret import Secret
from webhooks.keeper import Keeper
from webhooks.rotation import Terms
from webhooks.tls import Pair

if TYPE_CHECKING:
    from sevkit.errors import ClusterError, SevkitError

PAIR: Final = Pair(b"certificate", Secret(b"key"))


class Custody:
    """Does what a test says: an error is raised, None gives the pair."""

    def __init__(self) -> None:
        self.wrong: SevkitError | None = None
        self.trouble: ClusterError | None = None
        self.passes = 0

    def read(self) -> Pair:
        self.passes += 1
        if self.wrong:
            raise self.wrong
        return PAIR


class Scene:
    def __init__(self, terms: Terms) -> None:
        self.custody = Custody()
        self.offered: list[Pair] = []
        self.told: list[SevkitError | None] = []
        self.keeper = Keeper(
            self.custody,
            self.offered.append,
            terms,
            told=self.told.append,
            random=random.Random(7),  # noqa: S311  # a schedule, not a key
        )

    def steps(self, count: int) -> list[float]:
        return [self.keeper.step() for _ in range(count)]


@pytest.fixture
def scene() -> Scene:
    return Scene(Terms())


def test_a_pass_a_minute_and_no_two_replicas_in_step(scene: Scene) -> None:
    rests = scene.steps(100)
    assert 48 <= min(rests) < 50
    assert 70 < max(rests) <= 72
    assert scene.offered == [PAIR] * 100
    assert scene.told == []


def test_short_terms_are_looked_after_more_often() -> None:
    scene = Scene(Terms(timedelta(hours=4), timedelta(hours=1), timedelta(seconds=40)))
    assert max(scene.steps(20)) <= 4.8


def test_failures_come_ever_more_rarely_and_are_told_once(scene: Scene) -> None:
    scene.custody.wrong = Unreachable("API server hung up")
    rests = scene.steps(12)
    assert 0.5 <= rests[0] <= 1
    assert 30 <= rests[-1] <= 60
    assert scene.told == [scene.custody.wrong]
    assert scene.offered == []
    scene.custody.wrong = Forbidden(403)
    scene.steps(2)
    assert len(scene.told) == 2
    scene.custody.wrong = None
    assert scene.steps(2)[0] >= 48
    assert scene.told[2:] == [None]
    scene.custody.wrong = Forbidden(403)
    assert scene.steps(1)[0] <= 1, "what was over begins anew"
    assert len(scene.told) == 4


def test_a_busy_api_server_is_left_alone_for_as_long_as_it_asks(scene: Scene) -> None:
    scene.custody.wrong = TooMany(429, retry_after=100)
    assert scene.steps(1)[0] >= 100


def test_that_the_other_was_faster_is_no_trouble_unless_it_always_is(scene: Scene) -> None:
    scene.custody.wrong = Conflict(409)
    scene.steps(4)
    assert scene.told == []
    scene.steps(1)
    assert scene.told == [scene.custody.wrong]


def test_a_bundle_that_cannot_be_written_is_told_while_the_pair_is_served(scene: Scene) -> None:
    scene.custody.trouble = Forbidden(403)
    assert scene.steps(1)[0] <= 1
    assert scene.offered == [PAIR]
    assert scene.told == [scene.custody.trouble]
    scene.custody.trouble = None
    scene.steps(1)
    assert scene.told[1:] == [None]
