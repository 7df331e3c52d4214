"""Files that the user names: read with bounds, written without overwriting or leaking.

``-`` is standard input. A missing file is the user's mistake (usage); a file that is there but
cannot be read is undecided. FIFOs are opened without blocking and waited on for at most
``PIPE_SECONDS`` at a time, so that one without a writer cannot hold the command for ever.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import select
import stat
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sevkit.cli.messages import warn
from sevkit.errors import FormatError, HostReadError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

PIPE_SECONDS: Final = 30.0
_CHUNK: Final = 1 << 20
_INHERITED: Final = re.compile(r"/(?:dev/fd|proc/self/fd)/([0-9]{1,4})")

#: Largest input of each kind, in bytes.
SMALL_LIMIT: Final = 1 << 20
FIRMWARE_LIMIT: Final = 64 << 20
BOOT_LIMIT: Final = 4 << 30


def _open(path: str) -> int:
    inherited = _INHERITED.fullmatch(path)
    if inherited is not None and int(inherited[1]) > 0:
        # A shell's <(command): opened anew it would not show that its writer has finished.
        try:
            return os.dup(int(inherited[1]))
        except OSError as error:
            raise UsageError(f"{path}: no such file") from error
    if path == "-":
        if sys.stdin is None:
            raise UsageError("standard input is closed", hint="name a file instead of '-'")
        return os.dup(sys.stdin.fileno())
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise HostReadError(f"{path}: cannot be read: {_reason(error)}") from error
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UsageError(f"{path}: is a directory, not a file")
    return descriptor


def _await_writer(descriptor: int, path: str) -> None:
    """Wait until a FIFO has a writer: until then, reading it looks like the end of a file."""
    if path == "-" or not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if not poll.poll(PIPE_SECONDS * 1000):
        raise HostReadError(f"{path}: nothing wrote to it for {PIPE_SECONDS:g} s")


def _await_data(descriptor: int) -> None:
    """Wait for data in steps, so that no interrupt is lost.

    One that arrives just before a blocking read is seen only when that read returns, and standard
    input need never have anything more.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while not poll.poll(1000):
        pass


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def _chunks(path: str, limit: int) -> Iterator[bytes]:
    descriptor = _open(path)
    deadline = time.monotonic() + PIPE_SECONDS
    total = 0
    try:
        _await_writer(descriptor, path)
        while True:
            if os.get_blocking(descriptor):
                _await_data(descriptor)
            try:
                chunk = os.read(descriptor, _CHUNK)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise HostReadError(f"{path}: nothing to read for {PIPE_SECONDS:g} s") from None
                select.select([descriptor], [], [], 1.0)
                continue
            except OSError as error:
                raise HostReadError(f"{path}: cannot be read: {_reason(error)}") from error
            if not chunk:
                return
            total += len(chunk)
            if total > limit:
                raise FormatError(path, f"larger than the limit of {limit} bytes", offset=limit)
            deadline = time.monotonic() + PIPE_SECONDS
            yield chunk
    finally:
        os.close(descriptor)


def read_file(path: str, *, limit: int = SMALL_LIMIT) -> bytes:
    """Return the whole of ``path``, at most ``limit`` bytes; ``-`` is standard input.

    Raises ``UsageError`` (missing, a directory), ``HostReadError`` (not readable) or
    ``FormatError`` (too large).
    """
    return b"".join(_chunks(path, limit))


def hash_file(path: str, *, limit: int = BOOT_LIMIT) -> tuple[bytes, int]:
    """Return (SHA-256, size in bytes) of ``path``, read in chunks; errors as ``read_file``."""
    digest = hashlib.sha256()
    size = 0
    for chunk in _chunks(path, limit):
        digest.update(chunk)
        size += len(chunk)
    return digest.digest(), size


def warn_if_exposed(path: str) -> None:
    """Warn if a file of key material can be read by group or others."""
    if path == "-":
        return
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return  # whoever reads it says why it cannot be read
    if stat.S_ISREG(mode) and mode & 0o077:
        warn(f"{path}: key material readable by others (mode {mode & 0o777:04o}); chmod 600")


def write_new(path: str, data: bytes, *, private: bool = False) -> None:
    """Write a file that must not exist yet: mode 0600 if ``private``, else 0644 less the umask.

    Links are not followed. A file that could not be written whole is removed again, because a
    half of it would stand in the way of the next attempt. Raises ``UsageError`` if it exists,
    ``HostReadError`` otherwise.
    """
    if path == "-":
        raise UsageError("'-' is standard input, not a file to write", hint="name a file")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600 if private else 0o644)
    except FileExistsError as error:
        raise UsageError(
            f"{path}: exists and is never overwritten", hint="name another file, or move it away"
        ) from error
    except (OSError, ValueError) as error:
        raise _cannot_write(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as stream:
            if private:  # a umask may have taken the owner's own rights
                os.fchmod(descriptor, 0o600)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException as error:
        with contextlib.suppress(OSError):
            Path(path).unlink()
        if isinstance(error, OSError):
            raise _cannot_write(path, error) from error
        raise


def _cannot_write(path: str, error: OSError | ValueError) -> HostReadError | UsageError:
    if isinstance(error, OSError) and error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return UsageError(f"{path}: its folder does not exist")
    return HostReadError(f"{path}: cannot be written: {_reason(error)}")


def check_new(path: str) -> None:
    """Refuse a file that cannot be written, before any work is done for it.

    Only what is the caller's mistake: '-', a file that exists, a folder that does not.
    Raises ``UsageError``.
    """
    if path == "-":
        raise UsageError("'-' is standard input, not a file to write", hint="name a file")
    if "\0" in path or not Path(path).parent.is_dir():
        raise UsageError(f"{path}: its folder does not exist")
    if os.path.lexists(path):
        raise UsageError(
            f"{path}: exists and is never overwritten", hint="name another file, or move it away"
        )


def refuse_shared_stdin(*paths: str | None) -> None:
    """Refuse ``-`` for more than one file: the second would read nothing."""
    if sum(path == "-" for path in paths) > 1:
        raise UsageError("standard input can be only one of the files")
