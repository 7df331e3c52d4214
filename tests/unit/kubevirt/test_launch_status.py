from __future__ import annotations

import copy
from typing import Any, Final

import pytest

from sevkit.errors import FormatError
from sevkit.kubevirt.launch_status import parse_launch_status
from sevkit.measure.terms import Mode
from sevkit.testing.kubevirt.owner_side import make_vmi

OWNER: Final = {"kind": "VirtualMachine", "name": "ledger", "controller": True, "uid": "vm"}


def vmi(mode: Mode = Mode.SEV_ES, **status: object) -> dict[str, Any]:
    document = make_vmi(mode, attestation=mode is not Mode.SNP)
    document["metadata"] |= {"uid": "one", "namespace": "default", "labels": {"app": "ledger"}}
    document["status"] = status
    return document


def test_what_a_vmi_says_of_its_launch() -> None:
    document = vmi(phase="Running", conditions=[{"type": "Paused", "status": "True"}])
    document["metadata"]["ownerReferences"] = [OWNER]
    document["spec"]["domain"]["launchSecurity"]["sev"] |= {"session": "c2", "dhCert": "ZA"}
    found = parse_launch_status(document)
    assert (found.uid, found.phase, found.paused, found.mode) == (
        "one", "Running", True, Mode.SEV_ES
    )  # fmt: skip
    assert (found.attested, found.session, found.dh_cert) == (True, "c2", "ZA")
    assert (found.machine, found.deleting, dict(found.labels)) == (
        "ledger", False, {"app": "ledger"}
    )  # fmt: skip


def test_modes_without_a_session_and_reasons_of_guests_that_are_not_there() -> None:
    assert parse_launch_status(vmi(Mode.SEV)).mode is Mode.SEV
    plain = parse_launch_status(vmi(Mode.SNP))
    assert (plain.mode, plain.attested, plain.session, plain.phase) == (None, False, "", "")
    for kind in ("Synchronized", "PodScheduled"):
        row = {"type": kind, "status": "False", "message": "no room"}
        assert parse_launch_status(vmi(conditions=[row])).said == "no room"
    fine = {"type": "Synchronized", "status": "True", "message": "fine"}
    assert parse_launch_status(vmi(conditions=[fine])).said == ""


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("metadata",), None),
        (("metadata", "uid"), 7),
        (("metadata", "uid"), ""),
        (("metadata", "uid"), "u" * 129),
        (("metadata", "labels"), []),
        (("metadata", "ownerReferences"), [7]),
        (("spec",), []),
        (("spec", "domain", "launchSecurity"), "sev"),
        (("spec", "domain", "launchSecurity", "sev", "session"), 7),
        (("status",), "Running"),
        (("status", "phase"), 7),
        (("status", "conditions"), {}),
        (("status", "conditions"), [None, 7]),
    ],
)
def test_what_the_schema_does_not_allow_is_refused(path: tuple[str, ...], value: object) -> None:
    document = copy.deepcopy(vmi(phase="Running"))
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(FormatError):
        parse_launch_status(document)
    with pytest.raises(FormatError):
        parse_launch_status([])
