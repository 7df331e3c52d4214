"""What a confidential VMI has to have, set where it is missing: the table of completions. Pure.

Nothing that is there is replaced but what cannot stay, no array is touched, and ``firmware``,
``cpu.sockets`` and ``memory.guest`` are never written as a whole: KubeVirt's VM controller would
see a change that asks for a restart. Every completion is right on a bare VMI and on one that
KubeVirt's mutator has already filled in, and finds nothing to do the second time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.kubevirt.launch_case import DOMAIN, EFI, LAUNCH_SECURITY, Owner
from sevkit.kubevirt.launch_rules import ALL, STATEFUL
from sevkit.kubevirt.policy import Reboot
from sevkit.kubevirt.tiers import Tier

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.documents import Json
    from sevkit.kubevirt.json_patch import Editor
    from sevkit.kubevirt.launch_case import Case

#: Does not block a drain, and migrates nothing that cannot be migrated.
EVICTION: Final = "LiveMigrateIfPossible"
_SHAPES: Final[dict[Tier, Json]] = {
    Tier.SEV: {"sev": {}},
    Tier.SEV_ES: {"sev": {"policy": {"encryptedState": True}}},
    Tier.SNP: {"snp": {}},
}


@final
@dataclass(frozen=True, slots=True)
class Completion:
    """One thing to see to; ``source`` says why."""

    code: str
    tiers: frozenset[Tier]
    apply: Callable[[Case, Editor], None]
    source: str


def complete(case: Case, editor: Editor) -> None:
    """Change ``editor``, which holds the case's VMI, into what the tier needs."""
    for row in _COMPLETIONS_OF[case.tier]:
        row.apply(case, editor)


def _launch_security(case: Case, editor: Editor) -> None:
    if case.has_tier:
        return
    shape = _SHAPES[case.tier]
    if editor.get(*LAUNCH_SECURITY) is None:
        editor.set(shape, *LAUNCH_SECURITY)
    elif isinstance(shape, dict):  # empty: it gets its member
        for kind, value in shape.items():
            editor.set(value, *LAUNCH_SECURITY, kind)


def _attestation(case: Case, editor: Editor) -> None:
    if case.attestation:
        if editor.get(*LAUNCH_SECURITY, "sev", "attestation") is None:
            editor.set({}, *LAUNCH_SECURITY, "sev", "attestation")
        editor.set("Paused", "spec", "startStrategy")


def _efi(case: Case, editor: Editor) -> None:  # noqa: ARG001  # the table's signature
    editor.set(False, *EFI, "secureBoot")  # noqa: FBT003  # a JSON value


def _max_sockets(case: Case, editor: Editor) -> None:  # noqa: ARG001  # as above
    if editor.get(*DOMAIN, "cpu", "maxSockets") is not None:
        editor.remove(*DOMAIN, "cpu", "maxSockets")


def _max_guest(case: Case, editor: Editor) -> None:  # noqa: ARG001  # as above
    if editor.get(*DOMAIN, "memory", "maxGuest") is not None:
        editor.remove(*DOMAIN, "memory", "maxGuest")


def _eviction(case: Case, editor: Editor) -> None:
    if case.text("spec", "evictionStrategy") in {"", "LiveMigrate"}:
        editor.set(EVICTION, "spec", "evictionStrategy")


def ends_on_reboot(case: Case) -> bool:
    """Return whether a guest's reboot is to end the VMI."""
    wanted = case.policy.reboot is Reboot.ALWAYS or (
        case.policy.reboot is Reboot.ATTESTATION and case.attestation
    )
    # With the gate off KubeVirt refuses the field; not known is as good as off.
    return wanted and case.installation.reboot_policy is True


def _reboot(case: Case, editor: Editor) -> None:
    if ends_on_reboot(case) and not case.text(*DOMAIN, "rebootPolicy"):
        editor.set("Terminate", *DOMAIN, "rebootPolicy")


def _cpu_model(case: Case, editor: Editor) -> None:
    if case.policy.cpu_model and not editor.get(*DOMAIN, "cpu", "model"):
        editor.set(case.policy.cpu_model, *DOMAIN, "cpu", "model")


def _resource(case: Case, editor: Editor) -> None:
    if not case.policy.capacity_resource:
        return
    name, places = case.tier.resource, ("requests", "limits")
    given = [editor.get(*DOMAIN, "resources", place, name) for place in places]
    count = next((one for one in given if one is not None), "1")
    for place, one in zip(places, given, strict=True):
        if one is None:
            editor.set(count, *DOMAIN, "resources", place, name)


COMPLETIONS: Final = (
    Completion("launch-security", ALL, _launch_security, "KubeVirt, api/core/v1 LaunchSecurity"),
    Completion(
        "attestation",
        frozenset({Tier.SEV, Tier.SEV_ES}),
        _attestation,
        "KubeVirt, ValidateLaunchSecurityAmd64: attestation needs startStrategy Paused",
    ),
    Completion("efi", ALL, _efi, "KubeVirt, ValidateLaunchSecurityAmd64: EFI without secure boot"),
    Completion(
        "max-sockets",
        ALL,
        _max_sockets,
        "KubeVirt, compute/cpu.go: any value makes vCPUs hot-pluggable, which no digest covers",
    ),
    Completion(
        "max-guest",
        ALL,
        _max_guest,
        "KubeVirt, pkg/liveupdate/memory: encrypted guests have no memory hot-plug",
    ),
    Completion(
        "eviction",
        ALL,
        _eviction,
        "KubeVirt, pod-eviction-admitter: LiveMigrate of what cannot migrate blocks drains",
    ),
    Completion(
        "reboot", ALL, _reboot, "a reboot is a launch that nobody has attested; QEMU resets no ES"
    ),
    Completion(
        "cpu-model", STATEFUL, _cpu_model, "the digest covers the vCPUs' signature in the VMSA"
    ),
    Completion(
        "resource", ALL, _resource, "KubeVirt copies domain.resources to the launcher's container"
    ),
)


_COMPLETIONS_OF: Final = {tier: [row for row in COMPLETIONS if tier in row.tiers] for tier in Tier}


def reboot_warnings(case: Case) -> tuple[str, ...]:
    """Return what a reboot will do to this VMI, where that may surprise."""
    if not ends_on_reboot(case) or case.text(*DOMAIN, "rebootPolicy"):
        return ()
    if case.owner is Owner.MACHINE:
        return ("a guest reboot ends this VMI; only runStrategy Always starts it again",)
    return ("a guest reboot ends this VMI for good",)
