from __future__ import annotations

import platform
import struct
from typing import TYPE_CHECKING

import pytest

from sevkit.host.native_cpuid import device_cpuid, native_cpuid
from sevkit.host.reading import Cause, Known, Unreadable
from sevkit.host.source import Registers

if TYPE_CHECKING:
    from pathlib import Path

x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="no CPUID on this machine")


@x86
def test_the_instruction_names_a_maker() -> None:
    found = native_cpuid(0)
    assert isinstance(found, Known)
    zero = found.value
    name = b"".join(word.to_bytes(4, "little") for word in (zero.ebx, zero.edx, zero.ecx))
    assert name in {b"AuthenticAMD", b"GenuineIntel"}
    assert zero.eax >= 1


@x86
def test_leaves_and_subleaves_are_passed_on() -> None:
    caches = [native_cpuid(0x8000001D, subleaf) for subleaf in range(3)]
    levels = [found.value.eax >> 5 & 7 for found in caches if isinstance(found, Known)]
    extended = native_cpuid(0x80000000)
    assert isinstance(extended, Known)
    assert extended.value.eax >= 0x80000008
    assert len(levels) == 3


def test_the_device_answers_at_the_leafs_offset(tmp_path: Path) -> None:
    device = tmp_path / "cpuid"
    with device.open("wb") as stream:
        stream.seek(0x8000001F)
        stream.write(struct.pack("<4I", 0xF, 0x16F, 0x1FD, 1))
    found = device_cpuid(0x8000001F, device=str(device))
    assert found == Known(Registers(0xF, 0x16F, 0x1FD, 1))


def test_a_device_that_is_missing_or_short_is_a_reason(tmp_path: Path) -> None:
    missing = device_cpuid(0, device=str(tmp_path / "none"))
    assert isinstance(missing, Unreadable)
    assert missing.cause is Cause.ABSENT
    (tmp_path / "short").write_bytes(b"123")
    short = device_cpuid(0, device=str(tmp_path / "short"))
    assert isinstance(short, Unreadable)
    assert short.cause is Cause.MALFORMED
