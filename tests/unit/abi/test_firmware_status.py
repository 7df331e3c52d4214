from __future__ import annotations

import pytest

from sevkit.abi.firmware_status import NO_FW_CALL, CommandError, FirmwareStatus
from sevkit.errors import FirmwareError, UndecidedError


@pytest.mark.parametrize(
    ("value", "name"),
    [  # Linux, include/uapi/linux/psp-sev.h
        (0x00, "SUCCESS"),
        (0x01, "INVALID_PLATFORM_STATE"),
        (0x04, "INVALID_LEN"),
        (0x05, "ALREADY_OWNED"),
        (0x0B, "BAD_MEASUREMENT"),
        (0x0F, "DFFLUSH_REQUIRED"),
        (0x12, "ACTIVE"),
        (0x15, "UNSUPPORTED"),
        (0x16, "INVALID_PARAM"),
        (0x18, "SECURE_DATA_INVALID"),
        (0x1D, "AEAD_OFLOW"),
        (0x1F, "RB_MODE_EXITED"),
        (0x20, "RMP_INIT_REQUIRED"),
        (0x21, "BAD_SVN"),
        (0x27, "INVALID_KEY"),
        (0x28, "SHUTDOWN_INCOMPLETE"),
        (0x30, "INCORRECT_BUFFER_LENGTH"),
        (0x33, "SPDM_ERROR"),
    ],
)
def test_codes_have_linuxs_numbers(value: int, name: str) -> None:
    assert FirmwareStatus(value).name == name


@pytest.mark.parametrize("value", [0x1E, 0x29, 0x2F, 0x34, NO_FW_CALL])
def test_numbers_that_no_status_has_are_none(value: int) -> None:
    with pytest.raises(ValueError, match="is not a valid FirmwareStatus"):
        FirmwareStatus(value)


def test_no_firmware_call_is_minus_one_unsigned() -> None:
    assert NO_FW_CALL == -1 & 0xFFFF_FFFF


def test_a_refused_command_names_itself_its_status_and_why() -> None:
    error = CommandError("ACTIVATE", FirmwareStatus.ASID_OWNED, "by guest 3")
    assert error.message == "ACTIVATE returned 0x0c ASID_OWNED: by guest 3"
    assert (error.command, error.status, error.reason) == ("ACTIVATE", 0x0C, "by guest 3")


def test_a_refused_command_without_a_reason_says_none() -> None:
    error = CommandError("PEK_GEN", FirmwareStatus.INVALID_PLATFORM_STATE)
    assert error.message == "PEK_GEN returned 0x01 INVALID_PLATFORM_STATE"


def test_what_firmware_refuses_could_not_be_found_out() -> None:
    assert issubclass(CommandError, FirmwareError)
    assert CommandError.exit_code == UndecidedError.exit_code == 4
