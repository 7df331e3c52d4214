from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.abi.firmware_status import FirmwareStatus
from sevkit.abi.platform_status import PlatformState, SnpStatusBits, SnpStatusFlags
from sevkit.abi.product import Product
from sevkit.abi.report import FirmwareVersion
from sevkit.abi.tcb import TcbVersion
from sevkit.errors import UsageError
from sevkit.testing.secure_processor.core import Firmware
from sevkit.testing.secure_processor.identity import Vlek

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.testing.secure_processor.processor import SecureProcessor

    Refusal = Callable[[Callable[[], object]], FirmwareStatus]
    ProcessorOf = Callable[..., SecureProcessor]

S: Final = FirmwareStatus
#: What a Milan and a Turin chip have at first, raw: their bytes are in another order.
MILAN_RAW: Final = 0xDB_18_00000000_00_04
TURIN_RAW: Final = 0x50_000000_03_01_01_01


def newer(tcb: TcbVersion, **more: int) -> Firmware:
    """Return firmware that is newer in version and, by as much as is said, in components."""
    changed = {name: tcb.components[name] + by for name, by in more.items()}
    return Firmware(FirmwareVersion(1, 55, 41), replace(tcb, **changed))


def tcbs(processor: SecureProcessor) -> tuple[TcbVersion, TcbVersion, TcbVersion]:
    snp = processor.snp
    return snp.reported_tcb, snp.committed_tcb, snp.current_tcb


def make_vlek(processor: SecureProcessor, tcb: TcbVersion | None = None) -> Vlek:
    roots = processor.identity.snp_roots
    assert roots is not None
    return Vlek(roots, tcb or processor.snp.reported_tcb)


@pytest.mark.parametrize("product", [Product.NAPLES, Product.ROME])
def test_a_chip_without_snp_knows_none_of_the_commands(
    processor_of: ProcessorOf, refusal: Refusal, product: Product
) -> None:
    processor = processor_of(product)
    snp = processor.snp
    for command in (
        snp.init,
        snp.shutdown,
        snp.df_flush,
        snp.status,
        snp.config,
        snp.commit,
        partial(snp.vlek_load, bytes(432)),
        partial(snp.update_firmware, Firmware()),
        processor.snp_guests.gctx_create,
        partial(processor.messages.guest_request, 1, bytes(96)),
    ):
        assert refusal(command) is S.INVALID_COMMAND
    with pytest.raises(UsageError, match="no TCB version"):
        _ = snp.current_tcb


def test_snp_is_initialised_once_and_before_sev(milan: SecureProcessor, refusal: Refusal) -> None:
    milan.sev.init()
    assert refusal(milan.snp.init) is S.INVALID_PLATFORM_STATE
    milan.sev.shutdown()
    milan.snp.init()
    assert refusal(milan.snp.init) is S.INVALID_PLATFORM_STATE
    milan.sev.init()  # in this order both may be


def test_an_rmp_is_taken_over_only_from_the_same_firmware(
    milan: SecureProcessor, refusal: Refusal
) -> None:
    snp = milan.snp
    taking_over = partial(snp.init, rmp=False)
    assert refusal(taking_over) is S.RMP_INIT_REQUIRED
    snp.init()
    snp.df_flush()
    snp.shutdown()
    snp.init(rmp=False)
    snp.df_flush()
    snp.shutdown()
    snp.update_firmware(newer(snp.current_tcb, snp=1))
    assert refusal(taking_over) is S.RMP_INIT_REQUIRED
    snp.init()


def test_a_shutdown_that_gives_the_rmp_up_needs_a_new_one(
    snp: SecureProcessor, refusal: Refusal
) -> None:
    snp.snp.shutdown(iommu=True)
    assert snp.snp.status().bits == SnpStatusBits(0)
    assert refusal(partial(snp.snp.init, rmp=False)) is S.RMP_INIT_REQUIRED


def test_a_shutdown_needs_sev_down_and_every_asid_clean(
    milan: SecureProcessor, refusal: Refusal
) -> None:
    milan.snp.shutdown()  # nothing to do, and no mistake
    milan.snp.init()
    assert refusal(milan.snp.shutdown) is S.DFFLUSH_REQUIRED
    milan.snp.df_flush()
    milan.sev.init()
    assert refusal(milan.snp.shutdown) is S.INVALID_PLATFORM_STATE
    milan.sev.shutdown()
    assert refusal(milan.snp.shutdown) is S.DFFLUSH_REQUIRED
    milan.snp.df_flush()
    milan.snp.shutdown()
    assert milan.snp.status().state is PlatformState.UNINIT


def test_a_guest_with_an_asid_keeps_snp_up(snp: SecureProcessor, refusal: Refusal) -> None:
    guests = snp.snp_guests
    context = guests.gctx_create()
    guests.launch_start(context, 0x30000)
    guests.activate(context, 1)
    assert refusal(snp.snp.shutdown) is S.DFFLUSH_REQUIRED
    guests.decommission(context)
    snp.snp.shutdown()


def test_contexts_end_with_the_platform(snp: SecureProcessor, refusal: Refusal) -> None:
    guests = snp.snp_guests
    context = guests.gctx_create()
    guests.launch_start(context, 0x30000)
    snp.snp.shutdown()
    snp.snp.init()
    assert snp.snp.status().guest_count == 0
    assert refusal(lambda: guests.launch_start(context, 0x30000)) is S.INVALID_GUEST


def test_a_flush_waits_for_wbinvd(snp: SecureProcessor, refusal: Refusal) -> None:
    snp.core.activate("SNP_ACTIVATE", 1, -1, None, encrypted_state=True)
    snp.core.drop_asid(1, ran=True)
    assert refusal(snp.snp.df_flush) is S.WBINVD_REQUIRED
    snp.core.wbinvd()
    snp.snp.df_flush()


@pytest.mark.parametrize(
    ("product", "raw"),
    [(Product.MILAN, MILAN_RAW), (Product.TURIN, TURIN_RAW), (Product.TURIN_DENSE, TURIN_RAW)],
)
def test_status_is_there_in_any_state(
    processor_of: ProcessorOf, product: Product, raw: int
) -> None:
    snp = processor_of(product).snp
    before = snp.status()
    snp.init()
    after = snp.status()
    for status in (before, after):
        assert (status.api_major, status.api_minor, status.build_id) == (1, 55, 40)
        assert (status.current_tcb, status.reported_tcb) == (raw, raw)
        assert status.flags == SnpStatusFlags.FEATURE_INFO
        assert status.guest_count == 0
    assert (before.state, before.bits) == (PlatformState.UNINIT, SnpStatusBits(0))
    done = SnpStatusBits.RMP_INITIALIZED | SnpStatusBits.ALIAS_CHECK_COMPLETE
    assert (after.state, after.bits) == (PlatformState.INIT, done)


def test_status_says_what_the_firmware_can_and_does(processor_of: ProcessorOf) -> None:
    feature_info = SnpStatusFlags.FEATURE_INFO
    hiding = Firmware(ciphertext_hiding_capable=True, ciphertext_hiding=True, alias_check=False)
    snp = processor_of(Product.GENOA, hiding).snp
    snp.init()
    snp.config(mask_chip_id=True, mask_chip_key=True)
    status = snp.status()
    assert status.bits == SnpStatusBits.RMP_INITIALIZED
    assert status.flags == (
        SnpStatusFlags.MASK_CHIP_ID
        | SnpStatusFlags.MASK_CHIP_KEY
        | SnpStatusFlags.FEATURE_INFO
        | SnpStatusFlags.CIPHERTEXT_HIDING_CAP
        | SnpStatusFlags.CIPHERTEXT_HIDING_EN
    )
    for version, flags in (((1, 54, 255), SnpStatusFlags(0)), ((1, 55, 0), feature_info)):
        old = processor_of(Product.MILAN, Firmware(FirmwareVersion(*version))).snp
        assert old.status().flags == flags


def test_guests_are_counted_from_their_launch_on(snp: SecureProcessor) -> None:
    guests = snp.snp_guests
    counts = []
    first, second = guests.gctx_create(), guests.gctx_create()
    counts.append(snp.snp.status().guest_count)
    guests.launch_start(first, 0x30000)
    guests.launch_start(second, 0x30000)
    counts.append(snp.snp.status().guest_count)
    guests.decommission(first)
    counts.append(snp.snp.status().guest_count)
    assert counts == [0, 2, 1]
    assert snp.sev.status().guest_count == 0  # they are not SEV's


def test_at_first_all_tcb_versions_are_one(snp: SecureProcessor) -> None:
    assert len(set(tcbs(snp))) == 1


def test_an_update_moves_the_current_version_and_a_commit_the_rest(snp: SecureProcessor) -> None:
    old = snp.snp.current_tcb
    firmware = newer(old, bootloader=1, microcode=2)
    snp.snp.update_firmware(firmware)
    assert tcbs(snp) == (old, old, firmware.tcb)
    assert snp.core.committed.version.build == 40
    snp.snp.commit()
    assert tcbs(snp) == (firmware.tcb,) * 3
    assert snp.core.committed.version.build == 41
    snp.snp.commit()  # as often as one likes
    assert tcbs(snp) == (firmware.tcb,) * 3


def test_an_update_may_be_committed_at_once(snp: SecureProcessor, refusal: Refusal) -> None:
    old = snp.core.firmware
    firmware = newer(snp.snp.current_tcb, snp=1)
    snp.snp.update_firmware(firmware, commit=True)
    assert tcbs(snp) == (firmware.tcb,) * 3
    assert refusal(partial(snp.snp.update_firmware, old)) is S.UPDATE_FAILED


def test_until_a_commit_there_is_a_way_back(snp: SecureProcessor) -> None:
    old = snp.core.firmware
    snp.snp.update_firmware(newer(snp.snp.current_tcb, snp=1))
    snp.snp.update_firmware(old)
    assert len(set(tcbs(snp))) == 1


@pytest.mark.parametrize("name", ["bootloader", "tee", "snp", "microcode"])
def test_an_update_with_any_component_below_the_committed_is_refused(
    processor_of: ProcessorOf, refusal: Refusal, name: str
) -> None:
    processor = processor_of(firmware=Firmware(tcb=TcbVersion(9, 9, 9, 9)))
    processor.snp.init()
    others = {other: 200 for other in ("bootloader", "tee", "snp", "microcode") if other != name}
    lower = Firmware(FirmwareVersion(1, 56, 1), TcbVersion(**(others | {name: 8})))
    assert refusal(partial(processor.snp.update_firmware, lower)) is S.UPDATE_FAILED


def test_an_update_needs_sev_down(snp: SecureProcessor, refusal: Refusal) -> None:
    snp.sev.init()
    update = partial(snp.snp.update_firmware, newer(snp.snp.current_tcb))
    assert refusal(update) is S.INVALID_PLATFORM_STATE
    snp.sev.shutdown()
    update()


def test_an_impossible_update_is_a_usage_error(snp: SecureProcessor) -> None:
    with pytest.raises(UsageError):
        snp.snp.update_firmware(Firmware(report_version=9))


@pytest.mark.parametrize(
    ("product", "raw", "tcb"),
    [
        (Product.MILAN, 0xDA_17_00000000_00_03, TcbVersion(3, 0, 23, 218)),
        (Product.GENOA, 0x48_16_00000000_00_09, TcbVersion(9, 0, 22, 72)),
        (Product.TURIN, 0x4F_000000_02_01_00_01, TcbVersion(0, 1, 2, 79, fmc=1)),
    ],
)
def test_a_lower_tcb_version_is_reported_in_the_lines_byte_order(
    processor_of: ProcessorOf, product: Product, raw: int, tcb: TcbVersion
) -> None:
    snp = processor_of(product).snp
    snp.init()
    committed = snp.committed_tcb
    snp.config(raw)
    assert (snp.reported_tcb, snp.status().reported_tcb) == (tcb, raw)
    assert (snp.committed_tcb, snp.current_tcb) == (committed, committed)
    snp.config()
    assert snp.reported_tcb == committed


@pytest.mark.parametrize(
    ("product", "raw"),
    [
        (Product.MILAN, MILAN_RAW + 1),  # bootloader
        (Product.MILAN, MILAN_RAW + (1 << 8)),  # TEE
        (Product.MILAN, MILAN_RAW + (1 << 48)),  # SNP
        (Product.MILAN, MILAN_RAW + (1 << 56)),  # microcode
        (Product.MILAN, 0xDA_FF_00000000_00_00),  # one higher, though the whole is lower
        (Product.MILAN, 0x01_00_00000000_00_05),
        (Product.MILAN, 1 << 16),  # reserved bytes
        (Product.MILAN, 1 << 40),
        (Product.MILAN, TURIN_RAW),
        (Product.TURIN, TURIN_RAW + 1),  # FMC
        (Product.TURIN, TURIN_RAW + (1 << 8)),
        (Product.TURIN, TURIN_RAW + (1 << 16)),
        (Product.TURIN, TURIN_RAW + (1 << 24)),
        (Product.TURIN, TURIN_RAW + (1 << 56)),
        (Product.TURIN, 1 << 32),  # reserved
        (Product.TURIN, MILAN_RAW),
    ],
)
def test_a_tcb_version_above_the_committed_in_any_part_is_refused(
    processor_of: ProcessorOf, refusal: Refusal, product: Product, raw: int
) -> None:
    snp = processor_of(product).snp
    snp.init()
    before = snp.status()
    assert refusal(partial(snp.config, raw, mask_chip_id=True)) is S.INVALID_PARAM
    assert snp.status() == before


@pytest.mark.parametrize("raw", [-1, 1 << 64])
def test_a_raw_tcb_version_has_64_bits(snp: SecureProcessor, raw: int) -> None:
    with pytest.raises(UsageError, match="64 bits"):
        snp.snp.config(raw)


def test_what_runs_uncommitted_cannot_be_reported(snp: SecureProcessor, refusal: Refusal) -> None:
    firmware = newer(snp.snp.current_tcb, snp=1)
    snp.snp.update_firmware(firmware)
    raw = snp.snp.raw(snp.snp.current_tcb)
    assert refusal(partial(snp.snp.config, raw)) is S.INVALID_PARAM


def test_a_configured_version_does_not_follow_until_a_commit_drops_it(
    snp: SecureProcessor,
) -> None:
    old = snp.snp.current_tcb
    snp.snp.config()  # "the committed one", as it is now
    firmware = newer(old, snp=1)
    snp.snp.update_firmware(firmware)
    assert tcbs(snp) == (old, old, firmware.tcb)
    snp.snp.commit()
    assert tcbs(snp) == (firmware.tcb,) * 3


@pytest.mark.parametrize("iommu", [False, True])
def test_a_shutdown_keeps_the_reported_version_and_loses_the_vlek(
    snp: SecureProcessor, iommu: bool
) -> None:
    lower = replace(snp.snp.current_tcb, snp=1)
    snp.snp.config(snp.snp.raw(lower), mask_chip_id=True, mask_chip_key=True)
    snp.snp.vlek_load(snp.identity.seal_hashstick(make_vlek(snp)))
    snp.snp.shutdown(iommu=iommu)
    snp.snp.init()
    flags = snp.snp.status().flags
    masks = SnpStatusFlags.MASK_CHIP_ID | SnpStatusFlags.MASK_CHIP_KEY
    assert snp.snp.reported_tcb == lower
    assert flags & masks == (SnpStatusFlags(0) if iommu else masks)
    assert not flags & SnpStatusFlags.VLEK_EN


def test_masks_are_what_the_last_config_said(snp: SecureProcessor) -> None:
    seen = []
    for options in ({"mask_chip_id": True}, {"mask_chip_key": True}, {}):
        snp.snp.config(**options)
        flags = snp.snp.status().flags
        seen.append((SnpStatusFlags.MASK_CHIP_ID in flags, SnpStatusFlags.MASK_CHIP_KEY in flags))
    assert seen == [(True, False), (False, True), (False, False)]


def test_a_vlek_is_loaded_for_the_reported_tcb_only(snp: SecureProcessor, refusal: Refusal) -> None:
    current = snp.snp.current_tcb
    lower = replace(current, snp=1)
    sticks = [snp.identity.seal_hashstick(make_vlek(snp, tcb)) for tcb in (current, lower)]
    assert refusal(partial(snp.snp.vlek_load, sticks[1])) is S.BAD_SVN
    assert snp.snp.vlek_key is None
    snp.snp.vlek_load(sticks[0])
    assert snp.snp.status().flags & SnpStatusFlags.VLEK_EN
    snp.snp.config(snp.snp.raw(lower))
    assert refusal(partial(snp.snp.vlek_load, sticks[0])) is S.BAD_SVN
    assert snp.snp.status().flags & SnpStatusFlags.VLEK_EN  # the one that is loaded stays
    snp.snp.vlek_load(sticks[1])


def test_a_vlek_for_another_chip_is_refused(
    snp: SecureProcessor, processor_of: ProcessorOf, refusal: Refusal
) -> None:
    other = processor_of().identity
    stick = other.seal_hashstick(make_vlek(snp))
    assert refusal(partial(snp.snp.vlek_load, stick)) is S.BAD_MEASUREMENT


def test_a_hashsticks_tcb_is_looked_at_before_its_tag(
    snp: SecureProcessor, refusal: Refusal
) -> None:
    stick = bytearray(snp.identity.seal_hashstick(make_vlek(snp)))
    stick[0x10] ^= 1
    assert refusal(partial(snp.snp.vlek_load, bytes(stick))) is S.BAD_MEASUREMENT
    stick[0x190] ^= 1
    assert refusal(partial(snp.snp.vlek_load, bytes(stick))) is S.BAD_SVN


@pytest.mark.parametrize("offset", [0x0C, 0x19F])
def test_reserved_bytes_of_a_hashstick_come_first(
    snp: SecureProcessor, refusal: Refusal, offset: int
) -> None:
    stick = bytearray(432)
    stick[offset] = 1
    assert refusal(partial(snp.snp.vlek_load, bytes(stick))) is S.INVALID_PARAM


@pytest.mark.parametrize("size", [0, 431, 433])
def test_a_hashstick_has_432_bytes(snp: SecureProcessor, refusal: Refusal, size: int) -> None:
    assert refusal(partial(snp.snp.vlek_load, bytes(size))) is S.INVALID_PARAM


def test_config_and_commit_are_not_bound_to_a_state(milan: SecureProcessor) -> None:
    milan.snp.config(mask_chip_id=True)
    milan.snp.commit()
    assert milan.snp.status().flags & SnpStatusFlags.MASK_CHIP_ID
