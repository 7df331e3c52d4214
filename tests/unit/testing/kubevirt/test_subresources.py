"""virt-api's answers, in its words and its order; the whole flow is in the integration tests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from sevkit.measure.terms import Mode
from sevkit.testing.kubevirt.instances import MemoryInstances
from sevkit.testing.kubevirt.launch_wish import parse_wish
from sevkit.testing.kubevirt.launcher import Launcher
from sevkit.testing.kubevirt.owner_side import make_vmi
from sevkit.testing.kubevirt.subresources import Subresources

if TYPE_CHECKING:
    from sevkit.testing.kubevirt.answers import Answer
    from sevkit.testing.kubevirt.host import SimulatedHost
    from sevkit.testing.kubevirt.instances import Key

ONE = ("default", "one")
FETCH, QUERY = "sev/fetchcertchain", "sev/querylaunchmeasurement"
SETUP, INJECT = "sev/setupsession", "sev/injectlaunchsecret"
CONFLICT = 'Operation cannot be fulfilled on virtualmachineinstance.kubevirt.io "one": '
SESSION = b'{"session":"AAAA","dhCert":"BBBB"}'
PAUSED = [{"type": "Paused", "status": "True"}]


class Launchers:
    """The launchers of a test, and which VMIs were to be looked at."""

    def __init__(self) -> None:
        self.found: dict[Key, Launcher] = {}
        self.looked: list[Key] = []

    def launcher(self, key: Key) -> Launcher | None:
        return self.found.get(key)

    def look_at(self, key: Key) -> None:
        self.looked.append(key)


@pytest.fixture
def instances() -> MemoryInstances:
    return MemoryInstances()


@pytest.fixture
def launchers() -> Launchers:
    return Launchers()


@pytest.fixture
def subresources(instances: MemoryInstances, launchers: Launchers) -> Subresources:
    return Subresources(instances, launchers, gate=True, get_status=False)


def create(
    instances: MemoryInstances, phase: str, *, mode: Mode = Mode.SEV, **status: object
) -> dict[str, Any]:
    vmi = make_vmi(mode)
    vmi["metadata"]["name"] = "one"
    instances.create(vmi)
    value = {"phase": phase} | status
    return instances.patch(*ONE, [{"op": "add", "path": "/status", "value": value}])


def message(answer: Answer) -> str:
    found: str = json.loads(answer.body)["message"]
    return found


@pytest.mark.parametrize(
    ("phase", "mode", "conditions", "name", "said"),
    [
        ("Pending", Mode.SEV, [], FETCH, "VMI is not assigned to a node yet"),
        ("Scheduling", Mode.SEV, [], FETCH, "VMI is not assigned to a node yet"),
        ("Failed", Mode.SEV, [], FETCH, "VMI is not assigned to a node yet"),
        ("Running", Mode.SNP, [], FETCH, "Attestation not requested for VMI"),
        ("Scheduled", Mode.SEV, [], QUERY, "VMI is not running"),
        ("Running", Mode.SNP, PAUSED, QUERY, "Attestation not requested for VMI"),
        ("Running", Mode.SEV, [], QUERY, "VMI is not paused"),
    ],
)
def test_a_get_that_comes_too_early_is_500_as_text(
    instances: MemoryInstances,
    subresources: Subresources,
    phase: str,
    mode: Mode,
    conditions: list[dict[str, str]],
    name: str,
    said: str,
) -> None:
    create(instances, phase, mode=mode, conditions=conditions)
    answer = subresources.answer("GET", ONE, name, b"")
    assert (answer.status, answer.content_type) == (500, "text/plain; charset=utf-8")
    assert answer.body.decode() == CONFLICT + said


def test_a_get_for_no_vmi_is_500_too(subresources: Subresources) -> None:
    answer = subresources.answer("GET", ONE, FETCH, b"")
    assert answer.status == 500
    assert answer.body == b'virtualmachineinstance.kubevirt.io "one" not found'


@pytest.mark.parametrize(
    ("phase", "mode", "conditions", "name", "said"),
    [
        ("Pending", Mode.SEV, [], SETUP, "VMI is not in Scheduled phase"),
        ("Running", Mode.SEV, PAUSED, SETUP, "VMI is not in Scheduled phase"),
        ("Scheduled", Mode.SNP, [], SETUP, "Attestation not requested for VMI"),
        ("Scheduled", Mode.SEV, [], INJECT, "VMI is not running"),
        ("Running", Mode.SNP, PAUSED, INJECT, "Attestation not requested for VMI"),
        ("Running", Mode.SEV, [], INJECT, "VMI is not paused"),
        ("Scheduled", Mode.SEV, [], "unpause", "VMI is not running"),
        ("Running", Mode.SEV, [], "unpause", "VMI is not paused"),
        ("Scheduled", Mode.SEV, [], "pause", "VM is not running"),
        ("Running", Mode.SEV, PAUSED, "pause", "VMI is already paused"),
    ],
)
def test_a_put_that_comes_too_early_is_409(
    instances: MemoryInstances,
    subresources: Subresources,
    phase: str,
    mode: Mode,
    conditions: list[dict[str, str]],
    name: str,
    said: str,
) -> None:
    create(instances, phase, mode=mode, conditions=conditions)
    answer = subresources.answer("PUT", ONE, name, SESSION)
    assert (answer.status, message(answer)) == (409, CONFLICT + said)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "Session blob is required"),
        (b"{}", "Session blob is required"),
        (b'{"dhCert":"b"}', "Session blob is required"),
        (b'{"session":"a"}', "DH cert is required"),
        (b"session: a\n", "DH cert is required"),
        (b"[]", "cannot unmarshal array into Go value of type v1.SEVSessionOptions"),
        (b'"text"', "cannot unmarshal string into Go value of type v1.SEVSessionOptions"),
        (b'{"session":1}', "cannot unmarshal number into Go struct field"),
        (b'{"session":true}', "cannot unmarshal bool into Go struct field"),
        (b"{", "Can not unmarshal Request body to struct, error: "),
    ],
)
def test_a_body_is_judged_before_the_vmi_is_looked_for(
    subresources: Subresources, body: bytes, said: str
) -> None:
    answer = subresources.answer("PUT", ONE, SETUP, body)
    assert answer.status == 400
    assert said in message(answer)


def test_a_session_is_taken_as_it_is_and_once(
    instances: MemoryInstances, subresources: Subresources
) -> None:
    create(instances, "Scheduled")
    body = b"session: '!!'\ndhCert: <x>\nunknown: 1\n"
    answer = subresources.answer("PUT", ONE, SETUP, body)
    assert (answer.status, answer.body) == (202, b"")
    found = instances.get(*ONE)
    assert found is not None
    sev = found["spec"]["domain"]["launchSecurity"]["sev"]
    assert sev == {"attestation": {}, "session": "!!", "dhCert": "<x>"}
    again = subresources.answer("PUT", ONE, SETUP, SESSION)
    assert (again.status, message(again)) == (409, CONFLICT + "Session already defined")


def test_half_a_session_in_the_vmi_is_a_session_already_defined(
    instances: MemoryInstances, subresources: Subresources
) -> None:
    create(instances, "Scheduled")
    path = "/spec/domain/launchSecurity/sev/dhCert"
    instances.patch(*ONE, [{"op": "add", "path": path, "value": "x"}])
    answer = subresources.answer("PUT", ONE, SETUP, SESSION)
    assert message(answer).endswith("Session already defined")


def test_a_launcher_that_is_not_there_is_virt_handlers_404(
    instances: MemoryInstances, subresources: Subresources
) -> None:
    create(instances, "Running", conditions=PAUSED)
    answer = subresources.answer("PUT", ONE, INJECT, b"")
    assert answer.status == 500
    assert message(answer) == (
        "Internal error occurred: unexpected return code 404 (404 Not Found), "
        "message: VMI default/one does not exist"
    )


def test_what_the_launcher_says_comes_through_virt_handler(
    instances: MemoryInstances,
    subresources: Subresources,
    launchers: Launchers,
    host: SimulatedHost,
    firmware: bytes,
) -> None:
    vmi = create(instances, "Running", conditions=PAUSED)
    launcher = Launcher(ONE, host, {"OVMF_CODE.cc.fd": firmware}, deadline=0)
    launchers.found[ONE] = launcher
    launcher.start(parse_wish(vmi))
    through = "unexpected return code 500 (500 Internal Server Error), message: server error."
    empty = subresources.answer("PUT", ONE, INJECT, b"")
    assert message(empty) == (
        f"Internal error occurred: {through} command InjectLaunchSecret failed: "
        '"Header is required"'
    )
    broken = subresources.answer("PUT", ONE, INJECT, b"{")
    assert (broken.status, "400 (400 Bad Request)" in message(broken)) == (500, True)
    host.processor.faults.kill()
    dead = subresources.answer("GET", ONE, FETCH, b"")
    assert dead.body.decode().startswith(f"{through} command GetSEVInfo failed:")


def test_a_dry_run_pauses_nothing_and_a_probe_forbids_it(
    instances: MemoryInstances,
    subresources: Subresources,
    launchers: Launchers,
    host: SimulatedHost,
) -> None:
    create(instances, "Running")
    launcher = launchers.found[ONE] = Launcher(ONE, host, {}, deadline=0)
    plain = make_vmi(Mode.SEV)
    del plain["spec"]["domain"]["launchSecurity"], plain["spec"]["startStrategy"]
    launcher.start(parse_wish(plain))
    assert subresources.answer("PUT", ONE, "pause", b'{"dryRun":["All"]}').status == 200
    assert (launcher.paused, launchers.looked) == (False, [])
    probe = {"op": "add", "path": "/spec/livenessProbe", "value": {"tcpSocket": {}}}
    instances.patch(*ONE, [probe])
    assert subresources.answer("PUT", ONE, "pause", b"").status == 403
    instances.patch(*ONE, [probe | {"value": {"guestAgentPing": {}}}])
    assert subresources.answer("PUT", ONE, "pause", b"").status == 200
    assert (launcher.paused, launchers.looked) == (True, [ONE])


def test_a_paused_condition_counts_whatever_its_status(
    instances: MemoryInstances, subresources: Subresources
) -> None:
    create(instances, "Running", conditions=[{"type": "Paused", "status": "False"}])
    answer = subresources.answer("PUT", ONE, "pause", b"")
    assert message(answer) == CONFLICT + "VMI is already paused"


@pytest.mark.parametrize(("method", "name"), [("GET", FETCH), ("PUT", SETUP), ("PUT", INJECT)])
def test_with_the_gate_off_everything_of_sevs_is_400(
    instances: MemoryInstances, launchers: Launchers, method: str, name: str
) -> None:
    off = Subresources(instances, launchers, gate=False, get_status=False)
    answer = off.answer(method, ONE, name, b"")
    wanted = "'WorkloadEncryptionSEV' feature gate is not enabled"
    assert (answer.status, message(answer)) == (400, wanted)
    assert off.answer("PUT", ONE, "pause", b"").status == 404


def test_each_subresource_has_one_method(subresources: Subresources) -> None:
    assert subresources.methods(FETCH) == ("GET",)
    assert subresources.methods("pause") == ("PUT",)
    assert subresources.methods("sev/nothing") == ()
