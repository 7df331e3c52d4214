"""A simulated SNP guest: its driver, and both doors to it, in this very process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.abi.certtable import ARK, ASK, VCEK, encode_cert_table
from sevkit.abi.product import Product, ProductLine
from sevkit.guest.patience import Patience
from sevkit.guest.report import ReportRequest
from sevkit.measure.vcpu import Registers
from sevkit.testing.device.linux import ProcessMemory
from sevkit.testing.firmware import FirmwareImage, encode_firmware
from sevkit.testing.secure_processor.identity import ChipIdentity
from sevkit.testing.secure_processor.processor import SecureProcessor
from sevkit.testing.snp_chain import SimulatedRoots
from sevkit.testing.snp_guest_driver import GuestDriver, SevGuestDevice
from sevkit.testing.virtual_machine import Machine, SimulatedKvm

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.guest.device import Ioctl
    from sevkit.testing import sev_chain

_MACHINE: Final = Machine(encode_firmware(FirmwareImage()), 1, Registers(0xA00F11, 1))


@pytest.fixture
def kvm(sev_roots: sev_chain.SimulatedRoots) -> SimulatedKvm:
    roots = SimulatedRoots(ProductLine.MILAN)  # their keys are never made: nothing asks for a chain
    return SimulatedKvm(SecureProcessor(ChipIdentity(Product.MILAN, sev_roots, roots)))


@pytest.fixture
def driver_at(kvm: SimulatedKvm) -> Callable[..., GuestDriver]:
    """Return the driver of a new guest at a VMPL."""

    def make(vmpl: int = 0, table: bytes = b"") -> GuestDriver:
        return GuestDriver(kvm, kvm.launch_snp(_MACHINE), vmpl=vmpl, table=table)

    return make


@pytest.fixture
def driver(driver_at: Callable[..., GuestDriver]) -> GuestDriver:
    return driver_at()


@pytest.fixture(scope="session")
def table() -> bytes:
    """What a host may add; certificates are not looked at here."""
    return encode_cert_table({VCEK: b"vcek" * 300, ASK: b"ask" * 400, ARK: b"ark" * 500})


@pytest.fixture
def asked() -> ReportRequest:
    return ReportRequest(os.urandom(64))


@pytest.fixture(scope="session")
def ioctl_of() -> Callable[[GuestDriver], Ioctl]:
    """Return the ioctls of a driver's device, which finds the pointers in this process."""

    def make(driver: GuestDriver) -> Ioctl:
        device, memory = SevGuestDevice(driver), ProcessMemory(os.getpid())

        def ioctl(request: int, argument: bytearray) -> int:
            reply = device.ioctl(request, bytes(argument), memory, writable=False)
            argument[: len(reply.data)] = reply.data
            if reply.result < 0:
                raise OSError(-reply.result, os.strerror(-reply.result))
            return reply.result

        return ioctl

    return make


@pytest.fixture
def slept() -> list[float]:
    """What was slept, in seconds; no other time passes."""
    return []


@pytest.fixture
def patience(slept: list[float]) -> Patience:
    return Patience(30, sleep=slept.append, now=lambda: sum(slept))
