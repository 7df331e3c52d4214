"""Answers FUSE requests for a folder of simulated devices.

Theory of operation: one request at a time is read into one buffer, answered, and forgotten. What
lasts is the table of open handles: which device each is, and whether it was opened for writing;
and the tree, which changes only where a folder of entries is (``EntryFolder``). A close is told
without waiting for an answer, but before whatever its caller asks next.
Requests need no answer in three cases (FORGET, its batch, and INTERRUPT: every request is brief,
so that an interrupted caller simply gets its answer). An answer that the kernel no longer wants,
because its caller was killed, is dropped. The loop ends when the connection does: at unmount.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final, NamedTuple, final

from sevkit.errors import FormatError
from sevkit.testing.device import fuse_protocol as fuse
from sevkit.testing.device.entry import OpenEntryFile
from sevkit.testing.device.fuse_protocol import Opcode, OpenFlag
from sevkit.testing.device.ioctl import EntryFolder, IoctlFile, ReadableFile
from sevkit.testing.device.linux import ProcessMemory
from sevkit.testing.device.tree import EntryFile, entry_nodes

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.testing.device.fuse_protocol import Header
    from sevkit.testing.device.tree import Node

_FLAG_COMPAT: Final = 1
_FLAG_FOLDER: Final = 16

_SILENT: Final = frozenset({Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT})
#: Entries aside, contents are fixed; to be told EPERM is better than to find a call unimplemented.
_REFUSED: Final = frozenset({Opcode.MKNOD, Opcode.UNLINK, Opcode.CREATE})


class _Opened(NamedTuple):
    """An open file; which kinds of device it is was found out once, because asking is slow."""

    driven: IoctlFile | None
    read: ReadableFile | None
    entry: OpenEntryFile | None
    writable: bool


@final
class DeviceServer:
    """Serves the nodes of ``make_tree``; ``answer`` is pure of the kernel but for caller memory.

    ``defects`` collects what devices raised beside ``OSError``: the caller got EIO for it.
    """

    def __init__(self, nodes: dict[int, Node]) -> None:
        self._nodes: Final = nodes
        self._next_node = max(nodes) + 1
        self._handles: Final[dict[int, _Opened]] = {}
        self._next_handle = 1
        self._memory = ProcessMemory(0)
        self.defects: Final[list[Exception]] = []
        self._answers: Final[dict[int, Callable[[Header, bytearray, int], bytes]]] = {
            Opcode.IOCTL: self._ioctl,
            Opcode.READ: self._read,
            Opcode.WRITE: self._write,
            Opcode.MKDIR: self._make_entry,
            Opcode.RMDIR: self._remove_entry,
            Opcode.LOOKUP: self._lookup,
            Opcode.GETATTR: self._attributes,
            Opcode.SETATTR: self._attributes,
            Opcode.OPEN: self._open,
            Opcode.RELEASE: self._release,
            Opcode.OPENDIR: self._open_folder,
            Opcode.READDIR: self._read_folder,
            Opcode.RELEASEDIR: self._nothing,
            Opcode.STATFS: self._statfs,
            Opcode.INIT: self._init,
            Opcode.DESTROY: self._nothing,
        }

    @property
    def open_handles(self) -> int:
        """How many open files there are."""
        return len(self._handles)

    def serve(self, connection: int) -> None:
        """Answer requests from a descriptor of /dev/fuse until its mount is gone."""
        buffer = bytearray(fuse.BUFFER_SIZE)
        buffers = [buffer]
        while True:
            try:
                size = os.readv(connection, buffers)
            except OSError as error:
                if error.errno in {errno.ENOENT, errno.EAGAIN, errno.EINTR}:
                    continue  # a request that was withdrawn while it was being read
                if error.errno in {errno.ENODEV, errno.ECONNABORTED}:
                    return
                raise
            reply = self.answer(buffer, size)
            if reply is not None:
                try:
                    os.write(connection, reply)
                except OSError as error:
                    if error.errno not in {errno.ENOENT, errno.ENODEV, errno.ECONNABORTED}:
                        raise

    def answer(self, buffer: bytearray, size: int) -> bytes | None:
        """Return the answer to the request in the first ``size`` bytes, or None if none is due.

        Raises ``FormatError`` where not even the header is sound; a bad body is answered EINVAL.
        """
        header = fuse.parse_header(buffer, size)
        answer = self._answers.get(header.opcode)
        if answer is None:
            if header.opcode in _SILENT:
                return None
            code = errno.EPERM if header.opcode in _REFUSED else errno.ENOSYS
            return fuse.encode_error(header.unique, code)
        try:
            return answer(header, buffer, size)
        except OSError as error:
            return fuse.encode_error(header.unique, error.errno or errno.EIO)
        except FormatError:
            return fuse.encode_error(header.unique, errno.EINVAL)
        except Exception as error:  # noqa: BLE001  # a device's bug must not hang its caller
            self.defects.append(error)
            return fuse.encode_error(header.unique, errno.EIO)

    def _node(self, header: Header) -> Node:
        node = self._nodes.get(header.node)
        if node is None:
            raise OSError(errno.ESTALE, "no such node")
        return node

    def _opened(self, handle: int) -> _Opened:
        opened = self._handles.get(handle)
        if opened is None:
            raise OSError(errno.EBADF, "no such handle")
        return opened

    def _ioctl(self, header: Header, buffer: bytearray, size: int) -> bytes:
        asked = fuse.parse_ioctl(buffer, size)
        if asked.flags & (_FLAG_FOLDER | _FLAG_COMPAT):
            raise OSError(errno.ENOTTY, "only a 64-bit caller's ioctl of a file")
        opened = self._opened(asked.handle)
        if opened.driven is None:
            raise OSError(errno.ENOTTY, "not driven by ioctls")
        by_value = not asked.request >> 16 & 0x3FFF
        argument = asked.argument.to_bytes(8, "little") if by_value else asked.data
        if self._memory.pid != header.pid:
            self._memory = ProcessMemory(header.pid)
        reply = opened.driven.ioctl(asked.request, argument, self._memory, writable=opened.writable)
        return fuse.encode_ioctl(header.unique, reply.result, reply.data[: asked.out_size])

    def _read(self, header: Header, buffer: bytearray, size: int) -> bytes:
        handle, offset, count = fuse.parse_read(buffer, size)
        device = self._opened(handle).read
        if device is None:
            raise OSError(errno.EINVAL, "not read at offsets")
        return fuse.encode_reply(header.unique, device.read_at(offset, count)[:count])

    def _write(self, header: Header, buffer: bytearray, size: int) -> bytes:
        handle, offset, data = fuse.parse_write(buffer, size)
        entry = self._opened(handle).entry
        if entry is None:
            raise OSError(errno.EINVAL, "not written to")
        return fuse.encode_write(header.unique, entry.write_at(offset, data))

    def _entries(self, header: Header) -> EntryFolder:
        folder = self._node(header).file
        if not isinstance(folder, EntryFolder):
            raise OSError(errno.EPERM, "no folder of entries")
        return folder

    def _make_entry(self, header: Header, buffer: bytearray, size: int) -> bytes:
        folder, name = self._entries(header), fuse.parse_mkdir(buffer, size)
        folder.make(name)
        made = entry_nodes(folder, name, self._next_node)
        self._next_node += len(made)
        self._nodes.update((node.number, node) for node in made)
        self._node(header).children[name] = made[0].number
        return fuse.encode_entry(header.unique, made[0].attributes)

    def _remove_entry(self, header: Header, buffer: bytearray, size: int) -> bytes:
        folder, name = self._entries(header), fuse.parse_name(buffer, size)
        folder.remove(name)
        gone = self._nodes.pop(self._node(header).children.pop(name))
        for number in gone.children.values():
            del self._nodes[number]
        return fuse.encode_reply(header.unique)

    def _lookup(self, header: Header, buffer: bytearray, size: int) -> bytes:
        number = self._node(header).children.get(fuse.parse_name(buffer, size))
        if number is None:
            raise OSError(errno.ENOENT, "no such device")
        return fuse.encode_entry(header.unique, self._nodes[number].attributes)

    def _attributes(self, header: Header, _buffer: bytearray, _size: int) -> bytes:
        # SETATTR too: opening a device with O_TRUNC does nothing, and changes nothing here.
        return fuse.encode_attributes(header.unique, self._node(header).attributes)

    def _open(self, header: Header, buffer: bytearray, size: int) -> bytes:
        writable = fuse.parse_open(buffer, size) & os.O_ACCMODE in {os.O_WRONLY, os.O_RDWR}
        file = self._node(header).file
        entry = OpenEntryFile(file) if isinstance(file, EntryFile) else None
        handle = self._next_handle
        self._next_handle += 1
        self._handles[handle] = _Opened(
            file if isinstance(file, IoctlFile) else None,
            file if isinstance(file, ReadableFile) else entry,
            entry,
            writable,
        )
        return fuse.encode_open(header.unique, handle, OpenFlag.DIRECT_IO | OpenFlag.NO_FLUSH)

    def _release(self, header: Header, buffer: bytearray, size: int) -> bytes:
        opened = self._handles.pop(fuse.parse_handle(buffer, size), None)
        if opened is not None and opened.entry is not None:
            opened.entry.close()
        return fuse.encode_reply(header.unique)

    def _open_folder(self, header: Header, _buffer: bytearray, _size: int) -> bytes:
        return fuse.encode_open(header.unique, 0, OpenFlag(0))

    def _read_folder(self, header: Header, buffer: bytearray, size: int) -> bytes:
        _, offset, count = fuse.parse_read(buffer, size)
        children = self._node(header).children
        entries = ((name, self._nodes[number].attributes) for name, number in children.items())
        return fuse.encode_folder(header.unique, entries, offset, count)

    def _nothing(self, header: Header, _buffer: bytearray, _size: int) -> bytes:
        return fuse.encode_reply(header.unique)

    def _statfs(self, header: Header, _buffer: bytearray, _size: int) -> bytes:
        return fuse.encode_reply(header.unique, fuse.STATFS_OUT)

    def _init(self, header: Header, buffer: bytearray, size: int) -> bytes:
        major, minor, offered = fuse.parse_init(buffer, size)
        if major != fuse.MAJOR or minor < fuse.MINOR:
            raise OSError(errno.EPROTO, f"FUSE {major}.{minor}")
        return fuse.encode_init(header.unique, offered)
