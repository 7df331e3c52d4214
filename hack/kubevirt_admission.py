"""Build the program that runs KubeVirt's own admission code, for the tests.

``hack/kubevirt-admission`` links KubeVirt's source from the Go module proxy. The binary is cached
by KubeVirt's version outside the tree, and built again when our few files change.
``SEVKIT_KUBEVIRT=1.8.2`` builds it with another version, whose module is made on the way.
``--pin VERSION`` writes the committed module for a version. Without Go this says so and answers
0: tests that need the program are then a skipped lane.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from hack import debian

MODULE: Final = debian.ROOT / "hack/kubevirt-admission"
KUBEVIRT: Final = "kubevirt.io/kubevirt"
NAME: Final = "kubevirt-admission"
#: Build tag of each minor version; a tag chooses between our ``release_*.go``.
TAGS: Final = {"1.7": "kubevirt_1_7", "1.8": "kubevirt_1_8", "1.9": ""}
#: Published with KubeVirt and at its version.
_SIBLINGS: Final = (KUBEVIRT, "kubevirt.io/api", "kubevirt.io/client-go")
#: Modules for which ours, without substance, stand in: only VM templates and export need them.
_ABSENT: Final = ("kubevirt.io/virt-template-api", "kubevirt.io/virt-template-client-go")


def pinned_version() -> str:
    """Return the KubeVirt version that the committed module pins, without the v."""
    pattern = rf"^\t{re.escape(KUBEVIRT)} v(\S+)$"
    found = re.search(pattern, (MODULE / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        message = f"go.mod does not pin {KUBEVIRT}"
        raise debian.UnavailableError(message)
    return found[1]


def wanted_version() -> str:
    """Return the version that is asked for: SEVKIT_KUBEVIRT, else the pinned one."""
    return os.environ.get("SEVKIT_KUBEVIRT", "").removeprefix("v") or pinned_version()


def binary() -> Path:
    """Return where the program is, or will be."""
    return debian.cache_root() / NAME / wanted_version() / NAME


def is_there() -> bool:
    """Return whether the program can be run and is of these sources."""
    path = binary()
    try:
        return os.access(path, os.X_OK) and path.with_name("key").read_text() == key()
    except OSError:
        return False


def why_not() -> str:
    """Return why the program is not there, for whoever goes without."""
    built = "python -m hack.kubevirt_admission builds it"
    return f"no {NAME}: {built if shutil.which('go') else 'go is not installed'}"


def build() -> str:
    """Build what is missing; return a line that says which version there is.

    Raises ``UnavailableError`` with the reason, if it cannot be had here.
    """
    path, version = binary(), wanted_version()
    if is_there():
        return f"kubevirt admission: {path}"
    if shutil.which("go") is None:
        message = "go is not installed"
        raise debian.UnavailableError(message)
    tag = _tag(version)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs at once build once
        if not is_there():
            print(f"kubevirt admission: building with KubeVirt {version}; takes minutes, once")
            fresh = path.with_name(f".{NAME}.new")
            flags = ["-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-tags", tag]
            _go(_module(path.parent), "build", *flags, "-o", str(fresh), ".")
            fresh.replace(path)
            path.with_name("key").write_text(key())
    return f"kubevirt admission: KubeVirt {version}, built"


def key() -> str:
    """Return a digest of everything of ours that goes into the program."""
    whole = hashlib.sha256()
    for path in sorted(MODULE.rglob("*")):
        if path.is_file() and not path.name.endswith("_test.go"):
            whole.update(f"{path.relative_to(MODULE)}\0{debian.digest(path)}\n".encode())
    return whole.hexdigest()


def _tag(version: str) -> str:
    """Return the build tag of a version."""
    if not re.fullmatch(r"\d+\.\d+\.\d+(-[a-z0-9.]+)?", version):
        message = f"{version!r} is not a version of KubeVirt such as {pinned_version()}"
        raise debian.UnavailableError(message)
    tag = TAGS.get(".".join(version.split(".")[:2]))
    if tag is None:
        message = f"KubeVirt {version} is none of {', '.join(TAGS)}"
        raise debian.UnavailableError(message)
    return tag


def _module(folder: Path) -> Path:
    """Return the module to build in: the committed one, or one made for another version."""
    version = wanted_version()
    if version == pinned_version():
        return MODULE
    module = folder / "module"
    shutil.rmtree(module, ignore_errors=True)
    shutil.copytree(MODULE, module, ignore=shutil.ignore_patterns("go.*", "*_test.go"))
    for name in ("virt-template-api", "virt-template-client-go"):
        shutil.copy(MODULE / "absent" / name / "go.mod", module / "absent" / name)
    make_module(version, module)
    return module


def make_module(version: str, module: Path) -> None:
    """Write go.mod and go.sum for a KubeVirt version.

    A dependency's own ``replace`` lines do not count, so KubeVirt's are repeated; and its go.sum is
    where ours begins, so that every module is the one that KubeVirt was released with.
    """
    said = _go(MODULE.parent, "mod", "download", "-json", f"{KUBEVIRT}@v{version}")
    there = json.loads(said)
    own = json.loads(_go(MODULE.parent, "mod", "edit", "-json", there["GoMod"]))
    required = "".join(f"\t{name} v{version}\n" for name in _SIBLINGS)
    replaced = "".join(
        f"\t{row['Old']['Path']} => {row['New']['Path']} {row['New']['Version']}\n"
        for row in own["Replace"]
        if row["New"].get("Version")  # the others are folders of KubeVirt's repository
    )
    for name in _ABSENT:
        replaced += f"\t{name} => ./absent/{name.rpartition('/')[2]}\n"
    (module / "go.mod").write_text(
        f"module sevkit.io/{NAME}\n\ngo {own['Go']}\n\n"
        f"require (\n{required})\n\nreplace (\n{replaced})\n"
    )
    (module / "go.sum").write_bytes((Path(there["Dir"]) / "go.sum").read_bytes())
    # Tidy looks at every build tag at once, and older releases lack what newer ones are asked for.
    for path in module.glob("release_*.go"):
        if _tag_of(path) != _tag(version) and module != MODULE:
            path.unlink()
    _go(module, "mod", "tidy")


def _tag_of(path: Path) -> str:
    """Return the build tag of one of our ``release_*.go``."""
    return TAGS[path.stem.removeprefix("release_").replace("_", ".")]


def _go(folder: Path, *words: str) -> str:
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
    done = subprocess.run(
        ["go", *words], cwd=folder, env=environment, check=False, capture_output=True, text=True
    )
    if done.returncode:
        said = [line for line in done.stderr.strip().splitlines() if "downloading" not in line]
        raise debian.UnavailableError(f"go {words[0]}: {said[-1] if said else 'no reason given'}")
    return done.stdout


def main() -> int:
    """Build, and say what there is or why not."""
    parser = argparse.ArgumentParser(prog="kubevirt_admission", description=__doc__)
    parser.add_argument("--pin", metavar="VERSION", help="write the committed module for a version")
    pin = parser.parse_args().pin
    try:
        if pin:
            make_module(pin.removeprefix("v"), MODULE)
        print(build())
    except debian.UnavailableError as error:
        print(f"kubevirt admission: not available: {error}", file=sys.stderr)
        return 1 if pin else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
