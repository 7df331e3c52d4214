"""What one KubeVirt resource says of its installation; None is "not known" everywhere. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final


@final
@dataclass(frozen=True, slots=True)
class Installation:
    """One KubeVirt: its version, and what its configuration decides for confidential guests.

    ``encryption`` and ``reboot_policy`` are the feature gates WorkloadEncryptionSEV and
    RebootPolicy, ``live_update`` the rollout strategy, ``eviction_strategy`` the cluster's default,
    ``architecture`` the one of VMIs that name none.
    """

    version: tuple[int, int, int] | None
    encryption: bool | None
    reboot_policy: bool | None
    live_update: bool | None
    eviction_strategy: str | None
    architecture: str | None


UNKNOWN: Final = Installation(None, None, None, None, None, None)
