"""What the firmware reader does with answers, failures and its file; its devices are made up."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from typing import TYPE_CHECKING, Final, final

import pytest

from node_agent.firmware_reader import LONGEST, PATIENCE, FirmwareFile, main
from sevkit.host.devices import StatusCommand
from sevkit.host.firmware import FRESH_SECONDS, parse_firmware, read_firmware
from sevkit.host.reading import Cause, Known, Unreadable

if TYPE_CHECKING:
    from pathlib import Path

    from node_agent.signals import Signals

ISSUE: Final = struct.Struct("<IQI")
PLATFORM: Final = struct.pack("<BBBIBI", 1, 55, 1, 1 << 8, 40, 2)


@final
class Processor:
    """Answers PLATFORM_STATUS, refuses SNP_PLATFORM_STATUS, or fails with an errno."""

    def __init__(self) -> None:
        self.failure: int | None = None
        self.commands: list[int] = []

    def ioctl(self, device: str, request: int, argument: bytearray | int) -> int:
        assert (device, request) == ("sev", 0xC010_5300)
        assert isinstance(argument, bytearray)
        command, address, _ = ISSUE.unpack(argument)
        self.commands.append(command)
        if self.failure is not None:
            raise OSError(self.failure, os.strerror(self.failure))
        if command != StatusCommand.PLATFORM_STATUS:
            raise OSError(errno.EINVAL, "Invalid argument")
        ctypes.memmove(address, PLATFORM, len(PLATFORM))
        return 0


@pytest.fixture
def processor() -> Processor:
    return Processor()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "firmware.json"


@pytest.fixture
def file(path: Path, processor: Processor) -> FirmwareFile:
    return FirmwareFile(str(path), processor)


def test_three_readings_are_its_patience_and_the_agents() -> None:
    assert PATIENCE == 3
    assert PATIENCE * LONGEST == FRESH_SECONDS


def test_what_the_firmware_says_is_written_for_all_to_read(file: FirmwareFile, path: Path) -> None:
    assert file.renew()
    facts = parse_firmware(path.read_text())
    assert str(facts.version) == "1.55.40"
    assert facts.snp is None
    assert stat.filemode(path.stat().st_mode) == "-rw-r--r--"


def test_it_issues_status_commands_only(file: FirmwareFile, processor: Processor) -> None:
    for _ in range(10):
        file.renew()
    assert set(processor.commands) <= {1, 8, 9}


@pytest.mark.parametrize(
    "failure", [errno.ENOENT, errno.EACCES, errno.EPERM, errno.EINTR, errno.EIO]
)
def test_what_cannot_be_read_keeps_the_file_for_three_readings(
    failure: int, file: FirmwareFile, path: Path, processor: Processor
) -> None:
    file.renew()
    written = path.read_bytes()
    processor.failure = failure
    for _ in range(PATIENCE - 1):
        assert not file.renew()
        assert path.read_bytes() == written
    assert not file.renew()
    assert not path.exists()
    assert not file.renew(), "and it goes on without it"
    processor.failure = None
    assert file.renew()
    assert path.read_bytes() == written


@pytest.mark.parametrize("failure", [errno.EBUSY, errno.ETIMEDOUT, errno.ENODEV])
def test_a_processor_that_was_given_up_is_said_at_once_and_over_and_over(
    failure: int, file: FirmwareFile, path: Path, processor: Processor
) -> None:
    file.renew()
    processor.failure = failure
    for _ in range(2 * PATIENCE):
        assert not file.renew()
        found = read_firmware(Known(path.read_text()))
        assert isinstance(found, Unreadable)
        assert found.cause is Cause.SILENT
        assert "firmware.json: the secure processor no longer answers" in found.detail
        path.unlink()
    processor.failure = None
    assert file.renew()
    assert str(parse_firmware(path.read_text()).version) == "1.55.40"


def test_a_file_that_cannot_be_renewed_does_not_stay_for_ever(
    file: FirmwareFile, path: Path
) -> None:
    file.renew()
    new = path.parent / f".{path.name}.new"
    new.mkdir()
    for _ in range(PATIENCE - 1):
        with pytest.raises(OSError, match=r"directory|permitted"):
            file.renew()
        assert path.exists()
    with pytest.raises(OSError, match=r"directory|permitted"):
        file.renew()
    assert not path.exists()
    new.rmdir()
    assert file.renew()
    assert path.exists()


def test_an_answer_in_between_begins_the_counting_anew(
    file: FirmwareFile, path: Path, processor: Processor
) -> None:
    for _ in range(20):
        for failure in (errno.EIO, errno.EIO, None):
            processor.failure = failure
            file.renew()
    processor.failure = errno.EIO
    file.renew()
    file.renew()
    assert path.exists()


def test_a_file_of_a_reader_before_us_is_not_taken_for_ours(
    file: FirmwareFile, path: Path, processor: Processor
) -> None:
    path.write_text("of yesterday")
    processor.failure = errno.EIO
    for _ in range(PATIENCE):
        file.renew()
    assert not path.exists()


def test_where_the_file_cannot_be_written_it_is_raised(processor: Processor) -> None:
    with pytest.raises(OSError, match="directory"):
        FirmwareFile("/nonexistent/firmware.json", processor).renew()


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--out",),
        ("--out", "f", "--interval", "0"),
        ("--out", "f", "--interval", "nan"),
        ("--out", "f", "--interval", "301"),
        ("--out", "f", "--interval", "1e9"),
        ("--out", "f", "--interval", "soon"),
        ("--out", "f", "--command", "10"),
        ("--out", "f", "10"),
        ("--ou", "f"),
    ],
    ids=" ".join,
)
def test_what_it_does_not_know_it_refuses(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    signals: Signals = None  # type: ignore[assignment]  # refused before it waits for any
    with pytest.raises(SystemExit) as refused:
        main(arguments, signals)
    assert refused.value.code == 2
    assert "error: " in capsys.readouterr().err
