"""What ``sevkit attest launch --reference`` expects, from a reference set instead of options."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from sevkit.attest.reference_choice import check_firmware, choose_launch_references
from sevkit.attest.sev_explain import explain_references
from sevkit.cli.launch_options import read_firmware
from sevkit.cli.reference_set import read_reference_set
from sevkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.measure.reference import Reference

#: Options that describe a guest, which a reference set does already.
_DESCRIBING: Final = {
    "kernel": "--kernel",
    "initrd": "--initrd",
    "cmdline": "--cmdline",
    "vcpus": "--vcpus",
    "vcpu_type": "--vcpu-type",
    "vcpu_sig": "--vcpu-sig",
    "guest_features": "--guest-features",
    "vmsas": "--vmsa",
}


@final
@dataclass(frozen=True, slots=True)
class Expected:
    """The digests to hold a launch against, the owner's firmware in hex, and who explains.

    ``firmware_sha256`` is empty where the digests are of several firmwares or do not say;
    ``explain`` is None where there is no firmware to search with.
    """

    references: tuple[Reference, ...]
    firmware_sha256: str
    explain: Callable[[Callable[[bytes], bool]], str] | None


def check_reference_options(given: dict[str, Any]) -> None:
    """Refuse options that a reference set leaves no room for. Opens no file."""
    for name, option in _DESCRIBING.items():
        if given[name] not in {None, ()}:
            raise UsageError(
                f"{option} with --reference, which has the launch digests already",
                hint="sevkit measure makes a set for other guests",
            )


def read_expected(given: dict[str, Any]) -> Expected:
    """Return what the reference set says of a launch with the session's guest policy.

    Raises ``FormatError`` for the set, ``UsageError`` if it has no digest for such a launch or if
    ``--firmware`` is another file than the one that it was made from.
    """
    references = choose_launch_references(read_reference_set(given["reference"]), given["policy"])
    if given["firmware"] is None:
        named = {entry.firmware_sha256 for entry in references}
        (only,) = named if len(named) == 1 else (None,)
        return Expected(references, only or "", None)
    firmware = read_firmware(given["firmware"])
    sha256 = hashlib.sha256(firmware).hexdigest()
    check_firmware(references, sha256)
    return Expected(references, sha256, explain_references(firmware, references))
