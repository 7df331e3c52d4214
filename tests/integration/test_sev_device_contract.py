"""/dev/sev as Linux promises it: on simulated devices of every kind, and on this machine's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.abi.product import Product
from sevkit.testing.contracts.sev_device import SevDeviceContract
from sevkit.testing.device.mount import FuseDevices, unavailable_reason
from sevkit.testing.driver import SevDevice
from sevkit.testing.secure_processor.processor import SecureProcessor
from sevkit.testing.simulated_amd import SimulatedAmd

if TYPE_CHECKING:
    from collections.abc import Iterator

OURS: Final = Path("/dev/sev")


HOSTS: Final = (("Naples", (6, 12)), ("Rome", (7, 1)), ("Milan", (6, 12)), ("Milan", (7, 1)))


@pytest.fixture(scope="module")
def amd() -> SimulatedAmd:
    """Keys for every host here."""
    return SimulatedAmd()


@pytest.fixture(
    scope="module", params=HOSTS, ids=lambda host: f"{host[0]}, Linux {host[1][0]}.{host[1][1]}"
)
def simulated(request: pytest.FixtureRequest, amd: SimulatedAmd) -> Iterator[Path]:
    """A simulated host's device file."""
    name, kernel = request.param
    processor = SecureProcessor(amd.make_chip(Product(name)))
    if processor.core.line.snp:
        processor.snp.init()
    processor.sev.init(es=True)
    with FuseDevices({"sev": SevDevice(processor, kernel=kernel)}) as devices:
        yield devices.path / "sev"


@pytest.mark.skipif(unavailable_reason() is not None, reason=f"{unavailable_reason()}")
class TestSimulated(SevDeviceContract):
    @pytest.fixture
    def sev_path(self, simulated: Path) -> Path:
        return simulated


if os.access(OURS, os.R_OK):

    class TestOurs(SevDeviceContract):
        @pytest.fixture
        def sev_path(self) -> Path:
            return OURS
