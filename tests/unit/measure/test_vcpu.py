from __future__ import annotations

import pytest

from sevkit.abi.vmsa import parse_vmsa
from sevkit.errors import UsageError
from sevkit.measure.terms import Era, Vmm
from sevkit.measure.vcpu import (
    BSP_EIP,
    CHIP_SIGNATURES,
    CPU_MODELS,
    Registers,
    encode_vcpu,
    measures_cpu,
    names_of_signature,
    signature_of,
    signature_of_model,
)


@pytest.mark.parametrize(
    ("family", "model", "stepping", "signature"),
    [
        (0, 0, 0, 0),
        (6, 15, 11, 0x6FB),
        (15, 0, 0, 0xF00),
        (23, 1, 2, 0x800F12),
        (23, 49, 0, 0x830F10),
        (25, 1, 1, 0xA00F11),
        (25, 0xA0, 2, 0xAA0F02),
        (26, 2, 1, 0xB00F21),
        (0x10E, 0xFF, 15, 0xFFF0FFF),
    ],
)
def test_a_signature_packs_family_model_and_stepping(
    family: int, model: int, stepping: int, signature: int
) -> None:
    assert signature_of(family, model, stepping) == signature


@pytest.mark.parametrize("parts", [(-1, 0, 0), (0x10F, 0, 0), (0, 256, 0), (0, 0, 16)])
def test_a_family_model_or_stepping_that_no_cpu_has_is_refused(parts: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="no CPUID has"):
        signature_of(*parts)


@pytest.mark.parametrize(
    ("name", "signature"),
    [
        ("EPYC", 0x800F12),
        ("EPYC-v4", 0x800F12),
        ("EPYC-IBPB", 0x800F12),
        ("EPYC-Rome-v4", 0x830F10),
        ("EPYC-Milan", 0xA00F11),
        ("EPYC-Genoa-v2", 0xA10F10),
        ("EPYC-Turin", 0xB00F00),
    ],
)
def test_a_model_has_the_signature_that_qemu_gives_it(name: str, signature: int) -> None:
    assert signature_of_model(name) == signature
    assert name in names_of_signature(signature)


def test_an_unknown_model_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="unknown CPU model epyc") as caught:
        signature_of_model("epyc")
    assert "EPYC-Milan" in caught.value.hint


def test_a_chip_is_named_and_an_unknown_signature_is_not() -> None:
    assert names_of_signature(0xB00F21) == ("host CPU Turin, stepping 1",)
    assert names_of_signature(0) == ()


@pytest.mark.parametrize(
    ("signature", "name"),
    [
        (0x800F12, "Naples, stepping 2"),
        (0x830F10, "Rome, stepping 0"),
        (0xA00F12, "Milan, stepping 2"),
        (0xA10F11, "Genoa, stepping 1"),
        (0xAA0F02, "Bergamo or Siena, stepping 2"),
        (0xB00F21, "Turin, stepping 1"),
        (0xB10F10, "Turin Dense, stepping 0"),
    ],
)
def test_chips_that_were_seen_are_known(signature: int, name: str) -> None:
    assert CHIP_SIGNATURES[signature] == name


@pytest.mark.parametrize(
    ("vmm", "era", "eip", "expected"),
    [
        (Vmm.QEMU, Era.INIT, BSP_EIP, {"rdx": 5, "mxcsr": 0, "x87_fcw": 0, "cs_attrib": 0x9B}),
        (Vmm.QEMU, Era.INIT2, BSP_EIP, {"rdx": 5, "mxcsr": 0x1F80, "x87_fcw": 0x37F}),
        (Vmm.QEMU, Era.INIT2, 0x12345679, {"cs_base": 0x12340000, "rip": 0x5679}),
        (Vmm.QEMU, Era.INIT2, 0x8001FFFF, {"cs_base": 0x80010000, "rip": 0xFFFF}),
        (Vmm.QEMU, Era.INIT2, 0x80B004, {"cs_base": 0x800000, "rip": 0xB004, "cs_attrib": 0x9B}),
        (Vmm.EC2, Era.INIT2, BSP_EIP, {"rdx": 0x600, "cs_attrib": 0x9A, "ss_attrib": 0x92}),
        (Vmm.EC2, Era.INIT2, 0x80B004, {"cs_attrib": 0x9B, "tr_attrib": 0x83, "mxcsr": 0}),
        (Vmm.GCE, Era.INIT2, BSP_EIP, {"rdx": 0x600, "g_pat": 0x70106, "tr_attrib": 0x8B}),
    ],
)
def test_each_hypervisor_sets_its_own_registers(
    vmm: Vmm, era: Era, eip: int, expected: dict[str, int]
) -> None:
    found = parse_vmsa(encode_vcpu(Registers(5, 0x21, vmm, era), eip))
    assert {name: found.register(name) for name in expected} == expected
    assert found.register("sev_features") == 0x21
    assert found.reset_eip == eip


@pytest.mark.parametrize(
    "registers",
    [
        Registers(1 << 32, 1),
        Registers(-1, 1),
        Registers(0, 1 << 64),
        Registers(0, -1),
        Registers(0, 1, Vmm.EC2, Era.INIT),
    ],
)
def test_registers_that_cannot_be_are_refused(registers: Registers) -> None:
    with pytest.raises(UsageError):
        encode_vcpu(registers, BSP_EIP)


def test_only_qemu_measures_the_cpu() -> None:
    assert [vmm for vmm in Vmm if measures_cpu(vmm)] == [Vmm.QEMU]
    ec2 = {encode_vcpu(Registers(s, 1, Vmm.EC2), BSP_EIP) for s in CPU_MODELS.values()}
    assert len(ec2) == 1
