"""Our webhook: registered, before KubeVirt's, for every case, trusted, and with somebody serving.

Sources: kubernetes.io, "Dynamic Admission Control"; the API server calls mutating webhooks in the
order of their configurations' names (apiserver, mutating_webhook_manager.go).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sevkit.errors import FormatError, UsageError
from sevkit.host.doctor.check import Verdict
from sevkit.kubevirt.json_patch import member
from sevkit.kubevirt.policy import DEFAULT, parse_policy
from sevkit.kubevirt.preflight.authority import judge_authority
from sevkit.kubevirt.preflight.check import Check, Found
from sevkit.kubevirt.preflight.entries import Entry, misled, parse_entries
from sevkit.kubevirt.preflight.survey import known
from sevkit.kubevirt.webhook_paths import WARN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sevkit.kubevirt.policy import Policy
    from sevkit.kubevirt.preflight.survey import Document, Survey

KUBEVIRT_MUTATOR: Final = "virt-api-mutator"
CHOICES: Final = "sevkit-webhook-policy"
_CHOICES_KEY: Final = "policy.yaml"
_WORST: Final = (Verdict.FAIL, Verdict.WARN, Verdict.PASS)


def _entries(survey: Survey) -> tuple[Entry, ...]:
    """Return the entries that are called for new VMIs."""
    document = known(survey.mutating)
    found = parse_entries(document or {})
    return tuple(entry for entry in found if entry.covers)


def _configuration(survey: Survey) -> Found:
    name = survey.names.webhook
    if known(survey.mutating) is None:
        return Found(Verdict.FAIL, "no", f"there is no MutatingWebhookConfiguration {name}")
    count = len(_entries(survey))
    if not count:
        return Found(Verdict.FAIL, name, "it is called for no VMI")
    return Found(Verdict.PASS, name, f"{count} entries for VMIs")


def _order(survey: Survey) -> Found:
    name = survey.names.webhook
    # The API server compares bytes, and names are ASCII.
    if name >= KUBEVIRT_MUTATOR:
        detail = f"it is called after {KUBEVIRT_MUTATOR}, which fills in what must not be there"
        return Found(Verdict.FAIL, name, detail)
    if known(survey.kubevirt_mutating) is None:
        detail = f"KubeVirt's {KUBEVIRT_MUTATOR} is not there"
        return Found(Verdict.WARN, name, detail, (), "see kubevirt.available")
    return Found(Verdict.PASS, f"{name} before {KUBEVIRT_MUTATOR}")


def _complete(survey: Survey) -> Found:
    entries = _entries(survey)
    wrong = misled(entries)
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        return Found(Verdict.FAIL, "no", f"{wrong[0]}{more}", wrong)
    conditional = tuple(entry.name for entry in entries if entry.conditional)
    if conditional:
        detail = "conditions that this does not judge may leave VMIs out"
        return Found(Verdict.WARN, "with matchConditions", detail, conditional)
    stray = tuple(entry.name for entry in entries if entry.called(None, None))
    if stray:
        detail = "VMIs without a label are sent too, and cannot start when the webhook is down"
        return Found(Verdict.WARN, "more than that", detail, stray)
    return Found(Verdict.PASS, "yes")


def _all_have(
    value: str, of: Callable[[Entry], str], otherwise: Verdict, why: str
) -> Callable[[Survey], Found]:
    """Return a check that every entry has this value."""

    def look(survey: Survey) -> Found:
        others = tuple(entry.name for entry in _entries(survey) if of(entry) != value)
        return Found(otherwise, "no", why, others) if others else Found(Verdict.PASS, value)

    return look


def _authority(survey: Survey) -> Found:
    judged = [(entry, *judge_authority(entry.authority, survey.now)) for entry in _entries(survey)]
    worst = min((verdict for _, verdict, _ in judged), key=_WORST.index)
    said = [(entry.name, words) for entry, verdict, words in judged if verdict is worst]
    words = min(words for _, words in said)
    if worst is Verdict.PASS:
        return Found(worst, words)
    return Found(worst, "", words, tuple(name for name, _ in said))


def _services(survey: Survey) -> set[tuple[str, str]]:
    return {entry.service for entry in _entries(survey) if not entry.url}


def _service(survey: Survey) -> Found:
    services = _services(survey)
    if not services:
        return Found(Verdict.PASS, "by URL", "no Service is asked")
    names = tuple(sorted("/".join(one) for one in services))
    if len(services) > 1:
        return Found(Verdict.WARN, "several", "entries name different Services", names)
    if services != {(survey.names.namespace, survey.names.webhook)}:
        detail = f"entries name another than {survey.names.namespace}/{survey.names.webhook}"
        return Found(Verdict.FAIL, names[0], detail, (), "ask with --namespace and --webhook")
    if known(survey.service) is None:
        return Found(Verdict.FAIL, "no", f"there is no Service {names[0]}")
    return Found(Verdict.PASS, names[0])


def _ready(survey: Survey) -> Found:
    if not _services(survey):
        return Found(Verdict.PASS, "by URL", "no Service is asked")
    pods = {pod for piece in known(survey.slices) for pod in _serving(piece)}
    fix = (
        f"kubectl --namespace {survey.names.namespace} get pods, their events and log, say why not"
    )
    if not pods:
        return Found(Verdict.FAIL, "none", "VMIs in labelled namespaces cannot start", (), fix)
    if len(pods) == 1:
        detail = "with one alone, no VMI starts in labelled namespaces while it restarts"
        return Found(Verdict.WARN, "1", detail, (), fix)
    return Found(Verdict.PASS, str(len(pods)))


def _serving(piece: Document) -> Iterator[str]:
    """Yield something of each pod in a slice that is ready, which tells it from other pods.

    A pod with an IPv4 and an IPv6 address is in a slice of each, and is one all the same; all the
    addresses of an endpoint are of one.
    """
    endpoints = piece.get("endpoints")
    for one in endpoints if isinstance(endpoints, list) else []:
        # Not said is ready: the API asks consumers to take it so.
        if not isinstance(one, dict) or member(one, "conditions", "ready") is False:
            continue
        listed = one.get("addresses")
        if isinstance(listed, list) and listed:
            target = (member(one, "targetRef", key) for key in ("uid", "name"))
            yield next((said for said in target if said and isinstance(said, str)), str(listed[0]))


def _warnings(survey: Survey) -> Found:
    name, document = survey.names.webhook, known(survey.validating)
    if document is None:
        detail = f"there is no ValidatingWebhookConfiguration {name}, so users are not told"
        return Found(Verdict.WARN, "no", detail)
    entries = parse_entries(document)
    if not any(one.path.startswith(WARN) for one in entries):
        return Found(
            Verdict.WARN, name, f"none of its entries comes to {WARN}, so users are not told"
        )
    strict = tuple(one.name for one in entries if one.failure != "Ignore")
    if strict:
        detail = "VMs cannot be changed when the webhook is down"
        return Found(Verdict.WARN, name, detail, strict, "set failurePolicy to Ignore there")
    return Found(Verdict.PASS, name)


def choices_of(survey: Survey) -> Policy:
    """Return the webhook's policy, the default where there is none.

    Raises ``UsageError`` or ``FormatError`` for one that is ill-formed, ``NotAskedError``.
    """
    text = _policy_file(survey)
    return DEFAULT if text is None else parse_policy(text.encode())


def _policy_file(survey: Survey) -> str | None:
    document = known(survey.choices)
    text = None if document is None else member(document, "data", _CHOICES_KEY)
    return text if isinstance(text, str) else None


def _choices(survey: Survey) -> Found:
    text = _policy_file(survey)
    if text is None:
        return Found(Verdict.WARN, "no", f"there is no {_CHOICES_KEY} in ConfigMap {CHOICES}")
    try:
        found = parse_policy(text.encode())
    except (FormatError, UsageError) as error:
        detail = f"{error.message}: the webhook keeps the last one, and none starts anew"
        return Found(Verdict.FAIL, "ill-formed", detail, (), error.hint)
    return Found(Verdict.PASS, found.digest)


_APPLY: Final = "apply deploy/webhook anew, as docs/webhook.md says"
_ADMISSION: Final = "kubernetes.io, Dynamic Admission Control"
WEBHOOK: Final[tuple[Check, ...]] = (
    Check(
        "webhook.configuration",
        "our webhook is registered",
        _configuration,
        _APPLY,
        _ADMISSION,
    ),
    Check(
        "webhook.order",
        "it is called before KubeVirt's",
        _order,
        f"give the configuration a name that sorts before {KUBEVIRT_MUTATOR}",
        "apiserver, mutating_webhook_manager.go",
        "webhook.configuration",
    ),
    Check(
        "webhook.entries",
        "every label comes to the path that is for it",
        _complete,
        _APPLY,
        _ADMISSION,
        "webhook.configuration",
    ),
    Check(
        "webhook.failure-policy",
        "a VMI is refused when the webhook cannot be asked",
        _all_have(
            "Fail",
            lambda one: one.failure,
            Verdict.FAIL,
            "VMIs go by it unprotected when it is down",
        ),
        "set failurePolicy to Fail",
        _ADMISSION,
        "webhook.configuration",
    ),
    Check(
        "webhook.reinvocation",
        "it is called again after KubeVirt has filled in its defaults",
        _all_have(
            "IfNeeded",
            lambda one: one.reinvocation,
            Verdict.FAIL,
            "vCPUs stay hot-pluggable, which SEV-ES does not measure",
        ),
        "set reinvocationPolicy to IfNeeded",
        _ADMISSION,
        "webhook.configuration",
    ),
    Check(
        "webhook.match-policy",
        "it is called for VMIs of every version",
        _all_have(
            "Equivalent", lambda one: one.match, Verdict.FAIL, "kubevirt.io/v1alpha3 goes by it"
        ),
        "set matchPolicy to Equivalent",
        _ADMISSION,
        "webhook.configuration",
    ),
    Check(
        "webhook.authority",
        "the API server can know its certificate",
        _authority,
        "look at the log of cert-manager's cainjector, or of the webhook that renews it itself",
        _ADMISSION,
        "webhook.configuration",
    ),
    Check(
        "webhook.service",
        "its Service is there",
        _service,
        _APPLY,
        _ADMISSION,
        "webhook.configuration",
    ),
    Check(
        "webhook.endpoints",
        "pods of it are ready",
        _ready,
        "",
        "k8s.io/api/discovery/v1, EndpointConditions",
        "webhook.service",
    ),
    Check(
        "webhook.choices",
        "the cluster's choices for it are well-formed",
        _choices,
        f"correct {_CHOICES_KEY} in ConfigMap {CHOICES}",
        "sevkit, the webhook's policy file",
    ),
    Check(
        "webhook.warnings",
        "who makes a VM is told what becomes of it",
        _warnings,
        _APPLY,
        _ADMISSION,
    ),
)
