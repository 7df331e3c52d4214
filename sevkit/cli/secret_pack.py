"""``sevkit secret pack``: the launch secret packet for one verified launch."""

from __future__ import annotations

import base64
import hashlib
import os
from typing import TYPE_CHECKING

import click

from sevkit.abi.secret_packet import (
    SecretPacket,
    check_secret_area,
    seal_packet,
)
from sevkit.abi.session import IV_SIZE, TransportKeys
from sevkit.cli.base import Command, settings
from sevkit.cli.file_set import write_together
from sevkit.cli.files import check_new, refuse_shared_stdin
from sevkit.cli.launch_options import read_firmware
from sevkit.cli.render import show_json
from sevkit.cli.secret_options import parse_secrets, read_secret_table, secret_area_of
from sevkit.cli.sev_options import read_key
from sevkit.errors import FormatError, UsageError
from sevkit.measure.launch_measurement import parse_launch_measurement_base64

if TYPE_CHECKING:
    from uuid import UUID


@click.command(cls=Command, short_help="Encrypt a secret table for one launch.")
@click.option("--tik", required=True, metavar="FILE", help="The session's TIK, 16 bytes.")
@click.option("--tek", required=True, metavar="FILE", help="The session's TEK, 16 bytes.")
@click.option(
    "--measurement",
    required=True,
    metavar="BASE64",
    help="The launch measurement, 48 bytes; verify it first with 'sevkit attest launch'.",
)
@click.option(
    "--secret",
    "secrets",
    required=True,
    multiple=True,
    metavar="GUID=FILE",
    help="A secret, and the GUID by which the guest finds it. May be repeated.",
)
@click.option(
    "--firmware", metavar="FILE", help="Check that the firmware's launch secret area has room."
)
@click.option("--out-header", required=True, metavar="FILE", help="Where the header goes.")
@click.option("--out-payload", required=True, metavar="FILE", help="Where the ciphertext goes.")
@click.option(
    "--format",
    "encoding",
    type=click.Choice(["base64", "raw"]),
    default="base64",
    show_default=True,
    help="base64 is what virsh, QEMU and KubeVirt take.",
)
def command(
    *,
    tik: str,
    tek: str,
    measurement: str,
    secrets: tuple[str, ...],
    firmware: str | None,
    out_header: str,
    out_payload: str,
    encoding: str,
) -> None:
    """Encrypt secrets for injection into one launch, the one with this MEASUREMENT.

    The packet opens in no other launch. Pack once for each launch and keep the packet if it has
    to be sent again. Only pack for a launch that 'sevkit attest launch' accepted: this command
    cannot know.

    \b
    Example:
      sevkit secret pack --tik tik.bin --tek tek.bin --measurement "$M" \\
        --secret 736869e5-84f0-4973-92ec-06879ce3da0b=disk.key \\
        --firmware OVMF.amdsev.fd --out-header header.b64 --out-payload secret.b64
    """  # noqa: D301  # \b is click's mark for lines kept as they are
    named = parse_secrets(secrets)
    _check_options(named, [tik, tek, firmware], out_header, out_payload)
    found = parse_launch_measurement_base64(measurement)
    keys = TransportKeys(tek=read_key(tek, "TEK"), tik=read_key(tik, "TIK"))
    if keys.tek == keys.tik:
        raise FormatError("TEK", "is the same key as the TIK")
    table = read_secret_table(named)
    if firmware is not None:
        check_secret_area(table, secret_area_of(read_firmware(firmware)))
    packet = seal_packet(keys, table, measure=found.measure, iv=os.urandom(IV_SIZE))
    _write(packet, out_header, out_payload, raw=encoding == "raw")
    _show(packet, len(table), out_header, out_payload)


def _check_options(
    named: list[tuple[UUID, str]], files: list[str | None], header: str, payload: str
) -> None:
    refuse_shared_stdin(*files, *(path for _, path in named))
    for option, path in (("--out-header", header), ("--out-payload", payload)):
        if path in {"", "-"}:
            raise UsageError(f"{option} needs a file")
        check_new(path)
    if os.path.abspath(header) == os.path.abspath(payload):  # noqa: PTH100  # no link is followed
        raise UsageError("--out-header and --out-payload name one file")


def _write(packet: SecretPacket, header: str, payload: str, *, raw: bool) -> None:
    """Write both files, or neither: a header without its payload is no packet."""

    def encode(data: bytes) -> bytes:
        return data if raw else base64.b64encode(data)

    write_together({payload: encode(packet.ciphertext), header: encode(packet.header)})


def _show(packet: SecretPacket, size: int, header: str, payload: str) -> None:
    document = {
        "schema": "sevkit.io/secret-packet/v1",
        "header": base64.b64encode(packet.header).decode("ascii"),
        "secret": base64.b64encode(packet.ciphertext).decode("ascii"),
        "table_bytes": size,
        "header_sha256": hashlib.sha256(packet.header).hexdigest(),
        "files": {"header": header, "payload": payload},
    }
    if settings().json:
        show_json(document)
        return
    click.echo(header)
    click.echo(payload)
