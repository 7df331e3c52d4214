"""What a cluster that is ready for confidential VMs has, for tests of its preflight."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from hack.webhook_registration import NAME, registration, warnings
from sevkit.cluster.fleet_nodes import parse_fleet_node
from sevkit.kubevirt.claims import read_claims
from sevkit.pki import create_authority

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sevkit.kubevirt.claims import NodeClaims

Document: TypeAlias = dict[str, Any]

LABEL: Final = "sevkit.io/confidential"
NAMESPACE: Final = "sevkit-system"
GATE: Final = "WorkloadEncryptionSEV"
_ES: Final = {"properties": {"encryptedState": {"type": "boolean"}}}
SCHEMA: Final[Document] = {"sev": {"properties": {"policy": _ES}}, "snp": {"type": "object"}}
_ADMISSION: Final = "admissionregistration.k8s.io/v1"


def authority(lifetime: timedelta = timedelta(days=365), *, now: datetime | None = None) -> str:
    """Return a caBundle of one authority."""
    made = create_authority("preflight", lifetime=lifetime, now=now or datetime.now(UTC))
    return base64.b64encode(made.certificate).decode()


def expression(operator: str, *values: str) -> Document:
    """Return a selector of one expression on our label."""
    rule: Document = {"key": LABEL, "operator": operator}
    return {"matchExpressions": [rule | {"values": list(values)} if values else rule]}


def mutating(bundle: str) -> Document:
    """Return our mutating configuration, with an authority."""
    return registration(lambda path: _client(path, bundle))


def validating(bundle: str) -> Document:
    """Return our validating configuration, which only warns, with an authority."""
    return warnings(lambda path: _client(path, bundle))


def _client(path: str, bundle: str) -> Document:
    service = {"namespace": NAMESPACE, "name": NAME, "path": path, "port": 443}
    return {"service": service, "caBundle": bundle}


def policy(name: str, group: str, resource: str, *operations: str) -> Document:
    """Return a policy that refuses nothing; what it says is other tests' matter."""
    rule = {
        "apiGroups": [group],
        "apiVersions": ["*"],
        "operations": list(operations),
        "resources": [resource],
    }
    return {
        "apiVersion": _ADMISSION,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": "object.metadata.name != 'never.such'"}],
        },
    }


def policies() -> list[Document]:
    """Return all three policies."""
    vmis = ("kubevirt.io", "virtualmachineinstances")
    return [
        policy("sevkit-confidential-vmi", *vmis, "CREATE"),
        policy("sevkit-confidential-vmi-update", *vmis, "UPDATE"),
        policy("sevkit-confidential-namespace", "", "namespaces", "CREATE", "UPDATE"),
    ]


def binding(name: str) -> Document:
    """Return the binding of a policy."""
    return {
        "apiVersion": _ADMISSION,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    }


def service() -> Document:
    """Return our Service."""
    ports = [{"port": 443, "targetPort": 9443}]
    return {"metadata": {"name": NAME}, "spec": {"ports": ports, "selector": {"app": NAME}}}


def endpoints(*addresses: str, ready: bool = True) -> Document:
    """Return the slice of our Service's endpoints."""
    found = [{"addresses": [one], "conditions": {"ready": ready}} for one in addresses]
    labels = {"kubernetes.io/service-name": NAME}
    return {
        "metadata": {"name": f"{NAME}-a", "labels": labels},
        "addressType": "IPv4",
        "endpoints": found,
        "ports": [{"port": 9443}],
    }


def choices(text: str = "capacityResource: true\n") -> Document:
    """Return the ConfigMap with the webhook's policy file."""
    return {"metadata": {"name": "sevkit-webhook-policy"}, "data": {"policy.yaml": text}}


def kubevirt_status(version: str = "v1.9.0") -> Document:
    """Return the status of a KubeVirt that runs."""
    return {
        "phase": "Deployed",
        "observedKubeVirtVersion": version,
        "defaultArchitecture": "amd64",
        "conditions": [
            {"type": "Available", "status": "True", "reason": "a", "message": ""},
            {"type": "Progressing", "status": "False", "reason": "a", "message": ""},
            {"type": "Degraded", "status": "False", "reason": "a", "message": ""},
        ],
    }


def node(name: str, **labels: str) -> Document:
    """Return a node that can run SEV and SEV-SNP, and what else its labels say."""
    ours = {"sevkit.io/sev": "true", "sevkit.io/sev-es": "false", "sevkit.io/sev-snp": "true"}
    theirs = {"kubevirt.io/sev": "true", "kubevirt.io/sev-snp": "true"}
    capacity = {
        "sevkit.io/sev": "410",
        "sevkit.io/sev-es": "99",
        "sevkit.io/sev-snp": "99",
        "devices.kubevirt.io/sev": "1k",
    }
    told = {"kubevirt.io/schedulable": "true", **ours, **theirs}
    return {
        "metadata": {
            "name": name,
            "uid": name,
            "resourceVersion": "1",
            "labels": {**told, **{key.replace("__", "/"): value for key, value in labels.items()}},
        },
        "status": {"capacity": capacity, "allocatable": capacity},
    }


def claims(name: str, **labels: str) -> NodeClaims:
    """Return what that node claims."""
    found = parse_fleet_node(node(name, **labels))
    return read_claims(name, found.view.labels, found.count)


def kubevirt(version: str = "v1.9.0") -> Document:
    """Return a KubeVirt resource with the gate on."""
    return {
        "metadata": {"name": "kubevirt", "namespace": "kubevirt"},
        "spec": {"configuration": {"developerConfiguration": {"featureGates": [GATE]}}},
        "status": kubevirt_status(version),
    }


def definition(members: Mapping[str, Any] = SCHEMA) -> Document:
    """Return the definition of VMIs whose launchSecurity has these members."""
    domain = {"properties": {"launchSecurity": {"properties": dict(members)}}}
    schema = {"properties": {"spec": {"properties": {"domain": domain}}}}
    version = {"name": "v1", "served": True, "schema": {"openAPIV3Schema": schema}}
    return {"spec": {"versions": [version]}}
