from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sevkit.abi.firmware_status import CommandError, FirmwareStatus
from sevkit.errors import FirmwareError
from sevkit.testing.secure_processor.faults import NoAnswer

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.testing.secure_processor.processor import SecureProcessor

    Refusal = Callable[[Callable[[], object]], FirmwareStatus]


def test_a_command_fails_as_often_as_it_was_told(milan: SecureProcessor, refusal: Refusal) -> None:
    milan.faults.fail("GET_ID", FirmwareStatus.HWERROR_PLATFORM, times=2)
    for _ in range(2):
        assert refusal(milan.sev.get_id) is FirmwareStatus.HWERROR_PLATFORM
    assert len(milan.sev.get_id()) == 64


def test_a_command_fails_until_the_fault_is_healed(
    milan: SecureProcessor, refusal: Refusal
) -> None:
    milan.faults.fail("GET_ID", FirmwareStatus.HWERROR_UNSAFE)
    for _ in range(3):
        assert refusal(milan.sev.get_id) is FirmwareStatus.HWERROR_UNSAFE
    milan.faults.heal()
    assert milan.sev.get_id()


def test_other_commands_go_on(milan: SecureProcessor) -> None:
    milan.faults.fail("GET_ID", FirmwareStatus.HWERROR_UNSAFE)
    assert milan.sev.status().build == 40


def test_faults_of_one_command_are_met_in_their_order(
    milan: SecureProcessor, refusal: Refusal
) -> None:
    milan.faults.fail("GET_ID", FirmwareStatus.INVALID_LEN, times=1)
    milan.faults.fail("GET_ID", FirmwareStatus.UNSUPPORTED, times=1)
    assert refusal(milan.sev.get_id) is FirmwareStatus.INVALID_LEN
    assert refusal(milan.sev.get_id) is FirmwareStatus.UNSUPPORTED
    assert milan.sev.get_id()


def test_an_injected_refusal_says_so(milan: SecureProcessor) -> None:
    milan.faults.fail("GET_ID", FirmwareStatus.HWERROR_UNSAFE)
    with pytest.raises(CommandError, match="injected"):
        milan.sev.get_id()


def test_a_fault_comes_before_everything_else_and_changes_nothing(
    milan: SecureProcessor, refusal: Refusal
) -> None:
    milan.faults.fail("PEK_GEN", FirmwareStatus.HWERROR_PLATFORM, times=1)
    assert refusal(milan.sev.pek_gen) is FirmwareStatus.HWERROR_PLATFORM
    assert refusal(milan.sev.pek_gen) is FirmwareStatus.INVALID_PLATFORM_STATE


def test_a_command_that_hangs_leaves_the_processor_dead(milan: SecureProcessor) -> None:
    milan.faults.hang("GET_ID")
    milan.sev.status()
    with pytest.raises(NoAnswer, match="GET_ID: the secure processor did not answer") as caught:
        milan.sev.get_id()
    assert "booting" in caught.value.hint
    assert milan.faults.dead
    with pytest.raises(NoAnswer, match="PLATFORM_STATUS: the secure processor is dead"):
        milan.sev.status()


def test_a_killed_processor_answers_nothing_until_it_is_healed(milan: SecureProcessor) -> None:
    milan.faults.kill()
    for command in (milan.sev.status, milan.sev.init, milan.snp.status, milan.snp.init):
        with pytest.raises(NoAnswer):
            command()
    milan.faults.heal()
    assert not milan.faults.dead
    milan.sev.init()


def test_no_answer_is_no_verdict() -> None:
    assert issubclass(NoAnswer, FirmwareError)


def test_lengths_are_misreported_by_name_until_healed(milan: SecureProcessor) -> None:
    milan.faults.misreport_length("PEK_CSR", 17)
    milan.faults.misreport_length("PEK_CSR", 18)
    assert milan.faults.lengths == {"PEK_CSR": 18}
    milan.faults.heal()
    assert milan.faults.lengths == {}
