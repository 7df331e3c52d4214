"""Which entries of a reference set may stand for a guest, by what kind of guest it is.

A set may be made for several modes and guest policies. Those for another guest are not expected of
this one, and a set that has none for it is refused rather than taken for one that expects nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sevkit.abi.policy import SevPolicy, parse_sev_policy
from sevkit.attest.expectations import ExpectedMeasurement
from sevkit.errors import UsageError
from sevkit.measure.terms import Mode

if TYPE_CHECKING:
    from sevkit.measure.reference import Reference, ReferenceSet


def choose_launch_references(references: ReferenceSet, policy: int) -> tuple[Reference, ...]:
    """Return the entries for a SEV or SEV-ES launch whose session has this guest policy.

    First those of the policy's own mode that name this policy or none. After them the ones of the
    other mode: a verdict on those is a refusal, and says that the guest is of the other mode.

    Raises ``UsageError`` if the set has none of the first kind.
    """
    mode = Mode.SEV_ES if SevPolicy.ES in parse_sev_policy(policy) else Mode.SEV
    own = references.of_mode(mode)
    usable = tuple(entry for entry in own if entry.guest_policy in {None, policy})
    if usable:
        return usable + references.of_mode(Mode.SEV if mode is Mode.SEV_ES else Mode.SEV_ES)
    named = sorted({entry.guest_policy for entry in own} - {None}, key=lambda value: value or 0)
    found = " or ".join(f"{value:#x}" for value in named)
    raise UsageError(
        f"the reference set has no launch digest for {mode} with guest policy {policy:#x}",
        hint=f"its digests for {mode} are for guest policy {found}" if own else _has(references),
    )


def check_firmware(references: tuple[Reference, ...], sha256: str) -> None:
    """Refuse a firmware file that none of the entries was made from; ``sha256`` is its hash in hex.

    Entries that do not say fit any, if none of the others says otherwise. Raises ``UsageError``.
    """
    named = {entry.firmware_sha256 for entry in references} - {None}
    if named and sha256 not in named:
        raise UsageError(
            f"the firmware with SHA-256 {sha256} is not what the reference set was made from",
            hint="measure it anew, or take the firmware whose SHA-256 the set names",
        )


def choose_snp_measurements(references: ReferenceSet) -> tuple[ExpectedMeasurement, ...]:
    """Return the entries for an SNP guest. Raises ``UsageError`` if the set has none."""
    found = tuple(
        ExpectedMeasurement(
            entry.digest, entry.label, entry.covers_kernel, entry.guest_policy, entry.parameters
        )
        for entry in references.of_mode(Mode.SNP)
    )
    if not found:
        raise UsageError("the reference set has no launch digest for SNP", hint=_has(references))
    return found


def _has(references: ReferenceSet) -> str:
    return f"it has digests for {' and '.join(references.modes)}"
