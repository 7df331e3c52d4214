"""Who answers what, over HTTP but without a socket."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest

from sevkit.measure.terms import Mode
from sevkit.testing.kubevirt.collection import Collection
from sevkit.testing.kubevirt.instances import MemoryInstances
from sevkit.testing.kubevirt.owner_side import make_vmi
from sevkit.testing.kubevirt.routes import Request, Routes
from sevkit.testing.kubevirt.subresources import Subresources

if TYPE_CHECKING:
    from sevkit.testing.kubevirt.instances import Key
    from sevkit.testing.kubevirt.launcher import Launcher

VMIS = "/apis/kubevirt.io/v1/namespaces/ns/virtualmachineinstances"
SUB = "/apis/subresources.kubevirt.io/v1/namespaces/ns/virtualmachineinstances/one"


class NoLaunchers:
    def launcher(self, key: Key) -> Launcher | None:
        return None

    def look_at(self, key: Key) -> None:
        """Nobody is there to look."""


@pytest.fixture
def instances() -> MemoryInstances:
    return MemoryInstances()


@pytest.fixture
def routes(instances: MemoryInstances) -> Routes:
    subresources = Subresources(instances, NoLaunchers(), gate=True, get_status=False)
    return Routes(subresources, Collection(instances, threading.Event()))


def body(**metadata: object) -> bytes:
    return json.dumps(make_vmi(Mode.SEV) | {"metadata": {"name": "one"} | metadata}).encode()


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/livez"])
def test_health_is_ok(routes: Routes, path: str) -> None:
    assert routes.answer(Request("GET", path)).body == b"ok"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/apis", "APIGroupList"),
        ("/apis/subresources.kubevirt.io", "APIGroup"),
        ("/apis/subresources.kubevirt.io/v1", "APIResourceList"),
        ("/apis/subresources.kubevirt.io/v1alpha3?timeout=32s", "APIResourceList"),
        ("/apis/kubevirt.io/v1", "APIResourceList"),
        ("/api", "APIVersions"),
    ],
)
def test_discovery_is_what_the_aggregation_layer_asks(routes: Routes, path: str, kind: str) -> None:
    answer = routes.answer(Request("GET", path))
    assert (answer.status, json.loads(answer.body)["kind"]) == (200, kind)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/"),
        ("GET", "/openapi/v2"),
        ("GET", "/openapi/v3"),
        ("GET", f"{SUB}/console"),
        ("GET", f"{SUB}/sev"),
        ("POST", "/apis"),
        ("GET", "/apis/kubevirt.io/v2"),
    ],
)
def test_what_there_is_not_is_404(routes: Routes, method: str, target: str) -> None:
    assert routes.answer(Request(method, target)).status == 404


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (Request("POST", f"{SUB}/sev/fetchcertchain"), 405),
        (Request("GET", f"{SUB}/unpause"), 405),
        (Request("GET", f"{SUB}/sev/fetchcertchain", accept="application/yaml"), 406),
        (Request("GET", f"{SUB}/sev/fetchcertchain", accept="text/plain"), 406),
        (Request("GET", f"{SUB}/sev/fetchcertchain", content_type="text/plain"), 415),
        (Request("GET", f"{SUB}/sev/fetchcertchain", accept="text/plain, */*;q=0.8"), 500),
        (Request("GET", f"{SUB}/sev/fetchcertchain", content_type="application/json"), 500),
        (Request("PUT", f"{SUB}/unpause", content_type="text/plain"), 404),
        (Request("PUT", f"{SUB}/unpause", accept="application/yaml"), 404),
        (Request("PUT", SUB.replace("v1/", "v1alpha3/") + "/unpause"), 404),
        (Request("PATCH", VMIS + "/one"), 404),
        (Request("PUT", VMIS), 405),
    ],
)
def test_methods_and_types(routes: Routes, request_: Request, status: int) -> None:
    assert routes.answer(request_).status == status


def test_a_vmi_is_created_read_listed_and_deleted(routes: Routes) -> None:
    made = routes.answer(Request("POST", VMIS, body()))
    assert (made.status, json.loads(made.body)["metadata"]["namespace"]) == (201, "ns")
    assert routes.answer(Request("POST", VMIS, body())).status == 409
    assert json.loads(routes.answer(Request("GET", f"{VMIS}/one")).body)["kind"] == (
        "VirtualMachineInstance"
    )
    everywhere = "/apis/kubevirt.io/v1alpha3/virtualmachineinstances"
    for path in (VMIS, everywhere):
        assert len(json.loads(routes.answer(Request("GET", path)).body)["items"]) == 1
    other = VMIS.replace("/ns/", "/other/")
    assert json.loads(routes.answer(Request("GET", other)).body)["items"] == []
    deleted = routes.answer(Request("DELETE", f"{VMIS}/one"))
    assert "deletionTimestamp" in json.loads(deleted.body)["metadata"]
    assert routes.answer(Request("DELETE", f"{VMIS}/two")).status == 404
    assert routes.answer(Request("GET", f"{VMIS}/two")).status == 404


@pytest.mark.parametrize(
    ("selector", "count"),
    [("", 1), ("app=ledger", 1), ("app%3D%3Dledger,tier%3Da", 1), ("app=other", 0), ("x=", 0)],
)
def test_labels_select_by_equality(routes: Routes, selector: str, count: int) -> None:
    labels = {"app": "ledger", "tier": "a"}
    routes.answer(Request("POST", VMIS, body(labels=labels)))
    found = routes.answer(Request("GET", f"{VMIS}?labelSelector={selector}"))
    assert len(json.loads(found.body)["items"]) == count


@pytest.mark.parametrize(
    ("document", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"kind":"Pod"}', 400),
        (b'{"kind":"VirtualMachineInstance","apiVersion":"kubevirt.io/v1"}', 422),
        (body(name="UPPER"), 422),
        (body(namespace="other"), 400),
        (body().replace(b'"startStrategy": "Paused", ', b""), 422),
        (body().replace(b'"sev":', b'"snp": {}, "sev":'), 422),
    ],
)
def test_a_document_that_kubevirt_would_not_take_is_refused(
    routes: Routes, document: bytes, status: int
) -> None:
    answer = routes.answer(Request("POST", VMIS, document))
    assert (answer.status, json.loads(answer.body)["kind"]) == (status, "Status")


def test_a_watch_starts_with_what_is_there_and_tells_when_it_is_too_old(
    instances: MemoryInstances, routes: Routes
) -> None:
    routes.answer(Request("POST", VMIS, body()))
    stream = routes.answer(Request("GET", f"{VMIS}?watch=1")).stream
    assert stream is not None
    event = json.loads(next(stream))
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "one")
    for number in range(1100):
        add = {"op": "add", "path": "/status", "value": {"n": number}}
        instances.patch("ns", "one", [add])
    old = routes.answer(Request("GET", f"{VMIS}?watch=true&resourceVersion=2")).stream
    assert old is not None
    error = json.loads(next(old))
    assert (error["type"], error["object"]["code"]) == ("ERROR", 410)
    bad = routes.answer(Request("GET", f"{VMIS}?watch=true&resourceVersion=x"))
    assert bad.status == 400


def test_without_a_collection_the_vmis_are_somebody_elses(instances: MemoryInstances) -> None:
    subresources = Subresources(instances, NoLaunchers(), gate=True, get_status=False)
    assert Routes(subresources, None).answer(Request("GET", VMIS)).status == 404
