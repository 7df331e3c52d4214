"""Where the VMIs are: what the controller needs of an API server, and one in memory.

``Instances`` is all that the simulated controllers ask for; a real API server answers it through
``sevkit.testing.kubevirt.api_server``, and ``MemoryInstances`` needs none. Both keep the rules that
matter: every change has a new ``resourceVersion``, a patch whose test fails changes nothing, and an
object with finalizers is only marked by a deletion until the last of them is taken away.
"""

from __future__ import annotations

import copy
import threading
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, final

from sevkit.errors import ClusterError
from sevkit.testing.kubevirt.json_patch import PatchTestFailed, apply_patch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sevkit.testing.kubevirt.launch_wish import Document

#: Namespace and name of a VMI.
Key: TypeAlias = tuple[str, str]

#: What KubeVirt's mutator adds to every VMI, and virt-controller takes away at its end.
FINALIZER: Final = "kubevirt.io/foregroundDeleteVirtualMachine"
#: The same, and its name in VMIs that an older KubeVirt made.
FINALIZERS: Final = frozenset({FINALIZER, "foregroundDeleteVirtualMachine"})
_HISTORY: Final = 1000
_POLL: Final = 0.05
#: An API server's words for a patch whose test failed.
_TEST_FAILED: Final = "the server rejected our request due to an error in our request"


class InstanceMissing(ClusterError):
    """There is no VMI of that name."""


class InstanceConflict(ClusterError):
    """The VMI is not what the change expected: it exists already, or a patch's test failed."""


class WatchExpired(ClusterError):
    """The resource version is too old to go on from: list again."""


class Instances(Protocol):
    """The VMIs of a cluster, as KubeVirt's own controllers see them."""

    def get(self, namespace: str, name: str) -> Document | None:
        """Return a VMI, or None."""

    def read_all(self) -> tuple[list[Document], str]:
        """Return all VMIs, and the resource version at which they were read."""

    def watch(self, version: str, stop: threading.Event) -> Iterator[tuple[str, Document]]:
        """Yield (ADDED, MODIFIED or DELETED, VMI) since ``version``; may end at any time.

        Ends soon after ``stop`` is set. Raises ``WatchExpired``.
        """

    def patch(self, namespace: str, name: str, operations: list[Document]) -> Document:
        """Apply a JSON Patch; raises ``InstanceMissing``, ``InstanceConflict``."""


def key_of(document: Document) -> Key:
    """Return namespace and name."""
    metadata = document["metadata"]
    return metadata.get("namespace", "default"), metadata["name"]


@final
class MemoryInstances:
    """VMIs in memory; safe for any number of threads."""

    def __init__(self) -> None:
        self._changed: Final = threading.Condition()
        self._instances: Final[dict[Key, Document]] = {}
        self._history: Final[list[tuple[int, str, Document]]] = []
        self._version = 1  # to watch from 0 means from anywhere
        self._forgotten = 0

    def create(self, document: Document) -> Document:
        """Add a VMI as it is given, with the metadata of a new object; phase Pending.

        Raises ``InstanceConflict`` if there is one of its name.
        """
        fresh = copy.deepcopy(document)
        key = key_of(fresh)
        metadata = fresh["metadata"]
        metadata["namespace"] = key[0]
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = _now()
        metadata["finalizers"] = [*metadata.get("finalizers", []), FINALIZER]
        fresh["status"] = {"phase": "Pending"}
        with self._changed:
            if key in self._instances:
                raise InstanceConflict(f'virtualmachineinstances.kubevirt.io "{key[1]}" exists')
            return self._keep("ADDED", key, fresh)

    def delete(self, namespace: str, name: str) -> Document:
        """Delete a VMI: mark it, and let whoever holds its finalizers finish."""
        with self._changed:
            changed = copy.deepcopy(self._find((namespace, name)))
            changed["metadata"].setdefault("deletionTimestamp", _now())
            return self._keep("MODIFIED", (namespace, name), changed)

    def get(self, namespace: str, name: str) -> Document | None:
        """Return a copy of a VMI, or None."""
        with self._changed:
            return copy.deepcopy(self._instances.get((namespace, name)))

    def read_all(self) -> tuple[list[Document], str]:
        """Return copies of all VMIs, and the version."""
        with self._changed:
            return [copy.deepcopy(found) for found in self._instances.values()], str(self._version)

    def patch(self, namespace: str, name: str, operations: Iterable[Document]) -> Document:
        """Apply a JSON Patch; raises ``InstanceMissing``, ``InstanceConflict``."""
        with self._changed:
            try:
                changed = apply_patch(self._find((namespace, name)), operations)
            except PatchTestFailed as error:
                raise InstanceConflict(_TEST_FAILED) from error
            return self._keep("MODIFIED", (namespace, name), changed)

    def watch(self, version: str, stop: threading.Event) -> Iterator[tuple[str, Document]]:
        """Yield changes since ``version`` until ``stop``; raises ``WatchExpired``."""
        seen = int(version or 0)
        while not stop.is_set():
            with self._changed:
                if seen < self._forgotten:
                    raise WatchExpired(f"too old resource version: {seen} ({self._forgotten})")
                if self._version == seen:
                    self._changed.wait(_POLL)
                found = [copy.deepcopy(row) for row in self._history if row[0] > seen]
                seen = max([seen, *(row[0] for row in found)])
            for _, kind, document in found:
                yield kind, document

    def _find(self, key: Key) -> Document:
        found = self._instances.get(key)
        if found is None:
            raise InstanceMissing(f'virtualmachineinstance.kubevirt.io "{key[1]}" not found')
        return found

    def _keep(self, kind: str, key: Key, document: Document) -> Document:
        self._version += 1
        metadata = document["metadata"]
        metadata["resourceVersion"] = str(self._version)
        self._instances[key] = document
        if "deletionTimestamp" in metadata and not metadata.get("finalizers"):
            del self._instances[key]
            kind = "DELETED"
        self._history.append((self._version, kind, document))
        if len(self._history) > _HISTORY:
            self._forgotten = self._history.pop(0)[0]
        self._changed.notify_all()
        return copy.deepcopy(document)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
