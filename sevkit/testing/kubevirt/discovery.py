"""What clients and the aggregation layer ask first: which groups, versions and resources there are.

Source: Kubernetes API conventions (APIGroupList, APIGroup, APIResourceList); KubeVirt's CRDs and
``pkg/virt-api`` (resources and verbs of ``subresources.kubevirt.io``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

GROUP: Final = "kubevirt.io"
SUBRESOURCES: Final = "subresources.kubevirt.io"
VERSIONS: Final = ("v1", "v1alpha3")
PLURAL: Final = "virtualmachineinstances"
_PUTS: Final = ("sev/setupsession", "sev/injectlaunchsecret", "pause", "unpause")
_GETS: Final = ("sev/fetchcertchain", "sev/querylaunchmeasurement")


def discover(path: str) -> Mapping[str, Any] | None:
    """Return the document at ``path``, or None where there is none."""
    if path == "/version":
        return {"major": "1", "minor": "34", "gitVersion": "v1.34.0", "platform": "linux/amd64"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": []}
    if path == "/apis":
        groups = [_group(GROUP), _group(SUBRESOURCES)]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    for group in (GROUP, SUBRESOURCES):
        if path == f"/apis/{group}":
            return {"kind": "APIGroup", "apiVersion": "v1"} | _group(group)
        for version in VERSIONS:
            if path == f"/apis/{group}/{version}":
                return {
                    "kind": "APIResourceList",
                    "apiVersion": "v1",
                    "groupVersion": f"{group}/{version}",
                    "resources": _instances() if group == GROUP else _subresources(),
                }
    return None


def _group(name: str) -> dict[str, Any]:
    versions = [{"groupVersion": f"{name}/{entry}", "version": entry} for entry in VERSIONS]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


def _instances() -> list[dict[str, Any]]:
    row: dict[str, Any] = {
        "name": PLURAL,
        "singularName": "virtualmachineinstance",
        "namespaced": True,
        "kind": "VirtualMachineInstance",
        "shortNames": ["vmi", "vmis"],
        "verbs": ["create", "delete", "get", "list", "watch"],
    }
    return [row]


def _subresources() -> list[dict[str, Any]]:
    verbs = dict.fromkeys(_GETS, "get") | dict.fromkeys(_PUTS, "update")
    return [
        {
            "name": f"{PLURAL}/{name}",
            "singularName": "",
            "namespaced": True,
            "kind": "VirtualMachineInstance",
            "verbs": [verb],
        }
        for name, verb in verbs.items()
    ]
