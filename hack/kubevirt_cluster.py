"""A test control plane in which KubeVirt answers: its definitions, webhooks and configuration.

What a cluster with KubeVirt says to a new object, without virt-controller or a node: KubeVirt's own
mutators and admitters, called by the API server as they are in a cluster. The KubeVirt resource is
a real object; ``configure`` changes it and returns when KubeVirt has taken it.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Final, final

from hack.control_plane_client import ApiError
from hack.kubevirt_admission_server import AdmissionServer, crds
from hack.kubevirt_cases import PATHS, SEV_GATE, kubevirt_resource, vmi
from hack.started import Started

if TYPE_CHECKING:
    from collections.abc import Callable

    from hack.control_plane import ControlPlane
    from hack.control_plane_client import ApiClient
    from hack.kubevirt_cases import Document

NAMESPACE: Final = "kubevirt"
DEFAULT_GATES: Final = (SEV_GATE,)
DEFINITIONS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_REGISTRATIONS: Final = "/apis/admissionregistration.k8s.io/v1"
_KUBEVIRTS: Final = f"/apis/kubevirt.io/v1/namespaces/{NAMESPACE}/kubevirts"
_SECONDS: Final = 60.0
#: A member that only virt-controller looks at: it tells one configuration from the one before.
_MARK: Final = "sevkit.io/revision"


class KubeVirtError(Exception):
    """KubeVirt did not come to serve, or did not take a configuration."""


@final
class KubeVirtCluster(Started):
    """KubeVirt in a control plane that runs. Use it as a context manager, once for each plane."""

    def __init__(self, plane: ControlPlane) -> None:
        super().__init__()
        self.plane: Final = plane
        self.admin: Final[ApiClient] = plane.admin
        self._revisions: Final = itertools.count(1)
        self._server: AdmissionServer | None = None

    def configure(self, *gates: str, **configuration: object) -> None:
        """Turn on exactly these of the feature gates that matter here; for all that comes after."""
        if self._server is None:
            message = "KubeVirt is not started"
            raise KubeVirtError(message)
        server, revision = self._server, str(next(self._revisions))
        wanted = kubevirt_resource(*gates, **configuration)
        developer = wanted["spec"]["configuration"]["developerConfiguration"]
        developer["nodeSelectors"] = {_MARK: revision}
        whole = self.admin.get(f"{_KUBEVIRTS}/kubevirt") | wanted
        self.admin.replace(f"{_KUBEVIRTS}/kubevirt", whole)

        def taken() -> bool:
            found = server.configuration().get("developerConfiguration", {})
            return bool(found.get("nodeSelectors", {}).get(_MARK) == revision)

        _wait(taken, f"KubeVirt did not take {wanted}")

    def path(self, document: Document, namespace: str) -> str:
        """Return where a new object of KubeVirt's goes."""
        plural = PATHS[document["kind"]][0]
        return f"/apis/{document['apiVersion']}/namespaces/{namespace}/{plural}"

    def create(self, document: Document, namespace: str) -> Document:
        """Create an object; return it as it is stored, and not only as it was answered.

        Raises ``ApiError`` with what KubeVirt says.
        """
        path = self.path(document, namespace)
        made = self.admin.create(path, document)
        stored: Document = self.admin.get(f"{path}/{made['metadata']['name']}")
        return stored

    def _start(self) -> None:
        for definition in crds():
            self.admin.create(DEFINITIONS, definition)
        _wait(self._established, "KubeVirt's definitions are not established")
        self.admin.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        document: Document = {"apiVersion": "kubevirt.io/v1", "kind": "KubeVirt"}
        document |= {"metadata": {"name": "kubevirt"}} | kubevirt_resource(*DEFAULT_GATES)
        _wait(lambda: _is_served(self.admin, _KUBEVIRTS), "the KubeVirt kind is not served")
        self.admin.create(_KUBEVIRTS, document)
        server = AdmissionServer(kubeconfig=self.plane.kubeconfig())
        self._server = self._stack.enter_context(server)
        for configuration in server.webhooks():
            plural = configuration["kind"].lower() + "s"
            self.admin.create(f"{_REGISTRATIONS}/{plural}", configuration)
        _wait(self._answers, "the API server does not call KubeVirt's webhooks")

    def _established(self) -> bool:
        found = self.admin.get(DEFINITIONS)["items"]
        return all(
            any(
                row["type"] == "Established" and row["status"] == "True"
                for row in definition.get("status", {}).get("conditions") or []
            )
            for definition in found
        )

    def _answers(self) -> bool:
        """Return whether both webhooks are called, which the API server says of neither."""
        path = "/apis/kubevirt.io/v1/namespaces/default/virtualmachineinstances?dryRun=All"
        try:
            made = self.admin.create(path, vmi({}))
        except ApiError:
            return False  # a webhook is registered and not yet reached
        try:
            self.admin.create(path, vmi({"launchSecurity": {"snp": {}}}))
        except ApiError as error:
            return error.status == 422 and "machine" in made["spec"]["domain"]
        return False


def _is_served(admin: ApiClient, path: str) -> bool:
    try:
        admin.get(path)
    except ApiError:
        return False
    return True


def _wait(holds: Callable[[], bool], message: str) -> None:
    deadline = time.monotonic() + _SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise KubeVirtError(message)
        time.sleep(0.05)
