"""Replace a file as a whole: whoever reads it sees the old or the new text, never half of one."""

from __future__ import annotations

import contextlib
import os
from typing import Final

_READABLE: Final = 0o644


def replace_file(path: str, data: bytes) -> None:
    """Make ``data`` the content of ``path``, readable for all. Raises ``OSError``.

    The new file has one fixed name beside it, hidden: what a killed process left is overwritten,
    and node-feature-discovery does not read hidden files.
    """
    folder, _, name = path.rpartition("/")
    new = f"{folder}/.{name}.new" if folder else f".{name}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)  # noqa: PTH108  # whatever it is, also a link that leads elsewhere
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(new, flags, _READABLE)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, _READABLE)  # whatever the umask
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    os.replace(new, path)  # noqa: PTH105  # as above
