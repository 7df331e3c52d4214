from __future__ import annotations

import pytest

from sevkit.abi.product import Product, ProductLine
from sevkit.abi.tcb import TcbVersion
from sevkit.kds import urls
from sevkit.kds.content import check_content
from sevkit.testing.key_service import SimulatedKeyService, chip_provider, parse_target
from sevkit.testing.snp_chain import SimulatedRoots
from sevkit.testing.snp_report import SimulatedChip

CHIP = bytes(range(64))
HWID = CHIP.hex()


@pytest.mark.parametrize(
    ("target", "resource"),
    [
        ("/vcek/v1/Milan/cert_chain", urls.chain(ProductLine.MILAN, vlek=False)),
        ("/vlek/v1/Genoa/cert_chain", urls.chain(ProductLine.GENOA, vlek=True)),
        ("/vlek/v1/Turin/crl", urls.crl(ProductLine.TURIN, vlek=True)),
        (f"/cek/id/{HWID}", urls.cek(CHIP)),
        # as Go's verifier writes it, without leading zeros
        (
            f"/vcek/v1/Milan/{HWID}?blSPL=0&teeSPL=0&snpSPL=5&ucodeSPL=68",
            urls.vcek(ProductLine.MILAN, CHIP, TcbVersion(0, 0, 5, 68)),
        ),
        # as the Rust tools write it
        (
            f"/vcek/v1/Genoa/{HWID.upper()}?blSPL=09&teeSPL=00&snpSPL=23&ucodeSPL=213",
            urls.vcek(ProductLine.GENOA, CHIP, TcbVersion(9, 0, 23, 213)),
        ),
        (
            "/vcek/v1/Turin/0001020304050607?fmcSPL=01&blSPL=02&teeSPL=03&snpSPL=04&ucodeSPL=05",
            urls.vcek(ProductLine.TURIN, CHIP[:8], TcbVersion(2, 3, 4, 5, fmc=1)),
        ),
    ],
)
def test_addresses_as_the_field_writes_them_are_understood(
    target: str, resource: urls.Resource
) -> None:
    assert parse_target(target) == resource


@pytest.mark.parametrize(
    "target",
    [
        "",
        "/",
        "/vcek/v1/Naples/cert_chain",
        "/vcek/v1/milan/cert_chain",
        "/vcek/v1/Milan/cert_chain?x=1",
        "/vcek/v1/Milan/../Milan/crl",
        "/vcek/v2/Milan/crl",
        "/vlek/v1/Milan/cert?blSPL=00",
        f"/vcek/v1/Milan/{HWID}",
        f"/vcek/v1/Milan/{HWID}?blSPL=0&teeSPL=0&snpSPL=5",
        f"/vcek/v1/Milan/{HWID}?blSPL=0&blSPL=0&teeSPL=0&snpSPL=5&ucodeSPL=68",
        f"/vcek/v1/Milan/{HWID}?blSPL=0&teeSPL=0&snpSPL=5&ucodeSPL=256",
        f"/vcek/v1/Milan/{HWID}?blSPL=-1&teeSPL=0&snpSPL=5&ucodeSPL=68",
        f"/vcek/v1/Milan/{HWID}?fmcSPL=1&blSPL=0&teeSPL=0&snpSPL=5&ucodeSPL=68",
        f"/vcek/v1/Turin/{HWID}?fmcSPL=1&blSPL=0&teeSPL=0&snpSPL=5&ucodeSPL=68",
        f"/vcek/v1/Turin/{HWID[:16]}?blSPL=0&teeSPL=0&snpSPL=5&ucodeSPL=68",
        f"/vcek/v1/Milan/{'0' * 128}?blSPL=0&teeSPL=0&snpSPL=5&ucodeSPL=68",
        f"/vcek/v1/Milan/{HWID[:-1]}?blSPL=0&teeSPL=0&snpSPL=5&ucodeSPL=68",
        "/cek/id/00",
        f"/cek/id/{HWID}?x",
    ],
)
def test_other_addresses_are_nothing(target: str) -> None:
    assert parse_target(target) is None


def test_simulated_chips_are_served_with_the_roots_of_their_line() -> None:
    roots = SimulatedRoots(ProductLine.TURIN)
    chip = SimulatedChip(roots, Product.TURIN)
    provide = chip_provider(chip)
    for resource in (
        urls.vcek(chip.line, chip.hardware_id, chip.tcb),
        urls.chain(chip.line, vlek=False),
        urls.chain(chip.line, vlek=True),
        urls.crl(chip.line, vlek=False),
    ):
        data = provide(resource)
        assert data is not None
        check_content(resource, data)
    assert provide(urls.vcek(chip.line, b"\xff" * 8, chip.tcb)) is None
    assert provide(urls.chain(ProductLine.MILAN, vlek=False)) is None
    assert provide(urls.cek(CHIP)) is None


def test_a_service_that_is_left_at_once_ends() -> None:
    with SimulatedKeyService(lambda _: None) as service:
        assert service.base_url.startswith("https://127.0.0.1:")
    assert service.stopping.is_set()
    assert service.targets == ()
