"""The decision held against KubeVirt's own mutator and admitters: what we change it accepts.

Every VMI here is one that KubeVirt makes something of, or refuses for reasons of its own; after us
it may refuse nothing that it did not refuse before.
"""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import pytest

from hack import kubevirt_admission
from hack.kubevirt_admission_server import AdmissionServer, crds
from hack.kubevirt_cases import SEV_GATE, VERSION, kubevirt_resource, vmi
from hack.kubevirt_round import Outcome, create, kubevirt_admits, kubevirt_mutates
from hack.vmi_generator import Generator
from sevkit.documents import parse_documents
from sevkit.kubevirt.installation import Installation
from sevkit.kubevirt.launch_case import ATTESTATION
from sevkit.kubevirt.launch_security import INJECTED, Around, decide
from sevkit.kubevirt.policy import DEFAULT, Passthrough, Policy, Reboot
from sevkit.kubevirt.tiers import BEST, LABEL, Tier, tier_of
from sevkit.testing.kubevirt.json_patch import apply_patch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hack.kubevirt_cases import Document

#: Everything that a VMI may ask for, so that KubeVirt refuses as little as possible by itself.
GATES: Final = (
    *(SEV_GATE, "RebootPolicy", "HostDevices", "HostDevicesWithDRA", "GPUsWithDRA", "VSOCK"),
    *("EnableVirtioFsStorageVolumes", "EnableVirtioFsConfigVolumes", "PasstBinding"),
    *("ExperimentalVirtiofsSupport", "GPU", "CPUManager", "NUMA", "DownwardMetrics", "HostDisk"),
)
HAS_REBOOT: Final = VERSION >= (1, 8)
HERE: Final = Installation(
    (VERSION[0], VERSION[1], 0),
    encryption=True,
    reboot_policy=HAS_REBOOT,
    eviction_strategy="None",
    architecture="amd64",
)
AROUND: Final = Around(HERE, frozenset(Tier))
#: The only places that a decision may touch.
TOUCHED: Final = (
    "spec.domain.launchSecurity",
    "spec.domain.firmware.bootloader.efi.secureBoot",
    "spec.startStrategy",
    "spec.domain.cpu.maxSockets",
    "spec.domain.cpu.model",
    "spec.domain.memory.maxGuest",
    "spec.evictionStrategy",
    "spec.domain.rebootPolicy",
    "spec.domain.resources.requests.sevkit.io/",
    "spec.domain.resources.limits.sevkit.io/",
    f"metadata.annotations.{INJECTED}",
)
POLICIES: Final = (
    DEFAULT,
    Policy(cpu_model="EPYC-Milan", reboot=Reboot.ALWAYS, passthrough=Passthrough.ALLOW),
    Policy(capacity_resource=False, reboot=Reboot.NEVER),
)


@pytest.fixture(scope="module")
def server() -> Iterator[AdmissionServer]:
    if not kubevirt_admission.is_there():
        pytest.skip(kubevirt_admission.why_not())
    with AdmissionServer(kubevirt_resource(*GATES)) as running:
        yield running


@pytest.fixture(scope="module")
def generator() -> Generator:
    (definition,) = crds("virtualmachineinstances")
    return Generator(definition, seed=56860)


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401  # JSON
    """Yield every leaf of a document with its place; lists are leaves."""
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from leaves(part, f"{place}.{key}" if place else key)
    else:
        yield place, value


def objects(value: Any, place: str = "") -> Iterator[str]:  # noqa: ANN401  # JSON
    """Yield the places of all objects that are not empty."""
    if isinstance(value, dict) and value:
        yield place
        for key, part in value.items():
            yield from objects(part, f"{place}.{key}" if place else key)


def changed(before: Document, after: Document) -> set[str]:
    """Return the places of leaves that differ; an empty parent that was filled is no difference."""
    one, other = dict(leaves(before)), dict(leaves(after))
    return {
        place
        for place in one.keys() | other.keys()
        if one.get(place) != other.get(place) and {} not in (one.get(place), other.get(place))
    }


def check(server: AdmissionServer, given: Document, tier: Tier, policy: Policy) -> str:
    """Create ``given`` where ``tier`` is asked for, hold every promise, and say what it became."""
    kept = copy.deepcopy(given)
    outcome = create(server, given, tier, policy, AROUND)
    assert given == kept, "what is given is not changed"
    if outcome.first.refusals:
        assert not outcome.first.operations
        for refusal in outcome.first.refusals:
            assert refusal.field
            assert refusal.message
            assert refusal.fix
        return f"refused: {outcome.first.refusals[0].code}"
    plain = kubevirt_mutates(server, given)
    before = plain if isinstance(plain, tuple) else kubevirt_admits(server, plain)
    assert set(outcome.causes) <= set(before), "KubeVirt refuses nothing because of us"
    assert outcome.second is None or not outcome.second.refusals, "what we admitted stays admitted"
    if outcome.stored is None:
        return "refused by KubeVirt's mutator"
    found = outcome.first.tier
    assert found is not None
    has = tier_of(given["spec"]["domain"].get("launchSecurity"))
    assert found is (has or tier)
    assert found.strength >= tier.strength
    _check_stored(outcome, given, found, policy)
    return "refused by KubeVirt" if outcome.causes else "admitted"


def _check_stored(outcome: Outcome, given: Document, tier: Tier, policy: Policy) -> None:
    stored, defaulted = outcome.stored, outcome.defaulted
    assert stored is not None
    assert defaulted is not None
    domain = stored["spec"]["domain"]
    assert tier_of(domain["launchSecurity"]) is tier
    assert "maxSockets" not in (domain.get("cpu") or {})
    assert "maxGuest" not in (domain.get("memory") or {})
    assert domain["firmware"]["bootloader"]["efi"]["secureBoot"] is False
    assert stored["spec"]["evictionStrategy"] != "LiveMigrate"
    resources = domain.get("resources") or {}
    for place in ("requests", "limits"):
        has = tier.resource in (resources.get(place) or {})
        assert has is policy.capacity_resource
    # Again, nothing is left to do.
    again = decide(stored, tier, policy, AROUND)
    assert (again.operations, again.refusals) == ((), ())
    for before, after in ((given, _after_first(outcome, given)), (defaulted, stored)):
        for place in changed(before, after):
            assert place.startswith(TOUCHED), place
    # KubeVirt's controller would ask for a restart over any of these.
    was = given["spec"]["domain"]
    assert domain["memory"]["guest"] == defaulted["spec"]["domain"]["memory"]["guest"]
    assert (domain.get("cpu") or {}).get("sockets") == (
        defaulted["spec"]["domain"].get("cpu") or {}
    ).get("sockets")
    uuid = (was.get("firmware") or {}).get("uuid")
    assert uuid is None or domain["firmware"]["uuid"] == uuid


def _after_first(outcome: Outcome, given: Document) -> Document:
    return apply_patch(given, [one.to_json() for one in outcome.first.operations])


@pytest.mark.parametrize("policy", POLICIES, ids=["default", "everything", "little"])
@pytest.mark.parametrize("tier", Tier)
def test_every_vmi_of_the_corpus_is_admitted_or_refused_by_us(
    server: AdmissionServer, corpus: Path, tier: Tier, policy: Policy
) -> None:
    said: Counter[str] = Counter()
    folder = corpus / "kubevirt"
    for path in itertools.chain(
        *(folder.glob(f"{name}/*.yaml") for name in ("fixtures", "manifests"))
    ):
        for document in parse_documents(path.read_bytes(), path.name):
            assert isinstance(document, dict)
            if document["kind"] == "VirtualMachineInstance":
                said[check(server, document, tier, policy)] += 1
    assert said["admitted"] > 10
    assert said["refused by KubeVirt"] <= 1


def test_generated_vmis_are_admitted_with_what_was_asked_for_or_refused_by_us(
    server: AdmissionServer, generator: Generator
) -> None:
    said: Counter[str] = Counter()
    rounds = itertools.cycle(itertools.product(Tier, POLICIES))
    for _ in range(250):
        tier, policy = next(rounds)
        said[check(server, generator.make(), tier, policy)] += 1
    assert said["admitted"] > 30, said


#: Members of a VMI over which KubeVirt's VM controller asks for a restart, or that it puts back.
UNDONE: Final = (
    "spec.nodeSelector",
    "spec.affinity",
    "spec.tolerations",
    "spec.domain.cpu.sockets",
    "spec.domain.cpu.cores",
    "spec.domain.cpu.threads",
    "spec.domain.memory.guest",
    "spec.domain.firmware.uuid",
    "spec.domain.firmware.serial",
)


@pytest.mark.parametrize("policy", POLICIES, ids=["default", "everything", "little"])
@pytest.mark.parametrize("tier", Tier)
def test_the_vm_controller_finds_nothing_to_undo_and_no_reason_for_a_restart(
    server: AdmissionServer, generator: Generator, tier: Tier, policy: Policy
) -> None:
    """As it makes them: with the firmware's UUID, and members that it compares with the VM's."""
    decided = 0
    for number in range(40):
        given = generator.make()
        firmware = given["spec"]["domain"].setdefault("firmware", {})
        firmware["uuid"] = f"5d307ca9-b3ef-428c-8861-0000000000{number:02}"
        given["spec"] |= {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "k"}]}
        outcome = create(server, given, tier, policy, AROUND)
        for decision, before in ((outcome.first, given), (outcome.second, outcome.defaulted)):
            there = set() if before is None else set(objects(before))
            for one in decision.operations if decision is not None else ():
                place = one.path.removeprefix("/").replace("/", ".")
                written = {place, *(f"{place}.{name}" for name, _ in leaves(one.value) if name)}
                assert not written & set(UNDONE), one
                assert place not in there, "what is there is never written as a whole"
                decided += 1
    assert decided > 20


@pytest.mark.parametrize("tier", [Tier.SEV, Tier.SEV_ES])
def test_attestation_starts_it_paused_and_ends_it_on_reboot(
    server: AdmissionServer, tier: Tier
) -> None:
    given = vmi({})
    given["metadata"]["annotations"] = {ATTESTATION: "required"}
    outcome = create(server, given, tier, DEFAULT, AROUND)
    assert outcome.causes == ()
    assert outcome.stored is not None
    spec = outcome.stored["spec"]
    assert spec["startStrategy"] == "Paused"
    assert spec["domain"]["launchSecurity"]["sev"]["attestation"] == {}
    assert spec["domain"].get("rebootPolicy") == ("Terminate" if HAS_REBOOT else None)


def test_best_takes_the_strongest_that_can_run(server: AdmissionServer) -> None:
    for runnable, tier in (
        ({Tier.SEV, Tier.SNP}, Tier.SNP),
        ({Tier.SEV, Tier.SEV_ES}, Tier.SEV_ES),
        ({Tier.SEV}, Tier.SEV),
    ):
        around = Around(HERE, frozenset(runnable))
        outcome = create(server, vmi({}), BEST, DEFAULT, around)
        assert outcome.stored is not None
        assert tier_of(outcome.stored["spec"]["domain"]["launchSecurity"]) is tier
        assert outcome.causes == ()


def test_both_rounds_happen_and_the_second_only_completes_what_kubevirt_brought(
    server: AdmissionServer,
) -> None:
    outcome = create(server, vmi({"cpu": {"sockets": 2}}), Tier.SNP, DEFAULT, AROUND)
    assert outcome.second is not None
    assert [(one.op, one.path) for one in outcome.second.operations] == [
        ("remove", "/spec/domain/cpu/maxSockets")
    ]
    assert outcome.causes == ()


def test_an_objects_own_label_is_enough_without_a_namespaces(server: AdmissionServer) -> None:
    given = vmi({})
    given["metadata"]["labels"] = {LABEL: "sev-es"}
    outcome = create(server, given, None, DEFAULT, AROUND)
    assert outcome.stored is not None
    assert tier_of(outcome.stored["spec"]["domain"]["launchSecurity"]) is Tier.SEV_ES
