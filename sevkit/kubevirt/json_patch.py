"""Changes to a JSON object as the fewest operations of a JSON Patch. Pure.

An ``Editor`` keeps a changed copy beside the operations, so that each operation is right after
those before it: a parent that is missing is made with its child in one operation, and one that is
there is never replaced. Arrays are never touched.

Sources: RFC 6902 (add, replace, remove), RFC 6901 (pointers).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, final

from sevkit.errors import FormatError, InternalError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sevkit.documents import Json

_STRUCTURE: Final = "object"


class Operation(NamedTuple):
    """One operation; ``path`` is a pointer, and ``value`` means nothing for ``remove``."""

    op: Literal["add", "replace", "remove"]
    path: str
    value: Json = None

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON Patch has it."""
        if self.op == "remove":
            return {"op": self.op, "path": self.path}
        return {"op": self.op, "path": self.path, "value": self.value}


def pointer(parts: Sequence[str]) -> str:
    """Return the RFC 6901 pointer of a member."""
    plain = "/".join(parts)
    if "~" not in plain and plain.count("/") == len(parts) - 1:
        return f"/{plain}"  # most are
    return "".join(f"/{part.replace('~', '~0').replace('/', '~1')}" for part in parts)


def split_pointer(text: str) -> tuple[str, ...]:
    """Return the parts that ``pointer`` made the pointer of."""
    parts = text.split("/")[1:]
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in parts)


@final
class Editor:
    """Changes ``document`` step by step; what is given stays as it is.

    Only what is on the way to a change is copied: most of an object is never looked at.
    """

    def __init__(self, document: Mapping[str, Json]) -> None:
        self._document: Final[dict[str, Json]] = dict(document)
        #: The objects that were copied, by their paths: they may be changed in place.
        self._own: Final[dict[tuple[str, ...], dict[str, Json]]] = {(): self._document}
        self._operations: Final[list[Operation]] = []

    @property
    def document(self) -> Mapping[str, Json]:
        """The object as it is after all changes so far."""
        return self._document

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The operations so far."""
        return tuple(self._operations)

    def get(self, *parts: str) -> Json:
        """Return a value, None where it or any of its parents is missing or null.

        Raises ``FormatError`` where a parent is no object.
        """
        return member(self._document, *parts)

    def set(self, value: Json, *parts: str) -> None:
        """Make ``value`` the one at ``parts``, with the parents that are missing; else do nothing.

        A parent that is null is as good as missing, as in KubeVirt's Go.
        """
        there, found = 0, self._document
        for part in parts[:-1]:
            child = found.get(part)
            if child is None:
                break
            there += 1
            if not isinstance(child, dict):
                raise FormatError(_STRUCTURE, f"{'.'.join(parts[:there])} is no object")
            found = child
        else:
            if found.get(parts[-1]) == value:
                return
        place, made = parts[: there + 1], value
        for part in reversed(parts[there + 1 :]):
            made = {part: made}
        parent, last = self._copied(place[:-1]), place[-1]
        self._disown(place)
        kind: Literal["add", "replace"] = "replace" if last in parent else "add"
        parent[last] = made
        self._operations.append(Operation(kind, pointer(place), made))

    def remove(self, *parts: str) -> None:
        """Remove the member at ``parts``, if there is one, also where it is null."""
        path, last = parts[:-1], parts[-1]
        parent = self.get(*path)
        if isinstance(parent, dict) and last in parent:
            del self._copied(path)[last]
            self._disown(parts)
            self._operations.append(Operation("remove", pointer(parts)))

    def _copied(self, path: tuple[str, ...]) -> dict[str, Json]:
        """Return the object at ``path``, of which every part is a copy of our own by then."""
        if (own := self._own.get(path)) is not None:
            return own
        parent, last = self._copied(path[:-1]), path[-1]
        child = parent[last]
        if not isinstance(child, dict):
            raise InternalError(f"{last} is no object")  # get has looked
        parent[last] = own = self._own[path] = dict(child)
        return own

    def _disown(self, place: tuple[str, ...]) -> None:
        """Forget the copies at and below a place where something else stands from now on."""
        if place in self._own:
            for path in [one for one in self._own if one[: len(place)] == place]:
                del self._own[path]


def member(document: Mapping[str, Json], *parts: str) -> Json:
    """Return a value of nested objects, None where it or any parent is missing or null.

    Raises ``FormatError`` where a parent is no object.
    """
    # Asked some sixty times for each decision: what is no object is looked for when it was met.
    found: Any = document
    try:
        for part in parts:
            if found is None:
                return None
            found = found.get(part)
    except AttributeError:
        raise FormatError(_STRUCTURE, f"{_no_object(document, parts)} is no object") from None
    return found  # type: ignore[no-any-return]  # JSON of any kind


def _no_object(document: Mapping[str, Json], parts: Sequence[str]) -> str:
    found: Any = document
    for number, part in enumerate(parts):
        if not isinstance(found, dict):
            return ".".join(parts[:number])
        found = found.get(part)
    return ".".join(parts)
