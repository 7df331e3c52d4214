from __future__ import annotations

import pytest

from sevkit.abi.vmsa import SEGMENTS, VMSA, VMSA_SIZE, SevFeatures, encode_vmsa, parse_vmsa
from sevkit.errors import FormatError


@pytest.mark.parametrize(
    ("name", "offset", "size"),
    [
        ("es_selector", 0x00, 2),
        ("cs_base", 0x18, 8),
        ("tr_attrib", 0x92, 2),
        ("vmpl", 0xCA, 1),
        ("cpl", 0xCB, 1),
        ("efer", 0xD0, 8),
        ("cr4", 0x148, 8),
        ("rip", 0x178, 8),
        ("rsp", 0x1D8, 8),
        ("rax", 0x1F8, 8),
        ("cr2", 0x240, 8),
        ("g_pat", 0x268, 8),
        ("last_excp_to", 0x290, 8),
        ("pkru", 0x2E8, 4),
        ("tsc_aux", 0x2EC, 4),
        ("rdx", 0x310, 8),
        ("rbp", 0x328, 8),
        ("r15", 0x378, 8),
        ("guest_exit_info_1", 0x390, 8),
        ("sev_features", 0x3B0, 8),
        ("vintr_ctrl", 0x3B8, 8),
        ("xcr0", 0x3E8, 8),
        ("mxcsr", 0x408, 4),
        ("x87_fcw", 0x410, 2),
        ("x87_rip", 0x418, 8),
    ],
)
def test_a_field_lies_where_amd_puts_it(name: str, offset: int, size: int) -> None:
    data = encode_vmsa({name: (1 << 8 * size) - 1})
    assert data == bytes(offset) + b"\xff" * size + bytes(VMSA_SIZE - offset - size)


def test_every_field_survives_a_round_trip() -> None:
    values: dict[str, int | bytes] = {}
    for index, row in enumerate(VMSA.fields, 1):
        if row.kind == "int":
            values[row.name] = index
        elif row.kind == "bytes":
            values[row.name] = bytes([index]) * row.size
    found = parse_vmsa(encode_vmsa(values))
    assert dict(found.values) == values
    assert all(f"{segment}_base" in values for segment in SEGMENTS)


@pytest.mark.parametrize("size", [0, 4095, 4097])
def test_another_length_is_refused(size: int) -> None:
    with pytest.raises(FormatError, match="expected 4096 bytes"):
        parse_vmsa(bytes(size))


@pytest.mark.parametrize("offset", [0xC8, 0xD8, 0x298, 0x320, 0x3F0, 0x670, 0xFFF])
def test_a_reserved_byte_that_is_set_is_refused_with_its_offset(offset: int) -> None:
    with pytest.raises(FormatError, match=f"{offset:#x}"):
        parse_vmsa(bytes(offset) + b"\1" + bytes(VMSA_SIZE - offset - 1))


def test_a_misspelt_register_is_refused() -> None:
    with pytest.raises(FormatError, match="eip is no field"):
        encode_vmsa({"eip": 1})
    with pytest.raises(FormatError, match="fpreg_xmm is no register"):
        parse_vmsa(bytes(VMSA_SIZE)).register("fpreg_xmm")


def test_a_value_that_does_not_fit_is_refused() -> None:
    with pytest.raises(FormatError, match="cpl does not fit"):
        encode_vmsa({"cpl": 256})


def test_the_start_address_is_code_segment_and_instruction_pointer() -> None:
    assert parse_vmsa(encode_vmsa({"cs_base": 0xFFFF0000, "rip": 0xFFF0})).reset_eip == 0xFFFFFFF0


def test_feature_bits_are_where_amd_puts_them() -> None:
    assert {bit.name: int(bit).bit_length() - 1 for bit in SevFeatures} == {
        "SNP_ACTIVE": 0,
        "VTOM": 1,
        "REFLECT_VC": 2,
        "RESTRICTED_INJECTION": 3,
        "ALTERNATE_INJECTION": 4,
        "DEBUG_SWAP": 5,
        "PREVENT_HOST_IBS": 6,
        "BTB_ISOLATION": 7,
        "VMPL_SSS": 8,
        "SECURE_TSC": 9,
        "VMGEXIT_PARAMETER": 10,
        "IBS_VIRTUALIZATION": 12,
        "VMSA_REG_PROT": 14,
        "SMT_PROTECTION": 15,
    }
