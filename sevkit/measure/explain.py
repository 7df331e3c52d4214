"""Which parameters would produce a digest: a search through everything that plausibly differs.

Theory of operation. A digest that is not the expected one nearly always differs in something small:
the CPU's stepping, one vCPU, a feature bit that a kernel update turned on, a line feed in the
command line. The space is a product of such variants. Its costly axes (firmware file, boot
variant, hypervisor) are outside, so that each ``Base`` is computed once; inside, features and CPUs
each cost one or two pages, and 512 vCPU counts a hash of 112 bytes each. Likely values come first
on each axis. The first hit ends the search: digests do not collide, so whatever else would give
the same digest differs only in what the digest does not cover.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.abi.vmsa import SevFeatures
from sevkit.errors import FormatError
from sevkit.measure.launch_digest import (
    Base,
    compute_firmware_hash,
    compute_sev_digest,
    compute_sev_es_base,
    compute_snp_base,
)
from sevkit.measure.terms import MAX_VCPUS, Era, Mode, Vmm
from sevkit.measure.vcpu import (
    CHIP_SIGNATURES,
    CPU_MODELS,
    Registers,
    measures_cpu,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sevkit.measure.kernel_hashes import KernelHashes

#: Bits that KVM has set, or can be told to set, beside SNPActive.
_OPTIONAL: Final = (
    SevFeatures.DEBUG_SWAP,
    SevFeatures.SECURE_TSC,
    SevFeatures.BTB_ISOLATION,
    SevFeatures.VMSA_REG_PROT,
    SevFeatures.SMT_PROTECTION,
)


def _subsets() -> tuple[int, ...]:
    found = [0]
    for bit in _OPTIONAL:
        found += [value | int(bit) for value in found]
    return tuple(sorted(found, key=lambda value: (value.bit_count(), value)))


#: SEV_FEATURES to try. SEV-ES has none, but for DebugSwap on Linux 6.6 to 6.8.
SNP_FEATURES: Final = tuple(value | SevFeatures.SNP_ACTIVE.value for value in _subsets())
SEV_ES_FEATURES: Final = (0, SevFeatures.DEBUG_SWAP.value)

#: Every CPUID signature known, the CPU models' first.
KNOWN_SIGNATURES: Final = tuple(dict.fromkeys((*CPU_MODELS.values(), *CHIP_SIGNATURES)))


@final
@dataclass(frozen=True, slots=True)
class Firmware:
    """A candidate firmware image, and what to call it."""

    label: str
    data: bytes


@final
@dataclass(frozen=True, slots=True)
class Boot:
    """A candidate for what is measured of kernel, initrd and command line; None for nothing."""

    label: str
    hashes: KernelHashes | None


#: A boot of which nothing is measured, which is how KubeVirt boots.
NO_KERNEL_HASHES: Final = Boot("no kernel hashes", None)


@final
@dataclass(frozen=True, slots=True)
class Space:
    """Everything that is tried, one tuple for each axis; vCPU counts run ``first`` to ``last``."""

    mode: Mode
    firmwares: tuple[Firmware, ...]
    boots: tuple[Boot, ...] = (NO_KERNEL_HASHES,)
    vmms: tuple[Vmm, ...] = (Vmm.QEMU,)
    eras: tuple[Era, ...] = (Era.INIT2,)
    features: tuple[int, ...] = SNP_FEATURES
    signatures: tuple[int, ...] = KNOWN_SIGNATURES
    first: int = 1
    last: int = MAX_VCPUS


@final
@dataclass(frozen=True, slots=True)
class Match:
    """Parameters that produce the digest; ``registers`` and ``vcpus`` are None for plain SEV."""

    firmware: str
    boot: str
    registers: Registers | None
    vcpus: int | None


@final
@dataclass(frozen=True, slots=True)
class Explanation:
    """The outcome of a search: ``tried`` digests, and what could not be tried and why."""

    match: Match | None
    tried: int
    skipped: tuple[str, ...]


@final
class _Search:
    """One search's counters."""

    def __init__(self, space: Space, digest: bytes, progress: Callable[[int], None] | None) -> None:
        self._space = space
        self._digest = digest
        self._progress = progress
        self._hashes: dict[str, bytes] = {}
        self.tried = 0
        self.skipped: dict[str, None] = {}

    def run(self) -> Match | None:
        for firmware in self._space.firmwares:
            for boot in self._space.boots:
                try:
                    found = self._try(firmware, boot)
                except FormatError as error:
                    self.skipped[f"{firmware.label}, {boot.label}: {error.message}"] = None
                    continue
                if found is not None:
                    return found
        return None

    def _try(self, firmware: Firmware, boot: Boot) -> Match | None:
        if self._space.mode is Mode.SEV:
            same = compute_sev_digest(firmware.data, boot.hashes) == self._digest
            self._count(1)
            return Match(firmware.label, boot.label, None, None) if same else None
        for vmm in self._space.vmms:
            base = self._base(firmware, boot, vmm)
            for registers in self._registers(vmm):
                vcpus = self._vcpus(base, registers, firmware)
                if vcpus is not None:
                    return Match(firmware.label, boot.label, registers, vcpus)
        return None

    def _base(self, firmware: Firmware, boot: Boot, vmm: Vmm) -> Base:
        if self._space.mode is Mode.SEV_ES:
            return compute_sev_es_base(firmware.data, boot.hashes)
        if firmware.label not in self._hashes:
            self._hashes[firmware.label] = compute_firmware_hash(firmware.data)
        return compute_snp_base(
            firmware.data, boot.hashes, vmm=vmm, firmware_hash=self._hashes[firmware.label]
        )

    def _registers(self, vmm: Vmm) -> Iterator[Registers]:
        signatures = self._space.signatures if measures_cpu(vmm) else (0,)
        for features in self._space.features:
            for era in self._space.eras:
                for signature in signatures:
                    yield Registers(signature, features, vmm, era)

    def _vcpus(self, base: Base, registers: Registers, firmware: Firmware) -> int | None:
        wanted, first, last = self._digest, self._space.first, self._space.last
        count = 0
        try:
            for count, digest in enumerate(base.digests(registers), 1):
                if digest == wanted and count >= first:
                    return count
                if count == last:
                    break
        except FormatError as error:
            self.skipped[f"{firmware.label}, more than {count} vCPU: {error.message}"] = None
        finally:
            self._count(max(count - first + 1, 0))
        return None

    def _count(self, more: int) -> None:
        self.tried += more
        if self._progress is not None:
            self._progress(self.tried)


def explain(
    space: Space, digest: bytes, progress: Callable[[int], None] | None = None
) -> Explanation:
    """Search ``space`` for ``digest`` (32 bytes for SEV and SEV-ES, 48 for SNP).

    ``progress`` is called now and then with the number of digests tried. A candidate that cannot
    be measured at all (no SEV metadata, no place for kernel hashes) is skipped and named.
    """
    search = _Search(space, digest, progress)
    match = search.run()
    return Explanation(match, search.tried, tuple(search.skipped))


def size_of(space: Space) -> int:
    """Return how many digests the whole space has, with those that will turn out impossible."""
    outer = len(space.firmwares) * len(space.boots)
    if space.mode is Mode.SEV:
        return outer
    cpus = sum(len(space.signatures) if measures_cpu(vmm) else 1 for vmm in space.vmms)
    counts = space.last - space.first + 1
    return outer * cpus * len(space.features) * len(space.eras) * counts
