"""A fleet of node agents over a day, against the real API server: what they ask of it, counted.

The agents are the real ones; only their clock is driven. Each has a host of one of several kinds,
all are started at the same moment, as a roll-out does, and nothing changes afterwards.
"""

from __future__ import annotations

import functools
import heapq
import json
import random
from collections import Counter
from typing import TYPE_CHECKING, Final, final

import pytest

from hack import control_plane_build
from hack.control_plane import ADMIN_TOKEN, ControlPlane, Options
from node_agent.agent import Agent, Rhythm
from node_agent.kubernetes_sink import KubernetesSink
from sevkit.cluster.access import Access, FixedToken
from sevkit.cluster.api import Call
from sevkit.cluster.connection import Connection
from sevkit.cluster.fleet_nodes import fold_nodes
from sevkit.cluster.kinds import NODES
from sevkit.host.capabilities import decide
from sevkit.host.probe import probe_host
from sevkit.host.sources import open_host
from sevkit.kubevirt.labels import encode_node_word
from sevkit.secret import Secret
from sevkit.testing.host import PRESETS, with_defects, write_host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from hack.load import Load
    from sevkit.cluster.api import ApiServer
    from sevkit.cluster.errors import Contested
    from sevkit.cluster.events import Event
    from sevkit.documents import Json
    from sevkit.errors import SevkitError
    from sevkit.host.capability import Capabilities
    from sevkit.kubevirt.labels import NodeWord

FULL: Final = 5000
HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
#: When the roll-out is over: its spread, and an hour for whatever might come after it.
SETTLED: Final = HOUR
#: Some 35,000 requests, and seven million steps; seconds, on two slow cores that others use too.
LIMIT: Final = 600.0
#: Threads, as many as keep the API server busy.
SHARES: Final = 4
KINDS: Final = (
    ("genoa", ()),
    ("milan", ()),
    ("turin", ()),
    ("genoa", ("kvm-snp-off",)),
    ("milan", ("rmp-not-reserved",)),
    ("naples", ()),
    ("intel", ()),
)


class Silent:
    """An observer that looks away: the agents' log of a day is of no interest."""

    def probed(self, found: Capabilities) -> None: ...
    def probe_failed(self, error: Exception) -> None: ...
    def published(self, word: NodeWord, contested: Sequence[Contested]) -> None: ...
    def happened(self, event: Event) -> None: ...
    def publish_failed(self, error: SevkitError, wait: float) -> None: ...
    def tell_failed(self, error: SevkitError) -> None: ...


@final
class Counting:
    """An API server that remembers what was asked of it, and when by the agents' clock."""

    def __init__(self, server: ApiServer) -> None:
        self._server: Final = server
        self.now = 0.0
        self.asked: Final[list[tuple[float, str]]] = []

    def call(self, call: Call) -> Json:
        kind = "events" if "/events" in call.path else "nodes"
        self.asked.append((self.now, f"{call.method} {kind}"))
        return self._server.call(call)


@final
class Share:
    """Some of the agents, and the clock of theirs: shares are driven side by side."""

    def __init__(self, server: ApiServer, hosts: dict[str, Capabilities], seed: float) -> None:
        chance = random.Random(seed)  # noqa: S311  # the same schedule each time
        self.server: Final = Counting(server)
        self._agents: Final = [
            Agent(
                functools.partial(_same, found),
                KubernetesSink(self.server, name),
                Silent(),
                random=random.Random(chance.random()),  # noqa: S311  # as above
            )
            for name, found in hosts.items()
        ]

    def live(self, until: float) -> int:
        """Do everything that falls due, in its order, and return how many steps that were."""
        due = [(0.0, number) for number in range(len(self._agents))]
        steps = 0
        while due[0][0] < until:
            now, number = due[0]
            self.server.now = now
            following = max(self._agents[number].step(now), now + 0.01)
            heapq.heapreplace(due, (following, number))
            steps += 1
        return steps


def _same(found: Capabilities) -> Capabilities:
    return found


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    if not control_plane_build.is_there():
        pytest.skip(control_plane_build.why_not())
    # With bodies the audit log of a full day would not fit into memory.
    with ControlPlane(Options(audit_level="Metadata")) as started:
        yield started


@pytest.fixture
def found(tmp_path: Path) -> tuple[Capabilities, ...]:
    """What the probe says of each kind of host."""
    kinds = []
    for number, (preset, defects) in enumerate(KINDS):
        root = tmp_path / str(number)
        write_host(with_defects(preset, list(defects)) if defects else PRESETS[preset], root)
        with open_host(str(root)) as source:
            kinds.append(decide(probe_host(source)))
    return tuple(kinds)


def make_nodes(connection: Connection, names: list[str], load: Load) -> None:
    def make(name: str) -> None:
        metadata: dict[str, Json] = {"name": name, "labels": {"kubernetes.io/hostname": name}}
        body: dict[str, Json] = {"apiVersion": "v1", "kind": "Node", "metadata": metadata}
        connection.call(Call("POST", NODES.path(), (("fieldManager", "kubelet"),), body))

    load.run("nodes made", 4, make, names)


def test_a_day_of_a_fleet_costs_a_third_of_a_request_a_second_and_never_a_list(
    plane: ControlPlane,
    found: tuple[Capabilities, ...],
    soak: Callable[[int], int],
    load: Load,
    record_property: Callable[[str, object], None],
) -> None:
    count = soak(FULL)
    hosts = {f"worker-{number:04}": found[number % len(found)] for number in range(count)}
    token = FixedToken(Secret(ADMIN_TOKEN.encode()))
    with Connection(Access(plane.url, plane.ca, token)) as connection:
        make_nodes(connection, list(hosts), load)
        names = list(hosts)
        shares = [
            Share(connection, {name: hosts[name] for name in names[seed::SHARES]}, seed)
            for seed in range(SHARES)
        ]
        marked = len(plane.audit())
        lived = load.run(
            "shares of a day", SHARES, lambda one: one.live(SETTLED + DAY), shares, limit=LIMIT
        )
        steps = sum(lived)
        nodes = dict(fold_nodes(connection, lambda node: (node.view.name, node.view)))
    asked = [one for share in shares for one in share.server.asked]

    def between(start: float, end: float) -> Counter[str]:
        return Counter(what for when, what in asked if start <= when < end)

    # Each probes every minute, and says what it found of its own host.
    assert steps > count * (SETTLED + DAY) / 60 * 0.95
    for name, capabilities in hosts.items():
        word = encode_node_word(capabilities)
        assert nodes[name].has(word.labels, word.annotations, word.capacity)

    # The roll-out: a GET and a PATCH of each, evenly over two minutes, and no more.
    rolled = between(0, SETTLED)
    assert (rolled["GET nodes"], rolled["PATCH nodes"]) == (count, count)
    assert between(0, Rhythm().spread) == rolled
    for start in range(0, 120, 30):
        share = between(start, start + 30)["PATCH nodes"] / count
        assert abs(share - 0.25) < 0.25 * (4 / count**0.5 + 0.05)

    # The steady state: re-assertions alone.
    steady = between(SETTLED, SETTLED + DAY)
    assert set(steady) == {"PATCH nodes"}
    rate = steady.total() / DAY * FULL / count
    assert rate < 0.3
    busiest = max(
        between(SETTLED + hour * HOUR, SETTLED + (hour + 1) * HOUR).total() for hour in range(24)
    )

    # What the API server itself says that was asked of it.
    log = (plane.folder / "audit.log").read_text().splitlines()[marked:]
    verbs = Counter(
        event["verb"]
        for event in map(json.loads, log)
        if event.get("userAgent", "").startswith("sevkit/")
    )
    assert verbs.pop("list") == -(-count // 250), "ours, to look at the end"
    assert verbs.keys() <= {"get", "patch", "create"}
    assert verbs["patch"] == rolled["PATCH nodes"] + steady["PATCH nodes"]
    said = (
        f"{count} agents: {rate:.3f} requests/s in all, scaled to {FULL}; "
        f"busiest hour {busiest * FULL / count:.0f}"
    )
    record_property("said", said)
