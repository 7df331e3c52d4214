"""Packages of Debian, unpacked without being installed, with version and SHA-256 recorded."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
RECORD: Final = "versions.json"


class UnavailableError(Exception):
    """Something could not be fetched; the reason is one line."""


@dataclass(frozen=True)
class Origin:
    """The Debian package that a file came from."""

    suite: str
    package: str
    version: str
    sha256: str


def cache_root() -> Path:
    """Return the folder of everything that is fetched or built once: ``SEVKIT_CACHE``."""
    return Path(os.environ.get("SEVKIT_CACHE") or Path.home() / ".cache" / "sevkit")


def cache_folder(variable: str, name: str) -> Path:
    """Return the folder that ``variable`` names, else ``name`` in the cache."""
    return Path(os.environ.get(variable) or cache_root() / name)


def unpack(suite: str, package: str, folder: Path) -> Origin:
    """Unpack a package into ``folder``. Raises ``UnavailableError``."""
    command = [str(ROOT / "hack/debian"), suite, package, str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise UnavailableError(said[-1] if said else "apt gave no reason")
    name, version, sha256 = done.stdout.split()
    return Origin(suite, name, version, sha256)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_record(folder: Path) -> dict[str, Any]:
    """Return what ``folder`` recorded of its contents; empty if it recorded nothing."""
    try:
        record = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def write_record(folder: Path, name: str, row: dict[str, str]) -> None:
    """Add one row to the record of ``folder``."""
    record = read_record(folder) | {name: row}
    (folder / RECORD).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
