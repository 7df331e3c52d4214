"""Which objects of a manifest make VMIs, and where each holds its VMI's template. Pure.

Source: KubeVirt ``api/core/v1`` and ``api/pool/v1alpha1``; kubectl for what a list is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sevkit.errors import FormatError
from sevkit.kubevirt.launch_case import ATTESTATION, POOL_LABEL, Owner
from sevkit.kubevirt.launch_security import REQUIRED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sevkit.documents import Json

_STRUCTURE: Final = "manifest"
_LIST: Final = "List"
_CORE: Final = ("kubevirt.io/", frozenset({"kubevirt.io/v1", "kubevirt.io/v1alpha3"}))
_POOL: Final = (
    "pool.kubevirt.io/",
    frozenset({"pool.kubevirt.io/v1alpha1", "pool.kubevirt.io/v1beta1"}),
)
#: From an object to the template in it.
STEP: Final = ("spec", "template")


class Kind(NamedTuple):
    """Its API and the versions that are known, where its VMI's template is, and who owns that."""

    group: str
    versions: frozenset[str]
    template: tuple[str, ...]
    owner: Owner


KINDS: Final[Mapping[str, Kind]] = {
    "VirtualMachineInstance": Kind(*_CORE, (), Owner.NOBODY),
    "VirtualMachine": Kind(*_CORE, STEP, Owner.MACHINE),
    "VirtualMachineInstanceReplicaSet": Kind(*_CORE, STEP, Owner.REPLICA_SET),
    "VirtualMachinePool": Kind(*_POOL, ("spec", "virtualMachineTemplate", *STEP), Owner.POOL),
}


class Maker(NamedTuple):
    """An object that makes VMIs. ``path`` is empty, or that of a list's item in its document."""

    path: tuple[str, ...]
    word: str
    version: str
    kind: Kind
    body: Mapping[str, Json]

    @property
    def is_known(self) -> bool:
        """Whether its version is one whose template is where ``kind`` says."""
        return self.version in self.kind.versions

    @property
    def name(self) -> str:
        """What to call it."""
        metadata = self.body.get("metadata")
        known = metadata if isinstance(metadata, dict) else {}
        prefix = _text(known, "generateName")
        return _text(known, "name") or (f"{prefix}…" if prefix else "without a name")


def find_makers(document: Json) -> Iterator[Maker]:
    """Yield the objects that kubectl makes of a document, and KubeVirt makes VMIs of.

    Whatever has ``items`` is a list to kubectl, which makes those and not the object around them;
    they inherit what they are from it if they do not say it. Raises ``FormatError`` for what would
    so be another object than it says it is, and for a list in a list, which kubectl does not take.
    """
    for path, word, version, body in _objects(document):
        kind = KINDS.get(word)
        if kind is None or not version.startswith(kind.group):
            continue
        if "items" in body:
            place = f"{path[0]}[{path[1]}]: " if path else ""
            raise FormatError(_STRUCTURE, f"{place}{word} has items, and is not a list")
        yield Maker(path, word, version, kind, body)


def _objects(
    document: Json,
) -> Iterator[tuple[tuple[str, ...], str, str, Mapping[str, Json]]]:
    if not isinstance(document, dict):
        return
    kind, version = _text(document, "kind"), _text(document, "apiVersion")
    yield (), kind, version, document
    items = document.get("items")
    for number, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, dict):
            if isinstance(item.get("items"), list):
                raise FormatError(_STRUCTURE, f"items[{number}] is a list in a list")
            own = _text(item, "kind"), _text(item, "apiVersion")
            said = own if any(own) else (kind.removesuffix(_LIST), version)
            yield ("items", str(number)), *said, item


def with_makers(document: Json, changed: Mapping[tuple[str, ...], Mapping[str, Json]]) -> Json:
    """Return a document with the makers at some paths exchanged."""
    if not changed or not isinstance(document, dict):
        return document
    if () in changed:
        return dict(changed[()])
    items = document.get("items")
    exchanged: list[Json] = []
    for number, item in enumerate(items if isinstance(items, list) else ()):
        found = changed.get(("items", str(number)))
        exchanged.append(item if found is None else dict(found))
    return {**document, "items": exchanged}


def as_made(template: Mapping[str, Json], kind: Kind, *, attestation: bool) -> dict[str, Json]:
    """Return a template as the VMI that its owner makes of it.

    With ``attestation``, as if its annotation asked for that. What is ill-formed stays as it is,
    for the decision to say so.
    """
    vmi, metadata = dict(template), template.get("metadata")
    if not isinstance(metadata, dict | None):
        return vmi
    known = dict(metadata or {})
    if attestation:
        known["annotations"] = _completed(known.get("annotations"), ATTESTATION, REQUIRED)
    if kind.owner is Owner.POOL:
        known["labels"] = _completed(known.get("labels"), POOL_LABEL, "")
    if kind.owner is not Owner.NOBODY:
        # A pool makes VMs, and they make the VMIs.
        owner = Owner.MACHINE if kind.owner is Owner.POOL else kind.owner
        known["ownerReferences"] = [{"kind": owner.value, "controller": True}]
    return vmi | {"metadata": known}


def _completed(found: Json, key: str, value: str) -> Json:
    return {key: value, **(found or {})} if isinstance(found, dict | None) else found


def _text(document: Mapping[str, Json], key: str) -> str:
    found = document.get(key)
    return found if isinstance(found, str) else ""
