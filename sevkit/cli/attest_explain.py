"""``sevkit attest explain``: which parameters would produce a digest."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import sys
from typing import TYPE_CHECKING, Final

import click

from sevkit.cli.base import Command, settings
from sevkit.cli.files import refuse_shared_stdin
from sevkit.cli.launch_options import (
    as_typed,
    check_boot_options,
    check_features,
    features_of,
    hash_boot,
    mode_option,
    read_firmware,
)
from sevkit.cli.messages import warn
from sevkit.cli.values import HexNumber, VcpuRange
from sevkit.errors import FormatError, UsageError
from sevkit.measure.explain import (
    KNOWN_SIGNATURES,
    NO_KERNEL_HASHES,
    SEV_ES_FEATURES,
    SNP_FEATURES,
    Boot,
    Explanation,
    Firmware,
    Match,
    Space,
    explain,
    size_of,
)
from sevkit.measure.kernel_hashes import KernelHashes, compute_cmdline_hash
from sevkit.measure.terms import MAX_VCPUS, Era, Mode, Vmm
from sevkit.measure.vcpu import measures_cpu, names_of_signature, signature_of_model

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA: Final = "sevkit.io/explanation/v1"
_SIZES: Final = {Mode.SEV: 32, Mode.SEV_ES: 32, Mode.SNP: 48}
_PROGRESS_STEP: Final = 50_000


@click.command(cls=Command, short_help="Find what would produce a digest.")
@click.argument("digest")
@mode_option
@click.option(
    "--firmware", required=True, multiple=True, metavar="FILE", help="Candidate; may be repeated."
)
@click.option("--vcpus", type=VcpuRange(), help="vCPU counts to try.  [default: 1-512]")
@click.option("--vcpu-type", multiple=True, metavar="MODEL", help="Try only these CPU models.")
@click.option(
    "--vcpu-sig", multiple=True, type=HexNumber(32), help="Try only these CPUID signatures."
)
@click.option(
    "--era", type=click.Choice([era.value for era in Era]), help="SEV-ES: try only this era."
)
@click.option("--kernel", metavar="FILE", help="Try with these kernel hashes, and without any.")
@click.option("--initrd", metavar="FILE", help="Initrd that goes with --kernel.")
@click.option("--cmdline", metavar="TEXT", help="Command line; small variants are tried too.")
@click.option(
    "--guest-features", multiple=True, type=HexNumber(64), help="Try only these SEV_FEATURES."
)
@click.option(
    "--vmm",
    type=click.Choice([vmm.value for vmm in Vmm]),
    help="SNP: try only this hypervisor.",
)
def command(
    *,
    digest: str,
    mode: str | None,
    firmware: tuple[str, ...],
    vcpus: tuple[int, int] | None,
    vcpu_type: tuple[str, ...],
    vcpu_sig: tuple[int, ...],
    era: str | None,
    kernel: str | None,
    initrd: str | None,
    cmdline: str | None,
    guest_features: tuple[int, ...],
    vmm: str | None,
) -> int:
    """Find which parameters would produce DIGEST (hex or base64).

    What is given is fixed, the rest is searched: CPU signatures, vCPU counts, guest features,
    register eras, hypervisors, small variants of the command line. An explanation is no
    acceptance: it says what the host may have done, and whether you accept that is yours to say.
    Exit 0 with the parameters that fit, 1 if nothing in the space does.

    \b
    Example:
      sevkit attest explain 803f69… --mode snp --firmware OVMF.amdsev.fd --firmware OVMF-old.fd
    """  # noqa: D301  # \b is click's mark for lines kept as they are
    if mode is None:
        raise UsageError("--mode is missing", hint="--mode sev, sev-es or snp")
    chosen = Mode(mode)
    wanted = _digest(digest, chosen)
    check_boot_options(kernel, initrd, cmdline)
    refuse_shared_stdin(*firmware, kernel, initrd)
    if era is not None and chosen is not Mode.SEV_ES:
        raise UsageError(f"--era has no meaning for --mode {chosen}")
    if vmm not in {None, Vmm.QEMU.value} and chosen is not Mode.SNP:
        raise UsageError(f"--vmm has no meaning for --mode {chosen}")
    check_features(chosen, guest_features)
    named = (*(signature_of_model(name) for name in vcpu_type), *vcpu_sig)
    first, last = vcpus or (1, MAX_VCPUS)
    space = Space(
        chosen,
        tuple(Firmware(path, read_firmware(path)) for path in dict.fromkeys(firmware)),
        _boots(hash_boot(kernel, initrd, cmdline), as_typed(cmdline or "")),
        _vmms(chosen, vmm),
        _eras(chosen, era),
        tuple(dict.fromkeys(features_of(chosen, value) for value in guest_features))
        or (SNP_FEATURES if chosen is Mode.SNP else SEV_ES_FEATURES),
        tuple(dict.fromkeys(named)) or KNOWN_SIGNATURES,
        first,
        last,
    )
    found = explain(space, wanted, _progress(size_of(space)))
    _clear()
    for reason in found.skipped:
        warn(f"not tried: {reason}")
    if found.tried == 0:
        raise FormatError("firmware", "no candidate can be measured in this mode")
    _show(wanted, chosen, found)
    return 0 if found.match is not None else 1


def _digest(text: str, mode: Mode) -> bytes:
    size = _SIZES[mode]
    try:
        # Hex wins: 64 hex digits would also be base64, of 48 bytes that nobody meant.
        is_hex = set(text) <= set("0123456789abcdefABCDEF")
        data = bytes.fromhex(text) if is_hex else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        data = b""
    if len(data) == size:
        return data
    hint = f"a {mode} digest has {size} bytes: {2 * size} hex digits, or base64"
    if mode is not Mode.SNP:
        hint += "; what the host reports is an HMAC over it, see: sevkit attest launch"
    raise UsageError(f"DIGEST is not a {mode} launch digest", hint=hint)


def _boots(hashes: KernelHashes | None, cmdline: str) -> tuple[Boot, ...]:
    if hashes is None:
        return (NO_KERNEL_HASHES,)
    variants = {
        "kernel hashes as given": hashes.cmdline,
        "command line with a line feed at its end": compute_cmdline_hash(cmdline + "\n"),
        "command line with a space at its end": compute_cmdline_hash(cmdline + " "),
        "command line without white space at its ends": compute_cmdline_hash(cmdline.strip()),
        "command line without its closing NUL": hashlib.sha256(cmdline.encode()).digest(),
        "empty command line": compute_cmdline_hash(""),
    }
    boots: dict[bytes, Boot] = {}
    for label, digest in variants.items():
        boots.setdefault(digest, Boot(label, KernelHashes(hashes.kernel, hashes.initrd, digest)))
    given, *others = boots.values()
    return (given, NO_KERNEL_HASHES, *others)


def _vmms(mode: Mode, vmm: str | None) -> tuple[Vmm, ...]:
    if vmm is not None:
        return (Vmm(vmm),)
    return tuple(Vmm) if mode is Mode.SNP else (Vmm.QEMU,)


def _eras(mode: Mode, era: str | None) -> tuple[Era, ...]:
    if mode is not Mode.SEV_ES:
        return (Era.INIT2,)
    return (Era(era),) if era is not None else (Era.INIT, Era.INIT2)


def _on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _progress(total: int) -> Callable[[int], None] | None:
    if not _on_terminal():
        return None
    shown = 0

    def show(tried: int) -> None:
        nonlocal shown
        if tried - shown >= _PROGRESS_STEP:
            shown = tried
            click.echo(f"\rsevkit: tried {tried} of {total}", err=True, nl=False)

    return show


def _clear() -> None:
    if _on_terminal():
        click.echo("\r\x1b[K", err=True, nl=False)


def _parameters(match: Match, mode: Mode) -> dict[str, str | int | list[str]]:
    found: dict[str, str | int | list[str]] = {"firmware": match.firmware, "boot": match.boot}
    if match.registers is None or match.vcpus is None:
        return found
    registers = match.registers
    found |= {"vcpus": match.vcpus, "guest_features": f"{registers.sev_features:#x}"}
    if mode is Mode.SEV_ES:
        found["era"] = registers.era.value
    else:
        found["vmm"] = registers.vmm.value
    if measures_cpu(registers.vmm):
        found["vcpu_signature"] = f"{registers.signature:#x}"
        found["cpu"] = list(names_of_signature(registers.signature))
    return found


def _show(wanted: bytes, mode: Mode, found: Explanation) -> None:
    parameters = None if found.match is None else _parameters(found.match, mode)
    if settings().json:
        document = {
            "schema": SCHEMA,
            "digest": wanted.hex(),
            "mode": mode.value,
            "found": parameters is not None,
            "tried": found.tried,
            "parameters": parameters,
            "skipped": list(found.skipped),
        }
        click.echo(json.dumps(document))
    elif parameters is None:
        click.echo(f"none of {found.tried} digests fits")
    else:
        for key, value in parameters.items():
            text = ", ".join(value) if isinstance(value, list) else value
            click.echo(f"{key}\t{text}")
