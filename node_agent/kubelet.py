"""Has the kubelet started anew? Then it may have set extended resources to zero.

The kubelet removes and makes its device plugin socket whenever it starts, and zeroes the extended
resources of a node whose device checkpoint is gone. Sources: Kubernetes, cm/devicemanager and
kubelet_node_status.go in pkg/kubelet.
"""

from __future__ import annotations

import os
from typing import Final, final

SOCKET: Final = "kubelet.sock"


@final
class KubeletSocket:
    """The kubelet's socket in its device plugin folder, told apart by inode and time."""

    def __init__(self, folder: str) -> None:
        self._path: Final = f"{folder}/{SOCKET}"
        self._last: tuple[int, int] | None = None

    def is_new(self) -> bool:
        """Return whether there is another socket than when this was asked before.

        A socket that is gone, or that may not be looked at, is not a new one; the first is not
        either, because whoever asks first publishes anyway.
        """
        try:
            status = os.stat(self._path)  # noqa: PTH116  # once a minute, on every node
        except OSError:
            return False
        found = (status.st_ino, status.st_mtime_ns)
        was, self._last = self._last, found
        return was is not None and was != found
