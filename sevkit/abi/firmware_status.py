"""Status codes of AMD's SEV and SEV-SNP firmware, and the error that a refused command is.

Sources: 55766 chapter 4.2 and 56860 chapter 5.1 (STATUS), which share one number space; Linux'
``include/uapi/linux/psp-sev.h`` for the value that means that the firmware was never asked.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from sevkit.errors import FirmwareError


class FirmwareStatus(IntEnum):
    """What a command returns, by AMD's names."""

    SUCCESS = 0x00
    INVALID_PLATFORM_STATE = 0x01
    INVALID_GUEST_STATE = 0x02
    INVALID_CONFIG = 0x03
    INVALID_LEN = 0x04
    ALREADY_OWNED = 0x05
    INVALID_CERTIFICATE = 0x06
    POLICY_FAILURE = 0x07
    INACTIVE = 0x08
    INVALID_ADDRESS = 0x09
    BAD_SIGNATURE = 0x0A
    BAD_MEASUREMENT = 0x0B
    ASID_OWNED = 0x0C
    INVALID_ASID = 0x0D
    WBINVD_REQUIRED = 0x0E
    DFFLUSH_REQUIRED = 0x0F
    INVALID_GUEST = 0x10
    INVALID_COMMAND = 0x11
    ACTIVE = 0x12
    HWERROR_PLATFORM = 0x13
    HWERROR_UNSAFE = 0x14
    UNSUPPORTED = 0x15
    INVALID_PARAM = 0x16
    RESOURCE_LIMIT = 0x17
    SECURE_DATA_INVALID = 0x18
    INVALID_PAGE_SIZE = 0x19
    INVALID_PAGE_STATE = 0x1A
    INVALID_MDATA_ENTRY = 0x1B
    INVALID_PAGE_OWNER = 0x1C
    AEAD_OFLOW = 0x1D
    RB_MODE_EXITED = 0x1F
    RMP_INIT_REQUIRED = 0x20
    BAD_SVN = 0x21
    BAD_VERSION = 0x22
    SHUTDOWN_REQUIRED = 0x23
    UPDATE_FAILED = 0x24
    RESTORE_REQUIRED = 0x25
    RMP_INIT_FAILED = 0x26
    INVALID_KEY = 0x27
    SHUTDOWN_INCOMPLETE = 0x28
    INCORRECT_BUFFER_LENGTH = 0x30
    EXPAND_BUFFER_LENGTH_REQUEST = 0x31
    SPDM_REQUEST = 0x32
    SPDM_ERROR = 0x33


#: ``error`` of an ioctl for which Linux did not call the firmware (SEV_RET_NO_FW_CALL), unsigned.
NO_FW_CALL: Final = 0xFFFF_FFFF


class CommandError(FirmwareError):
    """The firmware refused ``command`` with ``status``."""

    def __init__(self, command: str, status: FirmwareStatus, reason: str = "") -> None:
        why = f": {reason}" if reason else ""
        super().__init__(f"{command} returned {status:#04x} {status.name}{why}")
        self.command = command
        self.status = status
        self.reason = reason
