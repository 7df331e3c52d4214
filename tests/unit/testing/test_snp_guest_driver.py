"""The simulated driver answers as Linux' does; numbers are those of its header."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.abi.certtable import VCEK, encode_cert_table
from sevkit.abi.firmware_status import FirmwareStatus
from sevkit.abi.guest_message import encode_report_request, parse_report_response
from sevkit.abi.report import parse_report
from sevkit.measure.vcpu import Registers
from sevkit.testing.device.linux import ProcessMemory
from sevkit.testing.firmware import FirmwareImage, encode_firmware
from sevkit.testing.snp_guest_driver import (
    NOT_SENT,
    SNP_GET_EXT_REPORT,
    SNP_GET_REPORT,
    GuestDriver,
    SevGuestDevice,
)
from sevkit.testing.virtual_machine import Machine, SimulatedKvm

if TYPE_CHECKING:
    from sevkit.testing.device.ioctl import IoctlReply
    from sevkit.testing.secure_processor.processor import SecureProcessor

MACHINE: Final = Machine(encode_firmware(FirmwareImage()), 1, Registers(0xA00F11, 1))
NONCE: Final = bytes(range(64))
ASKED: Final = encode_report_request(NONCE)
REQUEST: Final = struct.Struct("<B7xQQQ")
EXTENDED: Final = struct.Struct("<96sQI4x")
TABLE: Final = encode_cert_table({VCEK: b"v" * 5000})
MEMORY: Final = ProcessMemory(os.getpid())


@pytest.fixture
def driver(milan: SecureProcessor) -> GuestDriver:
    kvm = SimulatedKvm(milan)
    return GuestDriver(kvm, kvm.launch_snp(MACHINE), table=TABLE)


class Caller:
    """A program's buffers, and one request with them."""

    def __init__(self, driver: GuestDriver) -> None:
        self.device = SevGuestDevice(driver)
        self.asked = ctypes.create_string_buffer(EXTENDED.size)
        self.answer = ctypes.create_string_buffer(4000)
        self.table = ctypes.create_string_buffer(0x5000)

    def ask(self, number: int, *, version: int = 1, exitinfo2: int = 0) -> IoctlReply:
        addresses = ctypes.addressof(self.asked), ctypes.addressof(self.answer)
        argument = REQUEST.pack(version, *addresses, exitinfo2)
        return self.device.ioctl(number, argument, MEMORY, writable=False)

    def extended(self, room: int) -> IoctlReply:
        EXTENDED.pack_into(self.asked, 0, ASKED, ctypes.addressof(self.table), room)
        return self.ask(SNP_GET_EXT_REPORT)


def info(reply: IoctlReply) -> int:
    found: int = REQUEST.unpack(reply.data)[3]
    return found


def test_a_report_is_really_made(driver: GuestDriver) -> None:
    caller = Caller(driver)
    caller.asked.raw = ASKED.ljust(EXTENDED.size, b"\0")
    reply = caller.ask(SNP_GET_REPORT, exitinfo2=7)
    assert (reply.result, info(reply)) == (0, 7)  # a good request says nothing
    status, report = parse_report_response(caller.answer.raw[:1216])
    assert (status, parse_report(report).report_data) == (0, NONCE)
    assert not any(caller.answer.raw[1216:])


def test_an_extended_report_needs_room_for_the_hosts_table(driver: GuestDriver) -> None:
    caller = Caller(driver)
    for room in (0, 0x1000):
        reply = caller.extended(room)
        assert (reply.result, info(reply)) == (-errno.EIO, 1 << 32)
        assert EXTENDED.unpack(caller.asked.raw)[2] == 0x2000
    assert not any(caller.answer.raw)
    reply = caller.extended(0x2000)
    assert (reply.result, info(reply)) == (0, 0)
    assert caller.table.raw[:0x2000] == TABLE.ljust(0x2000, b"\0")
    assert parse_report(parse_report_response(caller.answer.raw[:1216])[1]).report_data == NONCE


@pytest.mark.parametrize("room", [1, 0xFFF, 0x1800, 0x5000])
def test_room_is_whole_pages_and_at_most_four(driver: GuestDriver, room: int) -> None:
    reply = Caller(driver).extended(room)
    assert (reply.result, info(reply)) == (-errno.EINVAL, NOT_SENT)
    assert not driver.disabled


def test_a_request_that_makes_no_sense_is_not_sent(driver: GuestDriver) -> None:
    caller = Caller(driver)
    assert caller.ask(SNP_GET_REPORT, version=0).result == -errno.EINVAL
    for number in (0xC020_5301, 0xC020_5303, 0):
        reply = caller.ask(number)
        assert (reply.result, info(reply)) == (-errno.ENOTTY, NOT_SENT)
    short = caller.device.ioctl(SNP_GET_REPORT, bytes(16), MEMORY, writable=False)
    assert short.result == -errno.ENOTTY
    for asked_at, answer_at, code in ((0, 8, errno.EINVAL), (8, 0, errno.EINVAL), (8, 8, 14)):
        argument = REQUEST.pack(1, asked_at, answer_at, 0)
        reply = caller.device.ioctl(SNP_GET_REPORT, argument, MEMORY, writable=False)
        assert (reply.result, info(reply)) == (-code, NOT_SENT)


def test_a_host_that_throttles_is_waited_for_a_minute(driver: GuestDriver) -> None:
    driver.throttled = 30
    assert driver.request(ASKED).code == 0
    driver.throttled = 31
    answer = driver.request(ASKED)
    assert (answer.code, answer.exitinfo2) == (errno.ETIMEDOUT, 2 << 32)
    assert driver.disabled
    assert driver.request(ASKED)[:2] == (errno.ENOTTY, NOT_SENT)


def test_a_command_that_fails_costs_the_key(milan: SecureProcessor, driver: GuestDriver) -> None:
    milan.faults.fail("SNP_GUEST_REQUEST", FirmwareStatus.INVALID_GUEST, times=1)
    answer = driver.request(ASKED)
    assert (answer.code, answer.exitinfo2) == (errno.EIO, FirmwareStatus.INVALID_GUEST)
    assert driver.request(ASKED).code == errno.ENOTTY


def test_a_dead_processor_costs_the_key_too(milan: SecureProcessor, driver: GuestDriver) -> None:
    milan.faults.kill()
    answer = driver.request(ASKED)
    assert (answer.code, answer.exitinfo2) == (errno.EIO, 1 << 63)
    assert driver.disabled


def test_a_no_in_the_answer_is_an_answer(driver: GuestDriver) -> None:
    answer = driver.request(bytes(95) + b"\1")  # a reserved byte
    status, _ = parse_report_response(answer.response[:1216])
    assert (answer.code, status) == (0, FirmwareStatus.INVALID_PARAM)
    assert driver.request(ASKED).code == 0
