"""Any life of a node agent: host, API server, kubelet and other owners do what they like.

The API server is a model of server-side apply, written from its documentation: a key that a manager
sent before and sends no more is removed unless somebody else owns it, and a key that somebody else
owns with another value makes a conflict, after which nothing is applied. The agent and the sink
are the real ones. After every request it is looked for what must never happen: a key of ours that
is gone, a label that says "true" after the host was found not to be able to, and anything that was
found out on simulated hardware only and is said of real hardware.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from node_agent.agent import ONCE_MORE, SOON, Agent, Rhythm
from node_agent.kubernetes_sink import KubernetesSink
from sevkit.abi.report import FirmwareVersion
from sevkit.cluster.api import APPLY
from sevkit.cluster.errors import Timeout, Unreachable, parse_status
from sevkit.cluster.nodes import AGENT_MANAGER
from sevkit.host.capability import Asids, Capabilities, Capability, State, Technology
from sevkit.host.product import HostProduct
from sevkit.host.reasons import Reason
from sevkit.kubevirt.labels import CAPABILITIES, LABELS, RESOURCES, SIMULATED, encode_node_word

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sevkit.cluster.api import Call
    from sevkit.cluster.errors import Contested
    from sevkit.cluster.events import Event
    from sevkit.documents import Json
    from sevkit.errors import ClusterError, SevkitError
    from sevkit.kubevirt.labels import NodeWord

#: ("labels", "sevkit.io/sev"), for example.
Field: TypeAlias = tuple[str, str]

RHYTHM: Final = Rhythm()
PLACES: Final = {"labels": "metadata", "annotations": "metadata", "capacity": "status"}
OURS: Final = (
    *(("labels", key) for key in LABELS),
    ("annotations", CAPABILITIES),
    *(("capacity", key) for key in RESOURCES),
)
KEYS: Final = {
    f"sevkit.io/{technology}": technology for technology in Technology
}  # of labels and of capacity alike
THEIRS: Final[Field] = ("labels", "kubernetes.io/os")
MARK: Final[Field] = ("labels", SIMULATED)
#: The longest until the newest state is published by a server that answers: what it asked to be
#: waited for before, or the back-off's cap, a probe, and the first publication's spread.
ASKED: Final = 400
AT_MOST: Final = 1.2 * ASKED + 1.2 * RHYTHM.probe + RHYTHM.spread

#: The shortest sleep of a loop, in seconds.
REST: Final = 0.05

COUNT: Final = st.none() | st.sampled_from([0, 15, 1000, 1006])
REASONS: Final = st.sampled_from([Reason.USABLE, Reason.SMEE_OFF, Reason.KVM_SNP_OFF])


@st.composite
def capabilities(draw: st.DrawFn) -> Capabilities:
    """Return what some host can do, or what is known of it."""
    tiers = []
    for _ in Technology:
        state = draw(st.sampled_from(State))
        guests = draw(st.sampled_from([1, 99, 1000])) if state is State.USABLE else 0
        tiers.append(Capability(state, draw(REASONS), "explained", "", guests))
    totals = [Asids(draw(COUNT), None) for _ in range(4)]
    version = draw(st.none() | st.builds(FirmwareVersion, st.just(1), st.just(55), st.just(40)))
    return Capabilities(
        sev=tiers[0],
        sev_es=tiers[1],
        sev_snp=tiers[2],
        sev_asids=totals[0],
        sev_es_asids=totals[1],
        sev_snp_asids=totals[2],
        encrypted_state=totals[3],
        product=draw(st.sampled_from([None, HostProduct.GENOA])),
        firmware_version=version,
        current_tcb=None,
        reported_tcb=None,
        snp_initialized=draw(st.none() | st.booleans()),
        c_bit=draw(st.sampled_from([None, 51])),
        reduced_phys_bits=None,
        simulated=False,
    )


def status(code: int, retry_after: str | None = None) -> Callable[[], ClusterError]:
    body = json.dumps({"kind": "Status", "message": "as asked for"}).encode()
    return lambda: parse_status(code, body, retry_after)


#: What may come of a request, and whether it was done all the same.
OUTCOMES: Final[dict[str, tuple[Callable[[], ClusterError] | None, bool]]] = {
    "answered": (None, True),
    "401": (status(401), False),
    "403": (status(403), False),
    "404": (status(404), False),
    "409": (status(409), False),
    "429": (status(429), False),
    "429, come again": (status(429, str(ASKED)), False),
    "500": (status(500), False),
    "500, and done": (status(500), True),
    "not reached": (lambda: Unreachable("no connection"), False),
    "lost after it was done": (lambda: Unreachable("reset"), True),
    "timed out": (lambda: Timeout("no answer"), False),
    "timed out after it was done": (lambda: Timeout("no answer"), True),
}


class Silent:
    """An observer that looks away."""

    def probed(self, found: Capabilities) -> None: ...
    def probe_failed(self, error: Exception) -> None: ...
    def published(self, word: NodeWord, contested: Sequence[Contested]) -> None: ...
    def happened(self, event: Event) -> None: ...
    def publish_failed(self, error: SevkitError, wait: float) -> None: ...
    def tell_failed(self, error: SevkitError) -> None: ...


@final
class Server:
    """One node and server-side apply."""

    def __init__(self) -> None:
        self.values: dict[Field, str] = {THEIRS: "linux"}
        self.owners: defaultdict[Field, set[str]] = defaultdict(set, {THEIRS: {"kubelet"}})
        self.outcome = "answered"
        #: Whether the agent's host is simulated, and whether it was when it last applied.
        self.simulated = self.was_simulated = False
        #: What the agent ever had on the node, since it is of this kind of hardware.
        self.published: set[Field] = set()
        self.applied = 0
        self.check: Callable[[dict[Field, str]], None] = lambda _: None

    def call(self, call: Call) -> Json:
        failure, is_done = OUTCOMES[self.outcome]
        answer = self._do(call) if is_done else None
        if failure is not None:
            raise failure()
        return answer

    def _do(self, call: Call) -> Json:
        if call.path.startswith("/apis/events.k8s.io/"):
            return {}
        if call.method == "GET":
            assert call.path == "/api/v1/nodes/n1"
            return self._node()
        assert (call.method, call.path) == ("PATCH", "/api/v1/nodes/n1/status")
        assert call.content_type == APPLY
        query, body = dict(call.query), call.body
        assert query["fieldManager"] == AGENT_MANAGER
        assert body is not None
        sent = _fields(body)
        assert sent.keys() <= set(OURS), "nobody else's key is ever sent"
        self.check(sent)
        self.apply(AGENT_MANAGER, sent, force=query["force"] == "true")
        self.applied += 1
        if self.simulated is not self.was_simulated:
            self.was_simulated = self.simulated
            self.published = set()
        self.published |= sent.keys()
        return self._node()

    def apply(self, manager: str, sent: dict[Field, str], *, force: bool) -> None:
        """Apply what ``manager`` wants, or raise ``Conflict``."""
        contested = [
            (field, owner)
            for field, value in sorted(sent.items())
            if self.values.get(field, value) != value
            for owner in sorted(self.owners[field] - {manager})
        ]
        if contested and not force:
            raise _conflict(contested)
        for field, owner in contested:
            self.owners[field].discard(owner)
        for field in [one for one, owners in self.owners.items() if manager in owners]:
            if field not in sent:
                self.owners[field].discard(manager)
                if not self.owners[field]:
                    del self.values[field]
        for field, value in sent.items():
            self.values[field] = value
            self.owners[field].add(manager)

    def update(self, manager: str, field: Field, value: str) -> None:
        """Write as whoever does not apply: a value that changes changes hands."""
        if self.values.get(field) != value:
            self.values[field] = value
            self.owners[field] = {manager}

    def is_contested(self, field: Field) -> bool:
        """Return whether somebody else owns it who has an opinion of it."""
        others = self.owners[field] - {AGENT_MANAGER}
        return bool(others - {"kubelet"} if field[0] == "capacity" else others)

    def _node(self) -> Json:
        entries: defaultdict[str, dict[str, Any]] = defaultdict(dict)
        for (place, key), owners in self.owners.items():
            for owner in owners:
                outer = entries[owner].setdefault(f"f:{PLACES[place]}", {})
                outer.setdefault(f"f:{place}", {})[f"f:{key}"] = {}
        parts: dict[str, dict[str, Json]] = {place: {} for place in PLACES}
        for (place, key), value in self.values.items():
            parts[place][key] = value
        return {
            "metadata": {
                "name": "n1",
                "uid": "u",
                "resourceVersion": "1",
                "labels": parts["labels"],
                "annotations": parts["annotations"],
                "managedFields": [
                    {"manager": name, "operation": "Apply", "fieldsV1": fields}
                    for name, fields in entries.items()
                ],
            },
            "status": {"capacity": parts["capacity"]},
        }


def _fields(body: dict[str, Json]) -> dict[Field, str]:
    assert body.keys() == {"apiVersion", "kind", "metadata", "status"}
    found: dict[Field, str] = {}
    for place, outer in PLACES.items():
        part: Any = body[outer]
        found |= {(place, key): value for key, value in part[place].items()}
    return found


def _conflict(contested: list[tuple[Field, str]]) -> ClusterError:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{owner}" using v1',
            "field": f".{PLACES[place]}.{place}.{key}",
        }
        for (place, key), owner in contested
    ]
    body = {"kind": "Status", "reason": "Conflict", "details": {"causes": causes}}
    return parse_status(409, json.dumps(body).encode())


@final
class Life(RuleBasedStateMachine):
    """Agents on one node, one after the other, by one clock."""

    @initialize(found=capabilities(), seed=st.integers(0, 1000), simulated=st.booleans())
    def start(self, found: Capabilities, seed: int, *, simulated: bool) -> None:
        self.server = Server()
        self.server.check = self._check
        self.found: Capabilities | Exception = found
        self.now, self.seed = 0.0, seed
        self.is_kubelet_new = False
        #: What any agent ever found out, on real and on simulated hardware.
        self.known: dict[bool, set[Technology]] = {False: set(), True: set()}
        self.is_mark_taken = False
        self.restart(simulated=simulated)

    @rule(simulated=st.booleans())
    def restart(self, *, simulated: bool) -> None:
        """Be killed, and started again, on the host itself or on a simulated one."""
        self.server.simulated = simulated
        self.seed += 1
        #: By technology, what this agent last found out; what it could not find out is not in it.
        self.evidence: dict[Technology, State] = {}
        self.agent = Agent(
            self._probe,
            KubernetesSink(self.server, "n1", clock=lambda: self.now),
            Silent(),
            random=random.Random(self.seed),  # noqa: S311  # a schedule, not a key
            is_kubelet_new=self._kubelet,
        )

    def _probe(self) -> Capabilities:
        if isinstance(self.found, Exception):
            raise self.found
        simulated = self.server.simulated
        for technology in Technology:
            state = self.found.of(technology).state
            if state is not State.UNKNOWN:
                self.evidence[technology] = state
                self.known[simulated].add(technology)
        return dataclasses.replace(self.found, simulated=simulated)

    def _kubelet(self) -> bool:
        was, self.is_kubelet_new = self.is_kubelet_new, False
        return was

    @property
    def is_unmarked(self) -> bool:
        """Whether others may have taken the mark of simulated hardware away, and its meaning."""
        return self.is_mark_taken and bool(self.known[True])

    def _check(self, sent: dict[Field, str]) -> None:
        """Look at what is about to be applied: it is what was found last, if anything was."""
        assert self.server.simulated or MARK not in sent
        for (place, key), value in sent.items():
            state = self.evidence.get(KEYS[key]) if key in KEYS else None
            if state is not None:
                is_yes = value == "true" if place == "labels" else value != "0"
                assert is_yes is (state is State.USABLE), (place, key, value, state)
            if key in KEYS and not self.is_unmarked:
                assert KEYS[key] in self.known[self.server.simulated], (place, key, value)

    @rule(found=capabilities())
    def become(self, found: Capabilities) -> None:
        """Be another host, or one of which other things can be read."""
        self.found = found

    @rule()
    def break_down(self) -> None:
        """Let every probe raise."""
        self.found = OSError("nothing works")

    @rule(outcome=st.sampled_from(sorted(OUTCOMES)))
    def answer(self, outcome: str) -> None:
        """Let every request end like this from now on."""
        self.server.outcome = outcome

    @rule(
        field=st.sampled_from(OURS),
        value=st.sampled_from(["true", "false", "0", "7", "1000"]),
        applies=st.booleans(),
    )
    def take(self, field: Field, value: str, *, applies: bool) -> None:
        """Let somebody else set a key of ours, or own it beside us."""
        self.is_mark_taken |= field == MARK
        if applies:
            mine = {
                one: self.server.values[one] for one, by in self.server.owners.items() if "x" in by
            }
            same = self.server.values.get(field, value)
            self.server.apply("x", {**mine, field: same}, force=True)
        else:
            self.server.update("y", field, value)

    @rule()
    def zero(self) -> None:
        """Let a kubelet start that sets our resources to zero, before or after its sign."""
        for key in RESOURCES:
            if ("capacity", key) in self.server.values:
                self.server.update("kubelet", ("capacity", key), "0")
        self.is_kubelet_new = True

    @rule(seconds=st.sampled_from([1, 10, 60, 200, 1000, 30_000]))
    def live(self, seconds: float) -> None:
        """Do what falls due."""
        end = self.now + seconds
        while self.now <= end:
            due = self.agent.step(self.now)
            assert due >= self.now
            self.now = max(due, self.now + REST)
        self.now = end

    @rule(found=capabilities())
    def come_to_rest(self, found: Capabilities) -> None:
        """Let everything work again: what is published is the newest state."""
        self.found, self.server.outcome = found, "answered"
        self.live(AT_MOST + SOON[1] + ONCE_MORE[1])
        word = encode_node_word(dataclasses.replace(found, simulated=self.server.simulated))
        for place, values in (("labels", word.labels), ("capacity", word.capacity)):
            for key, value in values.items():
                if not self.server.is_contested((place, key)):
                    assert self.server.values[place, key] == value, (place, key)
                    assert AGENT_MANAGER in self.server.owners[place, key]
        if not self.server.is_contested(("annotations", CAPABILITIES)):
            said = json.loads(self.server.values["annotations", CAPABILITIES])
            for technology in Technology:
                assert said[technology]["state"] == found.of(technology).state
        assert self.server.simulated or AGENT_MANAGER not in self.server.owners[MARK]
        before = self.server.applied
        self.live(3 * 3600)
        assert self.server.applied <= before + 1, "and is not published over and over"

    @invariant()
    def nothing_is_lost(self) -> None:
        """Whatever we ever published is there, ours or another's, and nobody else's is touched."""
        server = self.server
        gone = server.published - server.values.keys()
        assert self.is_unmarked or not gone
        assert server.values[THEIRS] == "linux"
        assert server.owners[THEIRS] == {"kubelet"}


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=30)
