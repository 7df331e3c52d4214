from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from sevkit.cluster.launch_endpoints import ANSWER_LIMIT, ClusterEndpoints, Target

if TYPE_CHECKING:
    from sevkit.cluster.api import Call
    from sevkit.documents import Json

VMI: Final = Target("pay", "led/ger")
BASE: Final = "/apis/subresources.kubevirt.io/v1/namespaces/pay/virtualmachineinstances/led%2Fger"
OBJECT: Final = "/apis/kubevirt.io/v1/namespaces/pay/virtualmachineinstances/led%2Fger"


class Server:
    """Notes what is asked, and answers always the same."""

    def __init__(self, answer: Json) -> None:
        self.calls: list[Call] = []
        self._answer = answer

    def call(self, call: Call) -> Json:
        self.calls.append(call)
        return self._answer


def test_each_request_has_its_method_its_path_and_its_bounds() -> None:
    server = Server({"pdh": "a"})
    endpoints = ClusterEndpoints(server)
    assert endpoints.read(VMI) == {"pdh": "a"}
    assert json.loads(endpoints.fetch_chain(VMI)) == {"pdh": "a"}
    assert json.loads(endpoints.query_measurement(VMI)) == {"pdh": "a"}
    endpoints.set_session(VMI, {"session": "s"})
    endpoints.inject_secret(VMI, {"secret": "s"})
    endpoints.unpause(VMI)
    endpoints.stop(VMI, "uid", "")
    endpoints.stop(VMI, "uid", "machine")
    assert [(call.method, call.path, call.body) for call in server.calls] == [
        ("GET", OBJECT, None),
        ("GET", f"{BASE}/sev/fetchcertchain", None),
        ("GET", f"{BASE}/sev/querylaunchmeasurement", None),
        ("PUT", f"{BASE}/sev/setupsession", {"session": "s"}),
        ("PUT", f"{BASE}/sev/injectlaunchsecret", {"secret": "s"}),
        ("PUT", f"{BASE}/unpause", {}),
        (
            "DELETE",
            OBJECT,
            {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "uid"}},
        ),
        (
            "PUT",
            "/apis/subresources.kubevirt.io/v1/namespaces/pay/virtualmachines/machine/stop",
            {},
        ),
    ]
    assert {call.limit for call in server.calls[1:3]} == {ANSWER_LIMIT}
