"""A node agent of a test on the real API server, with a simulated host and a clock to be driven."""

from __future__ import annotations

import contextlib
import dataclasses
import random
from typing import TYPE_CHECKING, Any, final

from node_agent.agent import Agent, Rhythm
from node_agent.kubernetes_sink import KubernetesSink
from node_agent.observer import Watcher
from sevkit.cluster.connection import Connection
from sevkit.host.capabilities import decide
from sevkit.host.probe import probe_host
from sevkit.host.sources import open_host
from sevkit.kubevirt.labels import CAPABILITIES, LABELS, RESOURCES
from sevkit.testing.host import PRESETS, with_defects, write_host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hack.cluster_pod import NodePod
    from sevkit.host.capability import Capabilities


@final
class Host:
    """A simulated host's folder that an agent probes, and that can become another host."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self.root = folder

    def become(self, preset: str, *defects: str) -> None:
        """Be another host from now on."""
        self._count += 1
        self.root = self._folder / f"host-{self._count}"
        write_host(with_defects(preset, list(defects)) if defects else PRESETS[preset], self.root)

    def lose(self, *paths: str) -> None:
        """Make files unreadable, as far as this user can be kept from reading: garbage."""
        for path in paths:
            (self.root / path).write_bytes(b"\0\xff garbage")

    def probe(self) -> Capabilities:
        """Find out what the host can do, as the agent does."""
        with open_host(str(self.root)) as source:
            return decide(probe_host(source))


@final
@dataclasses.dataclass
class Driven:
    """An agent and its clock."""

    agent: Agent
    now: float = 0.0

    def run(self, seconds: float) -> None:
        """Do everything that falls due within ``seconds``."""
        end = self.now + seconds
        while True:
            due = max(self.agent.step(self.now), self.now + 0.01)
            if due > end:
                self.now = end
                return
            self.now = due


@final
@dataclasses.dataclass(frozen=True)
class Scene:
    """A node, its host, and what agents there are on it, one after the other."""

    pod: NodePod
    host: Host
    connection: Connection

    def agent(self, rhythm: Rhythm | None = None, **more: Callable[[], bool]) -> Driven:
        """Make an agent, which shares nothing with those before it but the node."""
        sink = KubernetesSink(self.connection, self.pod.node, instance="agent")
        random_ = random.Random(7)  # noqa: S311  # a schedule, not a key
        return Driven(
            Agent(
                self.host.probe,
                sink,
                Watcher(),
                random=random_,
                rhythm=rhythm or Rhythm(),
                **more,
            )
        )

    def ours(self) -> dict[str, dict[str, str]]:
        """Return what is ours on the node, as another client sees it."""
        node = self.pod.raw()
        return {
            "labels": _part(node["metadata"].get("labels", {}), LABELS),
            "annotations": _part(node["metadata"].get("annotations", {}), (CAPABILITIES,)),
            "capacity": _part(node["status"].get("capacity", {}), RESOURCES),
        }

    def events(self) -> list[dict[str, Any]]:
        """Return the node's events."""
        selector = f"involvedObject.name={self.pod.node}"
        path = f"/api/v1/namespaces/default/events?fieldSelector={selector}"
        found: list[dict[str, Any]] = self.pod.plane.admin.get(path)["items"]
        return found

    def writes(self) -> list[tuple[str, str, int]]:
        """Return verb, resource and status of its requests, less those of events."""
        return [
            (
                event["verb"],
                "/".join(
                    filter(
                        None,
                        (event["objectRef"]["resource"], event["objectRef"].get("subresource")),
                    )
                ),
                event["responseStatus"]["code"],
            )
            for event in self.pod.requests()
            if event["objectRef"]["resource"] != "events"
        ]

    @property
    def path(self) -> str:
        """Path of the node."""
        return f"/api/v1/nodes/{self.pod.node}"

    def patch(self, patch: dict[str, Any], *, manager: str, status: bool = False) -> None:
        """Patch the node as the administrator, under a field manager's name."""
        path = f"{self.path}{'/status' if status else ''}?fieldManager={manager}"
        self.pod.plane.admin.patch(path, patch)


def _part(values: dict[str, str], keys: tuple[str, ...]) -> dict[str, str]:
    return {key: values[key] for key in keys if key in values}


@contextlib.contextmanager
def open_scene(pod: NodePod, folder: Path) -> Iterator[Scene]:
    """Yield a Genoa below ``folder``, and its node's connection."""
    host = Host(folder)
    host.become("genoa")
    with Connection(pod.access, seconds=10) as connection:
        yield Scene(pod, host, connection)
