"""The annotation ``sevkit.io/capabilities`` of a Node, read back with suspicion.

Whoever may write to the Node wrote it: it is bounded, read strictly, and either understood whole or
refused whole. Its sentences are the node's own words: whoever shows them escapes them. Keys that
are not known are a newer agent's, and left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, final

from sevkit.documents import parse_json
from sevkit.errors import FormatError
from sevkit.host.capability import State, Technology
from sevkit.kubevirt.labels import CAPABILITIES, MAX_ANNOTATION

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sevkit.documents import Json

_STRUCTURE: Final = f"annotation {CAPABILITIES}"
_CODE: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_LONGEST_CODE: Final = 63
#: A fleet says few different things; each is at most 2 KiB.
_KEPT: Final = 512


@final
@dataclass(frozen=True, slots=True)
class Said:
    """What a node says of one technology. ``reason`` is a code, the other two are sentences."""

    state: State
    reason: str
    explanation: str
    hint: str


@final
@dataclass(frozen=True, slots=True)
class Annotation:
    """The annotation: ``said`` of every technology, and ``facts`` by their names in it.

    Facts are ``cBit``, ``reducedPhysBits``, ``firmware``, ``currentTcb``, ``reportedTcb`` and
    ``snpInitialized``, those that could be read on the node.
    """

    said: Mapping[Technology, Said]
    facts: Mapping[str, Json]


def parse_annotation(text: str) -> Annotation:
    """Return what the annotation says. Raises ``FormatError`` for more than 2 KiB and any defect.

    Equal texts are read once and share their answer, which nobody may change.
    """
    if len(text) > MAX_ANNOTATION:  # before it is kept
        raise FormatError(_STRUCTURE, f"larger than the limit of {MAX_ANNOTATION} bytes")
    return _parse(text)


@lru_cache(maxsize=_KEPT)
def _parse(text: str) -> Annotation:
    data = text.encode("utf-8", "surrogatepass")  # half a surrogate pair is then not UTF-8
    document = parse_json(data, _STRUCTURE, limit=MAX_ANNOTATION)
    if not isinstance(document, dict):
        raise FormatError(_STRUCTURE, "not an object")
    facts: dict[str, Json] = {}
    for name, is_well_formed in _FACTS.items():
        if name in document:
            if not is_well_formed(document[name]):
                raise FormatError(_STRUCTURE, f"{name} is ill-formed")
            facts[name] = document[name]
    said = {technology: _said(technology, document.get(technology)) for technology in Technology}
    return Annotation(said, facts)


def _said(technology: Technology, entry: Json) -> Said:
    if not isinstance(entry, dict):
        raise FormatError(_STRUCTURE, f"says nothing of {technology}")
    words = {name: entry.get(name, "") for name in ("state", "reason", "explanation", "hint")}
    texts = {name: word for name, word in words.items() if isinstance(word, str)}
    if len(texts) < len(words):
        raise FormatError(_STRUCTURE, f"{technology} has a word that is no text")
    state, reason = texts["state"], texts["reason"]
    if state not in frozenset(State):
        raise FormatError(_STRUCTURE, f"{technology} is in no state that there is")
    if len(reason) > _LONGEST_CODE or _CODE.fullmatch(reason) is None:
        raise FormatError(_STRUCTURE, f"{technology} has no reason")
    return Said(State(state), reason, texts["explanation"], texts["hint"])


def _is_number(value: Json) -> bool:
    return type(value) is int and 0 <= value < 1 << 16


def _is_text(value: Json) -> bool:
    return isinstance(value, str)


def _is_flag(value: Json) -> bool:
    return isinstance(value, bool)


def _is_tcb(value: Json) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


_FACTS: Final[Mapping[str, Callable[[Json], bool]]] = {
    "cBit": _is_number,
    "reducedPhysBits": _is_number,
    "firmware": _is_text,
    "currentTcb": _is_tcb,
    "reportedTcb": _is_tcb,
    "snpInitialized": _is_flag,
}
