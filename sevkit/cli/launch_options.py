"""Options that describe a launch, and how their values are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

import click

from sevkit.cli.files import FIRMWARE_LIMIT, hash_file, read_file
from sevkit.cli.messages import warn
from sevkit.errors import UsageError
from sevkit.measure.kernel_hashes import NO_INITRD, KernelHashes, compute_cmdline_hash
from sevkit.measure.terms import Mode

_Command = TypeVar("_Command", bound=Callable[..., object])

#: Linux on x86 keeps this many bytes of a command line; what is measured may be longer.
_LINUX_CMDLINE: Final = 2047
SNP_ACTIVE: Final = 1


def check_features(mode: Mode, given: Iterable[int]) -> None:
    """Refuse SEV_FEATURES that no SNP guest has; see ``features_of`` for the other modes."""
    for value in given:
        if mode is Mode.SNP and not value & SNP_ACTIVE:
            raise UsageError(
                f"--guest-features {value:#x} cannot be those of a {mode} guest",
                hint="bit 0 (SNPActive) is set for snp, and never for sev-es",
            )


def features_of(mode: Mode, given: int | None) -> int:
    """Return the SEV_FEATURES that a digest of this mode holds; warns where others were given.

    Other tools take one value for all modes and drop it where it has no place, so that scripts
    pass SNP's for SEV and SEV-ES too. Plain SEV measures no VMSA, and KVM never sets SNPActive in
    one of SEV-ES: both are measured as 0.
    """
    if given is None:
        return SNP_ACTIVE if mode is Mode.SNP else 0
    if given == 0 or mode is Mode.SNP or (mode is Mode.SEV_ES and not given & SNP_ACTIVE):
        return given
    warn(f"--guest-features {given:#x} are those of an SNP guest: not part of this {mode} digest")
    return 0


def read_firmware(path: str) -> bytes:
    """Return a firmware image, at most 64 MiB."""
    return read_file(path, limit=FIRMWARE_LIMIT)


def check_boot_options(kernel: str | None, initrd: str | None, cmdline: str | None) -> None:
    """Refuse a boot that QEMU would not measure; opens no file."""
    if kernel is None and (initrd is not None or cmdline is not None):
        option = "--initrd" if initrd is not None else "--cmdline"
        raise UsageError(
            f"{option} without --kernel",
            hint="QEMU measures initrd and command line only with the kernel",
        )
    if kernel == "":
        raise UsageError("--kernel is empty", hint="leave it out to measure no kernel")
    if cmdline is not None:
        compute_cmdline_hash(as_typed(cmdline))


def as_typed(cmdline: str) -> str:
    """Return a command line as the bytes of argv have it in UTF-8, whatever the locale made of it.

    QEMU measures those bytes. Raises ``UsageError`` if they are not UTF-8.
    """
    try:
        return os.fsencode(cmdline).decode()
    except UnicodeError as error:
        raise UsageError("the command line is not UTF-8") from error


def hash_boot(kernel: str | None, initrd: str | None, cmdline: str | None) -> KernelHashes | None:
    """Return the hashes of a measured boot, or None without a kernel; files are streamed."""
    check_boot_options(kernel, initrd, cmdline)
    if kernel is None:
        return None
    cmdline = as_typed(cmdline or "")
    if len(cmdline.encode()) > _LINUX_CMDLINE:
        warn(f"the command line is longer than the {_LINUX_CMDLINE} bytes that Linux keeps")
    return KernelHashes(
        _hash_boot_file("--kernel", kernel),
        NO_INITRD if initrd is None else _hash_boot_file("--initrd", initrd),
        compute_cmdline_hash(cmdline),
    )


def _hash_boot_file(option: str, path: str) -> bytes:
    digest, size = hash_file(path)
    if size == 0 and path != os.devnull:
        raise UsageError(
            f"{option} {path} is empty",
            hint=f"to measure an empty file on purpose: {option} {os.devnull}",
        )
    if size == 0:
        warn(f"{option} {path}: an empty file is measured")
    return digest


def mode_option(command: _Command) -> _Command:
    """Add the ``--mode`` option."""
    choice = click.Choice([mode.value for mode in Mode])
    return click.option("--mode", type=choice, help="Technology of the guest.")(command)
