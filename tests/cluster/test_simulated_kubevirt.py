"""Simulated KubeVirt behind a real API server: admission, storage, aggregation layer."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import ssl
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from hack.control_plane import ADMIN_TOKEN
from hack.control_plane_client import ApiError
from hack.kubevirt_cluster import NAMESPACE
from sevkit.abi.product import Product, ProductLine
from sevkit.abi.secret_packet import DISK_GUID
from sevkit.cli.main import main
from sevkit.documents import parse_documents
from sevkit.measure.terms import Mode
from sevkit.testing import sev_chain
from sevkit.testing.contracts.launch_endpoints import LaunchEndpointsContract, Reply
from sevkit.testing.kubevirt.api_server import ApiServerInstances
from sevkit.testing.kubevirt.host import SimulatedHost
from sevkit.testing.kubevirt.owner_side import CPU_MODEL, TABLE, VCPUS, OwnerSide, make_vmi
from sevkit.testing.kubevirt.simulation import SimulatedKubeVirt
from sevkit.testing.secure_processor.identity import ChipIdentity
from sevkit.testing.secure_processor.processor import SecureProcessor
from sevkit.testing.snp_chain import SimulatedRoots

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hack.control_plane import ControlPlane
    from hack.kubevirt_cluster import KubeVirtCluster
    from sevkit.testing.contracts.launch_endpoints import LaunchEndpoints

SERVICE: Final = "virt-api"
SERVICES: Final = "/apis/apiregistration.k8s.io/v1/apiservices"
SECONDS: Final = 30.0
RIGHTS: Final = Path(__file__).parents[2] / "deploy" / "guest-owner" / "rights.yaml"


@pytest.fixture(scope="module")
def hosts() -> list[SimulatedHost]:
    sev_roots, snp_roots = sev_chain.make_roots(), SimulatedRoots(ProductLine.MILAN)
    chips = [ChipIdentity(Product.MILAN, sev_roots, snp_roots) for _ in range(2)]
    return [SimulatedHost(f"node-{n}", SecureProcessor(chip)) for n, chip in enumerate(chips)]


@pytest.fixture(scope="module")
def firmware(ovmf_amdsev: Path) -> bytes:
    return ovmf_amdsev.read_bytes()


@pytest.fixture(scope="module")
def trusted(hosts: list[SimulatedHost], firmware: bytes) -> OwnerSide:
    roots = hosts[0].processor.identity.sev_roots
    ceks = tuple(host.processor.identity.signed_cek for host in hosts)
    return OwnerSide(firmware, roots.ca, (roots.root,), ceks)


def controller_account(kubevirt: KubeVirtCluster) -> Path:
    """Return a kubeconfig of KubeVirt's own controller: its admission lets nobody else write."""
    admin = kubevirt.admin
    account = "kubevirt-controller"
    accounts = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
    with contextlib.suppress(ApiError):
        admin.create(accounts, {"metadata": {"name": account}})
    subject = {"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    binding = {"metadata": {"name": account}, "subjects": [subject], "roleRef": role}
    with contextlib.suppress(ApiError):
        admin.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
    token = admin.create(f"{accounts}/{account}/token", {"spec": {}})["status"]["token"]
    return kubevirt.plane.kubeconfig(token)


@contextlib.contextmanager
def aggregated(kubevirt: KubeVirtCluster, simulated: SimulatedKubeVirt) -> Iterator[None]:
    """Register the simulation as KubeVirt's aggregated API until the block is left."""
    admin = kubevirt.admin
    services = f"/api/v1/namespaces/{NAMESPACE}/services"
    spec = {"type": "ExternalName", "externalName": "localhost"}
    admin.create(services, {"metadata": {"name": SERVICE}, "spec": spec})
    group = "subresources.kubevirt.io"
    names = []
    for priority, version in enumerate(("v1alpha3", "v1"), 10):
        name = f"{version}.{group}"
        service = {
            "group": group,
            "version": version,
            "groupPriorityMinimum": 1000,
            "versionPriority": priority,
            "caBundle": base64.b64encode(simulated.ca).decode(),
            "service": {"name": SERVICE, "namespace": NAMESPACE, "port": simulated.port},
        }
        admin.create(SERVICES, {"metadata": {"name": name}, "spec": service})
        names.append(name)
    try:
        deadline = time.monotonic() + SECONDS
        while not all(is_served(admin.get(f"{SERVICES}/{name}")) for name in names):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield
    finally:
        for name in names:
            admin.delete(f"{SERVICES}/{name}")
        admin.delete(f"{services}/{SERVICE}")


def is_served(service: dict[str, Any]) -> bool:
    rows = service.get("status", {}).get("conditions", [])
    return any(row["type"] == "Available" and row["status"] == "True" for row in rows)


class Client:
    """A guest owner's client of the API server; ``namespace`` is his own."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self._plane = plane
        self._address = plane.url.removeprefix("https://")
        self._context = ssl.create_default_context(cadata=plane.ca.decode())
        self._where = f"v1/namespaces/{namespace}/virtualmachineinstances"
        self.namespace = namespace

    def create(self, vmi: dict[str, Any]) -> None:
        self._plane.admin.create(f"/apis/kubevirt.io/{self._where}", vmi)

    def read(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._plane.admin.get(f"/apis/kubevirt.io/{self._where}/{name}")
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return found

    def delete(self, name: str) -> None:
        self._plane.admin.delete(f"/apis/kubevirt.io/{self._where}/{name}")

    def request(
        self, method: str, name: str, subresource: str, body: bytes = b"", **headers: str
    ) -> Reply:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent |= {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        connection = http.client.HTTPSConnection(self._address, context=self._context, timeout=30)
        try:
            path = f"/apis/subresources.kubevirt.io/{self._where}/{name}/{subresource}"
            connection.request(method, path, body or None, sent)
            answer = connection.getresponse()
            return Reply(answer.status, answer.getheader("Content-Type", ""), answer.read())
        finally:
            connection.close()


@pytest.fixture(scope="module")
def simulated(
    kubevirt: KubeVirtCluster, hosts: list[SimulatedHost], firmware: bytes
) -> Iterator[SimulatedKubeVirt]:
    instances = ApiServerInstances.from_kubeconfig(controller_account(kubevirt))
    files = {"OVMF_CODE.cc.fd": firmware, "OVMF.amdsev.fd": firmware}
    names = [f"{SERVICE}.{NAMESPACE}.svc"]
    with (
        SimulatedKubeVirt(hosts, files, instances=instances, retry=0.2, names=names) as running,
        aggregated(kubevirt, running),
    ):
        yield running


@pytest.fixture
def client(simulated: SimulatedKubeVirt, kubevirt: KubeVirtCluster, namespace: str) -> Client:
    return Client(kubevirt.plane, namespace)


class TestBehindTheAggregationLayer(LaunchEndpointsContract):
    @pytest.fixture
    def endpoints(self, client: Client) -> LaunchEndpoints:
        return client

    @pytest.fixture
    def owner(self, trusted: OwnerSide) -> OwnerSide:
        return trusted

    @pytest.fixture(autouse=True)
    def look_inside(self, simulated: SimulatedKubeVirt, client: Client) -> None:
        self.simulated, self.namespace = simulated, client.namespace

    def check_injected(self, endpoints: LaunchEndpoints, name: str) -> None:
        assert self.simulated.injected(self.namespace, name) == (TABLE,)


def test_a_deleted_vmi_is_gone_and_so_is_its_guest(
    simulated: SimulatedKubeVirt, client: Client, hosts: list[SimulatedHost]
) -> None:
    vmi = make_vmi(Mode.SNP, attestation=False)
    name = vmi["metadata"]["name"]
    client.create(vmi)
    simulated.wait_for(client.namespace, name, "Running")
    launcher = simulated.launcher(client.namespace, name)
    assert launcher is not None
    used = launcher.host.kvm.asids.current["sev_es"]
    client.delete(name)
    deadline = time.monotonic() + SECONDS
    while client.read(name) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    while launcher.host.kvm.asids.current["sev_es"] != used - 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_vmi_that_nobody_attests_fails_at_its_launchers_deadline(
    kubevirt: KubeVirtCluster, namespace: str, hosts: list[SimulatedHost], firmware: bytes
) -> None:
    instances = ApiServerInstances.from_kubeconfig(controller_account(kubevirt))
    files = {"OVMF_CODE.cc.fd": firmware}
    client = Client(kubevirt.plane, namespace)
    now = [0.0]
    with SimulatedKubeVirt(
        hosts, files, instances=instances, jitter=0, clock=lambda: now[0]
    ) as alone:
        vmi = make_vmi(Mode.SEV)
        client.create(vmi)
        name = vmi["metadata"]["name"]
        found = alone.wait_for(namespace, name, "Scheduled")
        assert found.node in {host.name for host in hosts}
        now[0] = 240.0
        alone.wait_for(namespace, name, "Failed")
        client.delete(name)


def test_the_aggregated_api_is_discovered(
    simulated: SimulatedKubeVirt, kubevirt: KubeVirtCluster
) -> None:
    found = kubevirt.admin.get("/apis/subresources.kubevirt.io/v1")
    names = {row["name"] for row in found["resources"]}
    assert "virtualmachineinstances/sev/setupsession" in names
    del simulated


def test_a_stranger_may_not_ask(
    simulated: SimulatedKubeVirt, kubevirt: KubeVirtCluster, client: Client
) -> None:
    admin = kubevirt.admin
    account = f"stranger-{uuid.uuid4().hex[:6]}"
    accounts = f"/api/v1/namespaces/{client.namespace}/serviceaccounts"
    admin.create(accounts, {"metadata": {"name": account}})
    token = admin.create(f"{accounts}/{account}/token", {"spec": {}})["status"]["token"]
    stranger = kubevirt.plane.client(token)
    path = f"/apis/subresources.kubevirt.io/v1/namespaces/{client.namespace}"
    with pytest.raises(ApiError) as refused:
        stranger.get(f"{path}/virtualmachineinstances/any/sev/fetchcertchain")
    assert refused.value.status == 403
    assert not any("/any/" in request for request in simulated.faults.requests)


def guest_owners_account(kubevirt: KubeVirtCluster, namespace: str) -> Path:
    """Return a kubeconfig of somebody with the rights of ``deploy/guest-owner`` in a namespace."""
    documents = parse_documents(RIGHTS.read_bytes(), "rights")
    rules = next(one["rules"] for one in documents if isinstance(one, dict) and "rules" in one)
    admin, account = kubevirt.admin, "guest-owner"
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    admin.create(accounts, {"metadata": {"name": account}})
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    admin.create(f"{rbac}/roles", {"metadata": {"name": account}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account}
    binding = {"metadata": {"name": account}, "subjects": [subject], "roleRef": role}
    admin.create(f"{rbac}/rolebindings", binding)
    token = admin.create(f"{accounts}/{account}/token", {"spec": {}})["status"]["token"]
    return kubevirt.plane.kubeconfig(token)


def test_a_guest_owner_with_the_least_rights_attests_vmis_through_the_api_server(
    simulated: SimulatedKubeVirt,
    kubevirt: KubeVirtCluster,
    client: Client,
    trusted: OwnerSide,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "OVMF.fd").write_bytes(trusted.firmware)
    (tmp_path / "disk.key").write_bytes(b"the key of the disk")
    (tmp_path / "disk.key").chmod(0o600)
    (tmp_path / "ca.cert").write_bytes(trusted.ca.ask.data + trusted.ca.ark.data)
    (tmp_path / "ark.cert").write_bytes(trusted.roots[0])
    (tmp_path / "ceks.cert").write_bytes(b"".join(trusted.signed_ceks))
    options = [
        f"--kubeconfig={guest_owners_account(kubevirt, client.namespace)}",
        f"--namespace={client.namespace}",
        f"--state={tmp_path / 'state'}",
        f"--firmware={tmp_path / 'OVMF.fd'}",
        f"--ca={tmp_path / 'ca.cert'}",
        f"--root={tmp_path / 'ark.cert'}",
        f"--cek={tmp_path / 'ceks.cert'}",
        f"--secret={DISK_GUID}={tmp_path / 'disk.key'}",
        "--accept=unmeasured-boot",
        "--accept=unmeasured-variables",
    ]
    for mode, more in (
        (Mode.SEV, ["--guest-policy=1"]),
        (Mode.SEV_ES, ["--guest-policy=5", f"--vcpus={VCPUS}", f"--vcpu-type={CPU_MODEL}"]),
    ):
        vmi = make_vmi(mode)
        name = vmi["metadata"]["name"]
        client.create(vmi)
        code = main(["attest", "vmi", name, *options, *more, "--output=json"])
        captured = capsys.readouterr()
        findings = json.loads(captured.out)["findings"]
        assert code == 0, [row["detail"] for row in findings if row["outcome"] == "fail"]
        assert simulated.injected(client.namespace, name) == (TABLE,)
        simulated.wait_for(client.namespace, name, "Running", paused=False)
    code = main(["attest", "vmi", "nobody", *options, "--guest-policy=1"])
    assert code == 4
    assert "there is no VMI" in capsys.readouterr().err
