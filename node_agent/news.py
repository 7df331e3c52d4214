"""What is new about a node, as Events for people: what changed, why, and what to do. Pure.

The state before is read from the annotation that was published last, so that an agent which was
restarted says nothing twice. On a first install only what somebody can mend is worth a word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sevkit.cluster.events import Event
from sevkit.documents import parse_json
from sevkit.errors import FormatError
from sevkit.host.capability import State, Technology
from sevkit.kubevirt.labels import CAPABILITIES, MAX_ANNOTATION

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sevkit.cluster.errors import Contested
    from sevkit.host.capability import Capabilities, Capability
    from sevkit.kubevirt.labels import NodeWord

#: Who says it, as events.k8s.io has it.
CONTROLLER: Final = "sevkit.io/node-agent"
PUBLISH: Final = "Publish"
GAINED: Final = "CapabilityGained"
LOST: Final = "CapabilityLost"
UNKNOWN: Final = "CapabilityUnknown"
CHANGED: Final = "CapabilityChanged"
MISSING: Final = "CapabilityMissing"
CONTESTED: Final = "KeysContested"
#: States that somebody can do something about.
_MENDABLE: Final = frozenset({State.DISABLED, State.UNUSABLE})
_NAMES: Final = 12


def capability_events(before: NodeWord, found: Capabilities) -> Iterator[Event]:
    """Yield an event for each technology whose state or reason is another than ``before``."""
    known = _states(before)
    for technology in Technology:
        capability = found.of(technology)
        said = (str(capability.state), str(capability.reason))
        was = known.get(technology)
        if was is None:
            if not before and capability.state in _MENDABLE and not _is_replaced(technology, found):
                yield _event(MISSING, technology, capability)
        elif was != said:
            yield _event(_reason(was[0], capability.state), technology, capability)


def contested_event(contested: Sequence[Contested]) -> Event:
    """Return the event that names keys which others own with other values."""
    names = [f"{one.field.split('.', 2)[-1]} ({one.manager})" for one in contested]
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return Event(
        CONTESTED,
        PUBLISH,
        f"left alone, because other field managers own them with other values: "
        f"{', '.join(names[:_NAMES])}{more}; remove them there, and they are set again",
        "Warning",
    )


def _is_replaced(technology: Technology, found: Capabilities) -> bool:
    """Whether it is missing because a better one is there, as on every healthy SNP host."""
    return technology is Technology.SEV_ES and found.sev_snp.state is State.USABLE


def _reason(before: str, now: State) -> str:
    if now is State.USABLE:
        return GAINED
    if now is State.UNKNOWN:
        return UNKNOWN
    return LOST if before == State.USABLE else CHANGED


def _event(reason: str, technology: Technology, capability: Capability) -> Event:
    note = f"{technology.spelling} is {capability.state} ({capability.reason})"
    if capability.state is State.USABLE:
        return Event(reason, PUBLISH, f"{note}: {capability.guests} guests")
    words = [note, capability.explanation]
    words += [f"fix: {capability.hint}"] if capability.hint else []
    return Event(reason, PUBLISH, "; ".join(words), "Warning")


def _states(word: NodeWord) -> Mapping[Technology, tuple[str, str]]:
    """Return state and reason by technology; what somebody garbled says nothing."""
    text = word.annotations.get(CAPABILITIES, "")
    try:
        document = parse_json(text.encode(), CAPABILITIES, limit=4 * MAX_ANNOTATION)
    except FormatError:
        return {}
    found = {}
    for technology in Technology:
        part = document.get(technology.value) if isinstance(document, dict) else None
        state, reason = (
            (part.get("state"), part.get("reason")) if isinstance(part, dict) else (0, 0)
        )
        if isinstance(state, str) and isinstance(reason, str):
            found[technology] = (state, reason)
    return found
