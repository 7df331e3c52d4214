from __future__ import annotations

import time
from typing import Final

import pytest

from sevkit.host.kernel_log import LogLine, native_log, parse_log

#: Lines as users have published them, and as Linux' source has them.
LINES: Final = (
    ("ccp 0000:22:00.1: SEV: memory encryption not enabled by BIOS", LogLine.SMEE_OFF),
    (
        "SEV-SNP: Memory for the RMP table has not been reserved by BIOS",
        LogLine.RMP_NOT_RESERVED,
    ),
    (
        "SEV-SNP: Memory reserved for the RMP table does not cover full system RAM (expected 0x1",
        LogLine.RMP_TOO_SMALL,
    ),
    (
        "AMD-Vi: SNP: IOMMU disabled or configured in passthrough mode, SNP cannot be supported.",
        LogLine.IOMMU_UNFIT,
    ),
    (
        "AMD-Vi: SNP: IOMMU is configured with V2 page table mode, SNP cannot be supported.",
        LogLine.IOMMU_V2_PAGE_TABLES,
    ),
    ("AMD-Vi: SNP: IOMMU SNP feature not enabled", LogLine.IOMMU_SNP_OFF),
    (
        "ccp 0000:46:00.1: SEV-SNP support requires firmware version >= 1:51",
        LogLine.FIRMWARE_TOO_OLD,
    ),
    ("ccp 0000:46:00.1: SEV: failed to INIT error 0x1", LogLine.INIT_FAILED),
    ("ccp 0000:46:00.1: SEV: INIT_EX failed 0x13, rc -5", LogLine.INIT_FAILED),
    ("ccp 0000:46:00.1: SEV-SNP: SNP_INIT_EX failed rc -5, error 0x26", LogLine.SNP_INIT_FAILED),
    ("ccp 0000:46:00.1: SEV-SNP: failed to INIT rc -5, error 0x26", LogLine.SNP_INIT_FAILED),
    ("ccp 0000:46:00.1: SEV: TMR allocation failed, SEV-ES support unavailable", LogLine.NO_TMR),
    ("ccp 0000:46:00.1: sev command 0x4 timed out, disabling PSP", LogLine.SILENT),
)


@pytest.mark.parametrize(("line", "said"), LINES)
def test_each_line_is_known(line: str, said: LogLine) -> None:
    assert parse_log(f"[    9.138296] usb: hello\n[   14.697860] {line}\n") == {said}


def test_a_healthy_log_says_nothing() -> None:
    log = """[    0.000000] SEV-SNP: RMP table physical range [0x7fcd100000 - 0x804d6fffff]
[    9.138296] ccp 0000:05:00.5: sev enabled
[   14.697860] ccp 0000:05:00.5: SEV API:1.55 build:24
[   14.697866] ccp 0000:05:00.5: SEV-SNP API:1.55 build:24
[   14.705533] kvm_amd: SEV-ES enabled (ASIDs 1 - 252)
"""
    assert parse_log(log) == frozenset()


def test_a_megabyte_of_noise_costs_little() -> None:
    noise = ("x" * 5000 + " SEV\n") * 200
    started = time.perf_counter()
    assert parse_log(noise) == frozenset()
    assert time.perf_counter() - started < 1


def test_this_machines_log_is_read_or_there_is_a_reason() -> None:
    found = native_log()
    assert getattr(found, "value", None) or getattr(found, "detail", "")
