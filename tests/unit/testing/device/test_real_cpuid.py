from __future__ import annotations

import platform
import struct
from pathlib import Path

import pytest

from sevkit.testing.device.real_cpuid import real_cpuid, runnable_cpuid

ALL = 0xFFFF_FFFF


def everything(_leaf: int, _subleaf: int) -> tuple[int, int, int, int]:
    return ALL, ALL, ALL, ALL


def little(leaf: int, subleaf: int) -> tuple[int, int, int, int]:
    return leaf, subleaf, 0b1010, 0b0110


def test_instructions_are_those_that_both_processors_have() -> None:
    answer = runnable_cpuid(everything, little)
    assert answer(7, 0) == (ALL, 0, 0b1010, 0b0110)
    assert answer(0x8000_0001, 0) == (ALL, ALL, 0b1010, 0b0110)
    assert runnable_cpuid(little, everything)(7, 1) == (7, 1, 0b1010, 0b0110)


def test_who_the_processor_is_and_that_it_is_virtual_comes_from_the_simulation() -> None:
    assert runnable_cpuid(everything, little)(1, 0) == (ALL, ALL, 1 << 31 | 0b1010, 0b0110)
    assert runnable_cpuid(little, everything)(1, 0) == (1, 0, 0b1010, 0b0110)
    assert runnable_cpuid(everything, little)(0x8000_001F, 0) == (ALL, ALL, ALL, ALL)


def test_the_layout_of_saved_registers_is_the_real_one() -> None:
    assert runnable_cpuid(everything, little)(0x0D, 1) == (0x0D, 1, 0b1010, 0b0110)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x86-64 only")
def test_cpuid_names_the_vendor_that_linux_names() -> None:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        pytest.skip("no /proc/cpuinfo")
    _, ebx, ecx, edx = real_cpuid(0, 0)
    vendor = struct.pack("<3I", ebx, edx, ecx).decode()
    assert f"vendor_id\t: {vendor}\n" in cpuinfo.read_text()
