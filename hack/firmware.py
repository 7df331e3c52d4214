"""Fetch whole OVMF images from Debian for the tests, or say in one line why not.

The tests run without them, on the 4096-byte suffixes that are committed. The answer is always
exit code 0: firmware that could not be had is a skipped lane, not a failure of this script.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Final

from hack import debian

#: File, and the suites and packages that have it, in the order in which they are tried. Debian
#: moved OVMF.fd from ovmf to ovmf-generic after trixie.
IMAGES: Final = {
    "OVMF.amdsev.fd": (("sid", "ovmf-amdsev"),),
    "OVMF.fd": (("trixie", "ovmf"), ("sid", "ovmf-generic")),
}


def _is_there(folder: Path, name: str) -> bool:
    row = debian.read_record(folder).get(name)
    path = folder / name
    return row is not None and path.is_file() and debian.digest(path) == row["file_sha256"]


def fetch(folder: Path, name: str) -> str:
    """Put one image into ``folder``; return a line that says which. Raises UnavailableError."""
    reason = ""
    for suite, package in IMAGES[name]:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            try:
                origin = debian.unpack(suite, package, Path(scratch))
            except debian.UnavailableError as error:
                reason = reason or str(error)
                continue
            found = Path(scratch) / "usr/share/ovmf" / name
            if not found.is_file():
                reason = reason or f"{package} of {suite} has no {name}"
                continue
            found.chmod(0o644)
            row = asdict(origin) | {"file_sha256": debian.digest(found)}
            os.replace(found, folder / name)  # noqa: PTH105  # atomic, for tests that run now
        debian.write_record(folder, name, row)
        return f"{name} from {origin.package} {origin.version} ({suite})"
    raise debian.UnavailableError(reason)


def main() -> int:
    """Fetch what is missing."""
    folder = debian.cache_folder("SEVKIT_FIRMWARE", "firmware")
    folder.mkdir(parents=True, exist_ok=True)
    for name in IMAGES:
        if _is_there(folder, name):
            continue
        try:
            print(f"firmware: {fetch(folder, name)}", file=sys.stderr)
        except debian.UnavailableError as error:
            print(
                f"firmware: no {name} ({error}); the tests use the small committed one",
                file=sys.stderr,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
