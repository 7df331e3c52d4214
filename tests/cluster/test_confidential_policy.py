"""The net under the webhook: what the real API server stores while no webhook of ours is there.

KubeVirt's own webhooks are. What is expected stands in a table of words, written from what people
are promised and not from the policy's expressions.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from hack.control_plane_client import ApiError
from hack.kubevirt_cases import vmi
from hack.kubevirt_cluster import DEFINITIONS, NAMESPACE
from sevkit.documents import parse_documents
from sevkit.kubevirt.tiers import LABEL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hack.control_plane_client import ApiClient
    from hack.kubevirt_cluster import KubeVirtCluster

DEPLOY: Final = Path(__file__).resolve().parents[2] / "deploy" / "webhook"
NET: Final = DEPLOY / "net"
ADMISSION: Final = "/apis/admissionregistration.k8s.io/v1"
RBAC: Final = "/apis/rbac.authorization.k8s.io/v1"
CONTROLLER: Final = "kubevirt-controller"
PLURALS: Final = {
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
    "MutatingWebhookConfiguration": "mutatingwebhookconfigurations",
    "ValidatingWebhookConfiguration": "validatingwebhookconfigurations",
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
    "null": ({"snp": None}, frozenset()),
    "two": ({"sev": {}, "snp": {}}, frozenset()),
}
ASKS: Final = (None, "best", "sev", "sev-es", "snp")
UNKNOWN: Final = ("", "SNP", "tdx", "none")
VERSIONS: Final = ("v1", "v1alpha3")
#: What of a spec an expression asks for, without the functions at its end.
MEMBERS: Final = re.compile(r"bject\.spec\.((?:\??\w+\b(?!\())(?:\.\??(?!(?:has|or)Value\()\w+)*)")
OURS: Final = "sevkit-confidential"
TEMPLATE: Final[dict[str, Any]] = {
    "metadata": {"labels": {"of": "x"}},
    "spec": {key: value for key, value in vmi({})["spec"].items() if key != "architecture"},
}
SELECTOR: Final = {"matchLabels": {"of": "x"}}


@contextlib.contextmanager
def _applied(cluster: KubeVirtCluster, *paths: Path) -> Iterator[None]:
    made = []
    try:
        for path in paths:
            for document in parse_documents(path.read_bytes(), path.name):
                found: Any = document
                place = f"{ADMISSION}/{PLURALS[found['kind']]}"
                cluster.admin.create(place, found)
                made.append(f"{place}/{found['metadata']['name']}")
        yield
    finally:
        for place in made:
            cluster.admin.delete(place)


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "what is applied does not come into force"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def net(kubevirt: KubeVirtCluster) -> Iterator[KubeVirtCluster]:
    with _applied(kubevirt, *sorted(NET.glob("policy-*.yaml"))):
        where = _namespace(kubevirt, "snp")
        _until(lambda: _says(kubevirt, where, vmi({})) is not None)
        yield kubevirt


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


def _made(cluster: KubeVirtCluster, namespace: str, document: dict[str, Any]) -> str:
    """Store an object; return its path."""
    document["metadata"] = {**document["metadata"], "name": f"v-{uuid.uuid4().hex[:8]}"}
    path = cluster.path(document, namespace)
    cluster.admin.create(path, document)
    return f"{path}/{document['metadata']['name']}"


def _patched(client: ApiClient, path: str, patch: dict[str, Any]) -> str | None:
    """Return what is said against a change of an object, None if nothing is."""
    try:
        client.patch(f"{path}?dryRun=All", patch)
    except ApiError as error:
        return error.message
    return None


@pytest.fixture(scope="module")
def controller(net: KubeVirtCluster) -> Iterator[ApiClient]:
    """KubeVirt's own controller: KubeVirt lets it change a VMI's spec."""
    accounts = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
    net.admin.create(accounts, {"metadata": {"name": CONTROLLER}})
    spec = {"expirationSeconds": 3600}
    token = net.admin.create(f"{accounts}/{CONTROLLER}/token", {"spec": spec})["status"]["token"]
    binding = {
        "metadata": {"name": CONTROLLER},
        "roleRef": {"apiGroup": RBAC.split("/")[2], "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": CONTROLLER, "namespace": NAMESPACE}],
    }
    net.admin.create(f"{RBAC}/clusterrolebindings", binding)
    client = net.plane.client(token)
    made = _made(net, _namespace(net, "snp"), _object("snp", None))
    _until(lambda: OURS in (_patched(client, made, _launch(None)) or ""))
    yield client
    net.admin.delete(f"{RBAC}/clusterrolebindings/{CONTROLLER}")
    net.admin.delete(f"{accounts}/{CONTROLLER}")


def _launch(launch_security: object) -> dict[str, Any]:
    return {"spec": {"domain": {"launchSecurity": launch_security}}}


def _object(has: str, own: str | None, **spec: object) -> dict[str, Any]:
    launch_security = HAS[has][0]
    domain = EFI | ({} if launch_security is None else {"launchSecurity": launch_security})
    found = vmi(domain, **spec)
    if own is not None:
        found["metadata"]["labels"] = {LABEL: own}
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("has", HAS)
def test_an_object_is_stored_only_if_it_has_what_both_labels_ask_for(
    net: KubeVirtCluster, namespaces: dict[str | None, str], has: str, version: str
) -> None:
    enough = HAS[has][1]
    for asked, own in itertools.product(ASKS, ASKS):
        document = _object(has, own) | {"apiVersion": f"kubevirt.io/{version}"}
        said = _says(net, namespaces[asked], document)
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


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["policy-vmi.yaml", "policy-vmi-update.yaml"])
def test_every_member_that_is_asked_for_is_one_of_kubevirts(
    net: KubeVirtCluster, name: str, version: str
) -> None:
    """What the API server would warn of in ``status.typeChecking``: a member that never is."""
    definition = net.admin.get(f"{DEFINITIONS}/virtualmachineinstances.kubevirt.io")
    (served,) = (row for row in definition["spec"]["versions"] if row["name"] == version)
    asked = set(MEMBERS.findall((NET / name).read_text()))
    assert "domain.launchSecurity.sev.policy.encryptedState" in {
        one.replace("?", "") for one in asked
    }
    for path in asked:
        schema = served["schema"]["openAPIV3Schema"]["properties"]["spec"]
        for part in path.replace("?", "").split("."):
            assert part in schema["properties"], path
            schema = schema["properties"][part]


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


def test_an_architecture_that_kubevirt_does_not_look_at_is_refused(
    net: KubeVirtCluster, namespaces: dict[str | None, str]
) -> None:
    said = _says(net, namespaces["snp"], _object("snp", None, architecture="s390x"))
    assert said is not None
    assert "only amd64" in said
    assert _says(net, namespaces[None], _object("snp", None, architecture="s390x")) is None


@pytest.mark.parametrize(
    ("version", "kind", "spec"),
    [
        ("kubevirt.io/v1", "VirtualMachine", {"runStrategy": "Halted", "template": TEMPLATE}),
        ("kubevirt.io/v1alpha3", "VirtualMachine", {"running": True, "template": TEMPLATE}),
        (
            "kubevirt.io/v1",
            "VirtualMachineInstanceReplicaSet",
            {"replicas": 2, "selector": SELECTOR, "template": TEMPLATE},
        ),
        (
            "pool.kubevirt.io/v1beta1",
            "VirtualMachinePool",
            {
                "replicas": 2,
                "selector": SELECTOR,
                "virtualMachineTemplate": {
                    "metadata": {"labels": {"of": "x"}},
                    "spec": {"runStrategy": "Always", "template": TEMPLATE},
                },
            },
        ),
    ],
)
def test_who_makes_vmis_is_left_to_what_it_makes(
    net: KubeVirtCluster,
    namespaces: dict[str | None, str],
    version: str,
    kind: str,
    spec: dict[str, Any],
) -> None:
    document = {"apiVersion": version, "kind": kind, "metadata": {"name": "m"}, "spec": spec}
    path = f"{net.path(document, namespaces['snp'])}?dryRun=All"
    assert net.admin.create(path, document)["kind"] == kind


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


#: Changes of launch security, each with what is had before.
WEAKER: Final[dict[str, tuple[str, object]]] = {
    "nothing instead": ("snp", None),
    "empty": ("snp", {"snp": None}),
    "sev instead": ("snp", {"snp": None, "sev": {}}),
    "tdx instead": ("snp", {"snp": None, "tdx": {}}),
    "two": ("snp", {"sev": {}}),
    "no ES": ("sev-es", {"sev": {"policy": None}}),
    "ES off": ("sev-es", {"sev": {"policy": {"encryptedState": False}}}),
    "no sev": ("sev", {"sev": None}),
}


@pytest.mark.parametrize("change", WEAKER)
@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_stored_cannot_be_made_less(
    net: KubeVirtCluster,
    controller: ApiClient,
    namespaces: dict[str | None, str],
    version: str,
    change: str,
) -> None:
    has, becomes = WEAKER[change]
    for asked, own in (("best", None), (None, "sev")):
        path = _made(net, namespaces[asked], _object(has, own)).replace("/v1/", f"/{version}/")
        said = _patched(controller, path, _launch(becomes))
        assert said is not None
        assert OURS in said
        assert "delete it and make another" in said
    path = _made(net, namespaces[None], _object(has, None)).replace("/v1/", f"/{version}/")
    assert _patched(controller, path, _launch(becomes)) is None


def test_taking_off_the_label_with_the_same_change_does_not_help(
    net: KubeVirtCluster, controller: ApiClient, namespaces: dict[str | None, str]
) -> None:
    path = _made(net, namespaces[None], _object("snp", "snp"))
    said = _patched(controller, path, {"metadata": {"labels": {LABEL: None}}} | _launch(None))
    assert said is not None
    assert "delete it and make another" in said


def test_everybody_else_is_refused_by_kubevirt_too(
    net: KubeVirtCluster, namespaces: dict[str | None, str]
) -> None:
    path = _made(net, namespaces[None], _object("snp", None))
    said = _patched(net.admin, path, _launch(None))
    assert said is not None
    assert "update of VMI object is restricted" in said


def test_the_architecture_of_what_is_stored_stays(
    net: KubeVirtCluster, controller: ApiClient, namespaces: dict[str | None, str]
) -> None:
    path = _made(net, namespaces["snp"], _object("snp", None))
    said = _patched(controller, path, {"spec": {"architecture": "s390x"}})
    assert said is not None
    assert "spec.architecture: cannot be changed" in said


@pytest.mark.parametrize(
    "patch",
    [
        _launch({"sev": {"session": "QQ==", "dhCert": "QQ=="}}),
        {"spec": {"domain": {"cpu": {"sockets": 2}}}},
        {"metadata": {"labels": {LABEL: "snp"}}},
        {"metadata": {"labels": {LABEL: "none-such"}}},
        {"metadata": {"annotations": {"x": "y"}}},
        {"metadata": {"finalizers": []}},
        {"status": {"phase": "Running"}},
    ],
    ids=str,
)
def test_whatever_is_written_of_a_vmi_that_runs_is_written(
    net: KubeVirtCluster,
    controller: ApiClient,
    namespaces: dict[str | None, str],
    patch: dict[str, Any],
) -> None:
    path = _made(net, namespaces["sev"], _object("sev-es", None))
    assert _patched(controller, path, patch) is None


def test_what_was_there_before_the_label_goes_on(
    net: KubeVirtCluster, controller: ApiClient
) -> None:
    where = _namespace(net, None)
    path = _made(net, where, _object("nothing", None))
    net.admin.patch(f"/api/v1/namespaces/{where}", {"metadata": {"labels": {LABEL: "snp"}}})
    _until(lambda: _says(net, where, _object("nothing", None)) is not None)
    assert _patched(controller, path, {"metadata": {"finalizers": []}}) is None
    assert _patched(controller, path, {"status": {"phase": "Running"}}) is None


@pytest.fixture
def down(net: KubeVirtCluster, namespaces: dict[str | None, str]) -> Iterator[KubeVirtCluster]:
    """The webhook is registered as it is installed, and its Service is not there."""
    path = f"{net.path(vmi({}), namespaces['snp'])}?dryRun=All"

    def is_asked() -> bool:
        try:
            net.admin.create(path, _object("snp", None))
        except ApiError as error:
            return "failed calling webhook" in error.message
        return False

    with _applied(net, *sorted((DEPLOY / "base").glob("configuration-*.yaml"))):
        _until(is_asked)
        yield net
    _until(lambda: not is_asked())


def test_with_the_webhook_down_nothing_is_stored_where_it_is_asked_for(
    down: KubeVirtCluster, namespaces: dict[str | None, str]
) -> None:
    for has, version in itertools.product(HAS, VERSIONS):
        for asked, own in itertools.product(ASKS, (None, "sev", "SNP")):
            if asked is None and own is None:
                continue
            document = _object(has, own) | {"apiVersion": f"kubevirt.io/{version}"}
            path = f"{down.path(document, namespaces[asked])}?dryRun=All"
            with pytest.raises(ApiError, match="failed calling webhook"):
                down.admin.create(path, document)


def test_with_the_webhook_down_everything_else_goes_on(
    down: KubeVirtCluster, namespaces: dict[str | None, str]
) -> None:
    for version in VERSIONS:
        plain = _object("nothing", None) | {"apiVersion": f"kubevirt.io/{version}"}
        down.admin.create(f"{down.path(plain, namespaces[None])}?dryRun=All", plain)
    machine = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": "m"},
        "spec": {"runStrategy": "Always", "template": TEMPLATE},
    }
    for where in namespaces.values():
        down.admin.create(f"{down.path(machine, where)}?dryRun=All", machine)
        body = {"metadata": {"name": "c"}, "data": {}}
        down.admin.create(f"/api/v1/namespaces/{where}/configmaps?dryRun=All", body)
    down.admin.create("/api/v1/namespaces?dryRun=All", {"metadata": {"name": "n"}})


def test_what_runs_is_not_in_the_way_of_a_webhook_that_is_down(
    net: KubeVirtCluster, namespaces: dict[str | None, str], request: pytest.FixtureRequest
) -> None:
    path = _made(net, namespaces["snp"], _object("snp", None))
    request.getfixturevalue("down")
    net.admin.patch(path, {"status": {"phase": "Running"}})
    net.admin.patch(path, {"metadata": {"finalizers": []}})
    net.admin.delete(path)
