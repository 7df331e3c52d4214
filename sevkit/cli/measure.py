"""``sevkit measure``: the launch digests that a guest should have."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import click

from sevkit.cli.base import Command, settings
from sevkit.cli.files import read_file, refuse_shared_stdin
from sevkit.cli.inject_options import KubeVirtVersion
from sevkit.cli.launch_options import (
    check_boot_options,
    check_features,
    features_of,
    hash_boot,
    mode_option,
    read_firmware,
)
from sevkit.cli.messages import warn
from sevkit.cli.reference_set import check_release, describe_references, extended
from sevkit.cli.values import HexNumber, VcpuRange
from sevkit.documents import DOCUMENT_LIMIT, parse_documents
from sevkit.errors import UsageError
from sevkit.kubevirt.manifests import ManifestLaunch, parse_manifest
from sevkit.measure.reference import ReferenceSet, encode_reference_set
from sevkit.measure.sweep import ANY_CPU, Cpu, Request, compute_references
from sevkit.measure.terms import Era, Mode, Vmm
from sevkit.measure.vcpu import measures_cpu, signature_of_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sevkit.kubevirt.installation import Installation


@final
@dataclass(frozen=True, slots=True)
class _Asked:
    """The options as given; None or empty where they were not."""

    mode: Mode | None
    vcpus: tuple[int, int] | None
    models: tuple[str, ...]
    signatures: tuple[int, ...]
    era: Era | None
    features: int | None
    vmm: Vmm | None
    firmware_hash: bytes | None


@click.command(cls=Command, short_help="Compute expected launch digests.")
@mode_option
@click.option("--firmware", required=True, metavar="FILE", help="Your own copy of the firmware.")
@click.option("--vcpus", type=VcpuRange(), help="vCPUs, or a range of counts (1 to 512).")
@click.option("--vcpu-type", multiple=True, metavar="MODEL", help="CPU model, as EPYC-Milan.")
@click.option(
    "--vcpu-sig", multiple=True, type=HexNumber(32), help="CPUID signature, for host CPUs."
)
@click.option(
    "--era",
    type=click.Choice([era.value for era in Era]),
    help="SEV-ES registers: init (KVM_SEV_ES_INIT, QEMU's and KubeVirt's) or init2.",
)
@click.option("--kernel", metavar="FILE", help="Kernel, if QEMU runs with kernel-hashes=on.")
@click.option("--initrd", metavar="FILE", help="Initrd that goes with --kernel.")
@click.option("--cmdline", metavar="TEXT", help="Command line that goes with --kernel, verbatim.")
@click.option(
    "--guest-features",
    type=HexNumber(64),
    help="SEV_FEATURES of the vCPUs.  [default: 0x1 for snp, 0 for sev-es]",
)
@click.option(
    "--vmm", type=click.Choice([vmm.value for vmm in Vmm]), help="Hypervisor.  [default: qemu]"
)
@click.option("--vmi", metavar="FILE", help="Take what is not given from this VM or VMI manifest.")
@click.option(
    "--kubevirt-version",
    "installation",
    type=KubeVirtVersion(),
    help="Release of KubeVirt that --vmi and --firmware are for; goes into the set.",
)
@click.option(
    "--extend", metavar="FILE", help="With --output json: begin with this reference set's digests."
)
@click.option(
    "--format",
    "encoding",
    type=click.Choice(["hex", "base64"]),
    default="hex",
    help="How text shows digests.",
    show_default=True,
)
@click.option(
    "--firmware-hash", metavar="HEX", help="SNP: digest after the firmware's pages, 48 bytes."
)
def command(
    *,
    mode: str | None,
    firmware: str,
    vcpus: tuple[int, int] | None,
    vcpu_type: tuple[str, ...],
    vcpu_sig: tuple[int, ...],
    era: str | None,
    kernel: str | None,
    initrd: str | None,
    cmdline: str | None,
    guest_features: int | None,
    vmm: str | None,
    vmi: str | None,
    installation: Installation | None,
    extend: str | None,
    encoding: str,
    firmware_hash: str | None,
) -> None:
    """Compute the launch digests that a guest should have.

    Compare them with what the secure processor signed or authenticated, never with what the host
    says. One digest is printed alone; several as lines of digest, tab, and what it is for. The
    answer of --output json is a reference set, which attest report and attest launch take with
    --reference. Give --vcpu-type for each CPU that the hosts have; --extend adds digests of other
    modes and firmwares.

    \b
    Example:
      sevkit measure --mode snp --firmware OVMF.amdsev.fd --vcpus 4 --vcpu-type EPYC-Milan
      sevkit measure --vmi vm.yaml --firmware OVMF.amdsev.fd --kubevirt-version v1.9.0 \\
        --output json > reference.json
    """  # noqa: D301  # \b is click's mark for lines kept as they are
    check_boot_options(kernel, initrd, cmdline)
    refuse_shared_stdin(firmware, kernel, initrd, vmi, extend)
    _check_output(encoding, extend)
    asked = _Asked(
        Mode(mode) if mode else None,
        vcpus,
        vcpu_type,
        vcpu_sig,
        Era(era) if era else None,
        guest_features,
        Vmm(vmm) if vmm else None,
        _firmware_hash(firmware_hash),
    )
    for model in asked.models:
        signature_of_model(model)
    if vmi is None:
        _check(asked, _mode(asked, None))
    release = None if installation is None else installation.version
    if release is not None and vmi is None:
        raise UsageError("--kubevirt-version without --vmi", hint="it says what a manifest is for")
    manifest = None if vmi is None else _read_manifest(vmi)
    if manifest is not None:
        check_release(release, manifest)
    chosen = _mode(asked, manifest)
    _check(asked, chosen)
    first, last = _vcpus(asked, chosen, manifest)
    cpus = _cpus(asked, chosen, manifest)
    request = Request(
        chosen,
        read_firmware(firmware),
        first,
        last,
        cpus,
        (asked.era,) if asked.era else (Era.INIT, Era.INIT2),
        features_of(chosen, asked.features),
        asked.vmm or Vmm.QEMU,
        hash_boot(kernel, initrd, cmdline),
        asked.firmware_hash,
    )
    if asked.firmware_hash is not None:
        warn(f"the pages of {firmware} are not looked at: --firmware-hash stands for them")
    references = describe_references(compute_references(request), firmware, manifest, release)
    if settings().json:
        click.echo(encode_reference_set(extended(references, extend)))
        return
    _show(references, encoding)


def _check_output(encoding: str, extend: str | None) -> None:
    if encoding == "base64" and settings().json:
        raise UsageError("--format base64 is for text; a reference set has its digests in hex")
    if extend is not None and not settings().json:
        raise UsageError("--extend is for reference sets", hint="add --output json")


def _firmware_hash(text: str | None) -> bytes | None:
    if text is None:
        return None
    if len(text) != 96 or not set(text) <= set("0123456789abcdefABCDEF"):
        raise UsageError("--firmware-hash is not 48 bytes in hex (96 digits)")
    return bytes.fromhex(text)


def _read_manifest(path: str) -> ManifestLaunch:
    found = parse_manifest(parse_documents(read_file(path, limit=DOCUMENT_LIMIT), path))
    for note in found.notes:
        warn(note)
    return found


def _mode(asked: _Asked, manifest: ManifestLaunch | None) -> Mode:
    if manifest is None:
        if asked.mode is None:
            raise UsageError("--mode is missing", hint="--mode sev, sev-es or snp, or --vmi FILE")
        return asked.mode
    if asked.mode not in {None, manifest.mode}:
        raise UsageError(f"--mode {asked.mode}, but the manifest asks for {manifest.mode}")
    return manifest.mode


def _check(asked: _Asked, mode: Mode) -> None:
    """Refuse options that would change nothing: their user expects that they do."""
    foreign: Mapping[str, bool] = {
        "--era": asked.era is not None and mode is not Mode.SEV_ES,
        "--vmm": asked.vmm not in {None, Vmm.QEMU} and mode is not Mode.SNP,
        "--firmware-hash": asked.firmware_hash is not None and mode is not Mode.SNP,
    }
    for option, refused in foreign.items():
        if refused:
            raise UsageError(f"{option} has no meaning for --mode {mode}")
    check_features(mode, () if asked.features is None else (asked.features,))


def _vcpus(asked: _Asked, mode: Mode, manifest: ManifestLaunch | None) -> tuple[int, int]:
    if asked.vcpus is not None:
        return asked.vcpus
    if mode is Mode.SEV:
        return 1, 1
    if manifest is None:
        raise UsageError("--vcpus is missing", hint=f"a {mode} digest covers each vCPU")
    if manifest.vcpus is None:
        raise UsageError(manifest.why_no_vcpus, hint="give --vcpus")
    most = manifest.most_vcpus
    if most > manifest.vcpus:
        warn(
            f"maxSockets lets the VM be given up to {most} vCPUs, all measured at its next start: "
            f"for those too, --vcpus {manifest.vcpus}-{most}"
        )
    return manifest.vcpus, manifest.vcpus


def _cpus(asked: _Asked, mode: Mode, manifest: ManifestLaunch | None) -> tuple[Cpu, ...]:
    if mode is Mode.SEV or not measures_cpu(asked.vmm or Vmm.QEMU):
        return (Cpu(ANY_CPU, 0),)
    found = [Cpu(model, signature_of_model(model)) for model in asked.models]
    found += [Cpu(f"signature {value:#x}", value) for value in asked.signatures]
    if found:
        return tuple(found)
    if manifest is None:
        raise UsageError(
            "--vcpu-type or --vcpu-sig is missing", hint=f"a {mode} digest covers the CPU model"
        )
    if manifest.cpu_model is None:
        raise UsageError(
            manifest.why_no_cpu,
            hint="give --vcpu-type MODEL, or --vcpu-sig with the host's CPUID signature, for each "
            "kind of host",
        )
    return (Cpu(manifest.cpu_model, signature_of_model(manifest.cpu_model)),)


def _show(references: ReferenceSet, encoding: str) -> None:
    for entry in references.entries:
        digest = entry.digest.hex()
        if encoding == "base64":
            digest = base64.b64encode(entry.digest).decode()
        click.echo(digest if len(references.entries) == 1 else f"{digest}\t{entry.label}")
