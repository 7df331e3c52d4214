"""Why a launch measurement does not fit: other parameters tried through the owner's own HMAC.

The launch digest of SEV and SEV-ES is not in the clear, so a candidate can be tested only with the
TIK. Searched are the things that go wrong in the field: vCPU count (KubeVirt's hot-pluggable vCPUs
are not measured), CPU signature, register era, DebugSwap in the features, kernel hashes, and
plain SEV against SEV-ES. Bounded: at most some 70,000 digests, about a second.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from sevkit.errors import FormatError
from sevkit.measure.explain import KNOWN_SIGNATURES, SEV_ES_FEATURES
from sevkit.measure.launch_digest import compute_sev_digest, compute_sev_es_base
from sevkit.measure.reference_parameters import kernel_hashes_of
from sevkit.measure.terms import Era, Vmm
from sevkit.measure.vcpu import Registers, names_of_signature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sevkit.measure.kernel_hashes import KernelHashes
    from sevkit.measure.reference import Reference

_HOT_PLUG: Final = (
    "; the rest were plugged in after the measurement, as KubeVirt does with the vCPUs of further "
    "sockets while maxSockets is set"
)


def explain_launch(
    firmware: bytes, hashes: KernelHashes | None, *, vcpus: int | None = None
) -> Callable[[Callable[[bytes], bool]], str]:
    """Return a search over a firmware's digests: it takes a test, and says what passes it.

    ``vcpus`` is how many the owner expected, if he did: fewer are told apart, because KubeVirt
    makes them so. The search returns one sentence, also where nothing fits. It never raises.
    """

    def search(confirms: Callable[[bytes], bool]) -> str:
        tried = 0
        for kernel in (hashes, None) if hashes is not None else (None,):
            suffix = " without kernel hashes" if kernel is None and hashes is not None else ""
            try:
                for digest, words, count in _candidates(firmware, kernel):
                    tried += 1
                    if confirms(digest):
                        fewer = _HOT_PLUG if vcpus is not None and 0 < count < vcpus else ""
                        return f"it fits {words}{suffix}{fewer}"
            except FormatError:
                continue  # this firmware takes no kernel hashes, or its tables are malformed
        return f"none of {tried} other combinations of vCPU count, CPU and era fits this firmware"

    return search


def explain_references(
    firmware: bytes, references: tuple[Reference, ...]
) -> Callable[[Callable[[bytes], bool]], str]:
    """Return ``explain_launch`` for what the entries of a reference set expect.

    The search has one measured boot: the first that an entry names.
    """
    counts = [entry.parameters.get("vcpus") for entry in references]
    most = max((count for count in counts if isinstance(count, int)), default=None)
    boots = (kernel_hashes_of(entry.parameters) for entry in references)
    return explain_launch(firmware, next(filter(None, boots), None), vcpus=most)


def _candidates(firmware: bytes, hashes: KernelHashes | None) -> Iterator[tuple[bytes, str, int]]:
    yield compute_sev_digest(firmware, hashes), "plain SEV", 0
    base = compute_sev_es_base(firmware, hashes)
    for features in SEV_ES_FEATURES:
        for era in Era:
            for signature in KNOWN_SIGNATURES:
                registers = Registers(signature, features, Vmm.QEMU, era)
                name = (names_of_signature(signature) or ("unnamed",))[0]
                tail = f"CPU {signature:#x} ({name}), era {era.value}, features {features:#x}"
                with contextlib.suppress(FormatError):  # no reset block: only the first vCPU
                    for count, digest in enumerate(base.digests(registers), 1):
                        noun = "vCPU" if count == 1 else "vCPUs"
                        yield digest, f"SEV-ES with {count} {noun}, {tail}", count
