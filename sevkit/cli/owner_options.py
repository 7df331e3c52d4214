"""What a guest owner says on the command line: a GuestOwner file, or options that say the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sevkit.abi.secret_packet import TABLE_GUID, parse_guid
from sevkit.cli.files import read_file, warn_if_exposed
from sevkit.cli.values import FirmwareVersion, GuestPolicy, HexNumber, Sha256Hex, VcpuRange
from sevkit.errors import FormatError, UsageError
from sevkit.guest_owner.owner import Files, Owner, load_owner
from sevkit.guest_owner.owner_file import LIMIT, RISKS, OwnerFile, parse_owner_file
from sevkit.kubevirt.manifests import GUEST_POLICIES
from sevkit.measure.sweep import Cpu
from sevkit.measure.terms import Mode
from sevkit.measure.vcpu import signature_of_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

_MODES: Final = {policy: mode for mode, policy in GUEST_POLICIES.items() if mode is not Mode.SNP}


def _is_kubevirts(policy: int) -> None:
    if policy not in _MODES:
        raise UsageError(f"{policy:#x} is no policy of KubeVirt's: 1 for SEV, 5 for SEV-ES")


#: Options that say what a GuestOwner file says. Those after ``--owner`` contradict it, but for
#: ``--accept``, ``--root``, ``--cek`` and ``--ca``, which add to it.
_OPTIONS: Final = (
    click.option("--owner", metavar="FILE", help="GuestOwner file, in place of what follows."),
    click.option("--firmware", metavar="FILE", help="Your own copy of the firmware."),
    click.option("--vcpus", type=VcpuRange(), help="vCPUs at the start (SEV-ES)."),
    click.option("--vcpu-type", metavar="MODEL", help="CPU model, such as EPYC-Milan (SEV-ES)."),
    click.option("--vcpu-sig", type=HexNumber(32), help="CPUID signature instead of a model."),
    click.option(
        "--guest-policy",
        type=GuestPolicy(_is_kubevirts),
        help="1 for KubeVirt's SEV, 5 for SEV-ES.",
    ),
    click.option(
        "--reference", metavar="FILE", help="Reference set, in place of --vcpus and a CPU."
    ),
    click.option(
        "--secret",
        "secrets",
        metavar="GUID=FILE",
        multiple=True,
        help="A secret, and the GUID by which the guest finds it. May be repeated.",
    ),
    click.option("--min-firmware", type=FirmwareVersion(), help="Oldest SEV firmware to accept."),
    click.option(
        "--chip",
        "chips",
        type=Sha256Hex(),
        multiple=True,
        help="Accept this chip: SHA-256 of the CEK's 1028-byte key field. Repeatable.",
    ),
    click.option(
        "--cek",
        "ceks",
        metavar="FILE",
        multiple=True,
        help="A chip's certificate signed by AMD, for chains that have it unsigned. Repeatable.",
    ),
    click.option("--ca", metavar="FILE", help="ASK and ARK in one file; else the bundled ones."),
    click.option(
        "--root",
        "roots",
        metavar="FILE",
        multiple=True,
        help="Trust this ARK too (simulated hardware). Repeatable.",
    ),
    click.option(
        "--accept",
        type=click.Choice(list(RISKS)),
        multiple=True,
        help="Release secrets although this is not measured. Repeatable.",
    ),
)
_CONTRADICTS: Final = (
    "firmware",
    "vcpus",
    "vcpu_type",
    "vcpu_sig",
    "guest_policy",
    "reference",
    "secrets",
    "min_firmware",
    "chips",
)


def owner_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that describe an owner, for ``read_owner`` to take."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read_owner(given: dict[str, Any]) -> Owner:
    """Return the owner that the options describe. Raises as ``load_owner``, and ``UsageError``.

    Paths in a GuestOwner file are relative to its folder.
    """
    if given["owner"] is None:
        return load_owner(_from_options(given), Files(_read, _read_secret))
    for name in _CONTRADICTS:
        if given[name] not in {None, ()}:
            option = name.removesuffix("s") if name in {"secrets", "chips"} else name
            raise UsageError(f"--{option.replace('_', '-')} with --owner, whose file says it")
    file = parse_owner_file(read_file(given["owner"], limit=LIMIT))
    return load_owner(_added(file, given, Path.cwd()), files_beside(given["owner"]))


def files_beside(owner: str) -> Files:
    """Return how the files are read that a GuestOwner file names: relative to its folder."""
    folder = Path() if owner == "-" else Path(owner).parent
    return Files(
        lambda name, limit: _read(str(folder / name), limit),
        lambda name, limit: _read_secret(str(folder / name), limit),
    )


def _added(file: OwnerFile, given: dict[str, Any], here: Path) -> OwnerFile:
    """Return the file with what the options add; their paths are relative to where we are."""
    from dataclasses import replace  # noqa: PLC0415  # only with --owner

    if given["ca"] is not None and file.ca is not None:
        raise UsageError("--ca with --owner, whose file says it")
    return replace(
        file,
        accept=tuple(dict.fromkeys((*file.accept, *given["accept"]))),
        roots=(*file.roots, *(str(here / name) for name in given["roots"])),
        ceks=(*file.ceks, *(str(here / name) for name in given["ceks"])),
        ca=file.ca if given["ca"] is None else str(here / given["ca"]),
    )


def _from_options(given: dict[str, Any]) -> OwnerFile:
    if given["firmware"] is None:
        raise UsageError("no firmware is named", hint="give --owner FILE, or --firmware FILE")
    if given["guest_policy"] is None:
        raise UsageError("no guest policy is named", hint="--guest-policy 1 for SEV, 5 for SEV-ES")
    mode = _MODES[given["guest_policy"]]
    cpu = _cpu(given)
    described = given["vcpus"] is not None or cpu is not None
    if given["reference"] is not None and described:
        raise UsageError("--reference with --vcpus or a CPU, which it has already")
    if (
        mode is Mode.SEV_ES
        and given["reference"] is None
        and (given["vcpus"] is None or cpu is None)
    ):
        raise UsageError(
            "SEV-ES needs --vcpus and one of --vcpu-type and --vcpu-sig",
            hint="its digest covers the vCPUs; or give --reference FILE",
        )
    return OwnerFile(
        modes=(mode,),
        firmware=given["firmware"],
        reference=given["reference"],
        vcpus=given["vcpus"],
        cpus=() if cpu is None else (cpu,),
        min_firmware=given["min_firmware"],
        ca=given["ca"],
        roots=given["roots"],
        ceks=given["ceks"],
        chips=given["chips"],
        accept=tuple(dict.fromkeys(given["accept"])),
        secrets=_secrets(given["secrets"]),
    )


def _cpu(given: dict[str, Any]) -> Cpu | None:
    model, signature = given["vcpu_type"], given["vcpu_sig"]
    if model is not None and signature is not None:
        raise UsageError("--vcpu-type and --vcpu-sig name the CPU twice")
    if model is not None:
        return Cpu(model, signature_of_model(model))
    return None if signature is None else Cpu(f"{signature:#x}", signature)


def _secrets(values: tuple[str, ...]) -> tuple[tuple[UUID, str], ...]:
    found = tuple(_split(value) for value in values)
    guids = [guid for guid, _ in found]
    if len(set(guids)) != len(guids):
        raise UsageError("--secret names one GUID twice", hint="a guest would find only one")
    return found


def _split(value: str) -> tuple[UUID, str]:
    text, separator, path = value.partition("=")
    if not separator or not path:
        raise UsageError("--secret is not GUID=FILE", hint="secrets come from files, never argv")
    try:
        guid = parse_guid(text)
    except FormatError as error:
        raise UsageError(f"--secret: {error.message}") from error
    if guid.int == 0 or guid == TABLE_GUID:
        raise UsageError("--secret names the nil GUID or the table's own, which no guest looks for")
    return guid, path


def _read(name: str, limit: int) -> bytes:
    return read_file(name, limit=limit)


def _read_secret(name: str, limit: int) -> bytes:
    warn_if_exposed(name)
    try:
        return read_file(name, limit=limit)
    except UsageError as error:
        # Not quoted: it may be the secret itself, and messages end up in logs.
        raise UsageError(
            "a secret's file does not exist", hint="secrets come from files, never argv"
        ) from error
