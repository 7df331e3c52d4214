"""All digests of a request: every vCPU count, CPU and era asked for, sharing what they share."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, final

from sevkit.errors import UsageError
from sevkit.measure.launch_digest import (
    Base,
    check_vcpus,
    compute_sev_digest,
    compute_sev_es_base,
    compute_snp_base,
)
from sevkit.measure.reference import Reference, ReferenceSet
from sevkit.measure.terms import Era, Mode, Vmm
from sevkit.measure.vcpu import Registers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sevkit.measure.kernel_hashes import KernelHashes

#: The label of the one CPU where the CPU is not part of the digest.
ANY_CPU: Final = "any CPU"


@final
@dataclass(frozen=True, slots=True)
class Cpu:
    """A CPU to measure for: what to call it, and its CPUID signature (32 bits)."""

    label: str
    signature: int


@final
@dataclass(frozen=True, slots=True)
class Request:
    """What to measure. For SEV, vCPUs, CPUs, eras and features are not looked at.

    ``first`` to ``last`` is the range of vCPU counts; ``eras`` is for SEV-ES; ``sev_features`` is
    the VMSA's SEV_FEATURES (64 bits); ``firmware_hash`` is for SNP, 48 bytes.
    """

    mode: Mode
    firmware: bytes
    first: int = 1
    last: int = 1
    cpus: tuple[Cpu, ...] = ()
    eras: tuple[Era, ...] = (Era.INIT, Era.INIT2)
    sev_features: int = 0
    vmm: Vmm = Vmm.QEMU
    hashes: KernelHashes | None = None
    firmware_hash: bytes | None = None


def compute_references(request: Request) -> ReferenceSet:
    """Return one reference for each era, CPU and vCPU count, in that order.

    Raises ``FormatError`` for the firmware, ``UsageError`` for a request that names nothing.
    """
    shared = _shared_parameters(request)
    covers = request.hashes is not None
    if request.mode is Mode.SEV:
        digest = compute_sev_digest(request.firmware, request.hashes)
        return ReferenceSet((Reference(digest, Mode.SEV, "any vCPUs", covers, shared),))
    found: list[Reference] = []
    for era, cpu, digests in compute_digests(request):
        found.extend(_rows(request, shared, era, cpu, enumerate(digests, request.first)))
    return ReferenceSet(tuple(found))


def compute_digests(request: Request) -> Iterator[tuple[Era, Cpu, tuple[bytes, ...]]]:
    """Yield for each era and CPU of a SEV-ES or SNP request the digests of its vCPU counts.

    What comes before the vCPUs is computed once, and CPUs with one signature share their digests.
    Raises as ``compute_references``.
    """
    if request.mode is Mode.SEV:
        raise UsageError("a SEV digest covers no vCPUs")
    check_vcpus(request.first)
    check_vcpus(request.last)
    if request.first > request.last or not request.cpus or not request.eras:
        raise UsageError("a digest needs a number of vCPUs, a CPU and a register era")
    base = _base(request)
    known: dict[tuple[Era, int], tuple[bytes, ...]] = {}
    for era in request.eras if request.mode is Mode.SEV_ES else (Era.INIT2,):
        for cpu in request.cpus:
            digests = known.get((era, cpu.signature))
            if digests is None:
                registers = Registers(cpu.signature, request.sev_features, request.vmm, era)
                digests = tuple(islice(base.digests(registers), request.first - 1, request.last))
                known[era, cpu.signature] = digests
            yield era, cpu, digests


def _base(request: Request) -> Base:
    if request.mode is Mode.SEV_ES:
        return compute_sev_es_base(request.firmware, request.hashes)
    return compute_snp_base(
        request.firmware, request.hashes, vmm=request.vmm, firmware_hash=request.firmware_hash
    )


def _rows(
    request: Request,
    shared: dict[str, str | int],
    era: Era,
    cpu: Cpu,
    digests: Iterator[tuple[int, bytes]],
) -> Iterator[Reference]:
    covers = request.hashes is not None
    of_era: dict[str, str | int] = {"era": era.value} if request.mode is Mode.SEV_ES else {}
    tail = "".join(f", {value}" for value in (cpu.label, *of_era.values()))
    parameters = shared | of_era | {"cpu": cpu.label}
    if cpu.label != ANY_CPU:
        parameters["vcpu_signature"] = f"{cpu.signature:#x}"
    for count, digest in digests:
        label = f"{count} vCPU{'s' if count > 1 else ''}{tail}"
        yield Reference(digest, request.mode, label, covers, {"vcpus": count} | parameters)


def _shared_parameters(request: Request) -> dict[str, str | int]:
    found: dict[str, str | int] = {}
    if request.mode is not Mode.SEV:
        found |= {"guest_features": f"{request.sev_features:#x}", "vmm": request.vmm.value}
    if request.firmware_hash is None:
        found["firmware_sha256"] = hashlib.sha256(request.firmware).hexdigest()
    else:
        found["firmware_hash"] = request.firmware_hash.hex()
    if request.hashes is not None:
        found |= {
            "kernel_sha256": request.hashes.kernel.hex(),
            "initrd_sha256": request.hashes.initrd.hex(),
            "cmdline_sha256": request.hashes.cmdline.hex(),
        }
    return found
