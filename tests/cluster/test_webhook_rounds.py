"""The webhook's decision behind a real API server, with KubeVirt's own webhooks after it.

What is looked at is the object that is stored, not our patch; and how often and with what we were
called.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import pytest

from hack.control_plane_client import ApiError
from hack.kubevirt_admission_server import crds
from hack.kubevirt_cases import PATHS, SEV_GATE, VERSION, virtual_machine, vmi
from hack.reviewer import serve_reviews
from hack.vmi_generator import Generator
from hack.webhook_registration import NAME, registration
from sevkit.documents import parse_documents
from sevkit.errors import FormatError
from sevkit.kubevirt.installation import Installation
from sevkit.kubevirt.launch_security import Around
from sevkit.kubevirt.policy import DEFAULT
from sevkit.kubevirt.tiers import BEST, LABEL, VALUES, Tier, tier_of
from sevkit.kubevirt.webhook import answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hack.kubevirt_cases import Document
    from hack.kubevirt_cluster import KubeVirtCluster

HERE: Final = Installation(
    (VERSION[0], VERSION[1], 0),
    encryption=True,
    reboot_policy=False,
    eviction_strategy="None",
    architecture="amd64",
)
AROUND: Final = Around(HERE, frozenset(Tier))
REGISTRATIONS: Final = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
OURS: Final = ".confidential.sevkit.io"
GATES: Final = (
    *(SEV_GATE, "HostDevices", "HostDevicesWithDRA", "GPUsWithDRA", "VSOCK", "HostDisk"),
    *("EnableVirtioFsStorageVolumes", "EnableVirtioFsConfigVolumes", "PasstBinding"),
    *("ExperimentalVirtiofsSupport", "GPU", "CPUManager", "NUMA", "DownwardMetrics"),
)


class Reviews:
    """What came to the webhook, and what it answered."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, Any], dict[str, Any]]] = []

    def answer(self, path: str, body: bytes) -> bytes:
        try:
            found = answer(path, body, DEFAULT, AROUND).body
        except FormatError as error:
            pytest.fail(f"the API server sends what is no review: {error}")
        response = json.loads(found)["response"]
        self.seen.append((path, json.loads(body)["request"], response))
        return found


@pytest.fixture(scope="module")
def reviews() -> Reviews:
    return Reviews()


@pytest.fixture(scope="module")
def cluster(
    kubevirt: KubeVirtCluster, reviews: Reviews, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KubeVirtCluster]:
    """KubeVirt with the webhook before it, taken away at the end."""
    kubevirt.configure(*GATES)
    with serve_reviews(reviews.answer, tmp_path_factory.mktemp("reviewer")) as server:
        kubevirt.admin.create(REGISTRATIONS, registration(server.client))
        try:
            probe = _namespace(kubevirt, "snp")
            _wait(lambda: bool(_try(kubevirt, vmi({}), probe, reviews)))
            yield kubevirt
        finally:
            kubevirt.admin.delete(f"{REGISTRATIONS}/{NAME}")
            time.sleep(0.5)  # the API server's own copy is behind by a moment
            kubevirt.configure(SEV_GATE)


def _try(cluster: KubeVirtCluster, document: Document, namespace: str, reviews: Reviews) -> int:
    with contextlib.suppress(ApiError):
        made = copy.deepcopy(document)
        made["metadata"] = {"generateName": "probe-"}
        cluster.create(made, namespace)
    return len(reviews.seen)


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("the API server does not call the webhook")
        time.sleep(0.1)


def _namespace(cluster: KubeVirtCluster, value: str | None) -> str:
    name = f"c-{uuid.uuid4().hex[:12]}"
    labels = {} if value is None else {LABEL: value}
    cluster.admin.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
    return name


@pytest.fixture(scope="module")
def namespaces(cluster: KubeVirtCluster) -> dict[str | None, str]:
    values = (*VALUES, None, "tdx", "")
    return {value: _namespace(cluster, value) for value in values}


def made(cluster: KubeVirtCluster, document: Document, namespace: str) -> Document:
    """Create it under a name of its own, and return what is stored."""
    found = copy.deepcopy(document)
    found["metadata"] = {
        **found["metadata"],
        "name": f"v-{uuid.uuid4().hex[:12]}",
        "namespace": namespace,
    }
    return cluster.create(found, namespace)


def refusal(cluster: KubeVirtCluster, document: Document, namespace: str) -> str:
    with pytest.raises(ApiError) as caught:
        made(cluster, document, namespace)
    return caught.value.message


def launched(stored: Document) -> Tier | None:
    return tier_of(stored["spec"]["domain"].get("launchSecurity"))


@pytest.mark.parametrize("tier", Tier)
def test_a_vmi_in_a_labelled_namespace_is_stored_confidential(
    cluster: KubeVirtCluster, namespaces: dict[str | None, str], reviews: Reviews, tier: Tier
) -> None:
    before = len(reviews.seen)
    stored = made(cluster, vmi({"cpu": {"sockets": 2}}), namespaces[tier.value])
    domain = stored["spec"]["domain"]
    assert launched(stored) is tier
    assert "maxSockets" not in domain["cpu"]
    assert "maxGuest" not in domain["memory"]
    assert domain["firmware"]["bootloader"] == {"efi": {"secureBoot": False}}
    assert stored["spec"]["evictionStrategy"] == "LiveMigrateIfPossible"
    for place in ("requests", "limits"):
        assert domain["resources"][place][tier.resource] == "1"
    # Both rounds are seen, and KubeVirt's mutator was between them.
    first, second = reviews.seen[before:]
    assert first[0] == second[0] == f"/mutate/{tier}"
    assert "machine" not in first[1]["object"]["spec"]["domain"]
    assert second[1]["object"]["spec"]["domain"]["machine"]["type"]
    assert second[1]["object"]["spec"]["domain"]["cpu"]["maxSockets"] > 0


def test_best_becomes_the_strongest(
    cluster: KubeVirtCluster, namespaces: dict[str | None, str]
) -> None:
    assert launched(made(cluster, vmi({}), namespaces[BEST])) is Tier.SNP


def test_other_namespaces_are_untouched_and_not_even_called_for(
    cluster: KubeVirtCluster, namespaces: dict[str | None, str], reviews: Reviews
) -> None:
    before = len(reviews.seen)
    stored = made(cluster, vmi({}), namespaces[None])
    assert launched(stored) is None
    assert "annotations" not in stored["metadata"] or not any(
        key.startswith("sevkit.io/") for key in stored["metadata"]["annotations"]
    )
    assert len(reviews.seen) == before


def test_an_object_may_ask_itself_in_a_namespace_that_does_not(
    cluster: KubeVirtCluster, namespaces: dict[str | None, str]
) -> None:
    asking = vmi({})
    asking["metadata"]["labels"] = {LABEL: "sev-es"}
    assert launched(made(cluster, asking, namespaces[None])) is Tier.SEV_ES


@pytest.mark.parametrize("value", ["tdx", ""])
def test_a_namespace_with_another_value_admits_nothing(
    cluster: KubeVirtCluster, namespaces: dict[str | None, str], value: str
) -> None:
    for document in (vmi({}), vmi({"launchSecurity": {"snp": {}}})):
        assert "sev, sev-es, snp, best" in refusal(cluster, document, namespaces[value])


def test_a_tier_that_is_weaker_than_the_namespaces_is_refused(
    cluster: KubeVirtCluster, namespaces: dict[str | None, str]
) -> None:
    weaker = vmi({})
    weaker["metadata"]["labels"] = {LABEL: "sev"}
    assert "sev is less than the namespace's snp" in refusal(cluster, weaker, namespaces["snp"])
    has = vmi({"launchSecurity": {"sev": {}}})
    assert "which is required" in refusal(cluster, has, namespaces["snp"])


def test_a_dry_run_and_a_generated_name_are_judged_alike(
    cluster: KubeVirtCluster, namespaces: dict[str | None, str]
) -> None:
    namespace = namespaces["snp"]
    document = vmi({})
    document["metadata"] = {"generateName": "made-"}
    path = cluster.path(document, namespace)
    answered = cluster.admin.create(f"{path}?dryRun=All", document)
    assert launched(answered) is Tier.SNP
    assert launched(cluster.admin.create(path, document)) is Tier.SNP


def test_the_older_version_is_judged_alike(
    cluster: KubeVirtCluster, namespaces: dict[str | None, str]
) -> None:
    document = vmi({})
    document["apiVersion"] = "kubevirt.io/v1alpha3"
    assert launched(made(cluster, document, namespaces["sev"])) is Tier.SEV


def test_updates_and_deletes_do_not_come_here(
    cluster: KubeVirtCluster, namespaces: dict[str | None, str], reviews: Reviews
) -> None:
    stored = made(cluster, vmi({}), namespaces["snp"])
    before = len(reviews.seen)
    path = f"{cluster.path(stored, namespaces['snp'])}/{stored['metadata']['name']}"
    cluster.admin.patch(path, {"metadata": {"labels": {"a": "b"}}})
    cluster.admin.delete(path)
    assert len(reviews.seen) == before


def test_vms_replica_sets_and_pools_are_left_as_they_are(
    cluster: KubeVirtCluster, namespaces: dict[str | None, str], reviews: Reviews, corpus: Path
) -> None:
    before = len(reviews.seen)
    kinds = Counter[str]()
    for path in sorted((corpus / "kubevirt/manifests").glob("*.yaml")):
        for document in parse_documents(path.read_bytes(), path.name):
            assert isinstance(document, dict)
            kind = document["kind"]
            if kind in PATHS and kind not in {"VirtualMachineInstance", "VirtualMachine"}:
                with contextlib.suppress(ApiError):
                    made(cluster, document, namespaces["snp"])
                kinds[str(kind)] += 1
    made(cluster, virtual_machine(vmi({})), namespaces["snp"])
    assert kinds
    assert len(reviews.seen) == before


@pytest.mark.parametrize("value", VALUES)
def test_every_manifest_of_the_corpus_is_stored_confidential_or_refused_by_us(
    cluster: KubeVirtCluster,
    namespaces: dict[str | None, str],
    corpus: Path,
    value: str,
) -> None:
    said: Counter[str] = Counter()
    folder = corpus / "kubevirt"
    for path in itertools.chain(folder.glob("fixtures/*.yaml"), folder.glob("manifests/*.yaml")):
        for document in parse_documents(path.read_bytes(), path.name):
            assert isinstance(document, dict)
            if document["kind"] == "VirtualMachineInstance":
                said[_outcome(cluster, document, value, namespaces)] += 1
    assert said["stored"] > 10
    assert said["refused"] > 2
    assert set(said) == {"stored", "refused"}


def _outcome(
    cluster: KubeVirtCluster, document: Document, value: str, namespaces: dict[str | None, str]
) -> str:
    """Return what became of it; KubeVirt's own refusals count only if it refuses it anyway."""
    stored, said = _stored_or_said(cluster, document, namespaces[value])
    if stored is not None:
        tier = launched(stored)
        assert tier is not None
        assert value == BEST or tier.strength >= Tier(value).strength
        return "stored"
    if any(OURS in one for one in said):
        return "refused"
    plain, without_us = _stored_or_said(cluster, document, namespaces[None])
    assert plain is None, f"KubeVirt refuses what we changed: {said}"
    assert said <= without_us
    return "refused without us"


def _stored_or_said(
    cluster: KubeVirtCluster, document: Document, namespace: str
) -> tuple[Document | None, set[str]]:
    """Return the object that is stored, or everything that was said against it."""
    try:
        return made(cluster, document, namespace), set()
    except ApiError as error:
        causes = (error.body.get("details") or {}).get("causes") or []
        ours = {error.message} if OURS in error.message or not causes else set()
        return None, ours | {one["message"] for one in causes}


def test_generated_vmis_are_stored_confidential_or_refused_by_us(
    cluster: KubeVirtCluster,
    namespaces: dict[str | None, str],
    soak: Callable[[int], int],
) -> None:
    (definition,) = crds("virtualmachineinstances")
    generator = Generator(definition, seed=25)
    said: Counter[str] = Counter()
    values = itertools.cycle(VALUES)
    for _ in range(max(60, soak(2000))):
        said[_outcome(cluster, generator.make(), next(values), namespaces)] += 1
    assert said["stored"] > said.total() // 10
    assert said["refused"] > said.total() // 10
