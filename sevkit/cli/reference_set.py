"""Reference sets as files: read within bounds, and described for the guests they are made for."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sevkit.cli.files import read_file
from sevkit.errors import UsageError
from sevkit.kubevirt.installation import SNP_SINCE
from sevkit.measure.reference import (
    REFERENCE_LIMIT,
    Reference,
    ReferenceSet,
    join_reference_sets,
    parse_reference_set,
)
from sevkit.measure.terms import Mode

if TYPE_CHECKING:
    from sevkit.kubevirt.installation import Version
    from sevkit.kubevirt.manifests import ManifestLaunch


def read_reference_set(path: str) -> ReferenceSet:
    """Return the reference set in a file; ``-`` is standard input. Raises ``FormatError``."""
    return parse_reference_set(read_file(path, limit=REFERENCE_LIMIT))


def check_release(version: Version | None, manifest: ManifestLaunch) -> None:
    """Refuse a release of KubeVirt that has no such guests. Raises ``UsageError``."""
    if version is not None and manifest.mode is Mode.SNP and version < SNP_SINCE:
        since = ".".join(map(str, SNP_SINCE))
        raise UsageError(f"the manifest asks for snp, which KubeVirt has since v{since}")


def describe_references(
    references: ReferenceSet,
    firmware: str,
    manifest: ManifestLaunch | None,
    version: Version | None,
) -> ReferenceSet:
    """Return the set with what its digests were made from and for, in words.

    ``firmware`` is the path of the firmware; its name goes into the set, never its folder. The
    guest policy is the one that KubeVirt gives the manifest's guest.
    """
    more: dict[str, str | int] = {}
    name = os.fsencode(Path(firmware).name).decode(errors="replace")
    if firmware != "-" and name:
        more["firmware_file"] = name
    if manifest is not None:
        more["guest_policy"] = f"{manifest.guest_policy:#x}"
    tail = ""
    if version is not None:
        more["kubevirt"] = "v" + ".".join(map(str, version))
        tail = f", KubeVirt {more['kubevirt']}"
    return ReferenceSet(
        tuple(
            replace(
                entry,
                label=entry.label + tail,
                parameters={**entry.parameters, **_fitting(entry, more)},
            )
            for entry in references.entries
        )
    )


def _fitting(entry: Reference, more: dict[str, str | int]) -> dict[str, str | int]:
    """Leave out the name of a file whose bytes are not what was measured (--firmware-hash)."""
    if entry.firmware_sha256 is None:
        return {name: value for name, value in more.items() if name != "firmware_file"}
    return more


def extended(references: ReferenceSet, path: str | None) -> ReferenceSet:
    """Return the set in ``path``, if any, with these entries after it, each once."""
    earlier = () if path is None else (read_reference_set(path),)
    return join_reference_sets((*earlier, references))
