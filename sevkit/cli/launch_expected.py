"""Options that say what a SEV or SEV-ES launch should be, and the digests that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from sevkit.abi.policy import SevPolicy, parse_sev_policy
from sevkit.cli.files import read_file
from sevkit.cli.launch_options import check_boot_options, features_of
from sevkit.cli.messages import warn
from sevkit.cli.values import HexNumber, WholeNumber
from sevkit.errors import UsageError
from sevkit.measure.launch_digest import compute_sev_es_digest_of_pages
from sevkit.measure.reference import Reference
from sevkit.measure.sweep import Cpu, Request, compute_references
from sevkit.measure.terms import MAX_VCPUS, Mode
from sevkit.measure.vcpu import signature_of_model

if TYPE_CHECKING:
    from sevkit.measure.kernel_hashes import KernelHashes

_Command = TypeVar("_Command", bound=Callable[..., object])

_OPTIONS: Final = (
    click.option("--kernel", metavar="FILE", help="Kernel of a measured direct boot."),
    click.option("--initrd", metavar="FILE", help="Its initrd."),
    click.option("--cmdline", metavar="TEXT", help="Its command line, exactly."),
    click.option("--vcpus", type=WholeNumber(1, MAX_VCPUS), help="vCPUs at the start (SEV-ES)."),
    click.option("--vcpu-type", metavar="MODEL", help="CPU model, such as EPYC-Milan (SEV-ES)."),
    click.option("--vcpu-sig", type=HexNumber(32), help="CPUID signature instead of a model."),
    click.option(
        "--guest-features", type=HexNumber(64), help="SEV_FEATURES of the VMSA.  [default: 0]"
    ),
    click.option(
        "--vmsa",
        "vmsas",
        metavar="FILE",
        multiple=True,
        help="VMSA page of each vCPU in order; with --vcpus the second stands for all further "
        "ones.",
    ),
)


def launch_options(*, demands_firmware: bool = True) -> Callable[[_Command], _Command]:
    """Return what adds the options of firmware, boot and vCPUs; the guest policy has its own."""
    firmware = click.option(
        "--firmware",
        required=demands_firmware,
        metavar="FILE",
        help="Your own copy of the firmware.",
    )

    def add(command: _Command) -> _Command:
        for option in reversed((firmware, *_OPTIONS)):
            command = option(command)
        return command

    return add


def check_launch_options(given: dict[str, Any]) -> None:
    """Refuse a launch that is described twice, or not whole for its guest policy. Opens no file."""
    check_boot_options(given["kernel"], given["initrd"], given["cmdline"])
    model, signature, vcpus, vmsas = (
        given[name] for name in ("vcpu_type", "vcpu_sig", "vcpus", "vmsas")
    )
    if model is not None:
        signature_of_model(model)
    if model is not None and signature is not None:
        raise UsageError("--vcpu-type and --vcpu-sig name the CPU twice")
    has_cpu = model is not None or signature is not None
    es = SevPolicy.ES in parse_sev_policy(given["policy"])
    if vmsas:
        if has_cpu or given["guest_features"] is not None:
            raise UsageError("--vmsa has the registers already: no CPU and no features with it")
        if vcpus is not None and vcpus != len(vmsas) and not (len(vmsas) == 2 < vcpus):
            raise UsageError(f"--vcpus {vcpus} with {len(vmsas)} VMSA pages")
    elif es and (vcpus is not None) != has_cpu:
        raise UsageError("SEV-ES needs --vcpus and one of --vcpu-type and --vcpu-sig")
    elif given["guest_features"] is not None and not has_cpu:
        raise UsageError("--guest-features without --vcpus")
    if es and not (has_cpu or vmsas):
        raise UsageError(
            "the guest policy demands SEV-ES, whose digest covers the vCPUs",
            hint="add --vcpus N and --vcpu-type MODEL or --vcpu-sig HEX, or --vmsa FILE",
        )


def expected_digests(
    given: dict[str, Any], firmware: bytes, hashes: KernelHashes | None
) -> tuple[Reference, ...]:
    """Return the digests that the options describe, first of all plain SEV's if the policy asks it.

    A policy without ES is plain SEV's, so what is said of vCPUs is not expected of such a launch.
    If it is one of SEV-ES nevertheless, the verdict is to say that, not that nothing fits.
    """
    found: list[Reference] = []
    described = bool(given["vmsas"] or given["vcpus"] or _cpu(given))
    if SevPolicy.ES not in parse_sev_policy(given["policy"]):
        found += compute_references(Request(Mode.SEV, firmware, hashes=hashes)).entries
        if described:
            warn("a guest policy without ES is plain SEV's, whose digest covers no vCPUs")
    if given["vmsas"]:
        found.append(_reference_of_pages(given, firmware, hashes))
    elif given["vcpus"] is not None and _cpu(given) is not None:
        found += _sev_es_references(given, firmware, hashes)
    return tuple(found)


def _reference_of_pages(
    given: dict[str, Any], firmware: bytes, hashes: KernelHashes | None
) -> Reference:
    pages = tuple(read_file(path) for path in given["vmsas"])
    pages += pages[-1:] * max(0, (given["vcpus"] or 0) - len(pages))
    digest = compute_sev_es_digest_of_pages(firmware, pages, hashes)
    label = f"{len(pages)} VMSA pages of the owner's"
    return Reference(digest, Mode.SEV_ES, label, hashes is not None)


def _sev_es_references(
    given: dict[str, Any], firmware: bytes, hashes: KernelHashes | None
) -> tuple[Reference, ...]:
    cpu = _cpu(given)
    return compute_references(
        Request(
            Mode.SEV_ES,
            firmware,
            given["vcpus"],
            given["vcpus"],
            () if cpu is None else (cpu,),
            sev_features=features_of(Mode.SEV_ES, given["guest_features"]),
            hashes=hashes,
        )
    ).entries


def _cpu(given: dict[str, Any]) -> Cpu | None:
    model, signature = given["vcpu_type"], given["vcpu_sig"]
    if model is not None:
        return Cpu(model, signature_of_model(model))
    return None if signature is None else Cpu(f"{signature:#x}", signature)
