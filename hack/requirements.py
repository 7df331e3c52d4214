"""Write the requirement files that pip installs from, out of uv.lock, with every hash.

They are for machines without uv, and for the images. ``libvirt-python`` stands apart because it has
no wheels, and a development machine without libvirt's headers goes without it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
APART: Final = "libvirt-python"
#: By image, which is a folder of ``deploy``: the extra that it needs.
IMAGES: Final = {"node-agent": "agent", "webhook": "webhook"}
_HEAD: Final = "# From uv.lock, by hack/requirements.py; do not edit.\n"


def export(*options: str) -> str:
    """Return what uv exports from the lock, without the project itself and without addresses."""
    command = ["uv", "export", "--frozen", "--no-header", "--no-annotate", "--no-emit-project"]
    done = subprocess.run(
        [*command, *options], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def split(exported: str) -> dict[str, str]:
    """Return the text of each requirement, with its lines of hashes, by name."""
    blocks: dict[str, str] = {}
    name = ""
    for line in exported.splitlines(keepends=True):
        if not line.startswith((" ", "#")) and line.strip():
            name = line.partition("==")[0]
        if name:
            blocks[name] = blocks.get(name, "") + line
    return blocks


def main() -> int:
    """Write all files."""
    blocks = split(export("--all-extras"))
    apart = blocks.pop(APART)
    (ROOT / "hack/requirements.txt").write_text(_HEAD + "".join(blocks.values()))
    (ROOT / "hack/requirements-libvirt.txt").write_text(_HEAD + apart)
    for name, extra in IMAGES.items():
        image = split(export("--extra", extra, "--no-dev"))
        (ROOT / f"deploy/{name}/requirements.txt").write_text(_HEAD + "".join(image.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
