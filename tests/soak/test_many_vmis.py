"""Thousands of VMIs through the API server and KubeVirt's admission: each answered, none lost."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

from hack.control_plane_client import ApiError
from hack.kubevirt_cases import encrypted, vmi

if TYPE_CHECKING:
    from collections.abc import Callable

    from hack.kubevirt_cases import Document
    from hack.kubevirt_cluster import KubeVirtCluster
    from hack.load import Load

FULL: Final = 3000
THREADS: Final = 6
PAGE: Final = 250
TIERS: Final[tuple[Document, ...]] = (
    {},
    encrypted("sev"),
    encrypted("sev", launchSecurity={"sev": {"policy": {"encryptedState": True}}}),
    encrypted("snp"),
)
#: Every one in this many is wrong, and has to be refused among all that are not.
WRONG_EACH: Final = 10
REFUSED: Final = "SNP requires OVMF (UEFI)"


def make(number: int) -> Document:
    """Return the VMI of a number: tiers, topologies and names all differ."""
    tier = TIERS[number % len(TIERS)]
    if number % WRONG_EACH == 7:
        tier = {"launchSecurity": {"snp": {}}}
    sockets, cores, threads = 1 + number % 4, 1 + number // 4 % 3, 1 + number // 12 % 2
    cpu = {"sockets": sockets, "cores": cores, "threads": threads}
    document = vmi(tier | {"cpu": cpu, "memory": {"guest": f"{1 + number % 8}Gi"}})
    filler = "x" * (number % 40)
    document["metadata"]["name"] = f"v{number}-{filler}".rstrip("-")
    document["metadata"]["labels"] = {"soak/number": str(number)}
    return document


def test_none_of_thousands_of_vmis_is_lost_or_answered_wrongly(
    kubevirt: KubeVirtCluster, namespace: str, soak: Callable[[int], int], load: Load
) -> None:
    size, admin = soak(FULL), kubevirt.admin
    path = kubevirt.path(make(0), namespace)

    def create(number: int) -> str:
        document = make(number)
        try:
            made = admin.create(path, document)
        except ApiError as error:
            if number % WRONG_EACH != 7 or REFUSED not in error.message:
                raise
            return ""
        assert number % WRONG_EACH != 7
        check(document, made)
        uid: str = made["metadata"]["uid"]
        return uid

    uids = load.run("VMIs created or refused", THREADS, create, range(size))
    wanted = {make(n)["metadata"]["name"]: uid for n, uid in enumerate(uids) if uid}
    assert len(wanted) == size - len(range(7, size, WRONG_EACH))

    listed = pages(admin.get, path)
    assert {row["metadata"]["name"]: row["metadata"]["uid"] for row in listed} == wanted
    for row in listed:
        check(make(int(row["metadata"]["labels"]["soak/number"])), row)

    def delete(name: str) -> None:
        # virt-controller is not here to take its finalizer off.
        admin.delete(f"{path}/{name}")
        admin.patch(f"{path}/{name}", {"metadata": {"finalizers": None}})

    load.run("VMIs deleted", THREADS, delete, wanted)
    assert admin.get(path)["items"] == []


def check(asked: Document, stored: Document) -> None:
    """Hold a stored VMI against the one that was asked for."""
    domain, wanted = stored["spec"]["domain"], asked["spec"]["domain"]
    assert stored["metadata"]["name"] == asked["metadata"]["name"]
    assert domain.get("launchSecurity") == wanted.get("launchSecurity")
    assert domain["cpu"] == domain["cpu"] | wanted["cpu"]
    assert domain["cpu"]["maxSockets"] == 4 * wanted["cpu"]["sockets"]
    assert domain["memory"]["guest"] == wanted["memory"]["guest"]
    assert ("maxGuest" in domain["memory"]) == ("launchSecurity" not in wanted)
    assert stored["status"]["phase"] == "Pending"


def pages(get: Callable[[str], Any], path: str) -> list[Document]:
    """Return a collection, asked for page by page."""
    found: list[Document] = []
    following = ""
    for _ in itertools.count():
        answer = get(f"{path}?limit={PAGE}{following}")
        assert len(answer["items"]) <= PAGE
        found += answer["items"]
        token = answer["metadata"].get("continue")
        if not token:
            return found
        following = f"&continue={token}"
    return found
