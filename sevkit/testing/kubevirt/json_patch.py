"""JSON Patch with the four operations that KubeVirt's own patches use; pure.

Source: RFC 6902 (add, remove, replace, test), RFC 6901 (pointers).
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, final

from sevkit.errors import UsageError
from sevkit.kubevirt.json_patch import split_pointer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sevkit.testing.kubevirt.launch_wish import Document


@final
class PatchTestFailed(UsageError):
    """A ``test`` operation did not hold, or an operation's place is not there."""


def apply_patch(document: Document, operations: Iterable[Document]) -> Document:
    """Return a changed copy of ``document``. Raises ``PatchTestFailed``; then nothing happened."""
    changed = copy.deepcopy(document)
    for operation in operations:
        _apply(changed, operation)
    return changed


def _apply(document: Document, operation: Document) -> None:
    kind = operation["op"]
    *path, last = _tokens(operation["path"])
    parent: Any = document
    for token in path:
        parent = _child(parent, token)
    if kind == "test":
        if _child(parent, last) != operation["value"]:
            raise PatchTestFailed(f"testing value {operation['path']} failed")
        return
    if kind in {"replace", "remove"}:
        _child(parent, last)
    elif kind != "add":
        raise PatchTestFailed(f"unknown operation {kind}")
    if isinstance(parent, list):
        index = len(parent) if last == "-" else int(last)
        if kind in {"replace", "remove"}:
            del parent[index]
        if kind != "remove":
            parent.insert(index, copy.deepcopy(operation["value"]))
    elif kind == "remove":
        del parent[last]
    else:
        parent[last] = copy.deepcopy(operation["value"])


def _tokens(pointer: str) -> tuple[str, ...]:
    if not pointer.startswith("/"):
        raise PatchTestFailed(f"{pointer!r} is not the path of a member")
    return split_pointer(pointer)


def _child(parent: Any, token: str) -> Any:  # noqa: ANN401  # any JSON value
    if isinstance(parent, dict) and token in parent:
        return parent[token]
    if isinstance(parent, list) and token.isdecimal() and int(token) < len(parent):
        return parent[int(token)]
    raise PatchTestFailed(f"{token!r} is not there")
