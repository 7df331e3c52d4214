"""What a VMI object says of its launch: identity, phase, whether it is paused, whose session. Pure.

All of it is the cluster's word. Source: KubeVirt ``api/core/v1`` types.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.errors import FormatError
from sevkit.measure.terms import Mode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sevkit.documents import Json

_NAME: Final = "VirtualMachineInstance"
_LONGEST_UID: Final = 128
_LONGEST_SAID: Final = 400


@final
@dataclass(frozen=True, slots=True)
class LaunchStatus:
    """One VMI. ``mode`` is None for a guest that is not SEV's or SEV-ES's.

    ``attested`` says that attestation is asked for; ``session`` and ``dh_cert`` are base64 as they
    stand there, or empty; ``said`` is KubeVirt's reason why the guest did not start, if it has one;
    ``machine`` is the VirtualMachine that makes the VMI, or empty.
    """

    uid: str
    namespace: str
    name: str
    phase: str
    paused: bool
    deleting: bool
    mode: Mode | None
    attested: bool
    session: str
    dh_cert: str
    said: str
    machine: str
    labels: Mapping[str, str]


def parse_launch_status(document: Json) -> LaunchStatus:
    """Return what a VMI says. Raises ``FormatError`` for what the schema does not allow."""
    rows = _mapping(document, "the object")
    metadata = _mapping(rows.get("metadata"), "metadata")
    spec = _mapping(rows.get("spec"), "spec")
    security = _mapping(_mapping(spec.get("domain"), "spec.domain").get("launchSecurity"), "launch")
    sev = security.get("sev")
    parts = _mapping(sev, "launchSecurity.sev")
    policy = _mapping(parts.get("policy"), "sev.policy")
    status = _mapping(rows.get("status"), "status")
    conditions = _conditions(status)
    uid = _text(metadata, "uid")
    if not 0 < len(uid) <= _LONGEST_UID:
        raise FormatError(_NAME, "metadata.uid: is no UID")
    encrypted = Mode.SEV_ES if policy.get("encryptedState") is True else Mode.SEV
    labels = _mapping(metadata.get("labels"), "metadata.labels")
    return LaunchStatus(
        uid,
        _text(metadata, "namespace"),
        _text(metadata, "name"),
        _text(status, "phase"),
        # KubeVirt asks whether there is such a condition, not whether it is True.
        "Paused" in conditions,
        metadata.get("deletionTimestamp") is not None,
        None if sev is None else encrypted,
        parts.get("attestation") is not None,
        _text(parts, "session"),
        _text(parts, "dhCert"),
        _why(conditions),
        _machine(metadata),
        {key: value for key, value in labels.items() if isinstance(value, str)},
    )


def _why(conditions: Mapping[str, Mapping[str, Json]]) -> str:
    """Return why the guest is not there, from the condition that says so."""
    for kind in ("Synchronized", "PodScheduled"):
        row = conditions.get(kind, {})
        if row.get("status") == "False":
            return _text(row, "message")[:_LONGEST_SAID]
    return ""


def _machine(metadata: Mapping[str, Json]) -> str:
    owners = metadata.get("ownerReferences")
    for owner in owners if isinstance(owners, list) else []:
        rows = _mapping(owner, "metadata.ownerReferences")
        if rows.get("controller") is True and rows.get("kind") == "VirtualMachine":
            return _text(rows, "name")
    return ""


def _conditions(status: Mapping[str, Json]) -> dict[str, Mapping[str, Json]]:
    found = status.get("conditions")
    if not isinstance(found, list | None):
        raise FormatError(_NAME, "status.conditions: expected a list")
    rows = [_mapping(row, "status.conditions") for row in found or []]
    return {_text(row, "type"): row for row in rows}


def _mapping(value: Json, where: str) -> Mapping[str, Json]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise FormatError(_NAME, f"{where}: expected a mapping")
    return value


def _text(rows: Mapping[str, Json], key: str) -> str:
    value = rows.get(key, "")
    if not isinstance(value, str):
        raise FormatError(_NAME, f"{key}: expected text")
    return value
