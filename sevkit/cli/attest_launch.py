"""``sevkit attest launch``: is this paused SEV or SEV-ES guest the owner's own."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any, Final

import click

from sevkit.attest.sev_explain import explain_launch
from sevkit.attest.sev_launch import LaunchClaim, LaunchExpectations, judge_launch
from sevkit.cli.base import Command
from sevkit.cli.files import read_file, refuse_shared_stdin
from sevkit.cli.launch_expected import check_launch_options, expected_digests, launch_options
from sevkit.cli.launch_options import check_boot_options, hash_boot, read_firmware
from sevkit.cli.launch_reference import Expected, check_reference_options, read_expected
from sevkit.cli.render import show_verdict
from sevkit.cli.sev_options import policy_option, read_key
from sevkit.cli.values import FirmwareVersion, WholeNumber
from sevkit.errors import UsageError
from sevkit.kubevirt.subresources import parse_measurement_info
from sevkit.measure.launch_measurement import (
    parse_launch_measurement,
    parse_launch_measurement_base64,
)

_BYTE: Final = WholeNumber(0, 255)


@click.command(cls=Command, short_help="Verify a SEV or SEV-ES launch.")
@click.option("--measurement", metavar="BASE64", help="The launch measurement, 48 bytes.")
@click.option("--info", metavar="FILE", help="KubeVirt's SEVMeasurementInfo JSON instead.")
@click.option("--api-major", type=_BYTE, help="API level of the platform; --info has it.")
@click.option("--api-minor", type=_BYTE, help="The same, minor number.")
@click.option("--build-id", type=_BYTE, help="Build of the platform's SEV firmware.")
@click.option("--tik", required=True, metavar="FILE", help="The session's TIK, 16 bytes.")
@policy_option
@launch_options(demands_firmware=False)
@click.option(
    "--reference",
    metavar="FILE",
    help="Reference set from 'sevkit measure --output json', instead of what describes the guest.",
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
        expected_digests(given, firmware, hashes),
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
    files = ("info", "tik", "firmware", "reference", "kernel", "initrd")
    refuse_shared_stdin(*(given[name] for name in files), *given["vmsas"])
    if given["reference"] is not None:
        check_boot_options(given["kernel"], given["initrd"], given["cmdline"])
        check_reference_options(given)
        return
    if given["firmware"] is None:
        raise UsageError("no launch digest is expected", hint="give --firmware, or --reference")
    check_launch_options(given)


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
