"""Files that are written anew where they stand: each at once, and none if one cannot be."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from sevkit.errors import HostReadError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Exchange(NamedTuple):
    """What a file's content was when it was read, and what it is to be."""

    path: str
    before: bytes
    after: bytes


def exchange_files(changes: Iterable[Exchange]) -> None:
    """Put new contents in the place of old ones. Links are followed.

    Modes stay, and owners where the system allows that. All is written beside the files before the
    first is exchanged: what fails for want of room or rights fails while each is as it was.

    Raises ``UsageError`` for what is no file or is named twice, ``HostReadError`` for what cannot
    be written or is not any more what was read.
    """
    ready: dict[Path, Path] = {}
    path = ""
    try:
        for path, before, after in changes:
            target = Path(os.path.realpath(path))
            if target in ready:
                raise UsageError(f"{path}: is given twice, by another name")
            status = _check(path, target, before)
            fresh = target.with_name(f".sevkit-{os.getpid()}-{len(ready)}")
            descriptor = os.open(fresh, _FLAGS, 0o600)
            ready[target] = fresh
            _fill(descriptor, after, status)
        for target, fresh in ready.items():
            path = str(target)
            fresh.replace(target)
    except OSError as error:
        raise HostReadError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        for fresh in ready.values():
            with contextlib.suppress(OSError):  # exchanged, or the reason is on its way already
                fresh.unlink()


def _check(path: str, target: Path, before: bytes) -> os.stat_result:
    status = target.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{path}: is no file that could be written anew")
    if status.st_size != len(before) or target.read_bytes() != before:
        raise HostReadError(f"{path}: has changed since it was read", hint="try again")
    return status


def _fill(descriptor: int, data: bytes, status: os.stat_result) -> None:
    with os.fdopen(descriptor, "wb") as stream:
        with contextlib.suppress(OSError):  # another's file that we may replace is ours then
            os.fchown(descriptor, status.st_uid, status.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
        stream.write(data)
        stream.flush()
        os.fsync(descriptor)
