"""Any request to /dev/sev, with anything in the caller's memory, has an answer that Linux gives."""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Final

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sevkit.abi.firmware_status import FirmwareStatus
from sevkit.abi.product import Product, ProductLine
from sevkit.testing.driver import ENOTSUPP, SEV_ISSUE_CMD, SevDevice
from sevkit.testing.secure_processor.core import AsidRange
from sevkit.testing.secure_processor.identity import ChipIdentity
from sevkit.testing.secure_processor.processor import SecureProcessor
from sevkit.testing.sev_chain import make_roots
from sevkit.testing.snp_chain import SimulatedRoots

if TYPE_CHECKING:
    from collections.abc import Callable

BASE, SIZE = 0x10_0000, 0x8000
KNOWN: Final = {
    0,
    errno.EINVAL,
    errno.EPERM,
    errno.EFAULT,
    errno.EIO,
    errno.EBUSY,
    errno.ETIMEDOUT,
    errno.ENODEV,
    errno.ENOMEM,
    ENOTSUPP,
}
#: What is refused before the firmware was asked leaves the caller's own error.
ONLY_LINUX: Final = {errno.EINVAL, errno.EPERM, errno.ENOMEM, ENOTSUPP}


@dataclass
class Memory:
    """A process' memory of one range."""

    data: bytearray = field(default_factory=lambda: bytearray(SIZE))

    def read(self, address: int, size: int) -> bytes:
        self._check(address, size)
        return bytes(self.data[address - BASE : address - BASE + size])

    def write(self, address: int, data: bytes) -> None:
        self._check(address, len(data))
        self.data[address - BASE : address - BASE + len(data)] = data

    @staticmethod
    def _check(address: int, size: int) -> None:
        if not BASE <= address <= BASE + SIZE - size:
            raise OSError(errno.EFAULT, "unmapped")


@dataclass(frozen=True)
class Request:
    """One ioctl, and what happens before it."""

    number: int
    command: int
    address: int
    structure: bytes
    error: int
    writable: bool
    event: str


WORDS: Final = st.sampled_from(
    (0, 1, 15, 16, 63, 64, 2083, 2084, 6252, 0x4000, 0x4001, 0x8000, (1 << 32) - 1)
)
ADDRESSES: Final = st.sampled_from(
    (0, 1, BASE, BASE + 0x100, BASE + 0x1000, BASE + 0x3000, BASE + SIZE - 4, BASE + SIZE, 1 << 63)
)
STRUCTURES: Final = st.binary(max_size=80) | st.builds(
    lambda a, b, c, d: struct.pack("<QIQI", a, b, c, d), ADDRESSES, WORDS, ADDRESSES, WORDS
)


@cache
def chip(product: Product) -> ChipIdentity:
    roots = SimulatedRoots(product.line) if product.line is not ProductLine.ROME else None
    return ChipIdentity(product, make_roots(), roots)


def bring_up(processor: SecureProcessor) -> None:
    if processor.core.line.snp and not (processor.core.snp_initialized or processor.sev.state):
        processor.snp.init()


def start_guest(processor: SecureProcessor) -> None:
    if processor.sev.state:
        processor.sev_guests.launch_start(1)


HWERROR: Final = FirmwareStatus.HWERROR_PLATFORM
#: What may happen to a platform between two requests, by its name.
HAPPENINGS: Final[dict[str, Callable[[SecureProcessor], object]]] = {
    "up": bring_up,
    "guest": start_guest,
    "down": lambda processor: processor.sev.shutdown(),
    "spoil": lambda processor: processor.sev.spoil_store(),
    "hang": lambda processor: processor.faults.hang("PDH_GEN"),
    "fail": lambda processor: processor.faults.fail("INIT", HWERROR, times=1),
    "misreport": lambda processor: processor.faults.misreport_length("GET_ID", 9),
    "heal": lambda processor: processor.faults.heal(),
}
REQUESTS: Final = st.builds(
    Request,
    number=st.sampled_from((SEV_ISSUE_CMD,) * 9 + (0xC010_5301,)),
    command=st.sampled_from((*range(13), *range(13), 13, 14, (1 << 32) - 1)),
    address=ADDRESSES | st.integers(0, (1 << 64) - 1),
    structure=STRUCTURES,
    error=st.integers(0, (1 << 32) - 1),
    writable=st.sampled_from((True, True, False)),
    event=st.sampled_from(("", "", "", "heal", *HAPPENINGS)),
)


def happen(processor: SecureProcessor, event: str) -> None:
    """Let something happen to the platform; nothing but being healed happens to a dead one."""
    if event and (event == "heal" or not processor.faults.dead):
        HAPPENINGS[event](processor)


@settings(max_examples=200)
@given(
    product=st.sampled_from((Product.MILAN, Product.ROME)),
    kernel=st.sampled_from(((6, 12), (6, 16), (7, 1))),
    snp=st.booleans(),
    requests=st.lists(REQUESTS, min_size=1, max_size=12),
)
@example(
    product=Product.MILAN,
    kernel=(6, 12),
    snp=True,
    requests=[Request(SEV_ISSUE_CMD, 1, BASE, b"", 7, writable=False, event="")],
)
def test_every_request_has_one_of_linuxs_answers(
    product: Product, kernel: tuple[int, int], snp: bool, requests: list[Request]
) -> None:
    processor = SecureProcessor(chip(product), asids=AsidRange(4, 3))
    device = SevDevice(processor, kernel=kernel, snp=snp)
    memory = Memory()
    for request in requests:
        happen(processor, request.event)
        memory.data[: len(request.structure)] = request.structure
        argument = struct.pack("<IQI", request.command, request.address, request.error)
        reply = device.ioctl(request.number, argument, memory, writable=request.writable)
        number = -reply.result
        assert number in KNOWN
        if request.number != SEV_ISSUE_CMD or request.command > 12:
            assert (number, reply.data) == (errno.EINVAL, b"")
            continue
        assert len(reply.data) == 16
        assert reply.data[:12] == argument[:12]
        error = struct.unpack_from("<I", reply.data, 12)[0]
        assert error == request.error or error in set(FirmwareStatus)
        assert number != 0 or error == 0
        assert number not in ONLY_LINUX or error == request.error
        assert number != errno.EIO or error != 0
        assert len(memory.data) == SIZE
