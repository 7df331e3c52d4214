"""What the SEV firmware says of itself, as values and as ``firmware.json``.

The status commands need /dev/sev, which is root's. So whoever has it may write the answers into a
file (schema ``sevkit.io/firmware/v1``) for those who have not: the facts, or that nobody answers
any more, which is a fact too. Sources: 55766 5.5, 56860 8.3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from sevkit.abi.platform_status import (
    PlatformState,
    PlatformStatus,
    SnpPlatformStatus,
    SnpStatusBits,
    SnpStatusFlags,
    StatusFlags,
)
from sevkit.abi.report import FirmwareVersion
from sevkit.documents import parse_json
from sevkit.errors import FormatError
from sevkit.host.reading import Cause, Known, Reading, Unreadable, convert

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sevkit.documents import Json

SCHEMA: Final = "sevkit.io/firmware/v1"
NAME: Final = "firmware.json"
LIMIT: Final = 16 << 10
#: How long a file is believed that nobody renewed: whoever kept it may be gone.
FRESH_SECONDS: Final = 900
_SILENT: Final = "silent"
_API: Final = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})")
_TCB: Final = re.compile(r"0x[0-9a-fA-F]{1,16}")
_STATES: Final = {state.name.lower(): state for state in PlatformState}


@final
@dataclass(frozen=True, slots=True)
class SnpFacts:
    """The SNP platform. TCB versions are raw: their bytes mean nothing without the product."""

    initialized: bool
    rmp_initialized: bool
    alias_check_complete: bool
    guest_count: int
    current_tcb: int
    reported_tcb: int
    vlek_loaded: bool
    ciphertext_hiding: bool


@final
@dataclass(frozen=True, slots=True)
class FirmwareFacts:
    """The firmware. ``guest_count`` is of SEV and SEV-ES guests.

    ``snp`` is None where SNP's status could not be asked, which is not "not initialised".
    """

    version: FirmwareVersion
    state: PlatformState
    es_configured: bool
    guest_count: int
    snp: SnpFacts | None


def firmware_facts(status: PlatformStatus, snp: SnpPlatformStatus | None) -> FirmwareFacts:
    """Return what the two status commands say together."""
    return FirmwareFacts(
        version=FirmwareVersion(status.api_major, status.api_minor, status.build),
        state=status.state,
        es_configured=bool(status.flags & StatusFlags.CONFIG_ES),
        guest_count=status.guest_count,
        snp=None
        if snp is None
        else SnpFacts(
            initialized=snp.state is PlatformState.INIT,
            rmp_initialized=bool(snp.bits & SnpStatusBits.RMP_INITIALIZED),
            alias_check_complete=bool(snp.bits & SnpStatusBits.ALIAS_CHECK_COMPLETE),
            guest_count=snp.guest_count,
            current_tcb=snp.current_tcb,
            reported_tcb=snp.reported_tcb,
            vlek_loaded=bool(snp.flags & SnpStatusFlags.VLEK_EN),
            ciphertext_hiding=bool(snp.flags & SnpStatusFlags.CIPHERTEXT_HIDING_EN),
        ),
    )


def firmware_document(facts: FirmwareFacts) -> dict[str, Any]:
    """Return the facts as ``parse_firmware`` reads them."""
    snp = facts.snp
    return {
        "schema": SCHEMA,
        "api": f"{facts.version.major}.{facts.version.minor}",
        "build": facts.version.build,
        "state": facts.state.name.lower(),
        "es_configured": facts.es_configured,
        "guest_count": facts.guest_count,
        "snp": None
        if snp is None
        else {
            "initialized": snp.initialized,
            "rmp_initialized": snp.rmp_initialized,
            "alias_check_complete": snp.alias_check_complete,
            "guest_count": snp.guest_count,
            "current_tcb": f"{snp.current_tcb:#018x}",
            "reported_tcb": f"{snp.reported_tcb:#018x}",
            "vlek_loaded": snp.vlek_loaded,
            "ciphertext_hiding": snp.ciphertext_hiding,
        },
    }


def silence_document() -> dict[str, Any]:
    """Return what ``read_firmware`` reads as a secure processor that no longer answers."""
    return {"schema": SCHEMA, "state": _SILENT}


def read_firmware(text: Reading[str]) -> Reading[FirmwareFacts]:
    """Return the facts in a ``firmware.json``, or that there are none, and why."""
    document = convert(text, _document)
    if isinstance(document, Known) and document.value.get("state") == _SILENT:
        return Unreadable(Cause.SILENT, f"{NAME}: the secure processor no longer answers")
    return convert(document, _facts)


def parse_firmware(text: str) -> FirmwareFacts:
    """Return the facts in a ``firmware.json``; keys that are not known are left out.

    Raises ``FormatError``: half an answer is none.
    """
    return _facts(_document(text))


def _document(text: str) -> Mapping[str, Json]:
    document = _object(parse_json(text.encode(), NAME, limit=LIMIT), "document")
    if document.get("schema") != SCHEMA:
        raise FormatError(NAME, f"schema is not {SCHEMA}")
    return document


def _facts(document: Mapping[str, Json]) -> FirmwareFacts:
    api = _API.fullmatch(_text(document, "api"))
    if api is None:
        raise FormatError(NAME, "api is not MAJOR.MINOR")
    state = _STATES.get(_text(document, "state"))
    if state is None:
        raise FormatError(NAME, f"state is not {', '.join(_STATES)}")
    snp = document.get("snp")
    return FirmwareFacts(
        version=FirmwareVersion(int(api[1]), int(api[2]), _count(document, "build")),
        state=state,
        es_configured=_flag(document, "es_configured"),
        guest_count=_count(document, "guest_count"),
        snp=None if snp is None else _parse_snp(_object(snp, "snp")),
    )


def _parse_snp(found: Mapping[str, Json]) -> SnpFacts:
    return SnpFacts(
        initialized=_flag(found, "initialized"),
        rmp_initialized=_flag(found, "rmp_initialized"),
        alias_check_complete=_flag(found, "alias_check_complete"),
        guest_count=_count(found, "guest_count"),
        current_tcb=_tcb(found, "current_tcb"),
        reported_tcb=_tcb(found, "reported_tcb"),
        vlek_loaded=_flag(found, "vlek_loaded"),
        ciphertext_hiding=_flag(found, "ciphertext_hiding"),
    )


def _object(value: Json, what: str) -> Mapping[str, Json]:
    if not isinstance(value, dict):
        raise FormatError(NAME, f"{what} is not an object")
    return value


def _text(found: Mapping[str, Json], key: str) -> str:
    value = found.get(key)
    if not isinstance(value, str):
        raise FormatError(NAME, f"{key} is not text")
    return value


def _flag(found: Mapping[str, Json], key: str) -> bool:
    value = found.get(key)
    if not isinstance(value, bool):
        raise FormatError(NAME, f"{key} is not true or false")
    return value


def _count(found: Mapping[str, Json], key: str) -> int:
    value = found.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 32:
        raise FormatError(NAME, f"{key} is not a count")
    return value


def _tcb(found: Mapping[str, Json], key: str) -> int:
    value = _text(found, key)
    if _TCB.fullmatch(value) is None:
        raise FormatError(NAME, f"{key} is not 64 bits in hex")
    return int(value, 16)
