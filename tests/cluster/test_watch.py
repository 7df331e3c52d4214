"""Watches of a real API server, directly and over a wire that misbehaves."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import Counter
from dataclasses import replace
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Any, Final, Self, final

import pytest

from hack.cluster_pod import RBAC, node_with_pod
from hack.control_plane import ControlPlane
from sevkit.cluster.connection import Connection
from sevkit.cluster.errors import Gone
from sevkit.cluster.kinds import NODES
from sevkit.cluster.watch import (
    WATCH_SECONDS,
    Change,
    Collection,
    Contents,
    Heard,
    Opened,
    Pause,
    watch,
)
from sevkit.kubevirt.installation import UNKNOWN
from sevkit.kubevirt.tiers import Tier
from webhooks.caches import SILENCE_SECONDS, Caches

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from hack.cluster_pod import NodePod
    from hack.kubevirt_cluster import KubeVirtCluster
    from hack.wire import Wire
    from sevkit.cluster.watch import News
    from sevkit.errors import SevkitError

PATIENCE: Final = 30.0
NONE: Final[frozenset[Tier]] = frozenset()
ONE: Final = frozenset({Tier.SEV})
BOTH: Final = frozenset({Tier.SEV, Tier.SNP})
SEV: Final = dict.fromkeys(("kubevirt.io/schedulable", "kubevirt.io/sev", "sevkit.io/sev"), "true")
SNP: Final = SEV | dict.fromkeys(("kubevirt.io/sev-snp", "sevkit.io/sev-snp"), "true")
#: What the design gives the webhook for this.
RULES: Final = [
    {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list", "watch"]},
    {"apiGroups": ["kubevirt.io"], "resources": ["kubevirts"], "verbs": ["list", "watch"]},
]


@final
class Told:
    """A tally that remembers."""

    def __init__(self) -> None:
        self.lists: list[tuple[str, int]] = []
        self.errors: list[SevkitError] = []

    def listed(self, kind: str, objects: int) -> None:
        self.lists.append((kind, objects))

    def heard(self, kind: str, objects: int) -> None:
        pass

    def failed(self, kind: str, error: SevkitError) -> None:
        if kind == "nodes":
            self.errors.append(error)


@final
class Scene:
    """Caches of a pod at ``server``, on a clock that can be put forward."""

    def __init__(self, pod: NodePod, server: str) -> None:
        self.pod = pod
        self.told = Told()
        self.ahead = 0.0
        self._stack = contextlib.ExitStack()
        access = replace(pod.access, server=server)
        connection = self._stack.enter_context(Connection(access, seconds=5))
        self.caches = Caches(
            connection, tally=self.told, clock=lambda: time.monotonic() + self.ahead
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        stopped = self.caches.stop()
        self._stack.close()
        assert stopped

    @property
    def real(self) -> frozenset[Tier] | None:
        return self.caches.runnable(simulated=False)

    def until(self, holds: Callable[[], Any]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, (self.real, self.caches.problems())
            time.sleep(0.01)

    def start(self, tiers: frozenset[Tier]) -> None:
        self.caches.start()
        self.until(lambda: self.real == tiers and self.is_watched())

    def is_watched(self) -> bool:
        return not [text for text in self.caches.problems() if text.startswith("nodes")]

    def verbs(self) -> Counter[str]:
        """Count the pod's requests for nodes; a watch is in the log twice."""
        found = {event["auditID"]: event for event in self.pod.requests()}.values()
        return Counter(
            event["verb"] for event in found if event["objectRef"]["resource"] == "nodes"
        )


def allow(pod: NodePod) -> None:
    admin, name = pod.plane.admin, pod.namespace
    admin.create(f"{RBAC}/clusterroles", {"metadata": {"name": name}, "rules": RULES})
    admin.create(
        f"{RBAC}/clusterrolebindings",
        {
            "metadata": {"name": name},
            "roleRef": {"apiGroup": RBAC.split("/")[2], "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": name}],
        },
    )


def make(plane: ControlPlane, name: str, labels: dict[str, str]) -> None:
    plane.admin.create("/api/v1/nodes", {"metadata": {"name": name, "labels": labels}})


def label(plane: ControlPlane, name: str, labels: dict[str, str | None]) -> None:
    plane.admin.patch(f"/api/v1/nodes/{name}", {"metadata": {"labels": labels}})


def delete(plane: ControlPlane, name: str) -> None:
    plane.admin.delete(f"/api/v1/nodes/{name}")


@pytest.fixture
def unwatched(node_pod: NodePod, wire: Wire) -> Iterator[Scene]:
    """Caches that are not started, whose pod has no rights, of a cluster without SEV."""
    plane = node_pod.plane
    for node in plane.admin.get("/api/v1/nodes?labelSelector=sevkit.io/sev")["items"]:
        delete(plane, node["metadata"]["name"])
    with Scene(node_pod, f"https://127.0.0.1:{wire.port}") as made:
        yield made
    for node in plane.admin.get("/api/v1/nodes?labelSelector=sevkit.io/sev")["items"]:
        delete(plane, node["metadata"]["name"])


@pytest.fixture
def scene(unwatched: Scene) -> Scene:
    allow(unwatched.pod)
    unwatched.start(NONE)
    return unwatched


def test_nodes_come_change_and_go(scene: Scene, control_plane: ControlPlane) -> None:
    make(control_plane, "a", SEV)
    scene.until(lambda: scene.real == ONE)
    make(control_plane, "b", SNP)
    scene.until(lambda: scene.real == BOTH)
    label(control_plane, "b", {"kubevirt.io/schedulable": "false"})
    scene.until(lambda: scene.real == ONE)
    label(control_plane, "b", {"kubevirt.io/schedulable": "true", "sevkit.io/sev-snp": None})
    label(control_plane, "a", {"sevkit.io/simulated": "true"})
    delete(control_plane, "b")
    scene.until(lambda: scene.real == NONE)
    assert scene.caches.runnable(simulated=True) == ONE
    assert scene.verbs() == {"list": 1, "watch": 1}


def opened(
    connection: Connection, random: Random | None = None
) -> contextlib.closing[Generator[News[frozenset[str]], None, None]]:
    """Return a watch of the nodes' metadata, of which the names of their members are kept."""
    collection, clock = Collection(NODES, metadata_only=True), time.monotonic
    random = random or SystemRandom()
    return contextlib.closing(watch(connection, collection, frozenset, random=random, clock=clock))


def test_nothing_but_metadata_comes(scene: Scene, control_plane: ControlPlane) -> None:
    make(control_plane, "a", SEV)
    with Connection(scene.pod.access) as connection, opened(connection) as news:
        listed, _ = itertools.islice(news, 2)
        label(control_plane, "a", {"x": "y"})
        changed = next(news)
    members = frozenset({"apiVersion", "kind", "metadata"})
    assert isinstance(listed, Contents)
    assert set(listed.objects.values()) == {members}
    assert isinstance(changed, Change)
    assert changed.made == members


def test_an_empty_collection_is_a_list_too(scene: Scene) -> None:
    control_plane = scene.pod.plane
    for node in control_plane.admin.get("/api/v1/nodes")["items"]:
        delete(control_plane, node["metadata"]["name"])
    with Connection(scene.pod.access) as connection, opened(connection) as news:
        assert list(itertools.islice(news, 2)) == [Contents({}), Opened()]


def test_the_kubevirt_object_is_followed(
    unwatched: Scene, kubevirt_configurable: KubeVirtCluster
) -> None:
    caches = unwatched.caches
    allow(unwatched.pod)
    caches.start()
    unwatched.until(lambda: caches.installation.encryption)
    unwatched.until(lambda: not caches.problems())
    kubevirt_configurable.configure(evictionStrategy="LiveMigrate")
    unwatched.until(lambda: caches.installation.eviction_strategy == "LiveMigrate")
    assert not caches.installation.encryption
    path = "/apis/kubevirt.io/v1/namespaces/default/kubevirts"
    second = {"apiVersion": "kubevirt.io/v1", "kind": "KubeVirt", "metadata": {"name": "second"}}
    kubevirt_configurable.admin.create(path, second | {"spec": {}})
    try:
        unwatched.until(
            lambda: (
                caches.problems()
                == ("kubevirts: more than one KubeVirt: default/second, kubevirt/kubevirt",)
            )
        )
        assert caches.installation is UNKNOWN
    finally:
        kubevirt_configurable.admin.delete(f"{path}/second")
    unwatched.until(lambda: not caches.problems())
    assert caches.installation.eviction_strategy == "LiveMigrate"


def test_a_wire_that_is_held_makes_it_unknown_and_is_read_on_from_when_it_is_not(
    scene: Scene, control_plane: ControlPlane, wire: Wire
) -> None:
    make(control_plane, "a", SEV)
    scene.until(lambda: scene.real == ONE)
    wire.held.set()
    delete(control_plane, "a")
    make(control_plane, "b", SNP)
    time.sleep(0.3)
    assert scene.real == ONE
    scene.ahead += SILENCE_SECONDS
    assert scene.caches.runnable(simulated=False) is None
    assert "nodes: nothing heard of for 600 s" in scene.caches.problems()
    wire.held.clear()
    scene.until(lambda: scene.real == BOTH)


def test_a_wire_that_is_cut_leaves_no_gap(
    scene: Scene, control_plane: ControlPlane, wire: Wire
) -> None:
    make(control_plane, "a", SEV)
    make(control_plane, "b", SNP)
    scene.until(lambda: scene.real == BOTH)
    wire.cut_after = 0
    delete(control_plane, "b")
    scene.until(lambda: not scene.is_watched())
    make(control_plane, "c", SNP)
    delete(control_plane, "a")
    delete(control_plane, "c")
    time.sleep(1.0)
    assert scene.real == BOTH  # as it was, and as old as that
    wire.cut_after = None
    scene.until(lambda: scene.real == NONE)
    scene.until(scene.is_watched)
    # Gone on from, and not listed again: what happened meanwhile came as events.
    verbs = scene.verbs()
    assert verbs["list"] == 1
    assert verbs["watch"] >= 2


def test_without_rights_nothing_is_known_and_the_reason_is_told(unwatched: Scene) -> None:
    unwatched.caches.start()
    unwatched.until(lambda: unwatched.told.errors)
    assert unwatched.real is None
    assert not unwatched.caches.is_settled
    assert 'cannot list resource "nodes"' in unwatched.caches.problems()[0]
    allow(unwatched.pod)
    unwatched.until(lambda: unwatched.real == NONE)
    unwatched.until(unwatched.is_watched)


def test_neither_a_refusal_nor_peace_makes_many_requests(
    unwatched: Scene, control_plane: ControlPlane
) -> None:
    unwatched.caches.start()
    time.sleep(4)
    refused = unwatched.verbs()
    assert 2 <= refused.total() <= 5
    allow(unwatched.pod)
    unwatched.until(unwatched.is_watched)
    before = unwatched.verbs()
    for number in range(30):
        label(control_plane, unwatched.pod.node, {"number": str(number)})
    time.sleep(3)
    assert unwatched.verbs() == before


def test_stopping_ends_watches_of_a_dead_wire_at_once(scene: Scene, wire: Wire) -> None:
    wire.held.set()
    begun = time.monotonic()
    assert scene.caches.stop()
    assert time.monotonic() - begun < 1


def test_five_hundred_nodes_come_in_pages(unwatched: Scene, control_plane: ControlPlane) -> None:
    names = [f"fleet-{number}" for number in range(500)]
    for name in names:
        make(control_plane, name, SEV)
    allow(unwatched.pod)
    unwatched.start(ONE)
    assert unwatched.told.lists.count(("nodes", 500)) == 1
    verbs = unwatched.verbs()
    assert verbs["list"] >= 2
    for name in names[1:]:
        delete(control_plane, name)
    assert unwatched.real == ONE
    delete(control_plane, names[0])
    unwatched.until(lambda: unwatched.real == NONE)
    assert unwatched.verbs()["watch"] == 1


def until_pause(news: Iterator[News[frozenset[str]]]) -> list[News[frozenset[str]]]:
    found = [next(news)]
    while not isinstance(found[-1], Pause):
        found.append(next(news))
    return found


@final
class Short(Random):
    """Chance that makes a watch last four seconds."""

    def randint(self, a: int, b: int) -> int:
        assert (a, b) == WATCH_SECONDS
        return 4


def test_a_quiet_collection_is_heard_of_before_a_watch_ends(
    scene: Scene, control_plane: ControlPlane
) -> None:
    with Connection(scene.pod.access) as connection, opened(connection, Short()) as news:
        assert isinstance(next(news), Contents)
        assert next(news) == Opened()
        label(control_plane, scene.pod.node, {"x": "y"})
        assert isinstance(next(news), Change)
        *bookmarks, ended = until_pause(news)
    assert bookmarks
    assert set(bookmarks) == {Heard()}
    assert isinstance(ended, Pause)
    assert "soon after it began" in ended.error.message


@pytest.fixture
def own(tmp_path: Path) -> Iterator[NodePod]:
    """A pod in a control plane of the test's own, and two nodes that can run something."""
    with ControlPlane() as plane:
        accounts = "/api/v1/namespaces/default/serviceaccounts"
        plane.admin.create(accounts, {"metadata": {"name": "default"}})
        with node_with_pod(plane, "default", tmp_path) as pod:
            allow(pod)
            make(plane, "a", SEV)
            make(plane, "b", SNP)
            yield pod


def test_an_api_server_that_stops_and_starts_is_followed(own: NodePod) -> None:
    plane = own.plane
    with Scene(own, plane.url) as scene:
        scene.start(BOTH)
        # A cluster that serves no KubeVirt is known to have none, and is no reason to wait.
        scene.until(lambda: scene.caches.is_settled)
        assert scene.caches.installation is UNKNOWN
        plane.stop_api()
        scene.until(lambda: not scene.is_watched())
        time.sleep(1)
        assert scene.real == BOTH
        plane.start_api()
        scene.until(scene.is_watched)
        delete(plane, "b")
        scene.until(lambda: scene.real == ONE)
        assert len(scene.told.errors) < 10


def test_whoever_comes_back_too_late_lists_again_and_what_was_deleted_is_gone(
    own: NodePod,
) -> None:
    plane = own.plane
    with Connection(own.access) as connection, opened(connection) as news:
        listed, _ = itertools.islice(news, 2)
        assert isinstance(listed, Contents)
        assert {key.name for key in listed.objects} == {own.node, "a", "b"}
        plane.stop_api()
        assert isinstance(next(news), Pause)
        plane.start_api()
        delete(plane, "b")
        make(plane, "c", SEV)
        # The API server remembers nothing of before its start, so b's end is not among events.
        *before, late = itertools.islice(news, 2)
        assert before == [Opened()]
        assert isinstance(late, Pause)
        assert isinstance(late.error, Gone)
        listed, _ = itertools.islice(news, 2)
        assert isinstance(listed, Contents)
        assert {key.name for key in listed.objects} == {own.node, "a", "c"}
