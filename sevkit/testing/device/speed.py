"""How fast ioctls on a device file are, as a caller sees it."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import time
from typing import TYPE_CHECKING, Final

from sevkit.testing.driver import SEV_ISSUE_CMD

if TYPE_CHECKING:
    from pathlib import Path

_PLATFORM_STATUS: Final = 1
_ISSUE: Final = struct.Struct("<IQI")


def measure_ioctls(path: Path, count: int) -> float:
    """Return the seconds that ``count`` times PLATFORM_STATUS take on a file like /dev/sev.

    The file is opened once. A device that does nothing is measured with the same request, so that
    a ratio of both says what the simulated processor costs beside the way to it.
    """
    room = ctypes.create_string_buffer(64)
    argument = bytearray(_ISSUE.pack(_PLATFORM_STATUS, ctypes.addressof(room), 0))
    descriptor = os.open(path, os.O_RDWR)
    try:
        start = time.perf_counter()
        for _ in range(count):
            fcntl.ioctl(descriptor, SEV_ISSUE_CMD, argument)
        return time.perf_counter() - start
    finally:
        os.close(descriptor)
