"""Shows in a written host's cgroup files how many ASIDs are in use, as guests come and go.

``misc.current`` and ``misc.peak`` of the root, and of the slices above the pods, follow an
``AsidPool``; a file that this host's kernel does not have is not made. Each is replaced whole, so
that a reader never sees half of one.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from sevkit.testing.host.cgroup import RESOURCES, SLICES, V1_ROOT, V2_ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sevkit.testing.kvm_asids import AsidPool

_SHOWN: Final = ("misc.current", "misc.peak")


def follow_asids(root: Path, pool: AsidPool) -> None:
    """Keep the host written at ``root`` true to ``pool`` from now on; guests in it are not told."""
    lock = threading.Lock()
    folders = [
        root / base / below
        for base in (V2_ROOT, V1_ROOT)
        if (root / base / "misc.capacity").exists()
        for below in ("", *SLICES)
    ]

    def show() -> None:
        with lock:
            for name, values in zip(_SHOWN, (pool.current, pool.peak), strict=True):
                for folder in folders:
                    _replace(folder / name, values)

    pool.changed = show
    show()


def _replace(path: Path, values: Mapping[str, int]) -> None:
    if not path.exists():
        return
    text = "".join(f"{name} {values[name]}\n" for name in RESOURCES if name in values)
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text)
    fresh.chmod(path.stat().st_mode)
    fresh.replace(path)
