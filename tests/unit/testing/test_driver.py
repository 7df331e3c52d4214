"""What a process sees at /dev/sev: errno, the firmware's error, and what was written where."""

from __future__ import annotations

import errno
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from sevkit.abi.firmware_status import FirmwareStatus
from sevkit.abi.platform_status import (
    PlatformState,
    StatusFlags,
    parse_platform_status,
    parse_snp_platform_status,
)
from sevkit.abi.product import Product
from sevkit.abi.report import FirmwareVersion
from sevkit.abi.sevcert import BODY_SIZE, Algorithm, Usage
from sevkit.testing.driver import ENOTSUPP, SEV_ISSUE_CMD, SevDevice
from sevkit.testing.secure_processor.core import Firmware
from sevkit.testing.secure_processor.identity import Vlek
from sevkit.testing.sev_chain import certify, sign_ecdsa

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.testing.secure_processor.processor import SecureProcessor

    ProcessorOf = Callable[..., SecureProcessor]

S: Final = FirmwareStatus
BASE, SIZE = 0x10_0000, 0x1_0000
OUTSIDE: Final = BASE + SIZE
AT, BLOB, BLOB2 = BASE, BASE + 0x1000, BASE + 0x6000
UNTOUCHED: Final = 0xDEAD_BEEF
OLD, NEW, NEWEST = (6, 12), (6, 16), (7, 1)
RESET, STATUS, PEK_GEN, PEK_CSR, PDH_GEN, EXPORT, IMPORT, GET_ID, GET_ID2 = range(9)
SNP_STATUS, COMMIT, CONFIG, VLEK_LOAD, NONE = range(9, 14)
E: Final = errno
OK: Final = 0


@dataclass
class Memory:
    """A process' memory: one range is mapped, and parts of it may be read only."""

    data: bytearray = field(default_factory=lambda: bytearray(SIZE))
    read_only: tuple[int, ...] = ()

    def read(self, address: int, size: int) -> bytes:
        if not BASE <= address <= OUTSIDE - size:
            raise OSError(errno.EFAULT, "unmapped")
        return bytes(self.data[address - BASE : address - BASE + size])

    def write(self, address: int, data: bytes) -> None:
        if not BASE <= address <= OUTSIDE - len(data) or address in self.read_only:
            raise OSError(errno.EFAULT, "unmapped or read only")
        self.data[address - BASE : address - BASE + len(data)] = data


@dataclass
class Client:
    """A process with /dev/sev open."""

    device: SevDevice
    memory: Memory = field(default_factory=Memory)
    writable: bool = True

    def issue(self, command: int, address: int = AT) -> tuple[int, int]:
        """Return errno and the request's error after one ioctl."""
        argument = struct.pack("<IQI", command, address, UNTOUCHED)
        reply = self.device.ioctl(SEV_ISSUE_CMD, argument, self.memory, writable=self.writable)
        if not reply.data:
            return -reply.result, UNTOUCHED
        assert reply.data[:12] == argument[:12]
        return -reply.result, struct.unpack_from("<I", reply.data, 12)[0]

    def put(self, layout: str, *values: object, at: int = AT) -> None:
        self.memory.write(at, struct.pack(layout, *values))

    def get(self, layout: str, at: int = AT) -> tuple[int, ...]:
        return struct.unpack(layout, self.memory.read(at, struct.calcsize(layout)))


def client(processor: SecureProcessor, kernel: tuple[int, int] = OLD, **options: bool) -> Client:
    return Client(SevDevice(processor, kernel=kernel, **options))


def initialise(processor: SecureProcessor) -> None:
    processor.snp.init()
    processor.snp.df_flush()
    processor.sev.init(es=True)
    processor.sev.df_flush()


def take_down(processor: SecureProcessor) -> None:
    processor.sev.shutdown()
    processor.snp.df_flush()
    processor.snp.shutdown()


def arm(caller: Client) -> dict[int, int]:
    """Write arguments with which every command can succeed; return their addresses."""
    processor = caller.device.processor
    key = ec.generate_private_key(ec.SECP384R1())
    oca = certify(Usage.OCA, Algorithm.ECDSA_SHA256, key, {Usage.OCA: key})
    csr = processor.sev.pek_csr()
    slot = struct.pack("<II", Usage.OCA, Algorithm.ECDSA_SHA256)
    pek = csr[:BODY_SIZE] + slot + sign_ecdsa(key, csr[:BODY_SIZE]) + csr[BODY_SIZE + 520 :]
    roots = processor.identity.snp_roots
    assert roots is not None
    stick = processor.identity.seal_hashstick(Vlek(roots, processor.snp.reported_tcb))
    caller.memory.write(BLOB, pek)
    caller.memory.write(BLOB2, oca)
    caller.memory.write(BLOB2 + 0x1000, stick)
    caller.put("<QI", BLOB + 0x1000, 2084, at=AT + 0x100)
    caller.put("<QIQI", BLOB + 0x1000, 2084, BLOB2 + 0x2000, 6252, at=AT + 0x200)
    caller.put("<QIQI", BLOB, 2084, BLOB2, 2084, at=AT + 0x300)
    caller.put("<QI", BLOB + 0x2000, 64, at=AT + 0x400)
    caller.put("<QI52x", 0, 1, at=AT + 0x500)
    caller.put("<IB3xQ", 16, 0, BLOB2 + 0x1000, at=AT + 0x600)
    places = (0, AT, 0, AT + 0x100, 0, AT + 0x200, AT + 0x300, AT, AT + 0x400)
    return dict(enumerate((*places, AT, 0, AT + 0x500, AT + 0x600, AT)))


# (command, kernels): errno of O_RDONLY and O_RDWR with nothing initialised, and with everything
W = ((E.EPERM, OK), (E.EPERM, OK))
ANYBODY = ((OK, OK), (OK, OK))
EVERY = (OLD, NEW, NEWEST)
MATRIX: Final = (
    (RESET, EVERY, W),
    (STATUS, EVERY, ANYBODY),
    (PEK_GEN, EVERY, W),
    (PEK_CSR, EVERY, W),
    (PDH_GEN, EVERY, W),
    (EXPORT, EVERY, ((E.EPERM, OK), (OK, OK))),
    (IMPORT, EVERY, W),
    (GET_ID, EVERY, ANYBODY),
    (GET_ID2, EVERY, ANYBODY),
    (SNP_STATUS, (OLD,), ((E.EINVAL, E.EINVAL), (OK, OK))),
    (SNP_STATUS, (NEW, NEWEST), ANYBODY),
    (COMMIT, (OLD,), ((E.EINVAL, E.EINVAL), (OK, OK))),
    (COMMIT, (NEW, NEWEST), ANYBODY),
    (CONFIG, (OLD,), ((E.EINVAL, E.EINVAL), (E.EPERM, OK))),
    (CONFIG, (NEW, NEWEST), W),
    (VLEK_LOAD, (OLD,), ((E.EINVAL, E.EINVAL), (E.EPERM, OK))),
    (VLEK_LOAD, (NEW, NEWEST), W),
    (NONE, EVERY, ((E.EINVAL, E.EINVAL), (E.EINVAL, E.EINVAL))),
)


@pytest.mark.parametrize("kernel", EVERY, ids=str)
def test_who_may_issue_what(processor_of: ProcessorOf, kernel: tuple[int, int]) -> None:
    seen, expected = {}, {}
    for command, kernels, rows in MATRIX:
        if kernel not in kernels:
            continue
        for up, row in enumerate(rows):
            for writable, wanted in enumerate(row):
                processor = processor_of()
                initialise(processor)
                caller = client(processor, kernel)
                caller.writable = bool(writable)
                address = arm(caller)[command]
                if not up:
                    take_down(processor)
                processor.core.log.clear()
                cell = (command, up, writable)
                number, error = caller.issue(command, address)
                seen[cell] = (number, error, bool(processor.core.log))
                # what Linux refuses by itself never reaches the firmware
                expected[cell] = (wanted, UNTOUCHED, False) if wanted else (OK, 0, True)
    assert len(seen) == 14 * 4
    assert seen == expected


@pytest.mark.parametrize(
    ("kernel", "log", "left"),
    [
        (OLD, ["INIT", "DF_FLUSH", "PDH_GEN"], PlatformState.INIT),
        (
            NEW,
            ["SNP_INIT", "SNP_DF_FLUSH", "INIT", "DF_FLUSH", "PDH_GEN", "SHUTDOWN", "SNP_SHUTDOWN"],
            PlatformState.UNINIT,
        ),
    ],
)
def test_a_command_finds_the_platform_initialised(
    milan: SecureProcessor, kernel: tuple[int, int], log: list[str], left: PlatformState
) -> None:
    assert client(milan, kernel).issue(PDH_GEN) == (OK, 0)
    assert list(milan.core.log) == log
    assert milan.sev.status().state is left
    assert not milan.core.snp_initialized


def test_a_platform_that_is_up_stays_up(snp: SecureProcessor) -> None:
    snp.sev.init()
    snp.core.log.clear()
    assert client(snp, NEW).issue(PEK_GEN) == (OK, 0)
    assert list(snp.core.log) == ["PEK_GEN"]
    assert snp.core.snp_initialized


def test_sev_es_is_turned_on_unless_told_otherwise(milan: SecureProcessor) -> None:
    SevDevice(milan).ioctl(
        SEV_ISSUE_CMD, struct.pack("<IQI", PDH_GEN, 0, 0), Memory(), writable=True
    )
    assert milan.sev.status().flags & StatusFlags.CONFIG_ES


@pytest.mark.parametrize("es", [False, True])
def test_an_implicit_init_turns_sev_es_on_where_it_can(milan: SecureProcessor, es: bool) -> None:
    client(milan, es=es).issue(PDH_GEN)
    assert bool(milan.sev.status().flags & StatusFlags.CONFIG_ES) is es


@pytest.mark.parametrize("request_number", [0, SEV_ISSUE_CMD + 1, 0xC010_AE00])
def test_another_request_is_no_command(milan: SecureProcessor, request_number: int) -> None:
    reply = SevDevice(milan).ioctl(request_number, bytes(16), Memory(), writable=True)
    assert (reply.result, reply.data) == (-E.EINVAL, b"")


@pytest.mark.parametrize("size", [0, 15, 17])
def test_a_request_has_16_bytes(milan: SecureProcessor, size: int) -> None:
    reply = SevDevice(milan).ioctl(SEV_ISSUE_CMD, bytes(size), Memory(), writable=True)
    assert (reply.result, reply.data) == (-E.EINVAL, b"")


@pytest.mark.parametrize("command", [13, 14, 0xFFFF_FFFF])
def test_a_command_that_is_none_copies_nothing_back(milan: SecureProcessor, command: int) -> None:
    argument = struct.pack("<IQI", command, AT, UNTOUCHED)
    reply = SevDevice(milan).ioctl(SEV_ISSUE_CMD, argument, Memory(), writable=True)
    assert (reply.result, reply.data) == (-E.EINVAL, b"")


@pytest.mark.parametrize("state", list(PlatformState))
def test_a_reset_shuts_down_first_and_spares_guests(
    milan: SecureProcessor, state: PlatformState
) -> None:
    if state is not PlatformState.UNINIT:
        milan.sev.init()
    if state is PlatformState.WORKING:
        milan.sev_guests.launch_start(1)
    milan.core.log.clear()
    answer = client(milan).issue(RESET, 0)
    if state is PlatformState.WORKING:
        assert answer == (E.EBUSY, 0)
        assert milan.sev.status().state is state
        return
    assert answer == (OK, 0)
    shutdown = ["SHUTDOWN"] if state is PlatformState.INIT else []
    assert list(milan.core.log) == ["PLATFORM_STATUS", *shutdown, "FACTORY_RESET"]
    assert milan.sev.status().state is PlatformState.UNINIT


def test_status_is_the_firmwares_twelve_bytes(milan: SecureProcessor) -> None:
    caller = client(milan)
    assert caller.issue(STATUS) == (OK, 0)
    assert parse_platform_status(caller.memory.read(AT, 12)) == milan.sev.status()
    milan.sev.init(es=True)
    assert caller.issue(STATUS) == (OK, 0)
    assert caller.get("<BBBIBI") == (1, 55, 1, 0x100, 40, 0)


def test_pek_gen_with_guests_is_the_firmwares_to_refuse(sev: SecureProcessor) -> None:
    sev.sev_guests.launch_start(1)
    assert client(sev).issue(PEK_GEN) == (E.EIO, S.INVALID_PLATFORM_STATE)


@pytest.mark.parametrize(
    ("address", "length"),
    [(0, 0), (0, 2084), (BLOB, 0), (0, 0x8000), (BLOB, 1), (BLOB, 2083)],
)
def test_a_request_for_signing_is_asked_for_in_two_steps(
    sev: SecureProcessor, address: int, length: int
) -> None:
    caller = client(sev)
    caller.put("<QI", address, length)
    assert caller.issue(PEK_CSR) == (E.EIO, S.INVALID_LEN)
    assert caller.get("<QI") == (address, 2084)
    assert not any(caller.memory.read(BLOB, 2084))
    caller.put("<QI", BLOB, 2084)
    assert caller.issue(PEK_CSR) == (OK, 0)
    assert caller.memory.read(BLOB, 2084) == sev.sev.pek_csr()


def test_a_larger_buffer_is_told_what_was_written(sev: SecureProcessor) -> None:
    caller = client(sev)
    caller.put("<QI", BLOB, 0x4000)
    assert caller.issue(PEK_CSR) == (OK, 0)
    assert caller.get("<QI") == (BLOB, 2084)


@pytest.mark.parametrize(
    "words",
    [
        (0, 0, 0, 0),
        (0, 2084, BLOB2, 6252),
        (BLOB, 0, BLOB2, 6252),
        (BLOB, 2084, 0, 6252),
        (BLOB, 2084, BLOB2, 0),
        (BLOB, 2083, BLOB2, 6252),
        (BLOB, 2084, BLOB2, 6251),
        (0, 0x8000, 0, 0x8000),
    ],
)
@pytest.mark.parametrize("kernel", [OLD, NEW])
def test_a_chain_is_asked_for_in_two_steps(
    milan: SecureProcessor, kernel: tuple[int, int], words: tuple[int, ...]
) -> None:
    caller = client(milan, kernel)
    caller.put("<QIQI", *words)
    assert caller.issue(EXPORT) == (E.EIO, S.INVALID_LEN)
    assert caller.get("<QIQI") == (words[0], 2084, words[2], 6252)
    caller.put("<QIQI", BLOB, 2084, BLOB2, 6252)
    assert caller.issue(EXPORT) == (OK, 0)
    assert caller.get("<QIQI") == (BLOB, 2084, BLOB2, 6252)
    if milan.sev.state is PlatformState.UNINIT:
        milan.sev.init()
    written = (caller.memory.read(BLOB, 2084), caller.memory.read(BLOB2, 6252))
    assert written == milan.sev.pdh_cert_export()


@pytest.mark.parametrize(("address", "length"), [(0, 0), (0, 64), (BLOB, 0), (BLOB, 63)])
def test_an_id_is_asked_for_in_two_steps(milan: SecureProcessor, address: int, length: int) -> None:
    caller = client(milan)
    caller.put("<QI", address, length)
    assert caller.issue(GET_ID2) == (E.EIO, S.INVALID_LEN)
    assert caller.get("<QI") == (address, 64)
    for size in (64, 128, 1 << 22):
        caller.put("<QI", BLOB, size)
        assert caller.issue(GET_ID2) == (OK, 0)
        assert caller.get("<QI") == (BLOB, 64)
        assert caller.memory.read(BLOB, 64) == milan.identity.chip_id
    caller.put("<QI", BLOB, (1 << 22) + 1)
    assert caller.issue(GET_ID2) == (E.ENOMEM, UNTOUCHED)


def test_the_older_id_command_writes_as_many_bytes_as_there_are(milan: SecureProcessor) -> None:
    caller = client(milan)
    caller.memory.write(AT, b"\xff" * 128)
    assert caller.issue(GET_ID) == (OK, 0)
    assert caller.memory.read(AT, 128) == milan.identity.chip_id + b"\xff" * 64


@pytest.mark.parametrize("command", [GET_ID, GET_ID2])
@pytest.mark.parametrize(("minor", "number"), [(15, ENOTSUPP), (16, OK)])
def test_firmware_before_0_16_has_no_id(
    processor_of: ProcessorOf, command: int, minor: int, number: int
) -> None:
    processor = processor_of(Product.NAPLES, Firmware(FirmwareVersion(0, minor, 1)))
    caller = client(processor)
    caller.put("<QI", BLOB, 64)
    assert caller.issue(command)[0] == number


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ((0, 2084, BLOB2, 2084), E.EINVAL),
        ((BLOB, 0, BLOB2, 2084), E.EINVAL),
        ((BLOB, 0x4001, BLOB2, 2084), E.EINVAL),
        ((OUTSIDE, 2084, BLOB2, 2084), E.EFAULT),
        ((BLOB, 2084, 0, 2084), E.EINVAL),
        ((BLOB, 2084, BLOB2, 0), E.EINVAL),
        ((BLOB, 2084, BLOB2, 0x4001), E.EINVAL),
        ((BLOB, 2084, OUTSIDE, 2084), E.EFAULT),
    ],
)
def test_an_imports_blobs_are_read_before_the_platform_is_brought_up(
    milan: SecureProcessor, words: tuple[int, ...], number: int
) -> None:
    caller = client(milan)
    caller.put("<QIQI", *words)
    assert caller.issue(IMPORT) == (number, UNTOUCHED)
    assert not milan.core.log


@pytest.mark.parametrize("kernel", EVERY, ids=str)
def test_an_external_owner_takes_and_loses_the_platform(
    milan: SecureProcessor, kernel: tuple[int, int]
) -> None:
    initialise(milan)
    caller = client(milan, kernel)
    place = arm(caller)[IMPORT]
    take_down(milan)
    owned: list[bool] = []

    def look() -> None:
        fresh = milan.sev.state is PlatformState.UNINIT
        if fresh:
            milan.sev.init()
        owned.append(bool(milan.sev.status().flags & StatusFlags.OWNED))
        if fresh:
            milan.sev.shutdown()

    assert caller.issue(IMPORT, place) == (OK, 0)
    look()
    assert caller.issue(IMPORT, place) == (E.EIO, S.ALREADY_OWNED)
    assert caller.issue(PEK_GEN) == (OK, 0)
    look()
    # a PEK that is no more
    assert caller.issue(IMPORT, place) == (E.EIO, S.INVALID_CERTIFICATE)
    caller.memory.write(BLOB + 0x41C, bytes(8))
    assert caller.issue(IMPORT, place) == (E.EIO, S.BAD_SIGNATURE)
    caller.put("<QIQI", BLOB, 2083, BLOB2, 2084, at=place)
    assert caller.issue(IMPORT, place) == (E.EIO, S.INVALID_LEN)
    assert owned == [True, False]


@pytest.mark.parametrize(
    ("command", "number"),
    [
        (STATUS, E.EFAULT),
        (PEK_CSR, E.EFAULT),
        (EXPORT, E.EFAULT),
        (IMPORT, E.EFAULT),
        (GET_ID, E.EFAULT),
        (GET_ID2, E.EFAULT),
        (SNP_STATUS, E.EFAULT),
        (CONFIG, E.EFAULT),
        (VLEK_LOAD, E.EFAULT),
    ],
)
@pytest.mark.parametrize("address", [OUTSIDE, OUTSIDE - 4, 1, (1 << 64) - 1])
def test_a_structure_that_is_not_there_is_a_fault(
    milan: SecureProcessor, command: int, number: int, address: int
) -> None:
    initialise(milan)
    asked = command in {STATUS, GET_ID, SNP_STATUS}  # the firmware comes before the copy
    assert client(milan).issue(command, address) == (number, 0 if asked else UNTOUCHED)


@pytest.mark.parametrize("command", [SNP_STATUS, CONFIG, VLEK_LOAD])
@pytest.mark.parametrize("kernel", EVERY, ids=str)
def test_snp_commands_know_an_absent_address(
    milan: SecureProcessor, kernel: tuple[int, int], command: int
) -> None:
    initialise(milan)
    for writable in (True, False):
        caller = Client(SevDevice(milan, kernel=kernel), writable=writable)
        assert caller.issue(command, 0) == (E.EINVAL, UNTOUCHED)


@pytest.mark.parametrize(
    ("command", "layout", "words"),
    [
        (PEK_CSR, "<QI", (BLOB, 0x4001)),
        (EXPORT, "<QIQI", (BLOB, 0x4001, BLOB2, 6252)),
        (EXPORT, "<QIQI", (BLOB, 2084, BLOB2, 0x4001)),
    ],
)
def test_a_buffer_of_more_than_16_kib_is_a_fault(
    sev: SecureProcessor, command: int, layout: str, words: tuple[int, ...]
) -> None:
    caller = client(sev)
    caller.put(layout, *words)
    assert caller.issue(command) == (E.EFAULT, UNTOUCHED)
    assert caller.get(layout) == words


def test_buffers_and_blobs_may_have_16_kib(sev: SecureProcessor) -> None:
    caller = client(sev)
    caller.put("<QIQI", BLOB, 0x4000, BLOB2, 0x4000)
    assert caller.issue(EXPORT) == (OK, 0)
    assert caller.get("<QIQI") == (BLOB, 2084, BLOB2, 6252)
    for words in ((BLOB, 0x4000, BLOB2, 2084), (BLOB, 2084, BLOB2, 0x4000)):
        caller.put("<QIQI", *words)
        assert caller.issue(IMPORT) == (E.EIO, S.INVALID_LEN)


@pytest.mark.parametrize(
    ("command", "layout", "words"),
    [
        (PEK_CSR, "<QI", (OUTSIDE, 2084)),
        (EXPORT, "<QIQI", (OUTSIDE, 2084, BLOB2, 6252)),
        (EXPORT, "<QIQI", (BLOB, 2084, OUTSIDE, 6252)),
        (GET_ID2, "<QI", (OUTSIDE, 64)),
    ],
)
def test_a_buffer_that_is_not_there_is_a_fault_after_the_firmware_succeeded(
    sev: SecureProcessor, command: int, layout: str, words: tuple[int, ...]
) -> None:
    caller = client(sev)
    caller.put(layout, *words)
    assert caller.issue(command) == (E.EFAULT, 0)


@pytest.mark.parametrize(
    ("command", "layout", "words"),
    [
        (PEK_CSR, "<QI", (0, 0)),
        (EXPORT, "<QIQI", (0, 0, 0, 0)),
        (GET_ID2, "<QI", (0, 0)),
    ],
)
def test_lengths_that_cannot_be_written_back_are_a_fault_beside_the_firmwares_status(
    sev: SecureProcessor, command: int, layout: str, words: tuple[int, ...]
) -> None:
    caller = client(sev)
    caller.put(layout, *words)
    caller.memory.read_only = (AT,)
    assert caller.issue(command) == (E.EFAULT, S.INVALID_LEN)


def test_up_to_6_15_the_platform_is_brought_up_before_an_export_is_read(
    milan: SecureProcessor,
) -> None:
    assert client(milan, OLD).issue(EXPORT, OUTSIDE) == (E.EFAULT, 0)
    assert milan.sev.state is PlatformState.INIT
    milan.sev.shutdown()
    milan.core.log.clear()
    assert client(milan, NEW).issue(EXPORT, OUTSIDE) == (E.EFAULT, UNTOUCHED)
    assert not milan.core.log


def test_an_export_from_a_platform_that_is_down_needs_write_after_its_lengths(
    milan: SecureProcessor,
) -> None:
    caller = client(milan, NEW)
    caller.writable = False
    caller.put("<QIQI", BLOB, 0x4001, BLOB2, 6252)
    assert caller.issue(EXPORT) == (E.EFAULT, UNTOUCHED)
    caller.put("<QIQI", 0, 0, 0, 0)
    assert caller.issue(EXPORT) == (E.EPERM, UNTOUCHED)


@pytest.mark.parametrize(
    ("command", "name", "layout", "words", "wanted"),
    [
        (PEK_CSR, "PEK_CSR", "<QI", (BLOB, 2084), (BLOB, 0x4000)),
        (EXPORT, "PDH_CERT_EXPORT", "<QIQI", (BLOB, 2084, BLOB2, 6252), (BLOB, 2084, BLOB2, 16384)),
        (GET_ID2, "GET_ID", "<QI", (BLOB, 64), (BLOB, 0x4000)),
    ],
)
def test_a_length_that_firmware_misreports_reaches_the_caller(
    sev: SecureProcessor,
    command: int,
    name: str,
    layout: str,
    words: tuple[int, ...],
    wanted: tuple[int, ...],
) -> None:
    caller = client(sev)
    sev.faults.misreport_length(name, 0x4000)
    caller.put(layout, *words)
    assert caller.issue(command) == (E.EIO, S.INVALID_LEN)
    assert caller.get(layout) == wanted
    sev.faults.misreport_length(name, 0)
    caller.put(layout, *words)
    assert caller.issue(command) == (OK, 0)
    assert caller.get(layout)[-1] == 0


def test_a_refusal_leaves_the_lengths_that_were_given(sev: SecureProcessor) -> None:
    sev.faults.fail("PEK_CSR", S.HWERROR_PLATFORM)
    caller = client(sev)
    caller.put("<QI", BLOB, 2084)
    assert caller.issue(PEK_CSR) == (E.EIO, S.HWERROR_PLATFORM)
    assert caller.get("<QI") == (BLOB, 2084)


def test_a_processor_that_hangs_times_out_and_is_busy_for_ever(sev: SecureProcessor) -> None:
    sev.faults.hang("PDH_GEN")
    caller = client(sev)
    assert caller.issue(PDH_GEN) == (E.ETIMEDOUT, 0)
    sev.core.log.clear()
    caller.put("<QI", BLOB, 64)
    for command in (STATUS, PDH_GEN, PEK_GEN, GET_ID, GET_ID2, RESET):
        assert caller.issue(command) == (E.EBUSY, UNTOUCHED)
    assert not sev.core.log  # Linux does not ask any more
    caller.writable = False
    assert caller.issue(PDH_GEN) == (E.EPERM, UNTOUCHED)  # its own checks come first
    assert caller.issue(NONE) == (E.EINVAL, UNTOUCHED)


@pytest.mark.parametrize(
    ("kernel", "hung", "then"),
    [(OLD, 0, UNTOUCHED), (NEW, S.INVALID_PLATFORM_STATE, S.INVALID_PLATFORM_STATE)],
)
def test_a_processor_that_hangs_while_it_is_brought_up(
    milan: SecureProcessor, kernel: tuple[int, int], hung: int, then: int
) -> None:
    milan.faults.hang("INIT")
    caller = client(milan, kernel)
    assert caller.issue(PDH_GEN) == (E.ETIMEDOUT, hung)
    assert caller.issue(PDH_GEN) == (E.EBUSY, then)


@pytest.mark.parametrize(
    ("kernel", "command", "failing", "error"),
    [
        (OLD, PDH_GEN, "INIT", S.HWERROR_PLATFORM),
        (OLD, PDH_GEN, "DF_FLUSH", S.HWERROR_PLATFORM),
        (NEW, PDH_GEN, "INIT", S.INVALID_PLATFORM_STATE),
        (NEW, PDH_GEN, "SNP_INIT", S.INVALID_PLATFORM_STATE),
        (NEW, COMMIT, "SNP_INIT", S.INVALID_PLATFORM_STATE),
        (NEWEST, COMMIT, "SNP_DF_FLUSH", S.INVALID_PLATFORM_STATE),
    ],
)
def test_a_platform_that_cannot_be_brought_up_says_so_by_its_age(
    milan: SecureProcessor, kernel: tuple[int, int], command: int, failing: str, error: int
) -> None:
    milan.faults.fail(failing, S.HWERROR_PLATFORM)
    assert client(milan, kernel).issue(command) == (E.EIO, error)
    assert milan.core.log[-1] == failing


@pytest.mark.parametrize("kernel", EVERY, ids=str)
def test_damaged_storage_is_tried_once_more(
    milan: SecureProcessor, kernel: tuple[int, int]
) -> None:
    milan.sev.spoil_store()
    assert client(milan, kernel).issue(PDH_GEN) == (OK, 0)
    assert [name for name in milan.core.log if name == "INIT"] == ["INIT", "INIT"]


def test_storage_that_stays_damaged_is_tried_no_third_time(milan: SecureProcessor) -> None:
    milan.faults.fail("INIT", S.SECURE_DATA_INVALID)
    assert client(milan).issue(PDH_GEN) == (E.EIO, S.SECURE_DATA_INVALID)
    assert list(milan.core.log) == ["INIT", "INIT"]


def test_another_refusal_of_init_is_tried_once(milan: SecureProcessor) -> None:
    milan.faults.fail("INIT", S.HWERROR_UNSAFE)
    assert client(milan).issue(PDH_GEN) == (E.EIO, S.HWERROR_UNSAFE)
    assert list(milan.core.log) == ["INIT"]


@pytest.mark.parametrize("kernel", EVERY, ids=str)
def test_snp_status_is_the_firmwares_32_bytes(
    snp: SecureProcessor, kernel: tuple[int, int]
) -> None:
    caller = client(snp, kernel)
    assert caller.issue(SNP_STATUS) == (OK, 0)
    assert parse_snp_platform_status(caller.memory.read(AT, 32)) == snp.snp.status()


@pytest.mark.parametrize(
    ("kernel", "state", "log"),
    [
        (NEW, 1, ["SNP_INIT", "SNP_DF_FLUSH", "SNP_PLATFORM_STATUS", "SNP_SHUTDOWN"]),
        ((7, 0), 0, ["SNP_PLATFORM_STATUS"]),
        (NEWEST, 0, ["SNP_PLATFORM_STATUS"]),
    ],
)
def test_snp_status_of_a_platform_that_is_down_depends_on_the_age(
    milan: SecureProcessor, kernel: tuple[int, int], state: int, log: list[str]
) -> None:
    caller = client(milan, kernel)
    assert caller.issue(SNP_STATUS) == (OK, 0)
    assert caller.memory.read(AT, 32)[2] == state
    assert list(milan.core.log) == log
    assert not milan.core.snp_initialized


def test_a_config_is_handed_on(snp: SecureProcessor) -> None:
    caller = client(snp)
    lower = snp.snp.raw(snp.snp.current_tcb) - 1
    caller.put("<QI52x", lower, 3)
    assert caller.issue(CONFIG) == (OK, 0)
    found = snp.snp
    assert (found.status().reported_tcb, found.mask_chip_id, found.mask_chip_key) == (
        lower,
        True,
        True,
    )
    caller.put("<QI52x", 0, 0)
    assert caller.issue(CONFIG) == (OK, 0)
    assert (found.reported_tcb, found.mask_chip_id) == (found.committed_tcb, False)


@pytest.mark.parametrize(
    "config",
    [
        struct.pack("<QI52x", 0, 4),
        struct.pack("<QI52x", 0, 1 << 31),
        struct.pack("<QI51xB", 0, 0, 1),
        struct.pack("<QIB51x", 0, 0, 1),
        struct.pack("<QI52x", 1 << 16, 0),
        struct.pack("<QI52x", 5, 0),
    ],
)
def test_a_config_that_is_none_or_too_high_is_the_firmwares_to_refuse(
    snp: SecureProcessor, config: bytes
) -> None:
    caller = client(snp)
    caller.memory.write(AT, config)
    before = snp.snp.status()
    assert caller.issue(CONFIG) == (E.EIO, S.INVALID_PARAM)
    assert snp.snp.status() == before


@pytest.mark.parametrize(
    ("length", "version", "at", "number"),
    [
        (15, 0, BLOB, E.EINVAL),
        (16, 1, BLOB, E.EINVAL),
        (16, 0, 0, E.EINVAL),
        (16, 0, OUTSIDE, E.EFAULT),
        (16, 0, OUTSIDE - 431, E.EFAULT),
    ],
)
@pytest.mark.parametrize("kernel", EVERY, ids=str)
def test_a_vlek_request_is_checked_by_linux(
    snp: SecureProcessor,
    kernel: tuple[int, int],
    length: int,
    version: int,
    at: int,
    number: int,
) -> None:
    caller = client(snp, kernel)
    snp.core.log.clear()
    caller.put("<IB3xQ", length, version, at)
    assert caller.issue(VLEK_LOAD) == (number, UNTOUCHED)
    assert not snp.core.log


def test_a_vlek_is_loaded_or_refused_by_the_firmware(snp: SecureProcessor) -> None:
    caller = client(snp)
    snp.sev.init()
    place = arm(caller)[VLEK_LOAD]
    assert caller.issue(VLEK_LOAD, place) == (OK, 0)
    assert snp.snp.vlek_key is not None
    (byte,) = caller.memory.read(BLOB2 + 0x1000 + 0x20, 1)
    caller.memory.write(BLOB2 + 0x1000 + 0x20, bytes([byte ^ 0xFF]))
    assert caller.issue(VLEK_LOAD, place) == (E.EIO, S.BAD_MEASUREMENT)
    caller.memory.write(BLOB2 + 0x1000 + 0x190, b"\1")
    assert caller.issue(VLEK_LOAD, place) == (E.EIO, S.BAD_SVN)


def test_from_6_16_on_a_vlek_does_not_outlive_its_command_unless_snp_is_up(
    milan: SecureProcessor,
) -> None:
    caller = client(milan, NEW)
    initialise(milan)
    place = arm(caller)[VLEK_LOAD]
    take_down(milan)
    assert caller.issue(VLEK_LOAD, place) == (OK, 0)
    assert milan.snp.vlek_key is None
    initialise(milan)
    assert caller.issue(VLEK_LOAD, place) == (OK, 0)
    assert milan.snp.vlek_key is not None


def test_from_6_16_on_masks_do_not_outlive_their_command_unless_snp_is_up(
    milan: SecureProcessor,
) -> None:
    caller = client(milan, NEW)
    lower = milan.snp.raw(milan.snp.current_tcb) - 1
    caller.put("<QI52x", lower, 1)
    assert caller.issue(CONFIG) == (OK, 0)
    assert (milan.snp.status().reported_tcb, milan.snp.mask_chip_id) == (lower, False)


@pytest.mark.parametrize("command", [SNP_STATUS, COMMIT, CONFIG, VLEK_LOAD])
def test_a_host_without_snp_has_no_device_for_it_from_6_16_on(
    processor_of: ProcessorOf, command: int
) -> None:
    for processor, snp in ((processor_of(Product.ROME), True), (processor_of(), False)):
        caller = client(processor, NEW, snp=snp)
        caller.put("<IB3xQ", 16, 0, BLOB)
        assert caller.issue(command) == (E.ENODEV, S.INVALID_PLATFORM_STATE)
        assert not processor.core.log
        assert client(processor, OLD, snp=snp).issue(command) == (E.EINVAL, UNTOUCHED)


def test_the_newest_linux_asks_a_chip_without_snp_all_the_same(
    processor_of: ProcessorOf,
) -> None:
    caller = client(processor_of(Product.ROME), NEWEST)
    assert caller.issue(SNP_STATUS) == (E.EIO, S.INVALID_COMMAND)


def test_sev_is_brought_up_alone_where_the_host_has_no_snp(milan: SecureProcessor) -> None:
    assert client(milan, NEW, snp=False).issue(PDH_GEN) == (OK, 0)
    assert list(milan.core.log) == ["INIT", "DF_FLUSH", "PDH_GEN", "SHUTDOWN"]


def test_the_oldest_firmware_that_linux_initialises_snp_with(processor_of: ProcessorOf) -> None:
    processor = processor_of(firmware=Firmware(FirmwareVersion(1, 51, 0)))
    assert client(processor, NEW).issue(COMMIT) == (OK, 0)
    assert "SNP_INIT" in processor.core.log


def test_firmware_too_old_for_snp_is_not_initialised_and_not_in_the_way(
    processor_of: ProcessorOf,
) -> None:
    processor = processor_of(firmware=Firmware(FirmwareVersion(1, 49, 3)))
    assert client(processor, NEW).issue(PDH_GEN) == (OK, 0)
    assert client(processor, NEW).issue(COMMIT) == (OK, 0)
    assert "SNP_INIT" not in processor.core.log


def test_a_shutdown_that_wants_a_flush_is_issued_again_after_it(milan: SecureProcessor) -> None:
    milan.faults.fail("SNP_SHUTDOWN", S.DFFLUSH_REQUIRED, times=1)
    caller = client(milan, NEW)
    caller.put("<QI52x", 0, 1)
    assert caller.issue(CONFIG) == (OK, 0)
    assert list(milan.core.log)[-3:] == ["SNP_SHUTDOWN", "SNP_DF_FLUSH", "SNP_SHUTDOWN"]
    assert (milan.core.snp_initialized, milan.snp.mask_chip_id) == (False, False)


def test_guests_keep_snp_up_when_a_command_would_shut_it_down(snp: SecureProcessor) -> None:
    guests = snp.snp_guests
    context = guests.gctx_create()
    guests.launch_start(context, 0x30000)
    guests.activate(context, 1)
    assert client(snp, NEW).issue(PDH_GEN) == (OK, 0)
    assert snp.core.snp_initialized
    assert list(snp.core.log)[-3:] == ["SNP_SHUTDOWN", "SNP_DF_FLUSH", "SNP_SHUTDOWN"]
    assert guests[context].asid == 1


def test_requests_of_many_threads_come_one_at_a_time(milan: SecureProcessor) -> None:
    issue = partial(client(milan).issue, PDH_GEN, 0)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: issue(), range(40)))
    assert answers == [(OK, 0)] * 40
