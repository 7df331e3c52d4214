"""Install the programs of others that sevkit is compared with, each apart from sevkit.

``hack/peers`` installs those that are missing, ``hack/peers --all`` tries also those again that
took long to fail, ``hack/peers NAME…`` the named ones, and ``hack/peers --list`` says what there
is. Each peer is independent of the others. One that cannot be had is a skipped lane and not a
failure of this script, which then answers 0 all the same.

Theory of operation. A peer that the record names with the right pin is there, which costs
milliseconds to see. Any other is installed into a folder of its own, under a lock of its own, so
that two runs at once install once. Its row is taken out of the record first and put in last, so an
interrupted run leaves nothing that looks installed. A reason why not is recorded as well; what took
long to fail is tried again only by name or with ``--all``.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hack import debian
from hack.peers_install import Crate, Debian, Go, GoFolder, Pip, Source, run

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds of failing that every run can spend again.
_CHEAP: Final = 20
_BUILD: Final = ".build."


@dataclass(frozen=True)
class Peer:
    """One peer: its programs by path, its sources in the order in which they are tried.

    ``probe`` are the words with which its programs must answer 0, so that one that lacks a library
    of this machine is not taken for installed; empty where it cannot run on its own.
    """

    programs: tuple[str, ...]
    sources: tuple[Source, ...]
    probe: tuple[str, ...] = ("--version",)


PEERS: Final = {
    "sev-snp-measure": Peer(("bin/sev-snp-measure",), (Pip("sev-snp-measure"),)),
    "virt-qemu-sev-validate": Peer(
        ("bin/virt-qemu-sev-validate",),
        (Debian("sid", "libvirt-clients-qemu"),),
        probe=(),  # it needs libvirt's Python modules; the tests load it without
    ),
    "go-sev-guest": Peer(
        ("bin/check", "bin/show"),
        (Go("github.com/google/go-sev-guest", "v0.15.0", ("/tools/check", "/tools/show")),),
        probe=("-help",),
    ),
    "snpguest": Peer(("bin/snpguest",), (Crate("snpguest", "0.11.0"),)),
    "sevctl": Peer(("bin/sevctl",), (Crate("sevctl", "0.6.2"),)),
    "snphost": Peer(
        ("bin/snphost",),
        (Debian("sid", "snphost"), Crate("snphost", "0.9.0")),
    ),
    "kubectl": Peer(
        ("bin/kubectl",),
        (Debian("sid", "kubectl"),),
        probe=("version", "--client"),
    ),
    "kustomize": Peer(
        ("bin/kustomize",),
        # The last that Go 1.26 builds; Debian's is a little older.
        (Go("sigs.k8s.io/kustomize/kustomize/v5", "v5.8.2"), Debian("sid", "kustomize")),
        probe=("version",),
    ),
    "helm": Peer(
        ("bin/helm",),
        (
            Go(
                "helm.sh/helm/v4",
                "v4.3.1",
                ("/cmd/helm",),
                stamp="helm.sh/helm/v4/internal/version.version",
            ),
        ),
        probe=("version",),
    ),
    "kubeconform": Peer(
        ("bin/kubeconform",),
        (
            Go(
                "github.com/yannh/kubeconform",
                "v0.8.0",
                ("/cmd/kubeconform",),
                stamp="main.version",
            ),
        ),
        probe=("-v",),
    ),
    # The webhook as one would write it in Go, for measurements.
    "go-webhook": Peer(
        ("bin/go-webhook",),
        (GoFolder("go-webhook", "sigs.k8s.io/controller-runtime"),),
        probe=("--help",),
    ),
}


def _is_there(base: Path, name: str) -> bool:
    peer, row = PEERS[name], debian.read_record(base).get(name, {})
    return row.get("pin") in {source.pin for source in peer.sources} and all(
        os.access(base / name / program, os.X_OK) for program in peer.programs
    )


def _is_hopeless(base: Path, name: str) -> bool:
    """Return whether it failed before, with the same pins, and took long to do so."""
    row = debian.read_record(base).get(name, {})
    return bool(row.get("tried") == _pins(name) and row.get("seconds", 0) > _CHEAP)


def _pins(name: str) -> str:
    return "; ".join(source.pin for source in PEERS[name].sources)


@contextmanager
def _locked(base: Path, name: str) -> Iterator[None]:
    with (base / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _record(base: Path, name: str, row: dict[str, str | int] | None) -> None:
    """Change one row, whoever else changes another, and whoever reads meanwhile."""
    with _locked(base, "record"):
        record = debian.read_record(base)
        record.pop(name, None)
        if row is not None:
            record[name] = row
        fresh = base / f".{debian.RECORD}.new"
        fresh.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
        fresh.replace(base / debian.RECORD)


def _install(base: Path, name: str, scratch: Path) -> dict[str, str | int]:
    """Install from the first source that can; raises ``UnavailableError`` with every reason."""
    peer, folder = PEERS[name], base / name
    reasons = []
    for source in peer.sources:
        shutil.rmtree(folder, ignore_errors=True)
        try:
            version, sha256 = source.install(folder, scratch)
            _probe(peer, folder)
        except (debian.UnavailableError, OSError) as error:
            reasons.append(f"{source.origin}: {error}")
            continue
        digest = sha256 or debian.digest(folder / peer.programs[0])
        return {"version": version, "from": source.origin, "pin": source.pin, "sha256": digest}
    shutil.rmtree(folder, ignore_errors=True)
    raise debian.UnavailableError("; ".join(reasons))


def _probe(peer: Peer, folder: Path) -> None:
    """Raise ``UnavailableError`` unless every program is there and answers."""
    for program in peer.programs:
        if not os.access(folder / program, os.X_OK):
            message = f"it has no {Path(program).name}"
            raise debian.UnavailableError(message)
        if peer.probe:
            run([str(folder / program), *peer.probe])


def _ensure(base: Path, name: str, scratch: Path) -> None:
    with _locked(base, name):
        if _is_there(base, name):
            return
        _record(base, name, None)
        started = time.monotonic()
        try:
            row = _install(base, name, scratch)
        except debian.UnavailableError as error:
            seconds = round(time.monotonic() - started)
            _record(base, name, {"reason": str(error), "tried": _pins(name), "seconds": seconds})
            print(f"peers: no {name} ({error}); its tests are skipped", file=sys.stderr)
            return
        _record(base, name, row)
        seconds = round(time.monotonic() - started)
        print(f"peers: {name} {row['version']}, {seconds} s", file=sys.stderr)


def _sweep(base: Path) -> None:
    """Remove what killed runs left behind; a run that still builds is younger than a day."""
    for left in base.glob(f"{_BUILD}*"):
        if left.stat().st_mtime < time.time() - 86400:
            shutil.rmtree(left, ignore_errors=True)


def describe(base: Path) -> Iterator[str]:
    """Yield one line for each peer: name, version and where from, or why not."""
    record = debian.read_record(base)
    width = max(map(len, PEERS))
    for name in PEERS:
        row = record.get(name, {})
        if _is_there(base, name):
            yield f"{name:<{width}}  {row['version']}  {row['from']}"
        else:
            reason = row.get("reason") or f"hack/peers {name} installs it"
            yield f"{name:<{width}}  not installed: {reason}"


def main(words: list[str] | None = None) -> int:
    """Install what is missing."""
    parser = argparse.ArgumentParser(prog="hack/peers", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PEERS))
    parser.add_argument("--all", action="store_true", help="try again what took long to fail")
    parser.add_argument("--list", action="store_true", help="only say what there is")
    options = parser.parse_args(words)
    unknown = sorted(set(options.names) - PEERS.keys())
    if unknown:
        parser.error(f"no such peer: {', '.join(unknown)}")
    base = debian.cache_folder("SEVKIT_PEERS", "peers")
    if options.list:
        print("\n".join(describe(base)))
        return 0
    base.mkdir(parents=True, exist_ok=True)
    asked = list(PEERS) if options.all else options.names
    wanted = asked or [name for name in PEERS if not _is_hopeless(base, name)]
    missing = [name for name in wanted if not _is_there(base, name)]
    if missing:
        _sweep(base)
        with tempfile.TemporaryDirectory(dir=base, prefix=_BUILD) as scratch:
            for name in missing:
                _ensure(base, name, Path(scratch))
    return 0


if __name__ == "__main__":
    sys.exit(main())
