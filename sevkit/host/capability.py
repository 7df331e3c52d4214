"""What a node can do: a state for each technology, why, and what to do about it.

``disabled`` and ``absent`` are only said on positive evidence, ``usable`` only if nothing speaks
against it and everything that must be known is; whatever is left is ``unknown``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from sevkit.abi.report import FirmwareVersion
    from sevkit.abi.tcb import TcbVersion
    from sevkit.host.product import HostProduct
    from sevkit.host.reasons import Reason


class Technology(StrEnum):
    """A kind of confidential guest, by the name that labels use."""

    SEV = "sev"
    SEV_ES = "sev-es"
    SEV_SNP = "sev-snp"

    @property
    def spelling(self) -> str:
        """AMD's spelling."""
        return self.upper()


class State(StrEnum):
    """What can be done with a technology.

    ``disabled``: the silicon has it, and something is off. ``unusable``: it is on, and cannot
    serve a guest. ``absent``: no such silicon, or not ours to use. ``unknown``: not found out.
    """

    USABLE = "usable"
    DISABLED = "disabled"
    UNUSABLE = "unusable"
    ABSENT = "absent"
    UNKNOWN = "unknown"

    @property
    def label(self) -> bool | None:
        """The value of the node's label; None leaves it as it was."""
        return None if self is State.UNKNOWN else self is State.USABLE


@final
@dataclass(frozen=True, slots=True)
class Capability:
    """One technology. ``reason`` is a stable code, ``explanation`` one sentence, ``hint`` the fix.

    ``guests`` is how many guests of it can run at once, 0 unless usable.
    """

    state: State
    reason: Reason
    explanation: str
    hint: str
    guests: int


@final
@dataclass(frozen=True, slots=True)
class Asids:
    """ASIDs of one kind: how many there are, and how many are in use; None is not known."""

    total: int | None
    in_use: int | None

    @property
    def free(self) -> int | None:
        """How many guests more there is room for."""
        if self.total is None or self.in_use is None:
            return None
        return max(0, self.total - self.in_use)


@final
@dataclass(frozen=True, slots=True)
class Capabilities:
    """A node's word about itself, a hint for scheduling; trust comes from attestation.

    ``encrypted_state`` are the ASIDs that SEV-ES and SEV-SNP share, unless ciphertext hiding
    splits them: ``sev_es`` and ``sev_snp`` of ``asids`` are what each can have. What was not read
    is None. ``snp_initialized`` is of the firmware.
    """

    sev: Capability
    sev_es: Capability
    sev_snp: Capability
    sev_asids: Asids
    sev_es_asids: Asids
    sev_snp_asids: Asids
    encrypted_state: Asids
    product: HostProduct | None
    firmware_version: FirmwareVersion | None
    current_tcb: TcbVersion | None
    reported_tcb: TcbVersion | None
    snp_initialized: bool | None
    c_bit: int | None
    reduced_phys_bits: int | None
    simulated: bool

    def of(self, technology: Technology) -> Capability:
        """Return the capability of one technology."""
        return {
            Technology.SEV: self.sev,
            Technology.SEV_ES: self.sev_es,
            Technology.SEV_SNP: self.sev_snp,
        }[technology]

    def asids_of(self, technology: Technology) -> Asids:
        """Return the ASIDs of one technology."""
        return {
            Technology.SEV: self.sev_asids,
            Technology.SEV_ES: self.sev_es_asids,
            Technology.SEV_SNP: self.sev_snp_asids,
        }[technology]
