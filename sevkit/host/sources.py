"""The two hosts that there are to ask: the machine that we run on, and a copy of one in a folder.

``open_host`` gives either. A copy is only ever read: no instruction is executed and no ioctl
issued, because their answers would be this machine's. Its CPUID is in ``cpuid.json``, registers
EAX, EBX, ECX and EDX by leaf, and its firmware's answers in ``firmware.json``; both may be missing.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from functools import cached_property
from typing import TYPE_CHECKING, Final, final

from sevkit.documents import parse_json
from sevkit.errors import FormatError, UsageError
from sevkit.host.devices import (
    Devices,
    SystemDevices,
    ask_firmware,
    ask_kvm_attribute,
    ask_kvm_extension,
)
from sevkit.host.files import SMALL, Tree
from sevkit.host.firmware import FRESH_SECONDS, LIMIT, NAME, FirmwareFacts, read_firmware
from sevkit.host.kernel_log import LIMIT as LOG_LIMIT
from sevkit.host.kernel_log import native_log
from sevkit.host.native_cpuid import native_cpuid
from sevkit.host.reading import Cause, Known, Reading, Unreadable, absent, convert, not_asked
from sevkit.host.source import HostSource, KvmAttribute, KvmExtension, Registers, Rights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_SYS: Final = "sys/"
#: Where a pod mounts the host's /sys: its own shows its own cgroups.
_MOUNTED_SYS: Final = "/host/sys"
_REGISTER: Final = re.compile(r"0x[0-9a-fA-F]{1,8}")
_CPUID: Final = "cpuid.json"


@contextlib.contextmanager
def open_host(
    root: str | None = None, *, sys: str | None = None, firmware_file: str | None = None
) -> Iterator[HostSource]:
    """Yield the copy of a host below ``root``, or without one this machine.

    ``sys`` is where this machine's /sys is, if not at its place: /host/sys if it is there.
    ``firmware_file`` is a ``firmware.json`` of whoever may ask this machine's firmware, used where
    /dev/sev is not ours. Raises ``UsageError`` for folders that are none, and for either of these
    beside a copy: it would be two machines in one.
    """
    if root is not None and (sys is not None or firmware_file is not None):
        raise UsageError(
            "of a captured host nothing outside of it is read",
            hint="put its /sys, and its firmware.json, below its root",
        )
    if root is None and sys is None and os.path.isdir(_MOUNTED_SYS):  # noqa: PTH112  # no path is made
        sys = _MOUNTED_SYS
    for folder in (root, sys):
        if folder is not None and ("\0" in folder or not os.path.isdir(folder)):  # noqa: PTH112  # no path is made
            raise UsageError(f"{folder!r} is not a folder", hint="name a host's root, or its /sys")
    files = HostFiles(root or "/", sys)
    try:
        if root is None:
            yield NativeHost(files, firmware_file=firmware_file)
        else:
            yield CapturedHost(files)
    finally:
        files.close()


@final
class HostFiles:
    """A host's files: everything below its root, and /sys below a folder of its own if given."""

    def __init__(self, root: str, sys: str | None = None) -> None:
        self._root: Final = Tree(root)
        self._sys: Final = None if sys is None else Tree(sys, label="/sys/")

    def close(self) -> None:
        """Give open folders back."""
        for tree in (self._root, self._sys):
            if tree is not None:
                tree.close()

    def place(self, path: str) -> tuple[Tree, str]:
        """Return the tree that ``path`` is in, and its path there."""
        if self._sys is not None and path.startswith(_SYS):
            return self._sys, path.removeprefix(_SYS)
        return self._root, path


class _Files:
    """What both kinds of host have in common: their files are read in the same way."""

    def __init__(self, files: HostFiles) -> None:
        self._files: Final = files

    def text(self, path: str, *, limit: int = SMALL, head: bool = False) -> Reading[str]:
        """Return a file's text; see ``HostSource``."""
        tree, place = self._files.place(path)
        return tree.text(place, limit=limit, head=head)

    def names(self, path: str) -> Reading[tuple[str, ...]]:
        """Return a folder's names; see ``HostSource``."""
        tree, place = self._files.place(path)
        return tree.names(place)

    def is_there(self, path: str) -> Reading[bool]:
        """Return whether there is something; see ``HostSource``."""
        tree, place = self._files.place(path)
        return tree.is_there(place)


@final
class NativeHost(_Files):
    """The machine that we run on; its edges can be given: devices, CPUID, and the log."""

    simulated: Final = False

    def __init__(
        self,
        files: HostFiles,
        *,
        devices: Devices | None = None,
        cpuid_function: Callable[[int, int], Reading[Registers]] = native_cpuid,
        log_function: Callable[[], Reading[str]] = native_log,
        firmware_file: str | None = None,
    ) -> None:
        super().__init__(files)
        self._devices: Final[Devices] = SystemDevices() if devices is None else devices
        self._cpuid: Final = cpuid_function
        self._log: Final = log_function
        self._firmware_file: Final = firmware_file

    def rights(self, path: str) -> Reading[Rights]:
        """Return what this process may do, by access(2)."""
        name = f"/{path}"
        if not os.access(name, os.F_OK):
            return absent(name)
        return Known(Rights(os.access(name, os.R_OK), os.access(name, os.W_OK)))

    def cpuid(self, leaf: int, subleaf: int = 0) -> Reading[Registers]:
        """Execute CPUID."""
        return self._cpuid(leaf, subleaf)

    def kvm_extension(self, number: KvmExtension) -> Reading[int]:
        """Ask /dev/kvm."""
        return ask_kvm_extension(self._devices, number)

    def kvm_attribute(self, number: KvmAttribute) -> Reading[int]:
        """Ask /dev/kvm."""
        return ask_kvm_attribute(self._devices, number)

    def firmware(self) -> Reading[FirmwareFacts]:
        """Ask /dev/sev, else take what whoever may ask it has left."""
        asked = ask_firmware(self._devices)
        is_said = isinstance(asked, Known) or asked.cause is Cause.SILENT
        if is_said or self._firmware_file is None:
            return asked
        left = _left_firmware(self._firmware_file)
        return left if isinstance(left, Known) or left.cause is not Cause.ABSENT else asked

    def log(self) -> Reading[str]:
        """Return the kernel's ring buffer."""
        return self._log()


@final
class CapturedHost(_Files):
    """A simulated or captured tree."""

    simulated: Final = True

    def rights(self, path: str) -> Reading[Rights]:
        """Nobody has rights to a copy of a device."""
        return not_asked(f"/{path}", "a copy of a host has no devices")

    def cpuid(self, leaf: int, subleaf: int = 0) -> Reading[Registers]:
        """Look into ``cpuid.json``, which has subleaf 0 only."""
        leaves = self._leaves
        if isinstance(leaves, Unreadable):
            return leaves
        found = leaves.value.get(leaf) if subleaf == 0 else None
        return absent(f"/{_CPUID}: leaf {leaf:#010x}") if found is None else Known(found)

    def kvm_extension(self, number: KvmExtension) -> Reading[int]:
        """Nobody to ask."""
        return not_asked(f"/dev/kvm: {number.name}", "a copy of a host has no devices")

    def kvm_attribute(self, number: KvmAttribute) -> Reading[int]:
        """Nobody to ask."""
        return not_asked(f"/dev/kvm: {number.name}", "a copy of a host has no devices")

    def firmware(self) -> Reading[FirmwareFacts]:
        """Read ``firmware.json``."""
        return read_firmware(self.text(NAME, limit=LIMIT))

    def log(self) -> Reading[str]:
        """Read ``/var/log/dmesg``."""
        return self.text("var/log/dmesg", limit=LOG_LIMIT, head=True)

    @cached_property
    def _leaves(self) -> Reading[Mapping[int, Registers]]:
        return convert(self.text(_CPUID), parse_leaves)


def _left_firmware(path: str) -> Reading[FirmwareFacts]:
    """Return what another process left in ``path``, which it is to renew as long as it is true."""
    folder, name = os.path.split(path)
    tree = Tree(folder or ".", label=path.removesuffix(name))
    try:
        # The time first: what is replaced in between is newer than it, never older.
        renewed, text = tree.modified(name), tree.text(name, limit=LIMIT)
    finally:
        tree.close()
    if isinstance(renewed, Unreadable):
        return renewed
    # Nor is a file believed that is of the future: its age is not known.
    if abs(time.time() - renewed.value) > FRESH_SECONDS:
        return Unreadable(Cause.FAILED, f"{path}: not renewed within {FRESH_SECONDS} seconds")
    return read_firmware(text)


def parse_leaves(text: str) -> Mapping[int, Registers]:
    """Return the registers in a ``cpuid.json``, by leaf. Raises ``FormatError``."""
    document = parse_json(text.encode(), _CPUID, limit=SMALL)
    if not isinstance(document, dict):
        raise FormatError(_CPUID, "not an object")
    found: dict[int, Registers] = {}
    for key, value in document.items():
        words = value if isinstance(value, list) else []
        texts = [word for word in (key, *words) if isinstance(word, str)]
        if len(texts) != 5 or not all(map(_REGISTER.fullmatch, texts)):
            raise FormatError(_CPUID, f"{key[:20]!r} is not a leaf with its four registers")
        leaf, *registers = (int(word, 16) for word in texts)
        if leaf in found:
            raise FormatError(_CPUID, f"leaf {leaf:#010x} is there twice")
        found[leaf] = Registers(*registers)
    return found
