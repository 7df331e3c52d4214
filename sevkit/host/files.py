"""Files below one folder, read with bounds, and never a file outside it.

Theory of operation
-------------------
A host's tree is not trusted: it may be a copy that somebody made, and sysfs is full of links. So
every folder is opened below the one before it without following a link; a link's target is walked
in the same way, ``..`` stops at the root, and an absolute target begins there. Folders stay open
until ``close``, because a probe reads many files out of few folders. A file must be a regular one
(those of /proc and /sys are), is opened without waiting, and is read up to a limit, so that no
FIFO, device or gigabyte of anything can hold the reader. Every failure is a reading.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, Final, TypeVar, final

from sevkit.host.reading import Cause, Known, Reading, Unreadable, not_readable

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

#: Largest file that is read whole, in bytes: parameters and attributes have tens.
SMALL: Final = 64 << 10
#: Most names of one folder.
NAMES: Final = 4096
_LINKS: Final = 40
_FOLDER: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC

_Parts = tuple[str, ...]


@final
class Tree:
    """The files below ``root``. ``label`` is put before paths in what is said about them."""

    def __init__(self, root: str, *, label: str = "/") -> None:
        self._label: Final = label
        self._root: Final = root
        self._folders: Final[dict[_Parts, int]] = {}

    def close(self) -> None:
        """Give the open folders back; the next read opens them anew."""
        while self._folders:
            with contextlib.suppress(OSError):
                os.close(self._folders.popitem()[1])

    def text(self, path: str, *, limit: int = SMALL, head: bool = False) -> Reading[str]:
        """Return the text of a file of at most ``limit`` bytes; with ``head`` that much of any."""
        return self._try(path, lambda: self._text(path, limit, head=head))

    def names(self, path: str) -> Reading[tuple[str, ...]]:
        """Return what is in a folder, sorted, at most ``NAMES``."""
        return self._try(path, lambda: self._names(path))

    def is_there(self, path: str) -> Reading[bool]:
        """Return whether there is anything at ``path``; links count for what they point at."""

        def look() -> Reading[bool]:
            try:
                self._stat(path)
            except OSError as error:
                if error.errno in {errno.ENOENT, errno.ENOTDIR}:
                    return Known(value=False)
                raise
            return Known(value=True)

        return self._try(path, look)

    def modified(self, path: str) -> Reading[float]:
        """Return when a file was changed last, in seconds since 1970; links are followed."""
        return self._try(path, lambda: Known(self._stat(path).st_mtime))

    def _try(self, path: str, read: Callable[[], Reading[T]]) -> Reading[T]:
        try:
            return read()
        except OSError as error:
            return not_readable(self._label + path, error)
        except ValueError:  # a NUL in a link's target
            return Unreadable(Cause.MALFORMED, f"{self._label}{path}: not a path")

    def _text(self, path: str, limit: int, *, head: bool) -> Reading[str]:
        descriptor = self._open(path)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return Unreadable(Cause.MALFORMED, f"{self._label}{path}: not a regular file")
            data = _read(descriptor, limit if head else limit + 1)
        finally:
            os.close(descriptor)
        if len(data) > limit:
            return Unreadable(
                Cause.MALFORMED, f"{self._label}{path}: larger than the limit of {limit} bytes"
            )
        try:
            return Known(data.decode("utf-8", "replace" if head else "strict"))
        except UnicodeDecodeError:
            return Unreadable(Cause.MALFORMED, f"{self._label}{path}: not text")

    def _open(self, path: str) -> int:
        parent, name = self._place(path)
        if not stat.S_ISREG(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            # Not opened at all: to open a device is to do something with it.
            return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        return os.open(name, _FILE, dir_fd=parent)

    def _stat(self, path: str) -> os.stat_result:
        parent, name = self._place(path)
        return os.stat(name, dir_fd=parent, follow_symlinks=False)

    def _names(self, path: str) -> Reading[tuple[str, ...]]:
        anchor = self._folder(_parts(path), _LINKS)
        descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=anchor)
        try:
            found = []
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    found.append(entry.name)
                    if len(found) > NAMES:
                        return Unreadable(
                            Cause.MALFORMED, f"{self._label}{path}: more than {NAMES} names"
                        )
        finally:
            os.close(descriptor)
        return Known(tuple(sorted(found)))

    def _place(self, path: str) -> tuple[int, str]:
        """Return the open folder and the name in it that ``path`` is, all links resolved."""
        parts, links = _parts(path), _LINKS
        while True:
            parent = self._folder(parts[:-1], links)
            target = _link(parts[-1], parent)
            if target is None:
                return parent, parts[-1]
            links -= 1
            parts = self._joined(parts[:-1], target, links)
            if not parts:
                return self._folder((), links), "."

    def _folder(self, parts: _Parts, links: int) -> int:
        """Return the open folder at ``parts``; ``links`` more may be followed on the way."""
        found = self._folders.get(parts)
        if found is not None:
            return found
        if not parts:
            opened = os.open(self._root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        else:
            parent = self._folder(parts[:-1], links)
            target = _link(parts[-1], parent)
            if target is not None:
                real = self._joined(parts[:-1], target, links - 1)
                opened = os.dup(self._folder(real, links - 1))
            else:
                opened = os.open(parts[-1], _FOLDER, dir_fd=parent)
        self._folders[parts] = opened
        return opened

    def _joined(self, at: _Parts, target: str, links: int) -> _Parts:
        """Return where a link in the folder ``at`` leads; its own ``..`` may pass through links."""
        if links < 0:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        found = [] if target.startswith("/") else list(self._real(at, links))
        parts = [part for part in target.split("/") if part not in {"", "."}]
        for index, part in enumerate(parts):
            if part == "..":
                del found[-1:]
            else:
                found.append(part)
                if ".." in parts[index + 1 :]:
                    found = list(self._real(tuple(found), links))
        return tuple(found)

    def _real(self, parts: _Parts, links: int) -> _Parts:
        """Return the folder ``parts`` without links in it."""
        if not parts:
            return ()
        above = self._real(parts[:-1], links)
        target = _link(parts[-1], self._folder(above, links))
        if target is None:
            return (*above, parts[-1])
        return self._real(self._joined(above, target, links - 1), links - 1)


def _parts(path: str) -> _Parts:
    return tuple(path.split("/"))


def _link(name: str, parent: int) -> str | None:
    """Return where ``name`` points, or None if it is no link. Raises ``OSError``."""
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return None
        raise


def _read(descriptor: int, limit: int) -> bytes:
    """Return up to ``limit`` bytes; /proc gives less than asked for before its end."""
    found = b""
    while len(found) < limit:
        chunk = os.read(descriptor, limit - len(found))
        if not chunk:
            break
        found += chunk
    return found
