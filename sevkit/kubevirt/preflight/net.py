"""The net below the webhook: policies that the API server enforces by itself, and their bindings.

What they are about is judged, and whether they are enforced; what their expressions say is not.

Source: kubernetes.io, "Validating Admission Policy"; k8s.io/api/admissionregistration/v1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sevkit.errors import FormatError
from sevkit.host.doctor.check import Verdict
from sevkit.kubevirt.json_patch import member
from sevkit.kubevirt.preflight.check import Check, Found
from sevkit.kubevirt.preflight.entries import CASES, NEW_VMI, labels_of, rule_covers
from sevkit.kubevirt.preflight.selector import selects
from sevkit.kubevirt.preflight.survey import known
from sevkit.kubevirt.webhook_paths import GROUP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sevkit.documents import Json
    from sevkit.kubevirt.preflight.survey import Document, Survey

VMI_POLICY: Final = "sevkit-confidential-vmi"
UPDATE_POLICY: Final = "sevkit-confidential-vmi-update"
NAMESPACE_POLICY: Final = "sevkit-confidential-namespace"
#: Each policy, and whether it is about objects in namespaces.
POLICIES: Final = {VMI_POLICY: True, UPDATE_POLICY: True, NAMESPACE_POLICY: False}
#: What follows from a hole in each. KubeVirt's own webhook refuses changes of a VMI's spec to all
#: but its own components, so one against changes is a second net, and no tenant gets by without it.
_OTHERWISE: Final = {
    VMI_POLICY: Verdict.FAIL,
    UPDATE_POLICY: Verdict.WARN,
    NAMESPACE_POLICY: Verdict.FAIL,
}
_NAMESPACE: Final = {"apiGroups": "", "apiVersions": "v1", "resources": "namespaces"}
#: All that each policy has to be about.
_ABOUT: Final[Mapping[str, tuple[Mapping[str, str], ...]]] = {
    VMI_POLICY: (NEW_VMI,),
    UPDATE_POLICY: ({**NEW_VMI, "operations": "UPDATE"},),
    NAMESPACE_POLICY: tuple(
        _NAMESPACE | {"operations": operation} for operation in ("CREATE", "UPDATE")
    ),
}
#: What a group is served as beside ``v1``; a ``matchPolicy`` of Equivalent converts it.
_OLDER: Final[Mapping[str, str]] = {GROUP: "v1alpha3"}
_EQUIVALENT: Final = "Equivalent"
_DENY: Final = "Deny"


def _narrowed(constraints: Document, *, namespaced: bool) -> str:
    """Return in words the first case that the selectors leave out, "" if they leave none out."""
    for case in CASES:
        # A namespace is an object, and its own labels count as its namespace's.
        own = labels_of(case.own) if namespaced else labels_of(case.namespace, "tenant")
        around = labels_of(case.namespace, "tenant")
        if not namespaced and case.namespace is None:
            continue
        if not selects(constraints.get("namespaceSelector"), around) or not selects(
            constraints.get("objectSelector"), own
        ):
            return str(case)
    return ""


def _unruled(constraints: Document, name: str) -> str:
    """Return in words the first operation that the rules leave out, "" if they leave none out."""
    found = constraints.get("resourceRules")
    rules = found if isinstance(found, list) else []
    for what, words in _wanted(constraints, name):
        if not any(rule_covers(one, words) for one in rules):
            return what
    return ""


def _wanted(constraints: Document, name: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield what the rules have to cover, in words and as a rule has it."""
    is_exact = (constraints.get("matchPolicy") or _EQUIVALENT) != _EQUIVALENT
    for words in _ABOUT[name]:
        what = f"{words['operations']} of {words['resources']}"
        yield what, words
        older = _OLDER.get(words["apiGroups"])
        if older and is_exact:
            why = f"as its matchPolicy is not {_EQUIVALENT}"
            yield f"{what} of {older}, {why}", {**words, "apiVersions": older}


def _left_out(constraints: Json, name: str, *, is_binding: bool = False) -> str:
    """Return in words what ``matchConstraints`` or ``matchResources`` leave out, "" for nothing.

    The API server intersects those of a policy and of its binding. A binding without rules has its
    policy's, one with rules has those alone; what is excluded is so whatever else is said. Raises
    ``FormatError``.
    """
    if not isinstance(constraints, dict | None):
        raise FormatError("policy", "what it matches is no object")
    found = constraints or {}
    if found.get("excludeResourceRules"):
        return "what excludeResourceRules says"
    has_rules = bool(found.get("resourceRules")) or not is_binding
    return (_unruled(found, name) if has_rules else "") or _narrowed(
        found, namespaced=POLICIES[name]
    )


def _policy(name: str) -> Callable[[Survey], Found]:
    def look(survey: Survey) -> Found:
        document = known(survey.policies[name])
        if document is None:
            return Found(_OTHERWISE[name], "no", _absent(name))
        hole = _hole(document, name)
        if hole:
            return Found(_OTHERWISE[name], name, hole)
        doubt = _doubt(document)
        return Found(Verdict.WARN if doubt else Verdict.PASS, name, doubt)

    return look


def _absent(name: str) -> str:
    return f"there is no ValidatingAdmissionPolicy {name}"


def _hole(document: Document, name: str) -> str:
    """Return in words how a policy lets something by, "" if it does not."""
    if (member(document, "spec", "failurePolicy") or "Fail") != "Fail":
        return "its failurePolicy is not Fail"
    if not member(document, "spec", "validations"):
        return "it validates nothing"
    left_out = _left_out(member(document, "spec", "matchConstraints"), name)
    return f"it leaves out {left_out}" if left_out else ""


def _doubt(document: Document) -> str:
    """Return in words why a policy might let something by, "" if there is no reason to think so."""
    if member(document, "spec", "matchConditions"):
        return "conditions that this does not judge may leave objects out"
    if member(document, "status", "typeChecking", "expressionWarnings"):
        return "the API server warns of its expressions; are KubeVirt's definitions there?"
    return ""


def _binding(name: str) -> Callable[[Survey], Found]:
    def look(survey: Survey) -> Found:
        bindings = [
            one for one in known(survey.bindings) if member(one, "spec", "policyName") == name
        ]
        if known(survey.policies[name]) is None:
            return Found(_OTHERWISE[name], "no", _absent(name))
        if not bindings:
            return Found(_OTHERWISE[name], "no", f"nothing binds {name}, so it is not enforced")
        problems = [_judge_binding(one, name) for one in bindings]
        names = tuple(str(member(one, "metadata", "name")) for one in bindings)
        if "" in problems:
            return Found(Verdict.PASS, names[problems.index("")])
        return Found(_OTHERWISE[name], names[0], problems[0], names)

    return look


def _judge_binding(document: Document, name: str) -> str:
    """Return what is wrong with a binding, "" for nothing."""
    actions = member(document, "spec", "validationActions")
    if not isinstance(actions, list) or _DENY not in actions:
        return "its validationActions do not deny"
    left_out = _left_out(member(document, "spec", "matchResources"), name, is_binding=True)
    return f"it leaves out {left_out}" if left_out else ""


_APPLY: Final = "apply deploy/webhook anew, as docs/webhook.md says"
_AGAINST_CHANGES: Final = f"{_APPLY}; until then KubeVirt alone refuses changes of what runs"
_SOURCE: Final = "kubernetes.io, Validating Admission Policy"
NET: Final[tuple[Check, ...]] = (
    Check(
        "policy.vmi",
        "a policy is to refuse VMIs less confidential than required; expressions are not judged",
        _policy(VMI_POLICY),
        _APPLY,
        _SOURCE,
    ),
    Check(
        "policy.vmi-binding", "it is enforced", _binding(VMI_POLICY), _APPLY, _SOURCE, "policy.vmi"
    ),
    Check(
        "policy.vmi-update",
        "a policy is to refuse changes of how confidential a VMI is; expressions are not judged",
        _policy(UPDATE_POLICY),
        _AGAINST_CHANGES,
        _SOURCE,
    ),
    Check(
        "policy.vmi-update-binding",
        "it is enforced",
        _binding(UPDATE_POLICY),
        _AGAINST_CHANGES,
        _SOURCE,
        "policy.vmi-update",
    ),
    Check(
        "policy.namespace",
        "a policy is to refuse labels that ask for nothing; expressions are not judged",
        _policy(NAMESPACE_POLICY),
        _APPLY,
        _SOURCE,
    ),
    Check(
        "policy.namespace-binding",
        "it is enforced",
        _binding(NAMESPACE_POLICY),
        _APPLY,
        _SOURCE,
        "policy.namespace",
    ),
)
