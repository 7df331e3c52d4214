"""A simulated node of the cluster: its secure processor, its KVM, and its name.

``SimulatedHost`` is what virt-handler runs on. A guest goes to the host that has most free ASIDs of
its kind, less those that guests on their way there will take. KubeVirt itself does not count ASIDs,
so a guest is also sent where none is free, and is refused there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from sevkit.measure.terms import Mode
from sevkit.testing.kvm_asids import GuestKind
from sevkit.testing.virtual_machine import SimulatedKvm

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sevkit.abi.product import Product
    from sevkit.testing.secure_processor.processor import SecureProcessor

_KINDS: Final[Mapping[Mode, GuestKind]] = {
    Mode.SEV: GuestKind.SEV,
    Mode.SEV_ES: GuestKind.SEV_ES,
    Mode.SNP: GuestKind.SNP,
}


@final
class SimulatedHost:
    """One node. ``snp`` says whether its kernel initialises SNP, where the chip has it."""

    def __init__(
        self, name: str, processor: SecureProcessor, *, snp: bool = True, ciphertext_hiding: int = 0
    ) -> None:
        self.name: Final = name
        self.processor: Final = processor
        self.kvm: Final = SimulatedKvm(processor, snp=snp, ciphertext_hiding=ciphertext_hiding)

    @property
    def product(self) -> Product:
        """Which EPYC it has."""
        return self.processor.identity.product

    def takes(self, mode: Mode | None) -> bool:
        """Whether KubeVirt's node labels send guests of this mode here."""
        if mode is None:
            return True
        if mode is Mode.SNP and not self.processor.core.snp_initialized:
            return False
        return bool(self.kvm.asids.ranges[_KINDS[mode]])

    def free(self, mode: Mode | None) -> int:
        """Return how many more guests of this mode have an ASID here."""
        if mode is None:
            return 0
        kind = _KINDS[mode]
        asids = self.kvm.asids
        used = asids.current.get(kind.resource, 0)
        return len(asids.ranges[kind]) - used


def choose_host(
    hosts: Iterable[SimulatedHost], mode: Mode | None, waiting: Mapping[str, int]
) -> SimulatedHost | None:
    """Return the host for a guest of ``mode``, or None if no node has what it needs.

    ``waiting`` counts by host name the guests that are on their way.
    """
    fitting = [host for host in hosts if host.takes(mode)]
    return max(fitting, key=lambda host: host.free(mode) - waiting.get(host.name, 0), default=None)
