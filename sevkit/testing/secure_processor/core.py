"""What the SEV and the SNP firmware of one chip share: its versions, its ASIDs, and the gate.

Every command passes the gate first: it is written to the log, and faults that were injected are
met. The states that the specification demands are tables beside the commands.

ASIDs are one space for both firmwares (55766 chapter 3.3, 56860 chapter 4.4): a plain SEV guest
takes one from ``min_sev_asid`` up, SEV-ES and SNP guests take those below. An ASID that a guest
ran with is dirty when it is given up: it can be used again only after WBINVD on all cores and
DF_FLUSH.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, final

from sevkit.abi.firmware_status import CommandError, FirmwareStatus
from sevkit.abi.product import ProductLine
from sevkit.abi.report import FirmwareVersion
from sevkit.abi.sev_es_block import SEV_ES_BLOCKED_FROM
from sevkit.abi.tcb import TcbVersion, encode_tcb
from sevkit.errors import UsageError
from sevkit.testing.secure_processor.faults import Faults

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sevkit.testing.secure_processor.identity import ChipIdentity

#: A plausible TCB version of each line, with a microcode level that DER writes with two bytes.
DEFAULT_TCBS: Final[Mapping[ProductLine, TcbVersion]] = {
    ProductLine.MILAN: TcbVersion(bootloader=4, tee=0, snp=24, microcode=219),
    ProductLine.GENOA: TcbVersion(bootloader=9, tee=0, snp=23, microcode=72),
    ProductLine.TURIN: TcbVersion(bootloader=1, tee=1, snp=3, microcode=80, fmc=1),
}
#: Versions of attestation reports, each with the first firmware that made it. Version 4 was made by
#: a few builds between: it is had only by asking for it.
REPORT_VERSIONS: Final[Mapping[int, tuple[int, int, int]]] = {
    5: (1, 58, 0),
    4: (1, 55, 31),
    3: (1, 55, 31),
    2: (0, 0, 0),
}
DEFAULT_VERSION: Final = FirmwareVersion(1, 55, 40)
_ONLY_ASKED_FOR: Final = 4
_LOG_SIZE: Final = 4096


@final
@dataclass(frozen=True, slots=True)
class Firmware:
    """One version of the firmware: API level and build, TCB version, and what it can do.

    ``tcb`` is None where the product has no SNP. ``report_version`` is that of the attestation
    reports it makes, 2 to 5; None is what firmware of this version makes. ``ciphertext_hiding`` and
    ``aes_256_xts`` say whether the host turned them on.
    """

    version: FirmwareVersion = DEFAULT_VERSION
    tcb: TcbVersion | None = None
    report_version: int | None = None
    ciphertext_hiding_capable: bool = False
    ciphertext_hiding: bool = False
    aes_256_xts: bool = False
    alias_check: bool = True
    mit_vector: int = 3

    @property
    def reports(self) -> int:
        """Version of the attestation reports that it makes."""
        if self.report_version is not None:
            return self.report_version
        return next(
            number
            for number, since in REPORT_VERSIONS.items()
            if number != _ONLY_ASKED_FOR and self.version >= since
        )

    def for_line(self, line: ProductLine) -> Firmware:
        """Return this firmware with the line's TCB version where none was given.

        Raises ``UsageError`` for a firmware that cannot exist on the line.
        """
        if self.reports not in REPORT_VERSIONS:
            raise UsageError(f"impossible firmware: report version {self.reports}")
        if not all(0 <= part <= 0xFF for part in self.version):
            raise UsageError(f"impossible firmware: version {self.version}")
        if self.ciphertext_hiding and not self.ciphertext_hiding_capable:
            raise UsageError("impossible firmware: ciphertext hiding is on and not possible")
        tcb = self.tcb or DEFAULT_TCBS.get(line)
        if tcb is not None:
            encode_tcb(line, tcb)  # refuses components that the line does not have
        return replace(self, tcb=tcb)


@final
@dataclass(frozen=True, slots=True)
class AsidRange:
    """CPUID 0x8000001F ECX and EDX: ASIDs 1 to ``maximum``, plain SEV from ``min_sev_asid`` on."""

    maximum: int = 509
    min_sev_asid: int = 100

    def __post_init__(self) -> None:
        if self.maximum < 1 or not 1 <= self.min_sev_asid <= self.maximum + 1:
            message = f"ASIDs 1 to {self.maximum} with SEV from {self.min_sev_asid}"
            raise UsageError(f"impossible machine: {message}")

    def allows(self, asid: int, *, encrypted_state: bool) -> bool:
        """Return whether a guest with or without encrypted state may have ``asid``."""
        lowest, highest = (
            (1, self.min_sev_asid - 1) if encrypted_state else (self.min_sev_asid, self.maximum)
        )
        return lowest <= asid <= highest


@final
class Core:
    """State that all commands share. ``lock`` is held during each: the mailbox takes one."""

    def __init__(
        self,
        identity: ChipIdentity,
        firmware: Firmware | None = None,
        *,
        asids: AsidRange | None = None,
        draw: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.identity: Final = identity
        self.firmware: Firmware = (firmware or Firmware()).for_line(identity.line)
        self.asids: Final = asids or AsidRange()
        self.draw: Final = draw
        self.faults: Final = Faults()
        self.lock: Final = threading.RLock()
        #: Names of the latest commands, the last one last.
        self.log: Final[deque[str]] = deque(maxlen=_LOG_SIZE)
        self.snp_initialized = False
        self.committed: Firmware = self.firmware
        self._owners: Final[dict[int, int]] = {}
        self._dirty: Final[set[int]] = set()
        self._wbinvd_done = True

    @property
    def line(self) -> ProductLine:
        """The chip's product line."""
        return self.identity.line

    def enter(self, command: str) -> None:
        """Log a command and let it meet the faults that were injected for it."""
        self.log.append(command)
        self.faults.meet(command)

    def load(self, command: str, firmware: Firmware) -> None:
        """Run another version of the firmware, uncommitted.

        Raises ``UsageError`` for one that the chip cannot run, ``CommandError`` (UPDATE_FAILED) for
        one below the committed version.
        """
        found = firmware.for_line(self.line)
        older = found.version < self.committed.version
        if self.committed.tcb is not None and found.tcb is not None:
            older = older or bool(found.tcb.below(self.committed.tcb))
        if older:
            raise CommandError(command, FirmwareStatus.UPDATE_FAILED, "below the committed version")
        self.firmware = found

    @property
    def sev_es_blocked(self) -> bool:
        """Whether the firmware refuses SEV-ES because SNP is initialised (AMD-SB-3023)."""
        threshold = SEV_ES_BLOCKED_FROM.get(self.line)
        if not self.snp_initialized or threshold is None or self.firmware.tcb is None:
            return False
        return self.firmware.tcb.snp >= threshold

    def activate(
        self, command: str, asid: int, handle: int, own: int | None, *, encrypted_state: bool
    ) -> None:
        """Give ``asid`` to the guest ``handle``, whose own ASID so far is ``own``.

        Raises ``CommandError`` with the status and in the order that the specification has.
        """
        for wrong, status in (
            (not 1 <= asid <= self.asids.maximum, FirmwareStatus.INVALID_ASID),
            (asid in self._owners, FirmwareStatus.ASID_OWNED),
            (own is not None, FirmwareStatus.ACTIVE),
            (asid in self._dirty, FirmwareStatus.DFFLUSH_REQUIRED),
            (
                not self.asids.allows(asid, encrypted_state=encrypted_state),
                FirmwareStatus.INVALID_ASID,
            ),
        ):
            if wrong:
                raise CommandError(command, status)
        self._owners[asid] = handle

    def drop_asid(self, asid: int, *, ran: bool) -> None:
        """Take an ASID back. If its guest ever ran, caches may hold its data: it is dirty."""
        del self._owners[asid]
        if ran:
            self._dirty.add(asid)
            self._wbinvd_done = False

    def soil_all(self) -> None:
        """Make every ASID that is not in use dirty, as INIT does."""
        self._dirty.update(set(range(1, self.asids.maximum + 1)) - self._owners.keys())

    def wbinvd(self) -> None:
        """Write back and invalidate all caches, as the host does on all cores before DF_FLUSH."""
        self._wbinvd_done = True

    def df_flush(self, command: str) -> None:
        """Clean every dirty ASID, provided that caches were written back since one became so."""
        if not self._wbinvd_done:
            raise CommandError(command, FirmwareStatus.WBINVD_REQUIRED)
        self._dirty.clear()

    @property
    def asids_clean(self) -> bool:
        """Whether no ASID is in use or dirty."""
        return not self._owners and not self._dirty

    @property
    def owned_asids(self) -> Mapping[int, int]:
        """Handles of the guests that have an ASID, by ASID."""
        return MappingProxyType(self._owners)
