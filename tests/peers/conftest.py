"""Where the peers are, and simulated roots for those that judge certificates."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from hack import debian
from sevkit.abi.product import SNP_LINES, ProductLine
from sevkit.testing.snp_chain import SimulatedRoots

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


@pytest.fixture(scope="session")
def find_program() -> Callable[[str, str], Path]:
    """Returns the path of a peer's program; skips the test if the peer is not installed."""
    folder = debian.cache_folder("SEVKIT_PEERS", "peers")

    def find(peer: str, program: str) -> Path:
        path = folder / peer / "bin" / program
        if not os.access(path, os.X_OK):
            why = debian.read_record(folder).get(peer, {}).get("reason", "hack/peers installs it")
            pytest.skip(f"no {peer} in {folder}: {why}")
        return path

    return find


@pytest.fixture(scope="session")
def ask() -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Runs a program with words and bytes on its stdin."""

    def run(
        program: Path, *words: str | Path, data: bytes = b"", cwd: Path | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [program, *words], input=data, cwd=cwd, capture_output=True, check=False, timeout=60
        )

    return run


@pytest.fixture(scope="session")
def roots_of() -> Mapping[ProductLine, SimulatedRoots]:
    """Simulated roots of every line; the keys are Milan's, because making some takes seconds."""
    milan = SimulatedRoots(ProductLine.MILAN)
    made = {line: SimulatedRoots(line) for line in SNP_LINES}
    for roots in made.values():
        roots.ark_key, roots.ask_key, roots.asvk_key = milan.ark_key, milan.ask_key, milan.asvk_key
    return made
