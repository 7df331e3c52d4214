from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.errors import FormatError
from sevkit.testing.device.fuse_protocol import Opcode
from sevkit.testing.device.ioctl import EntryAttribute, IoctlReply
from sevkit.testing.device.server import DeviceServer
from sevkit.testing.device.tree import make_tree

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sevkit.testing.device.ioctl import CallerMemory

ISSUE = 0xC0105300
READS_ONLY = 0x80085301
WRITES_ONLY = 0x4018AEE2
BY_VALUE = 0xAE03
ANSWER = IoctlReply(0, b"answer")


@dataclass
class Recorder:
    """A device that remembers what it was asked, and answers as it was told."""

    reply: IoctlReply | Exception = ANSWER
    asked: list[tuple[int, bytes, bool]] = field(default_factory=list)

    def ioctl(
        self, request: int, argument: bytes, memory: CallerMemory, *, writable: bool
    ) -> IoctlReply:
        self.asked.append((request, argument, writable))
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply


class Register:
    """A device that is only read: the offset, as often as it is asked for."""

    def read_at(self, offset: int, size: int) -> bytes:
        if offset == 13:
            raise OSError(errno.EIO, "no such register")
        return offset.to_bytes(8, "little") * (size // 8 + 1)


class Client:
    """The kernel's side, without a kernel."""

    def __init__(self, **files: Recorder | Register | Shelf) -> None:
        self.server = DeviceServer(make_tree(files))

    def ask(self, opcode: int, body: bytes = b"", node: int = 1) -> tuple[int, bytes]:
        size = 40 + len(body)
        head = struct.pack("<IIQQIIIHH", size, opcode, 9, node, 0, 0, os.getpid(), 0, 0)
        reply = self.server.answer(bytearray(head + body), size)
        assert reply is not None
        length, error, unique = struct.unpack_from("<IiQ", reply)
        assert (length, unique) == (len(reply), 9)
        return -error, reply[16:]

    def open(self, flags: int = os.O_RDWR, node: int = 2) -> int:
        error, body = self.ask(Opcode.OPEN, struct.pack("<II", flags, 0), node)
        assert error == 0
        handle: int = struct.unpack_from("<Q", body)[0]
        return handle

    def ioctl(
        self,
        handle: int,
        request: int,
        data: bytes = b"",
        *,
        out: int = 0,
        word: int = 0,
        flags: int = 0,
    ) -> tuple[int, int, bytes]:
        body = struct.pack("<QIIQII", handle, flags, request, word, len(data), out) + data
        error, answer = self.ask(Opcode.IOCTL, body)
        result = struct.unpack_from("<i", answer)[0] if answer else 0
        return error, result, answer[16:]


def test_the_device_gets_a_copy_of_what_the_argument_points_at() -> None:
    device = Recorder(IoctlReply(0, b"x" * 16))
    client = Client(sev=device)
    assert client.ioctl(client.open(), ISSUE, bytes(range(16)), out=16, word=0x7000) == (
        0,
        0,
        b"x" * 16,
    )
    assert device.asked == [(ISSUE, bytes(range(16)), True)]


def test_the_device_gets_the_argument_itself_where_the_request_has_no_size() -> None:
    device = Recorder(IoctlReply(29))
    client = Client(kvm=device)
    assert client.ioctl(client.open(), BY_VALUE, word=235) == (0, 29, b"")
    assert device.asked == [(BY_VALUE, (235).to_bytes(8, "little"), True)]


def test_the_device_gets_nothing_where_the_request_only_returns() -> None:
    device = Recorder()
    client = Client(sev=device)
    assert client.ioctl(client.open(), READS_ONLY, out=8, word=0x7000) == (0, 0, b"answer")
    assert device.asked == [(READS_ONLY, b"", True)]


def test_no_more_is_copied_back_than_the_request_has_room_for() -> None:
    client = Client(sev=Recorder(IoctlReply(0, b"x" * 64)))
    handle = client.open()
    assert client.ioctl(handle, ISSUE, bytes(16), out=16) == (0, 0, b"x" * 16)
    assert client.ioctl(handle, WRITES_ONLY, bytes(24)) == (0, 0, b"")


def test_data_is_copied_back_beside_a_negative_result() -> None:
    client = Client(sev=Recorder(IoctlReply(-errno.EIO, b"status")))
    assert client.ioctl(client.open(), ISSUE, bytes(16), out=16) == (0, -errno.EIO, b"status")


@pytest.mark.parametrize(
    ("flags", "writable"), [(os.O_RDONLY, False), (os.O_WRONLY, True), (os.O_RDWR, True)]
)
def test_each_handle_keeps_how_it_was_opened(flags: int, writable: bool) -> None:
    device = Recorder()
    client = Client(sev=device)
    mine = client.open(flags | os.O_NONBLOCK)
    client.open(os.O_RDONLY if writable else os.O_RDWR)
    client.ioctl(mine, ISSUE, bytes(16), out=16)
    assert device.asked == [(ISSUE, bytes(16), writable)]


def test_an_operating_system_error_out_of_a_device_is_its_errno() -> None:
    client = Client(sev=Recorder(OSError(errno.EFAULT, "bad address")))
    assert client.ioctl(client.open(), ISSUE, bytes(16), out=16) == (errno.EFAULT, 0, b"")
    assert client.server.defects == []


def test_any_other_error_out_of_a_device_is_kept_and_its_caller_is_answered() -> None:
    bug = ZeroDivisionError()
    client = Client(sev=Recorder(bug))
    assert client.ioctl(client.open(), ISSUE, bytes(16), out=16) == (errno.EIO, 0, b"")
    assert client.server.defects == [bug]


@pytest.mark.parametrize("flags", [1, 16])
def test_an_ioctl_of_a_32_bit_caller_or_of_a_folder_is_refused(flags: int) -> None:
    client = Client(sev=Recorder())
    assert client.ioctl(client.open(), ISSUE, bytes(16), flags=flags)[0] == errno.ENOTTY


def test_a_handle_is_good_until_it_is_released() -> None:
    client = Client(sev=Recorder())
    handle = client.open()
    assert client.server.open_handles == 1
    assert client.ask(Opcode.RELEASE, struct.pack("<QIIQ", handle, 0, 0, 0), 2) == (0, b"")
    assert client.server.open_handles == 0
    assert client.ioctl(handle, ISSUE, bytes(16))[0] == errno.EBADF
    assert client.ioctl(99, ISSUE, bytes(16))[0] == errno.EBADF


def test_registers_are_read_at_their_numbers() -> None:
    client = Client(msr=Register())
    handle = client.open()
    body = struct.pack("<QQIIQII", handle, 0xC0010010, 8, 0, 0, 0, 0)
    assert client.ask(Opcode.READ, body, 2) == (0, (0xC0010010).to_bytes(8, "little"))
    body = struct.pack("<QQIIQII", handle, 13, 8, 0, 0, 0, 0)
    assert client.ask(Opcode.READ, body, 2) == (errno.EIO, b"")
    assert client.ioctl(handle, ISSUE, bytes(16))[0] == errno.ENOTTY


def test_a_device_of_ioctls_is_not_read_and_none_is_written() -> None:
    client = Client(sev=Recorder())
    body = struct.pack("<QQIIQII", client.open(), 0, 8, 0, 0, 0, 0)
    assert client.ask(Opcode.READ, body, 2)[0] == errno.EINVAL
    assert client.ask(Opcode.WRITE, body + bytes(8), 2)[0] == errno.EINVAL


@pytest.mark.parametrize(
    ("opcode", "code"),
    [
        (Opcode.CREATE, errno.EPERM),
        (Opcode.UNLINK, errno.EPERM),
        (Opcode.MKDIR, errno.EPERM),
        (Opcode.RMDIR, errno.EPERM),
        (22, errno.ENOSYS),  # GETXATTR
        (25, errno.ENOSYS),  # FLUSH
        (4096, errno.ENOSYS),
    ],
)
def test_what_a_folder_of_devices_cannot_do_is_refused(opcode: int, code: int) -> None:
    assert Client(sev=Recorder()).ask(opcode, bytes(64)) == (code, b"")


@pytest.mark.parametrize("opcode", [Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT])
def test_what_expects_no_answer_gets_none(opcode: Opcode) -> None:
    server = DeviceServer(make_tree({}))
    head = struct.pack("<IIQQIIIHH", 56, opcode, 9, 1, 0, 0, 1, 0, 0)
    assert server.answer(bytearray(head + bytes(16)), 56) is None


def test_names_lead_to_nodes() -> None:
    client = Client(sev=Recorder())
    error, entry = client.ask(Opcode.LOOKUP, b"sev\0")
    assert (error, struct.unpack_from("<Q", entry)) == (0, (2,))
    assert client.ask(Opcode.LOOKUP, b"kvm\0")[0] == errno.ENOENT
    assert client.ask(Opcode.LOOKUP, b"sev\0", 99)[0] == errno.ESTALE
    assert client.ask(Opcode.LOOKUP, b"sev")[0] == errno.EINVAL


@pytest.mark.parametrize(
    ("version", "code"), [((7, 31), 0), ((7, 45), 0), ((7, 30), 71), ((6, 99), 71), ((8, 0), 71)]
)
def test_an_older_protocol_is_refused(version: tuple[int, int], code: int) -> None:
    body = struct.pack("<IIII", *version, 65536, 0)
    assert Client().ask(Opcode.INIT, body)[0] == code


def test_a_request_without_a_sound_header_ends_the_service() -> None:
    with pytest.raises(FormatError):
        DeviceServer(make_tree({})).answer(bytearray(64), 12)


class Shelf:
    """A folder of entries with one text and one blob each."""

    attributes: Final[Mapping[str, EntryAttribute]] = {
        "text": EntryAttribute(0o444),
        "blob": EntryAttribute(0o200, 8),
    }

    def __init__(self) -> None:
        self.made: dict[str, bytes] = {}

    def make(self, entry: str) -> None:
        if entry in self.made:
            raise OSError(errno.EEXIST, "there already")
        self.made[entry] = b""

    def remove(self, entry: str) -> None:
        if entry not in self.made:
            raise OSError(errno.ENOENT, "not there")
        del self.made[entry]

    def read(self, entry: str, attribute: str) -> bytes:
        return self.made[entry] + attribute.encode()

    def write(self, entry: str, attribute: str, data: bytes) -> None:
        self.made[entry] = data


MKDIR = bytes(8)


def test_entries_come_with_their_files_and_go_with_them() -> None:
    shelf = Shelf()
    client = Client(shelf=shelf)
    code, made = client.ask(Opcode.MKDIR, MKDIR + b"e\0", 2)
    assert (code, list(shelf.made)) == (0, ["e"])
    entry = struct.unpack_from("<Q", made)[0]
    assert client.ask(Opcode.MKDIR, MKDIR + b"e\0", 2)[0] == errno.EEXIST
    found = {
        name: struct.unpack_from("<Q", client.ask(Opcode.LOOKUP, name + b"\0", entry)[1])[0]
        for name in (b"text", b"blob")
    }
    assert len({entry, *found.values()}) == 3
    assert client.ask(Opcode.RMDIR, b"e\0", 2)[0] == 0
    assert shelf.made == {}
    assert client.ask(Opcode.LOOKUP, b"e\0", 2)[0] == errno.ENOENT
    for node in (entry, *found.values()):
        assert client.ask(Opcode.GETATTR, bytes(16), node)[0] == errno.ESTALE
    again = client.ask(Opcode.MKDIR, MKDIR + b"e\0", 2)[1]
    assert struct.unpack_from("<Q", again)[0] > max(found.values())
    assert client.ask(Opcode.RMDIR, b"f\0", 2)[0] == errno.ENOENT


def test_an_entrys_files_are_read_and_stored() -> None:
    shelf = Shelf()
    client = Client(shelf=shelf)
    entry = struct.unpack_from("<Q", client.ask(Opcode.MKDIR, MKDIR + b"e\0", 2)[1])[0]
    handle = client.open(node=entry + 2)
    written = struct.pack("<QQIIQII", handle, 0, 2, 0, 0, 0, 0) + b"ab"
    assert client.ask(Opcode.WRITE, written, entry + 2) == (0, struct.pack("<II", 2, 0))
    assert client.ask(Opcode.WRITE, written + b"c", entry + 2)[0] == errno.EINVAL
    too_much = struct.pack("<QQIIQII", handle, 8, 1, 0, 0, 0, 0) + b"x"
    assert client.ask(Opcode.WRITE, too_much, entry + 2)[0] == errno.EFBIG
    assert shelf.made == {"e": b""}
    client.ask(Opcode.RELEASE, struct.pack("<QIIQ", handle, 0, 0, 0), entry + 2)
    assert shelf.made == {"e": b"ab"}
    handle = client.open(node=entry + 1)
    body = struct.pack("<QQIIQII", handle, 1, 9, 0, 0, 0, 0)
    assert client.ask(Opcode.READ, body, entry + 1) == (0, b"btext")
    assert client.ioctl(handle, ISSUE, bytes(16))[0] == errno.ENOTTY
