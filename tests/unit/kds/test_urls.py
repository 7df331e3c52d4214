from __future__ import annotations

import pytest

from sevkit.abi.product import ProductLine
from sevkit.abi.tcb import TcbVersion
from sevkit.errors import FormatError, UsageError
from sevkit.kds import urls

CHIP = bytes(range(64))
TCB = TcbVersion(bootloader=3, tee=0, snp=8, microcode=115)
TURIN_TCB = TcbVersion(bootloader=2, tee=3, snp=4, microcode=5, fmc=1)


@pytest.mark.parametrize(
    ("line", "hwid", "tcb", "expected"),
    [
        (
            ProductLine.MILAN,
            CHIP,
            TCB,
            f"/vcek/v1/Milan/{CHIP.hex()}?blSPL=03&teeSPL=00&snpSPL=08&ucodeSPL=115",
        ),
        (
            ProductLine.GENOA,
            CHIP,
            TcbVersion(10, 99, 100, 255),
            f"/vcek/v1/Genoa/{CHIP.hex()}?blSPL=10&teeSPL=99&snpSPL=100&ucodeSPL=255",
        ),
        (
            ProductLine.TURIN,
            CHIP[:8],
            TURIN_TCB,
            "/vcek/v1/Turin/0001020304050607?fmcSPL=01&blSPL=02&teeSPL=03&snpSPL=04&ucodeSPL=05",
        ),
    ],
)
def test_vcek_addresses_have_the_lines_parameters_in_amds_order(
    line: ProductLine, hwid: bytes, tcb: TcbVersion, expected: str
) -> None:
    assert urls.vcek(line, hwid, tcb).url() == "https://kdsintf.amd.com" + expected


@pytest.mark.parametrize(
    ("resource", "target"),
    [
        (urls.chain(ProductLine.MILAN, vlek=False), "/vcek/v1/Milan/cert_chain"),
        (urls.chain(ProductLine.TURIN, vlek=True), "/vlek/v1/Turin/cert_chain"),
        (urls.crl(ProductLine.GENOA, vlek=False), "/vcek/v1/Genoa/crl"),
        (urls.crl(ProductLine.GENOA, vlek=True), "/vlek/v1/Genoa/crl"),
        (urls.cek(CHIP), f"/cek/id/{CHIP.hex()}"),
    ],
)
def test_addresses_of_whole_lines_and_of_ceks(resource: urls.Resource, target: str) -> None:
    assert resource.target == target
    assert resource.url("https://mirror.example/kds") == f"https://mirror.example/kds{target}"


@pytest.mark.parametrize(
    ("line", "hwid", "tcb", "words"),
    [
        (ProductLine.MILAN, CHIP[:8], TCB, "expected 64 bytes, got 8"),
        (ProductLine.TURIN, CHIP, TURIN_TCB, "expected 8 bytes, got 64"),
        (ProductLine.MILAN, bytes(64), TCB, "masked"),
        (ProductLine.MILAN, CHIP, TURIN_TCB, "Milan has the components"),
        (ProductLine.TURIN, CHIP[:8], TCB, "Turin has the components"),
        (ProductLine.MILAN, CHIP, TcbVersion(256, 0, 0, 0), "0 to 255"),
        (ProductLine.MILAN, CHIP, TcbVersion(-1, 0, 0, 0), "0 to 255"),
        (ProductLine.ROME, CHIP, TCB, "no VCEK"),
    ],
)
def test_a_vcek_that_cannot_exist_is_not_asked_for(
    line: ProductLine, hwid: bytes, tcb: TcbVersion, words: str
) -> None:
    with pytest.raises(FormatError, match=words):
        urls.vcek(line, hwid, tcb)


def test_lines_without_snp_have_no_chain_and_no_crl() -> None:
    with pytest.raises(FormatError):
        urls.chain(ProductLine.NAPLES, vlek=False)
    with pytest.raises(FormatError):
        urls.crl(ProductLine.ROME, vlek=True)


@pytest.mark.parametrize("chip", [b"", CHIP[:63], bytes(64)])
def test_a_cek_is_asked_for_by_64_bytes_that_are_not_all_zero(chip: bytes) -> None:
    with pytest.raises(FormatError):
        urls.cek(chip)


def test_a_turin_hardware_id_is_the_first_eight_bytes_of_the_chip_id() -> None:
    turin = CHIP[:8] + bytes(56)
    assert urls.hwid_from_chip_id(ProductLine.TURIN, turin) == CHIP[:8]
    assert urls.hwid_from_chip_id(ProductLine.MILAN, CHIP) == CHIP


@pytest.mark.parametrize(
    ("line", "chip", "words"),
    [
        (ProductLine.TURIN, CHIP, "8 bytes and zeros"),
        (ProductLine.TURIN, bytes(64), "masked"),
        (ProductLine.GENOA, bytes(64), "masked"),
        (ProductLine.TURIN, CHIP[:8], "expected 64 bytes, got 8"),
    ],
)
def test_a_chip_id_that_names_no_chip_of_the_line_is_refused(
    line: ProductLine, chip: bytes, words: str
) -> None:
    with pytest.raises(FormatError, match=words):
        urls.hwid_from_chip_id(line, chip)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://kdsintf.amd.com", "https://kdsintf.amd.com"),
        ("https://kds.example/", "https://kds.example"),
        ("https://127.0.0.1:8443/amd", "https://127.0.0.1:8443/amd"),
        ("https://[::1]:8443", "https://[::1]:8443"),
    ],
)
def test_an_https_address_is_accepted_without_its_final_slash(url: str, kept: str) -> None:
    assert urls.check_base_url(url) == kept


@pytest.mark.parametrize(
    "url",
    [
        "",
        "kdsintf.amd.com",
        "http://kdsintf.amd.com",
        "http://127.0.0.1:8443",
        "file:///etc/passwd",
        "https://",
        "https:///vcek",
        "https://user:word@kds.example",
        "https://user@kds.example",
        "https://kds.example?x=1",
        "https://kds.example?",
        "https://kds.example#part",
        "https://kds.example:99999",
        "https://kds.example:port",
        "https://kds.example:0",
        "https://kds.example /x",
        "https://kds.example\r\nHost: other",
        "https://kds.exämple",
        "https://[::1",
        "https://kds.example\\@other",
    ],
)
def test_other_addresses_are_refused_as_usage(url: str) -> None:
    with pytest.raises(UsageError):
        urls.check_base_url(url)
