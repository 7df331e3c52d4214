"""``sevkit inspect firmware``: what an OVMF image says to SEV."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

import click

from sevkit.cli.base import Command, settings
from sevkit.cli.launch_options import read_firmware
from sevkit.measure.launch_digest import compute_firmware_hash
from sevkit.measure.ovmf import ENTRY_NAMES, Area, Ovmf, parse_ovmf

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA: Final = "sevkit.io/firmware/v1"


@click.command(cls=Command, short_help="An OVMF image's SEV tables.")
@click.argument("file", metavar="FILE")
def command(file: str) -> None:
    """Show the footer table and the SEV metadata of FILE, an OVMF image ('-' is standard input).

    They say where the launch secret and the kernel hashes go, and how vCPUs start. Nothing is
    verified, because nothing in a firmware file is signed: compare its SHA-256 with your own.

    \b
    Example:
      sevkit inspect firmware OVMF.amdsev.fd
    """  # noqa: D301  # \b is click's mark for lines kept as they are
    document = _document(parse_ovmf(read_firmware(file)))
    if settings().json:
        click.echo(json.dumps(document))
        return
    for line in _lines(document):
        click.echo(line)


def _area(area: Area | None) -> dict[str, str | int] | None:
    return None if area is None else {"gpa": f"{area.gpa:#x}", "size": area.size}


def _document(ovmf: Ovmf) -> dict[str, Any]:
    eip = ovmf.reset_eip
    sections = ovmf.sections
    return {
        "schema": SCHEMA,
        "size": len(ovmf.data),
        "gpa": f"{ovmf.gpa:#x}",
        "sha256": hashlib.sha256(ovmf.data).hexdigest(),
        "firmware_hash": compute_firmware_hash(ovmf.data).hex(),
        "reset_eip": None if eip is None else f"{eip:#x}",
        "hash_table": _area(ovmf.hash_table),
        "secret_area": _area(ovmf.secret_area),
        "sections": None
        if sections is None
        else [
            {"type": section.kind.name, "gpa": f"{section.gpa:#x}", "size": section.size}
            for section in sections
        ],
        "footer": None
        if ovmf.entries is None
        else [
            {
                "guid": str(entry.guid),
                "name": ENTRY_NAMES.get(entry.guid, ""),
                "offset": entry.offset,
                "data": entry.data[:64].hex(),
                "size": len(entry.data),
            }
            for entry in ovmf.entries
        ],
    }


def _lines(found: dict[str, Any]) -> Iterator[str]:
    yield f"size\t{found['size']} bytes at {found['gpa']}"
    yield f"sha256\t{found['sha256']}"
    yield f"firmware hash\t{found['firmware_hash']}"
    yield f"AP reset address\t{found['reset_eip'] or 'none'}"
    for key, name in (("hash_table", "kernel hashes"), ("secret_area", "launch secret")):
        area = found[key]
        yield f"{name}\t{area['gpa']}, {area['size']} bytes" if area else f"{name}\tno place"
    if found["sections"] is None:
        yield "SEV metadata\tnone"
    for section in found["sections"] or ():
        yield f"section\t{section['gpa']}, {section['size']} bytes, {section['type']}"
    if found["footer"] is None:
        yield "footer table\tnone"
    for entry in found["footer"] or ():
        yield f"footer entry\t{entry['guid']}, {entry['name'] or 'unknown'}"
