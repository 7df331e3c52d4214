from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

import pytest

from sevkit import __version__

ROOT: Final = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without a network by the locked hatchling."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run_unpacked(folder: Path, code: str) -> str:
    """Run code with the unpacked wheel before everything else, and return its stdout."""
    prelude = f"import sys; sys.path.insert(0, {str(folder)!r}); "
    done = subprocess.run(
        [sys.executable, "-I", "-c", prelude + code],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout


def test_the_wheel_installs_sevkit_and_nothing_else(unpacked: Path) -> None:
    assert sorted(path.name for path in unpacked.iterdir()) == [
        "sevkit",
        f"sevkit-{__version__}.dist-info",
    ]


def test_the_wheel_holds_every_source_and_no_litter(unpacked: Path) -> None:
    packed = {path.relative_to(unpacked) for path in (unpacked / "sevkit").rglob("*.*")}
    sources = {path.relative_to(ROOT) for path in (ROOT / "sevkit").rglob("*.py")}
    assert {path for path in packed if path.suffix == ".py"} == sources
    assert {path.suffix for path in packed} <= {".py", ".pem", ".cert", ".typed"}


def test_the_wheel_holds_amds_roots_as_the_manifest_has_them(unpacked: Path) -> None:
    manifest = json.loads((ROOT / "tests/vectors/data/MANIFEST.json").read_text())
    roots = {name: row for name, row in manifest["files"].items() if name.startswith("sevkit/")}
    assert len(roots) == 19
    for name, row in roots.items():
        assert hashlib.sha256((unpacked / name).read_bytes()).hexdigest() == row["sha256"]


def test_the_wheel_carries_its_licence_and_version(unpacked: Path) -> None:
    info = unpacked / f"sevkit-{__version__}.dist-info"
    metadata = (info / "METADATA").read_text()
    assert f"\nVersion: {__version__}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert (info / "licenses" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert "sevkit = sevkit.cli.main:run" in (info / "entry_points.txt").read_text()


def test_the_command_runs_from_the_unpacked_wheel(unpacked: Path) -> None:
    code = "import sevkit; from sevkit.cli.main import main; main(['--version']);"
    out = run_unpacked(unpacked, code + "print(sevkit.__file__)")
    assert out == f"sevkit {__version__}\n{unpacked / 'sevkit' / '__init__.py'}\n"
