"""The kernel's log: what it said about SEV when it booted, for reasons that nothing else gives.

A log is a hint: it may be long gone or not ours to read, so nothing is concluded from a line that
is missing. Source: Linux, arch/x86/virt/svm/sev.c, drivers/iommu/amd/init.c,
drivers/crypto/ccp/sev-dev.c and arch/x86/kvm/svm/sev.c.
"""

from __future__ import annotations

import ctypes
import os
import re
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from sevkit.host.reading import Known, Reading, convert, not_readable

if TYPE_CHECKING:
    from sevkit.host.source import HostSource

#: Largest log: kernels keep at most 16 MiB, and say what matters at boot, at its beginning.
LIMIT: Final = 1 << 20
_READ_ALL: Final = 3
_SIZE_BUFFER: Final = 10


class LogLine(StrEnum):
    """Something that the kernel said."""

    SMEE_OFF = "smee-off"
    RMP_NOT_RESERVED = "rmp-not-reserved"
    RMP_TOO_SMALL = "rmp-too-small"
    IOMMU_UNFIT = "iommu-unfit"
    IOMMU_V2_PAGE_TABLES = "iommu-v2-page-tables"
    IOMMU_SNP_OFF = "iommu-snp-off"
    FIRMWARE_TOO_OLD = "firmware-too-old"
    SNP_INIT_FAILED = "snp-init-failed"
    INIT_FAILED = "init-failed"
    NO_TMR = "no-tmr"
    SILENT = "silent"


_PATTERNS: Final = (
    (LogLine.SMEE_OFF, r"SEV: memory encryption not enabled by BIOS"),
    (LogLine.RMP_NOT_RESERVED, r"RMP table has not been reserved by BIOS"),
    (LogLine.RMP_TOO_SMALL, r"RMP table does not cover full system RAM"),
    (LogLine.IOMMU_UNFIT, r"SNP: IOMMU disabled or configured in passthrough mode"),
    (LogLine.IOMMU_V2_PAGE_TABLES, r"SNP: IOMMU is configured with V2 page table mode"),
    (LogLine.IOMMU_SNP_OFF, r"SNP: IOMMU SNP feature not enabled"),
    (LogLine.FIRMWARE_TOO_OLD, r"SEV-SNP support requires firmware version"),
    (LogLine.SNP_INIT_FAILED, r"SEV-SNP: (?:SNP_INIT(?:_EX)? failed|failed to INIT)"),
    (LogLine.INIT_FAILED, r"SEV: (?:INIT(?:_EX)? failed|failed to INIT)"),
    (LogLine.NO_TMR, r"TMR allocation failed"),
    (LogLine.SILENT, r"sev command 0x[0-9a-f]+ timed out, disabling PSP"),
)
_LINES: Final = tuple((line, re.compile(pattern)) for line, pattern in _PATTERNS)
#: One of these is in every line of interest.
_WORDS: Final = ("SEV", "SNP", "disabling PSP")


def probe_log(source: HostSource) -> Reading[frozenset[LogLine]]:
    """Read what the kernel said."""
    return convert(source.log(), parse_log)


def parse_log(text: str) -> frozenset[LogLine]:
    """Return what of interest is in a log."""
    if not any(word in text for word in _WORDS):
        return frozenset()
    lines = (line for line in text.split("\n") if any(word in line for word in _WORDS))
    said = "\n".join(lines)
    return frozenset(line for line, pattern in _LINES if pattern.search(said))


def native_log() -> Reading[str]:
    """Return this machine's log, by syslog(2): it is not everybody's to read."""
    klogctl = getattr(ctypes.CDLL(None, use_errno=True), "klogctl", None)
    if klogctl is None:
        return not_readable("kernel log", OSError(2, ""))
    length = klogctl(_SIZE_BUFFER, None, 0)
    room = ctypes.create_string_buffer(min(LIMIT, max(1, length)))
    size = length if length < 0 else klogctl(_READ_ALL, room, len(room))
    if size < 0:
        number = ctypes.get_errno()
        return not_readable("kernel log", OSError(number, os.strerror(number)))
    return Known(room.raw[:size].decode("utf-8", "replace"))
