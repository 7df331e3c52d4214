from __future__ import annotations

import errno
import struct

import pytest

from sevkit.testing.device.registers import (
    CpuidFile,
    Msr,
    MsrFile,
    Syscfg,
    encryption_registers,
)

RMP = range(0x1_0000_0000, 0x1_4000_0000)


def test_registers_hold_what_the_bios_and_linux_set() -> None:
    file = MsrFile(encryption_registers(Syscfg.MEM_ENCRYPTION | Syscfg.SNP, RMP))
    assert file.read_at(0xC001_0010, 8) == struct.pack("<Q", 1 << 23 | 1 << 24)
    assert file.read_at(Msr.RMP_BASE, 8) == struct.pack("<Q", 0x1_0000_0000)
    assert file.read_at(Msr.RMP_END, 8) == struct.pack("<Q", 0x1_3FFF_FFFF)
    assert file.read_at(Msr.HWCR, 8) == struct.pack("<Q", 1)


def test_without_an_rmp_its_registers_are_zero() -> None:
    file = MsrFile(encryption_registers(Syscfg(0), None, smm_lock=False))
    assert {file.read_at(msr, 8) for msr in (Msr.RMP_BASE, Msr.RMP_END, Msr.HWCR)} == {bytes(8)}


def test_a_register_is_repeated_as_linux_does() -> None:
    assert MsrFile({7: 1}).read_at(7, 16) == struct.pack("<QQ", 1, 1)


def test_a_register_that_is_not_there_is_an_input_output_error() -> None:
    with pytest.raises(OSError, match="error") as caught:
        MsrFile({}).read_at(0xC001_0010, 8)
    assert caught.value.errno == errno.EIO


@pytest.mark.parametrize(
    ("file", "size"), [(MsrFile({0: 0}), 7), (CpuidFile(lambda *_: (0,) * 4), 8)]
)
def test_a_part_of_a_register_is_not_read(file: MsrFile | CpuidFile, size: int) -> None:
    with pytest.raises(OSError, match="Invalid") as caught:
        file.read_at(0, size)
    assert caught.value.errno == errno.EINVAL


def test_leaves_follow_each_other_and_the_subleaf_is_above() -> None:
    file = CpuidFile(lambda leaf, subleaf: (leaf, subleaf, 0xFFFF_FFFF, 0))
    assert file.read_at(0x8000_001F, 32) == struct.pack(
        "<8I", 0x8000_001F, 0, 0xFFFF_FFFF, 0, 0x8000_0020, 0, 0xFFFF_FFFF, 0
    )
    assert file.read_at(7 | 2 << 32, 16) == struct.pack("<4I", 7, 2, 0xFFFF_FFFF, 0)
