"""One launch, led through simulated KubeVirt: what is released, and what never is."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pytest

from hack.owner_scene import (
    FILES,
    FIRMWARE,
    OTHER_FIRMWARE,
    TABLE,
    Hardware,
    connect,
    create,
    make_hardware,
    read_owner,
    write_owner,
)
from sevkit.abi.product import Product
from sevkit.attest.verdict import Outcome as Found
from sevkit.attest.verdict import Verdict
from sevkit.errors import ClusterError, ExpectationError, InsecureUsage
from sevkit.guest_owner.driver import Driver, Surroundings
from sevkit.guest_owner.session_store import SessionStore
from sevkit.guest_owner.terms import Outcome, Plan, Stage
from sevkit.measure.terms import Mode
from sevkit.testing import key_service_faults, sev_chain
from sevkit.testing.firmware import FirmwareImage, encode_firmware
from sevkit.testing.kubevirt import http_faults, lies
from sevkit.testing.kubevirt.lies import Lies
from sevkit.testing.kubevirt.simulation import SimulatedKubeVirt
from sevkit.testing.secure_processor.identity import ChipIdentity
from sevkit.testing.secure_processor.processor import SecureProcessor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from sevkit.cluster.launch_endpoints import LaunchEndpoints, Target
    from sevkit.documents import Json
    from sevkit.guest_owner.owner import Owner

QUICK: Final = Plan(poll=0.02, timeout=20)
#: For launches that never come: the launcher's time is short.
SHORT: Final = Plan(poll=0.02, timeout=20, launcher=0.6, jitter=0.6)
CALLS: Final = ("fetchcertchain", "setupsession", "querylaunchmeasurement", "injectlaunchsecret")


@pytest.fixture(scope="module")
def hardware() -> Hardware:
    return make_hardware()


@pytest.fixture
def kubevirt(hardware: Hardware) -> Iterator[SimulatedKubeVirt]:
    with SimulatedKubeVirt(hardware.hosts, FILES, retry=0.05) as running:
        yield running


@pytest.fixture
def owner(tmp_path: Path, hardware: Hardware) -> Owner:
    return read_owner(write_owner(tmp_path, hardware))


@dataclass
class Scene:
    """A cluster, an owner, and what he led there."""

    kubevirt: SimulatedKubeVirt
    endpoints: LaunchEndpoints
    owner: Owner
    folder: Path
    told: list[str] = field(default_factory=list)

    def lead(
        self, vmi: Target, plan: Plan = QUICK, endpoints: LaunchEndpoints | None = None
    ) -> tuple[Outcome, Verdict]:
        with SessionStore(self.folder / "state") as store:
            around = Surroundings(endpoints or self.endpoints, store, self.owner, self.told.append)
            return Driver(vmi, plan, around).run()

    def kept(self, vmi: Target) -> list[Stage]:
        with SessionStore(self.folder / "state") as store:
            return [record.stage for record in store.records()]

    def injected(self, vmi: Target) -> set[bytes]:
        found = self.kubevirt.injected(vmi.namespace, vmi.name)
        return {table.reveal() for table in found}

    def runs(self, vmi: Target) -> bool:
        status = self.kubevirt.status(vmi.namespace, vmi.name)
        running = status is not None and status.phase.value == "Running"
        return running and status is not None and status.condition("Paused") is None

    def sent(self, name: str) -> int:
        return sum(f"/{name}" in request for request in self.kubevirt.faults.requests)


@pytest.fixture
def scene(kubevirt: SimulatedKubeVirt, owner: Owner, tmp_path: Path) -> Scene:
    return Scene(kubevirt, connect(tmp_path, kubevirt), owner, tmp_path)


def outcome_of(verdict: Verdict, check: str) -> Found:
    return next(found.outcome for found in verdict.findings if found.check == check)


def failed(verdict: Verdict) -> dict[str, str]:
    return {found.check: found.detail for found in verdict.findings if found.outcome is Found.FAIL}


def check_untouched(scene: Scene, vmi: Target) -> None:
    assert scene.injected(vmi) == set()
    assert not scene.runs(vmi)
    assert scene.sent("injectlaunchsecret") == 0
    assert scene.sent("unpause") == 0


@pytest.mark.parametrize("mode", [Mode.SEV, Mode.SEV_ES])
def test_the_secret_that_arrives_is_the_one_that_was_sent(scene: Scene, mode: Mode) -> None:
    vmi = create(scene.kubevirt, mode)
    outcome, verdict = scene.lead(vmi)
    assert (outcome, verdict.exit_code, failed(verdict)) == (Outcome.ATTESTED, 0, {})
    assert scene.injected(vmi) == {TABLE.reveal()}
    scene.kubevirt.wait_for(vmi.namespace, vmi.name, "Running", paused=False)
    assert scene.kept(vmi) == []
    assert {outcome_of(verdict, name) for name in ("secret.injected", "vmi.resumed")} == {
        Found.PASS
    }
    assert outcome_of(verdict, "coverage.uefi-variables") is Found.WARN
    assert [scene.sent(name) for name in CALLS] == [1, 1, 1, 1]


def earlier_measurement(scene: Scene) -> bytes:
    """Return a genuine measurement of an earlier launch of the same guest."""
    vmi = create(scene.kubevirt)
    assert scene.lead(vmi, Plan(inject=False, unpause=False, poll=0.02))[0] is Outcome.VERIFIED
    launcher = scene.kubevirt.launcher(vmi.namespace, vmi.name)
    assert launcher is not None
    machine: Any = launcher.machine
    found: bytes = machine.measurement
    return found


@pytest.mark.parametrize(
    ("told", "code", "check"),
    [
        (Lies(firmware=OTHER_FIRMWARE), 1, "launch.measurement"),
        (Lies(vcpus=3), 1, "launch.measurement"),
        (Lies(api=(1, 54, 40)), 1, "launch.measurement"),
        (Lies(api=(255, 55, 255)), 1, "launch.measurement"),
        (lies.flipped(), 1, "launch.measurement"),
        (lies.replay(bytes(48)), 1, "launch.measurement"),
        (lies.truncated(), 65, "vmi.answers"),
        (Lies(measurement=lambda _: b""), 65, "vmi.answers"),
        (Lies(reported_policy=0), 3, "launch.info-policy"),
        (Lies(chain=lies.off_the_curve), 65, "vmi.answers"),
        (Lies(chain=lambda pdh, rest: (pdh, rest[:-1])), 65, "vmi.answers"),
        (Lies(chain=lambda pdh, rest: (rest[:2084], rest)), 1, "platform.keys"),
    ],
    ids=[
        "firmware", "vcpus", "api", "api-high", "flipped", "zeros", "47-bytes", "none",
        "reported-policy", "off-curve", "cut-chain", "pek-for-pdh",
    ],
)  # fmt: skip
@pytest.mark.parametrize("stop", [False, True])
def test_every_lie_is_caught_and_nothing_is_released(
    scene: Scene, told: Lies, code: int, check: str, *, stop: bool
) -> None:
    scene.kubevirt.lie(told)
    vmi = create(scene.kubevirt)
    plan = Plan(poll=0.02, timeout=20, stop_on_refusal=stop)
    outcome, verdict = scene.lead(vmi, plan)
    assert (outcome, verdict.exit_code) == (Outcome.REFUSED, code)
    assert check in failed(verdict)
    check_untouched(scene, vmi)
    assert scene.kept(vmi) == []
    if stop:
        deadline = time.monotonic() + 10
        while scene.kubevirt.get(vmi.namespace, vmi.name) is not None:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_replayed_measurement_is_caught(scene: Scene) -> None:
    scene.kubevirt.lie(lies.replay(earlier_measurement(scene)))
    vmi = create(scene.kubevirt)
    outcome, verdict = scene.lead(vmi)
    assert (outcome, verdict.exit_code) == (Outcome.REFUSED, 1)
    assert "launch.measurement" in failed(verdict)
    check_untouched(scene, vmi)


def test_a_chain_with_a_self_made_root_is_caught(scene: Scene, hardware: Hardware) -> None:
    identity = ChipIdentity(Product.MILAN, sev_chain.make_roots(), hardware.snp_roots)
    foreign = SecureProcessor(identity)
    foreign.sev.init(es=True)
    scene.kubevirt.lie(lies.self_made_root(foreign))
    vmi = create(scene.kubevirt)
    outcome, verdict = scene.lead(vmi)
    assert (outcome, verdict.exit_code) == (Outcome.REFUSED, 1)
    assert any(name.startswith("platform.") for name in failed(verdict))
    assert scene.sent("setupsession") == 0
    check_untouched(scene, vmi)


def other_host(scene: Scene, vmi: Target, hardware: Hardware) -> SecureProcessor:
    scene.kubevirt.wait_for(vmi.namespace, vmi.name, "Scheduled")
    launcher = scene.kubevirt.launcher(vmi.namespace, vmi.name)
    assert launcher is not None
    return next(host.processor for host in hardware.hosts if host is not launcher.host)


def test_a_session_for_another_genuine_chip_starts_nothing(
    scene: Scene, hardware: Hardware
) -> None:
    vmi = create(scene.kubevirt)
    scene.kubevirt.lie(lies.other_chip(other_host(scene, vmi, hardware)))
    outcome, verdict = scene.lead(vmi, SHORT)
    assert (outcome, verdict.exit_code) == (Outcome.LATE, 4)
    assert "Bad measurement" in failed(verdict)["vmi.launch"]
    check_untouched(scene, vmi)
    assert scene.kept(vmi) == []


def test_a_chip_that_is_not_on_the_list_gets_no_session(
    scene: Scene, hardware: Hardware, tmp_path: Path
) -> None:
    vmi = create(scene.kubevirt)
    other = other_host(scene, vmi, hardware)
    wanted = next(h for h in hardware.hosts if h.processor is other).processor.identity
    from sevkit.abi.sevcert import parse_sev_certificate  # noqa: PLC0415  # one use

    chip = parse_sev_certificate(wanted.signed_cek).key_sha256.hex()
    scene.owner = read_owner(write_owner(tmp_path, hardware, chips=[chip]))
    outcome, verdict = scene.lead(vmi)
    assert (outcome, verdict.exit_code) == (Outcome.REFUSED, 3)
    assert "platform.chip" in failed(verdict)
    assert scene.sent("setupsession") == 0


@pytest.mark.parametrize("told", [Lies(policy=0), Lies(policy=4), Lies(refuse="no such thing")])
def test_a_guest_that_the_host_does_not_start_as_asked_is_never_there(
    scene: Scene, told: Lies
) -> None:
    scene.kubevirt.lie(told)
    vmi = create(scene.kubevirt)
    outcome, verdict = scene.lead(vmi, SHORT)
    assert (outcome, verdict.exit_code) == (Outcome.LATE, 4)
    assert "SyncVMI" in failed(verdict)["vmi.launch"] or "no such thing" in str(failed(verdict))
    check_untouched(scene, vmi)


def test_what_the_host_says_of_the_loader_decides_nothing(scene: Scene) -> None:
    scene.kubevirt.lie(Lies(loader_sha="00" * 32))
    vmi = create(scene.kubevirt)
    outcome, verdict = scene.lead(vmi)
    assert (outcome, outcome_of(verdict, "launch.loader")) == (Outcome.ATTESTED, Found.WARN)


def test_a_cek_without_amds_signature_is_undecided(
    scene: Scene, hardware: Hardware, tmp_path: Path
) -> None:
    scene.owner = read_owner(write_owner(tmp_path, hardware, ceks=[]))
    vmi = create(scene.kubevirt)
    outcome, verdict = scene.lead(vmi)
    assert (outcome, verdict.exit_code) == (Outcome.UNDECIDED, 4)
    assert scene.sent("setupsession") == 0


@pytest.mark.parametrize("accept", [[], ["unmeasured-boot"], ["unmeasured-variables"]])
def test_what_is_not_measured_has_to_be_accepted_first(
    tmp_path: Path, hardware: Hardware, accept: list[str]
) -> None:
    owner = read_owner(write_owner(tmp_path, hardware, accept=accept))
    with pytest.raises(InsecureUsage, match=r"coverage\."):
        owner.check_release()


@pytest.mark.parametrize("image", [FirmwareImage(secret_area=None), None])
def test_a_firmware_without_room_for_the_secrets_is_refused_first(
    tmp_path: Path, hardware: Hardware, image: FirmwareImage | None
) -> None:
    path = write_owner(tmp_path, hardware)
    if image is None:
        (tmp_path / "disk.key").write_bytes(bytes(3072))
    else:
        (tmp_path / "OVMF.fd").write_bytes(encode_firmware(image))
    with pytest.raises(ExpectationError, match=r"secret\.area"):
        read_owner(path).check_release()


def test_a_launch_of_another_mode_is_not_begun(
    scene: Scene, hardware: Hardware, tmp_path: Path
) -> None:
    scene.owner = read_owner(write_owner(tmp_path, hardware, guestPolicy=5))
    vmi = create(scene.kubevirt, Mode.SEV)
    outcome, verdict = scene.lead(vmi)
    assert (outcome, verdict.exit_code) == (Outcome.UNFIT, 3)
    assert scene.sent("setupsession") == 0
    for fit, attestation in ((Mode.SNP, False), (Mode.SEV, False)):
        from sevkit.cluster.launch_endpoints import Target as Named  # noqa: PLC0415  # one use
        from sevkit.testing.kubevirt.owner_side import make_vmi  # noqa: PLC0415  # one use

        made = make_vmi(fit, attestation=attestation)
        scene.kubevirt.create(made)
        found, verdict = scene.lead(Named("default", made["metadata"]["name"]))
        assert (found, "vmi.mode" in failed(verdict)) == (Outcome.UNFIT, True)


def test_verify_only_keeps_the_session_for_the_run_that_releases(scene: Scene) -> None:
    vmi = create(scene.kubevirt)
    outcome, verdict = scene.lead(vmi, Plan(inject=False, unpause=False, poll=0.02))
    assert (outcome, verdict.exit_code) == (Outcome.VERIFIED, 0)
    check_untouched(scene, vmi)
    assert scene.kept(vmi) == [Stage.SESSION]
    outcome, verdict = scene.lead(vmi)
    assert (outcome, verdict.exit_code) == (Outcome.ATTESTED, 0)
    assert scene.injected(vmi) == {TABLE.reveal()}
    assert scene.sent("setupsession") == 1
    assert outcome_of(verdict, "platform.root") is Found.PASS


def test_without_a_secret_or_without_resuming(scene: Scene) -> None:
    vmi = create(scene.kubevirt)
    assert scene.lead(vmi, Plan(inject=False, poll=0.02))[0] is Outcome.ATTESTED
    assert (scene.injected(vmi), scene.runs(vmi)) == (set(), True)
    vmi = create(scene.kubevirt)
    assert scene.lead(vmi, Plan(unpause=False, poll=0.02))[0] is Outcome.ATTESTED
    assert (scene.injected(vmi), scene.runs(vmi)) == ({TABLE.reveal()}, False)


def test_no_such_vmi_and_one_with_somebodys_session(scene: Scene) -> None:
    from sevkit.cluster.launch_endpoints import Target as Named  # noqa: PLC0415  # one use

    assert scene.lead(Named("default", "nobody"))[0] is Outcome.ABSENT
    vmi = create(scene.kubevirt)
    assert scene.lead(vmi, Plan(inject=False, unpause=False, poll=0.02))[0] is Outcome.VERIFIED
    other = Scene(scene.kubevirt, scene.endpoints, scene.owner, scene.folder / "other")
    other.folder.mkdir()
    outcome, verdict = other.lead(vmi)
    assert (outcome, verdict.exit_code) == (Outcome.FOREIGN, 4)
    check_untouched(other, vmi)


FAULTS: Final = {
    "409": http_faults.broken(key_service_faults.status(409)),
    "429": http_faults.broken(key_service_faults.status(429)),
    "500": http_faults.broken(key_service_faults.status(500)),
    "500 late": http_faults.broken(key_service_faults.status(500), late=True),
    "reset": http_faults.reset(),
    "reset late": http_faults.reset(late=True),
    "garbage": http_faults.mutated(lambda body: b"<html>" + body),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", [*CALLS, "unpause", "GET /apis/kubevirt.io"])
def test_what_goes_wrong_on_the_way_is_waited_out(scene: Scene, call: str, fault: str) -> None:
    vmi = create(scene.kubevirt, Mode.SEV)
    scene.kubevirt.faults.add(FAULTS[fault], pattern=call, times=1)
    outcome, verdict = scene.lead(vmi)
    assert (outcome, failed(verdict)) == (Outcome.ATTESTED, {})
    assert scene.injected(vmi) == {TABLE.reveal()}


def test_an_api_server_that_is_away_for_a_while_is_waited_for(scene: Scene) -> None:
    vmi = create(scene.kubevirt)
    for fault in (
        http_faults.reset(),
        FAULTS["500"],
        http_faults.broken(key_service_faults.status(403)),
    ):
        scene.kubevirt.faults.add(fault, times=2)
    assert scene.lead(vmi)[0] is Outcome.ATTESTED


def test_rights_that_are_missing_for_good_end_it_with_their_names(scene: Scene) -> None:
    vmi = create(scene.kubevirt)
    fault = http_faults.broken(key_service_faults.status(403))
    scene.kubevirt.faults.add(fault, pattern="fetchcertchain")
    outcome, verdict = scene.lead(vmi, Plan(poll=0.02, timeout=60))
    assert (outcome, verdict.exit_code) == (Outcome.FORBIDDEN, 4)
    assert "403" in failed(verdict)["vmi.launch"]


class Killed(BaseException):
    """The process died."""


class Between:
    """Endpoints with somebody between: ``before`` and ``after`` are called with each request."""

    def __init__(
        self,
        inner: LaunchEndpoints,
        before: Callable[[str], None] = lambda _: None,
        after: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._inner = inner
        self._before = before
        self._after = after
        self.sessions: set[str] = set()
        self.packets: set[tuple[str, str]] = set()
        self.calls: Counter[str] = Counter()

    def _do(self, name: str, what: Callable[[], Any]) -> Any:  # noqa: ANN401  # any answer
        self.calls[name] += 1
        self._before(name)
        found = what()
        self._after(name)
        return found

    def read(self, vmi: Target) -> Json:
        found: Json = self._do("read", lambda: self._inner.read(vmi))
        return found

    def fetch_chain(self, vmi: Target) -> bytes:
        found: bytes = self._do("chain", lambda: self._inner.fetch_chain(vmi))
        return found

    def set_session(self, vmi: Target, options: Mapping[str, str]) -> None:
        self.sessions.add(options["session"])
        self._do("session", lambda: self._inner.set_session(vmi, options))

    def query_measurement(self, vmi: Target) -> bytes:
        found: bytes = self._do("measurement", lambda: self._inner.query_measurement(vmi))
        return found

    def inject_secret(self, vmi: Target, options: Mapping[str, str]) -> None:
        self.packets.add((options["header"], options["secret"]))
        self._do("inject", lambda: self._inner.inject_secret(vmi, options))

    def unpause(self, vmi: Target) -> None:
        self._do("unpause", lambda: self._inner.unpause(vmi))

    def stop(self, vmi: Target, uid: str, machine: str) -> None:
        self._do("stop", lambda: self._inner.stop(vmi, uid, machine))


STEPS: Final = ("read", "chain", "session", "measurement", "inject", "unpause")


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_process_that_dies_goes_on_where_it_was(scene: Scene, step: str, moment: str) -> None:
    vmi = create(scene.kubevirt)
    dies = [True]

    def die(name: str) -> None:
        if name == step and dies:
            dies.clear()
            raise Killed

    between = Between(scene.endpoints, **{moment: die})
    with pytest.raises(Killed):
        scene.lead(vmi, endpoints=between)
    outcome, verdict = scene.lead(vmi, endpoints=between)
    assert (outcome, failed(verdict)) == (Outcome.ATTESTED, {})
    assert (len(between.sessions), len(between.packets)) == (1, 1)
    assert scene.injected(vmi) == {TABLE.reveal()}
    assert scene.kept(vmi) == []


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("again", [False, True])
def test_a_vmi_that_is_deleted_or_replaced_at_any_step_gets_nothing_more(
    scene: Scene, step: str, *, again: bool
) -> None:
    vmi = create(scene.kubevirt)
    there = [True]

    def delete(name: str) -> None:
        if name != step or not there:
            return
        there.clear()
        scene.kubevirt.delete(vmi.namespace, vmi.name)
        deadline = time.monotonic() + 10
        while scene.kubevirt.get(vmi.namespace, vmi.name) is not None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        if again:
            create(scene.kubevirt, name=vmi.name)

    outcome, verdict = scene.lead(vmi, endpoints=Between(scene.endpoints, before=delete))
    if step == "read" and again:
        assert outcome is Outcome.ATTESTED  # it was never seen before
        return
    gone = Outcome.ABSENT if step == "read" else Outcome.DELETED
    assert outcome is (Outcome.REPLACED if again else gone)
    assert verdict.exit_code == 4
    assert scene.injected(vmi) == set()
    assert scene.kept(vmi) == []
    if again:
        # A request goes by name: one that was under way spoils its namesake, and no more.
        after = scene.lead(vmi)[0]
        assert after is Outcome.ATTESTED or (step == "session" and after is Outcome.FOREIGN)


def test_an_ended_launch_is_not_begun_again(scene: Scene) -> None:
    vmi = create(scene.kubevirt)
    with SessionStore(scene.folder / "state") as store:
        around = Surroundings(scene.endpoints, store, scene.owner)
        assert Driver(vmi, QUICK, around, keep_ended=True).run()[0] is Outcome.ATTESTED
        assert [record.stage for record in store.records()] == [Stage.ENDED]
        assert Driver(vmi, QUICK, around, keep_ended=True).run()[0] is Outcome.SPENT


def test_a_bad_answer_of_the_vmi_itself_is_no_verdict(scene: Scene) -> None:
    vmi = create(scene.kubevirt)

    def spoil(name: str) -> None:
        raise ClusterError("away")

    outcome, verdict = scene.lead(
        vmi, Plan(poll=0.02, timeout=1), Between(scene.endpoints, before=spoil)
    )
    assert (outcome, verdict.exit_code) == (Outcome.TIMEOUT, 4)
    assert "away" in failed(verdict)["vmi.launch"]


def test_firmware_of_the_owner_is_what_the_host_has(owner: Owner) -> None:
    assert owner.firmware == FIRMWARE
