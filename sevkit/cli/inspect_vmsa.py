"""``sevkit inspect vmsa``: the registers of a VMSA page."""

from __future__ import annotations

import json
from typing import Final

import click

from sevkit.abi.vmsa import SevFeatures, Vmsa, parse_vmsa
from sevkit.cli.base import Command, settings
from sevkit.cli.files import read_file
from sevkit.measure.vcpu import names_of_signature

SCHEMA: Final = "sevkit.io/vmsa/v1"


@click.command(cls=Command, short_help="A VMSA page.")
@click.argument("file", metavar="FILE")
@click.option("--all", "everything", is_flag=True, help="Also fields that are zero.")
def command(file: str, *, everything: bool) -> None:
    """Show the fields of FILE, a 4096-byte VMSA page, under AMD's names.

    \b
    Example:
      sevkit inspect vmsa vmsa0.bin
    """  # noqa: D301  # \b is click's mark for lines kept as they are
    vmsa = parse_vmsa(read_file(file))
    if settings().json:
        values = {name: _shown(value) for name, value in vmsa.values.items()}
        click.echo(json.dumps({"schema": SCHEMA, "fields": values}))
        return
    for name, value in vmsa.values.items():
        if everything or (any(value) if isinstance(value, bytes) else value):
            click.echo(f"{name}\t{_shown(value)}{_remark(name, vmsa)}")


def _shown(value: int | bytes) -> str:
    return value.hex() if isinstance(value, bytes) else f"{value:#x}"


def _remark(name: str, vmsa: Vmsa) -> str:
    if name == "rdx":
        names = names_of_signature(vmsa.register(name))
        return f"\t{', '.join(names)}" if names else ""
    if name == "sev_features":
        return f"\t{_features(vmsa.register(name))}"
    return ""


def _features(value: int) -> str:
    known = [bit.name or "" for bit in SevFeatures if bit & value]
    unknown = value & ~sum(SevFeatures)
    return ", ".join(known + ([f"unknown {unknown:#x}"] if unknown else []))
