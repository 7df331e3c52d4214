"""What the webhook answers at each of its paths. Pure: bytes in, bytes and what to count out.

The API server does the matching: which of these paths it calls says what the namespace asks for,
so that no namespace has to be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sevkit.kubevirt.admission import (
    Review,
    encode_allowed,
    encode_error,
    encode_refused,
    parse_review,
)
from sevkit.kubevirt.json_patch import member
from sevkit.kubevirt.launch_rules import WARNING_LIMIT, Refusal
from sevkit.kubevirt.launch_security import Decision, decide
from sevkit.kubevirt.tiers import BEST, LABEL, VALUES, Tier
from sevkit.kubevirt.webhook_paths import GROUP, INSTANCE, MACHINE, MUTATE, OWN, UNKNOWN, WARN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sevkit.documents import Json
    from sevkit.kubevirt.launch_security import Around, Requirement
    from sevkit.kubevirt.policy import Policy

_REQUIREMENTS: Final[Mapping[str, Requirement | None]] = {
    **{tier.value: tier for tier in Tier},
    BEST: BEST,
    OWN: None,
}
_CREATE: Final = "CREATE"
_UNTOUCHED: Final = ("UPDATE", "DELETE", "CONNECT")


class Answer(NamedTuple):
    """An answer, and for metrics: what was decided, which tier, and the first reason's code."""

    body: bytes
    decision: str
    tier: str = ""
    reason: str = ""


def answer(path: str, body: bytes, policy: Policy, around: Around) -> Answer:
    """Return the answer to a review that came to ``path``, one of ``PATHS``.

    Raises ``FormatError`` for what is no review.
    """
    review = parse_review(body)
    if path.startswith(WARN):
        return _warn(review, _REQUIREMENTS[path.removeprefix(WARN)], policy, around)
    if (unjudged := _unjudged(review)) is not None:
        return unjudged
    asked = path.removeprefix(MUTATE)
    if asked == UNKNOWN:
        refusal = Refusal(
            "unknown-value",
            f"namespace {review.namespace[:63]}",
            f"its label {LABEL} asks for nothing that exists",
            f"have it set to one of {', '.join(VALUES)}",
        )
        return _refused(review, Decision(refusals=(refusal,)))
    decision = decide(review.document, _REQUIREMENTS[asked], policy, around)
    if decision.refusals:
        return _refused(review, decision)
    tier = "" if decision.tier is None else decision.tier.value
    said = "injected" if decision.operations else "admitted"
    audit = {"decision": said, **({"tier": tier} if tier else {})}
    body = encode_allowed(review.uid, decision.operations, warnings=decision.warnings, audit=audit)
    return Answer(body, said, tier)


def _unjudged(review: Review) -> Answer | None:
    """Return the answer to what is not the creation of a VMI."""
    if (review.group, review.kind) != (GROUP, INSTANCE):
        return Answer(encode_error(review.uid, f"only {INSTANCE}s are judged here"), "error")
    if review.operation in _UNTOUCHED:
        # Launch security cannot be changed afterwards, and KubeVirt itself changes VMIs all day.
        return Answer(encode_allowed(review.uid), "ignored")
    if review.operation != _CREATE or not review.document:
        return Answer(encode_error(review.uid, f"nothing here creates a {INSTANCE}"), "error")
    return None


def _refused(review: Review, decision: Decision) -> Answer:
    said = "undecided" if decision.is_undecided else "refused"
    first = decision.refusals[0].code
    body = encode_refused(
        review.uid,
        decision.refusals,
        undecided=decision.is_undecided,
        audit={"decision": said, "reason": first},
    )
    return Answer(body, said, "" if decision.tier is None else decision.tier.value, first)


def _warn(review: Review, namespace: Requirement | None, policy: Policy, around: Around) -> Answer:
    """Tell who makes or changes a VM what will become of its VMI; never refuse it.

    A warning is short or it is cut, so a refusal is two of them: what and how.
    """
    template = _template(review)
    if template is None:
        return Answer(encode_allowed(review.uid), "ignored")
    decision = decide(template, namespace, policy, around)
    said: list[str] = []
    if decision.refusals:
        becomes = "cannot be decided now" if decision.is_undecided else "will be refused"
        for one in decision.refusals:
            said += f"the VMI {becomes}: {one.field}: {one.message}", f"to mend it: {one.fix}"
    elif decision.tier is not None:
        said = [f"the VMI will be launched as {decision.tier.spelling}", *decision.warnings]
    return Answer(encode_allowed(review.uid, warnings=map(_cut, said)), "warned")


def _cut(warning: str) -> str:
    return warning if len(warning) <= WARNING_LIMIT else f"{warning[: WARNING_LIMIT - 1]}…"


def _template(review: Review) -> Mapping[str, Json] | None:
    """Return a VM's template as the VMI that KubeVirt will make of it, None for anything else."""
    if (review.group, review.kind) != (GROUP, MACHINE) or review.operation == "DELETE":
        return None
    template = member(review.document, "spec", "template")
    if not isinstance(template, dict):
        return None
    metadata = template.get("metadata")
    owner: Json = [{"kind": MACHINE, "controller": True}]
    known = metadata if isinstance(metadata, dict) else {}
    return {**template, "metadata": {**known, "ownerReferences": owner}}
