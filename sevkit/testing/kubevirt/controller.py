"""virt-controller and virt-handler: bring every VMI to where it belongs, again and again.

Theory of operation. One thread lists the VMIs and watches them, and goes on from where a watch
ended; it only names keys. Workers take a key, read the VMI anew, ask ``next_step`` for the one
thing to do, do it, and write what came of it under the version that they read: whoever changed the
VMI meanwhile wins, and it is looked at again. Nothing is remembered but the launchers, so a VMI
whose launcher this process does not have (it was started by another) is lost, as with a node that
was booted again. A start that was refused is tried again every ``retry`` seconds.
"""

from __future__ import annotations

import threading
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, final

from sevkit.errors import ClusterError, FormatError, UsageError
from sevkit.testing.kubevirt import lifecycle
from sevkit.testing.kubevirt.host import choose_host
from sevkit.testing.kubevirt.instances import InstanceConflict, InstanceMissing, key_of
from sevkit.testing.kubevirt.launch_wish import LaunchWish, parse_wish
from sevkit.testing.kubevirt.launcher import Launcher
from sevkit.testing.kubevirt.lies import TRUTH
from sevkit.testing.kubevirt.lifecycle import Condition, Instance, Step, Surroundings
from sevkit.testing.kubevirt.qemu_words import LauncherError
from sevkit.testing.kubevirt.vmi_status import read_status, status_patch
from sevkit.testing.kubevirt.work_queue import WorkQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sevkit.testing.kubevirt.host import SimulatedHost
    from sevkit.testing.kubevirt.instances import Instances, Key
    from sevkit.testing.kubevirt.launch_wish import Document
    from sevkit.testing.kubevirt.lies import Lies

_WORKERS: Final = 4
#: Seconds between two attempts to reach an API server that does not answer.
_PAUSE: Final = 0.2
#: More steps than one VMI ever takes at once: Pending to Running are four.
_STEPS: Final = 8
#: After these a VMI has no launcher any more.
_LAST: Final = frozenset({Step.LOSE_LAUNCHER, Step.END})


@final
class Controller:
    """Leads the VMIs of ``instances`` through their lives on ``hosts``, between start and stop.

    ``patience`` draws how many seconds a new launcher waits for its domain; ``lies`` is asked for
    each VMI at each command.
    """

    def __init__(
        self,
        instances: Instances,
        hosts: Sequence[SimulatedHost],
        firmware: Mapping[str, bytes],
        *,
        clock: Callable[[], float],
        patience: Callable[[], float],
        retry: float,
        lies: Callable[[Key], Lies] = lambda _: TRUTH,
    ) -> None:
        self._instances: Final = instances
        self._hosts: Final = tuple(hosts)
        self._firmware: Final = firmware
        self._clock: Final = clock
        self._patience: Final = patience
        self._retry: Final = retry
        self._lies: Final = lies
        self._queue: Final = WorkQueue(clock)
        self._stop: Final = threading.Event()
        self._lock: Final = threading.Lock()
        self._launchers: Final[dict[Key, tuple[str, Launcher]]] = {}
        self._threads: Final[list[threading.Thread]] = []
        #: What went wrong that should not: bugs of this simulation.
        self.failures: Final[list[Exception]] = []

    def start(self) -> None:
        """Start watching and working."""
        targets = [self._watch, *[self._work] * _WORKERS]
        self._threads.extend(threading.Thread(target=target, daemon=True) for target in targets)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop, wait for every thread, and end every guest."""
        self._stop.set()
        self._queue.close()
        for thread in self._threads:
            thread.join()
        with self._lock:
            for _, launcher in self._launchers.values():
                launcher.close()
            self._launchers.clear()

    def launcher(self, key: Key) -> Launcher | None:
        """Return the launcher of a VMI, if it has one."""
        with self._lock:
            found = self._launchers.get(key)
        return None if found is None else found[1]

    def look_at(self, key: Key) -> None:
        """Have a VMI looked at soon: something around it changed."""
        self._queue.add(key)

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                found, version = self._instances.read_all()
                with self._lock:
                    known = set(self._launchers)
                for key in known | {key_of(document) for document in found}:
                    self._queue.add(key)
                while not self._stop.is_set():
                    for _, document in self._instances.watch(version, self._stop):
                        version = document["metadata"]["resourceVersion"]
                        if "name" in document["metadata"]:  # a bookmark has only a version
                            self._queue.add(key_of(document))
            except ClusterError:
                self._stop.wait(_PAUSE)
            except Exception as error:  # noqa: BLE001  # a bug is told when the simulation is left
                self.failures.append(error)
                return

    def _work(self) -> None:
        while (key := self._queue.take()) is not None:
            try:
                self._bring_on(key)
            except InstanceConflict:
                self._queue.add(key)
            except InstanceMissing:
                self._drop(key)
            except ClusterError:
                self._stop.wait(_PAUSE)  # in true time, whatever the clock is
                self._queue.add(key)
            except Exception as error:  # noqa: BLE001  # as above
                self.failures.append(error)
            finally:
                self._queue.done(key)

    def _bring_on(self, key: Key) -> None:
        document = self._instances.get(*key)
        for _ in range(_STEPS):
            if document is None:
                self._drop(key)
                return
            instance = read_status(document)
            changed = self._next(key, document, instance)
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            patch = status_patch(document, changed, now=now)
            if not patch:
                return
            document = self._instances.patch(*key, patch)

    def _next(self, key: Key, document: Document, instance: Instance) -> Instance:
        """Do the next thing for a VMI, and return what is to be said of it then."""
        metadata = document["metadata"]
        launcher = self._own(key, metadata["uid"])
        deleted = "deletionTimestamp" in metadata
        try:
            wish = parse_wish(document)
        except (UsageError, FormatError) as error:
            if deleted:
                return lifecycle.step(instance, lifecycle.Deleted())
            said = Condition("Synchronized", "False", "FailedCreate", error.message)
            return instance.with_condition(said)
        around = Surroundings(
            attestation=wish.attestation,
            session=wish.has_session,
            launcher=launcher is not None,
            domain=launcher is not None and launcher.domain,
            ended=launcher is not None and launcher.ended is not None,
            expired=launcher is not None and self._clock() >= launcher.deadline,
            deleted=deleted,
        )
        wanted = lifecycle.next_step(instance, around)
        event = self._do(wanted, key, metadata["uid"], wish)
        return instance if event is None else lifecycle.step(instance, event)

    def _do(self, wanted: Step, key: Key, uid: str, wish: LaunchWish) -> lifecycle.Event | None:
        """Do one thing, and return the event that it is."""
        launcher = self.launcher(key)
        event: lifecycle.Event | None = None
        if wanted is Step.CREATE_POD:
            event = lifecycle.PodCreated()
        elif wanted is Step.SCHEDULE:
            event = self._schedule(key, uid, wish)
        elif wanted is Step.START_DOMAIN and launcher is not None:
            event = self._start(launcher, wish)
        elif wanted is Step.REPORT_DOMAIN and launcher is not None:
            event = lifecycle.DomainUp(launcher.paused)
        elif wanted is Step.REPORT_END and launcher is not None:
            event = launcher.ended
        elif wanted is Step.LOSE_LAUNCHER:
            event = lifecycle.LauncherGone()
        elif wanted is Step.END:
            event = lifecycle.Deleted()
        if wanted in _LAST:
            self._drop(key)
        return event

    def _schedule(self, key: Key, uid: str, wish: LaunchWish) -> lifecycle.Event:
        before = self.launcher(key)
        if before is not None:  # somebody changed the VMI before this could be said
            return lifecycle.LauncherReady(before.host.name)
        with self._lock:
            launchers = [launcher for _, launcher in self._launchers.values()]
        waiting = Counter(entry.host.name for entry in launchers if not entry.domain)
        host = choose_host(self._hosts, wish.mode, waiting)
        if host is None:
            count = len(self._hosts)
            self._queue.add_at(key, self._clock() + self._retry)
            why = f"{count} node(s) didn't match Pod's node affinity/selector"
            return lifecycle.Unschedulable(f"0/{count} nodes are available: {why}.")
        deadline = self._clock() + self._patience()
        launcher = Launcher(
            key, host, self._firmware, deadline=deadline, lies=lambda: self._lies(key)
        )
        with self._lock:
            self._launchers[key] = (uid, launcher)
        self._queue.add_at(key, deadline)
        return lifecycle.LauncherReady(host.name)

    def _start(self, launcher: Launcher, wish: LaunchWish) -> lifecycle.Event:
        try:
            launcher.start(wish)
        except LauncherError as error:
            self._queue.add_at(launcher.key, self._clock() + self._retry)
            return lifecycle.StartRefused(error.message)
        return lifecycle.DomainUp(launcher.paused)

    def _own(self, key: Key, uid: str) -> Launcher | None:
        """Return the launcher of just this VMI, not of one that had its name before."""
        with self._lock:
            found = self._launchers.get(key)
        if found is None or found[0] == uid:
            return None if found is None else found[1]
        self._drop(key)
        return None

    def _drop(self, key: Key) -> None:
        with self._lock:
            found = self._launchers.pop(key, None)
        if found is not None:
            found[1].close()
