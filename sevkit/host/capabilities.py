"""From the facts of a host to what it can do: pure, and decided by the tables in ``rules``.

with open_host() as source:
    found = decide(probe_host(source))
found.sev_snp.state, found.sev_snp.reason, found.sev_snp.hint
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.abi.tcb import TcbVersion, parse_tcb
from sevkit.errors import FormatError, UsageError
from sevkit.host.asids import AsidBudget, count_asids
from sevkit.host.capability import Capabilities, Capability, State, Technology
from sevkit.host.conditions import Case
from sevkit.host.evidence import Evidence, weigh
from sevkit.host.reading import value_of
from sevkit.host.reasons import TEXTS
from sevkit.host.rules import RULES, Rule

if TYPE_CHECKING:
    from sevkit.host.facts import HostFacts

_STATUS: Final = "SNP_PLATFORM_STATUS"
_TCB_OFFSETS: Final = {"current": 0x10, "reported": 0x18}


def decide(facts: HostFacts, *, allow_sev_es_beside_snp: int = 0) -> Capabilities:
    """Return what a host with these facts can do.

    ``allow_sev_es_beside_snp`` gives so many ASIDs to SEV-ES where SEV-SNP is initialised by
    firmware that still takes SEV-ES guests, open to CVE-2025-48514; the others stay SEV-SNP's.
    Raises ``UsageError`` if it is negative.
    """
    if allow_sev_es_beside_snp < 0:
        raise UsageError("SEV-ES cannot be given fewer ASIDs than none")
    e = weigh(facts)
    host = _Host(e, count_asids(e), _tcb(e, "current"), allow_sev_es_beside_snp)
    sev, es = host.judge(Technology.SEV), host.judge(Technology.SEV_ES)
    beside = e.snp_initialised is True and es.state is State.USABLE
    snp = host.judge(Technology.SEV_SNP, given=es.guests if beside else 0)
    cpuid, firmware, asids = e.cpuid, e.firmware, host.asids
    return Capabilities(
        sev=sev,
        sev_es=es,
        sev_snp=snp,
        sev_asids=asids.of_sev(),
        sev_es_asids=asids.of_es(),
        sev_snp_asids=asids.of_snp(),
        encrypted_state=asids.of_both(),
        product=e.product,
        firmware_version=None if firmware is None else firmware.version,
        current_tcb=host.current_tcb,
        reported_tcb=_tcb(e, "reported"),
        snp_initialized=e.snp_initialised,
        c_bit=(cpuid.encryption.c_bit or None) if cpuid is not None else None,
        reduced_phys_bits=(cpuid.encryption.reduction or None) if cpuid is not None else None,
        simulated=facts.simulated,
    )


@final
@dataclass(frozen=True, slots=True)
class _Host:
    e: Evidence
    asids: AsidBudget
    current_tcb: TcbVersion | None
    allowed: int

    def judge(self, technology: Technology, given: int | None = None) -> Capability:
        """Return what the first rule that fits says of one technology."""
        allowed = self.allowed if given is None else given
        case = Case(self.e, technology, self.asids, self.current_tcb, allowed)
        rule = next(rule for rule in RULES[technology] if rule.when(case))
        text = TEXTS[rule.reason]
        return Capability(
            state=rule.state,
            reason=rule.reason,
            explanation=text.sentence.format_map(_words(case)),
            hint=text.hint,
            guests=_guests(case, rule),
        )


def _guests(case: Case, rule: Rule) -> int:
    """Return how many guests there can be; where one is usable, the counts are known."""
    if rule.state is not State.USABLE:
        return 0
    asids = case.asids
    if case.technology is Technology.SEV:
        return asids.sev or 0
    if case.technology is Technology.SEV_SNP:
        # Split by KVM, SEV-ES takes nothing of SEV-SNP's.
        return max(0, (asids.snp or 0) - (0 if asids.hidden else case.given_to_es))
    beside = case.e.snp_initialised is True
    return min(asids.es or 0, case.given_to_es) if beside else asids.es or 0


def _tcb(e: Evidence, which: str) -> TcbVersion | None:
    """Return a TCB version of the SNP platform; what the product does not allow is not one."""
    if e.snp is None or e.product is None:
        return None
    raw = {"current": e.snp.current_tcb, "reported": e.snp.reported_tcb}[which]
    try:
        return parse_tcb(e.product.line, raw, structure=_STATUS, offset=_TCB_OFFSETS[which])
    except FormatError:
        return None


def _words(case: Case) -> dict[str, str]:
    """Return what sentences may name."""
    e, firmware = case.e, case.e.firmware
    release = value_of(e.facts.release)
    tcb, vendor = case.current_tcb, e.facts.vendor or "somebody else"
    return {
        "tech": case.technology.spelling,
        "flag": case.technology.value.replace("-", "_"),
        "vendor": "".join(c if c.isprintable() else "?" for c in vendor)[:32],
        "product": _model(e),
        "release": "" if release is None else release.text[:64],
        "firmware": "" if firmware is None else str(firmware.version),
        "svn": "" if tcb is None else str(tcb.snp),
    }


def _model(e: Evidence) -> str:
    if e.product is not None:
        return e.product.value
    found = e.facts.signature
    if found is None:
        return "of a model that was not read"
    return f"family {found.family:#x} model {found.model:#x}"
