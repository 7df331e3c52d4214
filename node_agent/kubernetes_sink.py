"""Publish to the Node itself: one server-side apply of ``nodes/status``, and nothing else.

Theory of operation. An apply carries every key of ours, because server-side apply removes what its
manager sent before and sends no more. A key that somebody else owns with another value makes the
API server refuse all of it: then the keys that it names are left out, the rest is applied, and
everything is tried again when the whole word is due. Two owners are no others. The kubelet sets
extended resources to zero when it meets a node anew, which is not its opinion of them; and
``before-first-apply`` is who the API server says owned what it did not keep account of. From both
of them our own keys are taken over, and no one else's.

The Node is read once, before the first apply: for what an agent before us published, which a
source that cannot be read now must not remove.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, final

from node_agent.news import CONTROLLER
from sevkit.cluster.errors import Conflict
from sevkit.cluster.events import Speaker, Subject, Teller
from sevkit.cluster.nodes import AGENT_MANAGER, NodeClient, NodeKeys, contested_keys
from sevkit.errors import ClusterError
from sevkit.kubevirt.labels import NodeWord, parse_node_word

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sevkit.cluster.api import ApiServer
    from sevkit.cluster.errors import Contested
    from sevkit.cluster.events import Event
    from sevkit.cluster.nodes import NodeView

KUBELET: Final = "kubelet"
UNACCOUNTED: Final = "before-first-apply"
#: Applies until others' keys are out: each refusal names all of them, unless they change meanwhile.
_ATTEMPTS: Final = 4


@final
class KubernetesSink:
    """Keeps one Node true. ``instance`` is the pod's name, ``clock`` counts seconds for events."""

    def __init__(
        self,
        server: ApiServer,
        node_name: str,
        *,
        instance: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client: Final = NodeClient(server, node_name)
        speaker = Speaker(CONTROLLER, instance or node_name)
        self._teller: Final = Teller(server, speaker, clock=clock)
        self._view: NodeView | None = None
        self._contested: tuple[Contested, ...] = ()
        self._left: NodeKeys = NodeKeys()

    def recall(self) -> NodeWord:
        """Return what is ours on the Node. Raises ``ClusterError``."""
        view = self._view = self._client.get()
        return parse_node_word(
            _without(view.labels, _of_others(view).labels),
            _without(view.annotations, _of_others(view).annotations),
            _without(view.capacity, _of_others(view).capacity),
        )

    def holds(self, word: NodeWord) -> bool:
        """Return whether the Node has all of this, as ours, and nothing else of ours."""
        view = self._view
        if view is None:
            return False
        keys = NodeKeys(*map(frozenset, (word.labels, word.annotations, word.capacity)))
        is_same = view.has(word.labels, word.annotations, word.capacity)
        return is_same and view.owned_by(AGENT_MANAGER) == keys

    def publish(self, word: NodeWord, *, whole: bool) -> tuple[Contested, ...]:
        """Apply ``word``. Raises ``ClusterError``, after which nothing was applied, or all."""
        if whole:
            self._left, self._contested = NodeKeys(), ()
        force = False
        for last in range(_ATTEMPTS - 1, -1, -1):
            try:
                self._view = self._client.apply_status(
                    _without(word.labels, self._left.labels),
                    _without(word.annotations, self._left.annotations),
                    _without(word.capacity, self._left.capacity),
                    force=force,
                )
                break
            except Conflict as conflict:
                if not last or not contested_keys(conflict):
                    raise
                force = self._leave(conflict)
        return self._contested

    def _leave(self, conflict: Conflict) -> bool:
        """Leave what others contest; return whether anything is left that is to be taken over."""
        ours = contested_keys(conflict, is_ours)
        theirs = tuple(one for one in conflict.contested if not is_ours(one))
        self._contested += theirs
        self._left |= contested_keys(conflict, lambda one: not is_ours(one))
        return bool(ours - self._left)

    def tell(self, event: Event) -> None:
        """Make an event, or count it up if it was made within the hour. Raises ``ClusterError``."""
        if self._view is None:
            raise ClusterError("node was not read yet, and has no events")
        self._teller.tell(Subject("Node", self._view.name, self._view.uid), event)


def is_ours(contested: Contested) -> bool:
    """Return whether a contested field may be taken over: its owner has no opinion of it."""
    is_capacity = contested.field.startswith(".status.capacity.")
    return contested.manager == UNACCOUNTED or (contested.manager == KUBELET and is_capacity)


def _of_others(view: NodeView) -> NodeKeys:
    """Return the keys that somebody else owns, and we do not."""
    others = NodeKeys()
    for entry in view.managers:
        if entry.name not in {AGENT_MANAGER, UNACCOUNTED}:
            others |= entry.keys
    return others - view.owned_by(AGENT_MANAGER)


def _without(values: Mapping[str, str], keys: frozenset[str]) -> dict[str, str]:
    return {key: value for key, value in values.items() if key not in keys}
