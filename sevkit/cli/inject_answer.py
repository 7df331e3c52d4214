"""What ``sevkit inject`` answers: lines for people, and a document for programs."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, final

from sevkit.documents.edit import Manuscript, PlaceRefused
from sevkit.errors import ExpectationError, FormatError, UsageError
from sevkit.kubevirt.injection import Judgement, Outcome, Settings, inject
from sevkit.kubevirt.launch_rules import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sevkit.documents import Json
    from sevkit.kubevirt.json_patch import Operation

SCHEMA: Final = "sevkit.io/inject/v1"
REFUSED: Final = "refused"
CHANGED: Final = "changed"
UNCHANGED: Final = "unchanged"
#: Of a document that makes no VMIs, or asks for nothing.
PASSED: Final = "passed"
_LONGEST: Final = 60


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """What becomes of one object. ``number`` is its document's, from 0, and ``line`` where it is.

    ``judgement`` is None for an object of another kind.
    """

    number: int
    line: int
    kind: str
    name: str
    judgement: Judgement | None

    @property
    def outcome(self) -> str:
        """The outcome in a word."""
        if self.judgement is None:
            return PASSED
        decision = self.judgement.decision
        if decision.refusals:
            return REFUSED
        if decision.tier is None:
            return PASSED
        return CHANGED if decision.operations else UNCHANGED


@final
@dataclass(frozen=True, slots=True)
class Answer:
    """What becomes of one file. ``data`` is its stream, as it was where something is refused."""

    path: str
    entries: tuple[Entry, ...]
    before: bytes
    data: bytes

    @property
    def outcome(self) -> str:
        """The outcome in a word, the gravest of its objects'."""
        if any(entry.outcome == REFUSED for entry in self.entries):
            return REFUSED
        return UNCHANGED if self.data == self.before else CHANGED

    def warnings(self) -> Iterator[str]:
        """Yield a line for each warning."""
        for entry, judgement in self._judged():
            yield from (f"{self._at(entry)}{text}" for text in judgement.decision.warnings)

    def refusals(self) -> Iterator[str]:
        """Yield a line for each reason why not."""
        for entry, judgement in self._judged():
            yield from (f"{self._at(entry)}{refusal}" for refusal in judgement.decision.refusals)

    def changes(self) -> Iterator[str]:
        """Yield a line for each operation."""
        for entry, judgement in self._judged():
            for one in judgement.decision.operations:
                yield f"{self._at(entry)}would {_words(one)}"

    def to_json(self, *, with_stream: bool) -> dict[str, Any]:
        """Return it for programs; ``with_stream`` says whether the changed stream is part of it."""
        return {
            "file": self.path,
            "outcome": self.outcome,
            "documents": [_to_json(entry) for entry in self.entries],
            "stream": self.data.decode() if with_stream else None,
        }

    def _judged(self) -> Iterator[tuple[Entry, Judgement]]:
        for entry in self.entries:
            if entry.judgement is not None:
                yield entry, entry.judgement

    def _at(self, entry: Entry) -> str:
        return f"{self.path}:{entry.line}: {entry.kind}/{entry.name}: "


def answer(path: str, data: bytes, settings: Settings) -> Answer:
    """Return what becomes of a file's stream.

    Raises ``FormatError`` for what is no stream of objects, ``UsageError`` for one of nothing, and
    for a tier that cannot be chosen because nothing is known of the nodes.
    """
    manuscript = Manuscript(data, path)
    if not manuscript.values:
        raise UsageError(f"{path}: holds no objects")
    entries: list[Entry] = []
    wanted: dict[int, Json] = {}
    for number, (value, line) in enumerate(zip(manuscript.values, manuscript.lines, strict=True)):
        if not isinstance(value, dict):
            raise FormatError(path, f"the document at line {line} is not an object")
        outcome = _judge(path, line, value, settings)
        if any(one.decision.operations for one in outcome.judgements):
            wanted[number] = outcome.value
        entries += (Entry(number, line, one.kind, one.name, one) for one in outcome.judgements)
        if not outcome.judgements:
            entries.append(Entry(number, line, *_told(value), None))
    refused = manuscript.find_refused(wanted)
    found = Answer(
        path, tuple(_refused(one, refused.get(one.number)) for one in entries), data, data
    )
    return found if found.outcome == REFUSED else replace(found, data=manuscript.change(wanted))


def _judge(path: str, line: int, value: dict[str, Json], settings: Settings) -> Outcome:
    try:
        outcome = inject(value, settings)
    except FormatError as error:
        raise FormatError(path, f"{error.message} (document at line {line})") from error
    for one in outcome.judgements:
        if one.decision.is_undecided:
            raise UsageError(
                f"{path}:{line}: {one.kind}/{one.name}: best needs to know the tiers",
                hint="--tiers snp,sev-es says what there is; or ask for one by its name",
            )
    return outcome


def _refused(entry: Entry, error: PlaceRefused | None) -> Entry:
    """Return an entry with the refusal of what cannot be written, if that is in its object."""
    judgement = entry.judgement
    if error is None or judgement is None or not judgement.decision.operations:
        return entry
    # What stands around the objects of a list stands in the way of each.
    if any(one != other for one, other in zip(judgement.path, error.parts, strict=False)):
        return entry
    why = f"{error.why} (line {error.line}), and cannot be changed safely"
    refusal = Refusal("not-editable", error.path, why, error.hint)
    decision = replace(judgement.decision, operations=(), refusals=(refusal,))
    return replace(entry, judgement=replace(judgement, decision=decision))


def exit_code(answers: list[Answer], *, check: bool) -> int:
    """Return 3 if something is refused, or for ``check`` would change; else 0."""
    grave = {REFUSED, CHANGED} if check else {REFUSED}
    return ExpectationError.exit_code if grave & {one.outcome for one in answers} else 0


def to_json(answers: list[Answer], *, check: bool) -> dict[str, Any]:
    """Return the answer for programs."""
    code = exit_code(answers, check=check)
    shown = not check and not code
    files = [one.to_json(with_stream=shown) for one in answers]
    return {"schema": SCHEMA, "exit_code": code, "files": files}


def _to_json(entry: Entry) -> dict[str, Any]:
    found: dict[str, Any] = {
        "number": entry.number + 1,
        "line": entry.line,
        "kind": entry.kind,
        "name": entry.name,
        "outcome": entry.outcome,
    }
    if entry.judgement is None:
        return found
    decision = entry.judgement.decision
    return found | {
        "tier": None if decision.tier is None else decision.tier.value,
        "operations": [one.to_json() for one in decision.operations],
        "refusals": [
            {"code": one.code, "field": one.field, "message": one.message, "fix": one.fix}
            for one in decision.refusals
        ],
        "warnings": list(decision.warnings),
    }


def _told(value: dict[str, Json]) -> tuple[str, str]:
    """Return what an object of any kind says that it is."""
    metadata = value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    kind = value.get("kind")
    return kind if isinstance(kind, str) else "", name if isinstance(name, str) else ""


def _words(operation: Operation) -> str:
    if operation.op == "remove":
        return f"remove {operation.path}"
    value = json.dumps(operation.value)
    return f"{operation.op} {operation.path}: {value[:_LONGEST]}"
