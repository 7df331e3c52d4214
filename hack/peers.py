"""Install the programs of others that sevkit is compared with, each apart from sevkit.

Each peer is independent of the others. One that cannot be had is a skipped lane and not a failure
of this script, which always answers 0.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from hack import debian

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

REQUIREMENTS: Final = debian.ROOT / "hack/peers-requirements.txt"


def _sev_snp_measure(folder: Path) -> dict[str, str]:
    """Make a virtual environment with the locked sev-snp-measure, every hash checked."""
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    steps = (
        [sys.executable, "-m", "venv", str(folder)],
        [*pip, "install", "--no-deps", "--require-hashes", "--requirement", str(REQUIREMENTS)],
    )
    for step in steps:
        done = subprocess.run(step, check=False, capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise debian.UnavailableError(said[-1] if said else "no reason given")
    return {"version": _locked(), "sha256": debian.digest(REQUIREMENTS)}


def _locked() -> str:
    """Return the version of sev-snp-measure in the requirements."""
    for line in REQUIREMENTS.read_text().splitlines():
        name, _, version = line.partition("==")
        if name == "sev-snp-measure":
            return version.split()[0]
    message = "not in the requirements"
    raise debian.UnavailableError(message)


def _virt_qemu_sev_validate(folder: Path) -> dict[str, str]:
    """Unpack libvirt's own validator from Debian."""
    origin = debian.unpack("sid", "libvirt-clients-qemu", folder)
    if not (folder / "usr/bin/virt-qemu-sev-validate").is_file():
        message = "libvirt-clients-qemu has no virt-qemu-sev-validate"
        raise debian.UnavailableError(message)
    return asdict(origin)


PEERS: Final[dict[str, tuple[str, Callable[[Path], dict[str, str]]]]] = {
    "sev-snp-measure": ("bin/sev-snp-measure", _sev_snp_measure),
    "virt-qemu-sev-validate": ("usr/bin/virt-qemu-sev-validate", _virt_qemu_sev_validate),
}


def _is_there(base: Path, name: str) -> bool:
    row = debian.read_record(base).get(name)
    if not row or not (base / name / PEERS[name][0]).is_file():
        return False
    return name != "sev-snp-measure" or row.get("sha256") == debian.digest(REQUIREMENTS)


def main() -> int:
    """Install what is missing."""
    base = debian.cache_folder("SEVKIT_PEERS", "peers")
    base.mkdir(parents=True, exist_ok=True)
    for name, (_, install) in PEERS.items():
        if _is_there(base, name):
            continue
        shutil.rmtree(base / name, ignore_errors=True)
        try:
            row = install(base / name)
        except debian.UnavailableError as error:
            shutil.rmtree(base / name, ignore_errors=True)
            print(f"peers: no {name} ({error}); its tests are skipped", file=sys.stderr)
            continue
        debian.write_record(base, name, row)
        print(f"peers: {name} {row['version']}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
