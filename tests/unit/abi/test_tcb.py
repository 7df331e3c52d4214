from __future__ import annotations

import pytest

from sevkit.abi.product import SNP_LINES, ProductLine
from sevkit.abi.tcb import TcbVersion, encode_tcb, parse_tcb, parse_tcb_words
from sevkit.errors import FormatError


def tcb(line: ProductLine, raw: str) -> TcbVersion:
    return parse_tcb(line, int.from_bytes(bytes.fromhex(raw), "little"), structure="R", offset=0x38)


# The raw values are those of real reports.
@pytest.mark.parametrize(
    ("line", "raw", "expected"),
    [
        (ProductLine.MILAN, "0200000000000544", TcbVersion(2, 0, 5, 0x44)),
        (ProductLine.MILAN, "0300000000000873", TcbVersion(3, 0, 8, 0x73)),
        (ProductLine.GENOA, "0900000000001748", TcbVersion(9, 0, 23, 72)),
        (ProductLine.TURIN, "0102000300000041", TcbVersion(2, 0, 3, 0x41, fmc=1)),
    ],
)
def test_the_bytes_mean_what_the_line_says(
    line: ProductLine, raw: str, expected: TcbVersion
) -> None:
    assert tcb(line, raw) == expected
    assert encode_tcb(line, expected).to_bytes(8, "little").hex() == raw


def test_the_same_bytes_mean_other_things_on_turin() -> None:
    raw = "0100000000000000"
    assert tcb(ProductLine.GENOA, raw).bootloader == 1
    assert tcb(ProductLine.TURIN, raw).bootloader == 0
    assert tcb(ProductLine.TURIN, raw).fmc == 1


@pytest.mark.parametrize(
    ("line", "index"),
    [(line, index) for line in SNP_LINES[:2] for index in (2, 3, 4, 5)]
    + [(ProductLine.TURIN, index) for index in (4, 5, 6)],
)
def test_a_reserved_byte_is_refused_at_its_place(line: ProductLine, index: int) -> None:
    with pytest.raises(FormatError) as caught:
        parse_tcb(line, 1 << 8 * index, structure="ATTESTATION_REPORT", offset=0x180)
    assert caught.value.structure == "ATTESTATION_REPORT"
    assert caught.value.offset == 0x180 + index


@pytest.mark.parametrize("line", [ProductLine.NAPLES, ProductLine.ROME])
def test_a_line_without_snp_has_no_tcb_version(line: ProductLine) -> None:
    with pytest.raises(FormatError):
        parse_tcb(line, 0, structure="R", offset=0)
    with pytest.raises(FormatError):
        encode_tcb(line, TcbVersion(0, 0, 0, 0))


@pytest.mark.parametrize(
    ("line", "version"),
    [
        (ProductLine.MILAN, TcbVersion(0, 0, 0, 0, fmc=0)),
        (ProductLine.TURIN, TcbVersion(0, 0, 0, 0)),
        (ProductLine.MILAN, TcbVersion(256, 0, 0, 0)),
        (ProductLine.MILAN, TcbVersion(0, 0, 0, -1)),
    ],
)
def test_components_that_the_line_lacks_or_that_do_not_fit_are_refused(
    line: ProductLine, version: TcbVersion
) -> None:
    with pytest.raises(FormatError):
        encode_tcb(line, version)


def test_versions_are_compared_component_by_component() -> None:
    newer_microcode_older_bootloader = TcbVersion(2, 0, 8, 200)
    floor = TcbVersion(3, 0, 8, 115)
    assert newer_microcode_older_bootloader.below(floor) == ("bootloader",)
    assert floor.below(floor) == ()
    assert TcbVersion(0, 0, 0, 0).below(TcbVersion(1, 1, 1, 1)) == (
        "bootloader",
        "tee",
        "snp",
        "microcode",
    )


def test_a_component_that_only_the_floor_has_counts_as_lower() -> None:
    assert TcbVersion(9, 9, 9, 9).below(TcbVersion(0, 0, 0, 0, fmc=0)) == ("fmc",)
    assert TcbVersion(0, 0, 0, 0, fmc=0).below(TcbVersion(0, 0, 0, 0)) == ()


def test_it_is_shown_in_the_words_that_are_read() -> None:
    version = TcbVersion(3, 0, 8, 115, fmc=1)
    assert str(version) == "fmc=1,bootloader=3,tee=0,snp=8,microcode=115"
    assert parse_tcb_words(str(version)) == version.components


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bootloader",
        "bootloader=",
        "=3",
        "bootloader=3,",
        "bootloader=3,bootloader=3",
        "bootloader=256",
        "bootloader=-1",
        "bootloader=+1",
        "bootloader=0x3",
        "bootloader=1_0",
        "bootloader=0001",
        "bootloader=٣",
        "Bootloader=3",
        "ucode=3",
        "bootloader=3;tee=0",
        "bootloader==3",
    ],
)
def test_words_that_are_not_name_and_number_once_are_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_tcb_words(text)
