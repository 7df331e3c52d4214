"""The part of Linux' FUSE protocol that a folder of device files needs: bytes to values and back.

A request is a header of 40 bytes and a body; an answer a header of 16 bytes and a body, or a
negative errno alone. Source: Linux include/uapi/linux/fuse.h, protocol 7.31. Requests come from
the kernel, but are parsed as if they did not: lengths are checked, nothing beyond them is read.
"""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, Final, NamedTuple, final

from sevkit.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterable

MAJOR: Final = 7
MINOR: Final = 31
ROOT_NODE: Final = 1

#: The least the kernel grants a server's buffer is 8 KiB; an ioctl carries less than 16 KiB.
BUFFER_SIZE: Final = 32768
_MAX_WRITE: Final = 4096
#: Names and attributes never change, so that the kernel may keep them, for this many seconds.
_VALID: Final = 86400
#: After this many seconds, and up to 15 more, the kernel gives up on a request. A process that is
#: killed while it waits for a server of its own would else never end: its threads cannot answer
#: any more, and what they left open keeps the connection alive.
REQUEST_TIMEOUT: Final = 30


class Opcode(IntEnum):
    """The requests that are answered; every other one gets ENOSYS, and the kernel stops asking."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    IOCTL = 39
    BATCH_FORGET = 42


class InitFlag(IntFlag):
    """What the kernel offers at INIT, 64 bits; no other feature is taken."""

    #: There are more than 32 flags.
    EXTENDED = 1 << 30
    #: The kernel ends the connection if a request is not answered in time (from Linux 6.14 on).
    REQUEST_TIMEOUT = 1 << 42


class OpenFlag(IntFlag):
    """What the answer to OPEN may ask for."""

    DIRECT_IO = 1
    #: No FLUSH when a descriptor is closed: a close must never wait for the server, because the
    #: server may be a thread of a process that is just between vfork and exec.
    NO_FLUSH = 1 << 5


_HEADER: Final = struct.Struct("<IIQQIIIHH")
_REPLY: Final = struct.Struct("<IiQ")
_INIT_IN: Final = struct.Struct("<IIIII")
_INIT_IN_SHORT: Final = struct.Struct("<IIII")
_INIT_OUT: Final = struct.Struct("<IIIIHHIIHHIIH22x")
_OPEN_IN: Final = struct.Struct("<II")
_OPEN_OUT: Final = struct.Struct("<QII")
_HANDLE_IN: Final = struct.Struct("<Q")
_READ_IN: Final = struct.Struct("<QQI")
_IOCTL_IN: Final = struct.Struct("<QIIQII")
_IOCTL_REPLY: Final = struct.Struct("<IiQiIII")
_WRITE_IN: Final = struct.Struct("<QQIIQII")
_WRITE_OUT: Final = struct.Struct("<II")
_MKDIR_IN: Final = struct.Struct("<II")
_ENTRY_OUT: Final = struct.Struct("<QQQQII")
_ATTR_OUT: Final = struct.Struct("<QII")
_ATTR: Final = struct.Struct("<6Q10I")
_DIRENT: Final = struct.Struct("<QQII")
STATFS_OUT: Final = bytes(80)
HEADER_SIZE: Final = _HEADER.size


class Header(NamedTuple):
    """A request's header; ``pid`` is the caller's, 0 if it is in a PID namespace out of sight."""

    opcode: int
    unique: int
    node: int
    pid: int


class IoctlRequest(NamedTuple):
    """The body of IOCTL; ``argument`` is the word that was passed, ``data`` what it points at."""

    handle: int
    flags: int
    request: int
    argument: int
    out_size: int
    data: bytes


@final
@dataclass(frozen=True, slots=True)
class Attributes:
    """What stat shows of a node."""

    node: int
    folder: bool
    mode: int

    def encode(self) -> bytes:
        """Return ``struct fuse_attr``: owned by root, size 0, times 0."""
        kind = stat.S_IFDIR if self.folder else stat.S_IFREG
        links = 2 if self.folder else 1
        times = (0, 0, 0, 0, 0, 0, 0, 0)
        return _ATTR.pack(self.node, *times, kind | self.mode, links, 0, 0, 0, 4096, 0)


def parse_header(buffer: bytearray, size: int) -> Header:
    """Return the header of a request of ``size`` bytes; raises ``FormatError``."""
    if size < HEADER_SIZE:
        raise FormatError("FUSE request", f"{size} bytes are less than a header")
    length, opcode, unique, node, _uid, _gid, pid, _extensions, _ = _HEADER.unpack_from(buffer)
    if length != size:
        raise FormatError("FUSE request", f"says {length} bytes, has {size}", offset=0)
    return Header(opcode, unique, node, pid)


def _unpack(layout: struct.Struct, buffer: bytearray, size: int, name: str) -> tuple[int, ...]:
    if size < HEADER_SIZE + layout.size:
        raise FormatError(f"FUSE {name}", f"body of {size - HEADER_SIZE} bytes is too short")
    return layout.unpack_from(buffer, HEADER_SIZE)


def parse_name(buffer: bytearray, size: int) -> str:
    """Return the one name of LOOKUP and RMDIR; bytes that are no UTF-8 are surrogates in it."""
    return _name(bytes(buffer[HEADER_SIZE:size]), "LOOKUP")


def parse_mkdir(buffer: bytearray, size: int) -> str:
    """Return the name of MKDIR, as ``parse_name``; its mode is not asked for."""
    _unpack(_MKDIR_IN, buffer, size, "MKDIR")
    return _name(bytes(buffer[HEADER_SIZE + _MKDIR_IN.size : size]), "MKDIR")


def _name(body: bytes, what: str) -> str:
    name, end, rest = body.partition(b"\0")
    if not end or rest or not name:
        raise FormatError(f"FUSE {what}", "the body is not one name")
    return name.decode("utf-8", errors="surrogateescape")


def parse_init(buffer: bytearray, size: int) -> tuple[int, int, InitFlag]:
    """Return the kernel's major and minor protocol version, and what it offers.

    The upper half of the flags is read only where there is one: older kernels send 16 bytes.
    """
    short = size < HEADER_SIZE + _INIT_IN.size
    layout = _INIT_IN_SHORT if short else _INIT_IN
    major, minor, _readahead, flags, *more = _unpack(layout, buffer, size, "INIT")
    if more and flags & InitFlag.EXTENDED:
        flags |= more[0] << 32
    return major, minor, InitFlag(flags & sum(InitFlag))


def parse_open(buffer: bytearray, size: int) -> int:
    """Return the flags of open(2)."""
    return _unpack(_OPEN_IN, buffer, size, "OPEN")[0]


def parse_handle(buffer: bytearray, size: int) -> int:
    """Return the handle at the start of RELEASE and RELEASEDIR."""
    return _unpack(_HANDLE_IN, buffer, size, "RELEASE")[0]


def parse_read(buffer: bytearray, size: int) -> tuple[int, int, int]:
    """Return handle, offset and size of READ and READDIR."""
    handle, offset, count = _unpack(_READ_IN, buffer, size, "READ")
    return handle, offset, count


def parse_write(buffer: bytearray, size: int) -> tuple[int, int, bytes]:
    """Return handle, offset and data of WRITE; raises ``FormatError`` as ``parse_ioctl``."""
    handle, offset, count, *_ = _unpack(_WRITE_IN, buffer, size, "WRITE")
    start = HEADER_SIZE + _WRITE_IN.size
    if size - start != count:
        raise FormatError("FUSE WRITE", f"says {count} bytes of data, has {size - start}")
    return handle, offset, bytes(buffer[start:size])


def parse_ioctl(buffer: bytearray, size: int) -> IoctlRequest:
    """Return the body of IOCTL; raises ``FormatError`` unless its data is as long as it says."""
    handle, flags, request, argument, in_size, out_size = _unpack(_IOCTL_IN, buffer, size, "IOCTL")
    start = HEADER_SIZE + _IOCTL_IN.size
    if size - start != in_size:
        raise FormatError("FUSE IOCTL", f"says {in_size} bytes of data, has {size - start}")
    return IoctlRequest(handle, flags, request, argument, out_size, bytes(buffer[start:size]))


def encode_reply(unique: int, body: bytes = b"") -> bytes:
    """Return a successful answer."""
    return _REPLY.pack(_REPLY.size + len(body), 0, unique) + body


def encode_error(unique: int, errno: int) -> bytes:
    """Return an answer that is the positive ``errno`` alone."""
    return _REPLY.pack(_REPLY.size, -errno, unique)


def encode_init(unique: int, offered: InitFlag) -> bytes:
    """Return the answer to INIT: writes of one page, and a time limit if the kernel can keep it."""
    timed = InitFlag.EXTENDED | InitFlag.REQUEST_TIMEOUT
    taken = timed if offered & timed == timed else InitFlag(0)
    words = (taken & 0xFFFF_FFFF, 12, 10, _MAX_WRITE, 1, 0, 0, taken >> 32)
    limit = REQUEST_TIMEOUT if taken else 0
    return encode_reply(unique, _INIT_OUT.pack(MAJOR, MINOR, _MAX_WRITE, *words, 0, limit))


def encode_entry(unique: int, attributes: Attributes) -> bytes:
    """Return the answer to LOOKUP and MKDIR."""
    head = _ENTRY_OUT.pack(attributes.node, 0, _VALID, _VALID, 0, 0)
    return encode_reply(unique, head + attributes.encode())


def encode_attributes(unique: int, attributes: Attributes) -> bytes:
    """Return the answer to GETATTR and SETATTR."""
    return encode_reply(unique, _ATTR_OUT.pack(_VALID, 0, 0) + attributes.encode())


def encode_open(unique: int, handle: int, flags: OpenFlag) -> bytes:
    """Return the answer to OPEN and OPENDIR."""
    return encode_reply(unique, _OPEN_OUT.pack(handle, flags, 0))


def encode_write(unique: int, count: int) -> bytes:
    """Return the answer to WRITE: ``count`` bytes were taken."""
    return encode_reply(unique, _WRITE_OUT.pack(count, 0))


def encode_ioctl(unique: int, result: int, data: bytes) -> bytes:
    """Return the answer to IOCTL; a negative ``result`` is the caller's errno, beside ``data``."""
    size = _IOCTL_REPLY.size + len(data)
    return _IOCTL_REPLY.pack(size, 0, unique, result, 0, 0, 0) + data


def encode_folder(
    unique: int, entries: Iterable[tuple[str, Attributes]], offset: int, size: int
) -> bytes:
    """Return the answer to READDIR: whole entries from number ``offset``, ``size`` bytes at most.

    ``.`` and ``..`` are not among them, which POSIX allows.
    """
    body = b""
    for number, (name, attributes) in enumerate(entries, 1):
        raw = name.encode()
        kind = (stat.S_IFDIR if attributes.folder else stat.S_IFREG) >> 12
        entry = _DIRENT.pack(attributes.node, number, len(raw), kind) + raw
        entry += bytes(-len(entry) % 8)
        if number > offset:
            if len(body) + len(entry) > size:
                break
            body += entry
    return encode_reply(unique, body)
