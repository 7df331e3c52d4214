"""How many guests of each kind a host has room for, by the misc controller or by CPUID.

SEV has the ASIDs from a limit upward that the BIOS sets; SEV-ES and SEV-SNP share those below it,
unless ciphertext hiding sets the first ones of them aside for SEV-SNP. The misc controller's word
goes first: KVM told it. In KVM's eyes, a resource without a line has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.host.capability import Asids
from sevkit.host.reading import value_of

if TYPE_CHECKING:
    from sevkit.host.evidence import Evidence

#: ``kvm_amd.ciphertext_hiding_asids`` came with this kernel.
HIDING_SINCE: Final = (6, 18)


@final
@dataclass(frozen=True, slots=True)
class AsidBudget:
    """ASIDs of a host. ``hidden`` are those that only SEV-SNP may use; None is not known.

    ``cpuid_sev`` and ``cpuid_shared`` are CPUID's counts, whatever KVM made of them.
    """

    sev: int | None
    shared: int | None
    hidden: int | None
    cpuid_sev: int | None
    cpuid_shared: int | None
    sev_in_use: int | None
    shared_in_use: int | None
    snp_guests: int | None

    @property
    def snp(self) -> int | None:
        """ASIDs that SEV-SNP guests can have."""
        if self.hidden is None or self.shared is None:
            return None
        return min(self.hidden, self.shared) if self.hidden else self.shared

    @property
    def es(self) -> int | None:
        """ASIDs that SEV-ES guests can have, if nothing but their number mattered."""
        if self.hidden is None or self.shared is None:
            return None
        return max(0, self.shared - self.hidden)

    def of_sev(self) -> Asids:
        """Return SEV's."""
        return Asids(self.sev, self.sev_in_use)

    def of_both(self) -> Asids:
        """Return those of SEV-ES and SEV-SNP together."""
        return Asids(self.shared, self.shared_in_use)

    def of_es(self) -> Asids:
        """Return SEV-ES', of which the number in use needs the firmware's count of the others."""
        if self.shared_in_use is None or self.snp_guests is None:
            return Asids(self.es, None)
        return Asids(self.es, max(0, self.shared_in_use - self.snp_guests))

    def of_snp(self) -> Asids:
        """Return SEV-SNP's."""
        return Asids(self.snp, self.snp_guests)


def count_asids(evidence: Evidence) -> AsidBudget:
    """Return what there is and what is in use."""
    facts, cpuid = evidence.facts, evidence.cpuid
    capacity, current = value_of(facts.misc.capacity), value_of(facts.misc.current)
    encryption = None if cpuid is None else cpuid.encryption
    cpuid_sev = None if encryption is None else encryption.sev_asids
    cpuid_shared = None if encryption is None else encryption.encrypted_state_asids
    return AsidBudget(
        sev=cpuid_sev if capacity is None else capacity.sev,
        shared=cpuid_shared if capacity is None else capacity.encrypted_state,
        hidden=_hidden(evidence),
        cpuid_sev=cpuid_sev,
        cpuid_shared=cpuid_shared,
        sev_in_use=None if current is None else current.sev,
        shared_in_use=None if current is None else current.encrypted_state,
        snp_guests=_snp_guests(evidence),
    )


def _hidden(evidence: Evidence) -> int | None:
    """Return the ASIDs set aside: the parameter was rewritten to what came of it."""
    asked = value_of(evidence.facts.modules.ciphertext_hiding_asids)
    hiding = evidence.snp is not None and evidence.snp.ciphertext_hiding
    if asked is not None:
        # Hidden, and nobody says how many: the split is not known.
        return None if hiding and not asked else asked
    if hiding:
        return None
    names = value_of(evidence.facts.modules.names)
    cannot = bool(names) and "ciphertext_hiding_asids" not in (names or ())
    return 0 if cannot or evidence.before(HIDING_SINCE) or evidence.snp is not None else None


def _snp_guests(evidence: Evidence) -> int | None:
    if evidence.snp is not None:
        return evidence.snp.guest_count
    return 0 if evidence.snp_initialised is False else None
