"""Build the real kube-apiserver and etcd from the Go module proxy, for the tests.

``hack/controlplane`` pins ``k8s.io/kubernetes``, whose staging modules are replaced by their
published versions, and etcd's server; the binaries are cached by version outside the tree, and the
version is stamped, so that ``/version`` tells the truth. ``KUBEBUILDER_ASSETS`` is used instead if
it is set. ``SEVKIT_KUBERNETES=1.34.4`` builds another version, whose module is made on the way.
Without Go this says so and answers 0: tests that need a control plane are then a skipped lane.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from hack import debian

MODULE: Final = debian.ROOT / "hack/controlplane"
KUBERNETES: Final = "k8s.io/kubernetes"
ETCD: Final = "go.etcd.io/etcd/server/v3"
BINARIES: Final = ("kube-apiserver", "etcd")
_PACKAGES: Final = {"kube-apiserver": f"{KUBERNETES}/cmd/kube-apiserver", "etcd": ETCD}


def pinned_version() -> str:
    """Return the Kubernetes version that the committed module pins, without the v."""
    found = re.search(
        rf"^\t{re.escape(KUBERNETES)} v(\S+)$", (MODULE / "go.mod").read_text(), re.MULTILINE
    )
    if found is None:
        message = f"go.mod does not pin {KUBERNETES}"
        raise debian.UnavailableError(message)
    return found[1]


def wanted_version() -> str:
    """Return the version that is asked for: SEVKIT_KUBERNETES, else the pinned one."""
    return os.environ.get("SEVKIT_KUBERNETES", "").removeprefix("v") or pinned_version()


def assets() -> Path:
    """Return the folder that holds, or will hold, both binaries."""
    given = os.environ.get("KUBEBUILDER_ASSETS")
    if given:
        return Path(given)
    return debian.cache_folder("SEVKIT_CONTROLPLANE", "controlplane") / wanted_version()


def is_there() -> bool:
    """Return whether both binaries can be run."""
    return all(os.access(assets() / name, os.X_OK) for name in BINARIES)


def why_not() -> str:
    """Return why the binaries are not there, for whoever goes without."""
    if os.environ.get("KUBEBUILDER_ASSETS"):
        reason = "KUBEBUILDER_ASSETS has none"
    elif shutil.which("go") is None:
        reason = "go is not installed"
    else:
        reason = "python -m hack.control_plane_build builds it"
    return f"no kube-apiserver: {reason}"


def build() -> str:
    """Build what is missing; return a line that says which version there is.

    Raises ``UnavailableError`` with the reason, if it cannot be had here.
    """
    folder = assets()
    if is_there():
        return f"control plane: {folder}"
    if os.environ.get("KUBEBUILDER_ASSETS"):
        message = f"KUBEBUILDER_ASSETS={folder} lacks {' or '.join(BINARIES)}"
        raise debian.UnavailableError(message)
    if shutil.which("go") is None:
        message = "go is not installed"
        raise debian.UnavailableError(message)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs at once build once
        module = _module(folder)
        for name in BINARIES:
            if not os.access(folder / name, os.X_OK):
                _go_build(module, name, folder)
    return f"control plane: Kubernetes {wanted_version()}, built"


def _module(folder: Path) -> Path:
    """Return the module to build in: the committed one, or one made for another version."""
    version = wanted_version()
    if version == pinned_version():
        return MODULE
    module = folder / "module"
    module.mkdir(exist_ok=True)
    shutil.copy(MODULE / "tools.go", module)
    (module / "go.mod").write_text(make_module(version))
    _go(module, "mod", "tidy")
    return module


def make_module(version: str) -> str:
    """Return a go.mod for a Kubernetes version, with its staging modules as published."""
    said = _go(MODULE.parent, "mod", "download", "-json", f"{KUBERNETES}@v{version}")
    own = Path(json.loads(said)["GoMod"]).read_text()
    etcd = re.search(rf"{re.escape(ETCD)} (v\S+)", own)
    language = re.search(r"^go (\S+)", own, re.MULTILINE)
    if etcd is None or language is None:
        message = f"{KUBERNETES} {version} names no etcd or Go version"
        raise debian.UnavailableError(message)
    minor = version.split(".", 1)[1]
    staging = sorted(set(re.findall(r"^\s+(k8s\.io/[a-z-]+) v0\.0\.0$", own, re.MULTILINE)))
    replaced = "".join(f"\t{name} => {name} v0.{minor}\n" for name in staging)
    return (
        f"module sevkit.io/controlplane\n\ngo {language[1]}\n\n"
        f"require (\n\t{ETCD} {etcd[1]}\n\t{KUBERNETES} v{version}\n)\n\nreplace (\n{replaced})\n"
    )


def _go_build(module: Path, name: str, folder: Path) -> None:
    version = wanted_version()
    major, minor = version.split(".")[:2]
    stamp = "k8s.io/component-base/version."
    flags = f"-s -w -X {stamp}gitVersion=v{version} -X {stamp}gitMajor={major}"
    flags += f" -X {stamp}gitMinor={minor} -X {stamp}gitTreeState=clean"
    print(f"control plane: building {name} for Kubernetes {version}; takes minutes, once")
    fresh = folder / f".{name}.new"
    _go(module, "build", "-trimpath", "-ldflags", flags, "-o", str(fresh), _PACKAGES[name])
    fresh.replace(folder / name)


def _go(folder: Path, *words: str) -> str:
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod", "GOWORK": "off"}
    if words[0] == "build" and folder == MODULE:
        environment["GOFLAGS"] = "-mod=readonly"
    done = subprocess.run(
        ["go", *words], cwd=folder, env=environment, check=False, capture_output=True, text=True
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise debian.UnavailableError(f"go {words[0]}: {said[-1] if said else 'no reason given'}")
    return done.stdout


def main() -> int:
    """Build, and say what there is or why not."""
    try:
        print(build())
    except debian.UnavailableError as error:
        print(f"control plane: not available: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
