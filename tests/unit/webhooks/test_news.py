from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

import pytest

from sevkit.cluster.errors import Forbidden
from webhooks.news import ACCEPTED, REFUSED, PolicyNews, policy_event

if TYPE_CHECKING:
    from sevkit.cluster.events import Event
    from sevkit.errors import SevkitError


class Scene:
    """A policy file, people, and a clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.problem = ""
        self.wrong: SevkitError | None = None
        self.tried = 0
        self.told: list[tuple[float, Event]] = []
        self.news = PolicyNews(
            self.tell,
            lambda: self.problem,
            clock=lambda: self.now,
            random=random.Random(7),  # noqa: S311  # a schedule, not a key
        )

    def tell(self, event: Event) -> None:
        self.tried += 1
        if self.wrong:
            raise self.wrong
        self.told.append((self.now, event))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += self.news.step()

    @property
    def reasons(self) -> list[str]:
        return [event.reason for _, event in self.told]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_of_a_good_file_nothing_is_said(scene: Scene) -> None:
    scene.run(7200)
    assert scene.tried == 0


def test_a_broken_file_is_told_at_once_and_again_within_an_api_servers_hour(scene: Scene) -> None:
    scene.problem = "policy: cpuModell: is not known"
    scene.run(5)
    ((_, event),) = scene.told
    assert (event.reason, event.kind) == (REFUSED, "Warning")
    assert scene.problem in event.note
    assert "last good one stays in force" in event.note
    scene.run(7200)
    assert 3 <= len(scene.told) <= 6
    assert {event for _, event in scene.told} == {event}
    times = [moment for moment, _ in scene.told]
    assert all(later - earlier < 3000 for earlier, later in itertools.pairwise(times))


def test_that_it_is_mended_is_told_once(scene: Scene) -> None:
    scene.problem = "bad"
    scene.run(60)
    scene.problem = ""
    scene.run(7200)
    assert scene.reasons == [REFUSED, ACCEPTED]


def test_another_problem_is_another_event_and_there_is_time_between_them(scene: Scene) -> None:
    for number in range(60):
        scene.problem = f"bad {number}"
        scene.run(5)
    assert 9 <= len(scene.told) <= 11


def test_what_was_mended_before_it_could_be_told_is_not(scene: Scene) -> None:
    scene.wrong = Forbidden(403)
    scene.problem = "bad"
    scene.run(60)
    scene.problem, scene.wrong = "", None
    scene.run(3600)
    assert scene.told == []


def test_an_api_server_that_does_not_take_it_is_asked_ever_more_rarely(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.problem, scene.wrong = "bad", Forbidden(403)
    scene.run(3600)
    assert 60 <= scene.tried <= 140
    assert [record.getMessage() for record in caplog.records] == ["events cannot be told"]
    scene.wrong = None
    scene.run(65)
    assert scene.reasons == [REFUSED]


def test_without_a_policy_before_it_the_webhook_does_not_start() -> None:
    event = policy_event("bad", serves=False)
    assert "does not start" in event.note
