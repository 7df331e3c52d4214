"""Write a simulated host's root directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sevkit.errors import UsageError
from sevkit.testing.consistency import check_host, check_state
from sevkit.testing.host.booting import boot
from sevkit.testing.host.tree import File, Link, render_tree

if TYPE_CHECKING:
    from sevkit.testing.host.spec import HostSpec
    from sevkit.testing.host.state import HostState
    from sevkit.testing.host.tree import Entry


def write_host(spec: HostSpec, root: Path | str, *, state: HostState | None = None) -> HostState:
    """Write ``spec`` below ``root``, a folder that is empty or not there, and return its state.

    ``state`` is what the host is like if not as it boots. Links are relative and stay inside.
    Raises ``UsageError`` for a machine or state that cannot be, and for a root that is not empty
    or is itself a link; ``OSError`` of the file system comes as it is.
    """
    check_host(spec)
    found = boot(spec) if state is None else state
    check_state(spec, found)
    folder = Path(root)
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"{folder}: is not a folder", hint="name one that is empty or not there")
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder}: is not empty", hint="a host is only written into a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    for path, entry in sorted(render_tree(spec, found).items()):
        _write(folder / path, entry)
    return found


def _write(path: Path, entry: Entry) -> None:
    """Write one entry, which must not be there; everything above it we made ourselves."""
    if isinstance(entry, Link):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(entry.target)
    elif isinstance(entry, File):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(entry.data)
        # The mode that Linux gives, whatever the umask of this process is.
        path.chmod(entry.mode)
    else:
        path.mkdir(parents=True, exist_ok=True)
