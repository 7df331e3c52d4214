"""What pods ask of extended resources, summed for each node as the scheduler sums it.

Containers add up, and so do init containers that keep running (``restartPolicy: Always``); any
other init container runs alone, beside the running ones that were started before it. Pods that
have ended ask for nothing. One that is being deleted still holds what it asked for.

Source: kubernetes.io, "Sidecar Containers", "Resource sharing within containers".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sevkit.cluster.errors import BadAnswer
from sevkit.cluster.fleet_nodes import whole
from sevkit.cluster.kinds import PODS
from sevkit.cluster.pages import PAGE, fold_list

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from sevkit.cluster.api import ApiServer
    from sevkit.documents import Json

#: Every pod in which KubeVirt runs a guest.
LAUNCHERS: Final = "kubevirt.io=virt-launcher"
_ENDED: Final = frozenset({"Succeeded", "Failed"})
#: Bound to some node, and not ended.
_FIELDS: Final = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"


def fold_requests(
    server: ApiServer,
    resources: Collection[str],
    *,
    selector: str = LAUNCHERS,
    page: int = PAGE,
    told: Callable[[int], None] = lambda _: None,
) -> dict[str, dict[str, int]]:
    """Return for each node how many of each of ``resources`` its pods ask for, if any.

    ``selector`` is a label selector of pods in all namespaces, "" for every pod; ``told`` learns
    how many there were so far. Raises ``ClusterError``; ``Forbidden`` without the right to list
    pods.
    """

    def start() -> dict[str, dict[str, int]]:
        return {}

    def fold(made: dict[str, dict[str, int]], pod: Mapping[str, Json]) -> None:
        node, asked = parse_requests(pod, resources)
        if asked:
            sums = made.setdefault(node, {})
            for resource, count in asked.items():
                sums[resource] = sums.get(resource, 0) + count

    query = [("fieldSelector", _FIELDS)]
    query += [("labelSelector", selector)] if selector else []
    return fold_list(
        server, PODS.path(), tuple(query), start=start, fold=fold, page=page, told=told
    )


def parse_requests(
    pod: Mapping[str, Json], resources: Collection[str]
) -> tuple[str, dict[str, int]]:
    """Return a pod's node, and how many it asks for of those ``resources`` that it asks for.

    One that is bound to no node, or has ended, is ("", {}). Raises ``BadAnswer`` for what is no
    pod.
    """
    spec, status = pod.get("spec"), pod.get("status", {})
    if not isinstance(spec, dict) or not isinstance(status, dict):
        raise BadAnswer("API server answered with something else than a pod")
    node, phase = spec.get("nodeName", ""), status.get("phase")
    if not isinstance(phase, str | None):
        raise BadAnswer("API server answered with a pod whose phase is no text")
    if not isinstance(node, str) or not node or phase in _ENDED:
        return "", {}
    counts = ((resource, _count(spec, resource)) for resource in resources)
    return node, {resource: count for resource, count in counts if count}


def _count(spec: Mapping[str, Json], resource: str) -> int:
    beside = alone = 0
    for container in _containers(spec, "initContainers"):
        asked = _asked(container, resource)
        if container.get("restartPolicy") == "Always":
            beside += asked
            asked = 0
        alone = max(alone, beside + asked)
    running = beside + sum(_asked(one, resource) for one in _containers(spec, "containers"))
    return max(alone, running)


def _containers(spec: Mapping[str, Json], key: str) -> Iterator[Mapping[str, Json]]:
    found = spec.get(key) or []
    for one in found if isinstance(found, list) else [None]:
        if not isinstance(one, dict):
            raise BadAnswer(f"{key} in the API server's answer is no list of containers")
        yield one


def _asked(container: Mapping[str, Json], resource: str) -> int:
    resources = container.get("resources")
    requests = resources.get("requests") if isinstance(resources, dict) else None
    text = requests.get(resource) if isinstance(requests, dict) else None
    if text is None:
        return 0
    count = whole(text) if isinstance(text, str) else None
    if count is None:
        raise BadAnswer(f"request of {resource} in the API server's answer is no count")
    return count
