"""The two doors to a guest's secure processor, and why one of them is closed.

A closed door is no answer: the next one is tried. What the host or the firmware refused is one,
and the same behind both doors.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from sevkit.errors import FirmwareError, HostReadError
from sevkit.host.reading import Cause, not_readable

_FOLDER: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

#: errno of a request that came too early for the host, or for another that is under way.
BUSY: Final = frozenset({errno.EBUSY, errno.EAGAIN, errno.ETIMEDOUT})


class DoorClosed(HostReadError):
    """No report can be asked for here. ``cause`` is absent, denied, failed or malformed."""

    def __init__(self, cause: Cause, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.cause = cause


def closed(source: str, error: OSError) -> DoorClosed:
    """Return that ``source`` is closed for the reason that the kernel gave."""
    reading = not_readable(source, error)
    return DoorClosed(reading.cause, reading.detail)


def open_folder(root: str, path: str) -> int:
    """Return a descriptor of the folder ``path`` below ``root``, reached without any link.

    The tree may be a copy that somebody made: a link in it could lead out. Raises ``OSError``.
    """
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in path.split("/"):
        try:
            below = os.open(part, _FOLDER, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = below
    return descriptor


def throttled(source: str, seconds: float) -> FirmwareError:
    """Return that the host let no request through for as long as we were to wait."""
    return FirmwareError(
        f"{source}: the host throttles this guest's requests; none came through in {seconds:g} s",
        hint="try again later, or with a longer --timeout",
    )


def given_up(source: str, *, after_waiting: bool) -> FirmwareError:
    """Return that the driver speaks to the secure processor no more.

    Linux gives its key up when a request fails on the way, also by being throttled for a minute: a
    sequence number must never be used twice.
    """
    why = "being throttled by the host" if after_waiting else "a request that failed"
    return FirmwareError(
        f"{source}: the driver has given up its key to the secure processor after {why}",
        hint="boot the guest again; the kernel's log says which request failed",
    )


def forged(source: str) -> FirmwareError:
    """Return that the answer did not come from the secure processor as it is."""
    return FirmwareError(f"{source}: the answer is not the secure processor's, or was changed")
