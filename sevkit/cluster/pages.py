"""A whole collection of the API server, asked for in pages and never held as a whole.

Theory of operation. Each object of a page is given to ``fold`` at once and then forgotten, so that
memory holds one page and what was made of the others. A list that the API server has forgotten
half-way (410) begins again with a fresh ``start``: half of one list and half of another would be
neither. A server that is busy (429) is waited for as it asks, a few times.

Source: Kubernetes API concepts, "Retrieving large results sets in chunks".
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from sevkit.cluster.api import Call, mapping
from sevkit.cluster.errors import BadAnswer, Gone, TooMany

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sevkit.cluster.api import ApiServer
    from sevkit.documents import Json

#: Objects of one page, and the largest page in bytes: a node has 10 to 30 KiB, mostly names of
#: images.
PAGE: Final = 250
PAGE_LIMIT: Final = 64 << 20
#: How often a list is begun, and one page is asked for.
BEGINNINGS: Final = 3
ATTEMPTS: Final = 6
LONGEST_WAIT: Final = 30.0

_Made = TypeVar("_Made")


def _quiet(_: int) -> None:
    """Tell nobody."""


def fold_list(
    server: ApiServer,
    path: str,
    query: tuple[tuple[str, str], ...],
    *,
    start: Callable[[], _Made],
    fold: Callable[[_Made, Mapping[str, Json]], None],
    page: int = PAGE,
    told: Callable[[int], None] = _quiet,
    pause: Callable[[float], None] = time.sleep,
) -> _Made:
    """Return what ``fold`` made of ``start()`` with every object of the collection at ``path``.

    ``query`` holds selectors; ``told`` learns after each page how many objects there were so far.
    Raises ``ClusterError``.
    """

    def once() -> _Made:
        made, count = start(), 0
        call = Call("GET", path, (("limit", str(page)), *query), limit=PAGE_LIMIT)
        for found in iter_pages(lambda one: _patiently(server, one, pause), call):
            for item in found.items:
                fold(made, mapping(item))
            count += len(found.items)
            told(count)
        return made

    for _ in range(BEGINNINGS - 1):
        with contextlib.suppress(Gone):
            return once()
    return once()


class Page(NamedTuple):
    """Objects, the list's metadata, and the token of the next page, "" for the last."""

    items: list[Json]
    metadata: Mapping[str, Json]
    following: str


def iter_pages(ask: Callable[[Call], Json], first: Call) -> Iterator[Page]:
    """Yield the pages of a collection, at least one; ``first`` asks for the first.

    Raises ``BadAnswer``, also for tokens that come again: such a list has no end.
    """
    call, tokens = first, set[str]()
    while True:
        page = _parse_page(ask(call))
        if page.following in tokens:
            raise BadAnswer("API server's list has no end")
        yield page
        if not page.following:
            return
        tokens.add(page.following)
        call = replace(first, query=(*first.query, ("continue", page.following)))


def _parse_page(answer: Json) -> Page:
    document = mapping(answer)
    items, metadata = document.get("items", ""), document.get("metadata")
    following = metadata.get("continue", "") if isinstance(metadata, dict) else None
    # An empty list may be null, as Go writes a slice that was never made; it is never left out.
    if (
        not isinstance(items, list | None)
        or not isinstance(metadata, dict)
        or not isinstance(following, str)
    ):
        raise BadAnswer("API server answered with something else than a list")
    return Page(items or [], metadata, following)


def _patiently(server: ApiServer, call: Call, pause: Callable[[float], None]) -> Json:
    for _ in range(ATTEMPTS - 1):
        try:
            return server.call(call)
        except TooMany as busy:
            wait = 1.0 if busy.retry_after is None else busy.retry_after
            if wait > LONGEST_WAIT:
                raise
            pause(wait)
    return server.call(call)
