"""The README and the guides: every command and every program that they show is run.

Commands stand in ``console`` blocks after ``$``; what stands below one must be in its answer, in
that order, and ``…`` alone on a line is whatever comes between. Files have the names that the text
gives them, made from the test vectors.
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.abi.product import Product, ProductLine
from sevkit.abi.report import parse_report
from sevkit.measure.launch_digest import compute_sev_es_digest
from sevkit.measure.launch_measurement import compute_launch_measurement
from sevkit.measure.vcpu import Registers, signature_of_model
from sevkit.secret import Secret
from sevkit.testing.snp_chain import SimulatedRoots
from sevkit.testing.snp_report import SimulatedChip

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parent.parent.parent
README: Final = ROOT / "README.md"
GUIDE: Final = ROOT / "docs" / "guide.md"
REFERENCES: Final = ROOT / "docs" / "references.md"
SIMULATION: Final = ROOT / "docs" / "simulation.md"

NONCE: Final = (
    "d447b55d197491bfe15cf298f9de9986b7a7c4be2468b4f6e2d53b71d7c64581"
    "0b0f2cdfca0040433be063fc1a8293f0f3f8dae7b79fecb3d1cd82bd6a93ebfd"
)
DIGEST: Final = (
    "7a1e5c266c0108dbc9bb94fa926951320940915d0aafb42464bd88b579ea158d"
    "3e1a0dc39b2c60bd95b9c480cd81841f"
)
VM: Final = """
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {name: guest}
spec:
  domain:
    cpu: {cores: 4}
    launchSecurity: {snp: {}}
    devices: {}
"""
#: Where the answer is not 0: there is no network here, and no guest has that digest.
CODES: Final = {
    "sevkit attest report report.bin --report-data": 4,
    "sevkit attest report report.bin --offline": 4,
    "sevkit attest explain": 1,
    "sevkit kds fetch": 4,
    # No libvirt either, or no libvirt-python (the extra 'libvirt').
    "sevkit attest domain": 4 if importlib.util.find_spec("libvirt") else 2,
}


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)


def commands(document: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield (command, lines of its answer) of every ``console`` block."""
    for block in blocks(document, "console"):
        for part in re.split(r"^\$ ", block.replace("\\\n", " "), flags=re.MULTILINE)[1:]:
            command, *answer = part.splitlines()
            yield " ".join(command.split()), answer


def test_the_documents_show_commands_and_programs() -> None:
    assert len(list(commands(README))) >= 5
    assert len(list(commands(GUIDE))) >= 8
    assert len(list(commands(REFERENCES))) >= 2
    assert blocks(README, "python")


@pytest.fixture
def place(vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the files that the texts name, away from any network."""
    crate = vectors / "sev-crate"
    parts = {
        name: (crate / "naples" / f"{name}.cert").read_bytes()
        for name in ("pdh", "pek", "oca", "cek")
    }
    milan = (crate / "report_milan.hex").read_text()
    vcek = (crate / "vcek_milan.der").read_bytes()
    info = {
        "pdh": base64.b64encode(parts["pdh"]).decode(),
        "certChain": base64.b64encode(parts["pek"] + parts["oca"] + parts["cek"]).decode(),
    }
    contents = {
        "report_milan.hex": milan.encode(),
        "report.bin": bytes.fromhex(milan),
        "vcek_milan.der": vcek,
        "vcek.der": vcek,
        "nonce.bin": bytes.fromhex(NONCE),
        "digest.bin": bytes.fromhex(DIGEST),
        "vm.yaml": VM.encode(),
        "OVMF.amdsev.fd": (crate / "ovmf_AmdSev_suffix.bin").read_bytes(),
        "platform.json": json.dumps(info).encode(),
        "cek.cert": parts["cek"],
        "disk.key": b"secret",
        "vmlinuz": b"kernel",
        "initrd.img": b"initrd",
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "sevkit"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m sevkit "$@"\n')
    script.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # What libvirt runs to reach another machine: there is none.
    (tmp_path / "bin" / "ssh").write_text("#!/bin/sh\nexit 255\n")
    (tmp_path / "bin" / "ssh").chmod(0o755)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NONCE", NONCE)
    monkeypatch.setenv("DIGEST", DIGEST)
    return tmp_path


def launch(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Play the platform of the guide: measure the launch that its session is for."""
    firmware = (place / "OVMF.amdsev.fd").read_bytes()
    registers = Registers(signature_of_model("EPYC-Milan"), 0)
    mnonce = bytes(range(16))
    measure = compute_launch_measurement(
        Secret((place / "launch-1" / "tik.bin").read_bytes()),
        api_major=1,
        api_minor=55,
        build_id=24,
        policy=5,
        digest=compute_sev_es_digest(firmware, registers, 4),
        mnonce=mnonce,
    )
    measurement = base64.b64encode(measure + mnonce).decode()
    numbers = {"apiMajor": 1, "apiMinor": 55, "buildID": 24, "policy": 5}
    (place / "info.json").write_text(json.dumps({"measurement": measurement, **numbers}))
    monkeypatch.setenv("MEASUREMENT", measurement)


def in_order(expected: list[str], answer: str) -> bool:
    """Whether the lines stand in the answer one below the other, with gaps only at ``…``."""
    pattern = "".join(
        r"(?:.*\n)*?" if line == "…" else re.escape(line) + r"\n" for line in expected if line
    )
    return re.fullmatch(pattern, answer.replace("\n\n", "\n")) is not None


@pytest.mark.parametrize(
    "document", [README, GUIDE, REFERENCES], ids=["README", "guide", "references"]
)
def test_every_command_shown_does_what_is_shown(
    document: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if document is GUIDE:  # as today's firmware makes them: this one names its product
        chip = SimulatedChip(SimulatedRoots(ProductLine.MILAN), Product.MILAN)
        (place / "report.bin").write_bytes(chip.report())
    for command, expected in commands(document):
        if not command.startswith("sevkit "):
            assert command.startswith(("make ", "pip install ")), command
            continue
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        code = next((CODES[known] for known in CODES if command.startswith(known)), 0)
        assert done.returncode == code, (command, done.stdout, done.stderr)
        if expected:
            assert in_order(expected, done.stdout), done.stdout
        if command.startswith("sevkit session new"):
            launch(place, monkeypatch)


@pytest.mark.parametrize("document", [README, GUIDE], ids=["README", "guide"])
def test_every_program_shown_runs(document: Path, place: Path) -> None:
    for program in blocks(document, "python"):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(program, document.name, "exec"), {})  # noqa: S102  # that is the test
        assert out.getvalue() == "True 0\n"


def test_the_program_of_the_simulation_runs() -> None:
    found: dict[str, object] = {}
    (program,) = blocks(SIMULATION, "python")
    exec(compile(program, SIMULATION.name, "exec"), found)  # noqa: S102  # that is the test
    report, digest = found["report"], found["digest"]
    assert isinstance(report, bytes)
    assert parse_report(report).measurement == digest


def test_every_commands_help_has_an_example_on_lines_of_its_own() -> None:
    for section in blocks(ROOT / "docs" / "cli.md", "text"):
        if "\nCommands:\n" not in section:
            assert re.search(r"^  Examples?\b.*:\n    sevkit ", section, re.MULTILINE), section
        assert "\\b" not in section


def test_the_expectations_file_shown_is_read(place: Path) -> None:
    (shown,) = blocks(GUIDE, "yaml")
    text = shown.replace("…128 hex digits…", NONCE).replace("…hardware ID…", "07" * 64)
    (place / "expect.yaml").write_text(text)
    words = ["measure", "--vmi", "vm.yaml", "--vcpu-type", "EPYC-Milan", "--output", "json"]
    sevkit = [sys.executable, "-m", "sevkit"]
    with (place / "reference.json").open("wb") as reference:
        measure = [*sevkit, *words, "--firmware", "OVMF.amdsev.fd"]
        subprocess.run(measure, stdout=reference, check=True, timeout=60)
    judge = ["attest", "report", "report.bin", "--vek", "vcek.der", "--offline"]
    done = subprocess.run(
        [*sevkit, *judge, "--expectations", "expect.yaml"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 3
    assert "FAIL  report.measurement" in done.stdout
    assert "pass  report.data" in done.stdout
