from __future__ import annotations

import copy
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, final

import pytest

from hack.preflight_documents import (
    authority,
    binding,
    choices,
    claims,
    definition,
    endpoints,
    kubevirt,
    mutating,
    policies,
    service,
    validating,
)
from sevkit.kubevirt.preflight.catalogue import CATALOGUE, GROUPS
from sevkit.kubevirt.preflight.check import examine, exit_code
from sevkit.kubevirt.preflight.guests import Guests
from sevkit.kubevirt.preflight.survey import Survey

if TYPE_CHECKING:
    from sevkit.kubevirt.preflight.check import Result

NOW: Final = datetime(2026, 11, 25, 12, tzinfo=UTC)
BUNDLE: Final = authority(now=NOW)

ES: Final = {"sevkit.io__sev-es": "true", "kubevirt.io__sev-es": "true"}
READY: Final = Survey(
    NOW,
    version={"gitVersion": "v1.34.2"},
    kubevirts=(kubevirt(),),
    definition=definition(),
    mutating=mutating(BUNDLE),
    kubevirt_mutating={},
    validating=validating(BUNDLE),
    choices=choices(),
    service=service(),
    slices=(endpoints("10.0.0.1", "10.0.0.2"),),
    policies={one["metadata"]["name"]: one for one in policies()},
    bindings=tuple(binding(one["metadata"]["name"]) for one in policies()),
    nodes=(claims("a"), claims("b", **ES)),
    namespaces={"team": "snp"},
    guests=Guests(3, ()),
)


@final
class Cluster:
    """A cluster that is ready, to be broken: its survey, and what the checks make of it."""

    def __init__(self) -> None:
        self.survey: Survey = copy.deepcopy(READY)

    def change(self, **changes: Any) -> None:  # noqa: ANN401  # a survey's fields
        self.survey = replace(self.survey, **changes)

    def results(self) -> dict[str, Result]:
        return {one.check.name: one for one in examine(self.survey, CATALOGUE, GROUPS)}

    def result(self, name: str) -> Result:
        return self.results()[name]

    def odd(self) -> dict[str, str]:
        """Return every verdict but pass."""
        return {
            name: one.verdict.value
            for name, one in self.results().items()
            if one.verdict.value != "pass"
        }

    @property
    def code(self) -> int:
        return exit_code(self.results().values())


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()
