"""The table of hashes by which a measured direct boot ties kernel, initrd and command line in.

QEMU (``kernel-hashes=on``) writes it where the firmware says, and the launch measures it; the
firmware then refuses files that do not match. Source: QEMU ``sev_add_kernel_loader_hashes`` and
edk2 ``OvmfPkg/AmdSev``. 176 bytes: header, three entries in this order, zeros up to 16.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, final
from uuid import UUID

from sevkit.abi.layout import Layout, integer, raw, zero
from sevkit.errors import FormatError, UsageError

_TABLE: Final = UUID("9438d606-4f22-4cc9-b479-a793d411fd21").bytes_le
_CMDLINE: Final = UUID("97d02dd8-bd20-4c94-aa78-e7714d36ab2a").bytes_le
_INITRD: Final = UUID("44baf731-3a2f-4bd7-9af1-41e29169781d").bytes_le
_KERNEL: Final = UUID("4de79437-abd2-427f-b835-d5b172d2045b").bytes_le

TABLE_SIZE: Final = 176
_TABLE_LENGTH: Final = 168
_ENTRY_LENGTH: Final = 50

LAYOUT: Final = Layout(
    "SEV hash table",
    TABLE_SIZE,
    (
        raw(0, 16, "guid"),
        integer(16, 2, "length"),
        raw(18, 16, "cmdline_guid"),
        integer(34, 2, "cmdline_length"),
        raw(36, 32, "cmdline"),
        raw(68, 16, "initrd_guid"),
        integer(84, 2, "initrd_length"),
        raw(86, 32, "initrd"),
        raw(118, 16, "kernel_guid"),
        integer(134, 2, "kernel_length"),
        raw(136, 32, "kernel"),
        zero(168, 8),
    ),
)

#: SHA-256 of no bytes: what is measured for the initrd of a guest that has none.
NO_INITRD: Final = hashlib.sha256(b"").digest()


@final
@dataclass(frozen=True, slots=True)
class KernelHashes:
    """SHA-256 of the kernel file, the initrd file and the command line with its closing NUL."""

    kernel: bytes
    initrd: bytes
    cmdline: bytes


def compute_cmdline_hash(cmdline: str) -> bytes:
    """Return SHA-256 over the command line in UTF-8 and one NUL.

    Nothing is trimmed: QEMU hashes what it was given, so a space or line feed at the end counts.
    Raises ``UsageError`` for a NUL inside, which QEMU cannot be given, and for lone surrogates.
    """
    if "\0" in cmdline:
        raise UsageError("the command line has a NUL inside, which no hypervisor can pass on")
    try:
        data = cmdline.encode()
    except UnicodeEncodeError as error:
        raise UsageError("the command line is not UTF-8") from error
    return hashlib.sha256(data + b"\0").digest()


def compute_kernel_hashes(
    kernel: bytes, *, initrd: bytes | None = None, cmdline: str | None = None
) -> KernelHashes:
    """Return the hashes of a direct boot; an absent command line counts as an empty one.

    ``kernel`` is the file as it lies on disk. Raises ``UsageError`` as ``compute_cmdline_hash``.
    """
    return KernelHashes(
        kernel=hashlib.sha256(kernel).digest(),
        initrd=NO_INITRD if initrd is None else hashlib.sha256(initrd).digest(),
        cmdline=compute_cmdline_hash(cmdline or ""),
    )


def encode_kernel_hashes(hashes: KernelHashes) -> bytes:
    """Return the 176-byte table; raises ``FormatError`` for a hash that is not 32 bytes."""
    return LAYOUT.encode(
        {
            "guid": _TABLE,
            "length": _TABLE_LENGTH,
            "cmdline_guid": _CMDLINE,
            "cmdline_length": _ENTRY_LENGTH,
            "cmdline": hashes.cmdline,
            "initrd_guid": _INITRD,
            "initrd_length": _ENTRY_LENGTH,
            "initrd": hashes.initrd,
            "kernel_guid": _KERNEL,
            "kernel_length": _ENTRY_LENGTH,
            "kernel": hashes.kernel,
        }
    )


def encode_kernel_hashes_page(hashes: KernelHashes, offset: int) -> bytes:
    """Return the 4096-byte SNP page with the table at ``offset`` and zeros around it.

    Raises ``FormatError`` if the table does not fit behind ``offset``.
    """
    if not 0 <= offset <= 4096 - TABLE_SIZE:
        raise FormatError("SEV hash table", f"does not fit its page at {offset:#x}", offset=offset)
    return (bytes(offset) + encode_kernel_hashes(hashes)).ljust(4096, b"\0")
