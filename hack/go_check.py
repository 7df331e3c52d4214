"""Look over our Go sources: gofmt, and go vet where what they link is compiled already.

Answers 77 with a reason where something was not looked at: without Go, or where vetting would first
have to compile all of KubeVirt. The cluster lane vets and tests them whatever that takes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import Final

from hack import control_plane_build, debian, kubevirt_admission

FOLDERS: Final = (
    control_plane_build.MODULE,
    kubevirt_admission.MODULE,
    debian.ROOT / "hack/go-webhook",
)
SKIPPED: Final = 77
_SECONDS: Final = 20.0
#: The program's own flags, so that what was compiled for it is used.
FLAGS: Final = ("-trimpath",)
ENVIRONMENT: Final = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}


def run(*words: str, seconds: float, offline: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a go command in KubeVirt's module; raises ``TimeoutExpired``."""
    environment = {**os.environ, **ENVIRONMENT} | ({"GOPROXY": "off"} if offline else {})
    return subprocess.run(
        ["go", *words],
        cwd=kubevirt_admission.MODULE,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=seconds,
    )


def unformatted() -> str:
    """Return what gofmt would change: one name on each line."""
    names = [str(path) for folder in FOLDERS for path in sorted(folder.glob("*.go"))]
    done = subprocess.run(["gofmt", "-l", *names], check=False, capture_output=True, text=True)
    return done.stdout + done.stderr


def main() -> int:
    """Look, and say what is wrong or was not looked at."""
    if shutil.which("go") is None or shutil.which("gofmt") is None:
        print("go is not installed")
        return SKIPPED
    if found := unformatted():
        print(f"gofmt would change:\n{found}", end="")
        return 1
    if not kubevirt_admission.is_there():
        print("not vetted: python -m hack.kubevirt_admission builds it first")
        return SKIPPED
    try:
        done = run("vet", *FLAGS, ".", seconds=_SECONDS, offline=True)
    except subprocess.TimeoutExpired:
        print(f"not vetted: it takes more than {_SECONDS:g} s the first time")
        return SKIPPED
    print(done.stdout + done.stderr, end="")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
