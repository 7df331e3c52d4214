"""The simulated configfs-tsm: what Linux' documentation of it and its source say."""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.abi.certtable import ASK, VCEK, encode_cert_table
from sevkit.abi.firmware_status import FirmwareStatus
from sevkit.abi.report import parse_report
from sevkit.measure.vcpu import Registers
from sevkit.testing.device.ioctl import EntryFolder
from sevkit.testing.firmware import FirmwareImage, encode_firmware
from sevkit.testing.snp_guest_driver import GuestDriver
from sevkit.testing.tsm_reports import TsmReports
from sevkit.testing.virtual_machine import Machine, SimulatedKvm

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.testing.secure_processor.processor import SecureProcessor

MACHINE: Final = Machine(encode_firmware(FirmwareImage()), 1, Registers(0xA00F11, 1))
NONCE: Final = bytes(range(64))
TABLE: Final = encode_cert_table({VCEK: b"v" * 5000, ASK: b"a"})


@pytest.fixture
def reports_at(milan: SecureProcessor) -> Callable[[int], TsmReports]:
    kvm = SimulatedKvm(milan)

    def make(vmpl: int) -> TsmReports:
        driver = GuestDriver(kvm, kvm.launch_snp(MACHINE), vmpl=vmpl, table=TABLE)
        reports = TsmReports(driver)
        reports.make("e")
        return reports

    return make


@pytest.fixture
def reports(reports_at: Callable[[int], TsmReports]) -> TsmReports:
    return reports_at(0)


def code_of(act: Callable[[], object]) -> int:
    with pytest.raises(OSError, match=r".") as caught:
        act()
    return caught.value.errno or 0


def test_it_is_a_folder_of_entries(reports: TsmReports) -> None:
    assert isinstance(reports, EntryFolder)
    assert code_of(lambda: reports.make("e")) == errno.EEXIST
    reports.make("f")
    reports.remove("e")
    assert reports.entries == ("f",)
    assert code_of(lambda: reports.remove("e")) == errno.ENOENT
    assert code_of(lambda: reports.read("e", "provider")) == errno.ENOENT
    assert code_of(lambda: reports.write("e", "inblob", NONCE)) == errno.ENOENT


def test_a_report_is_made_of_what_was_written_and_kept(reports: TsmReports) -> None:
    reports.write("e", "inblob", NONCE)
    report = reports.read("e", "outblob")
    assert parse_report(report).report_data == NONCE
    assert reports.read("e", "auxblob") == TABLE
    reports.driver.table = b""
    assert reports.read("e", "outblob") == report
    assert reports.read("e", "auxblob") == TABLE
    reports.write("e", "inblob", bytes(64))
    assert reports.read("e", "auxblob") == b""
    assert parse_report(reports.read("e", "outblob")).report_data == bytes(64)


def test_every_write_moves_the_generation_and_no_read_does(reports: TsmReports) -> None:
    assert reports.read("e", "generation") == b"0\n"
    reports.write("e", "privlevel", b"1\n")
    reports.write("e", "inblob", NONCE)
    reports.read("e", "outblob")
    assert reports.read("e", "generation") == b"2\n"
    assert code_of(lambda: reports.write("e", "privlevel", b"4")) == errno.EINVAL
    assert code_of(lambda: reports.write("e", "inblob", bytes(65))) == errno.EFBIG
    assert reports.read("e", "generation") == b"2\n"


def test_the_level_is_the_guests_own_or_above(reports_at: Callable[[int], TsmReports]) -> None:
    reports = reports_at(2)
    assert reports.read("e", "privlevel_floor") == b"2\n"
    assert code_of(lambda: reports.write("e", "privlevel", b"1")) == errno.EINVAL
    reports.write("e", "inblob", NONCE)
    assert code_of(lambda: reports.read("e", "outblob")) == errno.EINVAL  # the level is still 0
    reports.write("e", "privlevel", b"3")
    assert parse_report(reports.read("e", "outblob")).vmpl == 3


@pytest.mark.parametrize("inblob", [b"", b"short", bytes(63)])
def test_a_nonce_of_another_size_makes_no_report(reports: TsmReports, inblob: bytes) -> None:
    reports.write("e", "inblob", inblob)
    for attribute in ("outblob", "auxblob"):
        assert code_of(partial(reports.read, "e", attribute)) == errno.EINVAL


def test_files_have_one_direction(reports: TsmReports) -> None:
    for attribute in ("inblob", "privlevel"):
        assert code_of(partial(reports.read, "e", attribute)) == errno.EACCES
        assert reports.attributes[attribute].mode == 0o200
    for attribute in ("outblob", "auxblob", "generation", "provider", "privlevel_floor"):
        assert code_of(partial(reports.write, "e", attribute, b"0")) == errno.EACCES
        assert reports.attributes[attribute].mode == 0o444


def test_what_the_driver_says_is_the_errno(milan: SecureProcessor, reports: TsmReports) -> None:
    reports.write("e", "inblob", NONCE)
    reports.driver.table = encode_cert_table({VCEK: bytes(0x4000)})
    assert code_of(lambda: reports.read("e", "outblob")) == errno.EIO
    reports.driver.table = TABLE
    reports.read("e", "outblob")
    reports.write("e", "inblob", NONCE)
    milan.faults.fail("SNP_GUEST_REQUEST", FirmwareStatus.HWERROR_PLATFORM, times=1)
    assert code_of(lambda: reports.read("e", "outblob")) == errno.EIO
    assert code_of(lambda: reports.read("e", "outblob")) == errno.ENOTTY


def test_a_driver_that_goes_takes_everything_but_the_generation(reports: TsmReports) -> None:
    reports.write("e", "inblob", NONCE)
    reports.provider = None
    for attribute in ("provider", "privlevel_floor", "outblob"):
        assert code_of(partial(reports.read, "e", attribute)) == errno.ENXIO
    assert reports.read("e", "generation") == b"1\n"
    assert code_of(lambda: reports.make("f")) == errno.ENXIO


def test_a_table_that_claims_too_much_is_cut(reports: TsmReports) -> None:
    reports.driver.table = VCEK.bytes + (24).to_bytes(4, "little") + b"\xff\xff\xff\0"
    reports.write("e", "inblob", NONCE)
    assert len(reports.read("e", "auxblob")) == 0x4000
