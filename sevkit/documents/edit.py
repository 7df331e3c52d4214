"""A stream of documents as text that can be changed: what is not changed stays as it is.

Comments, order, quotes, indentation, line ends, anchors and marks of a stream are its author's. A
change puts text in or cuts text out where the value stands; nothing is written anew. The result is
read back, and is what was asked for, or nothing comes out.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, Final, final

from sevkit.documents.bounds import DOCUMENT_LIMIT, decode_text
from sevkit.documents.edit_places import read_places
from sevkit.documents.edit_source import PlaceRefused, Source, Splice
from sevkit.documents.edit_splices import find_splices, same
from sevkit.documents.stream import end_last_line, parse_documents
from sevkit.errors import FormatError, InternalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sevkit.documents.bounds import Json

__all__ = ["Manuscript", "PlaceRefused"]


@final
class Manuscript:
    """A YAML or JSON stream: its documents' values, the lines that they begin at, and its text.

    ``structure`` names the stream in errors. Raises ``FormatError`` as ``parse_documents``.
    """

    def __init__(self, data: bytes, structure: str, *, limit: int = DOCUMENT_LIMIT) -> None:
        self._structure: Final = structure
        self._limit: Final = limit
        self._data: Final = data
        self._source: Final = Source(decode_text(data, structure, limit))
        #: The documents' values; empty documents are left out.
        self.values: Final = parse_documents(data, structure, limit=limit)
        self._places: Final = read_places(end_last_line(self._source.text), structure)
        if len(self._places) != len(self.values):
            raise InternalError("the places of a stream are not those of its documents")
        #: The line of each document's first value, from 1.
        self.lines: Final = tuple(self._source.line_number(one.root.start) for one in self._places)

    def change(self, wanted: Mapping[int, Json]) -> bytes:
        """Return the stream in which the documents of these numbers, from 0, have these values.

        Mappings that are in both values are changed member by member; lists keep their length.
        Raises ``PlaceRefused`` for a change that cannot be made safely.
        """
        splices = [one for number in sorted(wanted) for one in self._find(number, wanted[number])]
        if not splices:
            return self._data
        mark = codecs.BOM_UTF8 if self._data.startswith(codecs.BOM_UTF8) else b""
        changed = mark + _spliced(self._source.text, splices).encode()
        self._verify(changed, wanted)
        return changed

    def find_refused(self, wanted: Mapping[int, Json]) -> Mapping[int, PlaceRefused]:
        """Return for each document that cannot be changed so the first reason why not."""
        found: dict[int, PlaceRefused] = {}
        for number, value in wanted.items():
            try:
                self._find(number, value)
            except PlaceRefused as refused:
                found[number] = refused
        return found

    def _find(self, number: int, value: Json) -> tuple[Splice, ...]:
        return find_splices(self._source, self._places[number], self.values[number], value)

    def _verify(self, changed: bytes, wanted: Mapping[int, Json]) -> None:
        try:
            found = parse_documents(changed, self._structure, limit=self._limit)
        except FormatError as error:
            if len(changed) > self._limit:
                raise
            raise InternalError(f"what was written cannot be read: {error.message}") from error
        asked = [wanted.get(number, value) for number, value in enumerate(self.values)]
        if not same(list(found), asked):
            raise InternalError(f"{self._structure}: what was written is not what was asked for")


def _spliced(text: str, splices: Iterable[Splice]) -> str:
    parts, done = [], 0
    for splice in splices:
        if splice.start < done:
            raise InternalError("two changes of a text overlap")
        parts += [text[done : splice.start], splice.text]
        done = splice.end
    return "".join([*parts, text[done:]])
