"""An agent's world in memory: a host, somewhere to publish, someone who watches, and a clock."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

import pytest

from node_agent.agent import Agent, Rhythm
from sevkit.host.capabilities import decide
from sevkit.host.probe import probe_host
from sevkit.host.sources import open_host
from sevkit.kubevirt.labels import NodeWord
from sevkit.testing.host import with_defects, write_host

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sevkit.cluster.errors import Contested
    from sevkit.cluster.events import Event
    from sevkit.errors import SevkitError
    from sevkit.host.capability import Capabilities


@pytest.fixture(scope="session")
def found_on(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Capabilities]:
    """Return what a simulated host can do, as the agent finds out; each host is written once."""
    known: dict[tuple[str, ...], Capabilities] = {}

    def find(preset: str, *defects: str) -> Capabilities:
        if (preset, *defects) not in known:
            root = tmp_path_factory.mktemp("host")
            write_host(with_defects(preset, defects), root)
            with open_host(str(root)) as source:
                known[preset, *defects] = decide(probe_host(source))
        return known[preset, *defects]

    return find


@final
@dataclass
class Host:
    """What the next probes find, or raise; and when there were probes."""

    found: Capabilities | Exception
    probes: list[float] = field(default_factory=list)


@final
@dataclass
class Place:
    """A sink that remembers what is published, when it was told what, and fails when asked to."""

    now: float = 0.0
    word: NodeWord = field(default_factory=NodeWord)
    publications: list[tuple[float, NodeWord, bool]] = field(default_factory=list)
    attempts: list[float] = field(default_factory=list)
    recalls: int = 0
    told: list[Event] = field(default_factory=list)
    contested: tuple[Contested, ...] = ()
    failure: SevkitError | None = None
    is_done_all_the_same: bool = False
    tell_failure: SevkitError | None = None
    #: How many events can be told before that fails.
    tells: int = 0

    def recall(self) -> NodeWord:
        self.recalls += 1
        self._fail()
        return self.word

    def holds(self, word: NodeWord) -> bool:
        return self.word == word

    def publish(self, word: NodeWord, *, whole: bool) -> tuple[Contested, ...]:
        if self.is_done_all_the_same:
            self.word = word
        self._fail()
        self.word = word
        self.publications.append((self.now, word, whole))
        return self.contested

    def tell(self, event: Event) -> None:
        if self.tell_failure is not None and len(self.told) >= self.tells:
            raise self.tell_failure
        self.told.append(event)

    def _fail(self) -> None:
        if self.failure is not None:
            self.attempts.append(self.now)
            raise self.failure


@final
@dataclass
class Witness:
    """An observer that keeps everything."""

    probed_count: int = 0
    probe_failures: list[Exception] = field(default_factory=list)
    words: list[tuple[NodeWord, tuple[Contested, ...]]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    untold: list[SevkitError] = field(default_factory=list)

    def probed(self, found: Capabilities) -> None:
        self.probed_count += 1

    def probe_failed(self, error: Exception) -> None:
        self.probe_failures.append(error)

    def published(self, word: NodeWord, contested: Sequence[Contested]) -> None:
        self.words.append((word, tuple(contested)))

    def happened(self, event: Event) -> None:
        self.events.append(event)

    def publish_failed(self, error: SevkitError, wait: float) -> None:
        self.waits.append(wait)

    def tell_failed(self, error: SevkitError) -> None:
        self.untold.append(error)


@final
class Life:
    """One agent after the other on one host, driven by a clock."""

    def __init__(self, found: Capabilities | Exception, rhythm: Rhythm, seed: int) -> None:
        self.host = Host(found)
        self.place = Place()
        self.witness = Witness()
        self.now = 0.0
        self.is_kubelet_new = False
        self._rhythm = rhythm
        self._seed = seed
        self.agent = self._agent()

    def _agent(self) -> Agent:
        return Agent(
            self._probe,
            self.place,
            self.witness,
            random=random.Random(self._seed),  # noqa: S311  # a schedule, not a key
            rhythm=self._rhythm,
            is_kubelet_new=self._kubelet,
        )

    def _probe(self) -> Capabilities:
        self.host.probes.append(self.now)
        if isinstance(self.host.found, Exception):
            raise self.host.found
        return self.host.found

    def _kubelet(self) -> bool:
        was, self.is_kubelet_new = self.is_kubelet_new, False
        return was

    @property
    def news(self) -> list[str]:
        """The reasons of what was told, less what a first install complains of: SEV-ES."""
        return [one.reason for one in self.place.told if one.reason != "CapabilityMissing"]

    def restart(self) -> None:
        """Be another process on the same host, with nothing but what is published."""
        self._seed += 1
        self.witness = Witness()
        self.agent = self._agent()

    def run(self, seconds: float) -> None:
        """Do everything that falls due within ``seconds``."""
        end = self.now + seconds
        while self.now <= end:
            self.place.now = self.now
            due = self.agent.step(self.now)
            assert due > self.now, "what was due is done"
            self.now = due
        self.now = end


@pytest.fixture
def live(found_on: Callable[..., Capabilities]) -> Callable[..., Life]:
    """Return an agent on a host, a healthy Genoa unless another one is given."""

    def start(
        found: Capabilities | Exception | None = None,
        *,
        rhythm: Rhythm | None = None,
        seed: int = 1,
    ) -> Life:
        return Life(found or found_on("genoa"), rhythm or Rhythm(), seed)

    return start
