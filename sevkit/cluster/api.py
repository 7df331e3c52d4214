"""One request to an API server as a value, and what answers it. Pure.

Behind this stands a ``Connection`` or something simulated. Paths are made here, each part quoted,
from hand-written tables: nothing asks the API server which kinds it has (discovery is one request
for each group, and thousands of nodes would make them all at once).
"""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, final

from sevkit.cluster.errors import BadAnswer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from sevkit.documents import Json

Method: TypeAlias = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
ContentType: TypeAlias = Literal[
    "application/json", "application/apply-patch+yaml", "application/merge-patch+json"
]
Accept: TypeAlias = Literal[
    "application/json",
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
]

#: Largest answer for one object, in bytes: etcd holds at most 1.5 MiB of it, JSON adds to that.
OBJECT_LIMIT: Final = 4 << 20
JSON: Final = "application/json"
APPLY: Final = "application/apply-patch+yaml"
MERGE_PATCH: Final = "application/merge-patch+json"
#: Objects, and lists of them, without anything but their metadata.
METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


@final
@dataclass(frozen=True, slots=True)
class Call:
    """One request. ``path`` is absolute and quoted, ``query`` is not; ``limit`` bounds the answer.

    ``body`` is sent as JSON, which is YAML too, whatever ``content_type`` says.
    """

    method: Method
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: dict[str, Json] | None = None
    content_type: ContentType = JSON
    limit: int = OBJECT_LIMIT
    accept: Accept = JSON


class ApiServer(Protocol):
    """What answers calls."""

    def call(self, call: Call) -> Json:
        """Return the answer's JSON, None if it is empty, or raise a ``ClusterError``."""


class StreamingServer(ApiServer, Protocol):
    """What answers calls, and some of them line by line for as long as it lasts."""

    def stream(self, call: Call, *, idle: float) -> AbstractContextManager[Iterator[Json]]:
        """Lend the JSON of each line as it comes; each has ``idle`` seconds to come whole.

        ``call.limit`` bounds one line. Raises a ``ClusterError``, then or in the middle.
        """
        ...

    def interrupt(self) -> None:
        """End the requests under way, in whatever thread, and refuse all others from now on."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object as the API server's paths name it; ``group`` is "" for the core."""

    group: str
    version: str
    plural: str
    namespaced: bool = True

    def path(self, name: str = "", *, namespace: str = "", subresource: str = "") -> str:
        """Return the path of an object, of its subresource, or of the collection without ``name``.

        Without ``namespace`` a namespaced collection is that of all namespaces.
        """
        parts = ["apis", self.group] if self.group else ["api"]
        parts.append(self.version)
        parts += ["namespaces", namespace] if self.namespaced and namespace else []
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "".join(f"/{_quoted(part)}" for part in parts)


def _quoted(part: str) -> str:
    # Quoting leaves dots alone, and a path of dots would be another path.
    quoted = urllib.parse.quote(part, safe="")
    return quoted.replace(".", "%2E") if set(part) == {"."} else quoted


def apply(path: str, body: dict[str, Json], *, manager: str, force: bool = False) -> Call:
    """Return a server-side apply of ``body`` at ``path`` by the field manager ``manager``.

    ``force`` takes fields over that others own; without it they make a ``Conflict``.
    """
    query = (("fieldManager", manager), ("force", str(force).lower()))
    return Call("PATCH", path, query, body, APPLY)


def mapping(answer: Json) -> Mapping[str, Json]:
    """Return an answer that has to be an object, or raise ``BadAnswer``."""
    if not isinstance(answer, dict):
        raise BadAnswer("API server answered with something else than an object")
    return answer
