"""The API server's version, and what depends on it.

Sources: kubernetes.io, "Validating Admission Policy" (stable in 1.30), feature gate
ServiceAccountTokenPodNodeInfo (on by default since 1.30, stable in 1.32).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sevkit.host.doctor.check import Verdict
from sevkit.kubevirt.json_patch import member
from sevkit.kubevirt.preflight.check import Check, Found
from sevkit.kubevirt.preflight.survey import NotAskedError, Unasked, known

if TYPE_CHECKING:
    from sevkit.kubevirt.preflight.survey import Survey

_VERSION: Final = re.compile(r"v?([0-9]{1,4})\.([0-9]{1,4})(?:[.+-].*)?")
_POLICIES: Final = (1, 30)
_CLAIM: Final = (1, 30)
_CLAIM_STABLE: Final = (1, 32)


def _version(survey: Survey) -> tuple[tuple[int, int], str]:
    document = known(survey.version)
    said = member(document, "gitVersion") if document else None
    found = _VERSION.fullmatch(said) if isinstance(said, str) else None
    if found is None:
        raise NotAskedError(Unasked("API server does not say its version"))
    return (int(found[1]), int(found[2])), found[0]


def _policies(survey: Survey) -> Found:
    version, words = _version(survey)
    verdict = Verdict.PASS if version >= _POLICIES else Verdict.FAIL
    return Found(verdict, words, "" if verdict is Verdict.PASS else "no ValidatingAdmissionPolicy")


def _claim(survey: Survey) -> Found:
    version, words = _version(survey)
    if version >= _CLAIM_STABLE:
        return Found(Verdict.PASS, "always")
    if version >= _CLAIM:
        return Found(Verdict.PASS, "by default", "unless ServiceAccountTokenPodNodeInfo is off")
    return Found(Verdict.FAIL, "no", f"{words} does not name a pod's node in its token")


API_SERVER: Final[tuple[Check, ...]] = (
    Check(
        "kubernetes.version",
        "the API server has ValidatingAdmissionPolicies",
        _policies,
        "upgrade the cluster to Kubernetes 1.30 or later",
        "kubernetes.io, Validating Admission Policy",
    ),
    Check(
        "kubernetes.node-claim",
        "tokens of pods name their node, which the node agent's policy goes by",
        _claim,
        "upgrade the cluster to Kubernetes 1.30 or later",
        "kubernetes.io, ServiceAccountTokenPodNodeInfo",
        "kubernetes.version",
    ),
)
