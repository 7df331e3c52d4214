"""House rules that no linter knows: module sizes, and strings that have no place in the tree."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parent.parent
CAP: Final = 400
SIZED: Final = ("sevkit", "node_agent", "webhooks", "hack")
LOCK: Final = "uv.lock"

_SKIPPED: Final = frozenset({".git", ".venv", ".cache", "dist", "build", "demo-out", "data"})
#: Registries are the clients' business, and a path of one machine is no use on another. Written
#: in two halves, so that this table does not find itself.
FORBIDDEN: Final = tuple(
    first + second
    for first, second in (
        ("pypi", ".org"),
        ("files.python", "hosted.org"),
        ("crates", ".io"),
        ("proxy.golang", ".org"),
        ("registry.npm", "js.org"),
        ("/wo", "rk/"),
        ("sha", "red/"),
    )
)
_CI: Final = ".ci/run"


def files(root: Path) -> Iterator[Path]:
    """Yield every file of the source tree, without what is generated or ignored."""
    for path in sorted(root.iterdir()):
        if path.name in _SKIPPED or (path.name.startswith(".") and path.name.endswith("_cache")):
            continue
        if path.name in {"__pycache__", ".hypothesis"} or path.is_symlink():
            continue
        if path.is_dir():
            yield from files(path)
        elif path.is_file():
            yield path


def faults(root: Path = ROOT) -> Iterator[str]:
    """Yield one line for each breach."""
    for path in files(root):
        name = path.relative_to(root).as_posix()
        if name == LOCK:
            continue
        text = path.read_bytes().decode("utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            for word in FORBIDDEN:
                # The continuous integration's own data lies beside the repository.
                if word in line and name != _CI:
                    yield f"{name}:{number}: contains {word!r}"
        if path.suffix == ".py" and name.startswith(SIZED) and text.count("\n") > CAP:
            yield f"{name}: {text.count(chr(10))} lines, the cap is {CAP}: split it"


def main() -> int:
    """Print every breach."""
    found = list(faults())
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
