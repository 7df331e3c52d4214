"""The webhook's decision for manifests: what each template of a VMI in a document gets. Pure.

The decision is taken over a VMI as KubeVirt will make it of the template, with the owner that it
will have. Its operations then go to where the template stands in the object, and in the list around
it. What a template cannot say for certain, because an instancetype fills it in, is left alone.

Source: KubeVirt ``pkg/instancetype/apply`` for what conflicts with an instancetype; its admitters
of pools and replica sets, which have no mutator before them; its VM controller, which takes the
topology that the mutator fills in for a change of a template that has ``cpu`` and none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, final

from sevkit.errors import FormatError, UsageError
from sevkit.kubevirt.installation import SNP_SINCE
from sevkit.kubevirt.json_patch import Editor, member, pointer, split_pointer
from sevkit.kubevirt.launch_case import ATTESTATION, Owner, named
from sevkit.kubevirt.launch_rules import Refusal
from sevkit.kubevirt.launch_security import INJECTED, REQUIRED, Decision, decide
from sevkit.kubevirt.manifests import parse_manifest
from sevkit.kubevirt.tiers import LABEL, Tier
from sevkit.kubevirt.vmi_templates import STEP, as_made, find_makers, with_makers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sevkit.documents import Json
    from sevkit.kubevirt.json_patch import Operation
    from sevkit.kubevirt.launch_security import Around, Requirement
    from sevkit.kubevirt.policy import Policy
    from sevkit.kubevirt.vmi_templates import Kind, Maker

_LAUNCH_SECURITY: Final = "launchSecurity"
#: What an instancetype sets in the domain, and may not be set beside it.
_INSTANCETYPE: Final = frozenset({"cpu", "memory", _LAUNCH_SECURITY})
_ARCHITECTURE: Final = ("spec", "architecture")
_CPU: Final = ("spec", "domain", "cpu")
_TOPOLOGY: Final = frozenset({"sockets", "cores", "threads"})
#: Of these the VMI's template is in a VM.
_MACHINES: Final = frozenset({Owner.MACHINE, Owner.POOL})
#: Of these KubeVirt judges the launch security before anything has put the architecture in.
_UNDEFAULTED: Final = frozenset({Owner.REPLICA_SET, Owner.POOL})
_AUDIT: Final = frozenset(
    {pointer(("metadata", "annotations")), pointer(("metadata", "annotations", INJECTED))}
)


@final
@dataclass(frozen=True, slots=True)
class Settings:
    """What is asked of every manifest.

    ``namespace`` is what the namespace's label would ask for, None for a namespace without it;
    ``attestation`` says that every template is to be attested, as if its annotation said so.
    """

    namespace: Requirement | None
    policy: Policy
    around: Around
    attestation: bool = False


@final
@dataclass(frozen=True, slots=True)
class Judgement:
    """What becomes of one object that makes VMIs.

    ``path`` is where it stands in its document: empty, or that of a list's item. The decision's
    operations, and the fields of its refusals, are those of the document.
    """

    kind: str
    name: str
    path: tuple[str, ...]
    decision: Decision


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of a document: its value after all operations, and each object's judgement."""

    value: Json
    judgements: tuple[Judgement, ...]


def inject(document: Json, settings: Settings) -> Outcome:
    """Return what becomes of a document; nothing of what makes no VMIs.

    Raises ``FormatError`` for what kubectl would take for another object than it says it is.
    """
    judgements = []
    changed: dict[tuple[str, ...], Mapping[str, Json]] = {}
    for maker in find_makers(document):
        editor = Editor(maker.body)
        if maker.is_known:
            decision = _placed(_judge(editor, maker.kind, settings), maker)
        else:
            decision = _unknown(maker, settings)
        if decision.operations:
            changed[maker.path] = editor.document
        judgements.append(Judgement(maker.word, maker.name, maker.path, decision))
    return Outcome(with_makers(document, changed), tuple(judgements))


def _judge(editor: Editor, kind: Kind, settings: Settings) -> Decision:
    """Return the decision, its operations as the object takes them, which ``editor`` then has."""
    try:
        template = member(editor.document, *kind.template)
    except FormatError:
        template = None
    if not isinstance(template, dict):
        if settings.namespace is None:
            return Decision()  # nothing asks for anything, and KubeVirt refuses it
        refusal = Refusal("malformed", "", "is no template of a VMI", "write one")
        return Decision(refusals=(refusal,))
    vmi = as_made(template, kind, attestation=settings.attestation)
    decision = decide(vmi, settings.namespace, settings.policy, _possible(settings.around))
    if decision.refusals:
        return decision
    warnings = [*decision.warnings, *_misplaced(editor.document, template, kind)]
    if decision.tier is None:
        return replace(decision, warnings=tuple(warnings))
    if decision.tier is Tier.SNP and _lacks_snp(settings.around):
        refusal = Refusal(
            "version",
            "spec.domain.launchSecurity",
            "KubeVirt has SEV-SNP since 1.7",
            "ask for sev-es, or upgrade KubeVirt",
        )
        return Decision(decision.tier, refusals=(refusal,))
    said = _write(editor, kind, vmi, decision, attestation=settings.attestation)
    return replace(decision, operations=editor.operations, warnings=(*warnings, *said))


def _write(
    editor: Editor,
    kind: Kind,
    vmi: Mapping[str, Json],
    decision: Decision,
    *,
    attestation: bool,
) -> list[str]:
    """Make the decision's operations in ``editor``, where the template is; return more warnings."""
    operations = decision.operations
    instancetype = _instancetype(editor.document, kind)
    if instancetype:
        operations, left = _beside_instancetype(operations)
        said = [f"{key} is left to {instancetype}{_CAUTIONS.get(key, '')}" for key in left]
    else:
        said = list(_notes(vmi, operations, kind))
    if attestation and decision.tier is not Tier.SNP:
        editor.set(REQUIRED, *kind.template, "metadata", "annotations", ATTESTATION)
    for one in operations:
        _repeat(editor, one, kind.template)
    if kind.owner in _UNDEFAULTED and not member(vmi, *_ARCHITECTURE):
        editor.set("amd64", *kind.template, *_ARCHITECTURE)
    return said


def _possible(around: Around) -> Around:
    """Return what is known without the tiers that this KubeVirt does not have."""
    if around.runnable is None or not _lacks_snp(around):
        return around
    return around._replace(runnable=around.runnable - {Tier.SNP})


def _lacks_snp(around: Around) -> bool:
    version = around.installation.version
    return version is not None and version < SNP_SINCE


def _instancetype(document: Mapping[str, Json], kind: Kind) -> str:
    """Return what to call the instancetype that a VM, or the VM of a pool, names; "" for none."""
    if kind.owner not in _MACHINES:
        return ""
    found = member(document, *kind.template[:-1], "instancetype")
    if found is None:
        return ""
    return f"instancetype {named(found if isinstance(found, dict) else {})}"


def _beside_instancetype(
    operations: Sequence[Operation],
) -> tuple[tuple[Operation, ...], tuple[str, ...]]:
    """Return the operations that go beside an instancetype, and what it is left to set."""
    kept, left = [], {}
    for one in operations:
        parts = split_pointer(one.path)
        if parts[:2] == ("spec", "domain") and parts[2:3] and parts[2] in _INSTANCETYPE:
            left[parts[2]] = True
        else:
            kept.append(one)
    # Without launch security the template is not what the note for audit would say it is.
    if _LAUNCH_SECURITY in left or all(one.path in _AUDIT for one in kept):
        kept = [one for one in kept if one.path not in _AUDIT]
    return tuple(kept), tuple(left)


#: What it means that an instancetype is left to set something.
_CAUTIONS: Final = {
    _LAUNCH_SECURITY: "; unless that or the webhook sets it, the VM is not confidential",
}


def _notes(vmi: Mapping[str, Json], operations: Sequence[Operation], kind: Kind) -> Iterator[str]:
    """Yield what the changed template means for its VM, and the launch digest does not."""
    editor = Editor(vmi)
    for one in operations:
        _repeat(editor, one, ())
    cpu = member(editor.document, *_CPU)
    is_ours = any(split_pointer(one.path)[: len(_CPU)] == _CPU for one in operations)
    if is_ours and kind.owner in _MACHINES and isinstance(cpu, dict) and not _TOPOLOGY & cpu.keys():
        yield "cpu without cores makes KubeVirt ask for a restart of the VM at once: write cores"
    whole = {**editor.document, "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance"}
    try:
        # Of a kernel that is not measured, the decision has warned already.
        yield from (note for note in parse_manifest((whole,)).notes if "vCPU" in note)
    except (FormatError, UsageError) as error:
        yield f"its launch digest cannot be told: {error.message}"


def _misplaced(
    document: Mapping[str, Json], template: Mapping[str, Json], kind: Kind
) -> Iterator[str]:
    """Yield where the label stands on an object around a template that does not have it."""
    if _label(template) is not None:
        return
    for length in range(0, len(kind.template), len(STEP)):
        above = member(document, *kind.template[:length])
        if isinstance(above, dict) and _label(above) is not None:
            place = ".".join((*kind.template[:length], "metadata.labels"))
            right = ".".join((*kind.template, "metadata.labels"))
            yield f"{LABEL} asks for nothing in {place}: it belongs in {right}"


def _label(document: Mapping[str, Json]) -> Json:
    try:
        return member(document, "metadata", "labels", LABEL)
    except FormatError:
        return None


def _repeat(editor: Editor, operation: Operation, prefix: Sequence[str]) -> None:
    parts = split_pointer(operation.path)
    if operation.op == "remove":
        editor.remove(*prefix, *parts)
    else:
        editor.set(operation.value, *prefix, *parts)


def _unknown(maker: Maker, settings: Settings) -> Decision:
    """Return the decision about an object whose version may have its template anywhere."""
    said = f"version {maker.version[:40]} is not known here"
    if settings.namespace is None:
        return Decision(warnings=(f"{said}: it stays as it is",))
    fix = f"write one of {', '.join(sorted(maker.kind.versions))}"
    return Decision(refusals=(Refusal("version", _field(maker, "apiVersion"), said, fix),))


def _field(maker: Maker, *parts: str) -> str:
    """Return where a field of an object is in its document, in dots."""
    item = "{}[{}]".format(*maker.path) if maker.path else ""
    return ".".join(filter(None, (item, *parts)))


def _placed(decision: Decision, maker: Maker) -> Decision:
    """Return a decision about an object as one about its document."""
    refusals = (
        replace(one, field=_field(maker, *maker.kind.template, one.field))
        for one in decision.refusals
    )
    operations = (one._replace(path=pointer(maker.path) + one.path) for one in decision.operations)
    return replace(decision, operations=tuple(operations), refusals=tuple(refusals))
