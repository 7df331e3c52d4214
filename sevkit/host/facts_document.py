"""Facts as one JSON document and as lines: each source with its value, or why there is none.

Schema ``sevkit.io/node-probe/v1``: every leaf is ``{"value": …}`` or ``{"unread": cause,
"detail": …}``, so that off, absent and unreadable stay three things. Chip IDs are not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum, IntEnum, IntFlag
from typing import TYPE_CHECKING, Any, Final

from sevkit.host.reading import Known, Unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sevkit.host.facts import HostFacts

SCHEMA: Final = "sevkit.io/node-probe/v1"
#: Facts that are more than one source, of which each is shown.
_GROUPS: Final = ("modules", "misc", "kvm")
#: What only bloats the document: the flags of /proc/cpuinfo that matter are few.
FLAGS: Final = ("svm", "sme", "sev", "sev_es", "sev_snp", "debug_swap", "hypervisor")
_TCB: Final = frozenset({"current_tcb", "reported_tcb"})


def facts_document(facts: HostFacts) -> dict[str, Any]:
    """Return all facts."""
    found: dict[str, Any] = {"simulated": facts.simulated, "product": facts.product}
    sources: dict[str, Any] = {}
    for field in fields(facts):
        value = getattr(facts, field.name)
        if field.name in _GROUPS:
            for part in fields(value):
                sources[f"{field.name}.{part.name}"] = _reading(getattr(value, part.name))
        elif isinstance(value, Known | Unreadable):
            sources[field.name] = _reading(value)
    return {"schema": SCHEMA, **found, "sources": sources}


def fact_lines(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (name, words) for every leaf of a document."""
    for name, source in document["sources"].items():
        if "unread" in source:
            yield name, f"({source['unread']}) {source['detail']}"
        else:
            yield from _lines(name, source["value"])


def _lines(name: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _lines(f"{name}.{key}", part)
    elif isinstance(value, list) and any(isinstance(part, dict) for part in value):
        for index, part in enumerate(value):
            yield from _lines(f"{name}.{index}", part)
    else:
        yield name, _words(value)


def _words(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    if value is None:
        return "not said"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _reading(reading: Known[Any] | Unreadable) -> dict[str, Any]:
    if isinstance(reading, Unreadable):
        return {"unread": reading.cause.value, "detail": reading.detail}
    return {"value": _plain(reading.value)}


def _plain(value: Any, name: str = "") -> object:  # noqa: ANN401  # facts of any type
    """Return a value as JSON has it; ``name`` is the fact's."""
    for kinds, shape in _SHAPES:
        if isinstance(value, kinds):
            return shape(value, name)
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name), f.name) for f in fields(value)}
    return value


def _sequence(value: Any, name: str) -> object:  # noqa: ANN401  # a tuple of anything
    if hasattr(value, "_asdict"):
        return _named(value)
    return [_plain(item, name) for item in value]


def _set(value: frozenset[Any], name: str) -> object:
    shown = [item for item in FLAGS if item in value] if name == "flags" else sorted(value)
    return [_plain(item) for item in shown]


#: What a value looks like, by the first kind that it is.
_SHAPES: Final[tuple[tuple[type | tuple[type, ...], Callable[[Any, str], object]], ...]] = (
    (IntFlag, lambda value, _: _flags(value)),
    (IntEnum, lambda value, _: value.name.lower()),
    (Enum, lambda value, _: value.value),
    (Mapping, lambda value, _: dict(value)),
    (tuple, _sequence),
    (frozenset, _set),
    (int, lambda value, name: f"{value:#018x}" if name in _TCB else value),
)


def _named(value: Any) -> object:  # noqa: ANN401  # a named tuple of any kind
    found = value._asdict()
    is_version = set(found) == {"major", "minor", "build"}
    return str(value) if is_version else {key: _plain(part, key) for key, part in found.items()}


def _flags(value: IntFlag) -> list[str]:
    """Return the names of bits, and the number of those without one."""
    names, known = [], 0
    for member in type(value):
        if member in value:
            names.append((member.name or "").lower())
            known |= member.value
    rest = int(value) & ~known
    return [*names, *([f"{rest:#x}"] if rest else [])]
