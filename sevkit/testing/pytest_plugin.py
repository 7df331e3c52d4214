"""Pytest fixtures of simulated SEV hardware, there for every project that has sevkit installed.

    def test_my_verifier(sevkit_kvm):
        kvm = sevkit_kvm("Genoa")                      # a host with an initialised secure processor
        ...

Nothing heavy is imported before a fixture is used, because pytest loads this in every run. Keys of
4096 bits cost seconds: there is one simulated AMD for each run (``sevkit_amd``), and its lines'
keys are made when a chip of the line is first asked for. Chips are fresh each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sevkit.testing.key_service import SimulatedKeyService
    from sevkit.testing.secure_processor.core import AsidRange, Firmware
    from sevkit.testing.secure_processor.processor import SecureProcessor
    from sevkit.testing.simulated_amd import SimulatedAmd
    from sevkit.testing.virtual_machine import SimulatedKvm


@pytest.fixture(scope="session")
def sevkit_amd() -> SimulatedAmd:
    """Give simulated AMD: root keys of every line, made when needed."""
    from sevkit.testing.simulated_amd import SimulatedAmd  # noqa: PLC0415  # see above

    return SimulatedAmd()


@pytest.fixture(scope="session")
def sevkit_processor(sevkit_amd: SimulatedAmd) -> Callable[..., SecureProcessor]:
    """Make a secure processor: ``sevkit_processor("Milan", firmware=…, asids=…)``."""
    from sevkit.abi.product import Product  # noqa: PLC0415  # see above
    from sevkit.testing.secure_processor.processor import (  # noqa: PLC0415  # see above
        SecureProcessor,
    )

    def make(
        product: str, *, firmware: Firmware | None = None, asids: AsidRange | None = None
    ) -> SecureProcessor:
        return SecureProcessor(sevkit_amd.make_chip(Product(product)), firmware, asids=asids)

    return make


@pytest.fixture(scope="session")
def sevkit_kvm(sevkit_processor: Callable[..., SecureProcessor]) -> Callable[..., SimulatedKvm]:
    """Make a host's KVM over a new processor, initialised; options as ``sevkit_processor``.

    ``snp=False`` leaves SNP off, so that SEV-ES is not blocked by newer firmware.
    """
    from sevkit.testing.virtual_machine import SimulatedKvm  # noqa: PLC0415  # see above

    def make(
        product: str,
        *,
        snp: bool = True,
        firmware: Firmware | None = None,
        asids: AsidRange | None = None,
    ) -> SimulatedKvm:
        return SimulatedKvm(sevkit_processor(product, firmware=firmware, asids=asids), snp=snp)

    return make


@pytest.fixture
def sevkit_key_service() -> Iterator[Callable[..., SimulatedKeyService]]:
    """Start a key service: ``sevkit_key_service(kvm.processor, …)``; it ends with the test."""
    from contextlib import ExitStack  # noqa: PLC0415  # see above

    from sevkit.testing.key_service import (  # noqa: PLC0415  # see above
        SimulatedKeyService,
        processor_provider,
    )

    with ExitStack() as stack:

        def start(*processors: SecureProcessor) -> SimulatedKeyService:
            return stack.enter_context(SimulatedKeyService(processor_provider(*processors)))

        yield start


@pytest.fixture
def sevkit_host(tmp_path: Path) -> Callable[..., Path]:
    """Write a simulated host's root: ``sevkit_host("milan", "smee-off")`` returns the folder."""
    from sevkit.testing.host import with_defects, write_host  # noqa: PLC0415  # see above

    def write(preset: str, *defects: str) -> Path:
        root = tmp_path / "-".join((preset, *defects))
        write_host(with_defects(preset, defects), root)
        return root

    return write
