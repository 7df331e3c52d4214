"""Simulated devices behind real descriptors: the kernel between caller and device is the real one.

Everything is done from this process, from its threads, and from processes that it starts.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import stat
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.abi.product import Product
from sevkit.errors import UndecidedError
from sevkit.testing.device import kvm
from sevkit.testing.device.ioctl import IoctlReply
from sevkit.testing.device.kvm import KvmDevice
from sevkit.testing.device.mount import FuseDevices, unavailable_reason
from sevkit.testing.device.registers import MsrFile
from sevkit.testing.device.speed import measure_ioctls
from sevkit.testing.driver import SEV_ISSUE_CMD, SevDevice
from sevkit.testing.secure_processor.identity import ChipIdentity
from sevkit.testing.secure_processor.processor import SecureProcessor
from sevkit.testing.sev_chain import make_roots

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sevkit.testing.device.ioctl import CallerMemory, IoctlFile, ReadableFile

pytestmark = pytest.mark.skipif(
    unavailable_reason() is not None, reason=f"no device files: {unavailable_reason()}"
)

ISSUE: Final = struct.Struct("<IQI")
PATIENCE: Final = 20.0
REAL_KVM: Final = Path("/dev/kvm")


class Echo:
    """Command 1 writes five bytes to the caller, 2 waits for leave, everything else fails."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.leave = threading.Event()

    def ioctl(
        self, request: int, argument: bytes, memory: CallerMemory, *, writable: bool
    ) -> IoctlReply:
        command, address, _ = ISSUE.unpack(argument)
        if command == 3:
            raise ZeroDivisionError
        if command == 2:
            self.entered.set()
            assert self.leave.wait(PATIENCE)
        if command == 1:
            memory.write(address, memory.read(address, 5)[::-1])
        result = {1: 0, 2: 7}.get(command, -524)
        return IoctlReply(result, ISSUE.pack(command, address, 40 + writable))


class Mirror:
    """Answers with what it was given, backwards."""

    def ioctl(
        self, request: int, argument: bytes, memory: CallerMemory, *, writable: bool
    ) -> IoctlReply:
        return IoctlReply(0, argument[::-1])


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def devices(echo: Echo) -> Iterator[FuseDevices]:
    files: dict[str, IoctlFile | ReadableFile] = {
        "sev": echo,
        "cpu/0/msr": MsrFile({0xC001_0010: 1 << 23}),
    }
    with FuseDevices(files) as found:
        yield found
        echo.leave.set()


@contextlib.contextmanager
def opened(path: Path, flags: int = os.O_RDWR) -> Iterator[int]:
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def issue(descriptor: int, command: int, address: int = 0) -> tuple[int, int]:
    """Returns the result or minus the errno, and the firmware's error."""
    argument = bytearray(ISSUE.pack(command, address, 0xFFFF_FFFF))
    try:
        result = fcntl.ioctl(descriptor, SEV_ISSUE_CMD, argument)
    except OSError as error:
        result = -(error.errno or 0)
    return result, ISSUE.unpack(argument)[2]


CLIENT: Final = """
import fcntl, os, signal, struct, sys
signal.signal(signal.SIGALRM, lambda *_: print("interrupted", flush=True))
descriptor = os.open(sys.argv[1], os.O_RDWR)
print("open", flush=True)
argument = bytearray(struct.pack("<IQI", 2, 0, 0))
print(fcntl.ioctl(descriptor, 0xC0105300, argument), flush=True)
"""


@contextlib.contextmanager
def client(devices: FuseDevices) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-c", CLIENT, str(devices.path / "sev")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_device_looks_like_a_node_that_is_roots_alone(devices: FuseDevices) -> None:
    found = (devices.path / "sev").stat()
    assert stat.filemode(found.st_mode) == "-rw-------"
    assert (found.st_uid, found.st_gid) == (0, 0)
    assert sorted(os.listdir(devices.path)) == ["cpu", "sev"]  # noqa: PTH208  # readdir itself
    assert [path.name for path in devices.path.rglob("msr")] == ["msr"]


def test_nothing_can_be_added_or_removed(devices: FuseDevices) -> None:
    with pytest.raises(PermissionError):
        (devices.path / "kvm").touch()
    with pytest.raises(PermissionError):
        (devices.path / "folder").mkdir()
    with pytest.raises(PermissionError):
        (devices.path / "sev").unlink()
    assert not (devices.path / "kvm").exists()


def test_memory_of_this_process_is_reached_through_nested_pointers(devices: FuseDevices) -> None:
    room = ctypes.create_string_buffer(b"abcde", 8)
    with opened(devices.path / "sev") as descriptor:
        assert issue(descriptor, 1, ctypes.addressof(room)) == (0, 41)
    assert room.raw == b"edcba\0\0\0"


def test_a_pointer_to_nowhere_is_a_bad_address(devices: FuseDevices) -> None:
    with opened(devices.path / "sev") as descriptor:
        assert issue(descriptor, 1, 8)[0] == -errno.EFAULT


def test_the_largest_request_that_linux_can_number_is_carried_both_ways() -> None:
    room = ctypes.create_string_buffer(os.urandom(0x3FFF), 0x3FFF)
    expected = room.raw[::-1]
    request = ctypes.c_ulong(0xC0005300 | len(room) << 16)
    with FuseDevices({"sev": Mirror()}) as found, opened(found.path / "sev") as descriptor:
        # Not with fcntl, which keeps all other threads from running during so large a request.
        assert ctypes.CDLL(None).ioctl(descriptor, request, room) == 0
    assert room.raw == expected


def test_a_status_comes_back_beside_an_errno_that_only_linux_knows(devices: FuseDevices) -> None:
    with opened(devices.path / "sev") as descriptor:
        assert issue(descriptor, 9) == (-524, 41)


@pytest.mark.parametrize(
    ("flags", "told"),
    [(os.O_RDONLY, 40), (os.O_WRONLY, 41), (os.O_RDWR, 41), (os.O_RDWR | os.O_TRUNC, 41)],
)
def test_a_device_knows_how_its_file_was_opened(
    devices: FuseDevices, flags: int, told: int
) -> None:
    with opened(devices.path / "sev"), opened(devices.path / "sev", flags) as descriptor:
        assert issue(descriptor, 9)[1] == told


def test_a_request_with_nothing_at_its_address_never_reaches_the_device(
    devices: FuseDevices,
) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with opened(devices.path / "sev") as descriptor:
        assert libc.ioctl(descriptor, ctypes.c_ulong(SEV_ISSUE_CMD), ctypes.c_void_p(8)) == -1
        assert ctypes.get_errno() == errno.EFAULT


def test_a_register_is_read_at_its_number(devices: FuseDevices) -> None:
    with opened(devices.path / "cpu/0/msr", os.O_RDONLY) as descriptor:
        assert os.pread(descriptor, 8, 0xC001_0010) == (1 << 23).to_bytes(8, "little")
        with pytest.raises(OSError, match="error"):
            os.pread(descriptor, 8, 0xC001_0011)
        with pytest.raises(OSError, match="ioctl"):
            fcntl.ioctl(descriptor, SEV_ISSUE_CMD, bytearray(16))
    with opened(devices.path / "sev") as descriptor, pytest.raises(OSError, match="Invalid"):
        os.pread(descriptor, 8, 0)


def test_a_closed_file_is_forgotten(devices: FuseDevices) -> None:
    for _ in range(20):
        with opened(devices.path / "sev"):
            assert devices.open_handles >= 1
    with opened(devices.path / "sev") as descriptor:
        issue(descriptor, 9)  # requests are taken in their order, so all releases were before
        assert devices.open_handles == 1


def test_programs_can_be_started_while_devices_are_open_and_busy(devices: FuseDevices) -> None:
    done = threading.Event()

    def hammer() -> None:
        with opened(devices.path / "sev") as descriptor:
            while not done.is_set():
                issue(descriptor, 9)

    threads = [threading.Thread(target=hammer) for _ in range(2)]
    with opened(devices.path / "sev") as descriptor:
        os.set_inheritable(descriptor, True)
        for thread in threads:
            thread.start()
        for close in (True, False):
            for _ in range(10):
                subprocess.run(["true"], close_fds=close, check=True, timeout=PATIENCE)
    done.set()
    for thread in threads:
        thread.join()


def test_a_caller_that_is_killed_during_a_call_does_no_harm(
    devices: FuseDevices, echo: Echo
) -> None:
    with client(devices) as process:
        assert echo.entered.wait(PATIENCE)
        process.kill()
        echo.leave.set()
        assert process.wait(PATIENCE) == -signal.SIGKILL
    with opened(devices.path / "sev") as descriptor:
        assert issue(descriptor, 9) == (-524, 41)


def test_a_caller_that_gets_a_signal_during_a_call_gets_its_answer_too(
    devices: FuseDevices, echo: Echo
) -> None:
    with client(devices) as process:
        assert echo.entered.wait(PATIENCE)
        process.send_signal(signal.SIGALRM)
        echo.leave.set()
        output, _ = process.communicate(timeout=PATIENCE)
    assert sorted(output.split()) == ["7", "interrupted", "open"]


def test_leaving_lets_go_of_a_caller_whose_device_does_not_answer(echo: Echo) -> None:
    with FuseDevices({"sev": echo}) as devices, opened(devices.path / "sev") as descriptor:
        found: list[tuple[int, int]] = []
        caller = threading.Thread(target=lambda: found.append(issue(descriptor, 2)))
        caller.start()
        assert echo.entered.wait(PATIENCE)
        leaver = threading.Thread(target=devices.__exit__, args=(None, None, None))
        leaver.start()
        caller.join(PATIENCE)
        assert found[0][0] in {-errno.ECONNABORTED, -errno.ENOTCONN}
        echo.leave.set()
        leaver.join(PATIENCE)
        assert not leaver.is_alive()


def test_a_file_that_is_still_open_does_not_hold_up_leaving() -> None:
    with contextlib.ExitStack() as stack:
        with FuseDevices({"kvm": KvmDevice()}) as devices:
            descriptor = stack.enter_context(opened(devices.path / "kvm"))
            assert fcntl.ioctl(descriptor, kvm.GET_API_VERSION, 0) == kvm.API_VERSION
        with pytest.raises(OSError, match="not connected"):
            fcntl.ioctl(descriptor, kvm.GET_API_VERSION, 0)


def test_a_bug_in_a_device_is_raised_on_leaving(echo: Echo) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: SIM117  # the leaving is what raises
        with FuseDevices({"sev": echo}) as devices, opened(devices.path / "sev") as descriptor:
            assert issue(descriptor, 3)[0] == -errno.EIO


def test_nobody_else_sees_the_mount(devices: FuseDevices) -> None:
    assert "fuse.sevkit" not in Path("/proc/self/mounts").read_text()
    assert not any(devices.folder.iterdir())


def test_devices_can_be_mounted_for_everybody(tmp_path: Path) -> None:
    with FuseDevices({"kvm": KvmDevice()}, at=tmp_path) as devices:
        assert devices.path == devices.folder == tmp_path
        assert f" {tmp_path} fuse.sevkit " in Path("/proc/self/mounts").read_text()
        assert os.access(tmp_path / "kvm", os.R_OK)
    assert not list(tmp_path.iterdir())


def test_a_dead_mount_of_a_killed_process_is_replaced(tmp_path: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from sevkit.testing.device.mount import FuseDevices
with FuseDevices({}, at=Path(sys.argv[1])):
    os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path], check=False, timeout=PATIENCE)
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(OSError, match="not connected"):
        tmp_path.stat()
    with FuseDevices({"kvm": KvmDevice()}, at=tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["kvm"]
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_cannot_be_mounted_on(tmp_path: Path) -> None:
    with (
        pytest.raises(UndecidedError, match="cannot mount device files"),
        FuseDevices({}, at=tmp_path / "absent"),
    ):
        pass


@pytest.mark.skipif(not os.access(REAL_KVM, os.R_OK), reason="no /dev/kvm to compare with")
def test_kvm_answers_as_the_kernel_does() -> None:
    argument = struct.pack("<IIQQ", 0, 1, 99, 0)
    with FuseDevices({"kvm": KvmDevice({kvm.Extension.VM_TYPES: 1})}) as devices:
        answers = []
        for path in (REAL_KVM, devices.path / "kvm"):
            with opened(path, os.O_RDONLY) as descriptor:
                answers.append(
                    [
                        kvm_answer(descriptor, request, word)
                        for request, word in (
                            (kvm.GET_API_VERSION, 0),
                            (kvm.GET_API_VERSION, 1),
                            (kvm.CHECK_EXTENSION, 99999),
                            (kvm.GET_DEVICE_ATTR, argument),
                            (kvm.HAS_DEVICE_ATTR, argument),
                            (0xAE7F, 0),
                            (SEV_ISSUE_CMD, bytes(16)),
                        )
                    ]
                )
    assert answers[0] == answers[1]


def kvm_answer(descriptor: int, request: int, argument: int | bytes) -> object:
    try:
        return fcntl.ioctl(descriptor, request, argument)
    except OSError as error:
        return error.errno


def test_a_simulated_processor_answers_through_its_driver() -> None:
    processor = SecureProcessor(ChipIdentity(Product.ROME, make_roots()))
    room = ctypes.create_string_buffer(12)
    with FuseDevices({"sev": SevDevice(processor)}) as devices:
        with opened(devices.path / "sev", os.O_RDONLY) as descriptor:
            assert issue(descriptor, 1, ctypes.addressof(room)) == (0, 0)
            assert room.raw == processor.sev.status().encode()
            assert issue(descriptor, 2)[0] == -errno.EPERM
        with opened(devices.path / "sev") as descriptor:
            assert issue(descriptor, 2) == (0, 0)
        assert measure_ioctls(devices.path / "sev", 100) < PATIENCE
    assert "PEK_GEN" in processor.core.log
