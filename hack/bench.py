"""Measure what sevkit promises to be quick at, as ratios that hold on any machine.

Each row compares a task with a floor under it, both timed in turn in one run, and takes the ratio
of the medians: what else the machine does hits both alike. A row whose ratio is above its bound
makes the exit code 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sevkit.measure.launch_digest import compute_snp_digest
from sevkit.measure.ovmf import PAGE
from sevkit.measure.sweep import Cpu, Request, compute_digests
from sevkit.measure.terms import MAX_VCPUS, Mode
from sevkit.measure.vcpu import CPU_MODELS, Registers
from sevkit.testing.firmware import FirmwareImage, encode_firmware

if TYPE_CHECKING:
    from collections.abc import Callable

_FIRMWARE_SIZE: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """A task and the floor under it, each timed ``rounds`` times in turn."""

    name: str
    task: Callable[[], object]
    floor_name: str
    floor: Callable[[], object]
    bound: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Result:
    """Medians in seconds."""

    row: Row
    task: float
    floor: float

    @property
    def ratio(self) -> float:
        """How many times the floor the task takes."""
        return self.task / self.floor

    @property
    def kept(self) -> bool:
        """Whether the bound holds."""
        return self.ratio <= self.row.bound


def _firmware() -> bytes:
    """Return the real 4 MiB image if it is cached, else one of that size made here."""
    fallback = Path.home() / ".cache" / "sevkit" / "firmware"
    path = Path(os.environ.get("SEVKIT_FIRMWARE") or fallback) / "OVMF.amdsev.fd"
    if path.is_file():
        return path.read_bytes()
    return encode_firmware(FirmwareImage(size=_FIRMWARE_SIZE))


def digest_rows() -> tuple[Row, ...]:
    """Return the rows of launch digests."""
    firmware = _firmware()
    registers = Registers(CPU_MODELS["EPYC-Milan"], 1)
    cpus = tuple(Cpu(name, signature) for name, signature in CPU_MODELS.items())
    every = Request(Mode.SNP, firmware, 1, MAX_VCPUS, cpus, sev_features=1)

    def pages() -> None:
        for offset in range(0, len(firmware), PAGE):
            hashlib.sha384(firmware[offset : offset + PAGE]).digest()

    def one() -> bytes:
        return compute_snp_digest(firmware, registers, 1)

    return (
        Row("one SNP digest, 4 MiB", one, "SHA-384 of its pages", pages, 1.5, 31),
        Row(
            f"1-{MAX_VCPUS} vCPUs, {len(cpus)} CPU models",
            lambda: list(compute_digests(every)),
            "one SNP digest",
            one,
            4.0,
            21,
        ),
    )


def process_rows() -> tuple[Row, ...]:
    """Return the rows of whole processes."""

    def run(*arguments: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True)

    version = run("-m", "sevkit", "--version")
    return (Row("sevkit --version", version, "import click", run("-c", "import click"), 2.0, 15),)


#: Every set of rows. A new one is a function that returns rows, and its name here.
ROWS: Final[tuple[Callable[[], tuple[Row, ...]], ...]] = (digest_rows, process_rows)


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(row: Row) -> Result:
    """Time a row: one unmeasured round of each, then both in turn."""
    row.task()
    row.floor()
    tasks: list[float] = []
    floors: list[float] = []
    for _ in range(row.rounds):
        floors.append(_timed(row.floor))
        tasks.append(_timed(row.task))
    return Result(row, statistics.median(tasks), statistics.median(floors))


def _line(result: Result) -> str:
    row = result.row
    mark = "" if result.kept else "  BROKEN"
    return (
        f"{row.name:<28} {result.task * 1e3:9.2f} ms  {row.floor_name:<24} "
        f"{result.floor * 1e3:9.2f} ms  {result.ratio:5.2f} of {row.bound:g}{mark}"
    )


def _document(results: list[Result]) -> str:
    rows = [
        {
            "name": result.row.name,
            "floor": result.row.floor_name,
            "seconds": result.task,
            "floor_seconds": result.floor,
            "ratio": round(result.ratio, 3),
            "bound": result.row.bound,
            "kept": result.kept,
        }
        for result in results
    ]
    return json.dumps({"python": sys.version.split()[0], "rows": rows}, indent=1)


def main() -> int:
    """Print the table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description="Measure what matters, as ratios.")
    parser.add_argument("--json", metavar="FILE", help="also write the table as JSON")
    options = parser.parse_args()
    results: list[Result] = []
    for rows in ROWS:
        for row in rows():
            results.append(measure(row))
            print(_line(results[-1]), flush=True)
    if options.json:
        Path(options.json).write_text(_document(results) + "\n")
    return 0 if all(result.kept for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
