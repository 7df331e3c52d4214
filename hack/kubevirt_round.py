"""What a new VMI goes through in a cluster with the webhook: our rounds, and KubeVirt's between.

KubeVirt's own mutator and admitter answer; the API server's part, to call us before and again
after KubeVirt's mutator has changed the object, is played here. Against a real API server the same
is tried in ``tests/cluster``.
"""

from __future__ import annotations

import base64
import copy
import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from hack.kubevirt_cases import PATHS
from sevkit.kubevirt.launch_security import Around, Decision, Requirement, decide
from sevkit.testing.kubevirt.json_patch import apply_patch

if TYPE_CHECKING:
    from hack.kubevirt_admission_server import AdmissionServer
    from hack.kubevirt_cases import Document
    from sevkit.kubevirt.policy import Policy

#: What KubeVirt's mutator replaces, each as a whole.
_REPLACED: Final = frozenset({"spec", "metadata", "status"})


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a VMI: our decisions, the object before and after, and KubeVirt's causes."""

    first: Decision
    second: Decision | None = None
    defaulted: Document | None = None
    stored: Document | None = None
    causes: tuple[str, ...] = ()


def review_request(document: Document, operation: str = "CREATE") -> Document:
    """Return the request of a review of an object."""
    group, version = document["apiVersion"].split("/")
    document["metadata"].setdefault("namespace", "default")
    return {
        "uid": str(uuid.uuid4()),
        "operation": operation,
        "namespace": document["metadata"]["namespace"],
        "name": document["metadata"]["name"],
        "kind": {"group": group, "version": version, "kind": document["kind"]},
        "resource": {"group": group, "version": version, "resource": PATHS[document["kind"]][0]},
        "object": document,
        "userInfo": {"username": "somebody"},
    }


def kubevirt_mutates(server: AdmissionServer, document: Document) -> Document | tuple[str, ...]:
    """Return the document as KubeVirt's mutator leaves it, or why that refuses it."""
    changed = copy.deepcopy(document)
    path = PATHS[document["kind"]][1]
    if path is None:
        return changed
    answer = server.review(path, review_request(changed))
    if not answer["allowed"]:
        return (answer["status"]["message"],)
    for step in json.loads(base64.b64decode(answer["patch"])):
        name = step["path"].removeprefix("/")
        if step["op"] != "replace" or name not in _REPLACED:
            message = f"KubeVirt's mutator does what it never did: {step['op']} {step['path']}"
            raise ValueError(message)
        changed[name] = step["value"]
    return changed


def kubevirt_admits(server: AdmissionServer, document: Document) -> tuple[str, ...]:
    """Return KubeVirt's reasons against a document, none if it is admitted."""
    answer = server.review(PATHS[document["kind"]][2], review_request(copy.deepcopy(document)))
    if answer["allowed"]:
        return ()
    details: dict[str, Any] = answer["status"].get("details") or {}
    causes = details.get("causes") or [{"message": answer["status"]["message"]}]
    return tuple(f"{one.get('field', '')}: {one['message']}" for one in causes)


def create(
    server: AdmissionServer,
    vmi: Document,
    namespace: Requirement | None,
    policy: Policy,
    around: Around,
) -> Outcome:
    """Return what becomes of ``vmi`` in a namespace that asks for ``namespace``."""
    first = decide(vmi, namespace, policy, around)
    if first.refusals:
        return Outcome(first)
    ours = apply_patch(vmi, [one.to_json() for one in first.operations])
    defaulted = kubevirt_mutates(server, ours)
    if isinstance(defaulted, tuple):
        return Outcome(first, causes=defaulted)
    second = decide(defaulted, namespace, policy, around)
    if second.refusals:
        return Outcome(first, second, defaulted)
    stored = apply_patch(defaulted, [one.to_json() for one in second.operations])
    return Outcome(first, second, defaulted, stored, kubevirt_admits(server, stored))
