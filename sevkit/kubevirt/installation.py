"""What one KubeVirt resource says of its installation; None is "not known" everywhere. Pure.

A feature gate is decided as KubeVirt decides it: on if it is in ``featureGates``, even if it is in
``disabledFeatureGates`` too; else off if it is there; else by the gate's stage in this version. So
the same resource means something else to another version, and an operator that writes every gate it
does not know into ``disabledFeatureGates`` (HCO does) turns off what is on by default.

Sources: KubeVirt ``pkg/virt-config`` (``featuregate.IsEnabled``, ``setConfigFromKubeVirt``, and
the defaults of v1.0.0 to v1.9.0), ``api/core/v1`` KubeVirt.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, final

from sevkit.errors import FormatError
from sevkit.kubevirt.json_patch import member

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sevkit.documents import Json

ENCRYPTION_GATE: Final = "WorkloadEncryptionSEV"
REBOOT_GATE: Final = "RebootPolicy"
ENABLED_LIST: Final = "featureGates"
DISABLED_LIST: Final = "disabledFeatureGates"
#: The first KubeVirt whose launchSecurity has snp; one before drops the field, and refuses.
SNP_SINCE: Final = (1, 7, 0)
_DEVELOPER: Final = ("spec", "configuration", "developerConfiguration")
#: KubeVirt's own, where the resource names none.
_EVICTION: Final = "None"
_VERSION: Final = re.compile(r"v?([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,4})(-[A-Za-z].*)?(?:[-+].*)?")
#: Fields of the status that hold a version, the one that runs first.
_VERSIONS: Final = ("observedKubeVirtVersion", "targetKubeVirtVersion", "operatorVersion")

Version: TypeAlias = tuple[int, int, int]


@final
@dataclass(frozen=True, slots=True)
class Installation:
    """One KubeVirt: its version, and what its configuration decides for confidential guests.

    ``encryption`` and ``reboot_policy`` are the feature gates WorkloadEncryptionSEV and
    RebootPolicy, ``eviction_strategy`` the cluster's default, ``architecture`` the one of VMIs that
    name none.
    """

    version: Version | None
    encryption: bool | None
    reboot_policy: bool | None
    eviction_strategy: str | None
    architecture: str | None


UNKNOWN: Final = Installation(None, None, None, None, None)


class Release(NamedTuple):
    """A version of KubeVirt. ``early`` is one before the release, such as v1.9.0-rc.1."""

    version: Version
    early: bool = False

    def since(self, version: Version) -> bool | None:
        """Return whether it has what came with ``version``; not known of one just before that."""
        return None if self.early and self.version == version else self.version >= version


class Gate(NamedTuple):
    """What is known of a feature gate, and what decides it, for people."""

    enabled: bool | None
    because: str


class _Stages(NamedTuple):
    """Since which version a gate exists, and since which it is on by default (Beta)."""

    exists: Version
    default: Version


_STAGES: Final[Mapping[str, _Stages]] = {
    ENCRYPTION_GATE: _Stages((0, 49, 0), (1, 9, 0)),
    REBOOT_GATE: _Stages((1, 8, 0), (1, 9, 0)),
}


def parse_installation(document: Mapping[str, Json]) -> Installation:
    """Return what a KubeVirt resource says. Raises nothing: what is ill-formed says nothing."""
    release = parse_release(document)
    return Installation(
        version=None if release is None else release.version,
        encryption=decide_gate(document, ENCRYPTION_GATE).enabled,
        reboot_policy=decide_gate(document, REBOOT_GATE).enabled,
        eviction_strategy=_text(document, _EVICTION, "spec", "configuration", "evictionStrategy"),
        architecture=_text(document, "", "status", "defaultArchitecture") or None,
    )


def parse_release(document: Mapping[str, Json]) -> Release | None:
    """Return the version that runs, else the one that is being installed; None for no number."""
    for key in _VERSIONS:
        found = _VERSION.fullmatch(_text(document, "", "status", key) or "")
        if found is not None:
            major, minor, patch = map(int, found.group(1, 2, 3))
            return Release((major, minor, patch), found[4] is not None)
    return None


def decide_gate(document: Mapping[str, Json], name: str) -> Gate:
    """Return whether a gate, one of the two that matter here, is on, and why.

    Raises nothing; a list that is ill-formed makes it not known.
    """
    stages, release = _STAGES[name], parse_release(document)
    if release is not None and release.since(stages.exists) is False:
        return Gate(False, f"KubeVirt has it since {_words(stages.exists)}")  # noqa: FBT003  # a table's cell
    for key, answer in ((ENABLED_LIST, True), (DISABLED_LIST, False)):
        gates = _gates(document, key)
        if gates is None:
            return Gate(None, f"{key} is no list of names")
        if name in gates:
            return Gate(answer, f"it is in {key}")
    if release is None:
        return Gate(None, "it is in neither list, and KubeVirt's version is not known")
    by_default = release.since(stages.default)
    if by_default is None:
        return Gate(
            None, f"it is in neither list, and this is just before {_words(stages.default)}"
        )
    word = "on" if by_default else "off"
    return Gate(by_default, f"it is in neither list, and {word} by default in this version")


def _words(version: Version) -> str:
    return ".".join(map(str, version[:2]))


def _gates(document: Mapping[str, Json], key: str) -> frozenset[str] | None:
    """Return a list's names, empty where there is none, None where it is ill-formed."""
    try:
        found = member(document, *_DEVELOPER, key)
    except FormatError:
        return None
    names = [] if found is None else found
    if not isinstance(names, list):
        return None
    texts = frozenset(name for name in names if isinstance(name, str))
    return texts if all(isinstance(name, str) for name in names) else None


def _text(document: Mapping[str, Json], default: str, *parts: str) -> str | None:
    """Return a text, ``default`` where it is missing, None where something is ill-formed."""
    try:
        found = member(document, *parts)
    except FormatError:
        return None
    if found is None:
        return default
    return found if isinstance(found, str) else None
