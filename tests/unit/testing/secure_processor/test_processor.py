from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from sevkit.abi.platform_status import PlatformState
from sevkit.abi.product import Product
from sevkit.testing.secure_processor.core import AsidRange
from sevkit.testing.secure_processor.processor import SecureProcessor

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.testing.secure_processor.identity import ChipIdentity


def test_a_new_processor_is_initialised_in_nothing(milan: SecureProcessor) -> None:
    assert milan.sev.status().state is PlatformState.UNINIT
    assert milan.snp.status().state is PlatformState.UNINIT
    assert (milan.sev_guests.handles, milan.snp_guests.contexts) == ((), ())
    assert not milan.faults.dead


def test_all_parts_are_one_chip(milan: SecureProcessor) -> None:
    assert milan.identity is milan.core.identity
    assert milan.lock is milan.core.lock
    milan.faults.kill()
    assert milan.core.faults.dead


def test_two_processors_share_nothing_but_what_they_were_made_of(
    chip_of: Callable[[Product], ChipIdentity],
) -> None:
    chip = chip_of(Product.MILAN)
    one, other = SecureProcessor(chip), SecureProcessor(chip)
    one.sev.init()
    assert other.sev.status().state is PlatformState.UNINIT
    other.sev.init()
    assert one.sev.get_id() == other.sev.get_id()
    assert one.sev.pek_csr() != other.sev.pek_csr()


def test_known_draws_make_a_known_guest(chip_of: Callable[[Product], ChipIdentity]) -> None:
    def launch() -> tuple[bytes, bytes]:
        draw = iter(range(256)).__next__
        processor = SecureProcessor(
            chip_of(Product.MILAN),
            asids=AsidRange(8, 5),
            draw=lambda size: bytes([draw()]) * size,
        )
        processor.snp.init()
        context = processor.snp_guests.gctx_create()
        processor.snp_guests.launch_start(context, 0x30000)
        guest = processor.snp_guests[context]
        return guest.report_id, guest.vmpcks[3].reveal()

    assert launch() == launch() == (bytes(32), b"\4" * 32)


def test_the_mailbox_is_held_by_one_thread_at_a_time(milan: SecureProcessor) -> None:
    milan.sev.init()
    done: list[str] = []

    def other() -> None:
        with milan.lock:
            done.append("other")

    thread = threading.Thread(target=other)
    with milan.lock:
        thread.start()
        with milan.lock:  # the holder may come again
            milan.sev.status()
        done.append("holder")
    thread.join(10)
    assert done == ["holder", "other"]
