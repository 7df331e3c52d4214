"""The node agent's one state machine: when to probe, when to publish, and what. No I/O, no clock.

Theory of operation. ``step(now)`` does what is due at ``now``, in seconds of any clock that only
goes forward, and returns when it wants to be called again. Two things become due. A probe, every
``Rhythm.probe`` seconds: what it finds becomes a word together with the last one, of which
nothing is dropped that merely could not be read. And a publication: if the word is another than
the one that is published, or when the whole of it has to be said again, because nobody watches
whether it is still there. A publication that fails is tried again, ever more rarely, with the
newest word.

The first of all waits for a moment of its own within ``Rhythm.spread``: a roll-out starts
thousands of agents at once. It begins with ``Sink.recall``, once. When the kubelet has started
anew the word is said again soon and once more a little later, because the kubelet's registration,
which may zero it, comes before or after the sign of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, final

from node_agent.backoff import Backoff, jittered
from node_agent.news import capability_events, contested_event
from sevkit.cluster.errors import StatusError
from sevkit.errors import SevkitError
from sevkit.kubevirt.labels import NodeWord, encode_node_word

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from node_agent.sink import Sink
    from sevkit.cluster.errors import Contested
    from sevkit.cluster.events import Event
    from sevkit.host.capability import Capabilities

#: After a sign that the kubelet started: when to say it again, and when once more; seconds.
SOON: Final = (5.0, 20.0)
ONCE_MORE: Final = (60.0, 120.0)
#: Events that wait to be told while they cannot be.
_UNTOLD: Final = 16


@final
@dataclass(frozen=True, slots=True)
class Rhythm:
    """Seconds between probes and between whole words, both ± 20 %; ``spread`` is the first's."""

    probe: float = 60.0
    whole: float = 6 * 3600.0
    spread: float = 120.0
    backoff: Backoff = field(default_factory=Backoff)


class Observer(Protocol):
    """Whoever wants to know what the agent does: metrics, health and the log."""

    def probed(self, found: Capabilities) -> None:
        """Learn that a probe went well."""
        ...

    def probe_failed(self, error: Exception) -> None:
        """Learn that a probe raised, which none should: what was known stays."""
        ...

    def published(self, word: NodeWord, contested: Sequence[Contested]) -> None:
        """Learn that a word is published, by this publication or already."""
        ...

    def happened(self, event: Event) -> None:
        """Learn what is news for people."""
        ...

    def publish_failed(self, error: SevkitError, wait: float) -> None:
        """Learn that a publication failed, and is tried again after ``wait`` seconds."""
        ...

    def tell_failed(self, error: SevkitError) -> None:
        """Learn that events could not be told, until the next publication."""
        ...


@final
class Agent:
    """One node's agent. ``probe`` may raise anything, ``is_kubelet_new`` nothing."""

    def __init__(
        self,
        probe: Callable[[], Capabilities],
        sink: Sink,
        observer: Observer,
        *,
        random: Random,
        rhythm: Rhythm = Rhythm(),
        is_kubelet_new: Callable[[], bool] = lambda: False,
    ) -> None:
        self._probe: Final = probe
        self._sink: Final = sink
        self._observer: Final = observer
        self._random: Final = random
        self._rhythm: Final = rhythm
        self._is_kubelet_new: Final = is_kubelet_new
        self._found: Capabilities | None = None
        #: What is to be published: what was found, and of the rest what was known before.
        self._word: NodeWord | None = None
        #: What was published last, by us or, once it is recalled, by whoever ran here before.
        self._last: NodeWord | None = None
        #: What the sink certainly has; None after a failure, which may have published or not.
        self._published: NodeWord | None = None
        self._contested: tuple[Contested, ...] = ()
        self._untold: list[Event] = []
        self._failures = 0
        self._probe_at = -math.inf
        self._not_before: float | None = None
        self._whole_at = math.inf
        self._once_more = False

    def hurry(self) -> None:
        """Make a probe due now."""
        self._probe_at = -math.inf

    def step(self, now: float) -> float:
        """Do what is due, and return when to be called again."""
        if self._not_before is None:
            self._not_before = now + self._random.uniform(0, self._rhythm.spread)
        if now >= self._probe_at:
            self._look(now)
            self._probe_at = now + jittered(self._rhythm.probe, self._random)
        if now >= self._due():
            self._publish(now)
        return min(self._probe_at, self._due())

    def publish_once(self) -> NodeWord:
        """Probe and publish now, once. Raises ``SevkitError``."""
        self._found = found = self._probe()
        self._observer.probed(found)
        word, is_news = self._first(found)
        if is_news:
            self._say(word, found, whole=True)
            self._tell_quietly()
        return word

    def _look(self, now: float) -> None:
        try:
            found = self._probe()
        except Exception as error:  # noqa: BLE001  # a bug in a probe must not take labels down
            self._observer.probe_failed(error)
        else:
            self._observer.probed(found)
            if found != self._found:
                self._found, self._word = found, encode_node_word(found, self._word)
        if self._is_kubelet_new():
            self._whole_at = min(self._whole_at, now + self._random.uniform(*SOON))
            self._once_more = True

    def _due(self) -> float:
        """Return when there is something to publish, infinite for never."""
        if self._word is None or self._not_before is None:
            return math.inf
        is_news = self._word != self._published
        return self._not_before if is_news else max(self._whole_at, self._not_before)

    def _publish(self, now: float) -> None:
        found, word = self._found, self._word
        if found is None or word is None:  # then nothing is due either
            return
        is_whole = now >= self._whole_at
        try:
            if self._last is None:
                word, is_whole = self._first(found)
            if is_whole or word != self._published:
                self._say(word, found, whole=is_whole)
        except SevkitError as error:
            self._failures += 1
            self._published = None
            asked = error.retry_after if isinstance(error, StatusError) else None
            wait = self._rhythm.backoff.delay(self._failures, self._random, at_least=asked or 0.0)
            self._not_before = now + wait
            self._observer.publish_failed(error, wait)
            return
        self._failures, self._not_before = 0, now
        if is_whole or self._whole_at == math.inf:
            self._whole_at = now + self._next_whole()
        self._tell_quietly()

    def _first(self, found: Capabilities) -> tuple[NodeWord, bool]:
        """Recall what was published, once; return the word and whether all of it is to be said."""
        word = self._recall(found)
        if not self._sink.holds(word):
            return word, True
        self._published = word
        self._observer.published(word, ())
        return word, False

    def _recall(self, found: Capabilities) -> NodeWord:
        """Recall what was published, once, below what was found out meanwhile; return the word."""
        if self._last is None:
            self._last = self._sink.recall()
            self._word = _over(encode_node_word(found, self._last), self._word or NodeWord())
        return self._word or NodeWord()

    def _next_whole(self) -> float:
        if self._once_more:
            self._once_more = False
            return self._random.uniform(*ONCE_MORE)
        return jittered(self._rhythm.whole, self._random)

    def _say(self, word: NodeWord, found: Capabilities, *, whole: bool) -> None:
        before = self._last or NodeWord()
        contested = self._sink.publish(word, whole=whole)
        self._last = self._published = word
        self._observer.published(word, contested)
        events = list(capability_events(before, found))
        if contested and (whole or contested != self._contested):
            events.append(contested_event(contested))
        self._contested = contested
        for event in events:
            self._observer.happened(event)
        self._untold = [*self._untold, *events][-_UNTOLD:]

    def _tell_quietly(self) -> None:
        try:
            while self._untold:
                self._sink.tell(self._untold[0])
                del self._untold[0]
        except SevkitError as error:
            # Told with the next publication; an hour's silence about a tier is no lost label.
            self._observer.tell_failed(error)


def _over(before: NodeWord, word: NodeWord) -> NodeWord:
    """Return ``word``, and of ``before`` what it does not say."""
    return NodeWord(
        {**before.labels, **word.labels},
        {**before.annotations, **word.annotations},
        {**before.capacity, **word.capacity},
    )
