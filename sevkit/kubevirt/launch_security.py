"""Which launch security a VMI gets, or why it is refused: the webhook's decision. Pure.

Theory of operation. A namespace and an object each ask for a tier, or for the best that there is.
The object may ask for more than its namespace, and never for less. What the object already has
stays if it is strong enough; else a tier is chosen: the one that is asked for, or for ``best`` the
strongest that some node can run. For that tier every refusal of ``launch_rules`` is looked for;
where there is none, ``launch_completion`` adds what is missing. Asked again about its own result,
the decision finds nothing to change.

"No node can run it", "not known which node can" and "refused" are three answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias, final

from sevkit import __version__
from sevkit.errors import FormatError
from sevkit.kubevirt.json_patch import Editor, member
from sevkit.kubevirt.launch_case import ATTESTATION, LAUNCH_SECURITY, Case
from sevkit.kubevirt.launch_completion import complete, reboot_warnings
from sevkit.kubevirt.launch_rules import Refusal, refusals, warnings
from sevkit.kubevirt.tiers import BEST, LABEL, VALUES, Tier, launch_security_types, tier_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sevkit.documents import Json
    from sevkit.kubevirt.installation import Installation
    from sevkit.kubevirt.json_patch import Operation
    from sevkit.kubevirt.policy import Policy

#: What a namespace's or an object's label asks for.
Requirement: TypeAlias = Tier | Literal["best"]

REQUIRED: Final = "required"
INJECTED: Final = "sevkit.io/injected"
_LABELS: Final = ("metadata", "labels", LABEL)
#: Tiers whose launch a guest owner can hold and attest.
_ATTESTED: Final = frozenset({Tier.SEV, Tier.SEV_ES})


class Around(NamedTuple):
    """What is known besides: ``runnable`` are the tiers that some node can run, None if unknown."""

    installation: Installation
    runnable: frozenset[Tier] | None


@final
@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a VMI.

    With refusals it is refused, and there are no operations. ``is_undecided`` says that it is
    refused because something is not known, not because of the VMI. Without a tier and without
    refusals the VMI is no concern of ours.
    """

    tier: Tier | None = None
    operations: tuple[Operation, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    warnings: tuple[str, ...] = ()
    is_undecided: bool = False


class _Refused(Exception):  # leaves the choice of a tier, nothing else
    def __init__(self, refusal: Refusal, *, undecided: bool = False) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal
        self.undecided = undecided


def decide(
    vmi: Mapping[str, Json], namespace: Requirement | None, policy: Policy, around: Around
) -> Decision:
    """Return what becomes of ``vmi``, a VirtualMachineInstance at its creation.

    ``namespace`` is what its namespace's label asks for, None for a namespace without it: then the
    object's own label is the requirement.
    """
    try:
        return _decide(vmi, namespace, policy, around)
    except _Refused as refused:
        return Decision(refusals=(refused.refusal,), is_undecided=refused.undecided)
    except FormatError as error:
        field = error.message.removeprefix(f"{error.structure}: ")
        place, _, what = field.partition(" ")
        refusal = Refusal("malformed", place, what, "write it as KubeVirt's schema has it")
        return Decision(refusals=(refusal,))


def unknown_value(value: Json, where: str) -> Refusal:
    """Return the refusal of a label's value that nobody knows."""
    said = value[:40] if isinstance(value, str) else "no text"
    return Refusal(
        "unknown-value",
        where,
        f"{said!r} asks for nothing that exists",
        f"write one of {', '.join(VALUES)}",
    )


def _decide(
    vmi: Mapping[str, Json], namespace: Requirement | None, policy: Policy, around: Around
) -> Decision:
    own = _own(vmi)
    floor = _floor(namespace, own)
    if floor is None:
        return Decision()
    wants_attestation = _wants_attestation(vmi)
    present = _present(vmi, floor)
    tier = present or _choose(floor, policy, around, attested=wants_attestation)
    has_attestation = (
        present is not None and member(vmi, *LAUNCH_SECURITY, "sev", "attestation") is not None
    )
    case = Case(
        vmi,
        tier,
        has_tier=present is not None,
        attestation=tier in _ATTESTED and (wants_attestation or has_attestation),
        policy=policy,
        installation=around.installation,
    )
    found = tuple(refusals(case))
    if found:
        return Decision(tier, refusals=found)
    editor = Editor(vmi)
    complete(case, editor)
    if editor.operations:
        editor.set(_audit(tier, policy), "metadata", "annotations", INJECTED)
    said = [*warnings(case), *reboot_warnings(case)]
    if around.runnable is not None and tier not in around.runnable:
        said.append(f"no node can run {tier.spelling} now; the VMI will wait for one")
    return Decision(tier, editor.operations, warnings=tuple(said))


def _audit(tier: Tier, policy: Policy) -> str:
    return f"{tier}; policy {policy.digest}; sevkit {__version__}"


def _own(vmi: Mapping[str, Json]) -> Requirement | None:
    value = member(vmi, *_LABELS)
    if value is None:
        return None
    if not isinstance(value, str) or value not in VALUES:
        raise _Refused(unknown_value(value, ".".join(_LABELS)))
    return BEST if value == BEST else Tier(value)


def _strength(requirement: Requirement) -> int:
    return 0 if requirement == BEST else Tier(requirement).strength


def _floor(namespace: Requirement | None, own: Requirement | None) -> Requirement | None:
    """Return the stronger of both; an object that asks for a weaker tier is refused."""
    if namespace is None or own is None:
        return own if namespace is None else namespace
    if own != BEST and _strength(own) < _strength(namespace):
        raise _Refused(
            Refusal(
                "weaker",
                ".".join(_LABELS),
                f"{own} is less than the namespace's {namespace}",
                f"leave it out, or ask for {namespace} or more",
            )
        )
    return own if _strength(own) > _strength(namespace) else namespace


def _wants_attestation(vmi: Mapping[str, Json]) -> bool:
    value = member(vmi, "metadata", "annotations", ATTESTATION)
    if value is None:
        return False
    if value != REQUIRED:
        raise _Refused(
            Refusal(
                "unknown-value",
                f"metadata.annotations.{ATTESTATION}",
                "its value asks for nothing that exists",
                f"write {REQUIRED}, or leave it out",
            )
        )
    return True


def _present(vmi: Mapping[str, Json], floor: Requirement) -> Tier | None:
    """Return the tier that the object has, None for none; refuse what is not enough."""
    found = member(vmi, *LAUNCH_SECURITY)
    if found is None:
        return None
    field = ".".join(LAUNCH_SECURITY)
    if not isinstance(found, dict):
        raise FormatError("object", f"{field} is no object")
    types = launch_security_types(found)
    if not types:
        return None
    if len(types) > 1:
        raise _Refused(
            Refusal("several-types", field, f"{' and '.join(types)} exclude each other", "keep one")
        )
    tier = tier_of(found)
    if tier is None and types == ("tdx",):
        raise _Refused(
            Refusal("tdx", field, "tdx is Intel's, and satisfies nothing here", "leave it out")
        )
    if tier is None:
        raise FormatError("object", f"{field}.{types[0]} is no object")
    if tier.strength < _strength(floor):
        raise _Refused(
            Refusal(
                "weaker",
                field,
                f"{tier} is less than {floor}, which is required",
                "leave it out: it is added",
            )
        )
    return tier


def _choose(floor: Requirement, policy: Policy, around: Around, *, attested: bool) -> Tier:
    """Return the tier for an object that has none."""
    if floor != BEST:
        return Tier(floor)
    candidates = _ATTESTED if attested else frozenset(Tier)
    if around.runnable is None:
        raise _Refused(
            Refusal(
                "undecided",
                ".".join(_LABELS),
                "not known now which nodes can run what",
                "try again in a minute, or ask for one of " + ", ".join(Tier),
            ),
            undecided=True,
        )
    runnable = candidates & around.runnable
    if runnable:
        return max(runnable, key=lambda tier: tier.strength)
    if policy.no_node is not None and policy.no_node in candidates:
        return policy.no_node
    names = ", ".join(tier.spelling for tier in sorted(candidates, key=_strength))
    raise _Refused(
        Refusal(
            "no-node",
            ".".join(_LABELS),
            f"no node can run {names}",
            "sevkit cluster nodes says why; or ask for a tier by name, and wait for a node",
        )
    )
