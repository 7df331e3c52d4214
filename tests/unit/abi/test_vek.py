from __future__ import annotations

import pytest

from sevkit.abi.product import ProductLine
from sevkit.abi.tcb import TcbVersion
from sevkit.abi.vek import (
    ARC,
    CSP_ID,
    FMC_SPL,
    HWID,
    PRODUCT_NAME,
    SPLS,
    STRUCT_VERSION,
    VekKind,
    parse_vek_extensions,
    unexpected_oids,
)
from sevkit.errors import FormatError
from sevkit.testing.snp_chain import vek_extensions

TCB = TcbVersion(3, 0, 8, 206)
TURIN_TCB = TcbVersion(1, 1, 4, 80, fmc=2)
ID64 = bytes(range(64))


def good(line: ProductLine = ProductLine.MILAN, **changed: bytes) -> dict[str, bytes]:
    tcb = TURIN_TCB if line is ProductLine.TURIN else TCB
    hwid = ID64[: line.hwid_size]
    return vek_extensions(line, VekKind.VCEK, tcb, hwid=hwid) | changed


@pytest.mark.parametrize("line", [ProductLine.MILAN, ProductLine.GENOA, ProductLine.TURIN])
def test_amds_extensions_of_each_line_are_read(line: ProductLine) -> None:
    found = parse_vek_extensions(VekKind.VCEK, good(line))
    assert found.line is line
    assert found.tcb == (TURIN_TCB if line is ProductLine.TURIN else TCB)
    assert found.hwid == ID64[: line.hwid_size]
    assert found.csp_id is None


def test_a_vlek_names_its_provider_and_no_chip() -> None:
    values = vek_extensions(ProductLine.MILAN, VekKind.VLEK, TCB, csp_id="CN=cc.example")
    found = parse_vek_extensions(VekKind.VLEK, values)
    assert (found.hwid, found.csp_id) == (None, "CN=cc.example")


@pytest.mark.parametrize(
    "raw", [ID64, b"\x02" + ID64[1:], b"\x04\x40" + ID64[2:], b"\x04\x40" + ID64]
)
def test_a_hardware_id_is_told_by_its_length_first(raw: bytes) -> None:
    expected = raw if len(raw) == 64 else raw[2:]
    assert parse_vek_extensions(VekKind.VCEK, good() | {HWID: raw}).hwid == expected


@pytest.mark.parametrize("raw", [b"", ID64[:8], ID64[:63], b"\x04\x3f" + ID64, ID64 + b"xxx"])
def test_a_hardware_id_of_another_size_is_refused(raw: bytes) -> None:
    with pytest.raises(FormatError, match="hwID"):
        parse_vek_extensions(VekKind.VCEK, good() | {HWID: raw})


@pytest.mark.parametrize("raw", [ID64[:8], b"\x04\x08" + ID64[:8]])
def test_turins_hardware_id_has_eight_bytes(raw: bytes) -> None:
    values = good(ProductLine.TURIN) | {HWID: raw}
    assert parse_vek_extensions(VekKind.VCEK, values).hwid == ID64[:8]


@pytest.mark.parametrize(
    "missing", [STRUCT_VERSION, PRODUCT_NAME, HWID, *SPLS.values()], ids=lambda oid: oid[-3:]
)
def test_a_missing_extension_is_refused(missing: str) -> None:
    values = good()
    del values[missing]
    with pytest.raises(FormatError, match="missing"):
        parse_vek_extensions(VekKind.VCEK, values)


def test_turin_must_have_an_fmc_level() -> None:
    values = good(ProductLine.TURIN)
    del values[FMC_SPL]
    with pytest.raises(FormatError, match="fmc"):
        parse_vek_extensions(VekKind.VCEK, values)


@pytest.mark.parametrize("bad", ["02020100", "0201ff", "02020001", "0400", ""])
@pytest.mark.parametrize("oid", [SPLS["microcode"], ARC + "3.5"])
def test_a_level_that_is_no_byte_is_refused(oid: str, bad: str) -> None:
    with pytest.raises(FormatError):
        parse_vek_extensions(VekKind.VCEK, good() | {oid: bytes.fromhex(bad)})


@pytest.mark.parametrize("name", [b"\x16\x05Venus", b"\x16\x00", b"\x0c\x05Milan"])
def test_an_unknown_product_is_refused(name: bytes) -> None:
    with pytest.raises(FormatError):
        parse_vek_extensions(VekKind.VCEK, good() | {PRODUCT_NAME: name})


def test_extensions_of_the_other_kind_and_line_are_unexpected() -> None:
    seen = frozenset({*good(), CSP_ID, FMC_SPL, ARC + "9", "2.5.29.19"})
    assert unexpected_oids(VekKind.VCEK, ProductLine.MILAN, seen) == (FMC_SPL, CSP_ID, ARC + "9")
