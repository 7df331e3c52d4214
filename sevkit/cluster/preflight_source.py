"""What a preflight asks of the API server, with few rights: each question has its own answer.

What is not there is None, and what may not be asked, or is not answered, is a ``Refusal`` of that
one question. Without a connection, or without an identity, there is no answer to anything: that is
raised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar, final

from sevkit.cluster.api import Call, mapping
from sevkit.cluster.errors import BadAnswer, Forbidden, NotFound, Unauthorized, Unreachable
from sevkit.cluster.pages import fold_list
from sevkit.errors import ClusterError, FormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sevkit.cluster.api import ApiServer, Kind
    from sevkit.documents import Json

_Made = TypeVar("_Made")
Document: TypeAlias = "Mapping[str, Json]"


@final
@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no answer, and the right that is missing for it, such as ``list nodes``."""

    reason: str
    right: str = ""


def get_version(server: ApiServer) -> Document | Refusal:
    """Return what the API server says of its version. Raises ``ClusterError`` as all of them.

    To be asked first: what has no version is no API server, and that it has nothing else either
    says nothing of a cluster. Raises ``BadAnswer`` then.
    """
    found = _asked("get /version", lambda: mapping(server.call(Call("GET", "/version"))))
    if found is None:
        raise BadAnswer(
            "API server does not have /version", hint="is this the API server's address?"
        )
    return found


def get_object(
    server: ApiServer, kind: Kind, name: str, *, namespace: str = ""
) -> Document | Refusal | None:
    """Return an object, or None where it is not there, or no such kind is served."""
    call = Call("GET", kind.path(name, namespace=namespace))
    return _asked(_right("get", kind, namespace), lambda: mapping(server.call(call)))


def fold_objects(
    server: ApiServer,
    kind: Kind,
    reduce: Callable[[Document], _Made | None],
    *,
    namespace: str = "",
    selector: str = "",
) -> tuple[_Made, ...] | Refusal:
    """Return what ``reduce`` makes of every object, asked for in pages; () if none is served.

    ``selector`` is a label selector. Where ``reduce`` returns None, the object is left out; where
    it raises ``FormatError``, there is no answer.
    """
    query = (("labelSelector", selector),) if selector else ()

    def start() -> list[_Made]:
        return []

    def fold(made: list[_Made], document: Document) -> None:
        one = reduce(document)
        if one is not None:
            made.append(one)

    def ask() -> list[_Made]:
        return fold_list(server, kind.path(namespace=namespace), query, start=start, fold=fold)

    found = _asked(_right("list", kind, namespace), ask)
    return found if isinstance(found, Refusal) else tuple(found or ())


def _right(verb: str, kind: Kind, namespace: str) -> str:
    """Return a right as people grant it: ``list nodes``, ``get services in sevkit-system``."""
    resource = f"{kind.plural}.{kind.group}" if kind.group else kind.plural
    return f"{verb} {resource}" + (f" in {namespace}" if namespace else "")


_T = TypeVar("_T")


def _asked(right: str, ask: Callable[[], _T]) -> _T | Refusal | None:
    """Return an answer, None for what is not there, or why there is none."""
    try:
        return ask()
    except (Unreachable, Unauthorized):
        raise
    except NotFound:
        return None
    except Forbidden:
        return Refusal("forbidden", right)
    except ClusterError as error:
        return Refusal(error.message)
    except FormatError as error:
        return Refusal(f"API server's answer: {error.message}")
