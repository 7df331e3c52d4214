from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from sevkit.abi.firmware_status import FirmwareStatus
from sevkit.abi.platform_status import PlatformState
from sevkit.testing.driver_commands import Call, Commands

if TYPE_CHECKING:
    from sevkit.testing.secure_processor.processor import SecureProcessor

MINE = 77


class NoMemory:
    """A process with nothing mapped."""

    def read(self, address: int, size: int) -> bytes:
        raise OSError(errno.EFAULT, "unmapped")

    def write(self, address: int, data: bytes) -> None:
        raise OSError(errno.EFAULT, "unmapped")


def new_call(*, writable: bool = True) -> Call:
    return Call(0x1000, NoMemory(), writable, MINE)


def commands(processor: SecureProcessor, kernel: tuple[int, int]) -> Commands:
    return Commands(processor, kernel=kernel, es=True, snp=True)


def test_a_call_reaches_the_callers_memory_and_no_further() -> None:
    with pytest.raises(OSError, match="unmapped"):
        new_call().read(4)
    with pytest.raises(OSError, match="unmapped"):
        new_call().write(b"x")


def test_a_call_may_need_a_file_that_is_open_for_writing() -> None:
    new_call().need_write()
    with pytest.raises(PermissionError):
        new_call(writable=False).need_write()


def test_a_commands_answer_is_returned_and_its_status_kept(milan: SecureProcessor) -> None:
    call = new_call()
    assert commands(milan, (6, 12)).issue(call, milan.sev.get_id) == milan.identity.chip_id
    assert call.error == 0


def test_a_refusal_is_an_input_output_error_with_its_status(milan: SecureProcessor) -> None:
    call = new_call()
    with pytest.raises(OSError, match="INVALID_PLATFORM_STATE") as caught:
        commands(milan, (6, 12)).issue(call, milan.sev.pek_gen)
    assert (caught.value.errno, call.error) == (errno.EIO, 1)


def test_silence_is_a_timeout_once_and_then_nobody_is_asked(milan: SecureProcessor) -> None:
    milan.faults.hang("GET_ID")
    issue = commands(milan, (6, 12)).issue
    first, second = new_call(), new_call()
    with pytest.raises(TimeoutError):
        issue(first, milan.sev.get_id)
    with pytest.raises(OSError, match="dead") as caught:
        issue(second, milan.sev.get_id)
    assert (first.error, caught.value.errno, second.error) == (0, errno.EBUSY, MINE)
    assert list(milan.core.log) == ["GET_ID"]


@pytest.mark.parametrize(
    ("kernel", "left"), [((6, 15), PlatformState.INIT), ((6, 16), PlatformState.UNINIT)]
)
def test_what_was_brought_up_is_taken_down_whatever_happened_in_between(
    milan: SecureProcessor, kernel: tuple[int, int], left: PlatformState
) -> None:
    issuer = commands(milan, kernel)
    states: list[PlatformState] = []

    def fail() -> None:
        with issuer.initialized(new_call()):
            states.append(milan.sev.state)
            raise OSError(errno.EFAULT, "in between")

    with pytest.raises(OSError, match="in between"):
        fail()
    assert [*states, milan.sev.state] == [PlatformState.INIT, left]
    assert not milan.core.snp_initialized


def test_an_implicit_init_that_succeeds_leaves_the_callers_error_from_6_16_on(
    milan: SecureProcessor,
) -> None:
    new, old = new_call(), new_call()
    with commands(milan, (6, 16)).initialized(new):
        assert new.error == MINE
    with commands(milan, (6, 15)).initialized(old):
        assert old.error == 0


def test_a_shutdown_that_fails_is_not_the_callers_concern(milan: SecureProcessor) -> None:
    milan.faults.fail("SHUTDOWN", FirmwareStatus.HWERROR_UNSAFE)
    milan.faults.fail("SNP_SHUTDOWN", FirmwareStatus.HWERROR_UNSAFE)
    call = new_call()
    issuer = commands(milan, (6, 16))
    with issuer.initialized(call):
        issuer.issue(call, milan.sev.pdh_gen)
    assert call.error == 0
    assert milan.core.snp_initialized


def test_snp_alone_is_brought_up_for_its_own_commands(milan: SecureProcessor) -> None:
    issuer = commands(milan, (6, 16))
    seen = []
    with issuer.snp_initialized(new_call()):
        seen.append((milan.core.snp_initialized, milan.sev.state))
    seen.append((milan.core.snp_initialized, milan.sev.state))
    assert seen == [(True, PlatformState.UNINIT), (False, PlatformState.UNINIT)]
    milan.snp.init()
    with issuer.snp_initialized(new_call()):
        pass
    assert milan.core.snp_initialized  # it was up before
