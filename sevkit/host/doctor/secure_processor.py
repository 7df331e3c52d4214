"""The secure processor and its firmware: versions, states, TCB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sevkit.host.conditions import SNP_MIN_API
from sevkit.host.doctor.check import (
    ALL,
    ES,
    NONE,
    ONLY_SNP,
    Check,
    Found,
    Verdict,
    from_flag,
    hint_of,
    why_not,
)
from sevkit.host.evidence import PARAMETERS_CHECKED_SINCE
from sevkit.host.reading import value_of
from sevkit.host.reasons import TEXTS, Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.host.doctor.check import Patient
    from sevkit.host.firmware import FirmwareFacts, SnpFacts
    from sevkit.host.source import Rights


def _sev_device(p: Patient) -> Found:
    return from_flag(value_of(p.facts.sev_device), why_not(p.facts.sev_device))


def _secure_processor(p: Patient) -> Found:
    found = value_of(p.facts.secure_processors)
    if found is None:
        return Found(Verdict.SKIP, detail=why_not(p.facts.secure_processors))
    names = ", ".join(one.address for one in found)
    return Found(Verdict.PASS, names) if found else Found(Verdict.FAIL, "none")


def _rights(pick: Callable[[Rights], bool]) -> Callable[[Patient], Found]:
    def look(p: Patient) -> Found:
        rights = value_of(p.facts.sev_rights)
        if rights is None:
            return Found(Verdict.SKIP, detail=why_not(p.facts.sev_rights))
        # Whoever runs guests needs it; that this process has it says little.
        return (
            Found(Verdict.PASS, "yes")
            if pick(rights)
            else Found(Verdict.WARN, "no", "this process may not; QEMU's may")
        )

    return look


def _answers(p: Patient) -> Found:
    if p.e.silent:
        return Found(Verdict.FAIL, "no", TEXTS[Reason.FIRMWARE_SILENT].sentence)
    known = None if p.e.firmware is None else True
    return from_flag(known, why_not(p.facts.firmware))


def _firmware(judge: Callable[[FirmwareFacts], Found]) -> Callable[[Patient], Found]:
    def look(p: Patient) -> Found:
        if p.e.firmware is None:
            return Found(Verdict.SKIP, detail=why_not(p.facts.firmware))
        return judge(p.e.firmware)

    return look


def _snp(judge: Callable[[SnpFacts], Found]) -> Callable[[Patient], Found]:
    def look(p: Patient) -> Found:
        if p.e.firmware is None:
            return Found(Verdict.SKIP, detail=why_not(p.facts.firmware))
        if p.e.snp is None:
            return Found(Verdict.SKIP, detail="SNP_PLATFORM_STATUS could not be asked")
        return judge(p.e.snp)

    return look


def _initialised(p: Patient) -> Found:
    known = p.e.initialised
    if known is False and p.e.waits:
        return Found(Verdict.PASS, "uninit", "waits for the first guest (psp_init_on_probe=N)")
    if known is False and p.e.sev.parameter and p.e.since(PARAMETERS_CHECKED_SINCE):
        # Had it failed, KVM would say N; somebody has reset it since.
        return Found(Verdict.WARN, "uninit", "the next guest's launch initialises it")
    state = "" if p.e.firmware is None else p.e.firmware.state.name.lower()
    return from_flag(known, why_not(p.facts.firmware), yes=state, no=state)


def _es_initialised(p: Patient) -> Found:
    firmware = p.e.firmware
    if p.e.initialised is False:
        return Found(Verdict.SKIP, detail="SEV is not initialised")
    known = None if firmware is None else firmware.es_configured
    return from_flag(known, why_not(p.facts.firmware))


def _old_enough(found: FirmwareFacts) -> Found:
    if found.version[:2] >= SNP_MIN_API:
        return Found(Verdict.PASS, str(found.version))
    return Found(Verdict.FAIL, str(found.version), "SEV-SNP needs 1.51")


def _alias_check(p: Patient) -> Found:
    if p.e.snp is None:
        return _snp(lambda _: Found(Verdict.SKIP))(p)
    if p.e.snp.alias_check_complete:
        return Found(Verdict.PASS, "complete")
    return Found(Verdict.WARN, "not done", "memory modules may lie about their size (AMD-SB-3015)")


def _tcb(p: Patient) -> Found:
    current, reported = p.found.current_tcb, p.found.reported_tcb
    if current is None or reported is None:
        return Found(Verdict.SKIP, detail=why_not(p.facts.firmware))
    if current == reported:
        return Found(Verdict.PASS, str(current))
    return Found(Verdict.WARN, str(current), f"reported: {reported}")


def _vlek(found: SnpFacts) -> Found:
    return Found(Verdict.PASS, "loaded" if found.vlek_loaded else "not loaded")


SECURE_PROCESSOR: Final[tuple[Check, ...]] = (
    Check(
        "firmware.device",
        "Linux drives a secure processor",
        ALL,
        _secure_processor,
        hint_of(Reason.NO_SECURE_PROCESSOR),
        "cpu.sev",
        source="/sys/bus/pci/drivers/ccp",
    ),
    Check(
        "firmware.node",
        "there is a /dev/sev",
        ALL,
        _sev_device,
        hint_of(Reason.NO_SEV_DEVICE),
        "cpu.sev",
        source="/sys/class/misc; /dev/sev",
    ),
    Check(
        "firmware.readable",
        "/dev/sev can be read",
        NONE,
        _rights(lambda r: r.readable),
        "run as root, or leave it",
        "firmware.node",
        snphost="/dev/sev readable",
        sevctl="Reading /dev/sev",
        source="access(2) of /dev/sev",
    ),
    Check(
        "firmware.writable",
        "/dev/sev can be written",
        NONE,
        _rights(lambda r: r.writable),
        "run as root, or leave it",
        "firmware.node",
        snphost="/dev/sev writable",
        sevctl="Writing /dev/sev",
        source="access(2) of /dev/sev",
    ),
    Check(
        "firmware.answers",
        "the secure processor answers",
        ALL,
        _answers,
        hint_of(Reason.FIRMWARE_SILENT),
        "cpu.sev",
        source="PLATFORM_STATUS (55766 5.5); the kernel log",
    ),
    Check(
        "firmware.version",
        "new enough for SEV-SNP",
        ONLY_SNP,
        _firmware(_old_enough),
        hint_of(Reason.FIRMWARE_TOO_OLD),
        "cpu.sev-snp",
        snphost="SEV firmware version",
        source="PLATFORM_STATUS API and build",
    ),
    Check(
        "firmware.sev",
        "SEV is initialised",
        ALL,
        _initialised,
        hint_of(Reason.FIRMWARE_INIT_FAILED),
        "cpu.sev",
        snphost="SEV initialized",
        source="PLATFORM_STATUS STATE",
    ),
    Check(
        "firmware.sev-es",
        "SEV-ES is initialised",
        frozenset({ES}),
        _es_initialised,
        hint_of(Reason.ES_NOT_CONFIGURED),
        "cpu.sev-es",
        snphost="SEV-ES initialized",
        source="PLATFORM_STATUS CONFIG.ES",
    ),
    Check(
        "firmware.sev-snp",
        "SEV-SNP is initialised",
        ONLY_SNP,
        _snp(lambda s: from_flag(s.initialized, "")),
        hint_of(Reason.SNP_NOT_INITIALISED),
        "cpu.sev-snp",
        snphost="SNP initialized",
        source="SNP_PLATFORM_STATUS STATE (56860 8.3)",
    ),
    Check(
        "firmware.rmp",
        "the RMP table is initialised",
        ONLY_SNP,
        _snp(lambda s: from_flag(s.rmp_initialized, "")),
        hint_of(Reason.RMP_NOT_INITIALISED),
        "firmware.sev-snp",
        snphost="RMP table initialized",
        source="SNP_PLATFORM_STATUS IS_RMP_INIT",
    ),
    Check(
        "firmware.alias-check",
        "memory was checked for aliases",
        NONE,
        _alias_check,
        "update the BIOS: Milan 1.55.22, Genoa 1.55.38 or newer firmware checks",
        "firmware.sev-snp",
        snphost="Alias check",
        source="SNP_PLATFORM_STATUS ALIAS_CHECK_COMPLETE",
    ),
    Check(
        "firmware.tcb",
        "the reported TCB version is the current one",
        NONE,
        _tcb,
        "once the update has proved good: snphost commit, then snphost config reset",
        "firmware.sev-snp",
        snphost="Comparing TCB values",
        source="SNP_PLATFORM_STATUS CURRENT_TCB and REPORTED_TCB",
    ),
    Check(
        "firmware.vlek",
        "whether a VLEK is loaded",
        NONE,
        _snp(_vlek),
        "",
        "firmware.sev-snp",
        source="SNP_PLATFORM_STATUS VLEK_EN",
    ),
)
