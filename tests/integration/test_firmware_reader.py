"""The firmware reader as a process, on a simulated secure processor behind a real /dev/sev."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import struct
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, final

import pytest

from sevkit.abi.product import Product
from sevkit.host.devices import SEV_ISSUE_CMD
from sevkit.host.firmware import parse_firmware, read_firmware
from sevkit.host.reading import Cause, Known, Unreadable
from sevkit.testing.device.mount import FuseDevices, unavailable_reason
from sevkit.testing.device.run import run_with_devices
from sevkit.testing.driver import SevDevice
from sevkit.testing.secure_processor.processor import SecureProcessor
from sevkit.testing.simulated_amd import SimulatedAmd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from subprocess import CompletedProcess

    from sevkit.testing.device.ioctl import CallerMemory, IoctlReply

pytestmark = pytest.mark.skipif(
    unavailable_reason() is not None, reason=f"no device files: {unavailable_reason()}"
)

ROOT: Final = Path(__file__).resolve().parents[2]
PATIENCE: Final = 20.0
ISSUE: Final = struct.Struct("<IQI")
#: Tells its process, which the caller cannot see, and becomes the reader.
READER: Final = 'echo $$ > "$0"; exec "$@"'


@final
class Recording:
    """A /dev/sev that keeps the number of every command, and how it was opened."""

    def __init__(self, device: SevDevice) -> None:
        self._device: Final = device
        self.commands: list[int] = []
        self.writable: set[bool] = set()

    def ioctl(
        self, request: int, argument: bytes, memory: CallerMemory, *, writable: bool
    ) -> IoctlReply:
        assert request == SEV_ISSUE_CMD
        self.commands.append(ISSUE.unpack(argument)[0])
        self.writable.add(writable)
        return self._device.ioctl(request, argument, memory, writable=writable)


@pytest.fixture(scope="module")
def amd() -> SimulatedAmd:
    return SimulatedAmd()


@pytest.fixture
def processor(amd: SimulatedAmd) -> SecureProcessor:
    """A Genoa's, with SEV and SNP initialised."""
    made = SecureProcessor(amd.make_chip(Product.GENOA))
    made.snp.init()
    made.sev.init(es=True)
    return made


@pytest.fixture
def device(processor: SecureProcessor) -> Recording:
    return Recording(SevDevice(processor, kernel=(7, 1)))


@pytest.fixture
def devices(device: Recording) -> Iterator[FuseDevices]:
    with FuseDevices({"sev": device}) as found:
        yield found


@final
class Reader:
    """A firmware reader that goes on until it is left; SIGHUP makes it read at once."""

    def __init__(self, devices: FuseDevices, folder: Path) -> None:
        self._devices: Final = devices
        self._told: Final = folder / "pid"
        self.out: Final = folder / "firmware.json"
        self._thread: Final = threading.Thread(target=self._run)
        self.done: list[CompletedProcess[bytes]] = []

    def _run(self) -> None:
        module = (sys.executable, "-m", "node_agent.firmware_reader")
        self.done.append(
            run_with_devices(
                [
                    *("/bin/sh", "-c", READER, str(self._told)),
                    *(*module, "--out", str(self.out), "--interval", "300"),
                ],
                self._devices,
                cwd=ROOT,
                timeout=60,
            )
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self.done:
            self.send(signal.SIGKILL)
        self._thread.join()

    def send(self, number: int) -> None:
        until(lambda: self._told.exists() and self._told.read_text().strip())
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(self._told.read_text()), number)

    def stop(self) -> CompletedProcess[bytes]:
        begun = time.monotonic()
        self.send(signal.SIGTERM)
        self._thread.join(PATIENCE)
        assert time.monotonic() - begun < 2
        return self.done[0]


def until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, "does not happen"
        time.sleep(0.02)


def is_silent(out: Path) -> bool:
    found = read_firmware(Known(out.read_text()))
    return isinstance(found, Unreadable) and found.cause is Cause.SILENT


def once(devices: FuseDevices, out: Path) -> CompletedProcess[bytes]:
    words = [sys.executable, "-m", "node_agent.firmware_reader", "--once", "--out", str(out)]
    return run_with_devices(words, devices, cwd=ROOT)


def test_what_the_processor_says_is_written_for_the_agent(
    devices: FuseDevices, device: Recording, processor: SecureProcessor, tmp_path: Path
) -> None:
    out = tmp_path / "firmware.json"
    done = once(devices, out)
    assert done.returncode == 0, done.stderr
    facts = parse_firmware(out.read_text())
    assert facts.version == processor.core.firmware.version
    assert facts.es_configured
    assert facts.snp is not None
    assert facts.snp.initialized
    assert stat.filemode(out.stat().st_mode) == "-rw-r--r--"
    assert set(device.commands) == {1, 9}
    assert device.writable == {False}
    assert json.loads(done.stderr)["message"] == "firmware read"


def test_the_agent_that_has_no_device_knows_it_from_the_file(
    devices: FuseDevices, tmp_path: Path
) -> None:
    out = tmp_path / "firmware.json"
    assert once(devices, out).returncode == 0
    out.parent.chmod(0o755)
    facts = parse_firmware(out.read_text())
    agent = [sys.executable, "-m", "node_agent", "--sink", "stdout", "--once", "--dry-run"]
    with FuseDevices({}) as none:
        without, with_it = (
            json.loads(run_with_devices([*agent, *more], none, cwd=ROOT).stdout)["labels"]
            for more in ((), ("--firmware-facts", str(out)))
        )
    assert "sevkit.io/firmware-version" not in without
    assert with_it["sevkit.io/firmware-version"] == str(facts.version)


def test_in_its_whole_life_it_issues_nothing_but_status_commands(
    devices: FuseDevices, device: Recording, processor: SecureProcessor, tmp_path: Path
) -> None:
    with Reader(devices, tmp_path) as reader:
        until(reader.out.exists)
        for _ in range(5):
            before = len(device.commands)
            reader.send(signal.SIGHUP)
            until(lambda: len(device.commands) >= before + 2)  # noqa: B023  # within this turn
        processor.faults.kill()
        reader.send(signal.SIGHUP)
        until(lambda: processor.core.faults.dead and len(device.commands) > 12)
        done = reader.stop()
    assert done.returncode == 0, done.stderr
    assert set(device.commands) <= {1, 8, 9}
    assert device.writable == {False}
    assert {"SNP_COMMIT", "PEK_GEN", "PDH_GEN"}.isdisjoint(processor.core.log)


def test_a_processor_that_dies_is_told_at_once(
    devices: FuseDevices, device: Recording, processor: SecureProcessor, tmp_path: Path
) -> None:
    def read() -> None:
        before = len(device.commands)
        reader.send(signal.SIGHUP)
        until(lambda: len(device.commands) > before)

    with Reader(devices, tmp_path) as reader:
        until(reader.out.exists)
        written = reader.out.read_bytes()
        processor.faults.kill()
        read()
        until(lambda: is_silent(reader.out))
        for _ in range(4):
            read()
            assert is_silent(reader.out)
        processor.faults.heal()
        read()
        until(lambda: reader.out.read_bytes() == written)
        done = reader.stop()
    assert done.returncode == 0
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["message"].split(":")[0] for line in lines] == [
        "firmware read",
        "firmware cannot be read",
        "firmware read",
    ], "each is said once"
    assert lines[1]["cause"] == "silent"


def test_a_machine_without_a_device_is_no_answer(tmp_path: Path) -> None:
    with FuseDevices({}) as none:
        done = once(none, tmp_path / "firmware.json")
    assert done.returncode == 4
    assert not (tmp_path / "firmware.json").exists()
    (line,) = map(json.loads, done.stderr.splitlines())
    assert "/dev/sev" in line["message"]


def test_a_file_that_cannot_be_written_is_told_and_is_no_bug(devices: FuseDevices) -> None:
    done = once(devices, Path("/nonexistent/firmware.json"))
    assert done.returncode == 4
    (line,) = map(json.loads, done.stderr.splitlines())
    assert line["level"] == "error"
    assert "/nonexistent/firmware.json cannot be written" in line["message"]
    assert "trace" not in line


def test_it_is_small(devices: FuseDevices, tmp_path: Path) -> None:
    with Reader(devices, tmp_path) as reader:
        until(reader.out.exists)
        status = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/status").read_text()
        assert reader.stop().returncode == 0
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    assert int(peak) < 32 << 10
