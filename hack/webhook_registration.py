"""The webhook as it is registered with an API server: which namespaces lead to which path.

The same that ``deploy/webhook`` installs, made for a server of a test on loopback.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sevkit.kubevirt.tiers import LABEL, VALUES
from sevkit.kubevirt.webhook_paths import MUTATE, OWN, UNKNOWN

if TYPE_CHECKING:
    from hack.reviewer import Reviewer

#: Sorts before ``virt-api-mutator``, so that KubeVirt's defaults come after ours.
NAME: Final = "sevkit-webhook"
_RULES: Final = [
    {
        "apiGroups": ["kubevirt.io"],
        "apiVersions": ["v1"],
        "resources": ["virtualmachineinstances"],
        "operations": ["CREATE"],
        "scope": "Namespaced",
    }
]


def registration(server: Reviewer) -> dict[str, Any]:
    """Return the MutatingWebhookConfiguration for ``server``."""
    return {"metadata": {"name": NAME}, "webhooks": list(_webhooks(server))}


def _webhooks(server: Reviewer) -> list[dict[str, Any]]:
    absent = {"key": LABEL, "operator": "DoesNotExist"}
    rows: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        (value, {"matchLabels": {LABEL: value}}, {}) for value in VALUES
    ]
    others = [
        {"key": LABEL, "operator": "Exists"},
        {"key": LABEL, "operator": "NotIn", "values": list(VALUES)},
    ]
    rows.append((UNKNOWN, {"matchExpressions": others}, {}))
    own = {"matchExpressions": [{"key": LABEL, "operator": "Exists"}]}
    rows.append((OWN, {"matchExpressions": [absent]}, own))
    return [
        {
            "name": f"{name}.confidential.sevkit.io",
            "clientConfig": server.client(f"{MUTATE}{name}"),
            "namespaceSelector": namespaces,
            "objectSelector": objects,
            "rules": _RULES,
            "matchPolicy": "Equivalent",
            "reinvocationPolicy": "IfNeeded",
            "failurePolicy": "Fail",
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "timeoutSeconds": 5,
        }
        for name, namespaces, objects in rows
    ]
