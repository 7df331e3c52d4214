"""What the rules ask that takes more than one witness: failed firmware, SNP's needs, the IOMMU.

Each condition is built on positive evidence, as the rules are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.abi.sev_es_block import SEV_ES_BLOCKED_FROM
from sevkit.host.evidence import PARAMETERS_CHECKED_SINCE, Evidence, Witnesses
from sevkit.host.kernel_log import LogLine
from sevkit.host.reading import value_of
from sevkit.host.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.abi.tcb import TcbVersion
    from sevkit.host.asids import AsidBudget
    from sevkit.host.capability import Technology

#: SNP_INIT needs firmware of this API version (Linux, drivers/crypto/ccp/sev-dev.c).
SNP_MIN_API: Final = (1, 51)


@final
@dataclass(frozen=True, slots=True)
class Case:
    """What one rule judges: the evidence, about one technology.

    ``given_to_es`` is how many ASIDs the operator gives SEV-ES beside SEV-SNP.
    """

    e: Evidence
    technology: Technology
    asids: AsidBudget
    current_tcb: TcbVersion | None
    given_to_es: int

    @property
    def own(self) -> Witnesses:
        """The witnesses of the technology in question."""
        return self.e.witnesses[self.technology]

    @property
    def es_refused(self) -> bool | None:
        """Whether this firmware refuses SEV-ES guests once SNP is initialised (AMD-SB-3023)."""
        product = self.e.product
        if self.current_tcb is None or product is None:
            return None
        return self.current_tcb.snp >= SEV_ES_BLOCKED_FROM[product.line]


_FAILED, _SNP_FAILED = LogLine.INIT_FAILED, LogLine.SNP_INIT_FAILED
_TOO_OLD: Final = LogLine.FIRMWARE_TOO_OLD


def init_failed(e: Evidence) -> bool:
    """Whether the firmware was to be initialised and is not.

    New kernels' parameters say so, and the misc controller keeps the ASIDs of before; old kernels'
    do not, and only the firmware's own state does.
    """
    capacity = value_of(e.facts.misc.capacity)
    left = capacity is not None and (capacity.sev > 0 or capacity.encrypted_state > 0)
    said = e.said(_FAILED, _SNP_FAILED, _TOO_OLD)
    off_for_it = e.sev.parameter is False and (left or said)
    old = e.before(PARAMETERS_CHECKED_SINCE)
    return off_for_it or (old and e.initialised is False and e.waits is False)


def init_unread(e: Evidence) -> bool:
    """Whether the parameters may hide that the firmware is not initialised."""
    if e.since(PARAMETERS_CHECKED_SINCE):
        return False
    if e.initialised is False:
        return e.waits is None or (e.version is None and not e.waits)
    return e.initialised is None and e.said(_FAILED, _SNP_FAILED, _TOO_OLD)


def snp_trouble(e: Evidence) -> bool:
    """Whether SNP is on in the CPU and its initialisation is what failed."""
    if e.said(_SNP_FAILED, _TOO_OLD):
        return True
    if e.sev_snp.flag is not True or iommu_unfit(e):
        return False
    return too_old_for_snp(e) or (e.snp is not None and not e.snp.initialized)


def too_old_for_snp(e: Evidence) -> bool:
    """Whether this firmware is one on which Linux does not initialise SNP."""
    return e.firmware is not None and e.firmware.version[:2] < SNP_MIN_API


def iommu_unfit(e: Evidence) -> bool:
    """Whether the IOMMU stands in the way of SNP."""
    return iommu_fault(e) is not None


def iommu_fault(e: Evidence) -> Reason | None:
    """Return what the IOMMU lacks, if it is known to lack anything."""
    return next((reason for reason, fault in IOMMU_FAULTS if fault(e)), None)


def snp_off(e: Evidence) -> bool:
    """Whether SEV-SNP does not run, by KVM's word or by the firmware's."""
    return e.sev_snp.parameter is False or (e.snp is not None and not e.snp.initialized)


def _passthrough(e: Evidence) -> bool:
    asked = e.asked("iommu") == "pt" or e.asked("iommu.passthrough") in {"1", "y", "Y"}
    return asked or (e.iommu is not None and e.iommu.passthrough is True)


def _iommu_is_off(e: Evidence) -> bool:
    asked = "off" in {e.asked("iommu"), e.asked("amd_iommu")}
    return (asked and snp_off(e)) or (e.iommu is not None and e.iommu.units == 0)


#: What the IOMMU can lack; how it runs only matters where SNP does not.
IOMMU_FAULTS: Final[tuple[tuple[Reason, Callable[[Evidence], bool]], ...]] = (
    (Reason.IOMMU_OFF, _iommu_is_off),
    (Reason.IOMMU_PASSTHROUGH, lambda e: snp_off(e) and _passthrough(e)),
    (
        Reason.IOMMU_V2_PAGE_TABLES,
        lambda e: snp_off(e) and e.asked("amd_iommu") == "pgtbl_v2",
    ),
    (Reason.IOMMU_SNP_OFF, lambda e: e.iommu is not None and e.iommu.snp is False),
)
