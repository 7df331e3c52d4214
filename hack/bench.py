"""Measure what sevkit promises to be quick at, as ratios that hold on any machine.

Each row compares a task with a floor under it, both timed in turn in one run, and takes the ratio
of the medians: what else the machine does hits both alike. A row whose ratio is above its bound
makes the exit code 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from hack import bench_agent, bench_webhook, debian
from hack.bench_admission import BOUND as DECISION_BOUND
from hack.bench_admission import decision_tasks
from hack.bench_simulation import BOUND, SIZES, launch_tasks
from sevkit.abi.product import Product, ProductLine
from sevkit.abi.report import parse_report
from sevkit.attest.chain import verify_chain, verify_vek
from sevkit.attest.checks import SNP_REPORT
from sevkit.attest.container import find_report
from sevkit.attest.snp import pinned_roots
from sevkit.attest.verdict import Ledger
from sevkit.attest.verify import verify_report
from sevkit.attest.x509 import parse_certificate
from sevkit.kds.roots import snp_chain
from sevkit.measure.launch_digest import compute_snp_digest
from sevkit.measure.ovmf import PAGE
from sevkit.measure.sweep import Cpu, Request, compute_digests
from sevkit.measure.terms import MAX_VCPUS, Mode
from sevkit.measure.vcpu import CPU_MODELS, Registers
from sevkit.testing.device.ioctl import IoctlReply
from sevkit.testing.device.mount import FuseDevices, unavailable_reason
from sevkit.testing.device.speed import measure_ioctls
from sevkit.testing.driver import SevDevice
from sevkit.testing.firmware import FirmwareImage, encode_firmware
from sevkit.testing.secure_processor.identity import ChipIdentity
from sevkit.testing.secure_processor.processor import SecureProcessor
from sevkit.testing.sev_chain import make_roots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from hack.bench_agent import Figure
    from sevkit.testing.device.ioctl import CallerMemory

_VECTORS: Final = Path(__file__).resolve().parent.parent / "tests/vectors/data/sev-crate"
_FIRMWARE_SIZE: Final = 4 << 20
_IOCTLS: Final = 200


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
    path = debian.cache_folder("SEVKIT_FIRMWARE", "firmware") / "OVMF.amdsev.fd"
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


def admission_rows() -> tuple[Row, ...]:
    """Return the row of the webhook's decision."""
    decisions, floor = decision_tasks()
    name = "100 decisions on a 6 KiB VMI"
    return (Row(name, decisions, "parsing and serialising it", floor, DECISION_BOUND, 31),)


def process_rows() -> tuple[Row, ...]:
    """Return the rows of whole processes."""

    def run(*arguments: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True)

    version = run("-m", "sevkit", "--version")
    return (Row("sevkit --version", version, "import click", run("-c", "import click"), 2.0, 15),)


def report_rows() -> tuple[Row, ...]:
    """Return the row of reports under a chain that is verified already."""
    report = find_report((_VECTORS / "report_milan.hex").read_bytes()).report
    ledger = Ledger(SNP_REPORT)
    ask, ark = (parse_certificate(der) for der in snp_chain(ProductLine.MILAN, vlek=False))
    at = datetime(2026, 11, 23, tzinfo=UTC)
    chain = verify_chain(ask, ark, at=at, roots=pinned_roots(), ledger=ledger)
    certificate = parse_certificate((_VECTORS / "vcek_milan.der").read_bytes())
    vek = verify_vek(chain, certificate, ledger=ledger)
    parsed = parse_report(report)
    signature, algorithm = parsed.signature.to_der(), ec.ECDSA(hashes.SHA384())

    def many() -> None:
        for _ in range(100):
            verify_report(report, vek, ledger=Ledger(SNP_REPORT))

    def bare() -> None:
        for _ in range(100):
            vek.public_key.verify(signature, parsed.signed, algorithm)

    return (Row("100 reports, chain verified", many, "100 P-384 verifications", bare, 1.2, 21),)


def simulation_rows() -> Iterator[Row]:
    """Yield the rows of simulated hardware: whole launches, and ioctls through FUSE."""
    for size in SIZES:
        launch, cryptography = launch_tasks(size)
        name = f"SEV launch, {size >> 10} KiB"
        yield Row(name, launch, "the cryptography in it", cryptography, BOUND, 201)
    reason = unavailable_reason()
    if reason is not None:
        print(f"ioctls through FUSE: not measured: {reason}")
        return
    processor = SecureProcessor(ChipIdentity(Product.ROME, make_roots()))
    with FuseDevices({"sev": SevDevice(processor), "empty": _Empty()}) as devices:
        yield Row(
            f"{_IOCTLS} ioctls on /dev/sev",
            lambda: measure_ioctls(devices.path / "sev", _IOCTLS),
            "on an empty FUSE file",
            lambda: measure_ioctls(devices.path / "empty", _IOCTLS),
            BOUND,
            41,
        )


class _Empty:
    """A device that does nothing, so that only the way to it is measured."""

    def ioctl(
        self, request: int, argument: bytes, memory: CallerMemory, *, writable: bool
    ) -> IoctlReply:
        del request, memory, writable
        return IoctlReply(0, argument)


#: Every set of rows. A new one is a function that returns rows, and its name here.
ROWS: Final[tuple[Callable[[], Iterable[Row]], ...]] = (
    digest_rows,
    report_rows,
    admission_rows,
    simulation_rows,
    process_rows,
)


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


def _document(results: list[Result], figures: list[Figure]) -> str:
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
    agent = [
        {"name": one.name, "value": one.value, "unit": one.unit, "bound": one.bound}
        for one in figures
    ]
    version = sys.version.split()[0]
    return json.dumps({"python": version, "rows": rows, "agent": agent}, indent=1)


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
    figures: list[Figure] = []
    for figure in chain(bench_agent.measure(), bench_webhook.measure()):
        figures.append(figure)
        print(figure.line(), flush=True)
    if options.json:
        Path(options.json).write_text(_document(results, figures) + "\n")
    kept = [result.kept for result in results] + [figure.kept for figure in figures]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
