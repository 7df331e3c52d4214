"""Every VMI that an owner means, led at once and for ever; goes on where it was after a crash.

Theory of operation. One thread for each namespace keeps its VMIs in step with the API server, and
says which of them changed. Each VMI that the owner means has a ``Driver``; a handful of workers
take whichever is due, let it do one thing after another until it has to wait, and put it back. So a
launch that waits costs nothing, and a slow answer holds up one worker.

A launch that ended leaves a record of its UID without keys, so that it is not begun again, nor told
again after a restart; the record goes when the VMI is gone. A VMI that comes back under its name
has another UID and is another launch. What could not be finished because the cluster refuses is
begun again after ``AGAIN`` seconds, from what is stored.
"""

from __future__ import annotations

import heapq
import logging
import random
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, final

from sevkit.cluster.kinds import INSTANCES
from sevkit.cluster.launch_endpoints import Target
from sevkit.cluster.watch import Change, Collection, Contents, Key, Pause, watch
from sevkit.errors import FormatError
from sevkit.guest_owner.driver import Driver, Surroundings
from sevkit.guest_owner.terms import Outcome, Plan
from sevkit.kubevirt.launch_status import LaunchStatus, parse_launch_status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sevkit.attest.verdict import Verdict
    from sevkit.cluster.api import StreamingServer
    from sevkit.cluster.launch_endpoints import LaunchEndpoints
    from sevkit.documents import Json
    from sevkit.guest_owner.owner import Owner
    from sevkit.guest_owner.selector import Selector
    from sevkit.guest_owner.session_store import SessionStore

WORKERS: Final = 8
AGAIN: Final = 30.0
#: Seconds between looks at a VMI of which nothing new is heard.
POLL: Final = 15.0
#: A namespace that was not heard of for as long is not watched any more.
DEAF_SECONDS: Final = 180.0
_PATIENCE: Final = 0.5
_LOG: Final = logging.getLogger("sevkit.guest_owner")
#: After these the VMI is gone, and so is what was kept of it.
_GONE: Final = frozenset({Outcome.ABSENT, Outcome.DELETED, Outcome.REPLACED})


class Observer(Protocol):
    """Who is told what happens; called from any thread."""

    def concluded(self, outcome: Outcome, verdict: Verdict, seconds: float) -> None:
        """Take note of a launch that ended after so many seconds."""

    def led(self, count: int) -> None:
        """Take note of how many launches are under way."""

    def paused(self) -> None:
        """Take note of a watch that broke off, or could not begin."""


@final
@dataclass(slots=True)
class _Work:
    """One launch. ``busy`` is set while a worker has it, ``again`` if it changed meanwhile."""

    driver: Driver
    began: float
    busy: bool = False
    again: bool = False
    over: bool = False


@final
@dataclass
class _Table:
    """What the threads share, under one lock."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    seen: dict[Key, LaunchStatus] = field(default_factory=dict)
    works: dict[Key, _Work] = field(default_factory=dict)
    #: UIDs whose launch is over, as far as this process knows.
    over: set[str] = field(default_factory=set)
    due: list[tuple[float, int, Key]] = field(default_factory=list)
    heard: dict[str, float] = field(default_factory=dict)
    count: int = 0


@final
class Watcher:
    """Leads the launches of ``selectors`` until ``stop``; ``run`` returns then."""

    def __init__(
        self,
        server: StreamingServer,
        endpoints: LaunchEndpoints,
        store: SessionStore,
        *,
        owner: Owner,
        selectors: tuple[Selector, ...],
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server: Final = server
        self._store: Final = store
        self._selectors: Final = selectors
        self._observer: Final = observer
        self._clock: Final = clock
        self._table: Final = _Table()
        self._stopping: Final = threading.Event()
        self._failure: BaseException | None = None
        self._plan: Final = Plan(stop_on_refusal=owner.stop, poll=POLL)
        self._around: Final = Surroundings(endpoints, store, owner, clock=clock, peek=self._peek)
        self._namespaces: Final = tuple(dict.fromkeys(one.namespace for one in selectors))

    def run(self) -> None:
        """Work until ``stop``. Raises what the store raised: without it nothing may go on."""
        threads = [
            threading.Thread(target=self._guarded, args=(self._follow, name), daemon=True)
            for name in self._namespaces
        ]
        threads += [
            threading.Thread(target=self._guarded, args=(self._work, str(n)), daemon=True)
            for n in range(WORKERS)
        ]
        for thread in threads:
            thread.start()
        while not self._stopping.wait(_PATIENCE):
            pass  # in steps, so that an interrupt gets through
        self._server.interrupt()
        with self._table.changed:
            self._table.changed.notify_all()
        for thread in threads:
            thread.join()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """End it, soon."""
        self._stopping.set()

    def ready(self) -> tuple[str, ...]:
        """Return what is wrong: the namespaces that are not heard of."""
        now = self._clock()
        with self._table.changed:
            heard = dict(self._table.heard)
        return tuple(
            f"namespace {name} is not watched"
            for name in self._namespaces
            if now - heard.get(name, -DEAF_SECONDS) >= DEAF_SECONDS
        )

    def _guarded(self, what: Callable[[str], None], name: str) -> None:
        try:
            what(name)
        except BaseException as error:  # noqa: BLE001  # raised again by ``run``
            self._failure = self._failure or error
            self._stopping.set()

    # One thread for each namespace.

    def _follow(self, namespace: str) -> None:
        collection = Collection(INSTANCES, namespace=namespace)
        news = watch(
            self._server,
            collection,
            self._reduce,
            random=random.SystemRandom(),
            clock=self._clock,
        )
        for one in news:
            if self._stopping.is_set():
                return
            if isinstance(one, Pause):
                self._observer.paused()
                _LOG.warning("watch broke off", extra={"error": str(one.error)})
                if self._stopping.wait(one.seconds):
                    return
                continue
            with self._table.changed:
                self._table.heard[namespace] = self._clock()
            if isinstance(one, Contents):
                self._replace(namespace, one.objects)
            elif isinstance(one, Change):
                self._change(one.key, one.made)

    def _reduce(self, document: Mapping[str, Json]) -> LaunchStatus | None:
        try:
            status = parse_launch_status(dict(document))
        except FormatError:
            return None
        meant = any(
            one.selects(status.namespace, status.name, status.labels) for one in self._selectors
        )
        return status if meant else None

    def _replace(self, namespace: str, objects: Mapping[Key, LaunchStatus]) -> None:
        with self._table.changed:
            gone = [key for key in self._table.seen if key.namespace == namespace]
        for key in gone:
            if key not in objects:
                self._change(key, None)
        there = {status.uid for status in objects.values()}
        for record in list(self._store.records()):
            with self._table.changed:
                is_led = Key(record.namespace, record.name) in self._table.works
            if record.namespace == namespace and record.uid not in there and not is_led:
                self._store.forget(record.uid)
        for key, status in objects.items():
            self._change(key, status)

    def _change(self, key: Key, status: LaunchStatus | None) -> None:
        table = self._table
        with table.changed:
            before = table.seen.pop(key, None)
            if status is not None:
                table.seen[key] = status
            if before is not None and (status is None or status.uid != before.uid):
                table.over.discard(before.uid)
                if key not in table.works:
                    self._store.forget(before.uid)
            work = table.works.get(key)
            if work is not None:
                work.again = True
                if not work.busy:
                    work.driver.nudge()
                    self._put(key, self._clock())
            elif status is not None and status.uid not in table.over:
                self._begin(key)

    def _begin(self, key: Key, wait: float = 0.0) -> None:
        """Begin a launch; with the lock held."""
        target = Target(key.namespace, key.name)
        driver = Driver(target, self._plan, self._around, keep_ended=True)
        now = self._clock()
        self._table.works[key] = _Work(driver, now)
        self._observer.led(len(self._table.works))
        self._put(key, now + wait)

    def _put(self, key: Key, due: float) -> None:
        """Have a launch looked after at that time; with the lock held."""
        self._table.count += 1
        heapq.heappush(self._table.due, (due, self._table.count, key))
        self._table.changed.notify()

    def _peek(self, target: Target) -> LaunchStatus | None:
        with self._table.changed:
            return self._table.seen.get(Key(target.namespace, target.name))

    # The workers.

    def _work(self, _: str) -> None:
        while True:
            found = self._take()
            if found is None:
                return
            key, work = found
            wake: float | Outcome = 0.0
            while wake == 0.0 and not self._stopping.is_set():
                wake = work.driver.step()
            self._give_back(key, work, wake)

    def _take(self) -> tuple[Key, _Work] | None:
        table = self._table
        with table.changed:
            while not self._stopping.is_set():
                wait = table.due[0][0] - self._clock() if table.due else _PATIENCE
                if wait > 0:
                    table.changed.wait(min(wait, _PATIENCE))
                    continue
                _, _, key = heapq.heappop(table.due)
                work = table.works.get(key)
                if work is not None and not work.busy:
                    work.busy, work.again = True, False
                    return key, work
        return None

    def _give_back(self, key: Key, work: _Work, wake: float | Outcome) -> None:
        ended = wake if isinstance(wake, Outcome) else None
        if ended is not None and ended is not Outcome.SPENT:
            seconds = self._clock() - work.began
            self._observer.concluded(ended, work.driver.verdict(), seconds)
        if ended in _GONE:
            self._store.forget(work.driver.launch.uid)
        with self._table.changed:
            work.busy = False
            if ended is None:
                if work.again:
                    work.driver.nudge()
                due = self._clock() if work.again else self._clock() + float(wake)
                self._put(key, due)
                return
            del self._table.works[key]
            self._observer.led(len(self._table.works))
            status = self._table.seen.get(key)
            uid = work.driver.launch.uid
            if ended is Outcome.FORBIDDEN and status is not None:
                self._begin(key, AGAIN)
            elif ended not in _GONE:
                self._table.over.add(uid)
            if status is not None and status.uid != uid and key not in self._table.works:
                self._begin(key)
