"""``sevkit inspect session``: what a launch session blob says."""

from __future__ import annotations

import base64
import binascii

import click

from sevkit.abi.session import SESSION, parse_session
from sevkit.cli.base import Command, settings
from sevkit.cli.files import read_file
from sevkit.cli.render import show_json
from sevkit.errors import FormatError


@click.command(cls=Command, short_help="A launch session blob.")
@click.argument("file", metavar="FILE")
def command(file: str) -> None:
    """Show the fields of a launch session: 128 bytes, raw or in base64 ('-' is standard input).

    Nothing is verified, and nothing in a session is secret: the keys in it are encrypted for the
    platform.

    \b
    Example:
      sevkit inspect session session.b64
    """  # noqa: D301  # \b is click's mark for lines kept as they are
    blob = parse_session(_decode(read_file(file)))
    fields = {field.name: getattr(blob, field.name).hex() for field in SESSION.fields}
    if settings().json:
        show_json({"schema": "sevkit.io/inspect/v1", "kind": "session", "fields": fields})
        return
    for name, value in fields.items():
        click.echo(f"{name:<11} {value}")


def _decode(data: bytes) -> bytes:
    if len(data) == SESSION.size:
        return data
    text = data.strip()
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FormatError(
            SESSION.name, f"neither {SESSION.size} bytes nor base64 of them", offset=0
        ) from error
