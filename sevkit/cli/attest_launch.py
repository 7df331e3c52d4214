"""``sevkit attest launch``: is this paused SEV or SEV-ES guest the owner's own."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from sevkit.abi.policy import SevPolicy, parse_sev_policy
from sevkit.attest.sev_explain import explain_launch
from sevkit.attest.sev_launch import LaunchClaim, LaunchExpectations, judge_launch
from sevkit.cli.base import Command
from sevkit.cli.files import read_file, refuse_shared_stdin
from sevkit.cli.launch_options import (
    check_boot_options,
    features_of,
    hash_boot,
    read_firmware,
)
from sevkit.cli.launch_reference import Expected, check_reference_options, read_expected
from sevkit.cli.messages import warn
from sevkit.cli.render import show_verdict
from sevkit.cli.sev_options import policy_option, read_key
from sevkit.cli.values import FirmwareVersion, HexNumber, WholeNumber
from sevkit.errors import UsageError
from sevkit.kubevirt.subresources import parse_measurement_info
from sevkit.measure.launch_digest import compute_sev_es_digest_of_pages
from sevkit.measure.launch_measurement import (
    parse_launch_measurement,
    parse_launch_measurement_base64,
)
from sevkit.measure.reference import Reference
from sevkit.measure.sweep import Cpu, Request, compute_references
from sevkit.measure.terms import MAX_VCPUS, Mode
from sevkit.measure.vcpu import signature_of_model

if TYPE_CHECKING:
    from sevkit.measure.kernel_hashes import KernelHashes

_BYTE: Final = WholeNumber(0, 255)


@click.command(cls=Command, short_help="Verify a SEV or SEV-ES launch.")
@click.option("--measurement", metavar="BASE64", help="The launch measurement, 48 bytes.")
@click.option("--info", metavar="FILE", help="KubeVirt's SEVMeasurementInfo JSON instead.")
@click.option("--api-major", type=_BYTE, help="API level of the platform; --info has it.")
@click.option("--api-minor", type=_BYTE, help="The same, minor number.")
@click.option("--build-id", type=_BYTE, help="Build of the platform's SEV firmware.")
@click.option("--tik", required=True, metavar="FILE", help="The session's TIK, 16 bytes.")
@policy_option
@click.option("--firmware", metavar="FILE", help="Your own copy of the firmware.")
@click.option(
    "--reference",
    metavar="FILE",
    help="Reference set from 'sevkit measure --output json', instead of what describes the guest.",
)
@click.option("--kernel", metavar="FILE", help="Kernel of a measured direct boot.")
@click.option("--initrd", metavar="FILE", help="Its initrd.")
@click.option("--cmdline", metavar="TEXT", help="Its command line, exactly.")
@click.option("--vcpus", type=WholeNumber(1, MAX_VCPUS), help="vCPUs at the start (SEV-ES).")
@click.option("--vcpu-type", metavar="MODEL", help="CPU model, such as EPYC-Milan (SEV-ES).")
@click.option("--vcpu-sig", type=HexNumber(32), help="CPUID signature instead of a model.")
@click.option(
    "--guest-features", type=HexNumber(64), help="SEV_FEATURES of the VMSA.  [default: 0]"
)
@click.option(
    "--vmsa",
    "vmsas",
    metavar="FILE",
    multiple=True,
    help="VMSA page of each vCPU in order; with --vcpus the second stands for all further ones.",
)
@click.option("--min-firmware", type=FirmwareVersion(), help="Oldest SEV firmware to accept.")
@click.option("--allow-debug", is_flag=True, help="Accept a policy without NODBG.")
@click.option(
    "--explain/--no-explain",
    default=True,
    show_default=True,
    help="On a mismatch, search for parameters that fit; takes a second.",
)
@click.option("--html", metavar="FILE", help="Also write the verdict as a page for people.")
def command(html: str | None, **given: Any) -> int:  # noqa: ANN401  # twenty options, read by name
    """Verify the launch measurement of a paused SEV or SEV-ES guest, before secrets go in.

    The measurement is an HMAC keyed by the session's TIK over the launch digest of your own
    firmware file (for SEV-ES also of every vCPU), the guest policy and the platform's firmware
    level. For SEV-ES both register eras are tried, and the answer says which one matched. On a
    mismatch, other vCPU counts, CPUs and policies are tried, to say what would have fitted.

    A reference set has the digests already: with --reference, --firmware only serves to explain a
    mismatch, and has to be the file that the set was made from.

    \b
    Example:
      sevkit attest launch --info measurement.json --tik tik.bin --guest-policy 5 \\
        --firmware OVMF.amdsev.fd --vcpus 4 --vcpu-type EPYC-Milan
      sevkit attest launch --info measurement.json --tik tik.bin --guest-policy 5 \\
        --reference reference.json
    """  # noqa: D301  # \b is click's mark for lines kept as they are
    _check_options(given)
    claim = _read_claim(given)
    tik = read_key(given["tik"], "TIK")
    expected = _expected(given) if given["reference"] is None else read_expected(given)
    verdict, _ = judge_launch(
        claim,
        tik,
        given["policy"],
        expected.references,
        LaunchExpectations(
            min_firmware=given["min_firmware"],
            allow_debug=given["allow_debug"],
            firmware_sha256=expected.firmware_sha256,
        ),
        at=datetime.now(UTC),
        explain=expected.explain if given["explain"] else None,
    )
    return show_verdict(verdict, html)


def _expected(given: dict[str, Any]) -> Expected:
    """Return what the options that describe the guest say."""
    firmware = read_firmware(given["firmware"])
    hashes = hash_boot(given["kernel"], given["initrd"], given["cmdline"])
    return Expected(
        _references(given, firmware, hashes),
        hashlib.sha256(firmware).hexdigest(),
        explain_launch(firmware, hashes, vcpus=given["vcpus"]),
    )


def _check_options(given: dict[str, Any]) -> None:
    numbers = [name for name in ("api_major", "api_minor", "build_id") if given[name] is not None]
    if (given["measurement"] is None) == (given["info"] is None):
        raise UsageError("give either --measurement or --info")
    if given["info"] is not None and numbers:
        raise UsageError(f"--{numbers[0].replace('_', '-')} with --info, which has its own")
    if given["measurement"] is not None and len(numbers) != 3:
        raise UsageError("--measurement needs --api-major, --api-minor and --build-id")
    check_boot_options(given["kernel"], given["initrd"], given["cmdline"])
    files = ("info", "tik", "firmware", "reference", "kernel", "initrd")
    refuse_shared_stdin(*(given[name] for name in files), *given["vmsas"])
    if given["reference"] is not None:
        check_reference_options(given)
        return
    if given["firmware"] is None:
        raise UsageError("no launch digest is expected", hint="give --firmware, or --reference")
    _check_vcpu_options(given)


def _check_vcpu_options(given: dict[str, Any]) -> None:
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


def _read_claim(given: dict[str, Any]) -> LaunchClaim:
    if given["info"] is None:
        return LaunchClaim(
            parse_launch_measurement_base64(given["measurement"]),
            given["api_major"],
            given["api_minor"],
            given["build_id"],
        )
    info = parse_measurement_info(read_file(given["info"]))
    return LaunchClaim(
        parse_launch_measurement(info.measurement),
        info.api_major,
        info.api_minor,
        info.build_id,
        info.policy,
        info.loader_sha,
    )


def _references(
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
