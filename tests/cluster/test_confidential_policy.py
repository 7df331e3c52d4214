"""The net under the webhook: what the real API server stores while no webhook of ours is there.

KubeVirt's own webhooks are. What is expected stands in a table of words, written from what people
are promised and not from the policy's expressions.
"""

from __future__ import annotations

import contextlib
import itertools
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from hack.control_plane_client import ApiError
from hack.kubevirt_cases import vmi
from hack.reviewer import Reviewer
from hack.webhook_registration import NAME, registration
from sevkit.documents import parse_documents
from sevkit.kubevirt.tiers import LABEL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hack.kubevirt_cluster import KubeVirtCluster

NET: Final = Path(__file__).resolve().parents[2] / "deploy" / "webhook" / "net"
ADMISSION: Final = "/apis/admissionregistration.k8s.io/v1"
PLURALS: Final = {
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}
EFI: Final = {"firmware": {"bootloader": {"efi": {"secureBoot": False}}}}
#: What an object may have, and which tiers that is enough for.
HAS: Final[dict[str, tuple[dict[str, Any] | None, frozenset[str]]]] = {
    "nothing": (None, frozenset()),
    "sev": ({"sev": {}}, frozenset({"sev", "best"})),
    "sev, no ES": ({"sev": {"policy": {"encryptedState": False}}}, frozenset({"sev", "best"})),
    "sev-es": (
        {"sev": {"policy": {"encryptedState": True}}},
        frozenset({"sev", "sev-es", "best"}),
    ),
    "snp": ({"snp": {}}, frozenset({"sev", "sev-es", "snp", "best"})),
    "tdx": ({"tdx": {}}, frozenset()),
    "empty": ({}, frozenset()),
    "two": ({"sev": {}, "snp": {}}, frozenset()),
}
ASKS: Final = (None, "best", "sev", "sev-es", "snp")
UNKNOWN: Final = ("", "SNP", "tdx", "none")
OURS: Final = "sevkit-confidential"


@pytest.fixture(scope="module")
def net(kubevirt: KubeVirtCluster) -> Iterator[KubeVirtCluster]:
    made = []
    for path in sorted(NET.glob("policy-*.yaml")):
        for document in parse_documents(path.read_bytes(), path.name):
            assert isinstance(document, dict)
            place = f"{ADMISSION}/{PLURALS[str(document['kind'])]}"
            kubevirt.admin.create(place, document)
            made.append(f"{place}/{document['metadata']['name']}")  # type: ignore[index,call-overload]  # JSON
    deadline = time.monotonic() + 30
    while _says(kubevirt, _namespace(kubevirt, "snp"), vmi({})) is None:
        assert time.monotonic() < deadline, "the policy does not come into force"
        time.sleep(0.1)
    yield kubevirt
    for place in made:
        kubevirt.admin.delete(place)


def _namespace(cluster: KubeVirtCluster, value: str | None) -> str:
    name = f"p-{uuid.uuid4().hex[:12]}"
    labels = {} if value is None else {LABEL: value}
    cluster.admin.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
    return name


@pytest.fixture(scope="module")
def namespaces(net: KubeVirtCluster) -> dict[str | None, str]:
    return {value: _namespace(net, value) for value in ASKS}


def _says(cluster: KubeVirtCluster, namespace: str, document: dict[str, Any]) -> str | None:
    """Return what our policy says against an object, None if it says nothing."""
    path = f"{cluster.path(document, namespace)}?dryRun=All"
    document["metadata"] = {**document["metadata"], "name": f"v-{uuid.uuid4().hex[:8]}"}
    try:
        cluster.admin.create(path, document)
    except ApiError as error:
        return error.message if OURS in error.message else None
    return None


def _object(has: str, own: str | None, **spec: object) -> dict[str, Any]:
    launch_security = HAS[has][0]
    domain = EFI | ({} if launch_security is None else {"launchSecurity": launch_security})
    found = vmi(domain, **spec)
    if own is not None:
        found["metadata"]["labels"] = {LABEL: own}
    return found


@pytest.mark.parametrize("has", HAS)
def test_an_object_is_stored_only_if_it_has_what_both_labels_ask_for(
    net: KubeVirtCluster, namespaces: dict[str | None, str], has: str
) -> None:
    enough = HAS[has][1]
    for asked, own in itertools.product(ASKS, ASKS):
        said = _says(net, namespaces[asked], _object(has, own))
        wanted = {one for one in (asked, own) if one is not None}
        assert (said is None) is (wanted <= enough), (asked, own, said)


@pytest.mark.parametrize("own", UNKNOWN)
@pytest.mark.parametrize("has", ["nothing", "snp"])
def test_an_object_with_another_value_is_never_stored(
    net: KubeVirtCluster, namespaces: dict[str | None, str], own: str, has: str
) -> None:
    for asked in ASKS:
        said = _says(net, namespaces[asked], _object(has, own))
        assert said is not None
        assert "write sev, sev-es, snp or best" in said


def test_a_refusal_says_what_is_asked_for_and_who_would_add_it(
    net: KubeVirtCluster, namespaces: dict[str | None, str]
) -> None:
    said = _says(net, namespaces["sev-es"], _object("sev", None))
    assert said is not None
    assert "sevkit.io/confidential asks for sev-es" in said
    assert "webhook" in said
    said = _says(net, namespaces["sev"], _object("nothing", "snp"))
    assert said is not None
    assert "asks for snp" in said


@pytest.mark.parametrize("version", ["v1", "v1alpha3"])
def test_both_versions_are_judged(
    net: KubeVirtCluster, namespaces: dict[str | None, str], version: str
) -> None:
    for has, is_stored in (("nothing", False), ("sev", False), ("snp", True)):
        document = _object(has, None) | {"apiVersion": f"kubevirt.io/{version}"}
        assert (_says(net, namespaces["snp"], document) is None) is is_stored


def test_an_architecture_that_kubevirt_does_not_look_at_is_refused(
    net: KubeVirtCluster, namespaces: dict[str | None, str]
) -> None:
    said = _says(net, namespaces["snp"], _object("snp", None, architecture="s390x"))
    assert said is not None
    assert "only amd64" in said
    assert _says(net, namespaces[None], _object("snp", None, architecture="s390x")) is None


def test_vms_are_left_to_what_they_make(
    net: KubeVirtCluster, namespaces: dict[str | None, str]
) -> None:
    machine = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": "m"},
        "spec": {"runStrategy": "Halted", "template": {"spec": vmi({})["spec"]}},
    }
    assert _says(net, namespaces["snp"], machine) is None


@pytest.mark.parametrize("value", UNKNOWN)
def test_a_namespace_may_not_ask_for_what_does_not_exist(net: KubeVirtCluster, value: str) -> None:
    with pytest.raises(ApiError, match="must be sev, sev-es, snp or best"):
        _namespace(net, value)
    name = _namespace(net, "snp")
    path = f"/api/v1/namespaces/{name}"
    with pytest.raises(ApiError, match="must be sev, sev-es, snp or best"):
        net.admin.patch(path, {"metadata": {"labels": {LABEL: value}}})
    net.admin.patch(path, {"metadata": {"labels": {LABEL: "sev", "other": "x"}}})
    net.admin.patch(path, {"metadata": {"labels": {LABEL: None}}})


def test_with_the_webhook_down_nothing_unprotected_is_stored_and_others_are_untouched(
    net: KubeVirtCluster, namespaces: dict[str | None, str]
) -> None:
    """Registered, and nobody listens: the namespaces that ask are closed, the others open."""
    nobody = Reviewer(1, "")
    made = registration(nobody)
    for webhook in made["webhooks"]:
        webhook["clientConfig"] = {"url": webhook["clientConfig"]["url"]}
    place = f"{ADMISSION}/mutatingwebhookconfigurations"
    net.admin.create(place, made)
    try:
        path = f"{net.path(vmi({}), namespaces['snp'])}?dryRun=All"
        deadline = time.monotonic() + 20
        while True:
            with pytest.raises(ApiError) as caught:
                net.admin.create(path, vmi({}))
            if "failed calling webhook" in caught.value.message:
                break
            assert time.monotonic() < deadline
            time.sleep(0.1)
        for has in HAS:
            for asked in ("best", "sev", "sev-es", "snp"):
                document = _object(has, None)
                with pytest.raises(ApiError):
                    net.admin.create(
                        f"{net.path(document, namespaces[asked])}?dryRun=All", document
                    )
        plain = _object("nothing", None)
        net.admin.create(f"{net.path(plain, namespaces[None])}?dryRun=All", plain)
        # One that asks itself is refused as well.
        asking = _object("nothing", "sev")
        with pytest.raises(ApiError):
            net.admin.create(f"{net.path(asking, namespaces[None])}?dryRun=All", asking)
    finally:
        net.admin.delete(f"{place}/{NAME}")
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            document = _object("snp", None)
            with contextlib.suppress(ApiError):
                net.admin.create(f"{net.path(document, namespaces['snp'])}?dryRun=All", document)
                break
            time.sleep(0.1)
