"""The kinds of objects that are asked for, as the API server's paths name them.

Sources: Kubernetes API reference; KubeVirt api/core/v1.
"""

from __future__ import annotations

from typing import Final

from sevkit.cluster.api import Kind

_ADMISSION: Final = "admissionregistration.k8s.io"
_KUBEVIRT: Final = "kubevirt.io"

CONFIG_MAPS: Final = Kind("", "v1", "configmaps")
NAMESPACES: Final = Kind("", "v1", "namespaces", namespaced=False)
NODES: Final = Kind("", "v1", "nodes", namespaced=False)
PODS: Final = Kind("", "v1", "pods")
SECRETS: Final = Kind("", "v1", "secrets")
SERVICES: Final = Kind("", "v1", "services")
SLICES: Final = Kind("discovery.k8s.io", "v1", "endpointslices")
EVENTS: Final = Kind("events.k8s.io", "v1", "events")
DEFINITIONS: Final = Kind(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", namespaced=False
)
MUTATING: Final = Kind(_ADMISSION, "v1", "mutatingwebhookconfigurations", namespaced=False)
VALIDATING: Final = Kind(_ADMISSION, "v1", "validatingwebhookconfigurations", namespaced=False)
POLICIES: Final = Kind(_ADMISSION, "v1", "validatingadmissionpolicies", namespaced=False)
BINDINGS: Final = Kind(_ADMISSION, "v1", "validatingadmissionpolicybindings", namespaced=False)
KUBEVIRTS: Final = Kind(_KUBEVIRT, "v1", "kubevirts")
INSTANCES: Final = Kind(_KUBEVIRT, "v1", "virtualmachineinstances")
#: The definition of VMIs, by its name.
INSTANCE_DEFINITION: Final = f"{INSTANCES.plural}.{INSTANCES.group}"
