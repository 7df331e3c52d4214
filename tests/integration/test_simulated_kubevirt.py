"""Simulated KubeVirt over HTTPS, without an API server: the contract, its faults and its lies."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from sevkit.abi.product import Product, ProductLine
from sevkit.abi.secret_packet import DISK_GUID
from sevkit.attest.sev_session import new_packet
from sevkit.errors import ClusterError, FormatError, InternalError, VerificationError
from sevkit.kubevirt.subresources import encode_secret_options, encode_session_options
from sevkit.measure.terms import Mode
from sevkit.testing import key_service_faults, sev_chain
from sevkit.testing.contracts.launch_endpoints import LaunchEndpointsContract, Reply
from sevkit.testing.firmware import FirmwareImage, encode_firmware
from sevkit.testing.kubevirt import http_faults, lies
from sevkit.testing.kubevirt.api_server import ApiServerInstances
from sevkit.testing.kubevirt.host import SimulatedHost
from sevkit.testing.kubevirt.https_server import BODY_LIMIT
from sevkit.testing.kubevirt.instances import WatchExpired
from sevkit.testing.kubevirt.lies import Lies
from sevkit.testing.kubevirt.owner_side import TABLE, VCPUS, OwnerSide, make_vmi
from sevkit.testing.kubevirt.simulation import SimulatedKubeVirt
from sevkit.testing.secure_processor.core import AsidRange
from sevkit.testing.secure_processor.identity import ChipIdentity
from sevkit.testing.secure_processor.processor import SecureProcessor
from sevkit.testing.snp_chain import SimulatedRoots

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sevkit.attest.sev_session import LaunchSession
    from sevkit.testing.contracts.launch_endpoints import LaunchEndpoints

FIRMWARE: Final = encode_firmware(FirmwareImage())
FILES: Final = {"OVMF_CODE.cc.fd": FIRMWARE, "OVMF.amdsev.fd": FIRMWARE}
VMIS: Final = "/apis/kubevirt.io/v1/namespaces/default/virtualmachineinstances"
SUB: Final = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances"


@pytest.fixture(scope="module")
def sev_roots() -> sev_chain.SimulatedRoots:
    return sev_chain.make_roots()


@pytest.fixture(scope="module")
def snp_roots() -> SimulatedRoots:
    return SimulatedRoots(ProductLine.MILAN)


@pytest.fixture(scope="module")
def hosts(sev_roots: sev_chain.SimulatedRoots, snp_roots: SimulatedRoots) -> list[SimulatedHost]:
    chips = [ChipIdentity(Product.MILAN, sev_roots, snp_roots) for _ in range(2)]
    return [SimulatedHost(f"node-{n}", SecureProcessor(chip)) for n, chip in enumerate(chips)]


@pytest.fixture(scope="module")
def owner(sev_roots: sev_chain.SimulatedRoots, hosts: list[SimulatedHost]) -> OwnerSide:
    ceks = tuple(host.processor.identity.signed_cek for host in hosts)
    return OwnerSide(FIRMWARE, sev_roots.ca, (sev_roots.root,), ceks)


@pytest.fixture
def kubevirt(hosts: list[SimulatedHost]) -> Iterator[SimulatedKubeVirt]:
    with SimulatedKubeVirt(hosts, FILES, retry=0.05) as running:
        yield running


class Client:
    """A client of one simulated KubeVirt, a connection for each request."""

    def __init__(self, port: int, ca: str) -> None:
        self._port = port
        self._context = ssl.create_default_context(cadata=ca)

    def send(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Reply:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self._port, context=self._context, timeout=20
        )
        try:
            connection.request(method, path, body or None, headers or {})
            answer = connection.getresponse()
            return Reply(answer.status, answer.getheader("Content-Type", ""), answer.read())
        finally:
            connection.close()

    def create(self, vmi: dict[str, Any]) -> None:
        reply = self.send("POST", VMIS, json.dumps(vmi).encode())
        assert reply.status == 201, reply.body

    def read(self, name: str) -> dict[str, Any] | None:
        reply = self.send("GET", f"{VMIS}/{name}")
        return None if reply.status == 404 else reply.json()

    def request(
        self, method: str, name: str, subresource: str, body: bytes = b"", **headers: str
    ) -> Reply:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.send(method, f"{SUB}/{name}/{subresource}", body, sent)


def client_of(kubevirt: SimulatedKubeVirt) -> Client:
    return Client(kubevirt.port, kubevirt.ca.decode())


@pytest.fixture
def client(kubevirt: SimulatedKubeVirt) -> Client:
    return client_of(kubevirt)


class TestStandalone(LaunchEndpointsContract):
    @pytest.fixture
    def endpoints(self, client: Client) -> LaunchEndpoints:
        return client

    @pytest.fixture
    def owner(self, owner: OwnerSide) -> OwnerSide:
        return owner

    @pytest.fixture(autouse=True)
    def look_inside(self, kubevirt: SimulatedKubeVirt) -> None:
        self.kubevirt = kubevirt

    def check_injected(self, endpoints: LaunchEndpoints, name: str) -> None:
        assert self.kubevirt.injected("default", name) == (TABLE,)


def schedule(kubevirt: SimulatedKubeVirt, mode: Mode = Mode.SEV) -> str:
    vmi = make_vmi(mode)
    kubevirt.create(vmi)
    name: str = vmi["metadata"]["name"]
    kubevirt.wait_for("default", name, "Scheduled")
    return name


def set_session(client: Client, owner: OwnerSide, name: str, policy: int = 1) -> LaunchSession:
    session = owner.new_session(client.request("GET", name, "sev/fetchcertchain").body, policy)
    body = json.dumps(encode_session_options(session.blob.encode(), session.godh)).encode()
    assert client.request("PUT", name, "sev/setupsession", body).status == 202
    return session


def launch(
    kubevirt: SimulatedKubeVirt, client: Client, owner: OwnerSide, mode: Mode = Mode.SEV
) -> tuple[str, LaunchSession]:
    name = schedule(kubevirt, mode)
    session = set_session(client, owner, name, 1 if mode is Mode.SEV else 5)
    kubevirt.wait_for("default", name, "Running", paused=True)
    return name, session


def measure(client: Client, name: str) -> bytes:
    reply = client.request("GET", name, "sev/querylaunchmeasurement")
    assert reply.status == 200, reply.body
    return reply.body


@pytest.mark.parametrize(
    "told",
    [
        Lies(firmware=encode_firmware(FirmwareImage(filler=1))),
        Lies(vcpus=3),
        Lies(api=(1, 54, 40)),
        lies.replay(bytes(48)),
        lies.flipped(),
    ],
    ids=["firmware", "vcpus", "api", "replay", "flipped"],
)
def test_no_lie_about_a_launch_verifies(
    kubevirt: SimulatedKubeVirt, client: Client, owner: OwnerSide, told: Lies
) -> None:
    kubevirt.lie(told)
    name, session = launch(kubevirt, client, owner, Mode.SEV_ES)
    reference = owner.reference(Mode.SEV_ES)
    assert owner.judge(measure(client, name), session, reference) is None


def test_the_measurement_of_another_launch_does_not_verify(
    kubevirt: SimulatedKubeVirt, client: Client, owner: OwnerSide
) -> None:
    name, session = launch(kubevirt, client, owner)
    before = measure(client, name)
    other, other_session = launch(kubevirt, client, owner)
    reference = owner.reference(Mode.SEV)
    assert owner.judge(before, session, reference) is not None
    assert owner.judge(before, other_session, reference) is None
    assert owner.judge(measure(client, other), other_session, reference) is not None


def test_a_measurement_of_47_bytes_is_no_measurement(
    kubevirt: SimulatedKubeVirt, client: Client, owner: OwnerSide
) -> None:
    kubevirt.lie(lies.truncated())
    name, session = launch(kubevirt, client, owner)
    with pytest.raises(FormatError):
        owner.judge(measure(client, name), session, owner.reference(Mode.SEV))


def test_another_policy_than_the_sessions_starts_no_guest(
    kubevirt: SimulatedKubeVirt, client: Client, owner: OwnerSide
) -> None:
    kubevirt.lie(Lies(policy=0))
    name = schedule(kubevirt)
    set_session(client, owner, name)
    deadline = time.monotonic() + 10
    found = kubevirt.status("default", name)
    while found is None or found.condition("Synchronized") is None:
        assert time.monotonic() < deadline
        found = kubevirt.status("default", name)
    condition = found.condition("Synchronized")
    assert condition is not None
    assert "fw_error=11 'Bad measurement'" in condition.message
    kubevirt.be_honest()
    kubevirt.wait_for("default", name, "Running", paused=True)


def test_a_loader_sha_of_the_hosts_choice_changes_nothing(
    kubevirt: SimulatedKubeVirt, client: Client, owner: OwnerSide
) -> None:
    kubevirt.lie(Lies(loader_sha="00" * 32))
    name, session = launch(kubevirt, client, owner)
    info = measure(client, name)
    assert json.loads(info)["loaderSHA"] == "00" * 32
    assert owner.judge(info, session, owner.reference(Mode.SEV)) is not None


def test_chains_that_are_not_of_this_platform_are_refused(
    kubevirt: SimulatedKubeVirt,
    client: Client,
    owner: OwnerSide,
    hosts: list[SimulatedHost],
    snp_roots: SimulatedRoots,
) -> None:
    foreign = SecureProcessor(ChipIdentity(Product.MILAN, sev_chain.make_roots(), snp_roots))
    foreign.sev.init(es=True)
    name = schedule(kubevirt)
    for told in (lies.self_made_root(foreign), Lies(chain=lies.off_the_curve)):
        kubevirt.lie(told)
        info = client.request("GET", name, "sev/fetchcertchain").body
        with pytest.raises((VerificationError, FormatError)):
            owner.new_session(info, 1)


def test_a_session_for_another_genuine_chip_starts_no_guest(
    kubevirt: SimulatedKubeVirt, client: Client, owner: OwnerSide, hosts: list[SimulatedHost]
) -> None:
    name = schedule(kubevirt)
    launcher = kubevirt.launcher("default", name)
    assert launcher is not None
    other = next(host for host in hosts if host is not launcher.host)
    kubevirt.lie(lies.other_chip(other.processor))
    set_session(client, owner, name)
    kubevirt.wait_for("default", name, "Scheduled")
    time.sleep(0.2)
    found = kubevirt.wait_for("default", name, "Scheduled")
    condition = found.condition("Synchronized")
    assert condition is not None
    assert "Bad measurement" in condition.message


def test_the_launcher_gives_up_at_its_deadline_and_frees_what_it_had(
    hosts: list[SimulatedHost],
) -> None:
    now = [0.0]
    with SimulatedKubeVirt(hosts, FILES, jitter=0, clock=lambda: now[0]) as kubevirt:
        name = schedule(kubevirt)
        now[0] = 239.9
        time.sleep(0.1)
        kubevirt.wait_for("default", name, "Scheduled")
        now[0] = 240.0
        kubevirt.wait_for("default", name, "Failed")
        assert kubevirt.launcher("default", name) is None


def test_where_every_asid_is_taken_qemus_ebusy_is_shown_and_a_freed_one_is_used(
    sev_roots: sev_chain.SimulatedRoots, snp_roots: SimulatedRoots
) -> None:
    chip = ChipIdentity(Product.MILAN, sev_roots, snp_roots)
    processor = SecureProcessor(chip, asids=AsidRange(3, 2))
    host = SimulatedHost("small", processor)
    with SimulatedKubeVirt([host], FILES, retry=0.05) as kubevirt:
        vmis = [make_vmi(Mode.SEV, attestation=False) for _ in range(3)]
        names = [vmi["metadata"]["name"] for vmi in vmis]
        for vmi in vmis[:2]:
            kubevirt.create(vmi)
        for name in names[:2]:
            kubevirt.wait_for("default", name, "Running")
        kubevirt.create(vmis[2])
        kubevirt.wait_for("default", names[2], "Scheduled")
        time.sleep(0.2)
        found = kubevirt.wait_for("default", names[2], "Scheduled").condition("Synchronized")
        assert found is not None
        assert "failed to initialize ret=-16" in found.message
        kubevirt.delete("default", names[0])
        kubevirt.wait_for("default", names[2], "Running")
        assert kubevirt.get("default", names[0]) is None
    assert host.kvm.asids.current["sev"] == 0


def test_many_guests_at_once_are_spread_over_the_hosts(
    kubevirt: SimulatedKubeVirt, client: Client, owner: OwnerSide, hosts: list[SimulatedHost]
) -> None:
    names: list[tuple[str, LaunchSession]] = []

    def drive() -> None:
        names.append(launch(kubevirt, client, owner, Mode.SEV_ES))

    threads = [threading.Thread(target=drive) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names) == 20
    reference = owner.reference(Mode.SEV_ES)
    assert all(owner.judge(measure(client, name), s, reference) for name, s in names)
    nodes = {kubevirt.wait_for("default", name, "Running").node for name, _ in names}
    assert nodes == {host.name for host in hosts}


def test_an_answer_that_is_lost_was_acted_on_all_the_same(
    kubevirt: SimulatedKubeVirt, client: Client, owner: OwnerSide
) -> None:
    name = schedule(kubevirt)
    info = client.request("GET", name, "sev/fetchcertchain").body
    session = owner.new_session(info, 1)
    body = json.dumps(encode_session_options(session.blob.encode(), session.godh)).encode()
    kubevirt.faults.add(http_faults.reset(late=True), pattern="setupsession", times=1)
    with pytest.raises((ConnectionError, http.client.HTTPException, ssl.SSLError)):
        client.request("PUT", name, "sev/setupsession", body)
    again = client.request("PUT", name, "sev/setupsession", body)
    assert again.status == 409
    kubevirt.wait_for("default", name, "Running", paused=True)


def test_faults_of_the_way_are_met_in_their_order(
    kubevirt: SimulatedKubeVirt, client: Client
) -> None:
    name = schedule(kubevirt)
    faults = kubevirt.faults
    faults.add(http_faults.broken(key_service_faults.status(503)), pattern="fetch", times=1)
    faults.add(http_faults.mutated(lambda body: body[:-9]), pattern="fetch", times=1)
    faults.add(http_faults.reset(), pattern="fetch", times=1)
    faults.add(http_faults.slow(0.2), pattern="fetch", times=1)
    chain = "sev/fetchcertchain"
    assert client.request("GET", name, chain).status == 503
    cut = client.request("GET", name, chain)
    assert cut.status == 200
    with pytest.raises(json.JSONDecodeError):
        cut.json()
    with pytest.raises((ConnectionError, http.client.HTTPException, ssl.SSLError)):
        client.request("GET", name, chain)
    before = time.monotonic()
    assert client.request("GET", name, chain).status == 200
    assert time.monotonic() - before >= 0.2
    assert sum("fetchcertchain" in request for request in faults.requests) == 4


def test_leaving_ends_held_connections_watches_and_guests(hosts: list[SimulatedHost]) -> None:
    before = threading.active_count()
    with SimulatedKubeVirt(hosts, FILES) as kubevirt:
        kubevirt.create(make_vmi(Mode.SNP, attestation=False))
        client = client_of(kubevirt)
        kubevirt.faults.add(http_faults.broken(key_service_faults.silence()), pattern="healthz")
        replies: list[Any] = []

        def hold(path: str) -> None:
            try:
                replies.append(client.send("GET", path))
            except (OSError, http.client.HTTPException) as error:
                replies.append(error)

        paths = ("/healthz", f"{VMIS}?watch=true")
        threads = [threading.Thread(target=hold, args=(path,)) for path in paths]
        for thread in threads:
            thread.start()
        while len(kubevirt.faults.requests) < 2:
            time.sleep(0.01)
    for thread in threads:
        thread.join(timeout=5)
    assert len(replies) == 2
    assert threading.active_count() == before
    assert all(not any(host.kvm.asids.current.values()) for host in hosts)


def test_a_watch_tells_every_phase_in_order(kubevirt: SimulatedKubeVirt, client: Client) -> None:
    vmi = make_vmi(Mode.SNP, attestation=False)
    vmi["metadata"]["labels"] = {"app": "ledger"}
    listed = client.send("GET", VMIS).json()
    version = listed["metadata"]["resourceVersion"]
    context = ssl.create_default_context(cadata=kubevirt.ca.decode())
    connection = http.client.HTTPSConnection("127.0.0.1", kubevirt.port, context=context)
    query = f"watch=true&resourceVersion={version}&labelSelector=app%3Dledger"
    connection.request("GET", f"{VMIS}?{query}")
    answer = connection.getresponse()
    kubevirt.create(make_vmi(Mode.SNP, attestation=False))
    kubevirt.create(vmi)
    seen = []
    while "Running" not in seen:
        event = json.loads(answer.readline())
        assert event["object"]["metadata"]["name"] == vmi["metadata"]["name"]
        seen.append(event["object"]["status"]["phase"])
    connection.close()
    assert seen == ["Pending", "Scheduling", "Scheduled", "Running"]


def test_a_guest_that_ends_by_itself_succeeded_and_one_that_crashed_failed(
    kubevirt: SimulatedKubeVirt,
) -> None:
    for crashed, phase in ((False, "Succeeded"), (True, "Failed")):
        vmi = make_vmi(Mode.SNP, attestation=False)
        kubevirt.create(vmi)
        name = vmi["metadata"]["name"]
        kubevirt.wait_for("default", name, "Running")
        kubevirt.end_guest("default", name, crashed=crashed)
        kubevirt.wait_for("default", name, phase)


def test_pause_and_unpause_are_refused_where_they_mean_nothing(
    kubevirt: SimulatedKubeVirt, client: Client
) -> None:
    vmi = make_vmi(Mode.SNP, attestation=False)
    kubevirt.create(vmi)
    name = vmi["metadata"]["name"]
    kubevirt.wait_for("default", name, "Running")
    assert client.request("PUT", name, "unpause").status == 409
    assert client.request("PUT", name, "pause", b'{"dryRun":["All"]}').status == 200
    assert client.request("PUT", name, "unpause").status == 409
    assert client.request("PUT", name, "pause").status == 200
    found = kubevirt.wait_for("default", name, "Running", paused=True)
    condition = found.condition("Paused")
    assert condition is not None
    assert condition.reason == "PausedByUser"
    again = client.request("PUT", name, "pause")
    assert (again.status, "VMI is already paused" in again.json()["message"]) == (409, True)
    assert client.request("PUT", name, "unpause").status == 200
    kubevirt.wait_for("default", name, "Running", paused=False)


def test_a_secret_for_a_firmware_without_a_place_for_it_is_refused(
    hosts: list[SimulatedHost], owner: OwnerSide
) -> None:
    plain = encode_firmware(FirmwareImage(secret_area=None))
    plain_owner = OwnerSide(plain, owner.ca, owner.roots, owner.signed_ceks)
    with SimulatedKubeVirt(hosts, {"OVMF_CODE.cc.fd": plain}) as kubevirt:
        client = client_of(kubevirt)
        name, session = launch(kubevirt, client, plain_owner)
        found = plain_owner.judge(measure(client, name), session, plain_owner.reference(Mode.SEV))
        assert found is not None
        packet = new_packet(found, session.keys, TABLE)
        options = json.dumps(encode_secret_options(packet.header, packet.ciphertext)).encode()
        reply = client.request("PUT", name, "sev/injectlaunchsecret", options)
        assert reply.status == 500
        assert "no secret area found in OVMF" in reply.json()["message"]


def test_newer_virt_api_answers_a_failed_get_with_a_status_object(
    hosts: list[SimulatedHost],
) -> None:
    with SimulatedKubeVirt(hosts, FILES, get_status=True) as kubevirt:
        reply = client_of(kubevirt).request("GET", "nobody", "sev/fetchcertchain")
    assert (reply.status, reply.json()["reason"]) == (500, "InternalError")


def test_with_the_gate_off_every_sev_subresource_is_400(hosts: list[SimulatedHost]) -> None:
    with SimulatedKubeVirt(hosts, FILES, gate=False) as kubevirt:
        client = client_of(kubevirt)
        for method, name in (("GET", "fetchcertchain"), ("PUT", "setupsession")):
            reply = client.request(method, "nobody", f"sev/{name}")
            assert reply.status == 400
            assert "feature gate is not enabled" in reply.json()["message"]


def test_a_body_in_chunks_is_taken_and_one_that_is_too_large_is_not(
    kubevirt: SimulatedKubeVirt, client: Client
) -> None:
    data = json.dumps(make_vmi(Mode.SNP, attestation=False)).encode()
    context = ssl.create_default_context(cadata=kubevirt.ca.decode())
    connection = http.client.HTTPSConnection("127.0.0.1", kubevirt.port, context=context)
    chunks = iter([data[:100], data[100:]])
    connection.request("POST", VMIS, chunks, encode_chunked=True)
    assert connection.getresponse().status == 201
    connection.close()
    assert client.send("POST", VMIS, bytes(BODY_LIMIT)).status == 400
    assert client.send("POST", VMIS, bytes(BODY_LIMIT + 1)).status == 413


def write_kubeconfig(folder: Path, kubevirt: SimulatedKubeVirt) -> Path:
    cluster = {
        "server": kubevirt.base_url,
        "certificate-authority-data": base64.b64encode(kubevirt.ca).decode(),
    }
    path = folder / "kubeconfig"
    config = {
        "current-context": "one",
        "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}],
        "clusters": [{"name": "one", "cluster": cluster}],
        "users": [{"name": "one", "user": {"token": "t"}}],
    }
    path.write_text(json.dumps(config))
    return path


def test_a_client_of_an_api_server_tells_its_errors_apart(
    kubevirt: SimulatedKubeVirt, tmp_path: Path
) -> None:
    instances = ApiServerInstances.from_kubeconfig(write_kubeconfig(tmp_path, kubevirt))
    assert instances.get("default", "nobody") is None
    vmi = make_vmi(Mode.SNP, attestation=False)
    kubevirt.create(vmi)
    found, version = instances.read_all()
    assert [entry["metadata"]["name"] for entry in found] == [vmi["metadata"]["name"]]
    kubevirt.wait_for("default", vmi["metadata"]["name"], "Running")
    stop = threading.Event()
    before = time.monotonic()
    threading.Timer(0.3, stop.set).start()
    phases = [entry["status"]["phase"] for _, entry in instances.watch("1", stop)]
    assert phases == ["Pending", "Scheduling", "Scheduled", "Running"]
    assert time.monotonic() - before < 5
    kubevirt.faults.add(http_faults.broken(key_service_faults.status(503)), times=1)
    kubevirt.faults.add(http_faults.mutated(lambda body: body[:-1]), times=1)
    kubevirt.faults.add(http_faults.broken(key_service_faults.status(410)), times=1)
    with pytest.raises(ClusterError, match="503"):
        instances.read_all()
    with pytest.raises(ClusterError, match="cannot be asked"):
        instances.read_all()
    with pytest.raises(WatchExpired):
        next(instances.watch(version, threading.Event()))
    for _ in range(1100):
        kubevirt.create(make_vmi(Mode.SNP) | {"spec": {"domain": {}}})
    with pytest.raises(WatchExpired):
        next(instances.watch("1", threading.Event()))


def test_an_api_server_that_is_gone_is_no_api_server(
    hosts: list[SimulatedHost], tmp_path: Path
) -> None:
    with SimulatedKubeVirt(hosts, FILES) as gone:
        instances = ApiServerInstances.from_kubeconfig(write_kubeconfig(tmp_path, gone))
    with pytest.raises(ClusterError, match="cannot be asked"):
        instances.get("default", "one")
    with pytest.raises(ClusterError, match="cannot be watched"):
        next(instances.watch("1", threading.Event()))


def test_a_bug_of_the_simulation_is_told_when_it_is_left(hosts: list[SimulatedHost]) -> None:
    class Broken:
        def get(self, namespace: str, name: str) -> dict[str, Any] | None:
            raise RuntimeError(name)

        def read_all(self) -> tuple[list[dict[str, Any]], str]:
            raise RuntimeError

        def watch(
            self, version: str, stop: threading.Event
        ) -> Iterator[tuple[str, dict[str, Any]]]:
            raise RuntimeError(version)

        def patch(
            self, namespace: str, name: str, operations: list[dict[str, Any]]
        ) -> dict[str, Any]:
            raise RuntimeError(name)

    def leave() -> None:
        with SimulatedKubeVirt(hosts, FILES, instances=Broken()) as broken:
            with pytest.raises(ClusterError):
                broken.create(make_vmi(Mode.SEV))
            time.sleep(0.1)

    with pytest.raises(InternalError):
        leave()


def sevkit(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "sevkit", *arguments],
        capture_output=True,
        cwd=folder,
        check=False,
        timeout=60,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_serves_what_the_owners_commands_accept(tmp_path: Path) -> None:
    vmi = make_vmi(Mode.SEV_ES)
    name = vmi["metadata"]["name"]
    (tmp_path / "vmi.json").write_text(json.dumps(vmi))
    (tmp_path / "OVMF.fd").write_bytes(FIRMWARE)
    (tmp_path / "disk.key").write_bytes(b"hunter2")
    (tmp_path / "disk.key").chmod(0o600)
    command = "simulate kubevirt --state=sim --firmware=OVMF.fd --vmi=vmi.json --output=json"
    with subprocess.Popen(
        [sys.executable, "-m", "sevkit", *command.split()],
        stdout=subprocess.PIPE,
        cwd=tmp_path,
    ) as serving:
        assert serving.stdout is not None
        try:
            lines = iter(serving.stdout.readline, b"}\n")
            told = json.loads(b"".join(lines) + b"}")
            (node,) = told["nodes"]
            attest(tmp_path, told, node, name)
        finally:
            serving.terminate()
        assert serving.wait(timeout=20) == 0


def attest(folder: Path, told: dict[str, Any], node: dict[str, Any], name: str) -> None:
    ca = (folder / told["ca"]).read_text()
    client = Client(int(told["url"].rpartition(":")[2]), ca)
    deadline = time.monotonic() + 20
    while (client.read(name) or {}).get("status", {}).get("phase") != "Scheduled":
        assert time.monotonic() < deadline
    (folder / "chain.json").write_bytes(client.request("GET", name, "sev/fetchcertchain").body)
    trust = ["--chain=chain.json", f"--cek={node['cek']}", f"--ca={node['ca']}"]
    trust.append(f"--root={node['root']}")
    sevkit(folder, "attest", "platform", *trust)
    sevkit(folder, "session", "new", *trust, "--guest-policy=5", "--out=launch")
    session, godh = (
        (folder / "launch" / f"{part}.b64").read_text() for part in ("session", "godh")
    )
    body = json.dumps({"session": session.strip(), "dhCert": godh.strip()}).encode()
    assert client.request("PUT", name, "sev/setupsession", body).status == 202
    reply = client.request("GET", name, "sev/querylaunchmeasurement")
    while reply.status != 200:
        assert time.monotonic() < deadline
        reply = client.request("GET", name, "sev/querylaunchmeasurement")
    (folder / "info.json").write_bytes(reply.body)
    launch = ["--info=info.json", "--tik=launch/tik.bin", "--guest-policy=5"]
    owner = ["--firmware=OVMF.fd", "--vcpu-type=EPYC-Milan", f"--vcpus={VCPUS}"]
    sevkit(folder, "attest", "launch", *launch, *owner)
    sevkit(
        folder,
        "secret",
        "pack",
        "--tik=launch/tik.bin",
        "--tek=launch/tek.bin",
        f"--measurement={reply.json()['measurement']}",
        f"--secret={DISK_GUID}=disk.key",
        "--firmware=OVMF.fd",
        "--out-header=header",
        "--out-payload=payload",
    )
    header, payload = ((folder / part).read_text().strip() for part in ("header", "payload"))
    options = json.dumps({"header": header, "secret": payload}).encode()
    assert client.request("PUT", name, "sev/injectlaunchsecret", options).status == 200
    assert client.request("PUT", name, "unpause", b"{}").status == 200
