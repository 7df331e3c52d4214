"""Simulated SEV hardware, made once for each run: RSA keys are slow to make."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sevkit.testing.sev_chain import make_platform, make_roots

if TYPE_CHECKING:
    from sevkit.testing.sev_chain import SimulatedPlatform, SimulatedRoots


@pytest.fixture(scope="session")
def sev_roots() -> SimulatedRoots:
    """An ARK and an ASK of our own, 2048 bits as Naples has."""
    return make_roots()


@pytest.fixture(scope="session")
def sev_platform(sev_roots: SimulatedRoots) -> SimulatedPlatform:
    """One platform under them, with all its private keys."""
    return make_platform(sev_roots)
