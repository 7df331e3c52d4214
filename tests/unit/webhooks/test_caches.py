from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Self, final

import pytest

from sevkit.cluster.errors import Forbidden, NotFound, Unreachable
from sevkit.kubevirt.installation import UNKNOWN
from sevkit.kubevirt.tiers import Tier
from webhooks.caches import SILENCE_SECONDS, Caches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sevkit.cluster.api import Call
    from sevkit.documents import Json
    from sevkit.errors import SevkitError

PATIENCE: Final = 10.0
ONE: Final = frozenset({Tier.SEV})
BOTH: Final = frozenset({Tier.SEV, Tier.SNP})
SEV: Final = dict.fromkeys(("kubevirt.io/schedulable", "kubevirt.io/sev", "sevkit.io/sev"), "true")
SNP: Final = SEV | dict.fromkeys(("kubevirt.io/sev-snp", "sevkit.io/sev-snp"), "true")
SIMULATED: Final = SNP | {"sevkit.io/simulated": "true"}


def node(name: str, labels: dict[str, str], version: str = "2") -> dict[str, Json]:
    metadata: dict[str, Json] = {"name": name, "resourceVersion": version}
    return {"metadata": metadata | {"labels": dict[str, "Json"](labels)}}


def kubevirt(name: str = "kubevirt", version: str = "v1.9.0", space: str = "k") -> dict[str, Json]:
    metadata: dict[str, Json] = {"name": name, "namespace": space, "resourceVersion": "2"}
    return {"metadata": metadata, "spec": {}, "status": {"observedKubeVirtVersion": version}}


@final
class Wired:
    """An API server with two collections, whose lists and lines a test says while it is watched."""

    def __init__(self) -> None:
        self.lists: dict[str, list[Json] | Exception] = {"nodes": [], "kubevirts": []}
        self.lines: dict[str, queue.SimpleQueue[Json | Exception]] = {
            kind: queue.SimpleQueue() for kind in self.lists
        }
        self.interrupted = threading.Event()
        self.hangs = False
        self.calls: list[str] = []

    def call(self, call: Call) -> Json:
        kind = self._kind(call)
        found = self.lists[kind]
        if self.hangs:
            self.interrupted.wait()
            raise Unreachable("API server hung up")
        if isinstance(found, Exception):
            raise found
        return {"metadata": {"resourceVersion": "1"}, "items": found}

    @contextlib.contextmanager
    def stream(self, call: Call, *, idle: float) -> Iterator[Iterator[Json]]:
        yield self._lines(self.lines[self._kind(call)])

    def _lines(self, lines: queue.SimpleQueue[Json | Exception]) -> Iterator[Json]:
        while True:
            line = lines.get()
            if isinstance(line, Exception):
                raise line
            yield line

    def _kind(self, call: Call) -> str:
        kind = call.path.rpartition("/")[2]
        self.calls.append(kind)
        return kind

    def interrupt(self) -> None:
        self.interrupted.set()
        for lines in self.lines.values():
            lines.put(Unreachable("API server hung up"))

    def say(self, kind: str, event: str, document: Json) -> None:
        self.lines[kind].put({"type": event, "object": document})

    def bookmark(self, kind: str) -> None:
        self.say(kind, "BOOKMARK", {"metadata": {"resourceVersion": "9"}})


@final
class Told:
    """A tally that remembers."""

    def __init__(self) -> None:
        self.lists: list[tuple[str, int]] = []
        self.words: list[str] = []
        self.counts: dict[str, int] = {}
        self.errors: list[tuple[str, SevkitError]] = []

    def listed(self, kind: str, objects: int) -> None:
        self.lists.append((kind, objects))

    def heard(self, kind: str, objects: int) -> None:
        self.words.append(kind)
        self.counts[kind] = objects

    def failed(self, kind: str, error: SevkitError) -> None:
        self.errors.append((kind, error))


@final
class Scene:
    """Caches of a scripted API server, on a clock that a test turns."""

    def __init__(self) -> None:
        self.server = Wired()
        self.told = Told()
        self.now = 0.0
        self.caches = Caches(self.server, tally=self.told, clock=lambda: self.now)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.caches.stop()

    def until(self, holds: Callable[[], Any]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, self.caches.problems()
            time.sleep(0.002)

    def start(self) -> None:
        self.caches.start()
        self.until(lambda: self.caches.is_settled)

    def real(self) -> frozenset[Tier] | None:
        return self.caches.runnable(simulated=False)


@pytest.fixture
def scene() -> Iterator[Scene]:
    with Scene() as made:
        yield made


def test_before_the_first_list_nothing_is_known(scene: Scene) -> None:
    assert scene.real() is None
    assert scene.caches.installation is UNKNOWN
    assert not scene.caches.is_settled
    assert scene.caches.problems() == ("nodes: not listed yet", "kubevirts: not listed yet")


def test_no_node_is_known_to_be_no_node(scene: Scene) -> None:
    scene.server.lists["kubevirts"] = [kubevirt()]
    scene.start()
    assert scene.real() == frozenset()
    scene.until(lambda: scene.caches.problems() == ())
    assert sorted(scene.told.lists) == [("kubevirts", 1), ("nodes", 0)]


def test_nodes_come_change_and_go(scene: Scene) -> None:
    scene.server.lists["nodes"] = [node("a", SEV), node("b", {})]
    scene.start()
    assert scene.real() == ONE
    scene.server.say("nodes", "MODIFIED", node("b", SNP))
    scene.until(lambda: scene.real() == BOTH)
    scene.until(lambda: scene.told.counts["nodes"] == 2)
    scene.server.say("nodes", "MODIFIED", node("b", {}))
    scene.until(lambda: scene.real() == ONE)
    scene.server.say("nodes", "DELETED", node("a", SEV))
    scene.until(lambda: scene.real() == frozenset())
    assert scene.told.lists.count(("nodes", 1)) == 1  # nodes that can run nothing are not kept


def test_simulated_nodes_count_for_those_who_want_them(scene: Scene) -> None:
    scene.server.lists["nodes"] = [node("a", SEV), node("b", SIMULATED)]
    scene.start()
    assert scene.real() == ONE
    assert scene.caches.runnable(simulated=True) == BOTH


def test_the_one_kubevirt_says_what_is_installed(scene: Scene) -> None:
    scene.server.lists["kubevirts"] = [kubevirt()]
    scene.start()
    assert scene.caches.installation.version == (1, 9, 0)
    scene.server.say("kubevirts", "MODIFIED", kubevirt(version="v1.9.1"))
    scene.until(lambda: scene.caches.installation.version == (1, 9, 1))


def test_none_or_several_say_nothing_and_are_named(scene: Scene) -> None:
    scene.start()
    assert scene.caches.installation is UNKNOWN
    scene.until(lambda: scene.caches.problems() == ("kubevirts: there is no KubeVirt object",))
    for number in range(5):
        scene.server.say("kubevirts", "ADDED", kubevirt(f"kv-{number}"))
    several = "kubevirts: more than one KubeVirt: k/kv-0, k/kv-1, k/kv-2 and 2 more"
    scene.until(lambda: scene.caches.problems() == (several,))
    assert scene.caches.installation is UNKNOWN
    for number in range(4):
        scene.server.say("kubevirts", "DELETED", kubevirt(f"kv-{number}"))
    scene.until(lambda: scene.caches.installation.version == (1, 9, 0))
    assert scene.caches.problems() == ()


def test_after_a_long_silence_nothing_is_known_and_one_word_is_enough(scene: Scene) -> None:
    scene.server.lists.update({"nodes": [node("a", SEV)], "kubevirts": [kubevirt()]})
    scene.start()
    scene.until(lambda: not scene.caches.problems())
    scene.now = SILENCE_SECONDS
    assert scene.real() == ONE
    scene.now += 1
    assert scene.real() is None
    assert scene.caches.installation is UNKNOWN
    assert scene.caches.problems() == (
        "nodes: nothing heard of for 600 s",
        "kubevirts: nothing heard of for 600 s",
    )
    scene.server.bookmark("nodes")
    scene.until(lambda: scene.real() == ONE)
    assert scene.caches.installation is UNKNOWN
    assert scene.caches.is_settled


def test_each_bookmark_puts_the_silence_off(scene: Scene) -> None:
    scene.server.lists["nodes"] = [node("a", SEV)]
    scene.start()
    for minute in range(1, 30):
        scene.now = minute * 60.0
        scene.told.words.clear()
        scene.server.bookmark("nodes")
        scene.until(lambda: "nodes" in scene.told.words)
        assert scene.real() == ONE


def test_what_was_deleted_during_a_break_is_gone_after_it(scene: Scene) -> None:
    scene.server.lists["nodes"] = [node("a", SEV), node("b", SNP)]
    scene.start()
    scene.server.lists["nodes"] = [node("a", SEV)]
    scene.server.say("nodes", "ERROR", {"kind": "Status", "code": 410, "message": "too old"})
    scene.until(lambda: scene.real() == ONE)
    assert scene.told.lists.count(("nodes", 2)) == 1


def test_a_break_is_a_problem_and_leaves_what_is_known(scene: Scene) -> None:
    scene.server.lists["nodes"] = [node("a", SEV)]
    scene.server.lists["kubevirts"] = [kubevirt()]
    scene.start()
    scene.until(lambda: not scene.caches.problems())
    scene.server.lines["nodes"].put(Unreachable("API server hung up"))
    problem = ("nodes: not watched now: API server hung up",)
    scene.until(lambda: scene.caches.problems() == problem)
    assert scene.real() == ONE
    scene.until(lambda: not scene.caches.problems())
    assert [(kind, error.message) for kind, error in scene.told.errors] == [
        ("nodes", "API server hung up")
    ]


def test_a_missing_right_is_a_problem_and_not_an_empty_cluster(scene: Scene) -> None:
    scene.server.lists["nodes"] = Forbidden(403, said="cannot list nodes")
    scene.caches.start()
    scene.until(lambda: scene.told.errors)
    assert scene.real() is None
    assert not scene.caches.is_settled
    assert "nodes: not listed yet: API server forbids" in scene.caches.problems()[0]
    assert "cannot list nodes" in scene.caches.problems()[0]


def test_a_cluster_without_kubevirt_is_settled_and_says_so(scene: Scene) -> None:
    scene.server.lists["kubevirts"] = NotFound(404)
    scene.start()
    assert scene.caches.installation is UNKNOWN
    assert "does not have it" in " ".join(scene.caches.problems())
    scene.server.lists["kubevirts"] = Unreachable("API server hung up")
    scene.until(lambda: "hung up" in " ".join(scene.caches.problems()))
    assert scene.caches.is_settled


def test_a_bug_does_not_end_a_watch_unseen(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.server.lists["nodes"] = RuntimeError("a bug")
    with caplog.at_level(logging.CRITICAL):
        scene.caches.start()
        scene.until(lambda: scene.told.errors)
    assert "internal error, a bug" in caplog.text
    assert scene.real() is None
    assert "nodes: not listed yet: internal error" in scene.caches.problems()[0]


def test_changes_are_told_once_and_heartbeats_never(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "sevkit.webhooks.caches"):
        scene.server.lists["nodes"] = [node("a", SEV)]
        scene.start()
        scene.until(lambda: len(caplog.records) == 2)
        for number in range(20):
            scene.server.say("nodes", "MODIFIED", node("a", SEV, str(number + 3)))
        scene.until(lambda: scene.told.words.count("nodes") == 21)
    assert [record.getMessage() for record in caplog.records] == ["watched"] * 2


@pytest.mark.parametrize("hangs", [True, False], ids=["in a list", "in a watch"])
def test_stopping_ends_a_read_that_hangs(scene: Scene, hangs: bool) -> None:
    scene.server.hangs = hangs
    scene.caches.start()
    scene.until(lambda: {"nodes", "kubevirts"} <= set(scene.server.calls))
    begun = time.monotonic()
    assert scene.caches.stop()
    assert time.monotonic() - begun < 1
    assert not scene.told.errors  # nobody is told of the end that was asked for


def test_stopping_ends_a_wait(scene: Scene) -> None:
    scene.server.lists["nodes"] = Forbidden(403, retry_after=100)
    scene.caches.start()
    scene.until(lambda: scene.told.errors)
    assert scene.caches.stop()


def test_caches_that_never_started_stop(scene: Scene) -> None:
    assert scene.caches.stop()


def test_as_a_context_they_start_and_stop() -> None:
    server = Wired()
    with Caches(server) as caches:
        assert isinstance(caches.problems(), tuple)
    assert server.interrupted.is_set()
    assert not {thread.name for thread in threading.enumerate()} & {"watch-nodes"}
