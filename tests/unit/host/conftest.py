"""A host in a folder, probed and judged as an agent would."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sevkit.host.capabilities import decide
from sevkit.host.capability import State, Technology
from sevkit.host.doctor.catalogue import CATALOGUE
from sevkit.host.doctor.check import Verdict, examine
from sevkit.host.probe import probe_host
from sevkit.host.sources import open_host
from sevkit.testing.host.defects import with_defects
from sevkit.testing.host.write import write_host

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sevkit.host.facts import HostFacts


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    """Return the root of a simulated host, written anew."""

    def write(preset: str, *defects: str) -> Path:
        root = tmp_path / "-".join([preset, *defects])
        write_host(with_defects(preset, defects), root)
        return root

    return write


@pytest.fixture
def facts_of(tree: Callable[..., Path]) -> Callable[..., HostFacts]:
    """Return the facts of a simulated host."""

    def probe(preset: str, *defects: str) -> HostFacts:
        return _facts_at(tree(preset, *defects))

    return probe


@pytest.fixture
def facts_at() -> Callable[[Path], HostFacts]:
    """Return the facts of the tree at a root."""
    return _facts_at


@pytest.fixture
def answers_at() -> Callable[[Path], tuple[str, ...]]:
    """Return state and reason of SEV, SEV-ES and SEV-SNP of the tree at a root.

    Holds that what the doctor's checks say is nothing else.
    """
    return _answers_at


def _answers_at(root: Path) -> tuple[str, ...]:
    facts = _facts_at(root)
    found, said = decide(facts), []
    results = examine(facts, found, CATALOGUE)
    assert all(result.value or result.detail for result in results)
    for technology in Technology:
        one = found.of(technology)
        needed = {result.verdict for result in results if technology in result.check.needs}
        if one.state is State.USABLE:
            assert Verdict.FAIL not in needed, technology
        elif one.state.label is False:
            assert needed & {Verdict.FAIL, Verdict.WARN}, (technology, one.reason)
        assert bool(one.hint) is (one.state is not State.USABLE)
        said.append(one.state.value if one.state is State.USABLE else f"{one.state} {one.reason}")
    return tuple(said)


def _facts_at(root: Path) -> HostFacts:
    with open_host(str(root)) as source:
        return probe_host(source)
