"""The namespaces that ask for confidential guests, and what runs in them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from sevkit.host.doctor.check import Verdict
from sevkit.kubevirt.preflight.check import Check, Found
from sevkit.kubevirt.preflight.nodes import runnable_tiers
from sevkit.kubevirt.preflight.survey import known
from sevkit.kubevirt.tiers import LABEL, VALUES, Tier

if TYPE_CHECKING:
    from sevkit.kubevirt.preflight.survey import Survey

#: Without their pods there is no cluster, no KubeVirt and no webhook.
_SYSTEM: Final = ("kube-system", "kube-public", "kube-node-lease", "kubevirt")


def _labels(survey: Survey) -> Found:
    namespaces = known(survey.namespaces)
    unknown = tuple(
        sorted(f"{name} ({value})" for name, value in namespaces.items() if value not in VALUES)
    )
    counts = Counter(value for value in namespaces.values() if value in VALUES)
    words = ", ".join(f"{value} {counts[value]}" for value in VALUES if counts[value])
    if unknown:
        return Found(Verdict.FAIL, words, "no VMI can start in some namespaces", unknown)
    return Found(Verdict.PASS, words or "none", "" if words else "no namespace asks for anything")


def _system(survey: Survey) -> Found:
    systems = {*_SYSTEM, survey.names.namespace}
    who = tuple(sorted(systems & known(survey.namespaces).keys()))
    if who:
        detail = "where what runs the cluster depends on the webhook, neither may come back"
        return Found(Verdict.WARN, str(len(who)), detail, who)
    return Found(Verdict.PASS, "none")


def _placeable(survey: Survey) -> Found:
    namespaces, runnable = known(survey.namespaces), runnable_tiers(survey)
    who = tuple(
        sorted(
            f"{name} ({value})"
            for name, value in namespaces.items()
            if value in VALUES
            and not (Tier(value) in runnable if value in frozenset(Tier) else runnable)
        )
    )
    if who:
        return Found(Verdict.WARN, "no", "no node can run what some namespaces ask for", who)
    return Found(Verdict.PASS, "yes")


def _guests(survey: Survey) -> Found:
    guests = known(survey.guests)
    who = tuple(sorted(map(str, guests.weak)))
    value = f"{guests.count - len(who)} of {guests.count}"
    if who:
        return Found(Verdict.FAIL, value, "some run with less than is asked for", who)
    return Found(Verdict.PASS, value)


_SOURCE: Final = "sevkit, the webhook's labels"
TENANTS: Final[tuple[Check, ...]] = (
    Check(
        "tenants.labels",
        "namespaces ask for what exists",
        _labels,
        f"set {LABEL} there to one of {', '.join(VALUES)}",
        _SOURCE,
    ),
    Check(
        "tenants.system",
        "no namespace of the system is among them",
        _system,
        f"take {LABEL} off there",
        _SOURCE,
    ),
    Check(
        "tenants.placeable",
        "nodes can run what they ask for",
        _placeable,
        "sevkit cluster nodes says why not, and what to do",
        _SOURCE,
    ),
    Check(
        "tenants.guests",
        "VMIs run with what their namespace, or they themselves, ask for",
        _guests,
        "restart them, such as with virtctl restart: launch security is given at the start only",
        _SOURCE,
    ),
)
