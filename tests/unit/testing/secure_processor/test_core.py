from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest

from sevkit.abi.firmware_status import FirmwareStatus
from sevkit.abi.product import Product, ProductLine
from sevkit.abi.report import FirmwareVersion
from sevkit.abi.tcb import TcbVersion, encode_tcb
from sevkit.errors import FormatError, UsageError
from sevkit.testing.secure_processor.core import DEFAULT_TCBS, AsidRange, Firmware

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.testing.secure_processor.processor import SecureProcessor

    Refusal = Callable[[Callable[[], object]], FirmwareStatus]


@pytest.mark.parametrize("line", [line for line in ProductLine if line.snp])
def test_firmware_without_a_tcb_version_gets_its_lines(line: ProductLine) -> None:
    tcb = Firmware().for_line(line).tcb
    assert tcb == DEFAULT_TCBS[line]
    assert (tcb.fmc is not None) is (line is ProductLine.TURIN)


def test_a_line_without_snp_has_no_tcb_version() -> None:
    assert Firmware().for_line(ProductLine.ROME).tcb is None


@pytest.mark.parametrize(
    ("line", "tcb"),
    [
        (ProductLine.MILAN, TcbVersion(1, 1, 1, 1, fmc=1)),
        (ProductLine.TURIN, TcbVersion(1, 1, 1, 1)),
        (ProductLine.GENOA, TcbVersion(1, 1, 256, 1)),
        (ProductLine.ROME, TcbVersion(1, 1, 1, 1)),
    ],
)
def test_a_tcb_version_that_the_line_cannot_have_is_refused(
    line: ProductLine, tcb: TcbVersion
) -> None:
    with pytest.raises(FormatError):
        Firmware(tcb=tcb).for_line(line)


@pytest.mark.parametrize("number", [0, 1, 6])
def test_a_report_version_that_no_firmware_makes_is_refused(number: int) -> None:
    with pytest.raises(UsageError, match=f"report version {number}"):
        Firmware(report_version=number).for_line(ProductLine.MILAN)


def test_ciphertext_is_hidden_only_by_firmware_that_can() -> None:
    with pytest.raises(UsageError, match="hiding"):
        Firmware(ciphertext_hiding=True).for_line(ProductLine.TURIN)


@pytest.mark.parametrize("version", [(256, 0, 0), (1, 55, 256), (1, -1, 0)])
def test_a_version_has_a_byte_for_each_part(version: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="impossible firmware"):
        Firmware(FirmwareVersion(*version)).for_line(ProductLine.MILAN)


@pytest.mark.parametrize(
    ("version", "asked", "made"),
    [
        ((1, 51, 3), None, 2),
        ((1, 55, 25), None, 2),  # AMD's published Genoa firmware
        ((1, 55, 30), None, 2),
        ((1, 55, 31), None, 3),
        ((1, 55, 40), None, 3),
        ((1, 57, 255), None, 3),
        ((1, 58, 0), None, 5),
        ((2, 0, 0), None, 5),
        ((1, 55, 31), 4, 4),
        ((1, 55, 40), 5, 5),
        ((1, 58, 1), 2, 2),
    ],
)
def test_reports_have_the_version_that_firmware_of_the_time_made(
    version: tuple[int, int, int], asked: int | None, made: int
) -> None:
    firmware = Firmware(FirmwareVersion(*version), report_version=asked)
    assert firmware.for_line(ProductLine.MILAN).reports == made


@pytest.mark.parametrize(("maximum", "lowest"), [(0, 1), (10, 0), (10, 12), (-1, 1)])
def test_impossible_asids_are_refused(maximum: int, lowest: int) -> None:
    with pytest.raises(UsageError, match="impossible machine"):
        AsidRange(maximum, lowest)


@pytest.mark.parametrize(
    ("asid", "sev", "encrypted_state"),
    [
        (0, False, False),
        (1, False, True),
        (4, False, True),
        (5, True, False),
        (8, True, False),
        (9, False, False),
    ],
)
def test_sev_takes_the_upper_asids_and_encrypted_state_the_lower(
    asid: int, sev: bool, encrypted_state: bool
) -> None:
    asids = AsidRange(8, 5)
    assert asids.allows(asid, encrypted_state=False) is sev
    assert asids.allows(asid, encrypted_state=True) is encrypted_state


def test_one_asid_is_a_range_too() -> None:
    assert AsidRange(1, 1).allows(1, encrypted_state=False)
    assert AsidRange(1, 2).allows(1, encrypted_state=True)


@pytest.mark.parametrize(("lowest", "encrypted_state"), [(1, False), (9, True)])
def test_a_range_may_be_empty(lowest: int, encrypted_state: bool) -> None:
    asids = AsidRange(8, lowest)
    allowed = [asids.allows(asid, encrypted_state=encrypted_state) for asid in range(1, 9)]
    assert allowed == [True] * 8
    assert not any(asids.allows(a, encrypted_state=not encrypted_state) for a in range(10))


@pytest.mark.parametrize(
    ("product", "blocked_from"),
    [
        (Product.MILAN, 0x1B),
        (Product.GENOA, 0x1B),
        (Product.BERGAMO_OR_SIENA, 0x1B),
        (Product.TURIN, 4),
        (Product.TURIN_DENSE, 4),
    ],
)
def test_sev_es_is_blocked_from_one_svn_on_and_only_beside_snp(
    processor_of: Callable[..., SecureProcessor], product: Product, blocked_from: int
) -> None:
    for svn in (0, blocked_from - 1, blocked_from, 255):
        tcb = replace(DEFAULT_TCBS[product.line], snp=svn)
        processor = processor_of(product, Firmware(tcb=tcb))
        assert not processor.core.sev_es_blocked
        processor.snp.init()
        assert processor.core.sev_es_blocked is (svn >= blocked_from)
        processor.snp.df_flush()
        processor.snp.shutdown()
        assert not processor.core.sev_es_blocked


@pytest.mark.parametrize("product", [Product.NAPLES, Product.ROME])
def test_chips_without_snp_never_block_sev_es(
    processor_of: Callable[..., SecureProcessor], product: Product
) -> None:
    assert not processor_of(product).core.sev_es_blocked


def test_an_asid_is_refused_in_the_order_of_the_specification(
    milan: SecureProcessor, refusal: Refusal
) -> None:
    core = milan.core

    def activate(asid: int, own: int | None = None, *, es: bool = False) -> FirmwareStatus:
        return refusal(lambda: core.activate("ACTIVATE", asid, 7, own, encrypted_state=es))

    core.activate("ACTIVATE", 5, 1, None, encrypted_state=False)
    core.soil_all()
    # each row has every fault of those below it, too, where it can have
    assert activate(0, 6, es=True) is FirmwareStatus.INVALID_ASID
    assert activate(9, 6, es=True) is FirmwareStatus.INVALID_ASID
    assert activate(5, 6, es=True) is FirmwareStatus.ASID_OWNED
    assert activate(6, 6, es=True) is FirmwareStatus.ACTIVE
    assert activate(6, es=True) is FirmwareStatus.DFFLUSH_REQUIRED
    core.df_flush("DF_FLUSH")
    assert activate(6, es=True) is FirmwareStatus.INVALID_ASID
    assert activate(4) is FirmwareStatus.INVALID_ASID
    core.activate("ACTIVATE", 6, 7, None, encrypted_state=False)
    assert dict(core.owned_asids) == {5: 1, 6: 7}


def test_an_asid_that_ran_needs_wbinvd_and_then_a_flush(
    milan: SecureProcessor, refusal: Refusal
) -> None:
    core = milan.core
    core.activate("ACTIVATE", 5, 1, None, encrypted_state=False)
    core.drop_asid(5, ran=True)
    assert refusal(lambda: core.df_flush("DF_FLUSH")) is FirmwareStatus.WBINVD_REQUIRED
    core.wbinvd()

    def again() -> None:
        core.activate("ACTIVATE", 5, 2, None, encrypted_state=False)

    assert refusal(again) is FirmwareStatus.DFFLUSH_REQUIRED
    cleanliness = [core.asids_clean]
    core.df_flush("DF_FLUSH")
    cleanliness.append(core.asids_clean)
    again()
    assert [*cleanliness, core.asids_clean] == [False, True, False]


def test_an_asid_that_never_ran_is_clean_at_once(milan: SecureProcessor) -> None:
    core = milan.core
    core.activate("ACTIVATE", 5, 1, None, encrypted_state=False)
    core.drop_asid(5, ran=False)
    assert core.asids_clean


def test_an_asid_in_use_is_not_soiled(milan: SecureProcessor) -> None:
    core = milan.core
    core.activate("ACTIVATE", 5, 1, None, encrypted_state=False)
    core.soil_all()
    core.drop_asid(5, ran=False)
    core.activate("ACTIVATE", 5, 2, None, encrypted_state=False)


def test_every_asid_is_soiled_from_the_first_to_the_last(
    milan: SecureProcessor, refusal: Refusal
) -> None:
    core = milan.core
    core.soil_all()
    for asid in range(1, 9):
        activate = partial(core.activate, "ACTIVATE", asid, asid, None, encrypted_state=asid < 5)
        assert refusal(activate) is FirmwareStatus.DFFLUSH_REQUIRED
    core.df_flush("DF_FLUSH")
    assert core.asids_clean


def test_owned_asids_are_for_reading(milan: SecureProcessor) -> None:
    with pytest.raises(TypeError):
        milan.core.owned_asids[1] = 1  # type: ignore[index]  # that it is refused is the point


@pytest.mark.parametrize("change", ["version", "bootloader", "microcode"])
def test_firmware_below_the_committed_one_is_refused(
    milan: SecureProcessor, refusal: Refusal, change: str
) -> None:
    firmware = milan.core.firmware
    assert firmware.tcb is not None
    older = {
        "version": replace(firmware, version=FirmwareVersion(1, 55, 39)),
        "bootloader": replace(firmware, tcb=replace(firmware.tcb, bootloader=3, microcode=255)),
        "microcode": replace(firmware, tcb=replace(firmware.tcb, bootloader=9, microcode=218)),
    }[change]
    assert refusal(lambda: milan.core.load("LOAD", older)) is FirmwareStatus.UPDATE_FAILED
    assert milan.core.firmware == firmware


def test_newer_firmware_runs_uncommitted(milan: SecureProcessor) -> None:
    before = milan.core.committed
    newer = Firmware(FirmwareVersion(1, 58, 2), TcbVersion(5, 0, 30, 220))
    milan.core.load("LOAD", newer)
    assert (milan.core.firmware, milan.core.committed) == (newer, before)
    milan.core.load("LOAD", before)  # as long as it is not committed there is a way back
    assert encode_tcb(ProductLine.MILAN, TcbVersion(4, 0, 24, 219)) == 0xDB18_0000_0000_0004


def test_the_log_keeps_the_latest_commands_only(milan: SecureProcessor) -> None:
    for _ in range(5000):
        milan.sev.status()
    milan.sev.get_id()
    assert len(milan.core.log) == 4096
    assert milan.core.log[-1] == "GET_ID"
