"""The requests of a guest owner to a cluster with KubeVirt: a VMI, and its launch subresources.

Each is one call; nothing is tried again, because only the caller knows what a second one would do.
What comes back is the host's word, handed on as the bytes of one JSON document. A GET that KubeVirt
cannot answer is a ``ServerFault`` (500) whether the guest is not there yet or never will be; a PUT
is a ``Conflict`` or ``NotFound``. Whoever asks looks at the VMI then.

Least rights: get on ``virtualmachineinstances`` of kubevirt.io; of subresources.kubevirt.io get on
``virtualmachineinstances/sev``, ``…/sev/fetchcertchain`` and ``…/sev/querylaunchmeasurement``,
update on ``…/sev``, ``…/sev/setupsession``, ``…/sev/injectlaunchsecret`` and ``…/unpause``. The API
server takes what follows the name up to the next slash for the subresource (apiserver's RequestInfo
factory), virt-api asks for the whole. Stopping needs delete on ``virtualmachineinstances`` and
update on ``virtualmachines/stop``.

Source: KubeVirt 1.9 ``pkg/virt-api/api.go``, ``pkg/virt-api/rest/sev.go``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, final

from sevkit.cluster.api import Call, Kind
from sevkit.cluster.kinds import INSTANCES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sevkit.cluster.api import ApiServer, Method
    from sevkit.documents import Json

_GROUP: Final = "subresources.kubevirt.io"
_SUBRESOURCES: Final = Kind(_GROUP, "v1", INSTANCES.plural)
_MACHINES: Final = Kind(_GROUP, "v1", "virtualmachines")
#: Largest answer of a subresource, in bytes: both kinds have less than 12,000.
ANSWER_LIMIT: Final = 64 << 10


@final
@dataclass(frozen=True, slots=True)
class Target:
    """A VMI by its name."""

    namespace: str
    name: str


class LaunchEndpoints(Protocol):
    """What a launch is led through. Every method raises ``ClusterError``."""

    def read(self, vmi: Target) -> Json:
        """Return the VMI; raises ``NotFound``."""

    def fetch_chain(self, vmi: Target) -> bytes:
        """Return the host's SEVPlatformInfo."""

    def set_session(self, vmi: Target, options: Mapping[str, str]) -> None:
        """Set SEVSessionOptions, of which a VMI takes one."""

    def query_measurement(self, vmi: Target) -> bytes:
        """Return the host's SEVMeasurementInfo."""

    def inject_secret(self, vmi: Target, options: Mapping[str, str]) -> None:
        """Hand over SEVSecretOptions."""

    def unpause(self, vmi: Target) -> None:
        """Let the guest run."""

    def stop(self, vmi: Target, uid: str, machine: str) -> None:
        """Stop the VirtualMachine ``machine``, or delete the VMI with this UID where it has none.

        One that is gone is stopped.
        """


@final
class ClusterEndpoints:
    """The endpoints of a real cluster, behind an API server."""

    def __init__(self, server: ApiServer) -> None:
        self._server: Final = server

    def read(self, vmi: Target) -> Json:
        """Return the VMI; raises ``NotFound``."""
        return self._server.call(Call("GET", INSTANCES.path(vmi.name, namespace=vmi.namespace)))

    def fetch_chain(self, vmi: Target) -> bytes:
        """Return the host's SEVPlatformInfo."""
        return self._ask(vmi, "sev/fetchcertchain")

    def set_session(self, vmi: Target, options: Mapping[str, str]) -> None:
        """Set SEVSessionOptions, of which a VMI takes one."""
        self._tell(vmi, "sev/setupsession", options)

    def query_measurement(self, vmi: Target) -> bytes:
        """Return the host's SEVMeasurementInfo."""
        return self._ask(vmi, "sev/querylaunchmeasurement")

    def inject_secret(self, vmi: Target, options: Mapping[str, str]) -> None:
        """Hand over SEVSecretOptions."""
        self._tell(vmi, "sev/injectlaunchsecret", options)

    def unpause(self, vmi: Target) -> None:
        """Let the guest run."""
        self._tell(vmi, "unpause", {})

    def stop(self, vmi: Target, uid: str, machine: str) -> None:
        """Stop the VirtualMachine ``machine``, or delete the VMI with this UID where it has none.

        Only the latter names which VMI is meant; a VirtualMachine would make another one at once.
        """
        if machine:
            path = f"{_MACHINES.path(machine, namespace=vmi.namespace)}/stop"
            self._send("PUT", path, {})
            return
        options: dict[str, Json] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
        }
        self._send("DELETE", INSTANCES.path(vmi.name, namespace=vmi.namespace), options)

    def _ask(self, vmi: Target, subresource: str) -> bytes:
        return json.dumps(self._send("GET", _path(vmi, subresource), None)).encode()

    def _tell(self, vmi: Target, subresource: str, body: Mapping[str, str]) -> None:
        self._send("PUT", _path(vmi, subresource), dict(body))

    def _send(self, method: Method, path: str, body: dict[str, Json] | None) -> Json:
        # A deleted object comes back whole; of the others nothing large is an answer.
        limit = ANSWER_LIMIT if method == "GET" else Call("GET", "").limit
        return self._server.call(Call(method, path, body=body, limit=limit))


def _path(vmi: Target, subresource: str) -> str:
    return f"{_SUBRESOURCES.path(vmi.name, namespace=vmi.namespace)}/{subresource}"
