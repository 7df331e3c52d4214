"""Take AMD's certificates and the test vectors out of published packages, and record where from.

``hack/update-vectors`` needs cargo, go and a network; ``hack/update-vectors --check`` needs
neither and compares the committed files with ``tests/vectors/data/MANIFEST.json``.

Files are read out of the package archives themselves, never out of an unpacked copy: the .crate
is held against the checksum that cargo locked, the module's zip against Go's checksum database
(by the go command). A version that the manifest knows must have the hash that it had then.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import ssl
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT: Final = Path(__file__).resolve().parent.parent
MANIFEST: Final = "tests/vectors/data/MANIFEST.json"
TREES: Final = ("sevkit/kds/data", "tests/vectors/data")
#: Files of the trees that are ours and so not in the manifest.
OWN: Final = frozenset({MANIFEST, "tests/vectors/data/README.md"})

CRATE: Final = ("sev", "8.0.0")
MODULE: Final = ("github.com/google/go-sev-guest", "v0.15.0")

SEV_LINES: Final = ("naples", "rome", "milan", "genoa", "turin")
SNP_LINES: Final = ("milan", "genoa", "turin")

#: SHA-256 of the DER of AMD's X.509 roots and intermediates (57230), recorded apart from the
#: product's own pins so that one slip cannot change both.
PINS: Final = {
    "milan/ark": "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
    "genoa/ark": "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
    "turin/ark": "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
    "milan/ask": "67d303bd3905fd38db8b20e0793699870e7fa612eaad5dec358293fd8c0bac1b",
    "genoa/ask": "5464738c1546aed5f2cecf1dc98c5c960a92e8913238a61711bc90ec6e828521",
    "turin/ask": "5b77ef5fe7a7a004fd9032668fba9d0fda22f88c4442069a479636a6ae3b3185",
    "milan/asvk": "c5e081f59b7efab1fe2f8b505e159704e72f29cab7ef7cf628a05a42439082f5",
    "genoa/asvk": "197e610743a917d6b9bb982a5a9226ccc0a15b611be0619e626aca9151457372",
    "turin/asvk": "104e10a8bd060a3c20a434261a57d0588fd65a88915b4f65b08bdecaf8df1a3c",
}

_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----\n.*?-----END CERTIFICATE-----\n", re.DOTALL)


class StopError(Exception):
    """Something is not as it must be; nothing was written."""


@dataclass(frozen=True)
class Package:
    """One published package: the client that fetched it, and the hash of its archive."""

    client: str
    name: str
    version: str
    sha256: str
    licence: str


@dataclass(frozen=True)
class Taken:
    """One file to write: its path in the repository, its origin and its bytes."""

    path: str
    package: str
    source: str
    data: bytes


def _run(*command: str, cwd: Path) -> str:
    try:
        done = subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        message = f"{command[0]} is not installed; --check needs neither it nor a network"
        raise StopError(message) from error
    except subprocess.CalledProcessError as error:
        message = f"{' '.join(command)} failed: {error.stderr.strip()}"
        raise StopError(message) from error
    return done.stdout


def _fetch_crate() -> tuple[Package, Callable[[str], bytes]]:
    name, version = CRATE
    home = Path(os.environ.get("CARGO_HOME", "~/.cargo")).expanduser()
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        (project / "Cargo.toml").write_text(
            '[package]\nname = "vectors"\nversion = "0.0.0"\nedition = "2021"\n'
            f'[lib]\npath = "lib.rs"\n[dependencies]\n{name} = "={version}"\n'
        )
        (project / "lib.rs").touch()
        _run("cargo", "fetch", "--quiet", cwd=project)
        lock = (project / "Cargo.lock").read_text()
    found = re.search(
        rf'name = "{name}"\nversion = "{re.escape(version)}"\n.*\nchecksum = "([0-9a-f]{{64}})"',
        lock,
    )
    if found is None:
        message = f"cargo locked no checksum for {name} {version}"
        raise StopError(message)
    for path in home.glob(f"registry/cache/*/{name}-{version}.crate"):
        archive = path.read_bytes()
        if hashlib.sha256(archive).hexdigest() == found[1]:
            break
    else:
        message = f"no {name}-{version}.crate under {home} has the locked checksum"
        raise StopError(message)

    def read(source: str) -> bytes:
        with tarfile.open(path) as tar:
            member = tar.extractfile(f"{name}-{version}/{source}")
            if member is None:
                raise StopError(source)
            return member.read()

    return Package("cargo", name, version, found[1], "Apache-2.0"), read


def _fetch_module() -> tuple[Package, Callable[[str], bytes]]:
    name, version = MODULE
    with tempfile.TemporaryDirectory() as folder:
        answer = _run("go", "mod", "download", "-json", f"{name}@{version}", cwd=Path(folder))
    archive = Path(json.loads(answer)["Zip"])

    def read(source: str) -> bytes:
        with zipfile.ZipFile(archive) as bundle:
            return bundle.read(f"{name}@{version}/{source}")

    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    return Package("go", name, version, sha256, "Apache-2.0"), read


def _from_crate(read: Callable[[str], bytes]) -> Iterator[Taken]:
    for line in SEV_LINES:
        for role in ("ark", "ask"):
            source = f"src/certs/sev/builtin/{line}/{role}.cert"
            yield Taken(f"sevkit/kds/data/sev/{line}/{role}.cert", CRATE[0], source, read(source))
    for line in SNP_LINES:
        for role in ("ark", "ask"):
            source = f"src/certs/snp/builtin/{line}/{role}.pem"
            yield Taken(f"sevkit/kds/data/snp/{line}/{role}.pem", CRATE[0], source, read(source))
    chains = [f"{line}/{role}.cert" for line in SEV_LINES[:2] for role in _CHAIN]
    moved = {
        **{f"tests/certs_data/{name}": name for name in _REPORTS},
        **{f"tests/measurement/{name}": name for name in _MEASUREMENT},
        **{f"tests/{name}": name for name in (*chains, *_NAPLES_ARK)},
    }
    for source, name in moved.items():
        yield Taken(f"tests/vectors/data/sev-crate/{name}", CRATE[0], source, read(source))


_CHAIN: Final = ("cek", "oca", "pek", "pdh")
_NAPLES_ARK: Final = ("naples/ark.cert.bad", "naples/ark.cert.sig")
_REPORTS: Final = ("report_milan.hex", "vcek_milan.der", "vcek_turin.der")
_MEASUREMENT: Final = (
    "ovmf_AmdSev_suffix.bin",
    "ovmf_OvmfX64_suffix.bin",
    "test_auth_block.bin",
)


def _from_module(read: Callable[[str], bytes]) -> Iterator[Taken]:
    package = MODULE[0]
    for line in SNP_LINES:
        source = f"verify/trust/ask_ark_{line}_vlek.pem"
        first = _PEM.search(read(source).replace(b"\r\n", b"\n"))
        if first is None:
            message = f"{source}: no certificate"
            raise StopError(message)
        path = f"sevkit/kds/data/snp/{line}/asvk.pem"
        yield Taken(path, package, f"{source} (first certificate, as LF)", first[0])
    for name in ("attestation.bin", "vcek.testcer"):
        source = f"verify/testdata/{name}"
        yield Taken(f"tests/vectors/data/go-sev-guest/{name}", package, source, read(source))


def _demand_pins(files: list[Taken]) -> None:
    by_path = {taken.path: taken for taken in files}
    for role, pin in PINS.items():
        path = f"sevkit/kds/data/snp/{role}.pem"
        der = ssl.PEM_cert_to_DER_cert(by_path[path].data.decode("ascii"))
        if hashlib.sha256(der).hexdigest() != pin:
            message = f"{path}: the certificate is not the pinned one"
            raise StopError(message)


def _read_manifest() -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((ROOT / MANIFEST).read_text())
    except FileNotFoundError:
        return {"packages": [], "files": {}}
    return manifest


def update() -> str:
    """Fetch the packages, demand the pins, write the files and the manifest."""
    crate, read_crate = _fetch_crate()
    module, read_module = _fetch_module()
    known = {(row["name"], row["version"]): row["sha256"] for row in _read_manifest()["packages"]}
    for package in (crate, module):
        if known.get((package.name, package.version), package.sha256) != package.sha256:
            message = f"{package.name} {package.version} is no longer the archive it was"
            raise StopError(message)
    files = [*_from_crate(read_crate), *_from_module(read_module)]
    _demand_pins(files)
    for taken in files:
        target = ROOT / taken.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(taken.data)
        target.chmod(0o644)
    manifest = {
        "packages": [asdict(package) for package in (crate, module)],
        "files": {
            taken.path: {
                "package": taken.package,
                "source": taken.source,
                "sha256": hashlib.sha256(taken.data).hexdigest(),
            }
            for taken in sorted(files, key=lambda taken: taken.path)
        },
    }
    (ROOT / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return f"wrote {len(files)} files from {crate.name} {crate.version}, {module.name}"


def check() -> str:
    """Compare the committed files with the manifest, both ways."""
    listed: dict[str, dict[str, str]] = _read_manifest()["files"]
    present = {
        path.relative_to(ROOT).as_posix()
        for tree in TREES
        for path in (ROOT / tree).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    } - OWN
    faults = [f"{path}: not in the manifest" for path in sorted(present - set(listed))]
    for path, row in listed.items():
        if path not in present:
            faults.append(f"{path}: missing")
        elif hashlib.sha256((ROOT / path).read_bytes()).hexdigest() != row["sha256"]:
            faults.append(f"{path}: differs from the manifest")
    if not listed:
        faults.append(f"{MANIFEST}: missing or empty")
    if faults:
        raise StopError("\n".join(faults))
    return f"{len(listed)} vectors and roots equal their manifest"


def main() -> int:
    """Update, or with ``--check`` compare."""
    parser = argparse.ArgumentParser(description="Take vectors out of published packages.")
    parser.add_argument("--check", action="store_true", help="compare with the manifest only")
    arguments = parser.parse_args()
    try:
        print(check() if arguments.check else update())
    except StopError as stop:
        print(stop, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
