"""The entries of a webhook configuration: which one is called for what. Pure.

Each case of a namespace's label and an object's label is put to the selectors as the API server
puts it; how entries are named or ordered does not matter, only which path each case comes to.

Sources: k8s.io/api/admissionregistration/v1, MutatingWebhook and its defaults; kubernetes.io,
"Dynamic Admission Control".
"""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, final

from sevkit.errors import FormatError
from sevkit.kubevirt.json_patch import member
from sevkit.kubevirt.preflight.selector import selects
from sevkit.kubevirt.tiers import LABEL, VALUES
from sevkit.kubevirt.webhook_paths import GROUP, MUTATE, OWN, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sevkit.documents import Json
    from sevkit.kubevirt.preflight.survey import Document

_STRUCTURE: Final = "webhook configuration"
_RESOURCE: Final = "virtualmachineinstances"
#: What every rule that is about a new VMI has, or ``*``.
NEW_VMI: Final[Mapping[str, str]] = {
    "apiGroups": GROUP,
    "apiVersions": "v1",
    "operations": "CREATE",
    "resources": _RESOURCE,
}
_UNSCOPED: Final = "namespaces"
#: A value that asks for nothing that exists.
_OTHER: Final = "none-such"


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """One webhook of a configuration, with the API's defaults filled in."""

    name: str
    path: str
    url: str
    service: tuple[str, str]
    authority: str
    failure: str
    match: str
    reinvocation: str
    conditional: bool
    covers: bool
    namespace_selector: Json
    object_selector: Json

    def called(self, namespace: str | None, own: str | None) -> bool:
        """Return whether it is called for a new VMI, given both labels. Raises ``FormatError``."""
        return (
            self.covers
            and selects(self.namespace_selector, labels_of(namespace, "tenant"))
            and selects(self.object_selector, labels_of(own))
        )


def labels_of(value: str | None, name: str = "") -> dict[str, str]:
    """Return the labels of an object, or of a namespace ``name``, with this value of ours."""
    named = {"kubernetes.io/metadata.name": name} if name else {}
    return named if value is None else named | {LABEL: value}


class Case(NamedTuple):
    """The label of a namespace and of an object, None for none, and the path to come to."""

    namespace: str | None
    own: str | None
    path: str

    def __str__(self) -> str:
        if self.namespace is None:
            return "no label" if self.own is None else f"a VMI's own label {self.own}"
        return f"a namespace's label {self.namespace}" + (
            "" if self.own is None else f" and a VMI's {self.own}"
        )


def _cases() -> Iterator[Case]:
    for own in (None, *VALUES, _OTHER):
        for value in VALUES:
            yield Case(value, own, f"{MUTATE}{value}")
        yield Case(_OTHER, own, f"{MUTATE}{UNKNOWN}")
        if own is not None:
            yield Case(None, own, f"{MUTATE}{OWN}")


#: Every case in which something is asked for.
CASES: Final = tuple(
    sorted(_cases(), key=lambda case: (case.own is not None, case.namespace is None))
)


def parse_entries(document: Document) -> tuple[Entry, ...]:
    """Return the entries of a webhook configuration. Raises ``FormatError``."""
    found = document.get("webhooks")
    entries = [] if found is None else found
    if not isinstance(entries, list):
        raise FormatError(_STRUCTURE, "has no list of webhooks")
    return tuple(_entry(one) for one in entries)


def _entry(one: Json) -> Entry:
    if not isinstance(one, dict):
        raise FormatError(_STRUCTURE, "has a webhook that is no object")
    client = one.get("clientConfig")
    rules = one.get("rules")
    if not isinstance(client, dict) or not isinstance(rules, list | None):
        raise FormatError(_STRUCTURE, "has a webhook without clientConfig or rules")
    url = _text(client, "url")
    path = urllib.parse.urlsplit(url).path if url else _text(client, "service", "path")
    return Entry(
        name=_text(one, "name"),
        path=path,
        url=url,
        service=(_text(client, "service", "namespace"), _text(client, "service", "name")),
        authority=_text(client, "caBundle"),
        failure=_text(one, "failurePolicy") or "Fail",
        match=_text(one, "matchPolicy") or "Equivalent",
        reinvocation=_text(one, "reinvocationPolicy") or "Never",
        conditional=bool(one.get("matchConditions")),
        covers=any(rule_covers(rule, NEW_VMI) for rule in rules or []),
        namespace_selector=one.get("namespaceSelector"),
        object_selector=one.get("objectSelector"),
    )


def rule_covers(rule: Json, words: Mapping[str, str]) -> bool:
    """Return whether a rule has all these words, by the name of its list. Raises ``FormatError``.

    Rules of webhooks and of policies have the same form, but that those of policies may be about
    objects of certain names only.
    """
    if not isinstance(rule, dict):
        raise FormatError(_STRUCTURE, "has a rule that is no object")
    if rule.get("resourceNames"):
        return False
    for key, word in words.items():
        values = rule.get(key)
        if not isinstance(values, list) or not {word, "*", "*/*"} & {str(one) for one in values}:
            return False
    scope = "Cluster" if words["resources"] == _UNSCOPED else "Namespaced"
    # A tuple compares, a set would hash what may be a list.
    return rule.get("scope") in (None, "*", scope)


def _text(document: Document, *parts: str) -> str:
    found = member(document, *parts)
    if not isinstance(found, str | None):
        raise FormatError(_STRUCTURE, f"{'.'.join(parts)} is no text")
    return found or ""


def misled(entries: Sequence[Entry]) -> tuple[str, ...]:
    """Return in words each case that comes to another path than it should, or to none."""
    problems = []
    for case in CASES:
        paths = sorted({one.path for one in entries if one.called(case.namespace, case.own)})
        if paths != [case.path]:
            problems.append(f"{case} comes to {' and '.join(paths) or 'nothing'}, not {case.path}")
    return tuple(problems)
