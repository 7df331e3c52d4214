"""``status`` of a VMI object: read into an ``Instance``, and written back as a JSON Patch; pure.

What the simulation does not know of stays as it is. Source: KubeVirt ``api/core/v1`` types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sevkit.testing.kubevirt.instances import FINALIZERS
from sevkit.testing.kubevirt.lifecycle import Condition, Instance, Phase

if TYPE_CHECKING:
    from sevkit.testing.kubevirt.launch_wish import Document

_FIELDS: Final = ("status", "reason", "message")


def read_status(document: Document) -> Instance:
    """Return what is said of a VMI; an absent or unknown phase is Pending."""
    status = document.get("status") or {}
    phase = status.get("phase")
    conditions = tuple(
        Condition(row["type"], *(row.get(field, "") for field in _FIELDS))
        for row in status.get("conditions") or []
    )
    known = Phase(phase) if phase in set(Phase) else Phase.PENDING
    return Instance(known, status.get("nodeName", ""), conditions)


def status_patch(document: Document, instance: Instance, *, now: str) -> list[Document]:
    """Return the patch that makes a VMI say what ``instance`` says; it holds for this version.

    ``now`` is the time of new conditions, as RFC 3339. An ended VMI that was deleted loses its
    finalizer in the same patch.
    """
    metadata = document["metadata"]
    patch: list[Document] = []
    if instance != read_status(document):
        patch.append({"op": "add", "path": "/status", "value": _status(document, instance, now)})
    finalizers = metadata.get("finalizers") or []
    rest = [entry for entry in finalizers if entry not in FINALIZERS]
    if instance.phase.final and "deletionTimestamp" in metadata and rest != finalizers:
        patch.append({"op": "replace", "path": "/metadata/finalizers", "value": rest})
    if patch:
        version = metadata["resourceVersion"]
        patch.insert(0, {"op": "test", "path": "/metadata/resourceVersion", "value": version})
    return patch


def _status(document: Document, instance: Instance, now: str) -> Document:
    status = dict(document.get("status") or {})
    before = {row["type"]: row for row in status.get("conditions") or []}
    status["phase"] = instance.phase.value
    if instance.node:
        status["nodeName"] = instance.node
    status["conditions"] = [
        _row(condition, before.get(condition.kind), now) for condition in instance.conditions
    ]
    return status


def _row(condition: Condition, before: Document | None, now: str) -> Document:
    wanted = {field: getattr(condition, field) for field in _FIELDS if getattr(condition, field)}
    if before is not None and all(
        before.get(field, "") == wanted.get(field, "") for field in _FIELDS
    ):
        return before
    return {"type": condition.kind, "lastProbeTime": None, "lastTransitionTime": now} | wanted
