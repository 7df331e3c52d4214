"""configfs-tsm with the kernel's generations, alone and with somebody who uses our entries."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.abi.certtable import VCEK, encode_cert_table
from sevkit.abi.firmware_status import FirmwareStatus
from sevkit.attest.container import find_report
from sevkit.errors import (
    FirmwareError,
    FormatError,
    HostReadError,
    SevkitError,
    UndecidedError,
    UsageError,
)
from sevkit.guest.door import DoorClosed
from sevkit.guest.report import ReportRequest
from sevkit.guest.tsm import Configfs, fetch_from_tsm
from sevkit.host.reading import Cause
from sevkit.testing.tsm_reports import TsmReports

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sevkit.guest.patience import Patience
    from sevkit.testing.snp_guest_driver import GuestDriver
    from sevkit.testing.virtual_machine import SimulatedKvm

OTHER: Final = bytes(range(64))


@pytest.fixture
def reports(driver: GuestDriver) -> TsmReports:
    return TsmReports(driver)


class Meddler:
    """The folder, and somebody who does something ``before`` an attribute is read or written."""

    def __init__(
        self,
        inner: TsmReports,
        before: dict[str, Callable[[TsmReports, str], None]],
        *,
        times: int = 1,
    ) -> None:
        self.inner = inner
        self.before = before
        self.left = dict.fromkeys(before, times)
        self.made: list[str] = []

    def _meddle(self, moment: str, entry: str) -> None:
        if self.left.get(moment, 0):
            self.left[moment] -= 1
            self.before[moment](self.inner, entry)

    def make(self, entry: str) -> None:
        self.made.append(entry)
        self.inner.make(entry)

    def remove(self, entry: str) -> None:
        self.inner.remove(entry)

    def read(self, entry: str, attribute: str) -> bytes:
        self._meddle(f"read {attribute}", entry)
        return self.inner.read(entry, attribute)

    def write(self, entry: str, attribute: str, data: bytes) -> None:
        self._meddle(f"write {attribute}", entry)
        self.inner.write(entry, attribute, data)


@pytest.mark.parametrize("vmpl", [0, 2])
def test_a_report_comes_with_the_hosts_certificates(
    driver_at: Callable[..., GuestDriver],
    asked: ReportRequest,
    patience: Patience,
    table: bytes,
    vmpl: int,
) -> None:
    reports = TsmReports(driver_at(vmpl, table))
    found = fetch_from_tsm(reports, asked, patience)
    assert (found.source, found.vmpl) == ("configfs-tsm", vmpl)
    assert find_report(found.encode()).report[0x50:0x90] == asked.report_data
    assert found.encode()[1184:] == table
    assert reports.entries == ()
    assert not patience.tried


def test_a_host_without_certificates_gives_a_bare_report(
    reports: TsmReports, asked: ReportRequest, patience: Patience
) -> None:
    assert len(fetch_from_tsm(reports, asked, patience).encode()) == 1184


def test_a_vmpl_may_be_asked_for_that_is_not_below_the_guests_own(
    driver_at: Callable[..., GuestDriver], patience: Patience
) -> None:
    reports = TsmReports(driver_at(vmpl=1))
    assert fetch_from_tsm(reports, ReportRequest(OTHER, 3), patience).vmpl == 3
    with pytest.raises(UsageError, match="VMPL 0 is not this guest's to ask for") as caught:
        fetch_from_tsm(reports, ReportRequest(OTHER, 0), patience)
    assert caught.value.hint == "--vmpl 1"
    assert reports.entries == ()


def ask_for_other(reports: TsmReports, entry: str) -> None:
    reports.write(entry, "inblob", OTHER)


def ask_and_read(reports: TsmReports, entry: str) -> None:
    reports.write(entry, "inblob", OTHER)
    reports.read(entry, "outblob")


def spoil(reports: TsmReports, entry: str) -> None:
    reports.write(entry, "inblob", b"short")


def take_away(reports: TsmReports, entry: str) -> None:
    reports.remove(entry)
    reports.make(entry)


@pytest.mark.parametrize("moment", ["write privlevel", "write inblob", "read outblob"])
@pytest.mark.parametrize("act", [ask_for_other, ask_and_read, spoil, take_away])
def test_somebody_else_in_our_entry_is_noticed_and_another_is_tried(
    reports: TsmReports,
    asked: ReportRequest,
    patience: Patience,
    moment: str,
    act: Callable[[TsmReports, str], None],
) -> None:
    folder = Meddler(reports, {moment: act})
    found = fetch_from_tsm(folder, asked, patience)
    assert found.report[0x50:0x90] == asked.report_data
    noticed = 1 if act is take_away and moment == "write privlevel" else 2
    assert len(set(folder.made)) == len(folder.made) == noticed
    assert reports.entries == ()


def test_another_report_between_report_and_certificates_is_noticed(
    reports: TsmReports, asked: ReportRequest, patience: Patience
) -> None:
    folder = Meddler(reports, {"read auxblob": ask_for_other})
    assert fetch_from_tsm(folder, asked, patience).report[0x50:0x90] == asked.report_data
    assert len(folder.made) == 2


def test_somebody_who_never_stops_ends_it(
    reports: TsmReports, asked: ReportRequest, patience: Patience
) -> None:
    folder = Meddler(reports, {"read outblob": ask_for_other}, times=99)
    with pytest.raises(HostReadError, match="somebody else wrote to the entry, 3 times"):
        fetch_from_tsm(folder, asked, patience)
    assert len(folder.made) == 3
    assert reports.entries == ()


class Refusing:
    """The folder, whose kernel refuses to read or write an attribute, ``times`` times."""

    def __init__(self, inner: TsmReports, moment: str, code: int, times: int = 99) -> None:
        self.inner = inner
        self.moment = moment
        self.code = code
        self.left = times

    def _refuse(self, moment: str) -> None:
        if moment == self.moment and self.left:
            self.left -= 1
            raise OSError(self.code, os.strerror(self.code))

    def make(self, entry: str) -> None:
        self._refuse("make")
        self.inner.make(entry)

    def remove(self, entry: str) -> None:
        self.inner.remove(entry)
        self._refuse("remove")

    def read(self, entry: str, attribute: str) -> bytes:
        self._refuse(f"read {attribute}")
        return self.inner.read(entry, attribute)

    def write(self, entry: str, attribute: str, data: bytes) -> None:
        self._refuse(f"write {attribute}")
        self.inner.write(entry, attribute, data)


@pytest.mark.parametrize(
    ("moment", "code", "kind", "message"),
    [
        ("make", errno.EACCES, DoorClosed, "configfs-tsm: Permission denied"),
        ("make", errno.ENXIO, DoorClosed, "configfs-tsm: No such device"),
        ("make", errno.EROFS, DoorClosed, "configfs-tsm: Read-only"),
        ("read provider", errno.ENOENT, DoorClosed, "configfs-tsm provider: No such file"),
        ("write privlevel", errno.EBUSY, DoorClosed, "configfs-tsm privlevel: Device or resource"),
        ("write inblob", errno.EFBIG, DoorClosed, "configfs-tsm inblob: File too large"),
        ("read outblob", errno.EIO, DoorClosed, "configfs-tsm: no report: Input/output error"),
        ("read outblob", errno.EFBIG, DoorClosed, "configfs-tsm: no report: File too large"),
        ("read outblob", errno.ENOTTY, FirmwareError, "given up its key"),
        ("read outblob", errno.EBADMSG, FirmwareError, "or was changed"),
        ("read outblob", errno.EINVAL, FirmwareError, "the firmware refused the request"),
        ("read outblob", errno.ENXIO, FirmwareError, "the firmware made no report"),
        ("read auxblob", errno.EIO, DoorClosed, "configfs-tsm: no report: Input/output error"),
    ],
)
def test_every_refusal_of_the_kernel_is_told_and_leaves_nothing(
    reports: TsmReports,
    asked: ReportRequest,
    patience: Patience,
    moment: str,
    code: int,
    kind: type[SevkitError],
    message: str,
) -> None:
    with pytest.raises(kind, match=message):
        fetch_from_tsm(Refusing(reports, moment, code), asked, patience)
    assert reports.entries == ()
    assert not patience.tried


def test_a_kernel_without_the_certificates_file_gives_a_bare_report(
    reports: TsmReports, asked: ReportRequest, patience: Patience
) -> None:
    folder = Refusing(reports, "read auxblob", errno.ENOENT)
    assert len(fetch_from_tsm(folder, asked, patience).encode()) == 1184


def test_an_entry_that_cannot_be_removed_is_no_failure(
    reports: TsmReports, asked: ReportRequest, patience: Patience
) -> None:
    assert fetch_from_tsm(Refusing(reports, "remove", errno.EBUSY), asked, patience).report


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EAGAIN, errno.ETIMEDOUT])
def test_a_busy_host_is_waited_for_within_the_bound(
    reports: TsmReports, asked: ReportRequest, patience: Patience, slept: list[float], code: int
) -> None:
    assert fetch_from_tsm(Refusing(reports, "read outblob", code, times=3), asked, patience).report
    assert slept == [1, 2, 4]
    with pytest.raises(FirmwareError, match="throttles this guest's requests"):
        fetch_from_tsm(Refusing(reports, "read outblob", code), asked, patience)
    assert sum(slept) <= 30


def test_a_driver_that_was_throttled_too_long_has_given_up_its_key(
    reports: TsmReports, asked: ReportRequest, patience: Patience
) -> None:
    reports.driver.throttled = 100
    with pytest.raises(FirmwareError, match=r"given up its key .* after being throttled"):
        fetch_from_tsm(reports, asked, patience)


def test_a_failed_command_is_an_unclear_failure_and_then_the_end(
    kvm: SimulatedKvm, reports: TsmReports, asked: ReportRequest, patience: Patience
) -> None:
    kvm.processor.faults.fail("SNP_GUEST_REQUEST", FirmwareStatus.HWERROR_PLATFORM, times=1)
    with pytest.raises(DoorClosed) as caught:
        fetch_from_tsm(reports, asked, patience)
    assert caught.value.cause is Cause.FAILED
    with pytest.raises(FirmwareError, match=r"given up its key .* after a request that failed"):
        fetch_from_tsm(reports, asked, patience)


def test_a_table_beyond_the_kernels_room_leaves_the_key(
    reports: TsmReports, asked: ReportRequest, patience: Patience
) -> None:
    reports.driver.table = encode_cert_table({VCEK: bytes(0x4000)})
    with pytest.raises(DoorClosed, match="no report: Input/output error"):
        fetch_from_tsm(reports, asked, patience)
    assert not reports.driver.disabled


def test_another_provider_is_no_snp_guest(
    driver: GuestDriver, asked: ReportRequest, patience: Patience
) -> None:
    reports = TsmReports(driver, provider="tdx_guest")
    with pytest.raises(HostReadError, match=r"not an SNP guest: .* of 'tdx_guest'") as caught:
        fetch_from_tsm(reports, asked, patience)
    assert not isinstance(caught.value, DoorClosed)


def test_without_a_driver_the_door_is_closed(
    driver: GuestDriver, asked: ReportRequest, patience: Patience
) -> None:
    with pytest.raises(DoorClosed) as caught:
        fetch_from_tsm(TsmReports(driver, provider=None), asked, patience)
    assert caught.value.cause is Cause.ABSENT


def test_generations_may_overflow(
    reports: TsmReports, asked: ReportRequest, patience: Patience
) -> None:
    def age(inner: TsmReports, entry: str) -> None:
        inner._entries[entry].written = (1 << 64) - 1

    folder = Meddler(reports, {"read privlevel_floor": age})
    assert fetch_from_tsm(folder, asked, patience).report
    assert len(folder.made) == 1


class Answering:
    """A kernel whose attribute says something else."""

    def __init__(self, inner: TsmReports, attribute: str, data: bytes) -> None:
        self.make, self.remove, self.write = inner.make, inner.remove, inner.write
        self._inner, self._attribute, self._data = inner, attribute, data

    def read(self, entry: str, attribute: str) -> bytes:
        return self._data if attribute == self._attribute else self._inner.read(entry, attribute)


@pytest.mark.parametrize(
    ("attribute", "data", "kind"),
    [
        ("provider", b"", HostReadError),
        ("provider", b"\xff\xfe", FormatError),
        ("generation", b"", FormatError),
        ("generation", b"-1\n", FormatError),
        ("generation", b"1" * 30, FormatError),
        ("generation", "²".encode(), FormatError),
        ("generation", b"7\n", UndecidedError),
        ("privlevel_floor", b"4\n", FormatError),
        ("privlevel_floor", b"0x1\n", FormatError),
        ("outblob", b"", FormatError),
        ("outblob", bytes(1183), FormatError),
        ("outblob", bytes(1 << 17), FormatError),
        ("outblob", bytes(1184), FirmwareError),
        ("auxblob", bytes(1 << 17), FormatError),
    ],
)
def test_an_attribute_that_makes_no_sense_is_refused(
    reports: TsmReports,
    asked: ReportRequest,
    patience: Patience,
    attribute: str,
    data: bytes,
    kind: type[SevkitError],
) -> None:
    with pytest.raises(kind):
        fetch_from_tsm(Answering(reports, attribute, data), asked, patience)
    assert reports.entries == ()


def test_a_captured_folder_answers_nothing_and_keeps_nothing(
    tmp_path: Path, asked: ReportRequest, patience: Patience
) -> None:
    folder = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(DoorClosed, match="provider: No such file") as caught:
            fetch_from_tsm(Configfs(folder), asked, patience)
    finally:
        os.close(folder)
    assert caught.value.cause is Cause.ABSENT
    assert list(tmp_path.iterdir()) == []


def test_the_real_folder_reads_writes_and_bounds(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    try:
        configfs = Configfs(folder)
        configfs.make("entry")
        (tmp_path / "entry/inblob").touch()
        configfs.write("entry", "inblob", b"abc")
        assert configfs.read("entry", "inblob") == b"abc"
        (tmp_path / "entry/outblob").write_bytes(bytes(1 << 20))
        assert len(configfs.read("entry", "outblob")) == (64 << 10) + 1
        with pytest.raises(FileNotFoundError):
            configfs.write("entry", "privlevel", b"0")
        (tmp_path / "entry/link").symlink_to(tmp_path / "entry/inblob")
        with pytest.raises(OSError, match="symbolic links"):
            configfs.read("entry", "link")
    finally:
        os.close(folder)
