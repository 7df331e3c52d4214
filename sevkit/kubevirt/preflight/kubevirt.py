"""KubeVirt itself: one of it, available, of a version with the tiers, with the gates on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sevkit.host.doctor.check import Verdict
from sevkit.kubevirt.installation import (
    DISABLED_LIST,
    ENABLED_LIST,
    ENCRYPTION_GATE,
    REBOOT_GATE,
    SNP_SINCE,
    decide_gate,
    parse_release,
)
from sevkit.kubevirt.json_patch import member
from sevkit.kubevirt.preflight.check import Check, Found
from sevkit.kubevirt.preflight.survey import NotAskedError, Unasked, known
from sevkit.kubevirt.tiers import Tier

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sevkit.documents import Json
    from sevkit.kubevirt.preflight.survey import Document, Survey

_SEV_SINCE: Final = (0, 49, 0)
_SCHEMA: Final = ("spec", "domain", "launchSecurity")
_MEMBERS: Final = {
    Tier.SEV: ("sev",),
    Tier.SEV_ES: ("sev", "policy", "encryptedState"),
    Tier.SNP: ("snp",),
}
_HCO: Final = "hco-operator"
_HCO_KIND: Final = "HyperConverged"
_CONDITIONS: Final = ("Available", "Progressing", "Degraded")
#: Guests' memory over what their pods ask for, in percent.
_OVERCOMMIT: Final = 100


def _one(survey: Survey) -> Document:
    """Return the KubeVirt resource; only asked where there is one."""
    return known(survey.kubevirts)[0]


def _name(document: Document) -> str:
    return f"{member(document, 'metadata', 'namespace')}/{member(document, 'metadata', 'name')}"


def _installed(survey: Survey) -> Found:
    names = tuple(_name(one) for one in known(survey.kubevirts))
    if not names:
        return Found(Verdict.FAIL, "no", "there is no KubeVirt resource")
    if len(names) > 1:
        detail = "KubeVirt supports one, and the webhook goes by none of several"
        return Found(Verdict.FAIL, f"{len(names)} of them", detail, names, "delete all but one")
    return Found(Verdict.PASS, names[0])


def _available(survey: Survey) -> Found:
    document = _one(survey)
    found = member(document, "status", "conditions")
    said = {
        str(one.get("type")): one.get("status") == "True"
        for one in (found if isinstance(found, list) else [])
        if isinstance(one, dict)
    }
    phase = str(member(document, "status", "phase") or "no phase")
    words = ", ".join((phase, *(name for name in _CONDITIONS if said.get(name))))
    if not said.get("Available"):
        return Found(Verdict.FAIL, words, "it does not say that it is available")
    moving = said.get("Progressing") or said.get("Degraded")
    return Found(Verdict.WARN if moving else Verdict.PASS, words)


def _lacking(has: Collection[Tier], required: Collection[Tier]) -> tuple[Verdict, str]:
    """Return what follows from having these tiers and no others, and what is lacking."""
    missing = [tier for tier in Tier if tier not in has]
    if not missing:
        return Verdict.PASS, ""
    is_no = not has or any(tier in required for tier in missing)
    return (Verdict.FAIL if is_no else Verdict.WARN), f"no {_spelled(missing)}"


def _spelled(tiers: Collection[Tier]) -> str:
    return ", ".join(tier.spelling for tier in Tier if tier in tiers) or "none"


def _version(survey: Survey) -> Found:
    release = parse_release(_one(survey))
    if release is None:
        raise NotAskedError(Unasked("its status has no version number"))
    words = ".".join(map(str, release.version)) + (" (before its release)" if release.early else "")
    has_sev, has_snp = release.since(_SEV_SINCE), release.since(SNP_SINCE)
    if has_sev is None or has_snp is None:
        raise NotAskedError(Unasked(f"whether {words} has what its release has is not known"))
    if not has_sev:
        return Found(Verdict.FAIL, words, "no launch security")
    has = frozenset(Tier) if has_snp else frozenset({Tier.SEV, Tier.SEV_ES})
    verdict, detail = _lacking(has, survey.required)
    return Found(verdict, words, detail)


def _managed_by_hco(document: Document) -> bool:
    owners = member(document, "metadata", "ownerReferences")
    kinds = [
        one.get("kind")
        for one in (owners if isinstance(owners, list) else [])
        if isinstance(one, dict)
    ]
    label = member(document, "metadata", "labels", "app.kubernetes.io/managed-by")
    return label == _HCO or _HCO_KIND in kinds


def _gate_fix(document: Document, gate: str) -> str:
    if _managed_by_hco(document):
        return (
            f"HCO owns this resource: annotate {_HCO_KIND} with kubevirt.kubevirt.io/jsonpatch, "
            f"which adds {gate} to {ENABLED_LIST}"
        )
    return (
        f"add {gate} to {ENABLED_LIST} of spec.configuration.developerConfiguration, "
        f"and take it out of {DISABLED_LIST}"
    )


def _gate(survey: Survey, gate: str, otherwise: Verdict, why: str) -> Found:
    document = _one(survey)
    decided = decide_gate(document, gate)
    if decided.enabled is None:
        raise NotAskedError(Unasked(decided.because))
    if decided.enabled:
        return Found(Verdict.PASS, "on", decided.because)
    return Found(otherwise, "off", f"{decided.because}; {why}", (), _gate_fix(document, gate))


def _encryption(survey: Survey) -> Found:
    return _gate(survey, ENCRYPTION_GATE, Verdict.FAIL, "KubeVirt refuses launch security")


def _reboot(survey: Survey) -> Found:
    return _gate(survey, REBOOT_GATE, Verdict.WARN, "rebootPolicy is not written")


def _overcommit(survey: Survey) -> Found:
    developer = member(_one(survey), "spec", "configuration", "developerConfiguration")
    found = developer.get("memoryOvercommit") if isinstance(developer, dict) else None
    percent = found if isinstance(found, int) and not isinstance(found, bool) else _OVERCOMMIT
    is_over = percent > _OVERCOMMIT
    detail = "memory of encrypted guests is pinned" if is_over else ""
    return Found(Verdict.WARN if is_over else Verdict.PASS, f"{percent} %", detail)


def _definition(survey: Survey) -> Found:
    document = known(survey.definition)
    if document is None:
        return Found(Verdict.FAIL, "no", "there is no definition of VMIs")
    schemas = list(_served(document))
    if not schemas:
        return Found(Verdict.FAIL, "no", "kubevirt.io/v1 is not served")
    has = frozenset(tier for tier in Tier if _has(schemas[0], *_SCHEMA, *_MEMBERS[tier]))
    verdict, detail = _lacking(has, survey.required)
    return Found(verdict, _spelled(has), detail)


def _served(document: Document) -> Iterator[Json]:
    versions = member(document, "spec", "versions")
    for one in versions if isinstance(versions, list) else []:
        if isinstance(one, dict) and one.get("name") == "v1" and one.get("served") is True:
            yield member(one, "schema", "openAPIV3Schema")


def _has(schema: Json, *names: str) -> bool:
    for name in names:
        properties = schema.get("properties") if isinstance(schema, dict) else None
        schema = properties.get(name) if isinstance(properties, dict) else None
    return schema is not None


_UPGRADE: Final = "upgrade KubeVirt: SEV-SNP needs 1.7 or later"
KUBEVIRT: Final[tuple[Check, ...]] = (
    Check(
        "kubevirt.installed",
        "there is one KubeVirt",
        _installed,
        "install KubeVirt",
        "KubeVirt user guide, Installation",
    ),
    Check(
        "kubevirt.available",
        "it says that it is available",
        _available,
        "kubectl get kubevirt -A -o yaml says what it waits for",
        "KubeVirt api/core/v1, KubeVirtStatus",
        "kubevirt.installed",
    ),
    Check(
        "kubevirt.version",
        "its version has the tiers",
        _version,
        _UPGRADE,
        "KubeVirt api/core/v1, LaunchSecurity",
        "kubevirt.installed",
    ),
    Check(
        "kubevirt.definition",
        "the API server stores the tiers of a VMI",
        _definition,
        _UPGRADE,
        "KubeVirt api/core/v1, LaunchSecurity",
    ),
    Check(
        "kubevirt.encryption-gate",
        f"the feature gate {ENCRYPTION_GATE} is on",
        _encryption,
        "",
        "KubeVirt pkg/virt-config/featuregate, IsEnabled",
        "kubevirt.installed",
    ),
    Check(
        "kubevirt.reboot-gate",
        f"the feature gate {REBOOT_GATE} is on",
        _reboot,
        "",
        "KubeVirt pkg/virt-config/featuregate, IsEnabled",
        "kubevirt.installed",
    ),
    Check(
        "kubevirt.overcommit",
        "guests' memory is not overcommitted",
        _overcommit,
        "set memoryOvercommit to 100",
        "KubeVirt api/core/v1, DeveloperConfiguration",
        "kubevirt.installed",
    ),
)
